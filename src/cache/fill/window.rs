//! The last bytes of a fill that the store does not take, held in memory until its readers have passed.
//!
//! Its bound is kept by the writer, which waits for the readers before it pushes. It may pass over bytes that are on disk.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Bytes that the window of one fill holds at the most, plus one batch of a transfer.
pub(super) const WINDOW_BYTES: u64 = 4 * 1024 * 1024;

/// Chunks in memory, each at its offset, in order.
#[derive(Debug, Default)]
pub(super) struct Window {
    // A plain mutex: held for a look-up or a push.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    chunks: VecDeque<(u64, Bytes)>,
    len_bytes: u64,
    /// The offset after the last byte that passed.
    end: u64,
    /// The offset after the last byte that was dropped before every reader had passed.
    lost_until: u64,
}

impl Window {
    /// Says where the bytes that pass through begin.
    pub(super) fn begin(&self, offset: u64) {
        self.held().end = offset;
    }

    /// Returns the offset after the last byte that passed.
    pub(super) fn end(&self) -> u64 {
        self.held().end
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.held().len_bytes
    }

    /// Adds `chunks` at `offset`, which lies at or after the end.
    pub(super) fn push(&self, offset: u64, chunks: &[Bytes]) {
        let mut held = self.held();
        held.end = offset;
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            let start = held.end;
            held.end += chunk.len() as u64;
            held.len_bytes += chunk.len() as u64;
            held.chunks.push_back((start, chunk.clone()));
        }
    }

    /// Drops whole chunks that lie below `offset`, which all readers have passed.
    pub(super) fn trim(&self, offset: u64) {
        self.held().trim(offset);
    }

    /// Drops whole chunks that lie below `offset`, whoever still waits for them.
    pub(super) fn give_up(&self, offset: u64) {
        let mut held = self.held();
        if let Some(lost_until) = held.trim(offset) {
            held.lost_until = lost_until;
        }
    }

    /// Returns where a reader must stand at the least: what it would need before is nowhere any more.
    pub(super) fn lost_until(&self) -> u64 {
        self.held().lost_until
    }

    /// Returns at most `limit` bytes at `offset`, or `None` when they are not held.
    pub(super) fn get(&self, offset: u64, limit: u64) -> Option<Bytes> {
        let held = self.held();
        let after = held.chunks.partition_point(|(start, _)| *start <= offset);
        let (start, chunk) = held.chunks.get(after.checked_sub(1)?)?;
        let from = usize::try_from(offset - start).ok().filter(|from| *from < chunk.len())?;
        let len = usize::try_from(limit).unwrap_or(usize::MAX).min(chunk.len() - from);
        Some(chunk.slice(from..from + len))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Drops whole chunks that lie below `offset`, and returns where the last of them ended.
    fn trim(&mut self, offset: u64) -> Option<u64> {
        let mut dropped = None;
        while let Some((start, chunk)) = self.chunks.front()
            && start + chunk.len() as u64 <= offset
        {
            dropped = Some(start + chunk.len() as u64);
            self.len_bytes -= chunk.len() as u64;
            self.chunks.pop_front();
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_trimmed_is_gone_and_the_rest_is_found_at_its_offset() {
        let window = Window::default();
        window.begin(100);
        window.push(100, &[Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"defg")]);
        assert_eq!((window.end(), window.len_bytes()), (107, 7));
        assert_eq!(window.get(104, 2), Some(Bytes::from_static(b"ef")));
        window.trim(102);
        assert_eq!(window.get(100, 9), Some(Bytes::from_static(b"abc")));
        window.trim(103);
        assert_eq!((window.get(100, 9), window.get(99, 1), window.get(107, 1)), (None, None, None));
        assert_eq!(window.get(103, 99), Some(Bytes::from_static(b"defg")));
    }

    #[test]
    fn it_may_pass_over_bytes_that_lie_elsewhere() {
        let window = Window::default();
        window.begin(0);
        window.push(0, &[Bytes::from_static(b"ab")]);
        window.push(10, &[Bytes::from_static(b"cd")]);
        assert_eq!((window.end(), window.len_bytes(), window.get(5, 1)), (12, 4, None));
        assert_eq!(window.get(11, 9), Some(Bytes::from_static(b"d")));
    }
}
