//! The one place that turns refusals and failures into HTTP: the code is chosen for what the client does next (P-102…P-110).
//!
//! | what | status | the client's next step |
//! |---|---|---|
//! | the upstream does not have it | 404 | try elsewhere, or give up |
//! | the upstream denies us | 403 `DENIED` | never 401: that would ask the client for credentials (P-104) |
//! | it is for callers, and the upstream does not let this one in, who has shown nothing | 401 and a challenge | again, with an account |
//! | the same, with an account or a token | 403 `DENIED` | give up |
//! | the upstream fails, or sends wrong bytes | 502 | next host |
//! | the upstream failed a moment ago, and is not asked | as it failed, and `Retry-After` | next host, or later |
//! | the upstream is this cache itself | 508 | the cache in between tells its own client 502 |
//! | the upstream does not answer in time; not cached while offline | 504 | next host |
//! | the upstream limits us, we are full, we stop, the client asks too often | 503 and `Retry-After` | next host, or later; a 429 would be retried at once, five times (C-10) |
//! | the upstream limits us, and the operator wants it told | 429 and `Retry-After` | again, by its own rules |
//! | we do not know the client | 401 `UNAUTHORIZED` and a challenge | get a token, or log in |
//! | the client may not have it | 403 `DENIED` | give up |
//! | the client has shown too many wrong passwords | 429 and `Retry-After` | later |

use std::time::Duration;

use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::access_log::RequestId;
use super::body::Body;
use super::limits::HEADER_BUDGET;
use crate::cache::CacheError;
use crate::identity::Refused;
use crate::oci::{ErrorCode, Question, Refusal, error_body};
use crate::telemetry::sentence;
use crate::upstream::UpstreamError;

/// What a client is told to wait when the upstream limits us without saying for how long.
const RATE_LIMIT_PAUSE: Duration = Duration::from_mins(1);

/// What a client is told to wait while we stop.
const STOPPING_PAUSE: Duration = Duration::from_secs(1);

/// What a client is told to wait that pushes more manifests at once than there is room for.
const PUSH_PAUSE: Duration = Duration::from_secs(5);

/// What kind of thing was asked for: it names the 404.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Manifest,
    Blob,
    Tags,
    Referrers,
}

