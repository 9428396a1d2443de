//! The bytes of an answer, chunk by chunk, wherever they come from.
//!
//! A body holds at most one chunk at a time; its memory does not depend on the size of the blob.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;

use super::fill::{FollowError, Follower, Interest, Reach};
use super::{Cache, Piece, Upstream};
use crate::oci::{Digest, RepositoryName};
use crate::store::{Buffers, Content, Object};
use crate::upstream::{BlobTransfer, UpstreamError};

/// What a body needs beside its source.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) cache: Cache,
    pub(super) upstream: Arc<Upstream>,
    pub(super) repository: RepositoryName,
    pub(super) digest: Digest,
}

/// The bytes of a blob, or of a range of it.
#[derive(Debug)]
pub struct BlobBody(Kind);

#[derive(Debug)]
enum Kind {
    Empty,
    Stored {
        object: Object,
        buffers: Buffers,
        rest: Range<u64>,
    },
    Following {
        follower: Follower,
        reading: Box<Reading>,
        reach: Reach,
        // Held, not read: its drop counts the follower out.
        _followers: FollowerGauge,
    },
    /// Straight from the upstream, for one client alone: the store does not take the blob, and the range lies elsewhere than where
    /// its fill streams.
    Direct {
        transfer: BlobTransfer,
        rest: Range<u64>,
    },
    Failed,
}

impl BlobBody {
    pub(super) fn empty() -> Self {
        Self(Kind::Empty)
    }

    pub(super) fn stored(object: Object, buffers: Buffers, range: Range<u64>) -> Self {
        Self(Kind::Stored { object, buffers, rest: range })
    }

    pub(super) fn following(interest: Interest, reading: Reading, start: u64, reach: Reach) -> Self {
        let followers = FollowerGauge::raise(&reading);
        let follower = Follower::new(interest, start, reach);
        Self(Kind::Following { follower, reading: Box::new(reading), reach, _followers: followers })
    }

    /// Returns the next piece: file content that is at hand as a range of its file, everything else as [`BlobBody::next`] does.
    pub async fn next_piece(&mut self) -> Option<Result<Piece, BodyError>> {
        let piece = match &mut self.0 {
            Kind::Stored { object, rest, .. } => stored_piece(object, rest).await,
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
        let result = match &mut self.0 {
            Kind::Empty | Kind::Failed => None,
            Kind::Stored { object, buffers, rest } => next_stored(object, buffers, rest).await,
            Kind::Following { follower, .. } => match follower.next().await {
                Some(Err(FollowError::Outpaced)) => return self.leave_the_fill().await,
                other => other.map(|next| next.map_err(BodyError::Follow)),
            },
            Kind::Direct { transfer, rest } => next_direct(transfer, rest).await,
        };
        if let Some(Err(_)) = &result {
            self.0 = Kind::Failed;
        }
        result
    }

    /// Goes on with a transfer of its own where the fill's bytes have passed, for an explicit range.
    ///
    /// A body that must be verified to its end cannot: it ends visibly short, and the client resumes it.
    async fn leave_the_fill(&mut self) -> Option<Result<Bytes, BodyError>> {
        let Kind::Following { follower, reading, reach: Reach::Until(end), .. } = &self.0 else {
            self.0 = Kind::Failed;
            return Some(Err(BodyError::Follow(FollowError::Outpaced)));
        };
        let rest = follower.cursor()..*end;
        let origin = &reading.upstream.origin;
        let opened = origin.blob(&reading.repository, &reading.digest, rest.start, end.checked_sub(1)).await;
        match opened {
            Ok(transfer) => {
                self.0 = Kind::Direct { transfer, rest };
                Box::pin(self.next()).await
            }
            Err(error) => {
                self.0 = Kind::Failed;
                Some(Err(BodyError::Upstream(error)))
            }
        }
    }
}

async fn next_stored(object: &Object, buffers: &Buffers, rest: &mut Range<u64>) -> Option<Result<Bytes, BodyError>> {
    if rest.is_empty() {
        return None;
    }
    // Reads from the page cache never wait: without this, one fast client keeps a worker for itself.
    tokio::task::coop::consume_budget().await;
    let read = object.read(buffers, rest.start, rest.end - rest.start).await;
    if let Ok(chunk) = &read {
        rest.start += chunk.len() as u64;
    }
    Some(read.map_err(BodyError::Disk))
}

async fn stored_piece(object: &Object, rest: &mut Range<u64>) -> Option<Piece> {
    let Content::File(file) = &object.content else { return None };
    let piece = Piece::of_file(file, rest.clone())?;
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
