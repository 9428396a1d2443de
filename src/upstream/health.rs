//! How an endpoint has been doing, and in which order endpoints are asked.
//!
//! | what happened | the endpoint is passed over |
//! |---|---|
//! | no connection, TLS, a time-out, 5xx or 408, a body that broke off, nonsense | for [`PAUSE_FIRST`], doubled each time, at most [`PAUSE_MAX`] |
//! | 429 | for its `Retry-After`, at most [`PAUSE_MAX`] |
//! | wrong bytes | for [`DISTRUST`] |
//! | any answer that the registry meant, 404 and 401 included | no longer |
//!
//! Passed over means asked last: nobody is refused because of what is remembered here. `now` is an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::error::UpstreamError;

/// The first pause: a restarting registry is back by then.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// The longest pause: an endpoint that is mended is used again within a minute.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Who sent wrong bytes is not believed so soon again.
const DISTRUST: Duration = Duration::from_mins(10);

/// The health of one endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Health {
    /// In a row.
    failures: u32,
    paused_until: Option<Instant>,
    distrusted_until: Option<Instant>,
}

impl Health {
    /// Notes an answer that the registry meant.
    pub(super) fn succeeded(&mut self) {
        (self.failures, self.paused_until) = (0, None);
    }

    /// Notes a failure.
    pub(super) fn failed(&mut self, error: &UpstreamError, now: Instant) {
        let pause = match error {
            // It lives, and says no.
            UpstreamError::NotFound { .. } | UpstreamError::Denied { .. } | UpstreamError::TooLarge { .. } => {
                return self.succeeded();
            }
            UpstreamError::Status { status, .. } if *status < 500 && *status != 408 => return self.succeeded(),
            UpstreamError::RateLimited { retry_after } => retry_after.unwrap_or(PAUSE_FIRST).min(PAUSE_MAX),
            UpstreamError::Status { .. }
            | UpstreamError::Auth { .. }
            | UpstreamError::TimedOut { .. }
            | UpstreamError::Connect { .. }
            | UpstreamError::Tls { .. }
            | UpstreamError::Truncated { .. }
            | UpstreamError::Protocol { .. }
            | UpstreamError::Range { .. } => {
                PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(PAUSE_MAX)
            }
        };
        self.failures = self.failures.saturating_add(1);
        self.paused_until = Some(now + pause);
    }

    /// Notes that it sent wrong bytes.
    pub(super) fn distrust(&mut self, now: Instant) {
        self.distrusted_until = Some(now + DISTRUST);
    }

    /// Returns when it may be asked in its turn again, if that is later than `now`.
    fn passed_over_until(&self, now: Instant) -> Option<Instant> {
        self.paused_until.max(self.distrusted_until).filter(|until| *until > now)
    }
}

/// Returns the indices of `endpoints` in the order in which to ask them: those in good health as configured, then the others,
/// who is back first first.
pub(super) fn order(endpoints: &[Health], now: Instant) -> Vec<usize> {
    let mut order: Vec<_> = endpoints
        .iter()
        .map(|health| health.passed_over_until(now))
        .enumerate()
        .map(|(index, until)| (until, index))
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, index)| index).collect()
}

/// Returns the error to tell when several endpoints failed: the first one that is not "not found", for an absence counts only
/// when nobody has it.
pub(super) fn more_telling(told: Option<UpstreamError>, error: UpstreamError) -> UpstreamError {
    match told {
        None | Some(UpstreamError::NotFound { .. }) => error,
        Some(told) => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> UpstreamError {
        UpstreamError::Status { status: 503, message: None }
    }

    fn absent() -> UpstreamError {
        UpstreamError::NotFound { message: None }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_end_with_an_answer() {
        let (mut health, now) = (Health::default(), Instant::now());
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            health.failed(&busy(), now);
            assert_eq!(health.passed_over_until(now), Some(now + Duration::from_secs(seconds)));
        }
        health.failed(&absent(), now);
        assert_eq!(health.passed_over_until(now), None);
        health.failed(&busy(), now);
        assert_eq!(health.passed_over_until(now), Some(now + PAUSE_FIRST));
        health.succeeded();
        assert_eq!(health.passed_over_until(now), None);
    }

    #[test]
    fn a_rate_limit_is_kept_and_bounded_and_wrong_bytes_are_remembered_beyond_a_success() {
        let now = Instant::now();
        for (told, kept) in [(Some(7), 7), (None, 1), (Some(100_000), 60)] {
            let mut health = Health::default();
            health.failed(&UpstreamError::RateLimited { retry_after: told.map(Duration::from_secs) }, now);
            assert_eq!(health.passed_over_until(now), Some(now + Duration::from_secs(kept)));
        }
        let mut health = Health::default();
        health.distrust(now);
        health.succeeded();
        assert_eq!(health.passed_over_until(now), Some(now + DISTRUST));
        assert_eq!(health.passed_over_until(now + DISTRUST), None);
    }

    #[test]
    fn the_healthy_come_first_as_configured_then_who_is_back_first() {
        let now = Instant::now();
        let (good, mut bad, mut worse) = (Health::default(), Health::default(), Health::default());
        bad.failed(&busy(), now);
        worse.distrust(now);
        for (endpoints, expected) in [
            (vec![good, good, good], [0, 1, 2]),
            (vec![bad, good, good], [1, 2, 0]),
            (vec![worse, bad, good], [2, 1, 0]),
            (vec![bad, worse, bad], [0, 2, 1]),
        ] {
            assert_eq!(order(&endpoints, now), expected);
        }
        assert_eq!(order(&[bad, good], now + PAUSE_FIRST), [0, 1]);
    }

    #[test]
    fn an_absence_counts_only_when_nobody_has_it() {
        let denied = || UpstreamError::Denied { status: 403, message: None };
        for (errors, expected) in [
            (vec![absent(), absent()], "not found"),
            (vec![absent(), busy()], "unexpected status 503"),
            (vec![busy(), absent()], "unexpected status 503"),
            (vec![denied(), busy()], "access denied (status 403)"),
        ] {
            let told = errors.into_iter().fold(None, |told, error| Some(more_telling(told, error)));
            assert_eq!(told.map(|error| error.to_string()).as_deref(), Some(expected));
        }
    }
}
