//! A fill: one download of one digest into the store, run by a task of its own and followed by any number of readers.
//!
//! ```text
//! Connecting ──► Streaming ──► Verified ──► (committed, or streamed through when the store had no room)
//!      └─────────────┴──► Failed(why)
//! ```
//!
//! The task alone moves the phase; readers only watch it. Full, ranged and resumed downloads are the same thing: missing bytes
//! being fetched. Followers read the growing object through their own cursors: a slow or leaving one neither slows nor stops the
//! fill. Every ending is explicit: when the task vanishes without one, followers fail with [`FillError::Aborted`].
//!
//! * [`Fill`] is what everybody shares: progress, the ground that bytes land on, the readers.
//! * [`Follower`] reads a range of it. The tail of a body that runs to the blob's end is withheld until the digest is known good.
//! * `run` is the task: it asks the upstream, keeps `transfers` going as `schedule` decides, verifies in order, and commits.
//! * `askers` is in whose name it asks, where that matters.
//! * `bounds` is how many there may be; `learned` is what they remember of their upstream.
//! * [`Inflight`] finds the fill of a digest, so that nothing is fetched twice.
//!
//! A failed fill is never reused: the next request starts a fresh one, which goes on with the bytes that the store has kept of it.

mod askers;
mod bounds;
mod early;
mod follow;
mod ground;
mod inflight;
mod learned;
mod readers;
mod run;
mod schedule;
mod transfer;
mod transfers;
mod verify;
mod window;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

pub(super) use askers::Asker;
pub(super) use bounds::Bounds;
pub use bounds::FillLimits;
pub(super) use follow::{FollowError, Follower, Reach, WITHHELD_BYTES};
pub(super) use inflight::{Inflight, Joined, Lead};
pub(super) use learned::Learned;
pub(super) use run::FillTask;
pub use transfers::Parallel;
pub use verify::Prefix;

use super::push::Edition;
use crate::oci::{Digest, RepositoryName, UpstreamName};
use crate::store::{Buffers, Present};
use crate::upstream::UpstreamError;
use askers::Askers;
use ground::Ground;
pub(super) use readers::Interest;
use readers::Readers;

/// What identifies a fill: bytes are shared within an upstream; who may read them is decided per reader (P-132).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FillKey {
    pub upstream: UpstreamName,
    pub digest: Digest,
}

/// How far a fill has come.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// The upstream has not answered yet.
    Connecting,
    /// Bytes arrive.
    Streaming,
    /// All bytes are there and match the digest; being made durable.
    Verified,
    Failed(Arc<FillError>),
}

/// What the task publishes and readers watch.
#[derive(Debug)]
pub(super) struct Progress {
    pub phase: Phase,
    /// The blob's length, once known.
    pub size_bytes: Option<u64>,
    /// Bytes that were obtained, wherever they landed.
    pub present: Present,
    /// Set when the store stopped taking bytes: those that it holds. All later ones pass through the window.
    pub on_disk: Option<Present>,
}

/// The shared part of a fill.
pub(super) struct Fill {
    pub key: FillKey,
    /// The repository whose reader started it: the upstream's yes to the fill is a yes to this repository.
    pub repository: RepositoryName,
    /// The state of that repository when it was started: its yes is none to a later one.
    pub edition: Edition,
    /// It found the blob stored when it began: the upstream has said nothing.
    is_found: AtomicBool,
    progress: watch::Sender<Progress>,
    ground: Ground,
    readers: Readers,
    askers: Askers,
    buffers: Buffers,
}

impl Fill {
    pub(super) fn new(key: FillKey, repository: RepositoryName, edition: Edition, buffers: Buffers) -> Self {
        let progress =
            Progress { phase: Phase::Connecting, size_bytes: None, present: Present::default(), on_disk: None };
        Self {
            key,
            repository,
            edition,
            is_found: AtomicBool::new(false),
            progress: watch::Sender::new(progress),
            ground: Ground::default(),
            readers: Readers::default(),
            askers: Askers::default(),
            buffers,
        }
    }

