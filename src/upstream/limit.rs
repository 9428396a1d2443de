//! How much one upstream is asked at once and per second, and how long a question may wait for its turn.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::error::{RateLimit, UpstreamError};
use super::options::Options;

/// The time that one question has until the headers of its answer, everything included (P-124).
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    began: Instant,
    limit: Duration,
}

impl Budget {
    /// Starts the clock.
    pub(super) fn start(limit: Duration) -> Self {
        Self { began: Instant::now(), limit }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn deadline(&self) -> Instant {
        self.began + self.limit
    }

    /// Returns an even share of what is left, for one of `sharers`.
    pub(super) fn share(&self, sharers: u32) -> Duration {
        self.limit.saturating_sub(self.elapsed()) / sharers.max(1)
    }

    /// Returns the error of one of `sharers` whose `share` is spent: the last one's is the whole budget.
    pub(super) fn spent_share(&self, sharers: u32, share: Duration) -> UpstreamError {
        match sharers {
            1 => UpstreamError::TimedOut { limit: "header budget", after: self.limit },
            _ => UpstreamError::TimedOut { limit: "share of the header budget", after: share },
        }
    }
}

/// The limits of one upstream.
pub(super) struct Limits {
    transfers: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    /// As many as other requests, and none of theirs: a body takes as long as its caller.
    writes: Arc<Semaphore>,
    rate: Option<DefaultDirectRateLimiter>,
}

/// A turn; dropping it gives it to the next in line.
#[derive(Debug)]
pub(super) struct Permit {
    _permit: OwnedSemaphorePermit,
}

impl Limits {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            transfers: Arc::new(Semaphore::new(options.connections.clamp(1, Semaphore::MAX_PERMITS))),
            requests: Arc::new(Semaphore::new(options.requests.clamp(1, Semaphore::MAX_PERMITS))),
            writes: Arc::new(Semaphore::new(options.requests.clamp(1, Semaphore::MAX_PERMITS))),
            rate: options.rate.map(limiter),
        }
    }

    /// Waits for the turn of a blob transfer, first come, first served.
    pub(super) async fn transfer(&self, budget: &Budget) -> Result<Permit, UpstreamError> {
        acquire(&self.transfers, budget).await
    }

    /// Returns how many turns of blob transfers are free.
    pub(super) fn free_transfers(&self) -> usize {
        self.transfers.available_permits()
    }

    /// Waits for the turn of any other request, first come, first served.
    pub(super) async fn request(&self, budget: &Budget) -> Result<Permit, UpstreamError> {
        acquire(&self.requests, budget).await
    }

    /// Waits for the turn of a write, first come, first served.
    pub(super) async fn write(&self, budget: &Budget) -> Result<Permit, UpstreamError> {
        acquire(&self.writes, budget).await
    }

    /// Waits until the rate allows one more request; when that is beyond the budget, it says so at once.
    pub(super) async fn pace(&self, budget: &Budget) -> Result<(), UpstreamError> {
        let Some(rate) = &self.rate else { return Ok(()) };
        while let Err(not_until) = rate.check() {
            let wait = not_until.wait_time_from(rate.clock().now());
            if Instant::now() + wait >= budget.deadline() {
                return Err(UpstreamError::RateLimited { retry_after: Some(wait), limit: RateLimit::Requests });
            }
            sleep(wait).await;
        }
        Ok(())
    }
}

/// Allows `rate` requests each second, and as many at once after a pause.
fn limiter(rate: NonZeroU32) -> DefaultDirectRateLimiter {
    RateLimiter::direct(Quota::per_second(rate))
}

async fn acquire(turns: &Arc<Semaphore>, budget: &Budget) -> Result<Permit, UpstreamError> {
    match timeout_at(budget.deadline(), Arc::clone(turns).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(Permit { _permit: permit }),
        // The semaphore is never closed; were it, no turn would come either.
        Ok(Err(_)) | Err(_) => Err(UpstreamError::TimedOut { limit: "wait for a turn", after: budget.limit() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: usize, rate: Option<u32>) -> Limits {
        let name = "docker.io".parse().expect("a name");
        let mut options = Options::new(name, url::Url::parse("https://a").expect("a URL"));
        options.connections = connections;
        options.rate = rate.and_then(NonZeroU32::new);
        Limits::new(&options)
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_comes_when_another_ends_or_not_within_the_budget() {
        let limits = limits(1, None);
        let budget = Budget::start(Duration::from_secs(20));
        let first = limits.transfer(&budget).await.expect("the first is free");
        let error = limits.transfer(&budget).await.expect_err("there is one only");
        assert!(matches!(error, UpstreamError::TimedOut { limit: "wait for a turn", .. }), "{error:?}");
        drop(first);
        assert!(limits.transfer(&Budget::start(Duration::from_secs(20))).await.is_ok());
    }

    #[tokio::test]
    async fn a_rate_that_cannot_be_kept_within_the_budget_is_told_at_once() {
        let limits = limits(1, Some(1));
        let budget = Budget::start(Duration::from_millis(100));
        assert!(limits.pace(&budget).await.is_ok());
        let error = limits.pace(&budget).await.expect_err("a second is longer than the budget");
        assert!(matches!(error, UpstreamError::RateLimited { retry_after: Some(_), .. }), "{error:?}");
    }
}
