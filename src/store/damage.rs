//! What becomes of a stored object that was found damaged: it is dropped, with its grants, and the next request fetches it anew.
//!
//! The disk may take no writes by then; file systems do that after an error. What cannot be removed counts as absent nevertheless.

use std::io;

use rustix::io::Errno;

use super::disk::Disk;
use super::{Class, Mark};
use crate::oci::Digest;
use crate::telemetry::{EvictReason, MismatchSource, StoreErrorReason, StoreOperation};

/// What is wrong with a stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Its bytes, or their number, are not those of its digest.
    Mismatch,
    /// It cannot be read to its end.
    Unreadable(StoreErrorReason),
}

impl Damage {
    /// Returns what an error while reading a stored object says about the object; `None` when it is about something else, such as
    /// memory.
    pub fn of(error: &io::Error) -> Option<Self> {
        let is_about_the_object = match error.raw_os_error() {
            Some(errno) => ![Errno::NOMEM, Errno::INTR, Errno::AGAIN].contains(&Errno::from_raw_os_error(errno)),
            None => error.kind() == io::ErrorKind::UnexpectedEof,
        };
        is_about_the_object.then(|| Self::Unreadable(StoreErrorReason::of(error)))
    }

    fn evict_reason(self) -> EvictReason {
        match self {
            Self::Mismatch => EvictReason::Corrupt,
            Self::Unreadable(_) => EvictReason::Unreadable,
        }
    }
}

impl Disk {
    /// Drops an object that was found damaged and is marked so; false when what is stored is not that object any more. Blocks.
    pub(super) fn discard_in(&self, class: Class, digest: &Digest, mark: Mark, damage: Damage) -> bool {
        let Some(victim) = self.shelf(class).list(digest, |recency| recency.remove_marked(digest, mark)) else {
            return false;
        };
        if let Damage::Unreadable(reason) = damage {
            self.metrics().storage().failed(StoreOperation::Read, reason);
        }
        if !self.unlink_one(class, &victim, damage.evict_reason()) {
            self.shelf(class).condemn(digest);
        }
        self.refresh_gauges();
        true
    }

    /// Drops an object whose file has not the size that it should have, and returns that it is absent.
    pub(super) fn discard_resized(&self, class: Class, digest: &Digest, mark: Mark, size_bytes: u64) -> io::Error {
        if self.discard_in(class, digest, mark, Damage::Mismatch) {
            self.metrics().stored_mismatch(MismatchSource::Disk);
            tracing::error!(%digest, size_bytes, "a stored object has not the size that it should have and is dropped");
        }
        io::ErrorKind::NotFound.into()
    }

    /// Takes an object off the list whose file is gone; false when it has come back. Blocks.
    pub(super) fn forget_missing(&self, class: Class, digest: &Digest, mark: Mark) -> bool {
        let is_gone = self.shelf(class).list(digest, |recency| recency.remove_marked(digest, mark)).is_some();
        if is_gone {
            self.ledger().forget(digest);
        }
        is_gone
    }
}
