//! The size of a blob and a `Range` header, a line each: what is answered lies within the blob, and is what the header's text says
//! (P-54…P-66, S-38).

use cachalot::wire::{ByteRange, Multipart, RANGES_MAX, RangeHeader, RangeSpec, Resolved, chunk_range};

/// What the ranges of one request may be together beyond the blob's size, as the module documents it.
const OVERLAP_MAX: u128 = 1024 * 1024;

pub(super) fn holds(input: &[u8]) {
    let Some(lines) = super::lines(input) else { return };
    let [size, value, ..] = lines.as_slice() else { return };
    if let Some((first, last)) = chunk_range::parse(value) {
        assert_eq!(chunk_range::parse(&format!("{first}-{last}")), Some((first, last)), "P-151");
    }
    let (Ok(size), Some(header)) = (size.parse::<u64>(), RangeHeader::parse(value)) else { return };
    match header.resolve(size) {
        Resolved::Single(range) => {
            check(range, size);
            assert_eq!(Some(range), model(header.single().expect("one range"), size), "P-54: {value:?}");
        }
        Resolved::Multiple(ranges) => {
            for range in &ranges {
                check(*range, size);
            }
            assert!((2..=RANGES_MAX).contains(&ranges.len()), "P-62");
            let total: u128 = ranges.iter().map(|range| u128::from(range.len())).sum();
            assert!(total <= u128::from(size) + OVERLAP_MAX, "S-38: {total} bytes of a blob of {size}");
            check_multipart(&ranges, size);
        }
        Resolved::Whole => assert!(header.single().is_none() || size == 0, "P-46: {value:?}"),
        Resolved::Unsatisfiable => {
            assert!(header.single().is_none_or(|spec| model(spec, size).is_none()), "P-55: {value:?} of {size}");
        }
        Resolved::TooMany => assert!(header.single().is_none(), "S-38"),
    }
}

fn check(range: ByteRange, size: u64) {
    assert!(range.start <= range.end && range.end < size, "{range:?} lies within {size} bytes");
    assert_eq!(u128::from(range.len()), u128::from(range.end) - u128::from(range.start) + 1);
}

/// RFC 9110 §14.1.2, in numbers that cannot overflow.
fn model(spec: RangeSpec, size: u64) -> Option<ByteRange> {
    let size = i128::from(size);
    let (start, end) = match spec {
        RangeSpec::FromTo(start, end) => (i128::from(start), i128::from(end).min(size - 1)),
        RangeSpec::From(start) => (i128::from(start), size - 1),
        RangeSpec::Suffix(length) => ((size - i128::from(length)).max(0), size - 1),
    };
    let (start, end) = (u64::try_from(start).ok()?, u64::try_from(end).ok()?);
    (start <= end).then_some(ByteRange { start, end })
}

fn check_multipart(ranges: &[ByteRange], size: u64) {
    let multipart = Multipart::new(7, size);
    let heads: u128 =
        ranges.iter().map(|range| multipart.part_head(range).len() as u128 + u128::from(range.len())).sum();
    let length = heads + multipart.end().len() as u128;
    if length <= u128::from(u64::MAX) {
        assert_eq!(u128::from(multipart.content_length(ranges)), length, "P-60");
    }
}
