//! The scripted registry's answers: what is right for a request, and what a fault makes of it.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use serde_json::json;

use super::body::{Body, End, Plan, Wire};
use super::content::Content;
use super::fault::Fault;
use super::log::{Line, Request};
use super::{World, lock};

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Bytes of a body that does not end: no test waits for them.
const ENDLESS: u64 = 1 << 60;

/// What the query of a signed URL begins with that gives so many bytes once.
const EXPIRES_AFTER: &str = "X-Expires-After=";

/// How lists of tags come in pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paging {
    /// Tags of a page at the most, whatever is asked.
    pub(crate) cap: usize,
    /// The parameter that says where the next page begins.
    pub(crate) key: &'static str,
    /// Bytes of nonsense around its value, which is no tag to others then.
    pub(crate) seal: usize,
    /// Links are whole URLs.
    pub(crate) is_absolute: bool,
}

impl Default for Paging {
    /// As docker-registry does it.
    fn default() -> Self {
        Self { cap: usize::MAX, key: "last", seal: 0, is_absolute: false }
    }
}

/// What becomes of a `Range`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ranges {
    Honoured,
    Ignored,
    /// Answered with a range that starts one byte later.
    Shifted,
}

/// Returns how many bytes the signed URL of a request gives, if it is one.
fn expires_after(seen: &Request) -> Option<u64> {
    seen.query.as_deref()?.strip_prefix(EXPIRES_AFTER)?.split('&').next()?.parse().ok()
}

impl World {
    /// Waits for the next release.
    pub(crate) async fn hold(&self, line: &Line) {
        let mut gate = self.gate.subscribe();
        line.set_held(true);
        gate.changed().await.expect("the world holds the sender");
        line.set_held(false);
    }

    fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub(crate) fn refusal(&self, seen: &Request) -> Option<Reply> {
        let repository = route(&seen.path).map(|(repository, _, _)| repository.trim_end_matches("/blobs"));
        lock(&self.auth).refusal(seen, repository)
    }

    pub(crate) fn challenge(&self, seen: &Request) -> Option<String> {
        if seen.path == lock(&self.auth).token_path() {
            return None;
        }
        let repository = route(&seen.path).map(|(repository, _, _)| repository.trim_end_matches("/blobs"));
        lock(&self.auth).challenge(&self.url(), repository, seen.authorization.as_deref())
    }

    /// Returns the answer to a request when nothing goes wrong.
    pub(crate) fn find(&self, seen: &Request, ranges: Ranges) -> Reply {
        if seen.path == lock(&self.auth).token_path() {
            let query = seen.query.as_deref().unwrap_or_default();
            return match lock(&self.auth).issue(query, seen.authorization.as_deref()) {
                Some(json) => Reply::new(200, json).with(header::CONTENT_TYPE, "application/json"),
                None => error(401, "UNAUTHORIZED", "incorrect username or password"),
            };
        }
        if seen.path.ends_with("/v2/") {
            return Reply::new(200, "{}").with(header::CONTENT_TYPE, "application/json");
        }
        match route(&seen.path) {
            Some((repository, "manifests", reference)) => self.manifest(repository, reference),
            Some((repository, "blobs", digest)) => self.blob(seen, repository, digest, ranges),
            Some((repository, "tags", "list")) => self.tags(seen, repository),
            Some((repository, "referrers", subject)) => self.referrers(seen, repository, subject),
            Some(_) | None => error(404, "NOT_FOUND", "no such path"),
        }
    }

    fn manifest(&self, repository: &str, reference: &str) -> Reply {
        let Some(manifest) = lock(&self.stock).manifest(repository, reference) else {
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        };
        Reply::new(200, manifest.bytes)
            .with(header::CONTENT_TYPE, &manifest.media_type)
            .with(DIGEST, &manifest.digest.to_string())
    }