/// An error answer before it is a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    code: ErrorCode,
    message: String,
    /// What the log is told where that is more: hosts, addresses, causes.
    pub(super) cause: Option<Box<str>>,
    retry_after: Option<Duration>,
    /// How to become somebody.
    challenge: Option<HeaderValue>,
    /// The methods that there are, where others are tried.
    allow: &'static str,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            cause: None,
            retry_after: None,
            challenge: None,
            allow: "GET, HEAD",
        }
    }

    /// Returns the problem that somebody is whom we do not know.
    pub(super) fn unauthorized(message: &str, challenge: HeaderValue) -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message);
        Self { challenge: Some(challenge), ..problem }
    }

    /// Returns the problem that somebody is who may not have what is asked for.
    pub(super) fn denied(message: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
    }

    /// Returns the problem that a credential is which was not looked at.
    pub(super) fn not_looked_at(refused: Refused) -> Self {
        match refused {
            Refused::TooOften { retry_after } => {
                Self::too_many_requests("too many credentials were wrong; wait before the next".to_owned(), retry_after)
            }
            Refused::Busy { retry_after } => {
                Self::unavailable("too many passwords are being checked".to_owned(), retry_after)
            }
            Refused::Wrong(_) => Self::denied("the credential is wrong".to_owned()),
        }
    }

    /// Returns the problem that a method is which there is not.
    pub(super) fn method_not_allowed(allow: &'static str, message: &str) -> Self {
        Self { allow, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, message) }
    }

    /// Returns the problem that a refused route is.
    pub(super) fn of_refusal(refusal: &Refusal) -> Self {
        let (status, code) = match refusal {
            Refusal::UnknownPath => (StatusCode::NOT_FOUND, ErrorCode::Unsupported),
            Refusal::UnknownUpstream { .. } | Refusal::NoUpstream => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
            Refusal::ConflictingSelectors { .. } | Refusal::DuplicateNamespace | Refusal::NameInvalid(_) => {
                (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid)
            }
            // P-5: clients probe with over-long tags, and only a 404 means that there is none.
            Refusal::TagInvalid => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
            Refusal::DigestInvalid(_) => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
            Refusal::NotAllowed { .. } => (StatusCode::FORBIDDEN, ErrorCode::Denied),
            Refusal::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
            Refusal::UriTooLong => (StatusCode::URI_TOO_LONG, ErrorCode::NameInvalid),
            Refusal::DoubledVersion => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
        };
        Self::new(status, code, refusal.to_string())
    }

    /// Returns the problem that a failed question is; with `tells_429`, a limit of the upstream is told as what it is.
    pub(super) fn of_failure(error: &CacheError, asked: Asked, tells_429: bool) -> Self {
        let message = words(error);
        let problem = match error {
            CacheError::Upstream { source: UpstreamError::RateLimited { retry_after, .. }, .. } => {
                let pause = retry_after.unwrap_or(RATE_LIMIT_PAUSE);
                if tells_429 { Self::too_many_requests(message, pause) } else { Self::unavailable(message, pause) }
            }
            CacheError::Upstream { source, .. } | CacheError::Negative { source, .. } => {
                Self::of_upstream(source, message, asked)
            }
            CacheError::DigestMismatch(_) | CacheError::InvalidManifest { .. } => {
                Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, message)
            }
            CacheError::Offline { .. } => Self::new(StatusCode::GATEWAY_TIMEOUT, ErrorCode::Unavailable, message),
            CacheError::Overloaded { retry_after } => Self::unavailable(message, *retry_after),
            CacheError::Aborted => Self::unavailable(message, STOPPING_PAUSE),
        };
        Self { cause: problem.status.is_server_error().then(|| sentence(error).into()), ..problem }
    }

    /// The table was made from the upstreams: a routed one is known, unless this is a bug.
    pub(super) fn unknown_upstream() -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, "no such upstream is configured")
    }

    /// Returns the problem that an answer is which did not come within the header budget.
    pub(super) fn too_slow(question: &Question) -> Self {
        let message = format!(
            "{} has not answered within {HEADER_BUDGET:?}; what it sends is kept for the next attempt",
            question.upstream
        );
        Self::new(StatusCode::GATEWAY_TIMEOUT, ErrorCode::Unavailable, message)
    }

    fn of_upstream(error: &UpstreamError, message: String, asked: Asked) -> Self {
        match error {
            UpstreamError::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, asked.unknown(), message),
            UpstreamError::Denied { .. } => Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message),
            UpstreamError::RateLimited { retry_after, .. } => {
                Self::unavailable(message, retry_after.unwrap_or(RATE_LIMIT_PAUSE))
            }
            UpstreamError::CircuitOpen { retry_after, cause } => {
                Self { retry_after: Some(*retry_after), ..Self::of_upstream(cause, message, asked) }
            }
            UpstreamError::TimedOut { .. } => Self::new(StatusCode::GATEWAY_TIMEOUT, ErrorCode::Unavailable, message),
            UpstreamError::Status { .. }
            | UpstreamError::Auth { .. }
            | UpstreamError::Dns { .. }
            | UpstreamError::Connect { .. }
            | UpstreamError::Tls { .. }
            | UpstreamError::Truncated { .. }
            | UpstreamError::Protocol { .. }
            | UpstreamError::Range { .. }
            | UpstreamError::Forbidden { .. }
            | UpstreamError::TooLarge { .. } => Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, message),
        }
    }

    /// Returns the problem that a request of our own is, come back to us.
    pub(super) fn in_a_circle(question: &Question) -> Self {
        let message =
            format!("upstream {} leads back to this cache; give it the registry's own address", question.upstream);
        Self::new(StatusCode::LOOP_DETECTED, ErrorCode::Unavailable, message)
    }

    /// Returns the problem that a client is which asks too often.
    pub(super) fn too_fast(wait: Duration) -> Self {
        Self::unavailable("this client asks more often than its rate allows".to_owned(), wait)
    }

    /// Returns the problem that a manifest is for which there is no room.
    pub(super) fn too_many_manifests() -> Self {
        Self::unavailable("too many manifests are being pushed".to_owned(), PUSH_PAUSE)
    }

    fn too_many_requests(message: String, retry_after: Duration) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message);
        Self { retry_after: Some(retry_after), ..problem }
    }

    fn unavailable(message: String, retry_after: Duration) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message);
        Self { retry_after: Some(retry_after), ..problem }
    }

    /// Returns the response; our own 5xx name the request, so that the log line can be found.
    pub(super) fn into_response(self, request_id: RequestId, is_head: bool) -> Response<Body> {
        let message = if self.status.is_server_error() {
            format!("cachalot: {} (request {request_id})", self.message)
        } else {
            format!("cachalot: {}", self.message)
        };
        let bytes = error_body(self.code, &message, None);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static(self.allow));
        }
        if let Some(pause) = self.retry_after {
            // Rounded up: who comes a moment too soon has come in vain.
            headers
                .insert(RETRY_AFTER, HeaderValue::from((pause.as_secs() + u64::from(pause.subsec_nanos() > 0)).max(1)));
        }
        headers.extend(self.challenge.map(|challenge| (WWW_AUTHENTICATE, challenge)));
        let mut response = Response::new(if is_head { Body::empty() } else { Body::full(bytes) });
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        response
    }
}

impl Asked {
    fn unknown(self) -> ErrorCode {
        match self {
            // P-72: of a repository that exists a list of referrers is never an unknown name.
            Self::Manifest | Self::Referrers => ErrorCode::ManifestUnknown,
            Self::Blob => ErrorCode::BlobUnknown,
            Self::Tags => ErrorCode::NameUnknown,
        }
    }
}

/// Returns a failure as one sentence for clients, the upstream's own words included.
fn words(error: &CacheError) -> String {
    let (CacheError::Upstream { source, .. } | CacheError::Negative { source, .. }) = error else {
        return sentence(error);
    };
    let sentence = format!("{error}: {}", source.told());
    let said = match source {
        UpstreamError::NotFound { message }
        | UpstreamError::Denied { message, .. }
        | UpstreamError::Status { message, .. } => message.as_deref(),
        _ => None,
    };
    let sentence = said.map_or(sentence.clone(), |said| format!("{sentence}; it says: {said}"));
    if matches!(source, UpstreamError::Denied { status: 401, .. }) {
        // Clients read this, and cannot log in here: whoever runs us can do something about it.
        return format!("{sentence}; check the name, and the account that is configured for this upstream");
    }
    sentence
}
