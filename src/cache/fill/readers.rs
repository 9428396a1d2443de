//! Who reads a fill, where each reader stands, and which of them wait for bytes.
//!
//! The scheduler asks it for the waiting readers, the window for the slowest one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Fill;

/// The readers of one fill.
#[derive(Debug, Default)]
pub(super) struct Readers {
    // A plain mutex: held for a map operation only.
    slots: Mutex<Slots>,
    interested: AtomicUsize,
    /// Told when a reader begins to wait, moves on or leaves.
    moved: Notify,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    readers: BTreeMap<u64, Reader>,
}

#[derive(Debug)]
struct Reader {
    cursor: u64,
    is_waiting: bool,
}

impl Readers {
    /// Adds a reader at `cursor` and returns its number.
    pub(super) fn enter(&self, cursor: u64) -> u64 {
        let mut slots = self.slots();
        slots.next += 1;
        let number = slots.next;
        slots.readers.insert(number, Reader { cursor, is_waiting: false });
        number
    }

    /// Notes where a reader stands, and tells the fill when it waits there.
    pub(super) fn stands(&self, number: u64, cursor: u64, is_waiting: bool) {
        if let Some(reader) = self.slots().readers.get_mut(&number) {
            *reader = Reader { cursor, is_waiting };
        }
        self.moved.notify_one();
    }

    pub(super) fn leave(&self, number: u64) {
        self.slots().readers.remove(&number);
        self.moved.notify_one();
    }

    /// Returns the cursors of the readers that wait, without repeats, in order.
    pub(super) fn waiting(&self) -> Vec<u64> {
        let mut cursors: Vec<_> =
            self.slots().readers.values().filter(|reader| reader.is_waiting).map(|reader| reader.cursor).collect();
        cursors.sort_unstable();
        cursors.dedup();
        cursors
    }

    /// Returns the cursor of the reader that is furthest behind.
    pub(super) fn slowest(&self) -> Option<u64> {
        self.slots().readers.values().map(|reader| reader.cursor).min()
    }

    /// Returns true while a client wants the fill.
    pub(super) fn are_interested(&self) -> bool {
        self.interested.load(Ordering::Acquire) > 0
    }

    /// Waits until a reader has begun to wait, moved or left.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's interest in a fill; dropping it withdraws it.
#[derive(Debug)]
pub(crate) struct Interest(Arc<Fill>);

impl Interest {
    pub(super) fn in_fill(fill: Arc<Fill>) -> Self {
        fill.readers.interested.fetch_add(1, Ordering::AcqRel);
        Self(fill)
    }

    pub(crate) fn fill(&self) -> &Arc<Fill> {
        &self.0
    }
}

impl Clone for Interest {
    fn clone(&self) -> Self {
        Self::in_fill(Arc::clone(&self.0))
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.readers.interested.fetch_sub(1, Ordering::AcqRel);
        self.0.readers.moved.notify_one();
    }
}
