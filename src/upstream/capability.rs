//! What an upstream was seen to be able to do, and to be unable to (U-70).
//!
//! | capability | seen in | what follows when it is missing | believed for |
//! |---|---|---|---|
//! | HEAD of blobs | its answer to one (P-51, U-28, U-46) | the shortest GET at once | an hour |
//! | ranges | its answer to a request for one (U-64) | blobs are fetched in order | 10 minutes |
//! | referrers | its answer to a request for a list (P-76, U-9) | the fallback tag alone is read | 10 minutes |
//!
//! Nothing is believed for ever: who is mended or upgraded is used to the full again, and what is not known is tried. `now` is an
//! argument; the lock is held for a comparison. Which token services take a POST is theirs and not the upstream's: [`super::post_token`]
//! knows. Several ranges in one request are not among them: nothing here asks for such (U-32).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Something that registries differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    BlobHead,
    Ranges,
    Referrers,
}

impl Capability {
    pub const ALL: [Self; 3] = [Self::BlobHead, Self::Ranges, Self::Referrers];

    /// Returns the value of the metrics label `capability`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobHead => "blob_head",
            Self::Ranges => "ranges",
            Self::Referrers => "referrers",
        }
    }

    /// For how long an observation is believed: the shorter, the more it costs to be wrong.
    fn believed_for(self) -> Duration {
        match self {
            Self::BlobHead => Duration::from_hours(1),
            Self::Ranges | Self::Referrers => Duration::from_mins(10),
        }
    }
}

/// What is known of one upstream.
#[derive(Debug, Default)]
pub struct Capabilities(Mutex<[Option<Seen>; Capability::ALL.len()]>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    is_there: bool,
    at: Instant,
}

impl Capabilities {
    /// Returns whether the upstream has it; `None` when that is not known, or not any more.
    pub fn get(&self, which: Capability, now: Instant) -> Option<bool> {
        let seen = self.seen().get(which as usize).copied().flatten()?;
        (now.saturating_duration_since(seen.at) < which.believed_for()).then_some(seen.is_there)
    }

    /// Notes what was seen.
    pub fn note(&self, which: Capability, is_there: bool, now: Instant) {
        if let Some(seen) = self.seen().get_mut(which as usize) {
            *seen = Some(Seen { is_there, at: now });
        }
    }

    fn seen(&self) -> MutexGuard<'_, [Option<Seen>; Capability::ALL.len()]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_last_is_believed_for_a_while() {
        let (known, now) = (Capabilities::default(), Instant::now());
        for which in Capability::ALL {
            assert_eq!(known.get(which, now), None);
            known.note(which, true, now);
            known.note(which, false, now);
            assert_eq!(known.get(which, now), Some(false));
            let end = now + which.believed_for();
            assert_eq!((known.get(which, end - Duration::from_secs(1)), known.get(which, end)), (Some(false), None));
            known.note(which, true, end);
            assert_eq!(known.get(which, end), Some(true), "{}", which.as_str());
        }
    }
}
