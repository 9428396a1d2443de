//! How many fills and unfinished bytes there may be at once, of all upstreams together and of each.
//!
//! A fill waits for its place inside the time that its client waits for headers (P-124); when none comes free, the client is told
//! to come back. The upstream's own place is taken first, so that a stuck upstream does not use up everybody's places.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a new fill waits for a place; it leaves most of the time that a client waits for headers to the upstream (P-124).
const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// The unit in which unfinished bytes are counted.
const UNIT_BYTES: u64 = 1024 * 1024;

/// Bounds on fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FillLimits {
    /// Fills at once.
    pub fills: usize,
    /// Bytes of the blobs that are being filled; a blob above all of it is filled alone.
    pub bytes: u64,
    /// Fills that go on though no client follows them any more; with 0 a fill ends with its last reader.
    pub unattended: usize,
}

/// The places that [`FillLimits`] leave; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    fills: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bytes_max: u32,
    unattended: Arc<Semaphore>,
}

/// A place; dropping it gives it to the next in line.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "held for its drop")] Vec<OwnedSemaphorePermit>);

impl Bounds {
    pub(crate) fn new(limits: FillLimits) -> Self {
        let bytes_max = units(limits.bytes).max(1);
        Self {
            fills: semaphore(limits.fills),
            bytes: semaphore(bytes_max as usize),
            bytes_max,
            unattended: semaphore(limits.unattended),
        }
    }
}

/// Waits for a place for one more fill in all of `bounds`; `None` when none came free in time.
pub(super) async fn enter(bounds: &[Bounds]) -> Option<Place> {
    acquire(bounds.iter().map(|bounds| (&bounds.fills, 1))).await
}

/// Waits for room for `size_bytes` unfinished ones; `None` when there was none in time.
pub(super) async fn take_bytes(bounds: &[Bounds], size_bytes: u64) -> Option<Place> {
    acquire(bounds.iter().map(|bounds| (&bounds.bytes, units(size_bytes).min(bounds.bytes_max)))).await
}

/// Takes a place for a fill that nobody follows, if one is free.
pub(super) fn go_on_unattended(bounds: &[Bounds]) -> Option<Place> {
    let permits = bounds.iter().map(|bounds| Arc::clone(&bounds.unattended).try_acquire_owned().ok());
    permits.collect::<Option<_>>().map(Place)
}

async fn acquire(wanted: impl Iterator<Item = (&Arc<Semaphore>, u32)>) -> Option<Place> {
    let all = async {
        let mut permits = Vec::new();
        for (semaphore, count) in wanted {
            permits.push(Arc::clone(semaphore).acquire_many_owned(count).await.ok()?);
        }
        Some(Place(permits))
    };
    timeout(QUEUE_WAIT, all).await.ok()?
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FillLimits = FillLimits { fills: 2, bytes: 10 * UNIT_BYTES, unattended: 1 };

    #[tokio::test(start_paused = true)]
    async fn the_narrowest_bound_counts_and_a_dropped_place_is_free_again() {
        let bounds = [Bounds::new(FillLimits { fills: 1, ..LIMITS }), Bounds::new(LIMITS)];
        let place = enter(&bounds).await;
        assert!(place.is_some() && enter(&bounds).await.is_none() && enter(&bounds[1..]).await.is_some());
        drop(place);
        assert!(enter(&bounds).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_blob_above_the_bound_is_filled_alone() {
        let bounds = [Bounds::new(LIMITS)];
        let large = take_bytes(&bounds, 1 << 50).await;
        assert!(large.is_some() && take_bytes(&bounds, 1).await.is_none());
        drop(large);
        assert!(take_bytes(&bounds, 4 * UNIT_BYTES).await.is_some());
    }

    #[tokio::test]
    async fn without_places_nothing_goes_on_unattended() {
        let none = [Bounds::new(FillLimits { unattended: 0, ..LIMITS })];
        assert!(go_on_unattended(&none).is_none());
        let one = [Bounds::new(LIMITS)];
        let place = go_on_unattended(&one);
        assert!(place.is_some() && go_on_unattended(&one).is_none());
    }
}
