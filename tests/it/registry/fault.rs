//! What can go wrong at the scripted registry: each fault is a named value, scheduled for a kind of request and a count.

use std::fmt;

use bytes::Bytes;
use cachalot::oci::Digest;

use super::Registry;

/// One way for an answer to be wrong. `u64` are bytes of the body unless said otherwise.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Closes the connection before any byte of an answer.
    Hangup,
    /// Waits for [`Registry::release`] before the headers.
    Hold,
    /// Sends so many bytes of the body, then closes (FIN). All of them arrive.
    CutAfter(u64),
    /// Sends so many bytes of the body, then resets (RST). Some of them may be lost.
    ResetAfter(u64),
    /// Sends so many bytes of the body, then waits for [`Registry::release`].
    StallAfter(u64),
    /// Sends the body at so many bytes a second, in real time.
    SlowBytes(u64),
    /// Flips a bit of the byte at this offset of the content.
    WrongBytes(u64),
    /// Announces so many bytes more (or fewer) than it sends.
    WrongLength(i64),
    /// Announces no length: a chunked body.
    NoLength,
    /// Sends so many bytes after the content, and announces them.
    ExtraBytes(u64),
    /// Answers a ranged request with 200 and everything.
    IgnoreRange,
    /// Answers a ranged request with 206 and a range that starts one byte later.
    WrongRange,
    /// Says `Content-Encoding: gzip` (over the bytes as they are).
    Gzip,
    /// Redirects to `base`, the request's path and `query`.
    RedirectTo {
        base: String,
        query: &'static str,
    },
    /// Redirects to `base` by a signed URL of its own, which gives so many bytes and is refused from then on.
    RedirectExpiring {
        base: String,
        after: u64,
    },
    /// Redirects to itself.
    RedirectLoop,
    /// Redirects to a relative location at the same registry.
    RedirectRelative,
    /// Redirects to exactly this `Location`.
    RedirectExactly(String),
    /// Redirects with this status to this `Location`, in which `{path}` is the request's.
    RedirectWith(u16, String),
    /// Refuses with this status when the request is a HEAD; a GET is left alone.
    RefuseHead(u16),
    /// Answers this status and body.
    Status(u16, &'static str),
    /// Answers this status with this header; the body is a JSON error.
    StatusWithHeader(u16, &'static str, &'static str),
    /// Answers 429, with `Retry-After` when given.
    RateLimited {
        retry_after: Option<&'static str>,
    },
    /// Answers 401 with `error="invalid_token"`, whatever was sent.
    ExpiredToken,
    /// Answers 401 with `error="insufficient_scope"`, whatever was sent.
    InsufficientScope,
    /// Names another digest in `Docker-Content-Digest`.
    LieAboutDigest,
    NoDigestHeader,
    NoContentType,
    /// Answers as it should, but for this header.
    WithHeader(&'static str, String),
    /// Answers 200 with a page of HTML (a captive portal, a login page).
    HtmlPage,
    /// Answers this status and a body that does not end, or ends after so many bytes, which are announced.
    Endless(u16, Option<u64>),
    /// Sends these bytes in place of an answer, and closes the connection or leaves it open.
    Raw {
        bytes: Bytes,
        closes: bool,
    },
}

impl Fault {
    /// Redirects to the same path at another registry, with a query that must never be logged.
    pub(crate) fn redirect_to(other: &Registry) -> Self {
        Self::RedirectTo { base: other.url(), query: "X-Signature=secret-signature" }
    }

    /// Redirects to the same path at another registry, by a URL that expires in the middle of the body.
    pub(crate) fn redirect_expiring(other: &Registry, after: u64) -> Self {
        Self::RedirectExpiring { base: other.url(), after }
    }

    /// Sends this in place of an answer, and closes the connection.
    pub(crate) fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::Raw { bytes: bytes.into(), closes: true }
    }

    /// Sends this in place of an answer, and goes on as if it had been one.
    pub(crate) fn raw_kept(bytes: impl Into<Bytes>) -> Self {
        Self::Raw { bytes: bytes.into(), closes: false }
    }
}

