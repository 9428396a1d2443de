//! What an upstream's answer means: statuses as errors, the headers that we read, bodies within their limit.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use url::Url;

use super::error::{RateLimit, UpstreamError};
use crate::oci::{Digest, MediaType};
use crate::wire::{link, names, retry_after};

/// Bytes of an error body read at the most; a longer one is not JSON by a registry.
const ERROR_BODY_MAX: usize = 16 << 10;

/// Characters of the upstream's own words that are kept.
const MESSAGE_MAX: usize = 256;

/// Marks an answer of a host that a redirect led to: what it says of itself is not about the upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elsewhere;

/// Turns an answer that is not the wanted one into an error, with the upstream's own words where it sent any.
pub(super) async fn refusal(response: Response<Incoming>) -> UpstreamError {
    let (parts, body) = response.into_parts();
    // A refusal without its words is a refusal.
    let body = read(body, &parts.headers, ERROR_BODY_MAX).await.unwrap_or_default();
    let message = message(&body);
    match parts.status {
        StatusCode::NOT_FOUND => UpstreamError::NotFound { message },
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            UpstreamError::Denied { status: status.as_u16(), message }
        }
        StatusCode::TOO_MANY_REQUESTS if parts.extensions.get::<Elsewhere>().is_none() => {
            let value = parts.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = value.and_then(|value| retry_after::parse(value, SystemTime::now()));
            UpstreamError::RateLimited { retry_after, limit: rate_limit(&body) }
        }
        // P-119: a HEAD has no words of its own.
        StatusCode::LOOP_DETECTED => UpstreamError::Protocol {
            reason: "it leads back to a cache that asks it (status 508); give the registry's own address".to_owned(),
        },
        status => UpstreamError::Status { status: status.as_u16(), message },
    }
}

/// Reads a body whole; one above `limit_bytes` is refused, early when its length says so.
pub(super) async fn read(body: Incoming, headers: &HeaderMap, limit_bytes: usize) -> Result<Bytes, UpstreamError> {
    let too_large = || UpstreamError::TooLarge { limit_bytes };
    if content_length(headers).is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit_bytes))
    {
        return Err(too_large());
    }
    let mut body = body;
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(bytes.len() as u64, error))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len().saturating_add(data.len()) > limit_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Reads a small body that nobody wants, so that its connection can serve again; a larger one is left, which closes it.
pub(super) async fn drain(response: Response<Incoming>) {
    if content_length(response.headers()).is_some() {
        let (parts, body) = response.into_parts();
        let _ = read(body, &parts.headers, ERROR_BODY_MAX).await;
    }
}

/// Returns the error of a body that broke off.
pub(super) fn broken(received_bytes: u64, error: impl StdError + Send + Sync + 'static) -> UpstreamError {
    UpstreamError::Truncated { received_bytes, source: Some(Arc::new(error)) }
}

/// Returns where a redirect leads; `None` for every other answer, and for a redirect that does not say.
pub(super) fn location(response: &Response<Incoming>) -> Option<&str> {
    match response.status().as_u16() {
        301 | 302 | 303 | 307 | 308 => text(response.headers(), &header::LOCATION),
        _ => None,
    }
}

/// Returns the query of the next page of the list that was asked for at `asked`, when it is a page of the same host (P-95).
pub(super) fn next_query(headers: &HeaderMap, asked: &Url) -> Option<String> {
    let lines = headers.get_all(header::LINK).into_iter().filter_map(|line| line.to_str().ok());
    let next = asked.join(link::next(lines)?).ok()?;
    let is_of_the_same_host = next.host() == asked.host();
    next.query().filter(|query| is_of_the_same_host && !query.is_empty()).map(str::to_owned)
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, &header::CONTENT_LENGTH)?)
}

/// Parses digits and nothing else (RFC 9110 §8.6); `u64::from_str` would take a sign.
pub(super) fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Returns the digest that the upstream claims; a malformed one is as good as none.
pub(super) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    text(headers, &names::CONTENT_DIGEST)?.parse().ok()
}

pub(super) fn media_type(headers: &HeaderMap) -> Option<MediaType> {
    MediaType::parse(text(headers, &header::CONTENT_TYPE)?)
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Returns `errors[0].message` of an error body (P-98), without control characters, cut to a decent length.
pub(super) fn message(body: &[u8]) -> Option<String> {
    let message = first_error(body)?.message?;
    let kept: String = message.chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect();
    (!kept.is_empty()).then_some(kept)
}

/// Tells the two limits of Docker Hub apart (U-6): that of pulls is told as a registry's error, that of abuse in plain text.
fn rate_limit(body: &[u8]) -> RateLimit {
    let code = first_error(body).and_then(|error| error.code);
    if code.as_deref() == Some("TOOMANYREQUESTS") { RateLimit::Pulls } else { RateLimit::Requests }
}

/// The first entry of an error body.
#[derive(Deserialize)]
struct FirstError {
    code: Option<String>,
    message: Option<String>,
}

fn first_error(body: &[u8]) -> Option<FirstError> {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<FirstError>,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    body.errors.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_may_be_named_in_every_form_of_a_url_and_only_at_the_same_host() {
        let asked = Url::parse("https://a.io/prefix/v2/app/tags/list").unwrap();
        for (target, expected) in [
            ("https://a.io/v2/app/tags/list?last=b&n=2", Some("last=b&n=2")),
            ("//a.io/v2/app/tags/list?last=b", Some("last=b")),
            ("/v2/app/tags/list?last=b%2F%3D", Some("last=b%2F%3D")),
            ("?next_page=x", Some("next_page=x")),
            ("list?last=b", Some("last=b")),
            ("https://b.io/v2/app/tags/list?last=b", None),
            ("/v2/app/tags/list", None),
            ("?", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, format!("<{target}>; rel=\"next\"").parse().unwrap());
            assert_eq!(next_query(&headers, &asked), expected.map(str::to_owned), "P-95: {target}");
        }
    }

    #[test]
    fn the_two_limits_of_docker_hub_are_told_apart() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#,
                RateLimit::Pulls,
            ),
            ("Too Many Requests (HAP429).", RateLimit::Requests),
            (r#"{"errors":[{"code":"DENIED"}]}"#, RateLimit::Requests),
            ("", RateLimit::Requests),
        ] {
            assert_eq!(rate_limit(body.as_bytes()), expected, "U-6: {body}");
        }
    }

    #[test]
    fn the_upstreams_words_are_kept_short_and_clean() {
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "é".repeat(300));
        for (body, expected) in [
            (r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m way\n"}]}"#, Some("no[31m way".to_owned())),
            (&long, Some("é".repeat(256))),
            (r#"{"errors":[]}"#, None),
            (r#"{"errors":[{"code":"DENIED"}]}"#, None),
            (r#"{"errors":[{"message":"\n"}]}"#, None),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(message(body.as_bytes()), expected, "{body}");
        }
    }
}
