//! Whether a failed attempt is made once more, and after how long.
//!
//! | error | verdict |
//! |---|---|
//! | no connection, connection broken | again, while attempts and budget last |
//! | 408, 500, 502, 503, 504 | again, likewise |
//! | a time-out | never: it took seconds already, in which the network has tried more than once |
//! | 429 | never: the upstream asked for quiet (U-65, P-106) |
//! | every other status, TLS, protocol, authentication | never: the same answer would come |
//!
//! Source: U-65, P-124.

use std::time::Duration;

use super::error::UpstreamError;

/// Attempts at one question at the most: a third one mends most that a second one did not; a fourth only waits.
pub(super) const ATTEMPTS_MAX: u32 = 3;

/// The wait before the second attempt, before jitter; it doubles with each.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Wait(Duration),
    GiveUp,
}

/// Decides after attempt number `attempt` (from 1) failed with `error`, `elapsed` after the question was asked.
///
/// `jitter` is a random number from 0 to 1.
pub(super) fn decide(attempt: u32, error: &UpstreamError, elapsed: Duration, budget: Duration, jitter: f64) -> Verdict {
    if attempt >= ATTEMPTS_MAX || !may_succeed(error) {
        return Verdict::GiveUp;
    }
    let longest = BACKOFF_FIRST * 2u32.saturating_pow(attempt.saturating_sub(1));
    let wait = longest.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
    if elapsed + wait >= budget { Verdict::GiveUp } else { Verdict::Wait(wait) }
}

fn may_succeed(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::Status { status, .. } => matches!(status, 408 | 500 | 502 | 503 | 504),
        UpstreamError::Dns { .. } | UpstreamError::Connect { .. } | UpstreamError::Truncated { .. } => true,
        UpstreamError::NotFound { .. }
        | UpstreamError::Denied { .. }
        | UpstreamError::TimedOut { .. }
        | UpstreamError::CircuitOpen { .. }
        | UpstreamError::Forbidden { .. }
        | UpstreamError::RateLimited { .. }
        | UpstreamError::Auth { .. }
        | UpstreamError::Tls { .. }
        | UpstreamError::Protocol { .. }
        | UpstreamError::Range { .. }
        | UpstreamError::TooLarge { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::upstream::error::RateLimit;

    const BUDGET: Duration = Duration::from_secs(20);

    fn verdict(error: &UpstreamError) -> Verdict {
        decide(1, error, Duration::ZERO, BUDGET, 1.0)
    }

    #[test]
    fn only_errors_that_may_pass_are_tried_again() {
        let source = || Arc::new(std::io::Error::other("refused"));
        let again = Verdict::Wait(BACKOFF_FIRST);
        for status in 400..600 {
            let expected = if [408, 500, 502, 503, 504].contains(&status) { again } else { Verdict::GiveUp };
            assert_eq!(verdict(&UpstreamError::Status { status, message: None }), expected, "{status}");
        }
        for (error, expected) in [
            (UpstreamError::Connect { host: "a".to_owned(), source: source() }, again),
            (UpstreamError::Truncated { received_bytes: 1, source: None }, again),
            (UpstreamError::TimedOut { limit: "connect", after: BUDGET }, Verdict::GiveUp),
            (UpstreamError::Tls { host: "a".to_owned(), source: source() }, Verdict::GiveUp),
            (UpstreamError::RateLimited { retry_after: None, limit: RateLimit::Requests }, Verdict::GiveUp),
            (UpstreamError::NotFound { message: None }, Verdict::GiveUp),
            (UpstreamError::Denied { status: 403, message: None }, Verdict::GiveUp),
            (UpstreamError::Auth { reason: String::new() }, Verdict::GiveUp),
            (UpstreamError::Protocol { reason: String::new() }, Verdict::GiveUp),
            (UpstreamError::TooLarge { limit_bytes: 1 }, Verdict::GiveUp),
        ] {
            assert_eq!(verdict(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn waits_grow_and_stay_inside_attempts_and_budget() {
        let error = UpstreamError::Status { status: 503, message: None };
        let at = |attempt, elapsed, jitter| decide(attempt, &error, elapsed, BUDGET, jitter);
        assert_eq!(at(1, Duration::ZERO, 0.0), Verdict::Wait(BACKOFF_FIRST / 2));
        assert_eq!(at(2, Duration::ZERO, 1.0), Verdict::Wait(BACKOFF_FIRST * 2));
        assert_eq!(at(3, Duration::ZERO, 1.0), Verdict::GiveUp);
        assert_eq!(at(1, BUDGET.saturating_sub(BACKOFF_FIRST), 1.0), Verdict::GiveUp);
        assert_eq!(at(1, BUDGET * 2, 1.0), Verdict::GiveUp);
    }
}
