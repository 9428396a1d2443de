//! The bytes of an answer, chunk by chunk, wherever they come from.
//!
//! A body holds at most one chunk at a time; its memory does not depend on the size of the blob.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;

use super::check::{Check, Passed};
use super::fill::{FillError, FollowError, Follower, Interest, Reach};
use super::{Cache, Piece, Rescue, Upstream};
use crate::oci::{Digest, RepositoryName};
use crate::store::{Content, Damage, Object, blocking};
use crate::telemetry::{self, MismatchSource};
use crate::upstream::{BlobTransfer, UpstreamError};

/// What a body needs beside its source.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) cache: Cache,
    pub(super) upstream: Arc<Upstream>,
    pub(super) repository: RepositoryName,
    pub(super) digest: Digest,
}

/// The bytes of a blob, or of a range of it.
#[derive(Debug)]
pub struct BlobBody {
    kind: Kind,
    /// Set for a whole blob that was not verified in this process.
    check: Option<Box<Check>>,
}

#[derive(Debug)]
enum Kind {
    Empty,
    Stored {
        object: Object,
        reading: Arc<Reading>,
        rest: Range<u64>,
        reach: Reach,
    },
    Following {
        follower: Follower,
        reading: Arc<Reading>,
        reach: Reach,
        // Held, not read: its drop counts the follower out.
        _followers: FollowerGauge,
    },
    /// Straight from the upstream, for one client alone: the fill's bytes are not at hand where it reads.
    Direct {
        transfer: BlobTransfer,
        rest: Range<u64>,
        /// The fill that the first bytes of a whole blob came from: its verdict is theirs.
        witness: Option<Interest>,
    },
    Failed,
}

impl BlobBody {
    pub(super) fn empty() -> Self {
        Kind::Empty.into()
    }

    /// Reads a stored object from `start` on. One that was not verified in this process is, if all of it is read.
    pub(super) fn stored(object: Object, reading: Arc<Reading>, start: u64, reach: Reach) -> Self {
        let size_bytes = object.size_bytes;
        let end = match reach {
            Reach::Until(end) | Reach::Vetted(end) => end.min(size_bytes),
            Reach::ToEnd | Reach::Unverified => size_bytes,
        };
        let is_trusted = object.mark.is_verified() || start > 0 || end < size_bytes;
        let check = (!is_trusted).then(|| Box::new(Check::new(reading.digest, size_bytes)));
        Self { kind: Kind::Stored { object, reading, rest: start..end, reach }, check }
    }

    pub(super) fn following(interest: Interest, reading: Arc<Reading>, start: u64, reach: Reach) -> Self {
        Kind::following(interest, reading, start, reach).into()
    }

    /// Returns the next piece: file content that is at hand as a range of its file, everything else as [`BlobBody::next`] does.
    pub async fn next_piece(&mut self) -> Option<Result<Piece, BodyError>> {
        let piece = match &mut self.kind {
            // What is checked must be seen.
            _ if self.check.is_some() => None,
            Kind::Stored { object, reading, rest, reach } => stored_piece(object, reading, rest, *reach).await,
            Kind::Following { follower, .. } => follower.next_file_piece().await,
            Kind::Empty | Kind::Direct { .. } | Kind::Failed => None,
        };
        match piece {
            Some(piece) => Some(Ok(piece)),
            None => self.next().await.map(|next| next.map(Piece::Bytes)),
        }
    }

