//! Who reads a fill, where each reader stands, and which of them wait for bytes.
//!
//! The scheduler asks it for the waiting readers, the window for the slowest one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Fill;
use super::askers::Asker;
use super::schedule::Wish;

/// The readers of one fill.
#[derive(Debug, Default)]
pub(super) struct Readers {
    // A plain mutex: held to come and go, and to look over all readers; reading on takes none.
    slots: Mutex<Slots>,
    /// Counts waits, so that the longest is known.
    waits: AtomicU64,
    interested: AtomicUsize,
    /// Set once a client reads elsewhere than from the first byte to the last.
    is_scattered: AtomicBool,
    /// Set when bytes pass through the window: its writer waits for the slowest reader.
    is_paced: AtomicBool,
    /// Set before the first bytes are dropped from the window: nobody can join from the beginning any more.
    is_closed: AtomicBool,
    /// Told when a reader begins to wait or leaves; when it moves, only if `is_paced`.
    moved: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    readers: BTreeMap<u64, Arc<Reader>>,
}

/// Where one reader stands.
#[derive(Debug)]
pub(super) struct Reader {
    number: u64,
    cursor: AtomicU64,
    /// Exclusive; what it will not read is not fetched for it.
    end: u64,
    /// The number of its wait; 0 while it does not wait.
    wait: AtomicU64,
}

impl Readers {
    /// Adds a reader of the bytes from `cursor` to `end`.
    pub(super) fn enter(&self, cursor: u64, end: u64) -> Arc<Reader> {
        let mut slots = self.slots();
        slots.next += 1;
        let number = slots.next;
        let reader = Arc::new(Reader { number, cursor: AtomicU64::new(cursor), end, wait: AtomicU64::new(0) });
        slots.readers.insert(number, Arc::clone(&reader));
        reader
    }

    /// Notes that a reader has read up to `cursor`.
    pub(super) fn read(&self, reader: &Reader, cursor: u64) {
        reader.cursor.store(cursor, Ordering::Release);
        if reader.wait.load(Ordering::Relaxed) != 0 {
            reader.wait.store(0, Ordering::Release);
        }
        if self.is_paced.load(Ordering::Acquire) {
            self.moved.send_replace(());
        }
    }

    /// Notes that a reader waits where it stands, and tells the fill.
    pub(super) fn waits(&self, reader: &Reader) {
        if reader.wait.load(Ordering::Relaxed) == 0 {
            reader.wait.store(self.waits.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Release);
            self.moved.send_replace(());
        }
    }

    pub(super) fn leave(&self, reader: &Reader) {
        self.slots().readers.remove(&reader.number);
        self.moved.send_replace(());
    }

    /// Returns what the readers wish for: who waits longest first, who does not wait last.
    pub(super) fn wishes(&self) -> Vec<Wish> {
        let mut readers: Vec<_> = {
            let slots = self.slots();
            let standing = slots.readers.values().map(|reader| (reader.wait.load(Ordering::Acquire), reader.wish()));
            standing.filter(|(_, wish)| wish.cursor < wish.end).collect()
        };
        readers.sort_unstable_by_key(|(wait, wish)| (*wait == 0, *wait, wish.cursor));
        let mut wishes: Vec<_> = readers.into_iter().map(|(_, wish)| wish).collect();
        wishes.dedup_by_key(|wish| (wish.cursor, wish.is_waiting));
        wishes
    }

    /// Returns the cursor of the reader that is furthest behind of those that stand at `from` or after it.
    pub(super) fn slowest(&self, from: u64) -> Option<u64> {
        let slots = self.slots();
        let cursors = slots.readers.values().map(|reader| reader.cursor.load(Ordering::Acquire));
        cursors.filter(|cursor| *cursor >= from).min()
    }

    /// Notes that somebody reads elsewhere than from the first byte to the last.
    pub(super) fn scatter(&self) {
        self.is_scattered.store(true, Ordering::Release);
    }

    /// Returns true once somebody has read elsewhere than from the first byte to the last.
    pub(super) fn are_scattered(&self) -> bool {
        self.is_scattered.load(Ordering::Acquire)
    }

    /// Has every move told from here on.
    pub(super) fn pace(&self) {
        self.is_paced.store(true, Ordering::Release);
    }

    /// Lets nobody join any more.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    /// Returns true while a client wants the fill.
    pub(super) fn are_interested(&self) -> bool {
        self.interested.load(Ordering::Acquire) > 0
    }

    /// Returns what changes when a reader has begun to wait, moved or left.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    fn wish(&self) -> Wish {
        Wish {
            cursor: self.cursor.load(Ordering::Acquire),
            end: self.end,
            is_waiting: self.wait.load(Ordering::Acquire) != 0,
        }
    }
}

/// A client's interest in a fill; dropping it withdraws it.
///
/// Made by joining, it also keeps a place at the first byte, so that the window does not move on before the client has begun.
#[derive(Debug)]
pub(crate) struct Interest {
    fill: Arc<Fill>,
    /// The place at the first byte, until the client has begun.
    // A plain mutex: held to take it out, once.
    place: Mutex<Option<Arc<Reader>>>,
    /// In whose name the fill may go on, where that matters.
    asker: Option<Arc<Asker>>,
}

impl Interest {
    /// Joins `fill`; `None` when its first bytes have passed and are nowhere any more.
    pub(super) fn joining(fill: &Arc<Fill>) -> Option<Self> {
        // The place first, then the look: the fill closes first, then looks at the places.
        let interest = Self::with_place(Arc::clone(fill), Some(fill.readers.enter(0, 0)), None);
        (!fill.readers.is_closed.load(Ordering::SeqCst)).then_some(interest)
    }

    pub(crate) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// Gives up the place at the first byte: the client's follower has its own.
    pub(crate) fn begun(&self) {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(place) = place {
            self.fill.readers.leave(&place);
        }
    }

    /// Lets the fill go on in the name of `asker` while this interest lasts.
    pub(crate) fn stands_for(&mut self, asker: Arc<Asker>) {
        self.fill.askers.enter(&asker);
        self.asker = Some(asker);
    }

    fn with_place(fill: Arc<Fill>, place: Option<Arc<Reader>>, asker: Option<Arc<Asker>>) -> Self {
        fill.readers.interested.fetch_add(1, Ordering::AcqRel);
        if let Some(asker) = &asker {
            fill.askers.enter(asker);
        }
        Self { fill, place: Mutex::new(place), asker }
    }
}

impl Clone for Interest {
    fn clone(&self) -> Self {
        Self::with_place(Arc::clone(&self.fill), None, self.asker.clone())
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.begun();
        if let Some(asker) = &self.asker {
            self.fill.askers.leave(asker);
        }
        self.fill.readers.interested.fetch_sub(1, Ordering::AcqRel);
        self.fill.readers.moved.send_replace(());
    }
}
