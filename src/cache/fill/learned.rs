//! What fills learned of their upstream and remember for the next ones: whether several connections bring a blob faster than one.
//!
//! Nothing is believed for ever: an upstream that did not gain by parallel transfers is tried again after [`RELEARN_AFTER`]. `now` is
//! an argument; the lock is held for a comparison.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long an upstream's bad answer is believed: long enough to spare each blob a useless try, short enough that a mended
/// upstream is used to the full within a coffee break.
const RELEARN_AFTER: Duration = Duration::from_mins(10);

/// Parallel transfers that bring less than this many times the bytes per second of a single one are not worth their connections.
const GAIN_MIN: f64 = 1.2;

/// What a judgement needs at least: less of either says more about the moment than about the upstream.
const JUDGED_BYTES_MIN: u64 = 8 * 1024 * 1024;
const JUDGED_TIME_MIN: Duration = Duration::from_millis(500);

/// What is known of one upstream.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    parallel_useless: Mutex<Option<Instant>>,
}

/// Some bytes over some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

impl Pace {
    #[expect(clippy::cast_precision_loss, reason = "a rate is an estimate")]
    fn bytes_per_second(self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64().max(0.001)
    }
}

impl Learned {
    /// Returns true unless parallel transfers brought nothing not long ago.
    pub(super) fn may_gain(&self, now: Instant) -> bool {
        !self.parallel_useless().is_some_and(|since| now.saturating_duration_since(since) < RELEARN_AFTER)
    }

    /// The upstream refused a further connection, or does not give more over several.
    pub(super) fn does_not_gain(&self, now: Instant) {
        *self.parallel_useless() = Some(now);
    }

    fn parallel_useless(&self) -> MutexGuard<'_, Option<Instant>> {
        self.parallel_useless.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns true when `together` is hardly faster than `alone`, and both were seen for long enough to tell.
pub(super) fn is_no_gain(alone: Pace, together: Pace) -> bool {
    together.bytes >= JUDGED_BYTES_MIN
        && together.time >= JUDGED_TIME_MIN
        && together.bytes_per_second() < alone.bytes_per_second() * GAIN_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_news_is_believed_for_a_while() {
        let (learned, now) = (Learned::default(), Instant::now());
        assert!(learned.may_gain(now));
        learned.does_not_gain(now);
        assert!(!learned.may_gain(now));
        assert!(learned.may_gain(now + RELEARN_AFTER));
    }

    #[test]
    fn a_judgement_needs_bytes_and_time() {
        let pace = |mib: u64, millis| Pace { bytes: mib * 1024 * 1024, time: Duration::from_millis(millis) };
        for (alone, together, expected) in [
            (pace(3, 300), pace(40, 1000), false),
            (pace(3, 300), pace(10, 1000), true),
            (pace(3, 300), pace(11, 1000), true),
            (pace(3, 300), pace(13, 1000), false),
            (pace(3, 300), pace(4, 1000), false),
            (pace(3, 30), pace(40, 450), false),
            (pace(3, 0), pace(400, 1000), true),
        ] {
            assert_eq!(is_no_gain(alone, together), expected, "{alone:?} {together:?}");
        }
    }
}