    /// Returns the next chunk, or `None` at the end. After an error the body is over: what the client has is visibly incomplete.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        let result = self.next_checked().await;
        if let Some(Err(_)) = &result {
            *self = Kind::Failed.into();
        }
        result
    }

    /// Returns the next bytes, those that the check lets pass where there is one. It may come up between two chunks.
    async fn next_checked(&mut self) -> Option<Result<Bytes, BodyError>> {
        while let Some(next) = self.next_chunk().await {
            let Ok(chunk) = next else { return Some(next) };
            let Some(check) = &mut self.check else { return Some(Ok(chunk)) };
            match check.pass(chunk) {
                Passed::Some(bytes) => return Some(Ok(bytes)),
                Passed::Held => {}
                Passed::Last(bytes) => return Some(self.verified().await.map(|()| bytes)),
                Passed::Wrong { actual } => return Some(Err(self.drop_rotten(actual).await)),
            }
        }
        // A source that ends early has said so; this is for one that has not.
        let is_short = self.check.as_ref().is_some_and(|check| check.lacks_bytes());
        is_short.then(|| Err(BodyError::Disk(io::ErrorKind::UnexpectedEof.into())))
    }

    async fn next_chunk(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            let failed = match &mut self.kind {
                Kind::Empty | Kind::Failed => return None,
                Kind::Stored { object, reading, rest, .. } => match next_stored(object, reading, rest).await {
                    Some(Err(error)) => Box::pin(self.leave_the_store(error)).await,
                    other => return other.map(|next| next.map_err(BodyError::Disk)),
                },
                Kind::Following { follower, .. } => match follower.next().await {
                    Some(Err(error)) if error.is_about_the_bytes_at_hand() => {
                        Box::pin(self.leave_the_fill(error)).await
                    }
                    other => return other.map(|next| next.map_err(BodyError::Follow)),
                },
                Kind::Direct { transfer, rest, .. } => return next_direct(transfer, rest).await,
            };
            if let Err(error) = failed {
                return Some(Err(error));
            }
        }
    }

    /// Goes on with the upstream's bytes where the stored ones cannot be read, without the client noticing.
    async fn leave_the_store(&mut self, error: io::Error) -> Result<(), BodyError> {
        let kind = std::mem::replace(&mut self.kind, Kind::Failed);
        let Kind::Stored { object, reading, rest, reach } = kind else { return Err(BodyError::Disk(error)) };
        drop_unreadable(&reading, &object, &error).await;
        let Some(interest) =
            reading.cache.refill(&reading, rest.start, object.size_bytes, object.mark.is_verified()).await
        else {
            return Err(BodyError::Disk(error));
        };
        self.kind = Kind::following(interest, reading, rest.start, reach);
        Ok(())
    }

    /// Goes on with a transfer of its own where the fill's bytes are not at hand.
    ///
    /// A body that the fill verifies to its end needs the whole blob for that, which it checks itself, and the fill's verdict on
    /// what was sent before.
    async fn leave_the_fill(&mut self, error: FollowError) -> Result<(), BodyError> {
        let Kind::Following { follower, reading, reach, .. } = &mut self.kind else {
            return Err(BodyError::Follow(error));
        };
        let cursor = follower.cursor();
        let (rest, witness) = match (*reach, &self.check, follower.size_bytes()) {
            (Reach::Until(end), _, _) => (cursor..end, None),
            (_, Some(check), _) => (cursor..check.size_bytes(), None),
            (Reach::ToEnd, None, Some(size)) if matches!(error, FollowError::Outpaced) => {
                self.check = Some(Box::new(Check::resuming(reading.digest, size, cursor)));
                (0..size, follower.leave())
            }
            (Reach::ToEnd, None, Some(size)) => return self.follow_anew(size).await,
            (_, None, _) => return Err(BodyError::Follow(error)),
        };
        tracing::debug!(digest = %reading.digest, at = cursor, "a reader goes on past the fill");
        let origin = &reading.upstream.origin;
        let opened = origin.blob(&reading.repository, &reading.digest, rest.start, rest.end.checked_sub(1)).await;
        let transfer = opened.map_err(BodyError::Upstream)?;
        self.kind = Kind::Direct { transfer, rest, witness };
        Ok(())
    }

    /// Goes on with another fill of the same blob of `size_bytes`, since what this one wrote cannot be read back. The other one is read
    /// from its first byte on and checked, also against what this one had sent.
    async fn follow_anew(&mut self, size_bytes: u64) -> Result<(), BodyError> {
        let Kind::Following { mut follower, reading, .. } = std::mem::replace(&mut self.kind, Kind::Failed) else {
            return Ok(());
        };
        let (cursor, interest) = (follower.cursor(), follower.leave());
        let failed = |why| BodyError::Follow(FollowError::Fill(why));
        let Some(Err(why)) = (match &interest {
            Some(interest) => Some(interest.fill().verdict().await),
            None => None,
        }) else {
            return Err(failed(Arc::new(FillError::Aborted)));
        };
        let prefix = match &*why {
            FillError::Unreadable { prefix, .. } if prefix.len_bytes >= cursor => *prefix,
            _ => return Err(failed(why)),
        };
        let interest = reading.cache.refill(&reading, 0, size_bytes, true).await.ok_or_else(|| failed(why))?;
        self.check = Some(Box::new(Check::resuming(reading.digest, size_bytes, cursor).beginning_as(prefix)));
        self.kind = Kind::following(interest, reading, 0, Reach::ToEnd);
        Ok(())
    }

    /// Ends the check: all bytes are good. If all came from the store, nobody needs to check them again.
    async fn verified(&mut self) -> Result<(), BodyError> {
        self.check = None;
        match &self.kind {
            Kind::Stored { object, reading, .. } => reading.cache.0.store.verified(&reading.digest, object),
            Kind::Direct { witness: Some(witness), .. } => {
                let verdict = witness.fill().verdict().await;
                return verdict.map_err(|why| BodyError::Follow(FollowError::Fill(why)));
            }
            Kind::Empty | Kind::Following { .. } | Kind::Direct { .. } | Kind::Failed => {}
        }
        Ok(())
    }

    /// Drops a stored object that does not match its digest.
    async fn drop_rotten(&mut self, actual: Digest) -> BodyError {
        // Otherwise it was dropped when it could not be read to its end.
        if let Kind::Stored { object, reading, .. } = &self.kind {
            let (object, reading) = (object.clone(), Arc::clone(reading));
            let dropped = blocking(move || {
                let Reading { cache, upstream, digest, .. } = &*reading;
                if cache.0.store.discard(digest, &object, Damage::Mismatch) {
                    tracing::error!(%digest, %actual, "a stored blob does not match its digest and is dropped");
                    upstream.metrics.mismatch(telemetry::Kind::Blob, MismatchSource::Disk);
                }
                Ok::<_, io::Error>(())
            });
            if let Err(error) = dropped.await {
                tracing::warn!(%error, "a damaged object is not dropped");
            }
        }
        BodyError::Rotten { actual }
    }
}

