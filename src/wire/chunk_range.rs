//! `Content-Range` of a chunk of an upload: `first-last`, without a unit (P-151), and `Range` of an upload's state.
//!
//! Source: distribution-spec 1.1 "Pushing a blob in chunks".

/// Returns the first and the last byte; `None` when it is not a range. A unit, as HTTP has it, is passed over.
pub fn parse(text: &str) -> Option<(u64, u64)> {
    let text = text.trim();
    let range = text.strip_prefix("bytes ").unwrap_or(text);
    let (range, _total) = range.split_once('/').unwrap_or((range, ""));
    let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    Some((number(first)?, number(last)?))
}

/// Returns the value of `Range` that says so many bytes have been taken.
pub fn taken(bytes: u64) -> String {
    format!("0-{}", bytes.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_says_where_it_lies() {
        for (text, expected) in [
            ("0-9", Some((0, 9))),
            (" 10-19 ", Some((10, 19))),
            ("bytes 0-9/*", Some((0, 9))),
            ("bytes=0-9", Some((0, 9))),
            ("9-0", Some((9, 0))),
            ("0-", None),
            ("-9", None),
            ("+1-2", None),
            ("0-99999999999999999999", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "P-151: {text:?}");
        }
        assert_eq!((taken(0), taken(1), taken(10)), ("0-0".to_owned(), "0-0".to_owned(), "0-9".to_owned()));
    }
}
