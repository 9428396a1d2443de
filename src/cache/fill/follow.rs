//! A follower: one reader's cursor over a fill.
//!
//! It reads what is present, waits for what is not, and tells the fill where it waits. A body that runs to the blob's end has its
//! tail withheld until the digest is known good, so a wrong blob never reaches a client as a complete response (promise 3).
//! An explicit range is not withheld: a lazy puller reads the footer first.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::readers::{Interest, Reader};
use super::window::WINDOW_BYTES;
use super::{Fill, FillError, Phase, Progress};
use crate::cache::Piece;
use crate::store::{CHUNK_BYTES, read_chunk};

/// Bytes withheld at the end of a body until the digest is known good. Any number would do; one chunk's worth costs nothing.
pub(crate) const WITHHELD_BYTES: u64 = 16 * 1024;

/// Which bytes of a fill a reader wants, and whether its tail waits for the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// To the blob's end, tail withheld.
    ToEnd,
    /// Up to this offset (exclusive), not withheld.
    Until(u64),
    /// Up to this offset (exclusive), the last bytes before it withheld until the digest of the whole is known good.
    Vetted(u64),
    /// To the blob's end, not withheld: the verifier's own reading.
    Unverified,
}

/// One reader of a fill. Dropping it leaves.
#[derive(Debug)]
pub(crate) struct Follower {
    fill: Arc<Fill>,
    /// A client's follower keeps the fill wanted.
    interest: Option<Interest>,
    progress: watch::Receiver<Progress>,
    place: Arc<Reader>,
    cursor: u64,
    reach: Reach,
}

/// What a follower can do next.
enum Step {
    Read(Source),
    Wait,
    End,
    Fail(Arc<FillError>),
    Outpaced,
}

/// Where the next bytes are, and how many there are at the most.
enum Source {
    Disk {
        limit: u64,
    },
    Window {
        limit: u64,
    },
    /// These, which have not landed yet, or just now.
    Early(Bytes),
}

impl Follower {
    /// Follows `fill` from `start` on, for a client.
    pub(crate) fn new(interest: Interest, start: u64, reach: Reach) -> Self {
        let fill = Arc::clone(interest.fill());
        if start > 0 || matches!(reach, Reach::Until(_) | Reach::Vetted(_)) {
            fill.readers.scatter();
        }
        Self::enter(fill, Some(interest), start, reach)
    }

    /// Follows `fill` from its first byte on, for the fill itself: no client's interest.
    pub(super) fn internal(fill: Arc<Fill>) -> Self {
        Self::enter(fill, None, 0, Reach::Unverified)
    }

    fn enter(fill: Arc<Fill>, interest: Option<Interest>, cursor: u64, reach: Reach) -> Self {
        let progress = fill.progress.subscribe();
        let end = match reach {
            Reach::Until(end) | Reach::Vetted(end) => end,
            Reach::ToEnd => u64::MAX,
            // What the verifier waits for comes for its own sake.
            Reach::Unverified => 0,
        };
        let place = fill.readers.enter(cursor, end);
        Self { fill, interest, progress, place, cursor, reach }
    }

    /// Returns the offset of the next byte.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Returns the blob's length, if it is known.
    pub(crate) fn size_bytes(&self) -> Option<u64> {
        self.progress.borrow().size_bytes
    }

    /// Reads no further, and returns the interest in how the fill ends.
    pub(crate) fn leave(&mut self) -> Option<Interest> {
        self.fill.readers.leave(&self.place);
        self.interest.take()
    }

