//! A piece of a body: bytes in memory, or a range of a file for whoever can send it without reading it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::store::ReadAt;

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
    },
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
    pub(super) fn of_file(file: &Arc<dyn ReadAt>, range: Range<u64>) -> Option<Self> {
        let range = range.start..range.end.min(range.start.saturating_add(PIECE_BYTES_MAX as u64));
        if range.end.saturating_sub(range.start) < FILE_PIECE_BYTES_MIN {
            return None;
        }
        file.as_file()?;
        let is_at_hand = |at: u64| matches!(file.read_now(at, &mut [0]), Ok(Some(1)));
        (is_at_hand(range.end - 1) && is_at_hand(range.start)).then(|| Self::File { file: Arc::clone(file), range })
    }
}
