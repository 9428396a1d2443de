//! Conditional requests: `If-None-Match` and `If-Range` against the entity tag `"<digest>"`.
//!
//! Source: RFC 9110 §13.1 (P-38, P-65).

use crate::oci::Digest;

/// Returns true when the lines of `If-None-Match` name this content, so that 304 is the answer.
///
/// The comparison is weak, as RFC 9110 §13.1.2 has it. A digest without quotes counts: older Docker clients send that.
pub fn is_not_modified<'a>(lines: impl IntoIterator<Item = &'a str>, digest: &Digest) -> bool {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_none() {
        return false;
    }
    let bare = digest.to_string();
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| {
        let opaque = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || opaque == bare || unquoted(opaque) == Some(&bare)
    })
}

/// Returns true when the value of `If-Range` is this content, so that `Range` holds; else the whole is the answer (P-65).
///
/// The comparison is strong: a weak tag never matches, and neither does a date, for content here has none (RFC 9110 §13.1.5).
pub fn if_range_matches(value: &str, digest: &Digest) -> bool {
    value.trim() == quoted(digest)
}

fn quoted(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

fn unquoted(tag: &str) -> Option<&str> {
    tag.strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const E: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn digest() -> Digest {
        D.parse().expect("a digest")
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let rows: &[(&str, &[&str], bool)] = &[
            ("strong", &["\"{D}\""], true),
            ("weak", &["W/\"{D}\""], true),
            ("any", &["*"], true),
            ("list", &["\"x\", W/\"{E}\" ,\"{D}\""], true),
            ("lines", &["\"x\"", "\"{D}\""], true),
            ("bare", &["{D}"], true),
            ("none", &[], false),
            ("empty", &["", ","], false),
            ("another", &["\"{E}\""], false),
            ("a part", &["\"{D}x\"", "\"sha256\"", "\"{D}"], false),
            ("lower case weakness is none", &["w/\"{D}\""], false),
        ];
        for (name, lines, expected) in rows {
            let lines: Vec<_> = lines.iter().map(|line| line.replace("{D}", D).replace("{E}", E)).collect();
            assert_eq!(is_not_modified(lines.iter().map(String::as_str), &digest()), *expected, "P-38: {name}");
        }
    }

    #[test]
    fn if_range_compares_strongly() {
        let rows = [
            ("strong", "\"{D}\"", true),
            ("spaces", " \"{D}\" ", true),
            ("weak", "W/\"{D}\"", false),
            ("any", "*", false),
            ("date", "Sat, 29 Oct 1994 19:43:31 GMT", false),
            ("bare", "{D}", false),
            ("list", "\"{D}\", \"{D}\"", false),
            ("empty", "", false),
        ];
        for (name, value, expected) in rows {
            assert_eq!(if_range_matches(&value.replace("{D}", D), &digest()), expected, "P-65: {name}");
        }
    }
}
