//! Which objects a budget holds, in the exact order of their last use: the lists that eviction takes from.
//!
//! An object comes as [`Rank::New`]. Once a second client asks for it, it is [`Rank::Kept`]: what one client alone asks for, however much,
//! takes the place of such things only (S-36). Which list gives way is decided in `shelves`.
//!
//! Pure: time is an argument. Touching, inserting, removing and taking the coldest cost O(1) each.
//! A digest is kept once, in its node; the table keeps node numbers only. A node also tells when its object was last verified, and
//! so the list is what a scrub walks along ([`Recency::due`]).

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::client_print::ClientPrint;
use super::mark::Mark;
use super::time::Time;
use crate::oci::Digest;

/// How much an object is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// One client has asked for it, or nobody yet.
    New,
    /// Several have.
    Kept,
}

/// The ends of a list.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    coldest: Option<u32>,
    hottest: Option<u32>,
}

/// The objects of one budget, coldest first.
#[derive(Debug, Default)]
pub(super) struct Recency {
    nodes: Vec<Node>,
    /// Node numbers of removed nodes, for reuse.
    free: Vec<u32>,
    table: HashTable<u32>,
    hasher: RandomState,
    new: Ends,
    kept: Ends,
    used_bytes: u64,
    /// Of these, so many are of new objects.
    new_bytes: u64,
    /// Numbers the files.
    files: u32,
}

#[derive(Debug)]
struct Node {
    digest: Digest,
    size_bytes: u64,
    last_use: Time,
    colder: Option<u32>,
    hotter: Option<u32>,
    /// [`Mark::FREE`] for a node that is free.
    mark: Mark,
    /// Who was the first to ask for it, while it is new.
    asked_by: Option<ClientPrint>,
    rank: Rank,
}

/// An object that left the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Victim {
    pub digest: Digest,
    pub size_bytes: u64,
    pub last_use: Time,
}

/// What the list knows of an object that was found on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// Nothing.
    Unknown,
    /// As large as it should be, as far as is known.
    Whole(Mark),
    /// Not as large as it was when it was stored or scanned.
    Resized(Mark),
}

/// What a look for objects to verify brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// This one; go on at `next`.
    Object { next: usize, digest: Digest, mark: Mark },
    /// None so far; go on at `next`.
    None { next: usize },
    /// None, and the list is at its end.
    End,
}

impl Node {
    fn new(digest: Digest, size_bytes: u64, last_use: Time, mark: Mark) -> Self {
        let (asked_by, rank) = (None, Rank::New);
        Self { digest, size_bytes, last_use, colder: None, hotter: None, mark, asked_by, rank }
    }
}

