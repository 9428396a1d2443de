//! The names of headers that no library has.

use http::HeaderName;

/// P-22.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Says that whoever lists referrers knows of the pushed one (P-91).
pub const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// Says which further tags a pushed manifest was given (P-160).
pub const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// What an upstream wants of every chunk but the last (P-152).
pub const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