    /// Answers with the tags of a repository, in pages of `n` after `last`, which is repeated as docker-registry does.
    fn tags(&self, seen: &Request, repository: &str) -> Reply {
        let Some(mut tags) = lock(&self.stock).tags(repository) else {
            return error(404, "NAME_UNKNOWN", "repository name not known to registry");
        };
        let query = seen.query.as_deref().unwrap_or_default();
        let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let paging = *lock(&self.paging);
        let seal = "x".repeat(paging.seal);
        if let Some(last) = parameter(paging.key).and_then(|value| value.strip_suffix(&seal)) {
            tags.retain(|tag| tag.as_str() >= last);
        }
        let size = parameter("n").and_then(|n| n.parse().ok()).unwrap_or(tags.len()).min(paging.cap);
        let is_cut = size < tags.len();
        tags.truncate(size);
        let page = json!({"name": repository, "tags": tags, "child": []}).to_string();
        let reply = Reply::new(200, page).with(header::CONTENT_TYPE, "text/plain");
        let (base, key) = (if paging.is_absolute { self.url() } else { String::new() }, paging.key);
        let last = tags.last().map_or("", String::as_str);
        let next = format!("<{base}/v2/{repository}/tags/list?n={size}&{key}={last}{seal}>; rel=\"next\"");
        if is_cut { reply.with(header::LINK, &next) } else { reply }
    }

    fn blob(&self, seen: &Request, repository: &str, digest: &str, ranges: Ranges) -> Reply {
        let Some((digest, content)) = lock(&self.stock).blob(repository, digest) else {
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        let total = content.length();
        let mut reply = Reply::new(200, content)
            .with(header::CONTENT_TYPE, "application/octet-stream")
            .with(header::ACCEPT_RANGES, "bytes")
            .with(DIGEST, &digest.to_string());
        if let Some(limit) = expires_after(seen) {
            if self.book.count(|other| other.query == seen.query) > 1 {
                return error(403, "DENIED", "request has expired");
            }
            reply.plan.end = End::Cut(limit);
        }
        let asked = seen.range.as_deref().filter(|_| ranges != Ranges::Ignored).and_then(|text| range(text, total));
        match asked {
            None => reply,
            Some(Err(Unsatisfiable)) => error(416, "RANGE_INVALID", "range not satisfiable")
                .with(header::CONTENT_RANGE, &format!("bytes */{total}")),
            Some(Ok((start, stop))) => {
                reply.status = 206;
                reply.plan.start = (start + u64::from(ranges == Ranges::Shifted)).min(stop - 1);
                reply.plan.stop = stop;
                let value = format!("bytes {}-{}/{total}", reply.plan.start, stop - 1);
                reply.with(header::CONTENT_RANGE, &value)
            }
        }
    }

    /// Returns the answer with this fault in it.
    pub(crate) fn suffer(&self, seen: &Request, fault: Fault) -> Reply {
        let mut reply = self.find(seen, Ranges::Honoured);
        match fault {
            Fault::CutAfter(limit) => reply.plan.end = End::Cut(limit),
            Fault::ResetAfter(limit) => reply.plan.end = End::Reset(limit),
            Fault::StallAfter(limit) => reply.plan.end = End::Stall(limit),
            Fault::SlowBytes(rate) => reply.plan.pace = Some(rate),
            Fault::WrongBytes(offset) => reply.plan.wrong = Some(offset),
            Fault::WrongLength(difference) => {
                reply.length = Length::Off(difference);
                reply.plan.end = if difference > 0 { End::Short } else { End::Whole };
            }
            Fault::NoLength => reply.length = Length::Absent,
            Fault::ExtraBytes(count) => reply.plan.extra = count,
            Fault::IgnoreRange => return self.find(seen, Ranges::Ignored),
            Fault::WrongRange => return self.find(seen, Ranges::Shifted),
            Fault::Gzip => return reply.with(header::CONTENT_ENCODING, "gzip"),
            Fault::RedirectTo { base, query } => return redirect(&format!("{base}{}?{query}", seen.path)),
            Fault::RedirectExpiring { base, after } => {
                let turn = self.book.count(|_| true);
                return redirect(&format!("{base}{}?{EXPIRES_AFTER}{after}&turn={turn}", seen.path));
            }
            Fault::RedirectLoop => return redirect(&format!("{}{}", self.url(), seen.path)),
            // With dots before it: a bare digest would read as a URL of the scheme `sha256`.
            Fault::RedirectRelative => {
                return redirect(&format!("./{}", seen.path.rsplit('/').next().unwrap_or_default()));
            }
            Fault::RedirectExactly(location) => return redirect(&location),
            Fault::RedirectWith(status, location) => {
                let location = location.replace("{path}", &seen.path);
                return Reply { status, ..redirect(&location) };
            }
            Fault::RefuseHead(status) if seen.method == "HEAD" => return error(status, "UNSUPPORTED", "no HEAD here"),
            Fault::Endless(status, length) => {
                reply = Reply::new(status, Content::generated(1, length.unwrap_or(ENDLESS)));
                reply.length = if length.is_some() { Length::Right } else { Length::Absent };
            }
            // All but the last happen in place of an answer.
            Fault::Hangup | Fault::Hold | Fault::Raw { .. } | Fault::RefuseHead(_) => {}
            Fault::Status(status, body) => return Reply::new(status, body),
            Fault::StatusWithHeader(status, name, value) => {
                return error(status, "UNKNOWN", "as scheduled").with(HeaderName::from_static(name), value);
            }
            Fault::RateLimited { retry_after } => {
                let reply = error(429, "TOOMANYREQUESTS", "you have reached your pull rate limit");
                return match retry_after {
                    Some(value) => reply.with(header::RETRY_AFTER, value),
                    None => reply,
                };
            }
            Fault::ExpiredToken => return self.challenged(seen, "invalid_token"),
            Fault::InsufficientScope => return self.challenged(seen, "insufficient_scope"),
            Fault::LieAboutDigest => return reply.with(DIGEST, &Content::from("another thing").digest().to_string()),
            Fault::WithHeader(name, value) => return reply.with(HeaderName::from_static(name), &value),
            Fault::NoDigestHeader => return reply.without(&DIGEST),
            Fault::NoContentType => return reply.without(&header::CONTENT_TYPE),
            Fault::HtmlPage => {
                return Reply::new(200, "<html>please log in</html>").with(header::CONTENT_TYPE, "text/html");
            }
        }
        reply
    }

    fn challenged(&self, seen: &Request, why: &str) -> Reply {
        let repository = route(&seen.path).map(|(repository, _, _)| repository);
        let challenge = lock(&self.auth).challenge_text(&self.url(), repository);
        error(401, "UNAUTHORIZED", "not with this token")
            .with(header::WWW_AUTHENTICATE, &format!("{challenge},error=\"{why}\""))
    }
}

/// An answer before it is sent.
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) plan: Plan,
    length: Length,
}