    /// Returns the next bytes, at most one chunk, or `None` at the end of the reach.
    ///
    /// # Errors
    /// The fill's failure; `Outpaced` when the window has moved past; what the disk said when reading.
    ///
    /// # Cancel safety
    /// A dropped call loses no byte: the cursor moves with the return.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, FollowError>> {
        loop {
            let step = self.step();
            match step {
                Step::End => return None,
                Step::Fail(why) => return Some(Err(FollowError::Fill(why))),
                Step::Outpaced => return Some(Err(FollowError::Outpaced)),
                Step::Read(from) => return Some(self.read(from).await),
                Step::Wait => {
                    if let Err(error) = self.wait().await {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// Waits for the next bytes and returns them as a piece of the file that they lie in; `None` when they do not, are too few or not
    /// at hand, or never come: [`Follower::next`] has them, or the reason.
    ///
    /// # Cancel safety
    /// As of [`Follower::next`].
    pub(crate) async fn next_file_piece(&mut self) -> Option<Piece> {
        let limit = loop {
            match self.step() {
                Step::Wait => self.wait().await.ok()?,
                Step::Read(Source::Disk { limit }) => break limit,
                Step::Read(Source::Window { .. } | Source::Early(_)) | Step::End | Step::Fail(_) | Step::Outpaced => {
                    return None;
                }
            }
        };
        let piece = Piece::of_file(self.fill.ground.content()?, self.cursor..self.cursor + limit, || None)?;
        tokio::task::coop::consume_budget().await;
        self.cursor += piece.len();
        self.fill.readers.read(&self.place, self.cursor);
        Some(piece)
    }

    /// Returns true when `next` would return without waiting for the fill.
    pub(super) fn is_ready(&mut self) -> bool {
        !matches!(self.step(), Step::Wait)
    }

    /// Waits until something has changed.
    async fn wait(&mut self) -> Result<(), FollowError> {
        self.fill.readers.waits(&self.place);
        self.progress.changed().await.map_err(|_closed| FollowError::Fill(Arc::new(FillError::Aborted)))
    }

    async fn read(&mut self, from: Source) -> Result<Bytes, FollowError> {
        let chunk = |limit: u64| limit.min(CHUNK_BYTES as u64);
        let bytes = match from {
            Source::Early(bytes) => bytes,
            Source::Window { limit } => {
                self.fill.ground.window().get(self.cursor, chunk(limit)).ok_or(FollowError::Outpaced)?
            }
            Source::Disk { limit } => {
                let content = self.fill.ground.content().ok_or(FollowError::Outpaced)?;
                read_chunk(content, &self.fill.buffers, self.cursor, chunk(limit)).await.map_err(FollowError::Disk)?
            }
        };
        self.cursor += bytes.len() as u64;
        self.fill.readers.read(&self.place, self.cursor);
        Ok(bytes)
    }

    fn step(&mut self) -> Step {
        let early = self.fill.ground.early();
        let progress = self.progress.borrow_and_update();
        if let Phase::Failed(why) = &progress.phase {
            return Step::Fail(Arc::clone(why));
        }
        let end = match self.reach {
            Reach::Until(end) | Reach::Vetted(end) => Some(end),
            Reach::ToEnd | Reach::Unverified => progress.size_bytes,
        };
        let is_verified = matches!(progress.phase, Phase::Verified);
        if end.is_some_and(|end| self.cursor >= end) {
            // Of nothing there is no tail to withhold: the end itself waits.
            return if self.reach == Reach::ToEnd && !is_verified { Step::Wait } else { Step::End };
        }
        let gap = progress.present.first_gap(self.cursor);
        let free_end = self.reach.free_end(&progress, gap);
        let early = |end: u64| {
            let limit = end.saturating_sub(self.cursor).min(CHUNK_BYTES as u64);
            match self.reach {
                Reach::Until(_) => early.get(self.cursor, limit),
                Reach::ToEnd | Reach::Vetted(_) | Reach::Unverified => early.get_of_beginning(self.cursor, limit),
            }
        };
        let readable = gap.min(free_end);
        if readable <= self.cursor {
            // What passes through the window in order comes to this reader much too late.
            let is_far = || self.cursor.saturating_sub(progress.present.first_gap(0)) > WINDOW_BYTES;
            return match early(free_end) {
                // What is hashed has landed.
                Some(bytes) if self.reach != Reach::Unverified => Step::Read(Source::Early(bytes)),
                Some(_) | None if progress.on_disk.is_some() && is_far() => Step::Outpaced,
                Some(_) | None => Step::Wait,
            };
        }
        if self.reach == Reach::Unverified
            && let Some(bytes) = early(readable)
        {
            return Step::Read(Source::Early(bytes));
        }
        let limit = readable - self.cursor;
        Step::Read(match &progress.on_disk {
            None => Source::Disk { limit },
            Some(on_disk) => match on_disk.first_gap(self.cursor) {
                stored if stored > self.cursor => Source::Disk { limit: limit.min(stored - self.cursor) },
                _ => Source::Window { limit },
            },
        })
    }
}

impl Reach {
    /// Returns where the bytes end that may be read by now, of a blob that is present up to `gap`.
    fn free_end(self, progress: &Progress, gap: u64) -> u64 {
        let size = progress.size_bytes;
        match (self, &progress.phase) {
            (Self::ToEnd, Phase::Verified) | (Self::Unverified, _) => size.unwrap_or(gap),
            (Self::ToEnd, _) => size.unwrap_or(gap).saturating_sub(WITHHELD_BYTES),
            (Self::Vetted(end), Phase::Verified) | (Self::Until(end), _) => end,
            (Self::Vetted(end), _) => end.saturating_sub(WITHHELD_BYTES),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.fill.readers.leave(&self.place);
    }
}

/// Why a follower cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("the fill failed")]
    Fill(#[source] Arc<FillError>),
    /// The store does not take the blob, and this reader is too far from where it streams.
    #[error("the bytes are not at hand any more")]
    Outpaced,
    #[error("the store cannot be read")]
    Disk(#[source] io::Error),
}

impl FollowError {
    /// Returns true when the upstream has the bytes that are out of this reader's reach here.
    pub(crate) fn is_about_the_bytes_at_hand(&self) -> bool {
        match self {
            Self::Outpaced | Self::Disk(_) => true,
            Self::Fill(why) => matches!(**why, FillError::Unreadable { .. }),
        }
    }
}
