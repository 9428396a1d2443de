//! The header names that no library has, and reading and writing header values.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// RFC 9211.
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// P-19: old Docker engines require it on every answer under `/v2/`.
pub(super) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// P-113: says which upstream `ns` selected, as it was received.
pub(super) const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// Returns the lines of a header that are text.
pub(super) fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

/// Digests and media types hold visible ASCII only, by their grammars.
pub(super) fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_invalid| HeaderValue::from_static(""))
}
