//! Where the bytes of an answer stand in their blob, and whether that is what was asked.
//!
//! Source: RFC 9110 §14.4 and §15.3.7; P-67, U-64.

use http::{HeaderMap, StatusCode, header};

use super::answer::{content_length, number, text};

/// Where the bytes of an answer stand in the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placement {
    /// The offset of the first byte.
    pub(super) start: u64,
    /// How many bytes come, when that was announced.
    pub(super) length: Option<u64>,
    /// The blob's whole length, when told.
    pub(super) size_bytes: Option<u64>,
    /// The answer is the range that was asked for, not everything.
    pub(super) is_range: bool,
}

/// Checks that an answer to a request for a blob is one, and reads where its bytes stand (P-67, U-64).
///
/// `asked` is the first byte and the last one, inclusive, when a range was asked for.
pub(super) fn place(
    asked: Option<(u64, Option<u64>)>,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Placement, &'static str> {
    let length = content_length(headers);
    match (status, asked) {
        (StatusCode::OK, _) => Ok(Placement { start: 0, length, size_bytes: length, is_range: false }),
        (StatusCode::PARTIAL_CONTENT, None) => Err("a partial answer though everything was asked for"),
        (StatusCode::PARTIAL_CONTENT, Some((first, last))) => {
            let range = text(headers, &header::CONTENT_RANGE).and_then(content_range);
            let range = range.ok_or("a partial answer without a valid Content-Range")?;
            if range.first != first {
                return Err("a range that starts elsewhere than asked");
            }
            if last.is_some_and(|last| range.last > last) {
                return Err("a range that ends later than asked");
            }
            let count = range.last - range.first + 1;
            if length.is_some_and(|length| length != count) {
                return Err("a Content-Length that contradicts the Content-Range");
            }
            Ok(Placement { start: first, length: Some(count), size_bytes: range.total, is_range: true })
        }
        _ => Err("an answer that is not a blob"),
    }
}

/// Returns the total of `Content-Range: bytes */total`, which a 416 carries.
pub(super) fn unsatisfied_total(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, &header::CONTENT_RANGE)?.strip_prefix("bytes */")?)
}

/// `Content-Range: bytes first-last/total`, with `first <= last < total` (RFC 9110 §14.4).
struct ContentRange {
    first: u64,
    last: u64,
    /// `None` for `*`.
    total: Option<u64>,
}

fn content_range(value: &str) -> Option<ContentRange> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    // The last possible byte is left out, so that a length always fits.
    let is_valid = first <= last && last < u64::MAX && total.is_none_or(|total| last < total);
    is_valid.then_some(ContentRange { first, last, total })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(range: Option<&str>, length: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::CONTENT_RANGE, range), (header::CONTENT_LENGTH, length)] {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_str(value).expect("a valid value"));
            }
        }
        headers
    }

    #[test]
    fn partial_answers_are_taken_only_when_they_are_what_was_asked() {
        let at = |start, length, size_bytes| Some((start, length, size_bytes));
        let from_5 = Some((5, None));
        let five_to_9 = Some((5, Some(9)));
        for (asked, status, range, length, expected) in [
            (None, 200, None, Some("20"), at(0, Some(20), Some(20))),
            (None, 200, None, None, at(0, None, None)),
            (None, 206, Some("bytes 0-19/20"), Some("20"), None),
            (from_5, 206, Some("bytes 5-19/20"), Some("15"), at(5, Some(15), Some(20))),
            (from_5, 206, Some("bytes 5-19/20"), None, at(5, Some(15), Some(20))),
            (from_5, 206, Some("bytes 5-19/*"), Some("15"), at(5, Some(15), None)),
            (five_to_9, 206, Some("bytes 5-9/20"), Some("5"), at(5, Some(5), Some(20))),
            (five_to_9, 206, Some("bytes 5-7/8"), Some("3"), at(5, Some(3), Some(8))),
            (five_to_9, 206, Some("bytes 5-10/20"), Some("6"), None),
            (five_to_9, 200, None, Some("20"), at(0, Some(20), Some(20))),
            (from_5, 206, Some("bytes 6-19/20"), Some("14"), None),
            (from_5, 206, Some("bytes 0-19/20"), Some("20"), None),
            (from_5, 206, Some("bytes 5-19/20"), Some("14"), None),
            (from_5, 206, None, Some("15"), None),
            (from_5, 206, Some("bytes */20"), None, None),
            (from_5, 206, Some("bytes 5-20/20"), None, None),
            (from_5, 206, Some("bytes 5-4/20"), None, None),
            (from_5, 206, Some("bytes +5-19/20"), None, None),
            (from_5, 206, Some("bytes 5-19"), None, None),
            (from_5, 206, Some("items 5-19/20"), None, None),
            (from_5, 206, Some("bytes 5-18446744073709551615/*"), None, None),
            (from_5, 204, None, None, None),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let placed = place(asked, status, &headers(range, length)).ok();
            assert!(placed.is_none_or(|placed| placed.is_range == (status == StatusCode::PARTIAL_CONTENT)));
            let placed = placed.map(|placed| (placed.start, placed.length, placed.size_bytes));
            assert_eq!(placed, expected, "{asked:?} {status} {range:?} {length:?}");
        }
    }

    #[test]
    fn the_size_of_an_unsatisfied_range_is_read() {
        assert_eq!(unsatisfied_total(&headers(Some("bytes */0"), None)), Some(0));
        assert_eq!(unsatisfied_total(&headers(Some("bytes */*"), None)), None);
        assert_eq!(unsatisfied_total(&headers(Some("bytes 0-0/5"), None)), None);
    }

    proptest! {
        #[test]
        fn no_content_range_makes_the_parser_panic(text in "bytes [0-9*/-]{0,60}", first: u64, last: Option<u64>) {
            let placed = place(Some((first, last)), StatusCode::PARTIAL_CONTENT, &headers(Some(&text), None));
            if let Ok(placed) = placed {
                prop_assert_eq!(placed.start, first);
            }
        }
    }
}
