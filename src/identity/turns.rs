//! How often somebody may ask: turns for each, at a rate.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock as _;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::time::{Instant, sleep};

/// How long a request may wait for its turn: who is a little too fast is slowed down, not sent away.
const TURN_WAIT: Duration = Duration::from_secs(5);

/// The turns of all who are told apart by `K`; each of them has some 40 bytes here until [`forget_idle`](Self::forget_idle).
#[derive(Debug)]
pub struct Turns<K: Hash + Eq + Clone>(DefaultKeyedRateLimiter<K>);

impl<K: Hash + Eq + Clone> Turns<K> {
    /// Gives everybody `rate` turns a second, and after a pause `burst` at once, or as many as `rate`.
    pub fn new(rate: NonZeroU32, burst: Option<NonZeroU32>) -> Self {
        let quota = Quota::per_second(rate);
        Self(RateLimiter::keyed(burst.map_or(quota, |burst| quota.allow_burst(burst))))
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// How long one should wait, when that is too long to be kept here.
    pub async fn turn(&self, key: &K) -> Result<(), Duration> {
        let deadline = Instant::now() + TURN_WAIT;
        while let Err(not_until) = self.0.check_key(key) {
            let wait = not_until.wait_time_from(self.0.clock().now());
            if Instant::now() + wait > deadline {
                return Err(wait);
            }
            sleep(wait).await;
        }
        Ok(())
    }

    /// Forgets those who may ask freely again. Locks parts of the rest for some milliseconds each.
    pub fn forget_idle(&self) {
        self.0.retain_recent();
        self.0.shrink_to_fit();
    }
}