impl Recency {
    /// Returns the bytes of all objects in the list.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Returns those of new objects.
    pub(super) fn new_bytes(&self) -> u64 {
        self.new_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Adds an object that was verified just now as the hottest, in place of whatever had its digest.
    pub(super) fn insert(&mut self, digest: Digest, size_bytes: u64, now: Time) {
        self.remove(&digest);
        let mark = self.next_mark().verified_at(now.seconds());
        self.insert_hottest(Node::new(digest, size_bytes, now, mark));
    }

    /// Makes a known object, found on disk with `size_bytes`, the hottest of its rank.
    pub(super) fn opened(&mut self, digest: &Digest, size_bytes: u64, now: Time) -> Opened {
        let Some(number) = self.find(digest) else { return Opened::Unknown };
        let (known_bytes, mark) = (self.node(number).size_bytes, self.node(number).mark);
        if known_bytes != size_bytes {
            return Opened::Resized(mark);
        }
        self.make_hottest(number, now);
        Opened::Whole(mark)
    }

    /// Adds an object that was found on disk, and in use, as the hottest.
    pub(super) fn insert_found(&mut self, digest: Digest, size_bytes: u64, now: Time) -> Mark {
        let mark = self.next_mark();
        self.insert_hottest(Node::new(digest, size_bytes, now, mark));
        mark
    }

    /// Returns the mark of a known object.
    pub(super) fn mark(&self, digest: &Digest) -> Option<Mark> {
        self.find(digest).map(|number| self.node(number).mark)
    }

    /// Makes room for so many further objects, and no more: a list that doubles as it grows needs thrice its memory for a moment.
    pub(super) fn reserve(&mut self, count: usize) {
        self.nodes.reserve_exact(count);
    }

    /// Adds an object found on disk as the coldest; one that is known already is left where it is.
    pub(super) fn insert_coldest(&mut self, digest: Digest, size_bytes: u64, last_use: Time) {
        if self.find(&digest).is_none() {
            let mark = self.next_mark();
            let number = self.place(Node::new(digest, size_bytes, last_use, mark));
            self.attach_coldest(number);
        }
    }

    /// Makes a known object the hottest of its rank; an unknown one is ignored.
    pub(super) fn touch(&mut self, digest: &Digest, now: Time) {
        if let Some(number) = self.find(digest) {
            self.make_hottest(number, now);
        }
    }

    /// Notes who asked for an object: the second one to do so raises it.
    pub(super) fn asked(&mut self, digest: &Digest, client: ClientPrint) {
        let Some(number) = self.find(digest).filter(|number| self.node(*number).rank == Rank::New) else { return };
        match self.node(number).asked_by {
            None => self.node_mut(number).asked_by = Some(client),
            Some(first) if first != client => {
                self.detach(number);
                self.node_mut(number).rank = Rank::Kept;
                self.new_bytes -= self.node(number).size_bytes;
                self.attach_hottest(number);
            }
            Some(_) => {}
        }
    }

    /// Notes that all bytes of the object that is marked so matched its digest just now.
    pub(super) fn verified(&mut self, digest: &Digest, mark: Mark, now: Time) {
        if let Some(number) = self.find(digest)
            && self.node(number).mark.is_same_file(mark)
        {
            self.node_mut(number).mark = mark.verified_at(now.seconds());
        }
    }

    /// Removes an object that is marked so, unless another one has come in its place.
    pub(super) fn remove_marked(&mut self, digest: &Digest, mark: Mark) -> Option<Victim> {
        let number = self.find(digest)?;
        if self.node(number).mark.is_same_file(mark) { self.remove(digest) } else { None }
    }

    /// Returns the first object from node number `from` on that was not verified since `time`, in seconds since the epoch, looking at
    /// no more than `looks` nodes.
    ///
    /// After a scan the nodes stand in the order of use, the hottest first; those of objects that came later follow.
    pub(super) fn due(&self, from: usize, looks: usize, time: u64) -> Due {
        for (number, node) in self.nodes.iter().enumerate().skip(from).take(looks) {
            if node.mark.is_due(time) {
                return Due::Object { next: number + 1, digest: node.digest, mark: node.mark };
            }
        }
        let next = from.saturating_add(looks);
        if next < self.nodes.len() { Due::None { next } } else { Due::End }
    }

    pub(super) fn remove(&mut self, digest: &Digest) -> Option<Victim> {
        let number = self.find(digest)?;
        let hash = self.hasher.hash_one(digest);
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        self.detach(number);
        let node = self.node_mut(number);
        let (size_bytes, last_use, rank) = (node.size_bytes, node.last_use, node.rank);
        node.mark = Mark::FREE;
        self.free.push(number);
        self.used_bytes -= size_bytes;
        if rank == Rank::New {
            self.new_bytes -= size_bytes;
        }
        Some(Victim { digest: *digest, size_bytes, last_use })
    }

    /// Returns when the coldest object of a rank was last used.
    pub(super) fn coldest_use(&self, rank: Rank) -> Option<Time> {
        Some(self.node(self.ends(rank).coldest?).last_use)
    }

    /// Takes the coldest object of a rank out of the list.
    pub(super) fn pop_coldest(&mut self, rank: Rank) -> Option<Victim> {
        let digest = self.node(self.ends(rank).coldest?).digest;
        self.remove(&digest)
    }

    fn ends(&self, rank: Rank) -> &Ends {
        match rank {
            Rank::New => &self.new,
            Rank::Kept => &self.kept,
        }
    }

    fn ends_mut(&mut self, rank: Rank) -> &mut Ends {
        match rank {
            Rank::New => &mut self.new,
            Rank::Kept => &mut self.kept,
        }
    }

    fn next_mark(&mut self) -> Mark {
        self.files = self.files.wrapping_add(1);
        Mark::found(self.files)
    }

    fn insert_hottest(&mut self, node: Node) {
        let number = self.place(node);
        self.attach_hottest(number);
    }

    fn attach_coldest(&mut self, number: u32) {
        let rank = self.node(number).rank;
        let hotter = self.ends_mut(rank).coldest.replace(number);
        self.node_mut(number).hotter = hotter;
        match hotter {
            Some(old) => self.node_mut(old).colder = Some(number),
            None => self.ends_mut(rank).hottest = Some(number),
        }
    }

    fn make_hottest(&mut self, number: u32, now: Time) {
        self.detach(number);
        self.node_mut(number).last_use = now;
        self.attach_hottest(number);
    }

    fn attach_hottest(&mut self, number: u32) {
        let rank = self.node(number).rank;
        let colder = self.ends_mut(rank).hottest.replace(number);
        let node = self.node_mut(number);
        (node.colder, node.hotter) = (colder, None);
        match colder {
            Some(old) => self.node_mut(old).hotter = Some(number),
            None => self.ends_mut(rank).coldest = Some(number),
        }
    }

    fn detach(&mut self, number: u32) {
        let Node { colder, hotter, rank, .. } = *self.node(number);
        match colder {
            Some(colder) => self.node_mut(colder).hotter = hotter,
            None => self.ends_mut(rank).coldest = hotter,
        }
        match hotter {
            Some(hotter) => self.node_mut(hotter).colder = colder,
            None => self.ends_mut(rank).hottest = colder,
        }
    }

    fn find(&self, digest: &Digest) -> Option<u32> {
        let is_it = |number: &u32| self.nodes.get(*number as usize).is_some_and(|node| node.digest == *digest);
        self.table.find(self.hasher.hash_one(digest), is_it).copied()
    }

    fn place(&mut self, node: Node) -> u32 {
        self.used_bytes += node.size_bytes;
        // Nobody has asked for what is placed.
        self.new_bytes += node.size_bytes;
        let hash = self.hasher.hash_one(node.digest);
        let number = if let Some(number) = self.free.pop() {
            *self.node_mut(number) = node;
            number
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).expect("a disk holds fewer than 2^32 objects")
        };
        let Self { nodes, table, hasher, .. } = self;
        let rehash = |number: &u32| nodes.get(*number as usize).map_or(0, |node| hasher.hash_one(node.digest));
        table.insert_unique(hash, number, rehash);
        number
    }