impl Kind {
    fn following(interest: Interest, reading: Arc<Reading>, start: u64, reach: Reach) -> Self {
        let followers = FollowerGauge::raise(&reading);
        let follower = Follower::new(interest, start, reach);
        Self::Following { follower, reading, reach, _followers: followers }
    }
}

impl From<Kind> for BlobBody {
    fn from(kind: Kind) -> Self {
        Self { kind, check: None }
    }
}

async fn next_stored(object: &Object, reading: &Reading, rest: &mut Range<u64>) -> Option<io::Result<Bytes>> {
    if rest.is_empty() {
        return None;
    }
    // Reads from the page cache never wait: without this, one fast client keeps a worker for itself.
    tokio::task::coop::consume_budget().await;
    let read = object.read(&reading.cache.0.buffers, rest.start, rest.end - rest.start).await;
    if let Ok(chunk) = &read {
        rest.start += chunk.len() as u64;
    }
    Some(read)
}

/// Drops a stored object that cannot be read, if the error is about the object.
async fn drop_unreadable(reading: &Arc<Reading>, object: &Object, error: &io::Error) {
    tracing::warn!(digest = %reading.digest, %error, "a stored blob cannot be read; going on from the upstream");
    let Some(damage) = Damage::of(error) else { return };
    let (reading, object) = (Arc::clone(reading), object.clone());
    let dropped = blocking(move || {
        if reading.cache.0.store.discard(&reading.digest, &object, damage) {
            tracing::error!(digest = %reading.digest, "a stored blob cannot be read and is dropped");
        }
        Ok::<_, io::Error>(())
    });
    if let Err(error) = dropped.await {
        tracing::warn!(%error, "a damaged object is not dropped");
    }
}

async fn stored_piece(object: &Object, reading: &Arc<Reading>, rest: &mut Range<u64>, reach: Reach) -> Option<Piece> {
    let Content::File(file) = &object.content else { return None };
    let piece = Piece::of_file(file, rest.clone(), || Some(Rescue::new(object, reading, reach)))?;
    tokio::task::coop::consume_budget().await;
    rest.start += piece.len();
    Some(piece)
}

async fn next_direct(transfer: &mut BlobTransfer, rest: &mut Range<u64>) -> Option<Result<Bytes, BodyError>> {
    while !rest.is_empty() {
        let mut chunk = match transfer.chunks.next().await {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => return Some(Err(BodyError::Upstream(error))),
            None => {
                let error = UpstreamError::Truncated { received_bytes: transfer.start, source: None };
                return Some(Err(BodyError::Upstream(error)));
            }
        };
        let start = transfer.start;
        transfer.start += chunk.len() as u64;
        // An upstream that ignores ranges starts at 0: what lies before the range is dropped.
        let before = usize::try_from(rest.start.saturating_sub(start)).unwrap_or(usize::MAX).min(chunk.len());
        let mut wanted = chunk.split_off(before);
        wanted.truncate(usize::try_from(rest.end - rest.start).unwrap_or(usize::MAX));
        if !wanted.is_empty() {
            rest.start += wanted.len() as u64;
            return Some(Ok(wanted));
        }
    }
    None
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the fill cannot be followed")]
    Follow(#[source] FollowError),
    #[error("the store cannot be read")]
    Disk(#[source] io::Error),
    #[error("the bytes have digest {actual}")]
    Rotten { actual: Digest },
    #[error("the upstream failed")]
    Upstream(#[source] UpstreamError),
}

/// Counts a body as following a fill while it lives.
#[derive(Debug)]
struct FollowerGauge(prometheus::IntGauge);

impl FollowerGauge {
    fn raise(reading: &Reading) -> Self {
        let gauge = reading.upstream.metrics.fill_followers().clone();
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for FollowerGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}