/// What `Content-Length` says.
enum Length {
    Right,
    Off(i64),
    Absent,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Content>) -> Self {
        Self { status, headers: HeaderMap::new(), plan: Plan::whole(body.into()), length: Length::Right }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).expect("a test writes valid headers"));
        self
    }

    fn without(mut self, name: &HeaderName) -> Self {
        self.headers.remove(name);
        self
    }

    /// Sends it; a HEAD gets the headers of the GET.
    pub(crate) fn send(mut self, seen: &Request, world: Arc<World>, wire: Arc<Wire>, line: Line) -> Response<Body> {
        let length = match self.length {
            Length::Right => Some(self.plan.length()),
            Length::Off(difference) => self.plan.length().checked_add_signed(difference),
            Length::Absent => None,
        };
        if let Some(length) = length {
            self.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        if seen.method == "HEAD" {
            self.plan = Plan::whole(Content::from(""));
        }
        let mut response = Response::new(self.plan.send(world, wire, line));
        *response.status_mut() = self.status.try_into().expect("a test gives a valid status");
        *response.headers_mut() = self.headers;
        response
    }
}

/// Returns an error as registries write it.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Reply {
    let body = json!({ "errors": [{ "code": code, "message": message, "detail": null }] });
    Reply::new(status, body.to_string()).with(header::CONTENT_TYPE, "application/json")
}

fn redirect(location: &str) -> Reply {
    Reply::new(307, "moved").with(header::LOCATION, location)
}

/// Splits `…/v2/<repository>/<kind>/<reference>`.
fn route(path: &str) -> Option<(&str, &str, &str)> {
    let (_, rest) = path.split_once("/v2/")?;
    let (rest, reference) = rest.rsplit_once('/')?;
    let (repository, kind) = rest.rsplit_once('/')?;
    Some((repository, kind, reference))
}

struct Unsatisfiable;

/// Resolves a single range to its first byte and the one after its last; `None` when it is not one.
fn range(text: &str, total: u64) -> Option<Result<(u64, u64), Unsatisfiable>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (start, stop) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(total)),
        (Ok(first), Err(_)) if last.is_empty() => (first, total),
        (Err(_), Ok(length)) if first.is_empty() => (total.saturating_sub(length), total),
        _ => return None,
    };
    Some(if start < stop { Ok((start, stop)) } else { Err(Unsatisfiable) })
}