    #[expect(clippy::indexing_slicing, reason = "numbers come from `place` and are never out of range")]
    fn node(&self, number: u32) -> &Node {
        &self.nodes[number as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "numbers come from `place` and are never out of range")]
    fn node_mut(&mut self, number: u32) -> &mut Node {
        &mut self.nodes[number as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600;

    fn at(seconds: u64) -> Time {
        Time::from_seconds(seconds)
    }

    fn digest(number: u8) -> Digest {
        Digest::Sha256([number; 32])
    }

    fn drain_of(recency: &mut Recency, rank: Rank) -> Vec<u8> {
        std::iter::from_fn(|| recency.pop_coldest(rank)).map(|victim| victim.digest.as_bytes()[0]).collect()
    }

    fn drain(recency: &mut Recency) -> Vec<u8> {
        drain_of(recency, Rank::New)
    }

    #[test]
    fn the_coldest_goes_first_and_objects_found_on_disk_are_colder_than_used_ones() {
        let mut recency = Recency::default();
        for number in [1, 2, 3] {
            recency.insert(digest(number), 10, at(5));
        }
        recency.insert_coldest(digest(4), 1, at(2));
        recency.insert_coldest(digest(5), 1, at(1));
        recency.insert_coldest(digest(1), 99, at(1));
        recency.touch(&digest(1), at(6));
        recency.touch(&digest(9), at(6));
        assert_eq!((recency.used_bytes(), recency.len()), (32, 5));
        assert_eq!(drain(&mut recency), [5, 4, 2, 3, 1]);
        assert_eq!((recency.used_bytes(), recency.len()), (0, 0));
    }

    #[test]
    fn a_node_is_small_enough_for_a_million_of_them() {
        // Beside it, the table has five bytes for each object, and both may be half empty.
        assert_eq!(size_of::<Node>(), 104);
    }

    #[test]
    fn an_object_is_verified_when_it_is_stored_and_not_when_it_is_found() {
        let mut recency = Recency::default();
        recency.insert(digest(1), 10, at(HOUR));
        recency.insert_coldest(digest(2), 20, at(3));
        let opened =
            |recency: &mut Recency, number, size_bytes| match recency.opened(&digest(number), size_bytes, at(200)) {
                Opened::Whole(mark) => mark,
                other => panic!("{other:?}"),
            };
        assert!(opened(&mut recency, 1, 10).is_verified());
        assert_eq!(recency.opened(&digest(3), 30, at(200)), Opened::Unknown);
        let found = [opened(&mut recency, 2, 20), recency.insert_found(digest(3), 30, at(200))];
        assert!(!found[0].is_verified() && !found[1].is_verified());
        assert_eq!(recency.opened(&digest(3), 29, at(200)), Opened::Resized(found[1]));
        recency.verified(&digest(2), found[0], at(HOUR));
        recency.verified(&digest(3), found[0], at(HOUR));
        recency.touch(&digest(2), at(400));
        assert!(opened(&mut recency, 2, 20).is_verified());
        assert!(!opened(&mut recency, 3, 30).is_verified(), "another file was");
        assert_eq!((recency.used_bytes(), recency.len()), (60, 3));
    }

    #[test]
    fn what_has_come_in_its_place_is_not_removed() {
        let mut recency = Recency::default();
        recency.insert(digest(1), 10, at(HOUR));
        let first = recency.mark(&digest(1)).unwrap();
        recency.insert(digest(1), 10, at(HOUR));
        assert_eq!(recency.remove_marked(&digest(1), first), None);
        let second = recency.mark(&digest(1)).unwrap();
        recency.verified(&digest(1), second, at(5 * HOUR));
        assert!(recency.remove_marked(&digest(1), second.unverified()).is_some(), "it is the same file");
        assert_eq!(recency.remove_marked(&digest(1), second), None);
    }

    #[test]
    fn a_look_for_what_is_due_passes_over_the_free_and_the_recently_verified() {
        let mut recency = Recency::default();
        for number in [1, 2, 3, 4] {
            recency.insert_coldest(digest(number), 10, at(5));
        }
        recency.remove(&digest(1));
        let mark = recency.mark(&digest(2)).unwrap();
        recency.verified(&digest(2), mark, at(100 * HOUR));
        let all = |time| {
            let (mut from, mut found) = (0, Vec::new());
            loop {
                from = match recency.due(from, 1, time) {
                    Due::Object { next, digest, .. } => {
                        found.push(digest.as_bytes()[0]);
                        next
                    }
                    Due::None { next } => next,
                    Due::End => return found,
                }
            }
        };
        assert_eq!(all(100 * HOUR), [3, 4]);
        assert_eq!(all(101 * HOUR), [2, 3, 4]);
        assert!(matches!(recency.due(0, 100, HOUR), Due::Object { next: 3, .. }));
        assert_eq!(recency.due(4, 100, HOUR), Due::End);
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_plain_list(steps in prop::collection::vec((0u8..4, 0u8..8), 0..60)) {
            let mut recency = Recency::default();
            let mut model: Vec<u8> = Vec::new();
            for (step, number) in steps {
                let known = model.iter().position(|other| *other == number);
                match (step, known) {
                    (0, _) => {
                        recency.insert(digest(number), 7, at(0));
                        model.retain(|other| *other != number);
                        model.push(number);
                    }
                    (1, known) => {
                        recency.insert_coldest(digest(number), 7, at(0));
                        if known.is_none() {
                            model.insert(0, number);
                        }
                    }
                    (2, known) => {
                        recency.touch(&digest(number), at(0));
                        if let Some(at) = known {
                            model.remove(at);
                            model.push(number);
                        }
                    }
                    (_, known) => {
                        prop_assert_eq!(recency.remove(&digest(number)).is_some(), known.is_some());
                        model.retain(|other| *other != number);
                    }
                }
                prop_assert_eq!(recency.used_bytes(), model.len() as u64 * 7);
            }
            prop_assert_eq!(drain(&mut recency), model);
        }

        #[test]
        fn the_second_client_that_asks_raises_an_object(steps in prop::collection::vec((0u8..4, 0u8..8, 0u8..3), 0..80)) {
            let mut recency = Recency::default();
            let (mut new, mut kept): (Vec<u8>, Vec<u8>) = Default::default();
            let mut first = HashMap::new();
            for (step, number, client) in steps {
                match step {
                    0 => {
                        recency.insert(digest(number), 7, at(0));
                        new.retain(|other| *other != number);
                        kept.retain(|other| *other != number);
                        new.push(number);
                        first.remove(&number);
                    }
                    1 => {
                        recency.touch(&digest(number), at(0));
                        for list in [&mut new, &mut kept] {
                            if list.contains(&number) {
                                list.retain(|other| *other != number);
                                list.push(number);
                            }
                        }
                    }
                    _ => {
                        recency.asked(&digest(number), ClientPrint::of(&client));
                        if new.contains(&number) && *first.entry(number).or_insert(client) != client {
                            new.retain(|other| *other != number);
                            kept.push(number);
                        }
                    }
                }
                prop_assert_eq!((recency.new_bytes(), recency.used_bytes()), (new.len() as u64 * 7, (new.len() + kept.len()) as u64 * 7));
            }
            prop_assert_eq!(drain_of(&mut recency, Rank::New), new);
            prop_assert_eq!(drain_of(&mut recency, Rank::Kept), kept);
            prop_assert_eq!((recency.new_bytes(), recency.used_bytes(), recency.len()), (0, 0, 0));
        }
    }
}
