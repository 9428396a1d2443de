//! The error codes of the specification and the JSON body that carries them.
//!
//! Source: distribution-spec 1.1 "Error Codes" (P-102, P-108, P-110).

use bytes::Bytes;
use serde_json::{Value, json};

/// Bytes of a message at the most, before escaping: a client prints it on a few lines (P-110).
const MESSAGE_LENGTH_MAX: usize = 1024;
/// Bytes of a serialised detail at the most; a longer one is left out, for half a JSON value is none (P-110).
const DETAIL_LENGTH_MAX: usize = 2048;

/// What went wrong, as clients compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    /// Not of the specification: for 5xx only (P-108).
    Unavailable,
    /// Not of the specification: for 5xx only (P-108).
    Unknown,
}

impl ErrorCode {
    pub const ALL: [Self; 16] = [
        Self::BlobUnknown,
        Self::BlobUploadInvalid,
        Self::BlobUploadUnknown,
        Self::DigestInvalid,
        Self::ManifestBlobUnknown,
        Self::ManifestInvalid,
        Self::ManifestUnknown,
        Self::NameInvalid,
        Self::NameUnknown,
        Self::SizeInvalid,
        Self::Unauthorized,
        Self::Denied,
        Self::Unsupported,
        Self::TooManyRequests,
        Self::Unavailable,
        Self::Unknown,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Returns true for the fourteen codes of the specification, the only ones for a 4xx (P-102).
    pub fn is_specified(self) -> bool {
        !matches!(self, Self::Unavailable | Self::Unknown)
    }
}

/// Builds the body of an error response: one error, at most a few KiB.
pub fn error_body(code: ErrorCode, message: &str, detail: Option<Value>) -> Bytes {
    let mut error = json!({ "code": code.as_str(), "message": cut(message, MESSAGE_LENGTH_MAX) });
    let detail = detail.filter(|detail| detail.to_string().len() <= DETAIL_LENGTH_MAX);
    if let (Some(detail), Some(error)) = (detail, error.as_object_mut()) {
        error.insert("detail".to_owned(), detail);
    }
    Bytes::from(json!({ "errors": [error] }).to_string())
}

/// Returns the longest beginning of `text` that has at most `length_max` bytes and ends between characters.
fn cut(text: &str, length_max: usize) -> &str {
    let end = (0..=length_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end.min(text.len())).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(body: &Bytes) -> Value {
        serde_json::from_slice(body).expect("a JSON document")
    }

    #[test]
    fn the_body_has_the_form_of_the_specification() {
        let body = error_body(ErrorCode::NameUnknown, "no such \"name\"", Some(json!({ "name": "a" })));
        let expected = json!({
            "errors": [{ "code": "NAME_UNKNOWN", "message": "no such \"name\"", "detail": { "name": "a" } }]
        });
        assert_eq!(parse(&body), expected, "P-102");
        let body = error_body(ErrorCode::Unavailable, "x", None);
        assert_eq!(parse(&body), json!({ "errors": [{ "code": "UNAVAILABLE", "message": "x" }] }), "P-108");
    }

    #[test]
    fn there_are_fourteen_codes_for_clients_errors() {
        assert_eq!(ErrorCode::ALL.iter().filter(|code| code.is_specified()).count(), 14, "P-102");
        let mut words: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        words.dedup();
        assert_eq!(words.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn a_long_detail_is_left_out_whole() {
        let body = error_body(ErrorCode::Denied, "x", Some(Value::String("y".repeat(DETAIL_LENGTH_MAX))));
        assert_eq!(parse(&body), json!({ "errors": [{ "code": "DENIED", "message": "x" }] }), "P-110");
    }

    proptest! {
        #[test]
        fn any_message_gives_a_bounded_document(message in "\\PC{0,3000}|[\\x00-\\x1f]{0,3000}") {
            let body = error_body(ErrorCode::Unknown, &message, None);
            prop_assert!(body.len() < 6 * MESSAGE_LENGTH_MAX + 100, "P-110");
            let parsed = parse(&body);
            let kept = parsed.pointer("/errors/0/message").and_then(Value::as_str).unwrap_or("\u{0}missing");
            prop_assert!(message.starts_with(kept) && (kept.len() + 4 > MESSAGE_LENGTH_MAX || kept == message));
        }
    }
}
