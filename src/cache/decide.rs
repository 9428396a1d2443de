//! When a tag may be answered from the cache: the whole freshness policy, as pure functions.
//!
//! | entry | age | policy | decision |
//! |---|---|---|---|
//! | known | below `tag_ttl` | any | serve it, fresh |
//! | known | above | `offline` | serve it, stale |
//! | known | above | online | ask the upstream |
//! | unknown | – | `offline` | refuse |
//! | unknown | – | online | ask the upstream |
//!
//! | the upstream, asked, says | entry younger than `stale_if_error` | entry older, or none |
//! |---|---|---|
//! | network error, time-out, 5xx, 429 | serve it, stale | tell the client |
//! | 404 | drop the entry, tell the client | tell the client |
//! | 401, 403 | tell the client | tell the client |
//!
//! Digests never expire. Source: P-136…P-142.

use std::time::{Duration, SystemTime};

use crate::oci::Tag;
use crate::telemetry::StaleReason;
use crate::upstream::UpstreamError;

/// The freshness policy of one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long a tag is served without asking.
    pub tag_ttl: Duration,
    /// How long after the upstream's last word a tag is served although the upstream fails.
    pub stale_if_error: Duration,
    /// How long an absence is remembered.
    pub negative_ttl: Duration,
    /// The upstream is never asked.
    pub offline: bool,
}

/// How long a list of referrers, or a tag that stands for one, is served without asking: what is signed is verified a moment later (P-88).
pub(super) const REFERRERS_TTL: Duration = Duration::from_secs(2);

impl Policy {
    /// Returns the policy for what tells of a manifest's signatures, attestations and the like: it changes at any time, and that there
    /// is none is not remembered (P-88, P-142).
    #[must_use]
    pub(super) fn of_referrers(self) -> Self {
        Self { tag_ttl: self.tag_ttl.min(REFERRERS_TTL), negative_ttl: Duration::ZERO, ..self }
    }

    /// Returns the policy for `tag`.
    #[must_use]
    pub(super) fn of_tag(self, tag: &Tag) -> Self {
        if tag.tells_of_referrers() { self.of_referrers() } else { self }
    }
}

/// What to do with a question about a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Serve,
    ServeStale(StaleReason),
    Ask,
    Refuse,
}

/// What to do when the upstream was asked in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterFailure {
    ServeStale(StaleReason),
    /// The tag is gone: drop the entry and tell the client.
    Drop,
    Tell,
}

/// Decides about a tag that the upstream was last asked about at `checked_at`, if ever.
pub(super) fn decide(now: SystemTime, checked_at: Option<SystemTime>, policy: &Policy) -> Decision {
    match checked_at.map(|then| age(now, then)) {
        Some(age) if age < policy.tag_ttl => Decision::Serve,
        Some(_) if policy.offline => Decision::ServeStale(StaleReason::Offline),
        None if policy.offline => Decision::Refuse,
        Some(_) | None => Decision::Ask,
    }
}

/// Decides what follows when the upstream could not say what a tag means.
pub(super) fn after_failure(
    now: SystemTime,
    checked_at: Option<SystemTime>,
    policy: &Policy,
    error: &UpstreamError,
) -> AfterFailure {
    let is_servable = checked_at.is_some_and(|then| age(now, then) < policy.stale_if_error);
    match error {
        UpstreamError::NotFound { .. } => AfterFailure::Drop,
        UpstreamError::RateLimited { .. } if is_servable => AfterFailure::ServeStale(StaleReason::RateLimited),
        error if error.allows_stale() && is_servable => AfterFailure::ServeStale(StaleReason::UpstreamError),
        _ => AfterFailure::Tell,
    }
}

/// A clock that was set back makes an entry old, never eternally fresh.
fn age(now: SystemTime, then: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::RateLimit;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const POLICY: Policy = Policy {
        tag_ttl: Duration::from_secs(10),
        stale_if_error: Duration::from_secs(100),
        negative_ttl: Duration::from_secs(5),
        offline: false,
    };

    fn now() -> SystemTime {
        NOW + Duration::from_secs(10_000)
    }

    fn checked(ago: u64) -> SystemTime {
        now() - Duration::from_secs(ago)
    }

    #[test]
    fn every_state_of_an_entry_has_its_decision() {
        let offline = Policy { offline: true, ..POLICY };
        let rows = [
            ("unknown", None, Decision::Ask, Decision::Refuse),
            ("just checked", Some(checked(0)), Decision::Serve, Decision::Serve),
            ("fresh", Some(checked(9)), Decision::Serve, Decision::Serve),
            ("at the limit", Some(checked(10)), Decision::Ask, Decision::ServeStale(StaleReason::Offline)),
            ("very old", Some(checked(5_000)), Decision::Ask, Decision::ServeStale(StaleReason::Offline)),
            (
                "from the future",
                Some(now() + Duration::from_mins(1)),
                Decision::Ask,
                Decision::ServeStale(StaleReason::Offline),
            ),
        ];
        for (name, checked_at, online, off) in rows {
            assert_eq!(decide(now(), checked_at, &POLICY), online, "{name}, online");
            assert_eq!(decide(now(), checked_at, &offline), off, "{name}, offline");
        }
    }

    #[test]
    fn stale_is_served_for_failures_and_never_for_refusals() {
        use std::io::Error;
        use std::sync::Arc;
        let broken = || Arc::new(Error::other("broken"));
        let failures = [
            UpstreamError::Status { status: 503, message: None },
            UpstreamError::Status { status: 408, message: None },
            UpstreamError::Auth { reason: String::new() },
            UpstreamError::TimedOut { limit: "header", after: Duration::ZERO },
            UpstreamError::Connect { host: String::new(), source: broken() },
            UpstreamError::Tls { host: String::new(), source: broken() },
            UpstreamError::Truncated { received_bytes: 0, source: None },
            UpstreamError::Protocol { reason: String::new() },
            UpstreamError::TooLarge { limit_bytes: 0 },
        ];
        let cases = failures
            .into_iter()
            .map(|error| (error, AfterFailure::ServeStale(StaleReason::UpstreamError), AfterFailure::Tell))
            .chain([
                (
                    UpstreamError::RateLimited { retry_after: None, limit: RateLimit::Pulls },
                    AfterFailure::ServeStale(StaleReason::RateLimited),
                    AfterFailure::Tell,
                ),
                (UpstreamError::NotFound { message: None }, AfterFailure::Drop, AfterFailure::Drop),
                (UpstreamError::Denied { status: 401, message: None }, AfterFailure::Tell, AfterFailure::Tell),
                (UpstreamError::Denied { status: 403, message: None }, AfterFailure::Tell, AfterFailure::Tell),
            ]);
        for (error, young, old) in cases {
            assert_eq!(after_failure(now(), Some(checked(99)), &POLICY, &error), young, "{error:?}");
            for too_old in [Some(checked(100)), None] {
                assert_eq!(after_failure(now(), too_old, &POLICY, &error), old, "{error:?}");
            }
        }
    }
}
