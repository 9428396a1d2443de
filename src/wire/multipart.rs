//! The frame around the parts of a `multipart/byteranges` body, without the bytes of the parts.
//!
//! A body is, for each range in the client's order, [`Multipart::part_head`] and the range's bytes, then
//! [`Multipart::end`]. Parts are neither merged nor sorted (P-60).
//!
//! Source: RFC 9110 §14.6, RFC 2046 §5.1.

use bytes::Bytes;

use super::range::ByteRange;

/// The media type of every part: blobs have no other (P-45).
const PART_TYPE: &str = "application/octet-stream";

/// One multipart response: its boundary, and the size of the blob that its parts are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    boundary: String,
    size: u64,
}

impl Multipart {
    /// `entropy` becomes the boundary, 32 hexadecimal digits: nothing in it needs quotes (P-61), and a blob holds it only
    /// by a chance of 2⁻¹²⁸ per byte when it is random.
    pub fn new(entropy: u128, size: u64) -> Self {
        Self { boundary: format!("{entropy:032x}"), size }
    }

    /// Returns the value of `Content-Type` for the whole response.
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Returns what stands before a part's bytes. The line break in front ends the part before; before the first part it
    /// is an empty preamble.
    pub fn part_head(&self, range: &ByteRange) -> Bytes {
        let content_range = range.content_range(self.size);
        let boundary = &self.boundary;
        format!("\r\n--{boundary}\r\nContent-Type: {PART_TYPE}\r\nContent-Range: {content_range}\r\n\r\n").into()
    }

    /// Returns what stands after the last part's bytes.
    pub fn end(&self) -> Bytes {
        format!("\r\n--{}--\r\n", self.boundary).into()
    }

    /// Returns the `Content-Length` of the body that has these parts.
    pub fn content_length(&self, ranges: &[ByteRange]) -> u64 {
        let parts = ranges.iter().map(|range| length(&self.part_head(range)).saturating_add(range.len()));
        parts.fold(length(&self.end()), u64::saturating_add)
    }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(multipart: &Multipart, blob: &[u8], ranges: &[ByteRange]) -> Vec<u8> {
        let mut body = Vec::new();
        for range in ranges {
            body.extend_from_slice(&multipart.part_head(range));
            let offset = |number: u64| usize::try_from(number).expect("a small number");
            body.extend_from_slice(blob.get(offset(range.start)..=offset(range.end)).expect("a range inside"));
        }
        body.extend_from_slice(&multipart.end());
        body
    }

    #[test]
    fn the_body_has_one_part_for_each_range_in_order() {
        let multipart = Multipart::new(0xab, 10);
        let boundary = "000000000000000000000000000000ab";
        let ranges = [ByteRange { start: 4, end: 5 }, ByteRange { start: 0, end: 0 }];
        let head = format!("--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes");
        let expected = format!("\r\n{head} 4-5/10\r\n\r\n45\r\n{head} 0-0/10\r\n\r\n0\r\n--{boundary}--\r\n");
        let body = body(&multipart, b"0123456789", &ranges);
        assert_eq!(String::from_utf8_lossy(&body), expected, "P-60");
        assert_eq!(multipart.content_type(), format!("multipart/byteranges; boundary={boundary}"), "P-61");
    }

    proptest! {
        #[test]
        fn the_length_announced_is_the_length_sent(entropy: u128, pairs in prop::collection::vec((0..100_u64, 0..100_u64), 0..6)) {
            let ranges: Vec<_> =
                pairs.iter().map(|(a, b)| ByteRange { start: *a.min(b), end: *a.max(b) }).collect();
            let multipart = Multipart::new(entropy, 100);
            let body = body(&multipart, &[b'x'; 100], &ranges);
            prop_assert_eq!(multipart.content_length(&ranges), body.len() as u64, "P-62");
        }
    }
}
