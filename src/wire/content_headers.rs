//! The header values that are the same in every answer with one content.

use bytes::Bytes;
use http::HeaderValue;

use crate::oci::Digest;

/// What an answer says of its content, whoever asks for it: made once per content, and cheap to clone from there.
#[derive(Debug)]
pub struct ContentHeaders {
    /// `Docker-Content-Digest`.
    pub digest: HeaderValue,
    /// The strong entity tag: the digest in quotes (P-38).
    pub etag: HeaderValue,
    /// `Content-Length` of all of it; `None` while it is not known.
    pub length: Option<HeaderValue>,
}

impl ContentHeaders {
    #[expect(clippy::missing_panics_doc, reason = "it cannot: every printed digest is a valid header value")]
    pub fn of(digest: &Digest, size_bytes: Option<u64>) -> Self {
        let quoted = Bytes::from(format!("\"{digest}\""));
        let bare = quoted.slice(1..quoted.len() - 1);
        let value = |text| HeaderValue::from_maybe_shared(text).expect("a digest is letters, digits and a colon");
        Self { digest: value(bare), etag: value(quoted), length: size_bytes.map(HeaderValue::from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entity_tag_is_the_digest_in_quotes() {
        let digest = Digest::sha256(b"x");
        let headers = ContentHeaders::of(&digest, Some(1));
        assert_eq!(headers.digest, digest.to_string(), "P-22");
        assert_eq!(headers.etag, format!("\"{digest}\""), "P-38");
        assert_eq!(headers.length, Some(HeaderValue::from_static("1")));
        assert_eq!(ContentHeaders::of(&digest, None).length, None);
    }
}
