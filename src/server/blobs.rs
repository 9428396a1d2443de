//! Blobs on the wire: whole, in one range, in several (P-43…P-67).

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::access_log::Exchange;
use super::body::{Body, chunks};
use super::headers::{lines, text};
use super::respond::{Asked, Problem};
use super::routed::Routed;
use crate::cache::{BlobAnswer, BlobQuestion, CacheError};
use crate::oci::{Digest, ErrorCode};
use crate::telemetry::Kind;
use crate::wire::names::CONTENT_DIGEST;
use crate::wire::{
    ByteRange, ContentHeaders, Multipart, RangeHeader, Resolved, cache_control, if_range_matches, is_not_modified,
};

/// P-45: always this, never what an upstream or its CDN says.
const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Answers a blob request.
pub(super) async fn answer(
    routed: &Routed<'_>,
    digest: &Digest,
    exchange: &mut Exchange,
) -> Result<Response<Body>, Problem> {
    let question = routed.question;
    let request = &routed.request.headers;
    let range = blob_range(request, digest);
    let asked = BlobQuestion {
        upstream: routed.upstream,
        repository: &question.repository,
        digest,
        wants_bytes: !routed.is_head,
        client: Some(routed.client),
        first_byte: range.as_ref().and_then(RangeHeader::first_byte).unwrap_or(0),
    };
    let answered = routed.server.cache.blob(&asked).await;
    exchange.answered(Kind::Blob, answered.as_ref().map_or_else(CacheError::outcome, |answer| answer.outcome));
    let blob = answered.map_err(|error| routed.failure(&error, Asked::Blob))?;
    let headers = blob.headers();
    let mut response = if is_not_modified(lines(request, &IF_NONE_MATCH), digest) {
        with_status(StatusCode::NOT_MODIFIED)
    } else if routed.is_head {
        // P-66: a range means nothing here.
        with_length(Body::empty(), &headers)
    } else {
        content(range, blob, &headers)?
    };
    common_headers(response.headers_mut(), &headers);
    Ok(response)
}

/// Returns the range asked for, if it counts (P-65, P-66).
fn blob_range(request: &HeaderMap, digest: &Digest) -> Option<RangeHeader> {
    let range = RangeHeader::parse(request.get(RANGE)?.to_str().ok()?)?;
    let counts =
        request.get(IF_RANGE).is_none_or(|value| value.to_str().is_ok_and(|value| if_range_matches(value, digest)));
    counts.then_some(range)
}

fn content(range: Option<RangeHeader>, blob: BlobAnswer, headers: &ContentHeaders) -> Result<Response<Body>, Problem> {
    // While the length is unknown a range cannot be resolved: RFC 9110 §14.2 allows to ignore it.
    let (Some(range), Some(size)) = (range, blob.size_bytes) else { return Ok(whole(&blob, headers)) };
    match range.resolve(size) {
        Resolved::Whole => Ok(whole(&blob, headers)),
        Resolved::Single(single) => Ok(partial(&blob, single, size, range.is_open_ended())),
        Resolved::Multiple(ranges) => Ok(multipart(blob, ranges, size)),
        Resolved::Unsatisfiable => {
            let mut response = with_status(StatusCode::RANGE_NOT_SATISFIABLE);
            response.headers_mut().insert(CONTENT_RANGE, text(&format!("bytes */{size}")));
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            Ok(response)
        }
        Resolved::TooMany => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::Unsupported,
            "too many ranges in one request, or more bytes than the blob has",
        )),
    }
}

fn whole(blob: &BlobAnswer, headers: &ContentHeaders) -> Response<Body> {
    with_length(Body::blob(blob.size_bytes, blob.from(0)), headers)
}

fn partial(blob: &BlobAnswer, range: ByteRange, size: u64, is_open_ended: bool) -> Response<Body> {
    // An open-ended range runs to the blob's end as a whole body does, and so its tail waits for the digest, too.
    let bytes = if is_open_ended { blob.from(range.start) } else { blob.range(range) };
    let mut response = Response::new(Body::blob(Some(range.len()), bytes));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    response.headers_mut().insert(CONTENT_RANGE, text(&range.content_range(size)));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(range.len()));
    response
}

/// One part per range, in the order asked for, as bytes arrive (P-60, P-62).
fn multipart(blob: BlobAnswer, ranges: Vec<ByteRange>, size: u64) -> Response<Body> {
    let multipart = Multipart::new(fastrand::u128(..), size);
    let len = multipart.content_length(&ranges);
    let content_type = text(&multipart.content_type());
    let (blob, closing) = (Arc::new(blob), multipart.end());
    let parts = stream::iter(ranges).flat_map(move |range| {
        let header = stream::iter([Ok(multipart.part_head(&range))]);
        let blob = Arc::clone(&blob);
        // Made when its turn comes: a part that waits is no reader yet.
        header.chain(stream::once(async move { blob.range(range) }).flat_map(chunks))
    });
    let closed = parts.chain(stream::iter([Ok::<Bytes, _>(closing)]));
    let mut response = Response::new(Body::stream(Some(len), closed.boxed()));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
    response
}

fn common_headers(headers: &mut HeaderMap, content: &ContentHeaders) {
    headers.entry(CONTENT_TYPE).or_insert(OCTET_STREAM);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_DIGEST, content.digest.clone());
    headers.insert(ETAG, content.etag.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache_control::DIGEST));
}

/// An answer that is all of the content, or stands for it.
fn with_length(body: Body, content: &ContentHeaders) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().extend(content.length.clone().map(|length| (CONTENT_LENGTH, length)));
    response
}

fn with_status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
