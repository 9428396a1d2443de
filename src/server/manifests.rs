//! Manifests on the wire (P-22…P-42).

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::access_log::Exchange;
use super::body::Body;
use super::headers::{CACHE_STATUS, lines, text, warn_of_staleness};
use super::respond::{Asked, Problem};
use super::routed::Routed;
use crate::cache::{CacheError, ManifestAnswer, ManifestQuestion};
use crate::oci::Reference;
use crate::telemetry::{Kind, StaleReason};
use crate::wire::names::CONTENT_DIGEST;
use crate::wire::{Accept, cache_control, cache_status_header, is_not_modified};

/// Answers a manifest request; a `Range` on it is ignored, which P-37 allows.
pub(super) async fn answer(
    routed: &Routed<'_>,
    reference: &Reference,
    exchange: &mut Exchange,
) -> Result<Response<Body>, Problem> {
    let question = routed.question;
    let headers = &routed.request.headers;
    let accept = Accept::from_lines(lines(headers, &ACCEPT));
    let asked = ManifestQuestion {
        upstream: routed.upstream,
        repository: &question.repository,
        reference,
        accept: &accept,
        wants_bytes: !routed.is_head,
        client: Some(routed.client),
    };
    let answered = routed.server.cache.manifest(&asked).await;
    let kind = match reference {
        Reference::Tag(_) => Kind::ManifestTag,
        Reference::Digest(_) => Kind::ManifestDigest,
    };
    exchange.answered(kind, answered.as_ref().map_or_else(CacheError::outcome, |answer| answer.outcome));
    let manifest = answered.map_err(|error| routed.failure(&error, Asked::Manifest))?;
    let matches = is_not_modified(lines(headers, &IF_NONE_MATCH), &manifest.digest);
    Ok(respond(manifest, reference, matches, routed.is_head))
}

fn respond(manifest: ManifestAnswer, reference: &Reference, not_modified: bool, is_head: bool) -> Response<Body> {
    let mut headers = HeaderMap::with_capacity(10);
    headers.insert(ETAG, manifest.headers.etag.clone());
    headers.insert(CONTENT_DIGEST, manifest.headers.digest.clone());
    let caching = match reference {
        Reference::Tag(_) => cache_control::MUTABLE,
        Reference::Digest(_) => cache_control::DIGEST,
    };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(CACHE_STATUS, cache_status_header(manifest.outcome, manifest.stale.map(StaleReason::as_str)));
    warn_of_staleness(&mut headers, manifest.stale);
    let mut response = Response::new(Body::empty());
    if not_modified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(CONTENT_TYPE, text(manifest.media_type.as_str()));
        headers.extend(manifest.headers.length.clone().map(|length| (CONTENT_LENGTH, length)));
        if let (Some(bytes), false) = (manifest.bytes, is_head) {
            *response.body_mut() = Body::full(bytes);
        }
    }
    *response.headers_mut() = headers;
    response
}
