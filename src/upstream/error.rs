//! How asking an upstream fails, in words that let the cache choose what to do next.

use std::sync::Arc;
use std::time::Duration;

/// Why an upstream gave no usable answer.
///
/// Cheap to clone, for one failed fill is told to all its followers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// 404: the upstream does not have it.
    #[error("not found")]
    NotFound {
        /// The upstream's own words, where it sent any.
        message: Option<String>,
    },
    /// 401 or 403 after our own authentication (P-104).
    #[error("access denied (status {status})")]
    Denied { status: u16, message: Option<String> },
    /// 429, or the cool-down after one, in which the upstream is not asked; or our own rate, which could not be kept in time.
    #[error("rate limited")]
    RateLimited { retry_after: Option<Duration>, limit: RateLimit },
    /// A 5xx or 408 that stayed after retries, or a status nobody expects here.
    #[error("unexpected status {status}")]
    Status { status: u16, message: Option<String> },
    /// The token service refused or answered nonsense.
    #[error("authentication failed: {reason}")]
    Auth { reason: String },
    /// No answer within a named limit, given with its value.
    #[error("{limit} of {after:?} passed")]
    TimedOut { limit: &'static str, after: Duration },
    /// Not asked: it has failed before, and is left alone for a while.
    #[error("not asked for {retry_after:.0?} more, after it failed")]
    CircuitOpen {
        retry_after: Duration,
        #[source]
        cause: Arc<UpstreamError>,
    },
    /// An address that this upstream may not lead us to (S-25).
    #[error("{host} is not dialled: {reason}")]
    Forbidden { host: String, reason: String },
    #[error("cannot look up {host}")]
    Dns {
        host: String,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// TCP, proxy.
    #[error("cannot connect to {host}")]
    Connect {
        host: String,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The TLS handshake.
    #[error("TLS with {host} failed")]
    Tls {
        host: String,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The connection broke, or the body ended early.
    #[error("transfer broke off after {received_bytes} bytes")]
    Truncated {
        received_bytes: u64,
        #[source]
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// An answer that breaks the protocol: a bad redirect, an encoded body, a range that was not asked for.
    #[error("protocol violation: {reason}")]
    Protocol { reason: String },
    /// An answer to a request for a range that is not that range; the whole may still be had.
    #[error("range not honoured: {reason}")]
    Range { reason: &'static str },
    /// A body above the limit for its kind.
    #[error("body is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
}

/// The limit of a connection that never stood.
pub(super) const CONNECT_LIMIT: &str = "connect time-out";

/// What a 429 is about. Docker Hub has one of each kind (U-4, U-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateLimit {
    /// Manifests fetched; what costs nothing is answered still.
    Pulls,
    /// Everything.
    Requests,
}

impl UpstreamError {
    /// Returns true when the same request may well succeed a little later, or at another endpoint.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status >= 500 || *status == 408,
            Self::TimedOut { .. }
            | Self::Dns { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Truncated { .. }
            | Self::CircuitOpen { .. } => true,
            Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::RateLimited { .. }
            | Self::Auth { .. }
            | Self::Protocol { .. }
            | Self::Range { .. }
            | Self::Forbidden { .. }
            | Self::TooLarge { .. } => false,
        }
    }

    /// Returns true when a request for a range may have failed for its range: the whole may still be given.
    pub fn may_be_about_the_range(&self) -> bool {
        match self {
            Self::Range { .. } => true,
            Self::Status { status, .. } => matches!(status, 400..=499 | 501),
            Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::RateLimited { .. }
            | Self::Auth { .. }
            | Self::TimedOut { .. }
            | Self::Dns { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Truncated { .. }
            | Self::Protocol { .. }
            | Self::CircuitOpen { .. }
            | Self::Forbidden { .. }
            | Self::TooLarge { .. } => false,
        }
    }

    /// Returns true when it might have been answered in somebody else's name: many registries say 404 for what they hide, and count by
    /// account.
    pub fn may_be_about_the_caller(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Denied { .. } | Self::Auth { .. } | Self::RateLimited { .. })
    }

    /// Returns what clients are told: the kind of failure. Hosts, addresses, files and the words of libraries are for the log,
    /// which has all of it.
    pub fn told(&self) -> String {
        match self {
            Self::Dns { .. } => "cannot look up the upstream's host".to_owned(),
            Self::Connect { .. } => "cannot connect to the upstream".to_owned(),
            Self::Tls { .. } => "TLS with the upstream failed".to_owned(),
            Self::Forbidden { .. } => "the upstream leads to an address that is not dialled".to_owned(),
            // What stands behind the colon names files, or repeats what a program said.
            Self::Auth { reason } => {
                format!("authentication failed: {}", reason.split(": ").next().unwrap_or_default())
            }
            Self::CircuitOpen { retry_after, cause } => {
                format!("not asked for {retry_after:.0?} more, after it failed: {}", cause.told())
            }
            Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::RateLimited { .. }
            | Self::Status { .. }
            | Self::TimedOut { .. }
            | Self::Truncated { .. }
            | Self::Protocol { .. }
            | Self::Range { .. }
            | Self::TooLarge { .. } => self.to_string(),
        }
    }

    /// Returns true when the request certainly never reached the upstream: what it would have changed there is unchanged.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Dns { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::CircuitOpen { .. }
            | Self::Forbidden { .. }
            | Self::Auth { .. }
            | Self::RateLimited { .. } => true,
            Self::TimedOut { limit, .. } => *limit == CONNECT_LIMIT,
            Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::Status { .. }
            | Self::Truncated { .. }
            | Self::Protocol { .. }
            | Self::Range { .. }
            | Self::TooLarge { .. } => false,
        }
    }

    /// Returns true when a stale copy may be served instead: network error, time-out, 5xx, 429; never 401, 403, 404 (P-139).
    pub fn allows_stale(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::Denied { .. } => false,
            Self::RateLimited { .. }
            | Self::Status { .. }
            | Self::Auth { .. }
            | Self::TimedOut { .. }
            | Self::Dns { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Truncated { .. }
            | Self::Protocol { .. }
            | Self::Range { .. }
            | Self::CircuitOpen { .. }
            | Self::Forbidden { .. }
            | Self::TooLarge { .. } => true,
        }
    }

    /// Returns the closed word for the metric `cachalot_upstream_errors_total`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::Denied { .. } => "http_4xx",
            Self::RateLimited { .. } => "rate_limited",
            Self::Status { status, .. } if *status < 500 => "http_4xx",
            Self::Status { .. } => "http_5xx",
            Self::Auth { .. } => "auth",
            Self::TimedOut { .. } => "timeout",
            Self::Dns { .. } => "dns",
            Self::Connect { .. } | Self::Forbidden { .. } => "connect",
            Self::CircuitOpen { cause, .. } => cause.as_str(),
            Self::Tls { .. } => "tls",
            Self::Truncated { .. } => "truncated",
            Self::Protocol { .. } | Self::Range { .. } | Self::TooLarge { .. } => "protocol",
        }
    }
}
