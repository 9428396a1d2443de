//! What the disk tier holds, in two budgets, and what is reserved in each.
//!
//! A request locks one of the [`PARTS`] of a budget's list for a list operation: no lock is shared by all requests. Fills share one
//! more, for the budget's arithmetic. The order of use is exact within a part, and between parts as exact as the clock.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Class;
use super::layout::CLASSES;
use super::recency::{Due, Rank, Recency, Victim};
use super::time::Time;
use crate::oci::Digest;

/// More than there are processors to meet in one of them, and few enough to look at them all for the coldest.
const PARTS: usize = 16;

/// The part of a budget that is there for what only one client has asked for, one in so many. Beyond it, such things make room for one
/// another: a client that pulls everything there is flushes a fifth of the cache (S-36).
const NEW_SHARE: u64 = 5;

/// What nobody has used for so long counts as new again, whoever asked for it before.
const KEPT_FOR: Duration = Duration::from_hours(30 * 24);

/// The two budgets.
#[derive(Debug)]
pub(super) struct Shelves {
    layers: Shelf,
    metadata: Shelf,
}

/// One budget.
#[derive(Debug)]
pub(super) struct Shelf {
    capacity_bytes: u64,
    // Plain mutexes: held for list operations only, never over I/O.
    parts: [Mutex<Part>; PARTS],
    // Held while victims are chosen, with one part locked at a time.
    room: Mutex<Room>,
}

#[derive(Debug, Default)]
struct Part {
    recency: Recency,
    /// Damaged objects that cannot be removed from a disk that takes no writes: absent until they are replaced.
    condemned: HashSet<Digest>,
}

#[derive(Debug, Default)]
struct Room {
    reserved_bytes: u64,
    /// Of these, so many are not on the file system yet.
    unwritten_bytes: u64,
}

impl Shelves {
    pub(super) fn new(capacity_bytes: u64, metadata_capacity_bytes: u64) -> Self {
        Self { layers: Shelf::new(capacity_bytes), metadata: Shelf::new(metadata_capacity_bytes) }
    }

    pub(super) fn of(&self, class: Class) -> &Shelf {
        match class {
            Class::Layer => &self.layers,
            Class::Metadata => &self.metadata,
        }
    }

    /// Looks into the parts of both budgets, counted from 0, as [`Recency::due`] does; `None` past the last one.
    pub(super) fn due(&self, part: usize, from: usize, looks: usize, time: u64) -> Option<(Class, Due)> {
        let class = *CLASSES.get(part / PARTS)?;
        let part = self.of(class).parts.get(part % PARTS)?;
        Some((class, lock(part).recency.due(from, looks, time)))
    }

    /// Returns the bytes of all objects.
    pub(super) fn used_bytes(&self) -> u64 {
        CLASSES.map(|class| self.of(class).used_bytes()).iter().sum()
    }

    /// Returns the bytes that are reserved and not on the file system yet.
    pub(super) fn unwritten_bytes(&self) -> u64 {
        CLASSES.map(|class| lock(&self.of(class).room).unwritten_bytes).iter().sum()
    }
}

