//! The `Range` header: which bytes of a blob a client asks for, and which bytes it gets.
//!
//! | asked | blob | answer | rule |
//! |---|---|---|---|
//! | unknown unit, broken syntax | any | as if there were no header: 200 | P-66 |
//! | `a-b`, `a-`, `-n` | `a` inside | 206; an end beyond the last byte is clamped | P-54, P-64 |
//! | `a-…` | `a` at or behind the end | 416 | P-55 |
//! | `500-0` | any | 416, though RFC 9110 would let us ignore it | P-55 |
//! | `-0` | any | 416 | RFC 9110 §14.1.2 |
//! | `0-`, `-n` | empty | 200 | P-46 |
//! | several, all inside | any | 206 with one part for each, in their order | P-60 |
//! | several, none inside | any | 416 | P-55 |
//! | several, some inside | any | 200: parts and ranges would not match one to one | P-60 |
//! | too many, or too much overlap | any | 400 | P-62, S-38 |
//!
//! Source: RFC 9110 §14.

/// Ranges in one request at the most; lazy pullers ask for some dozens (P-62).
pub const RANGES_MAX: usize = 256;

/// Bytes by which the ranges of one request may together exceed the blob: overlapping footers of lazy pullers are legal,
/// a blob many times over in one response is an attack (S-38).
const OVERLAP_MAX: u64 = 1024 * 1024;

/// A `Range` header in bytes: one or more specifications, in the client's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeHeader {
    /// At least one; at most [`RANGES_MAX`] + 1, for more are refused alike.
    specs: Vec<RangeSpec>,
}

/// One range as written; numbers beyond `u64` are `u64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// `a-b`, both inclusive; `b` may be smaller than `a`.
    FromTo(u64, u64),
    /// `a-`
    From(u64),
    /// `-n`: the last `n` bytes.
    Suffix(u64),
}

/// What to answer to a [`RangeHeader`] over a blob of known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// 200 with the whole blob.
    Whole,
    /// 206 with this range.
    Single(ByteRange),
    /// 206 `multipart/byteranges` with these parts, in this order; at least two.
    Multiple(Vec<ByteRange>),
    /// 416 with `Content-Range: bytes */size`.
    Unsatisfiable,
    /// 400.
    TooMany,
}

/// Some bytes of a blob; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    pub start: u64,
    /// The last byte's offset, inclusive; not below `start`.
    pub end: u64,
}

impl RangeHeader {
    /// Parses the value of a `Range` header; `None` is for one that is to be ignored.
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, set) = value.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        // RFC 9110 §5.6.1.2: empty elements of a list are skipped.
        let specs: Option<Vec<RangeSpec>> = set
            .split(',')
            .map(|text| text.trim_matches([' ', '\t']))
            .filter(|text| !text.is_empty())
            .take(RANGES_MAX + 1)
            .map(RangeSpec::parse)
            .collect();
        specs.filter(|specs| !specs.is_empty()).map(|specs| Self { specs })
    }

    /// Decides what to answer over a blob of `size` bytes; the module's table is its documentation.
    pub fn resolve(&self, size: u64) -> Resolved {
        if self.specs.len() > RANGES_MAX {
            return Resolved::TooMany;
        }
        if let Some(spec) = self.single() {
            return match spec.resolve(size) {
                Some(range) => Resolved::Single(range),
                None if size == 0 && spec.is_whole_of_nothing() => Resolved::Whole,
                None => Resolved::Unsatisfiable,
            };
        }
        let ranges: Vec<ByteRange> = self.specs.iter().filter_map(|spec| spec.resolve(size)).collect();
        let total: u128 = ranges.iter().map(|range| u128::from(range.len())).sum();
        if ranges.is_empty() {
            Resolved::Unsatisfiable
        } else if ranges.len() < self.specs.len() {
            Resolved::Whole
        } else if total > u128::from(size) + u128::from(OVERLAP_MAX) {
            Resolved::TooMany
        } else {
            Resolved::Multiple(ranges)
        }
    }

    /// Returns the only specification, if there is one only: all that can be decided before the size is known.
    pub fn single(&self) -> Option<RangeSpec> {
        match self.specs.as_slice() {
            [spec] => Some(*spec),
            _ => None,
        }
    }

    /// Returns the byte that is asked for first, if it can be told without the size.
    pub fn first_byte(&self) -> Option<u64> {
        match self.specs.first()? {
            RangeSpec::FromTo(start, _) | RangeSpec::From(start) => Some(*start),
            RangeSpec::Suffix(_) => None,
        }
    }

    /// Returns true for `bytes=a-`: containerd reads a chunk of it and closes (P-63).
    pub fn is_open_ended(&self) -> bool {
        matches!(self.single(), Some(RangeSpec::From(_)))
    }
}

