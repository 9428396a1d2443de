//! Splits the path of a request into its parts, from the right, without judging the parts.
//!
//! Repository names contain slashes and may contain the words of the endpoints, so only the end of the path tells
//! what is asked (P-2): `/v2/a/manifests/b/manifests/latest` is the tag `latest` of the repository `a/manifests/b`.

/// A path, split.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// `<registry>` of `/<registry>/v2/…`, decoded.
    pub(super) prefix: Option<String>,
    pub(super) shape: Shape,
}

/// What follows `/v2/`; every text is decoded, none is validated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Base,
    Content {
        name: String,
        kind: Kind,
        /// The last component: a tag or a digest; `list` for tags; an upload's name, or nothing.
        last: String,
    },
    Unknown {
        /// The first component.
        first: String,
        /// True when the second component is `v2` (C-23).
        is_doubled: bool,
    },
}

/// The endpoint's word in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    Blob,
    Tags,
    Referrers,
    Upload,
}

impl Target {
    /// Splits a path; `None` when there is no `/v2` where one should be.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let (first, rest) = next_component(path.strip_prefix('/')?);
        if first == "v2" {
            return Some(Self { prefix: None, shape: shape(rest) });
        }
        let (second, rest) = next_component(rest);
        (second == "v2").then(|| Self { prefix: Some(decode(first)), shape: shape(rest) })
    }
}

/// Splits off the first component; slashes before it collapse, as mirror URLs often end with one too many (P-11).
fn next_component(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.split_once('/').unwrap_or((path, ""))
}

fn shape(rest: &str) -> Shape {
    if rest.is_empty() {
        return Shape::Base;
    }
    // Components are split before decoding: an encoded slash can be part of a name, never of the path's structure (P-10).
    let components: Vec<String> = rest.split('/').map(decode).collect();
    let words: Vec<&str> = components.iter().map(String::as_str).collect();
    let content =
        |name: &[&str], kind, last: &str| Shape::Content { name: name.join("/"), kind, last: last.to_owned() };
    match words.as_slice() {
        [name @ .., "blobs", "uploads", last] => content(name, Kind::Upload, last),
        [name @ .., "manifests", last] => content(name, Kind::Manifest, last),
        [name @ .., "blobs", last] => content(name, Kind::Blob, last),
        [name @ .., "referrers", last] => content(name, Kind::Referrers, last),
        [name @ .., "tags", "list"] => content(name, Kind::Tags, "list"),
        [first, others @ ..] => {
            Shape::Unknown { first: (*first).to_owned(), is_doubled: others.first() == Some(&"v2") }
        }
        [] => Shape::Base,
    }
}

/// Decodes percent-encoding once; a broken escape stays as it is, and what is not UTF-8 becomes U+FFFD: no grammar allows either.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let escaped = match (byte, tail) {
            (b'%', [high, low, tail @ ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, tail)),
            _ => None,
        };
        let (byte, tail) = escaped.unwrap_or((*byte, tail));
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once() {
        let rows = [
            ("sha256%3Aab", "sha256:ab"),
            ("a%2fb", "a/b"),
            ("%2561", "%61"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("a+b", "a+b"),
            ("%00", "\0"),
            ("%ff", "\u{fffd}"),
            ("%c3%a9", "é"),
        ];
        for (text, decoded) in rows {
            assert_eq!(decode(text), decoded, "{text}");
        }
    }

    #[test]
    fn paths_without_the_version_are_no_targets() {
        for path in ["", "/", "*", "v2/", "/v1/", "/v22/", "/a/b/v2/", "/a", "//", "/healthz"] {
            assert_eq!(Target::parse(path), None, "{path}");
        }
    }
}