impl Shelf {
    fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, parts: Default::default(), room: Mutex::default() }
    }

    /// Looks into the part of the list where `digest` belongs, or changes it.
    pub(super) fn list<T>(&self, digest: &Digest, work: impl FnOnce(&mut Recency) -> T) -> T {
        work(&mut self.part(digest).recency)
    }

    /// Makes room in the list for further objects: exactly as much, for there may be millions.
    pub(super) fn expect<'a>(&self, digests: impl Iterator<Item = &'a Digest>) {
        let mut counts = [0; PARTS];
        for digest in digests {
            if let Some(count) = counts.get_mut(part_of(digest)) {
                *count += 1;
            }
        }
        for (part, count) in self.parts.iter().zip(counts) {
            lock(part).recency.reserve(count);
        }
    }

    /// Lets an object count as absent although its file cannot be removed.
    pub(super) fn condemn(&self, digest: &Digest) {
        self.part(digest).condemned.insert(*digest);
    }

    pub(super) fn pardon(&self, digest: &Digest) {
        self.part(digest).condemned.remove(digest);
    }

    pub(super) fn is_condemned(&self, digest: &Digest) -> bool {
        self.part(digest).condemned.contains(digest)
    }

    /// Returns the bytes of all objects.
    pub(super) fn used_bytes(&self) -> u64 {
        self.parts.iter().map(|part| lock(part).recency.used_bytes()).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| lock(part).recency.len()).sum()
    }

    /// Takes out of the list what is to give way next: the coldest object of a rank.
    pub(super) fn pop_coldest(&self, now: Time) -> Option<Victim> {
        let [new, kept] = [Rank::New, Rank::Kept].map(|rank| self.coldest(rank));
        let new_bytes: u64 = self.parts.iter().map(|part| lock(part).recency.new_bytes()).sum();
        let uses = (new.map(|(_, used)| used), kept.map(|(_, used)| used));
        let rank = gives_way(uses, new_bytes >= self.capacity_bytes / NEW_SHARE, now)?;
        let (part, _) = match rank {
            Rank::New => new?,
            Rank::Kept => kept?,
        };
        lock(part).recency.pop_coldest(rank)
    }

    /// Returns where the coldest object of a rank is, and when it was last used.
    fn coldest(&self, rank: Rank) -> Option<(&Mutex<Part>, Time)> {
        let used = self.parts.iter().filter_map(|part| Some((part, lock(part).recency.coldest_use(rank)?)));
        used.min_by_key(|(_, used)| *used)
    }

    /// Adds `bytes` to what is reserved, `written_bytes` of which are on the file system already, and takes the coldest objects out
    /// of the list until the budget holds; `None` when it cannot.
    pub(super) fn claim(&self, bytes: u64, written_bytes: u64) -> Option<Vec<Victim>> {
        self.claim_at(bytes, written_bytes, Time::now())
    }

    fn claim_at(&self, bytes: u64, written_bytes: u64, now: Time) -> Option<Vec<Victim>> {
        let mut room = lock(&self.room);
        let reserved = room.reserved_bytes.saturating_add(bytes);
        let for_objects = self.capacity_bytes.checked_sub(reserved)?;
        room.reserved_bytes = reserved;
        room.unwritten_bytes += bytes - written_bytes;
        let mut victims = Vec::new();
        let mut used = self.used_bytes();
        while used > for_objects
            && let Some(victim) = self.pop_coldest(now)
        {
            used = used.saturating_sub(victim.size_bytes);
            victims.push(victim);
        }
        Some(victims)
    }

    /// Notes that so many of the reserved bytes have been written.
    pub(super) fn wrote(&self, bytes: u64) {
        lock(&self.room).unwritten_bytes -= bytes;
    }

    /// Takes back reserved bytes, of which so many were never written.
    pub(super) fn release(&self, bytes: u64, unwritten_bytes: u64) {
        let mut room = lock(&self.room);
        room.reserved_bytes -= bytes;
        room.unwritten_bytes -= unwritten_bytes;
    }

    fn part(&self, digest: &Digest) -> MutexGuard<'_, Part> {
        #[expect(clippy::indexing_slicing, reason = "a part's number is below the number of parts")]
        lock(&self.parts[part_of(digest)])
    }
}

/// Returns the rank whose coldest object gives way, by the last use of the coldest of each:
///
/// | new ones | the coldest kept one | gives way |
/// |---|---|---|
/// | at their share or beyond | used within [`KEPT_FOR`] | the coldest new one |
/// | below it, or none | any | the colder of both |
/// | any | not used for longer | the colder of both |
fn gives_way((new, kept): (Option<Time>, Option<Time>), is_share_taken: bool, now: Time) -> Option<Rank> {
    match (new, kept) {
        (None, None) => None,
        (Some(_), None) => Some(Rank::New),
        (None, Some(_)) => Some(Rank::Kept),
        (Some(new), Some(kept)) => {
            let is_new_to_give_way = new <= kept || is_share_taken && now.since(kept) < KEPT_FOR;
            Some(if is_new_to_give_way { Rank::New } else { Rank::Kept })
        }
    }
}

