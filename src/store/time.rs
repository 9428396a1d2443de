//! When an object was last used: small, because there is one for each stored object, and fine enough to order what is used at once.

use std::time::{Duration, SystemTime};

/// A moment since the epoch, in nanoseconds: good until the year 2554.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(u64);

impl Time {
    pub(super) fn now() -> Self {
        SystemTime::now().into()
    }

    #[cfg(test)]
    pub(super) fn from_seconds(seconds: u64) -> Self {
        Self(seconds * 1_000_000_000)
    }

    /// Returns whole seconds since the epoch.
    pub(super) fn seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Returns the time from `earlier` until now; nothing when that is the later one.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}
