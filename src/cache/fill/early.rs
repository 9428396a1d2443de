//! The first bytes of a transfer, for those who wait for them, while they are being written.
//!
//! A transfer is begun because somebody waits for its first bytes, and a trip to the disk is longer than the rest of their way. They
//! count as present once they have landed, and not before.
//!
//! What begins a blob is held on until the verifier has hashed it: it vouches for what was sent, also when it cannot be read back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// What may be read before it has landed: at most one step of each transfer that has begun just now.
#[derive(Debug, Default)]
pub(super) struct Early {
    // A plain mutex: held to come, go, or look through a few entries, by readers who would wait otherwise.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    entries: Vec<Entry>,
    hashed_until: u64,
}

#[derive(Debug)]
struct Entry {
    offset: u64,
    chunks: Vec<Bytes>,
    has_landed: bool,
}

/// Bytes that are landing. Dropped without [`Landing::landed`], they are nobody's any more: others may land in their place, and it is
/// those that must be hashed.
#[derive(Debug)]
pub(super) struct Landing<'a> {
    early: &'a Early,
    offset: u64,
    has_landed: bool,
}

impl Early {
    /// Holds `chunks`, which are about to land at `offset`.
    pub(super) fn hold(&self, offset: u64, chunks: Vec<Bytes>) -> Landing<'_> {
        self.held().entries.push(Entry { offset, chunks, has_landed: false });
        Landing { early: self, offset, has_landed: false }
    }

    /// Returns at most `limit` bytes at `offset`, or `None` when none of them is held.
    pub(super) fn get(&self, offset: u64, limit: u64) -> Option<Bytes> {
        self.held().entries.iter().find_map(|entry| entry.get(offset, limit))
    }

    /// Returns the same of what begins the blob, which lands or ends the fill. Anything else may be lost with the disk and fetched
    /// again: it is not for those whose end waits for the verdict on what has landed.
    pub(super) fn get_of_beginning(&self, offset: u64, limit: u64) -> Option<Bytes> {
        self.held().entries.iter().filter(|entry| entry.offset == 0).find_map(|entry| entry.get(offset, limit))
    }

    /// Notes how far the blob has been hashed.
    pub(super) fn hashed(&self, until: u64) {
        let mut held = self.held();
        held.hashed_until = until;
        held.let_go();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn let_go(&mut self) {
        let hashed_until = self.hashed_until;
        let is_wanted = |entry: &Entry| entry.offset == 0 && hashed_until < entry.len_bytes();
        self.entries.retain(|entry| !entry.has_landed || is_wanted(entry));
    }
}

impl Entry {
    fn len_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }

    fn get(&self, offset: u64, limit: u64) -> Option<Bytes> {
        let mut from = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        for chunk in &self.chunks {
            if from < chunk.len() {
                let len = usize::try_from(limit).unwrap_or(usize::MAX).min(chunk.len() - from);
                return (len > 0).then(|| chunk.slice(from..from + len));
            }
            from -= chunk.len();
        }
        None
    }
}

impl Landing<'_> {
    /// Notes that the bytes have landed.
    pub(super) fn landed(mut self) {
        self.has_landed = true;
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut held = self.early.held();
        if self.has_landed {
            let landed = held.entries.iter_mut().filter(|entry| entry.offset == self.offset);
            landed.for_each(|entry| entry.has_landed = true);
            held.let_go();
        } else {
            held.entries.retain(|entry| entry.offset != self.offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(parts: &[&'static str]) -> Vec<Bytes> {
        parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect()
    }

    #[test]
    fn what_is_held_is_found_at_its_offset_until_it_has_landed() {
        let early = Early::default();
        let (first, second) = (early.hold(10, chunks(&["abc", "", "de"])), early.hold(100, chunks(&["x"])));
        for (offset, limit, expected) in [
            (9, 9, None),
            (10, 0, None),
            (10, 2, Some("ab")),
            (12, 9, Some("c")),
            (13, 9, Some("de")),
            (14, 9, Some("e")),
            (15, 9, None),
            (100, 9, Some("x")),
        ] {
            assert_eq!(early.get(offset, limit), expected.map(Bytes::from), "{offset}");
        }
        assert_eq!(early.get_of_beginning(10, 9), None);
        first.landed();
        assert_eq!((early.get(10, 9), early.get(100, 9)), (None, Some("x".into())));
        drop(second);
        assert_eq!(early.get(100, 9), None);
    }

    #[test]
    fn what_begins_the_blob_is_held_until_it_is_hashed_as_well() {
        for hashed_first in [false, true] {
            let early = Early::default();
            let landing = early.hold(0, chunks(&["ab", "cd"]));
            early.hashed(3);
            if hashed_first {
                early.hashed(4);
                assert!(early.get(0, 9).is_some(), "it has not landed");
                landing.landed();
            } else {
                landing.landed();
                assert!(early.get_of_beginning(3, 9).is_some(), "it is not hashed");
                early.hashed(4);
            }
            assert_eq!(early.get(0, 9), None);
        }
    }

    #[test]
    fn what_did_not_land_is_not_hashed_in_the_place_of_what_does() {
        let early = Early::default();
        drop(early.hold(0, chunks(&["ab"])));
        assert_eq!(early.get(0, 9), None);
    }
}
