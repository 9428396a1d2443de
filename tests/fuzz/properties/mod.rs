//! What must hold of whatever bytes come: one property for each parser of what a stranger sends, an upstream says, or a disk gives back.
//!
//! Each takes any bytes and panics where the property does not hold. `cargo fuzz` drives them by coverage (`tests/fuzz/run`), and
//! `cargo test` with the seeds of `tests/fuzz/corpus` and bounded random changes of them. What either finds becomes a seed.

mod challenge;
mod config;
mod credentials;
mod headers;
mod lists;
mod manifest;
mod presence;
mod range;
mod route;

/// A property of any bytes.
pub(crate) type Property = fn(&[u8]);

/// All properties that need no server, by the names of their seeds' directories.
pub(crate) const PROPERTIES: [(&str, Property); 9] = [
    ("challenge", challenge::holds),
    ("config", config::holds),
    ("credentials", credentials::holds),
    ("headers", headers::holds),
    ("lists", lists::holds),
    ("manifest", manifest::holds),
    ("presence", presence::holds),
    ("range", range::holds),
    ("route", route::holds),
];

/// Returns the lines of an input that can be the values of headers, as they are handed on: visible, tabs and spaces.
fn header_values(input: &[u8]) -> Vec<&str> {
    let values = input.split(|byte| *byte == b'\n');
    let is_visible = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    values.filter(|value| value.iter().all(is_visible)).filter_map(|value| std::str::from_utf8(value).ok()).collect()
}

/// Returns the lines of an input that is text.
fn lines(input: &[u8]) -> Option<Vec<&str>> {
    std::str::from_utf8(input).ok().map(|text| text.split('\n').collect())
}
