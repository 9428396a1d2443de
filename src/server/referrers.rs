//! Lists of referrers on the wire (P-68…P-92).

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LINK};
use http::{HeaderValue, Response};
use url::form_urlencoded;

use super::access_log::Exchange;
use super::body::Body;
use super::headers::{CACHE_STATUS, FILTERS_APPLIED, text, warn_of_staleness};
use super::respond::{Asked, Problem};
use super::routed::Routed;
use crate::cache::{CacheError, ReferrersAnswer, ReferrersQuestion};
use crate::oci::{Digest, MediaType};
use crate::telemetry::{Kind, StaleReason};
use crate::wire::{cache_control, cache_status_header, link};

/// Bytes of descriptors in one page: clients accept so much, and most of them do not ask for a second page (P-85).
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024 - 4096;

/// The parameter of the next page: the last digest of this one.
const LAST: &str = "last";

/// Answers a request for the referrers of `subject`.
pub(super) async fn answer(
    routed: &Routed<'_>,
    subject: &Digest,
    exchange: &mut Exchange,
) -> Result<Response<Body>, Problem> {
    let question = routed.question;
    let asked = ReferrersQuestion { upstream: routed.upstream, repository: &question.repository, subject };
    let answered = routed.server.cache.referrers(&asked).await;
    exchange.answered(Kind::Referrers, answered.as_ref().map_or_else(CacheError::outcome, |answer| answer.outcome));
    let answer = answered.map_err(|error| routed.failure(&error, Asked::Referrers))?;
    Ok(respond(routed, answer))
}

fn respond(routed: &Routed<'_>, answer: ReferrersAnswer) -> Response<Body> {
    // P-82: several types are a union. P-83: other parameters are no filters.
    let types = routed.question.parameters("artifactType");
    let after = routed.question.parameters(LAST).first().and_then(|last| last.parse().ok());
    let is_whole = types.is_empty() && after.is_none() && answer.json.len() <= PAGE_BYTES_MAX;
    let (json, last) = if is_whole {
        (answer.json, None)
    } else {
        let page = answer.list.page(&types, after.as_ref(), PAGE_BYTES_MAX);
        (page.json, page.last)
    };
    let length = json.len();
    let mut response = Response::new(if routed.is_head { Body::empty() } else { Body::full(json) });
    let headers = response.headers_mut();
    // P-69: compared as a string by clients.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MediaType::OCI_INDEX));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache_control::MUTABLE));
    headers.insert(CACHE_STATUS, cache_status_header(answer.outcome, answer.stale.map(StaleReason::as_str)));
    warn_of_staleness(headers, answer.stale);
    if !types.is_empty() {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    if let Some(last) = last {
        headers.insert(LINK, text(&link::to_next(&next_target(routed, &types, &last))));
    }
    response
}

/// Returns where the next page is to be asked for: the path and the filters that this one was asked for, and our `ns`.
fn next_target(routed: &Routed<'_>, types: &[String], last: &Digest) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for wanted in types {
        query.append_pair("artifactType", wanted);
    }
    query.append_pair(LAST, &last.to_string());
    if let Some(namespace) = &routed.question.namespace {
        query.append_pair("ns", namespace);
    }
    format!("{}?{}", routed.path(), query.finish())
}