impl RangeSpec {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('-')? {
            ("", length) => Some(Self::Suffix(number(length)?)),
            (start, "") => Some(Self::From(number(start)?)),
            (start, end) => Some(Self::FromTo(number(start)?, number(end)?)),
        }
    }

    /// Returns the bytes meant, clamped to the blob; `None` when there are none.
    pub fn resolve(self, size: u64) -> Option<ByteRange> {
        let last = size.checked_sub(1)?;
        let (start, end) = match self {
            Self::FromTo(start, end) => (start, end.min(last)),
            Self::From(start) => (start, last),
            Self::Suffix(0) => return None,
            Self::Suffix(length) => (size.saturating_sub(length), last),
        };
        (start <= end).then_some(ByteRange { start, end })
    }

    /// P-46: containerd always asks for `bytes=0-`, and a suffix of nothing is nothing.
    fn is_whole_of_nothing(self) -> bool {
        matches!(self, Self::From(0) | Self::Suffix(1..))
    }
}

impl ByteRange {
    /// Returns the number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "a range of bytes is never empty")]
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start).saturating_add(1)
    }

    /// Returns the value of `Content-Range` for this part of a blob of `size` bytes (P-54).
    pub fn content_range(&self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.start, self.end)
    }
}

/// Reads digits only (`parse` would take a sign); a number too large to be an offset is one behind every blob's end.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const K: u64 = 2048;

    fn one(start: u64, end: u64) -> Resolved {
        Resolved::Single(ByteRange { start, end })
    }

    fn many(ranges: &[(u64, u64)]) -> Resolved {
        Resolved::Multiple(ranges.iter().map(|(start, end)| ByteRange { start: *start, end: *end }).collect())
    }

    #[test]
    fn ranges_resolve_as_the_table_says() {
        let huge = "99999999999999999999999";
        let rows = [
            ("P-54", "bytes=500-1499", K, one(500, 1499)),
            ("P-54", "bytes=500-", K, one(500, 2047)),
            ("P-54", "bytes=-500", K, one(1548, 2047)),
            ("P-54", "bytes=2000-5000", K, one(2000, 2047)),
            ("P-54", "bytes=-5000", K, one(0, 2047)),
            ("P-54", "bytes=0-0", K, one(0, 0)),
            ("P-54", "BYTES=0-0", K, one(0, 0)),
            ("P-54", &format!("bytes=1-{huge}"), K, one(1, 2047)),
            ("P-54", &format!("bytes=-{huge}"), K, one(0, 2047)),
            ("P-55", "bytes=500-0", K, Resolved::Unsatisfiable),
            ("P-55", "bytes=5000-10000", K, Resolved::Unsatisfiable),
            ("P-55", "bytes=2048-", K, Resolved::Unsatisfiable),
            ("P-55", &format!("bytes={huge}-"), K, Resolved::Unsatisfiable),
            ("RFC 9110 §14.1.2", "bytes=-0", K, Resolved::Unsatisfiable),
            ("P-63", "bytes=0-", K, one(0, 2047)),
            ("P-64", "bytes=1000-2048", K, one(1000, 2047)),
            ("P-46", "bytes=0-", 0, Resolved::Whole),
            ("P-46", "bytes=-5", 0, Resolved::Whole),
            ("P-55", "bytes=-0", 0, Resolved::Unsatisfiable),
            ("P-55", "bytes=0-0", 0, Resolved::Unsatisfiable),
            ("P-55", "bytes=1-", 0, Resolved::Unsatisfiable),
            ("P-60", "bytes=0-1,5-6", K, many(&[(0, 1), (5, 6)])),
            ("P-60", "bytes= 5-6 ,\t0-1 ,, 1-2", K, many(&[(5, 6), (0, 1), (1, 2)])),
            ("P-60", "bytes=0-1,0-1", K, many(&[(0, 1), (0, 1)])),
            ("P-60", "bytes=0-1,,", K, one(0, 1)),
            ("P-60", "bytes=0-,-1", K, many(&[(0, 2047), (2047, 2047)])),
            ("P-60", "bytes=0-1,5000-", K, Resolved::Whole),
            ("P-60", "bytes=0-1,9-8", K, Resolved::Whole),
            ("P-55", "bytes=5000-,6000-", K, Resolved::Unsatisfiable),
            ("P-46", "bytes=0-,-1", 0, Resolved::Unsatisfiable),
            ("P-54", "bytes=0-", u64::MAX, one(0, u64::MAX - 1)),
            ("P-54", &format!("bytes={}-", u64::MAX - 1), u64::MAX, one(u64::MAX - 1, u64::MAX - 1)),
        ];
        for (spec, value, size, expected) in rows {
            let header = RangeHeader::parse(value).expect(value);
            assert_eq!(header.resolve(size), expected, "{spec}: {value} of {size}");
        }
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes= , ,",
            "lines=0-1",
            "bytes 0-1",
            "bytes=x-",
            "bytes=0-1x",
            "bytes=-",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=0x1-2",
            "bytes=0-1;2-3",
            "bytes=0-1,x",
            "=0-1",
            "bytes=٣-",
        ] {
            assert_eq!(RangeHeader::parse(value), None, "P-66: {value:?}");
        }
    }

    #[test]
    fn too_many_ranges_and_too_much_overlap_are_refused() {
        let ranges =
            |count: usize| RangeHeader::parse(&format!("bytes={}", vec!["0-0"; count].join(","))).expect("ranges");
        assert!(
            matches!(ranges(RANGES_MAX).resolve(K), Resolved::Multiple(parts) if parts.len() == RANGES_MAX),
            "P-62"
        );
        assert_eq!(ranges(RANGES_MAX + 1).resolve(K), Resolved::TooMany, "P-62");
        assert_eq!(ranges(100_000).resolve(K), Resolved::TooMany, "P-62");
        let size = 10 * OVERLAP_MAX;
        let whole_and = |length: u64| RangeHeader::parse(&format!("bytes=0-,-{length}")).expect("ranges").resolve(size);
        assert!(matches!(whole_and(OVERLAP_MAX), Resolved::Multiple(_)), "S-38");
        assert_eq!(whole_and(OVERLAP_MAX + 1), Resolved::TooMany, "S-38");
        let everything = RangeHeader::parse("bytes=0-,0-,0-").expect("ranges");
        assert_eq!(everything.resolve(u64::MAX - OVERLAP_MAX - 1), Resolved::TooMany, "S-38");
    }

    #[test]
    fn a_single_range_is_known_before_the_size() {
        let rows = [
            ("bytes=7-", Some(RangeSpec::From(7)), true),
            ("bytes=7-9", Some(RangeSpec::FromTo(7, 9)), false),
            ("bytes=-9", Some(RangeSpec::Suffix(9)), false),
            ("bytes=0-,1-", None, false),
        ];
        for (value, single, is_open_ended) in rows {
            let header = RangeHeader::parse(value).expect(value);
            assert_eq!((header.single(), header.is_open_ended()), (single, is_open_ended), "P-63: {value}");
        }
    }

    #[test]
    fn content_range_has_a_numeric_total() {
        let range = ByteRange { start: 500, end: 1499 };
        assert_eq!((range.content_range(K), range.len()), ("bytes 500-1499/2048".to_owned(), 1000), "P-54");
        assert_eq!(ByteRange { start: 0, end: u64::MAX }.len(), u64::MAX);
    }

    fn offset() -> impl Strategy<Value = u64> {
        prop_oneof![0..20_u64, any::<u64>(), (u64::MAX - 20)..=u64::MAX]
    }

    fn spec() -> impl Strategy<Value = String> {
        prop_oneof![
            (offset(), offset()).prop_map(|(start, end)| format!("{start}-{end}")),
            offset().prop_map(|start| format!("{start}-")),
            offset().prop_map(|length| format!("-{length}")),
        ]
    }

    proptest! {
        #[test]
        fn a_resolved_range_is_inside_the_blob(specs in prop::collection::vec(spec(), 1..6), size in offset()) {
            let header = RangeHeader::parse(&format!("bytes={}", specs.join(","))).expect("ranges");
            let ranges = match header.resolve(size) {
                Resolved::Single(range) => {
                    prop_assert_eq!(specs.len(), 1);
                    vec![range]
                }
                Resolved::Multiple(ranges) => {
                    prop_assert!(ranges.len() == specs.len() && ranges.len() > 1, "P-60");
                    ranges
                }
                Resolved::Whole | Resolved::Unsatisfiable | Resolved::TooMany => vec![],
            };
            for range in ranges {
                prop_assert!(range.start <= range.end && range.end < size, "P-54");
                prop_assert!(range.len() >= 1 && range.len() <= size);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(value in "(bytes=)?\\PC{0,40}") {
            let _ = RangeHeader::parse(&value).map(|header| header.resolve(10));
        }
    }
}
