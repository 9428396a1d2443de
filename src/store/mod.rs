//! The disk and memory side: content by digest, and the ledger of tags and grants.
//!
//! Content is addressed by its full digest (S-15); who may read it from where is told by the [`Ledger`].
//! The seam is [`BlobStore`]: [`Disk`] keeps files, [`Memory`] is a tier in front of another store.
//! All methods of the traits that touch a disk block: call them through [`blocking`].
//!
//! ```text
//! begin ──► Partial ──write_at──► … ──commit──► fsync, rename, fsync of the directory ──► visible to `open`
//!              └── dropped without commit: left for the next fill if it was checkpointed, else removed
//! ```
//!
//! A file under its final name is complete and was verified: the file name is the index, and a start needs no scan.
//!
//! Disks rot all the same. Each process reads what an earlier one stored with care: [`Object::mark`] tells whether its bytes were
//! seen to match in this process, and [`scrub()`] reads everything again in the background.

mod buffers;
mod client_print;
mod damage;
mod disk;
mod layout;
mod ledger;
mod leftover;
mod mark;
mod memory;
mod object;
mod partial;
mod presence;
mod present;
mod recency;
mod reservation;
mod scrub;
mod shelves;
mod time;

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

pub use buffers::{Buffers, CHUNK_BYTES};
pub use client_print::ClientPrint;
pub use damage::Damage;
pub use disk::{Disk, Options, prepare};
pub use ledger::{Grant, GrantKind, Ledger, ListEntry, TagEntry};
pub use mark::Mark;
pub use memory::Memory;
pub use object::{Content, Object, ReadAt, read_chunk};
pub use presence::{Believed, PresenceRecord};
pub use present::Present;
pub use scrub::scrub;

use crate::oci::Digest;
use crate::telemetry::StoreOperation;

/// Verified content by digest.
pub trait BlobStore: Send + Sync + fmt::Debug {
    /// Returns an object that is at hand without any I/O.
    fn peek(&self, digest: &Digest) -> Option<Object>;

    /// Returns true when it is known without any I/O that there is nothing of the digest, not even what an unfinished fill left.
    fn is_absent(&self, digest: &Digest) -> bool;

    /// Notes a use of an object that a tier above answered, so that it does not grow cold below.
    fn touch(&self, digest: &Digest);

    /// Notes that a client asked for an object: what several clients want is kept longer than what one alone does.
    fn asked(&self, digest: &Digest, client: ClientPrint);

    /// Returns an object, looking at the disk. A damaged one is dropped and counts as absent: the caller never pays for our disk.
    fn open(&self, digest: &Digest) -> Option<Object>;

    /// Returns what an earlier fill of the digest left, in this process or before a crash of it.
    fn resume(&self, digest: &Digest) -> Option<Arc<dyn Partial>>;

    /// Reserves room and starts an unfinished object.
    ///
    /// With `size_bytes` unknown, room is reserved as the bytes come.
    fn begin(&self, digest: &Digest, class: Class, size_bytes: Option<u64>) -> Result<Arc<dyn Partial>, StoreError>;

    /// Stores a small object that was verified.
    fn put(&self, digest: &Digest, class: Class, bytes: &Bytes) -> Result<(), StoreError> {
        let partial = self.begin(digest, class, Some(bytes.len() as u64))?;
        partial.write_at(0, std::slice::from_ref(bytes))?;
        partial.commit(digest, bytes.len() as u64)
    }

    /// Notes that all bytes of `object`, which was opened here, were read just now and match its digest.
    fn verified(&self, digest: &Digest, object: &Object);

    /// Drops `object`, which was opened here and found damaged when it was read; false when what is stored is not that object any more,
    /// but gone, or fetched anew.
    fn discard(&self, digest: &Digest, object: &Object, damage: Damage) -> bool;
}

/// An object under construction: written at any offset, readable meanwhile, visible to others only after `commit`.
///
/// Dropped without commit, it is left for [`BlobStore::resume`] as its last checkpoint says; without one it is removed.
pub trait Partial: ReadAt {
    /// Returns the size and the present bytes that it was resumed with; none of them is verified.
    fn resumed(&self) -> Option<(u64, Present)>;

    /// Writes `chunks` one after another from `offset` on.
    fn write_at(&self, offset: u64, chunks: &[Bytes]) -> Result<(), StoreError>;

    /// Records which bytes are present, so that a later fill goes on from there; they have been written before.
    fn checkpoint(&self, size_bytes: u64, present: &Present) -> Result<(), StoreError>;

    /// Leaves nothing to a later fill, whatever is recorded from here on: the bytes are wrong, or cannot be read.
    fn discard(&self);

    /// Makes the object durable and visible as `digest`, which may be another than it was begun with: of a push it is known at its end.
    /// The caller has verified all `size_bytes` of it.
    fn commit(&self, digest: &Digest, size_bytes: u64) -> Result<(), StoreError>;
}

/// Which budget an object is charged to (P-144: losing a manifest costs a rate-limited request, losing a layer does not).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Manifests and image configs.
    Metadata,
    /// Everything else.
    Layer,
}

impl Class {
    fn other(self) -> Self {
        match self {
            Self::Metadata => Self::Layer,
            Self::Layer => Self::Metadata,
        }
    }
}

/// Why the store could not keep something. Never a reason to fail a client.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no room for {needed_bytes} bytes within the configured capacity and minimum free space")]
    NoRoom { needed_bytes: u64 },
    #[error("cannot {} {path}", operation.as_str())]
    Io { operation: StoreOperation, path: String, source: io::Error },
    #[error("the store at {path} is used by another process")]
    InUse { path: String },
    #[error("the ledger at {path} cannot be used")]
    Ledger { path: String, source: Box<dyn std::error::Error + Send + Sync> },
}

/// Runs `work` on the blocking pool; a panic in it becomes an error.
///
/// # Cancel safety
/// Dropping the future does not stop work that has begun.
pub async fn blocking<T: Send + 'static, E: From<io::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => Err(io::Error::other(panic).into()),
    }
}

impl From<io::Error> for StoreError {
    fn from(source: io::Error) -> Self {
        Self::Io { operation: StoreOperation::Write, path: "the store".into(), source }
    }
}

#[cfg(test)]
mod tests;