    /// Waits until the upstream has said yes, and returns the blob's length if it is known (P-44). That there is nothing in it is not
    /// taken for granted: an answer of that length is complete at once.
    ///
    /// # Errors
    /// Why the fill failed before its first byte, or since.
    pub(super) async fn started(&self) -> Result<Option<u64>, Arc<FillError>> {
        let mut progress = self.progress.subscribe();
        let told = progress.wait_for(|progress| match progress.phase {
            Phase::Connecting => false,
            Phase::Streaming => progress.size_bytes != Some(0),
            Phase::Verified | Phase::Failed(_) => true,
        });
        let told = told.await;
        match told {
            Ok(progress) => match &progress.phase {
                Phase::Failed(why) => Err(Arc::clone(why)),
                Phase::Connecting | Phase::Streaming | Phase::Verified => Ok(progress.size_bytes),
            },
            Err(_closed) => Err(Arc::new(FillError::Aborted)),
        }
    }

    /// Returns true when the upstream has said yes to a fill that has started; else the blob was found, whoever brought it.
    pub(super) fn was_given(&self) -> bool {
        !self.is_found.load(Ordering::Acquire)
    }

    /// Waits until all bytes are there and match the digest.
    ///
    /// # Errors
    /// Why they never will.
    pub(super) async fn verdict(&self) -> Result<(), Arc<FillError>> {
        self.ended().await;
        match &self.progress.borrow().phase {
            Phase::Failed(why) => Err(Arc::clone(why)),
            Phase::Connecting | Phase::Streaming | Phase::Verified => Ok(()),
        }
    }

    /// Waits until the fill has ended, well or not.
    pub(super) async fn ended(&self) {
        let mut progress = self.progress.subscribe();
        // The sender lives in `self`: the wait cannot fail.
        let _ended = progress.wait_for(|progress| matches!(progress.phase, Phase::Verified | Phase::Failed(_))).await;
    }

    /// Returns true when all bytes are there and match the digest.
    pub(crate) fn is_verified(&self) -> bool {
        matches!(self.progress.borrow().phase, Phase::Verified)
    }

    fn fail(&self, why: Arc<FillError>) {
        self.progress.send_modify(|progress| progress.phase = Phase::Failed(why));
        // Nobody reads it from here on, but who does not read at all would keep it.
        self.drop_window();
    }
}

impl fmt::Debug for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill")
            .field("key", &self.key)
            .field("progress", &*self.progress.borrow())
            .finish_non_exhaustive()
    }
}

/// Why a fill failed; one value, told to all its followers.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    #[error("the upstream failed")]
    Upstream(#[source] UpstreamError),
    #[error("the bytes have digest {actual}, not {expected}")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("too many fills are under way")]
    Overloaded,
    #[error("what was written cannot be read back beyond byte {}", prefix.len_bytes)]
    Unreadable {
        /// What its readers may have had of it.
        prefix: Prefix,
        source: std::io::Error,
    },
    #[error("nobody wants it any more, and the store does not take it")]
    Abandoned,
    #[error("the fill was stopped")]
    Aborted,
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn that_there_is_nothing_is_told_when_the_digest_says_so() {
        let key = FillKey { upstream: "registry.test".parse().unwrap(), digest: Digest::sha256(b"") };
        let make = || Fill::new(key.clone(), "app".parse().unwrap(), 0, Buffers::default());
        let Joined::Lead(interest, lead) = Inflight::default().join(&key, make) else { panic!("there is no other") };
        let moves_to = |phase| {
            lead.fill().progress.send_modify(|progress| (progress.phase, progress.size_bytes) = (phase, Some(0)));
        };
        moves_to(Phase::Streaming);
        let mut follower = Follower::new(interest.clone(), 0, Reach::ToEnd);
        assert!(lead.fill().started().now_or_never().is_none(), "an empty answer would be complete");
        assert!(follower.next().now_or_never().is_none(), "the body would be complete");
        moves_to(Phase::Verified);
        assert_eq!(lead.fill().started().await.unwrap(), Some(0));
        assert!(follower.next().await.is_none());
    }
}
