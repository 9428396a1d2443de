//! Whether an upstream keeps us waiting: one client finds out, and the others with a stale answer at hand do not wait as well.
//!
//! `now` is an argument; the lock is held for a comparison.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long an upstream that kept somebody waiting is believed to be silent, unless it speaks before: then somebody waits again.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// What is known of one upstream.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<Option<Instant>>);

impl Silence {
    /// Notes that a client has waited for an answer in vain.
    pub(super) fn begins(&self, now: Instant) {
        *self.until() = Some(now + SILENT_FOR);
    }

    /// Notes that the upstream answered.
    pub(super) fn ends(&self) {
        *self.until() = None;
    }

    /// Returns how long a client with a stale answer at hand waits, who would wait so long otherwise.
    pub(super) fn shortens(&self, patience: Duration, now: Instant) -> Duration {
        if self.until().is_some_and(|until| until > now) { Duration::ZERO } else { patience }
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_who_is_silent_until_it_speaks_or_for_a_while() {
        let (silence, now, patience) = (Silence::default(), Instant::now(), Duration::from_secs(2));
        assert_eq!(silence.shortens(patience, now), patience);
        silence.begins(now);
        assert_eq!(silence.shortens(patience, now), Duration::ZERO);
        assert_eq!(silence.shortens(patience, now + SILENT_FOR), patience);
        silence.ends();
        assert_eq!(silence.shortens(patience, now), patience);
    }
}
