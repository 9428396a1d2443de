//! The header names that no library has, and reading and writing header values.

use http::header::WARNING;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::telemetry::StaleReason;

/// RFC 9211.
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// P-19: old Docker engines require it on every answer under `/v2/`.
pub(super) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// P-113: says which upstream `ns` selected, as it was received.
pub(super) const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// P-81: which filters a list of referrers went through.
pub(super) const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Says that an answer is stale, if it is, by a `Warning` (RFC 7234 §5.5; obsolete, and still what tools look for).
pub(super) fn warn_of_staleness(headers: &mut HeaderMap, stale: Option<StaleReason>) {
    if stale.is_some() {
        let warning = r#"299 - "cachalot: served stale, the upstream did not answer""#;
        headers.insert(WARNING, HeaderValue::from_static(warning));
    }
}

/// Returns the lines of a header that are text.
pub(super) fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

/// Digests and media types hold visible ASCII only, by their grammars.
pub(super) fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_invalid| HeaderValue::from_static(""))
}