/// Returns the number of the part where `digest` belongs.
fn part_of(digest: &Digest) -> usize {
    digest.as_bytes().first().map_or(0, |first| usize::from(*first) % PARTS)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::client_print::ClientPrint;
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::Sha256([number; 32])
    }

    proptest! {
        #[test]
        fn the_coldest_of_all_parts_goes_first(uses in prop::collection::vec(0_u8..64, 0..200)) {
            let shelf = Shelf::new(1000);
            let mut model: Vec<u8> = Vec::new();
            for (at, number) in uses.into_iter().enumerate() {
                shelf.list(&digest(number), |recency| recency.insert(digest(number), 1, Time::from_seconds(at as u64)));
                model.retain(|other| *other != number);
                model.push(number);
            }
            prop_assert_eq!((shelf.used_bytes(), shelf.len()), (model.len() as u64, model.len()));
            let victims = shelf.claim(1000, 0).unwrap();
            let numbers: Vec<u8> = victims.iter().map(|victim| victim.digest.as_bytes()[0]).collect();
            prop_assert_eq!(numbers, model);
        }
    }

    fn client(number: u8) -> ClientPrint {
        ClientPrint::of(&number)
    }

    /// A budget of 100 bytes in which objects 0 to 79 are kept, and came in this order.
    fn with_kept() -> Shelf {
        let shelf = Shelf::new(100);
        for number in 0..80 {
            shelf.list(&digest(number), |recency| {
                recency.insert(digest(number), 1, Time::from_seconds(u64::from(number)));
                recency.asked(&digest(number), client(1));
                recency.asked(&digest(number), client(2));
            });
        }
        shelf
    }

    fn pull(shelf: &Shelf, number: u8, by: u8, now: Time) -> Vec<u8> {
        let victims = shelf.claim_at(1, 1, now).unwrap();
        shelf.list(&digest(number), |recency| {
            recency.insert(digest(number), 1, now);
            recency.asked(&digest(number), client(by));
        });
        shelf.release(1, 0);
        victims.iter().map(|victim| victim.digest.as_bytes()[0]).collect()
    }

    #[test]
    fn what_one_client_alone_asks_for_takes_the_place_of_such_things_only() {
        let shelf = with_kept();
        let now = Time::from_seconds(1000);
        let mut gone = Vec::new();
        for number in 80..250 {
            gone.extend(pull(&shelf, number, 7, now));
            // However often it asks.
            shelf.list(&digest(number), |recency| recency.asked(&digest(number), client(7)));
        }
        assert_eq!(gone.len(), 150, "S-36");
        assert!(gone.iter().all(|number| *number >= 80), "S-36: {gone:?}");
    }

    #[test]
    fn what_several_clients_want_takes_the_place_of_what_was_wanted_longest_ago() {
        let shelf = with_kept();
        let mut gone = Vec::new();
        for number in 80..140 {
            gone.extend(pull(&shelf, number, 7, Time::from_seconds(1000)));
            shelf.list(&digest(number), |recency| recency.asked(&digest(number), client(8)));
        }
        assert_eq!(gone, (0..40).collect::<Vec<u8>>());
    }

    #[test]
    fn what_nobody_has_used_for_long_gives_way_to_anybody() {
        let shelf = with_kept();
        let now = Time::from_seconds(1000 + KEPT_FOR.as_secs());
        let gone: Vec<u8> = (80..130).flat_map(|number| pull(&shelf, number, 7, now)).collect();
        assert_eq!(gone, (0..30).collect::<Vec<u8>>());
    }

    #[test]
    fn room_is_claimed_written_and_given_back() {
        let shelves = Shelves::new(100, 10);
        let shelf = shelves.of(Class::Layer);
        shelf.list(&digest(1), |recency| recency.insert(digest(1), 30, Time::from_seconds(1)));
        assert_eq!(shelf.claim(101, 0), None);
        assert_eq!(shelf.claim(70, 20), Some(Vec::new()));
        assert_eq!((shelves.used_bytes(), shelves.unwritten_bytes()), (30, 50));
        shelf.wrote(40);
        assert_eq!(shelf.claim(1, 0).map(|victims| victims.len()), Some(1), "the coldest makes room");
        assert_eq!((shelves.used_bytes(), shelves.unwritten_bytes()), (0, 11));
        shelf.release(71, 11);
        assert_eq!((shelf.claim(100, 0), shelves.unwritten_bytes()), (Some(Vec::new()), 100));
    }
}
