//! Lists of tags on the wire (P-93…P-101).

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LINK};
use http::{HeaderValue, Response, StatusCode};
use url::form_urlencoded;

use super::access_log::Exchange;
use super::body::Body;
use super::headers::{CACHE_STATUS, text, warn_of_staleness};
use super::respond::{Asked, Problem};
use super::routed::Routed;
use crate::cache::{CacheError, TagsAnswer, TagsQuestion};
use crate::oci::{ErrorCode, TagList};
use crate::telemetry::{Kind, StaleReason};
use crate::wire::{cache_control, cache_status_header, link};

/// Answers a request for a page of a repository's tags.
pub(super) async fn answer(routed: &Routed<'_>, exchange: &mut Exchange) -> Result<Response<Body>, Problem> {
    let question = routed.question;
    let wants_none = wants_none(&question.parameters("n"))?;
    // Whether there is such a repository is the upstream's to say, also where none of its tags are wanted.
    let query = if wants_none { "n=1" } else { question.query.as_str() };
    let asked = TagsQuestion { upstream: routed.upstream, repository: &question.repository, query };
    let answered = routed.server.cache.tags(&asked).await;
    exchange.answered(Kind::Tags, answered.as_ref().map_or_else(CacheError::outcome, |answer| answer.outcome));
    let page = answered.map_err(|error| routed.failure(&error, Asked::Tags))?;
    Ok(respond(routed, page, wants_none))
}

/// Returns true for `n=0` (P-94).
fn wants_none(n: &[String]) -> Result<bool, Problem> {
    match n.first().map(|n| n.parse::<u64>()) {
        Some(Ok(n)) => Ok(n == 0),
        None => Ok(false),
        Some(Err(_)) => {
            let message = "`n` is the number of tags that are wanted at the most, in digits";
            Err(Problem::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message))
        }
    }
}

fn respond(routed: &Routed<'_>, page: TagsAnswer, wants_none: bool) -> Response<Body> {
    let json = if wants_none { TagList::without_tags(&page.json) } else { page.json };
    let length = json.len();
    let mut response = Response::new(if routed.is_head { Body::empty() } else { Body::full(json) });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache_control::MUTABLE));
    headers.insert(CACHE_STATUS, cache_status_header(page.outcome, page.stale.map(StaleReason::as_str)));
    warn_of_staleness(headers, page.stale);
    if let Some(next) = page.next_query.filter(|_| !wants_none) {
        headers.insert(LINK, text(&link::to_next(&next_target(routed, &next))));
    }
    response
}

/// Returns where the next page is to be asked for here: the path that this one was asked for, the upstream's query, and our `ns`
/// (P-95). The query is passed on as it is: what it says is between the upstream and itself (P-96).
fn next_target(routed: &Routed<'_>, query: &str) -> String {
    let path = routed.path();
    match &routed.question.namespace {
        Some(namespace) => {
            let namespace: String = form_urlencoded::byte_serialize(namespace.as_bytes()).collect();
            format!("{path}?{query}&ns={namespace}")
        }
        None => format!("{path}?{query}"),
    }
}