/// Which requests a fault is for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Match {
    path: String,
    method: Option<&'static str>,
    ranged: Option<bool>,
}

impl Match {
    /// Matches every request that passed authentication.
    pub(crate) fn any() -> Self {
        Self::default()
    }

    /// Matches requests whose path contains `part`.
    pub(crate) fn path(part: impl fmt::Display) -> Self {
        Self { path: part.to_string(), ..Self::default() }
    }

    /// Matches requests for a blob, in every repository.
    pub(crate) fn blob(digest: &Digest) -> Self {
        Self::path(format_args!("/blobs/{digest}"))
    }

    /// Matches requests for a manifest by this tag or digest, in every repository.
    pub(crate) fn manifest(reference: impl fmt::Display) -> Self {
        Self::path(format_args!("/manifests/{reference}"))
    }

    /// Matches requests for a token.
    pub(crate) fn token() -> Self {
        Self::path("/token")
    }

    /// Narrows to GET.
    pub(crate) fn get(mut self) -> Self {
        self.method = Some("GET");
        self
    }

    /// Narrows to POST.
    pub(crate) fn post(mut self) -> Self {
        self.method = Some("POST");
        self
    }

    /// Narrows to PUT.
    pub(crate) fn put(mut self) -> Self {
        self.method = Some("PUT");
        self
    }

    /// Narrows to DELETE.
    pub(crate) fn delete(mut self) -> Self {
        self.method = Some("DELETE");
        self
    }

    /// Narrows to PATCH.
    pub(crate) fn patch(mut self) -> Self {
        self.method = Some("PATCH");
        self
    }

    /// Narrows to HEAD.
    pub(crate) fn head(mut self) -> Self {
        self.method = Some("HEAD");
        self
    }

    /// Narrows to requests with a `Range`.
    pub(crate) fn ranged(mut self) -> Self {
        self.ranged = Some(true);
        self
    }

    /// Narrows to requests without a `Range`.
    pub(crate) fn unranged(mut self) -> Self {
        self.ranged = Some(false);
        self
    }

    fn fits(&self, method: &str, path: &str, ranged: bool) -> bool {
        path.contains(&self.path)
            && self.method.is_none_or(|wanted| wanted == method)
            && self.ranged.is_none_or(|wanted| wanted == ranged)
    }
}

/// The faults that are scheduled at one registry, in the order in which they were scheduled.
#[derive(Default)]
pub(crate) struct Schedule(Vec<Entry>);

struct Entry {
    scope: Match,
    fault: Fault,
    /// `None`: for ever.
    left: Option<usize>,
    used: bool,
    optional: bool,
}

impl Schedule {
    /// Schedules `fault` once and returns its place.
    pub(crate) fn add(&mut self, scope: Match, fault: Fault) -> usize {
        self.0.push(Entry { scope, fault, left: Some(1), used: false, optional: false });
        self.0.len() - 1
    }

    /// Changes how often the fault at `place` happens; `None` is for ever.
    pub(crate) fn set_times(&mut self, place: usize, times: Option<usize>) {
        if let Some(entry) = self.0.get_mut(place) {
            entry.left = times;
        }
    }

    pub(crate) fn set_optional(&mut self, place: usize) {
        if let Some(entry) = self.0.get_mut(place) {
            entry.optional = true;
        }
    }

    /// Takes the first fault that fits the request.
    pub(crate) fn take(&mut self, method: &str, path: &str, ranged: bool) -> Option<Fault> {
        let entry = self.0.iter_mut().find(|entry| entry.left != Some(0) && entry.scope.fits(method, path, ranged))?;
        entry.left = entry.left.map(|left| left - 1);
        entry.used = true;
        Some(entry.fault.clone())
    }

    /// Ends every fault; those not used yet are forgiven.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the faults that did not happen as often as scheduled.
    pub(crate) fn unused(&self) -> Vec<String> {
        let is_unused = |entry: &&Entry| !entry.optional && (!entry.used || entry.left.is_some_and(|left| left > 0));
        self.0.iter().filter(is_unused).map(|entry| format!("{:?} for {:?}", entry.fault, entry.scope)).collect()
    }
}
