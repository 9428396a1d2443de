//! A piece of a body: bytes in memory, or a range of a file for whoever can send it without reading it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::body::{BlobBody, Reading};
use super::fill::Reach;
use crate::store::{Object, ReadAt};

/// Bytes of a file in one piece at the most: a few dozen microseconds of copying in the kernel.
pub const PIECE_BYTES_MAX: usize = 256 * 1024;

/// Less than this is not worth a system call of its own.
const FILE_PIECE_BYTES_MIN: u64 = 16 * 1024;

/// Some bytes of a body.
#[derive(Debug, Clone)]
pub enum Piece {
    Bytes(Bytes),
    /// A file's bytes; both ends of the range were in the page cache a moment ago.
    File {
        file: Arc<dyn ReadAt>,
        range: Range<u64>,
        /// Where the bytes come from when the file cannot be read.
        rescue: Option<Rescue>,
    },
}

/// What stands behind a piece of a stored object: when the disk fails under it, the upstream has the same bytes.
#[derive(Debug, Clone)]
pub struct Rescue {
    object: Object,
    reading: Arc<Reading>,
    /// The piece belongs to a body that runs to the blob's end, and so must not hold bytes that are not known to be good.
    is_vetted: bool,
}

impl Rescue {
    pub(super) fn new(object: &Object, reading: &Arc<Reading>, reach: Reach) -> Self {
        let is_vetted = !matches!(reach, Reach::Until(_));
        Self { object: object.clone(), reading: Arc::clone(reading), is_vetted }
    }

    /// Returns the bytes of `range`, read with more care.
    pub fn body(self, range: Range<u64>) -> BlobBody {
        let reach = if self.is_vetted { Reach::Vetted(range.end) } else { Reach::Until(range.end) };
        BlobBody::stored(self.object, self.reading, range.start, reach)
    }
}

impl Piece {
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { range, .. } => range.end - range.start,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes a piece of the beginning of `range`, when that lies in a file and its sending will hardly wait for the disk.
    pub(super) fn of_file(
        file: &Arc<dyn ReadAt>,
        range: Range<u64>,
        rescue: impl FnOnce() -> Option<Rescue>,
    ) -> Option<Self> {
        let range = range.start..range.end.min(range.start.saturating_add(PIECE_BYTES_MAX as u64));
        if range.end.saturating_sub(range.start) < FILE_PIECE_BYTES_MIN {
            return None;
        }
        file.as_file()?;
        let is_at_hand = |at: u64| matches!(file.read_now(at, &mut [0]), Ok(Some(1)));
        (is_at_hand(range.end - 1) && is_at_hand(range.start)).then(|| Self::File {
            file: Arc::clone(file),
            range,
            rescue: rescue(),
        })
    }
}
