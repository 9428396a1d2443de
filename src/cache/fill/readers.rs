//! Who reads a fill, where each reader stands, and which of them wait for bytes.
//!
//! The scheduler asks it for the waiting readers, the window for the slowest one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Fill;

/// The readers of one fill.
#[derive(Debug, Default)]
pub(super) struct Readers {
    // A plain mutex: held for a map operation only.
    slots: Mutex<Slots>,
    interested: AtomicUsize,
    /// Set before the first bytes are dropped from the window: nobody can join from the beginning any more.
    is_closed: AtomicBool,
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

    /// Lets nobody join any more.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
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
///
/// Made by joining, it also keeps a place at the first byte, so that the window does not move on before the client has begun.
#[derive(Debug)]
pub(crate) struct Interest {
    fill: Arc<Fill>,
    /// The number of the place at the first byte; 0 is none.
    place: AtomicU64,
}

impl Interest {
    /// Joins `fill`; `None` when its first bytes have passed and are nowhere any more.
    pub(super) fn joining(fill: &Arc<Fill>) -> Option<Self> {
        // The place first, then the look: the fill closes first, then looks at the places.
        let interest = Self::with_place(Arc::clone(fill), fill.readers.enter(0));
        (!fill.readers.is_closed.load(Ordering::SeqCst)).then_some(interest)
    }

    pub(crate) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// Gives up the place at the first byte: the client's follower has its own.
    pub(crate) fn begun(&self) {
        let place = self.place.swap(0, Ordering::AcqRel);
        if place != 0 {
            self.fill.readers.leave(place);
        }
    }

    fn with_place(fill: Arc<Fill>, place: u64) -> Self {
        fill.readers.interested.fetch_add(1, Ordering::AcqRel);
        Self { fill, place: AtomicU64::new(place) }
    }
}

impl Clone for Interest {
    fn clone(&self) -> Self {
        Self::with_place(Arc::clone(&self.fill), 0)
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.begun();
        self.fill.readers.interested.fetch_sub(1, Ordering::AcqRel);
        self.fill.readers.moved.notify_one();
    }
}
