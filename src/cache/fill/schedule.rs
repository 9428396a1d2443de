//! What to fetch next: a pure function of what is present, what is under way and who reads.
//!
//! | who | what is fetched |
//! |---|---|
//! | a reader waits, or will soon, where nothing comes | its segment, at once, on a connection of its own |
//! | nobody does | the first missing bytes, over as many connections as the fill may use |
//!
//! While readers read from the front, pieces are long and shrink towards the end, so that all connections end together; as soon
//! as somebody reads elsewhere, pieces are single segments, so that no later wish meets bytes that are promised already.
//! No byte is asked for twice: a piece ends where present bytes or another piece begin.

use std::ops::Range;

use crate::store::Present;

/// The unit in which bytes are fetched out of order, and what the first request asks for: it tells the blob's size and whether
/// ranges are honoured, and most blobs are not longer.
pub(super) const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// The longest piece: a request for each costs a round trip or two, which must not be felt; a piece cannot be taken back.
const PIECE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// The shortest piece, at the end of a blob: what one connection may be behind the others when they end.
const PIECE_BYTES_MIN: u64 = 2 * 1024 * 1024;

/// A reader at most this far ahead of a transfer is reached soon enough by it.
const NEAR_BYTES: u64 = 1024 * 1024;

/// A transfer this close to its end has a successor opened, so that no round trip passes without bytes.
pub(super) const ENDING_BYTES: u64 = 1024 * 1024;

/// Transfers for readers at once.
const DEMANDS_MAX: usize = 8;

/// Which kind of transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// In order, from the first missing byte.
    Sequential,
    /// For a reader.
    Demand,
}

/// Bytes to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fetch {
    pub(super) order: Order,
    pub(super) start: u64,
    /// Exclusive; `None` to the blob's end.
    pub(super) end: Option<u64>,
}

/// A transfer under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Underway {
    pub(super) order: Order,
    /// The next byte it brings.
    pub(super) at: u64,
    /// Exclusive; `None` to the blob's end.
    pub(super) end: Option<u64>,
}

/// A reader's next byte, and where it will stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) cursor: u64,
    /// Exclusive; may lie beyond the blob.
    pub(super) end: u64,
    pub(super) is_waiting: bool,
}

/// In which order bytes can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// By one transfer at a time: the upstream ignores ranges, the length is not known, or the store takes no bytes.
    InOrder,
    /// Anywhere.
    Anywhere {
        /// Transfers at once that are not for a particular reader.
        lanes: usize,
        /// What `lanes` may become later: a piece must leave something for them.
        lanes_max: usize,
        /// Somebody reads elsewhere than from the front.
        is_scattered: bool,
    },
}

/// What the decision depends on.
#[derive(Debug)]
pub(super) struct Situation<'a> {
    pub(super) present: &'a Present,
    pub(super) size_bytes: Option<u64>,
    pub(super) underway: &'a [Underway],
    /// What readers wish for, the one that waits longest first, those that do not wait last.
    pub(super) wishes: &'a [Wish],
    pub(super) mode: Mode,
    /// Connections to the upstream that are free.
    pub(super) spare: usize,
}

/// Returns the first request of a fill: the segment that the first reader wants, of which `missing` is the first byte that no
/// earlier fill has left.
pub(super) fn first(from: u64, missing: u64) -> Fetch {
    let order = if from == missing { Order::Sequential } else { Order::Demand };
    Fetch { order, start: from, end: Some(segment_end(from)) }
}

/// Returns the next transfer to start, if any; ask again until `None`.
pub(super) fn next(situation: &Situation<'_>) -> Option<Fetch> {
    match (situation.mode, situation.size_bytes) {
        (Mode::Anywhere { lanes, lanes_max, is_scattered }, Some(size)) => {
            let in_order = situation.piece(size, lanes, lanes_max, is_scattered);
            situation.demand(size, in_order).or(in_order)
        }
        (Mode::Anywhere { .. } | Mode::InOrder, _) => situation.rest(),
    }
}

impl Situation<'_> {
    /// Everything that is missing, by one transfer.
    fn rest(&self) -> Option<Fetch> {
        let start = self.present.first_gap(0);
        if !self.underway.is_empty() || self.size_bytes.is_some_and(|size| start >= size) {
            return None;
        }
        Some(Fetch { order: Order::Sequential, start, end: None })
    }

    /// The first missing bytes, when a connection may be used for them.
    fn piece(&self, size: u64, lanes: usize, lanes_max: usize, is_scattered: bool) -> Option<Fetch> {
        let start = self.first_free();
        let running = self.underway.iter().filter(|transfer| !transfer.is_ending()).count();
        if start >= size || running >= lanes || (self.spare == 0 && !self.underway.is_empty()) {
            return None;
        }
        let end = if is_scattered {
            segment_end(start)
        } else if lanes_max == 1 {
            size
        } else {
            let share = (size - start) / (2 * lanes_max as u64);
            start.saturating_add(share.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX))
        };
        Some(Fetch { order: Order::Sequential, start, end: Some(self.free_until(start, end.min(size))) })
    }

    /// The segment of the first reader that needs one and does not get it by `in_order`.
    fn demand(&self, size: u64, in_order: Option<Fetch>) -> Option<Fetch> {
        let running = self.underway.iter().filter(|transfer| transfer.order == Order::Demand).count();
        if running >= DEMANDS_MAX {
            return None;
        }
        let comes_in_order =
            |at: u64| in_order.is_some_and(|fetch| (fetch.start..=fetch.start + NEAR_BYTES).contains(&at));
        let start = self.wishes.iter().find_map(|wish| {
            let at = self.missing(wish)?;
            (at < size && !comes_in_order(at)).then_some(at)
        })?;
        Some(Fetch { order: Order::Demand, start, end: Some(self.free_until(start, segment_end(start).min(size))) })
    }

    /// Returns the byte that must be asked for, so that a reader does not wait, or not longer than it must.
    fn missing(&self, wish: &Wish) -> Option<u64> {
        if wish.is_waiting {
            return (!self.comes_soon(wish.cursor)).then_some(wish.cursor);
        }
        let horizon = wish.cursor.saturating_add(ENDING_BYTES).min(wish.end);
        let free = self.free_from(wish.cursor);
        (free < horizon && self.spare > 0).then_some(free)
    }

    /// Returns true when the byte at `cursor` is present or will come soon without a further transfer.
    fn comes_soon(&self, cursor: u64) -> bool {
        let comes = |transfer: &Underway| match transfer.order {
            Order::Demand => span(transfer).contains(&cursor),
            Order::Sequential => span(transfer).contains(&cursor) && cursor - transfer.at <= NEAR_BYTES,
        };
        self.present.first_gap(cursor) > cursor || self.underway.iter().any(comes)
    }

    fn first_free(&self) -> u64 {
        self.free_from(0)
    }

    /// Returns the first byte from `at` on that is neither present nor promised by a transfer.
    fn free_from(&self, mut at: u64) -> u64 {
        loop {
            let after_present = self.present.first_gap(at);
            let after_promised = self.promised(after_present).unwrap_or(after_present);
            if after_promised == at {
                return at;
            }
            at = after_promised;
        }
    }

    /// Returns the end of the transfer that will bring the byte at `at`.
    fn promised(&self, at: u64) -> Option<u64> {
        self.underway.iter().map(span).find(|span| span.contains(&at)).map(|span| span.end)
    }

    /// Returns the end of the run of free bytes that begins at `start`, at most `limit`.
    fn free_until(&self, start: u64, limit: u64) -> u64 {
        let next_present = self.present.next_present(start).unwrap_or(limit);
        let next_promised =
            self.underway.iter().map(|transfer| transfer.at).filter(|at| *at > start).min().unwrap_or(limit);
        limit.min(next_present).min(next_promised)
    }
}

impl Underway {
    /// Returns true when so little is left that a successor should be opened.
    pub(super) fn is_ending(&self) -> bool {
        self.end.is_some_and(|end| end.saturating_sub(self.at) <= ENDING_BYTES)
    }
}

/// Returns the end of the segment that `start` lies in; of the next one when little of it is left.
fn segment_end(start: u64) -> u64 {
    (start.saturating_add(ENDING_BYTES) / SEGMENT_BYTES + 1).saturating_mul(SEGMENT_BYTES)
}

fn span(transfer: &Underway) -> Range<u64> {
    transfer.at..transfer.end.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;
    const SIZE: u64 = 100 * MIB;

    const ONE: Mode = Mode::Anywhere { lanes: 1, lanes_max: 1, is_scattered: false };
    const PROBING: Mode = Mode::Anywhere { lanes: 1, lanes_max: 4, is_scattered: false };
    const FOUR: Mode = Mode::Anywhere { lanes: 4, lanes_max: 4, is_scattered: false };
    const SCATTERED: Mode = Mode::Anywhere { lanes: 4, lanes_max: 4, is_scattered: true };

    fn present(ranges: &[Range<u64>]) -> Present {
        let mut present = Present::default();
        ranges.iter().cloned().for_each(|range| present.insert(range));
        present
    }

    fn sequential(at: u64, end: impl Into<Option<u64>>) -> Underway {
        Underway { order: Order::Sequential, at, end: end.into() }
    }

    fn demanded(at: u64, end: u64) -> Underway {
        Underway { order: Order::Demand, at, end: Some(end) }
    }

    fn waits(cursor: u64) -> Wish {
        Wish { cursor, end: u64::MAX, is_waiting: true }
    }

    fn reads(cursor: u64, end: u64) -> Wish {
        Wish { cursor, end, is_waiting: false }
    }

    /// A row's name, what is present, under way and wished for, the mode, and what comes next.
    type Row = (&'static str, Present, Vec<Underway>, Vec<Wish>, Mode, Option<(Order, u64, Option<u64>)>);

    fn check(rows: Vec<Row>) {
        for (name, present, underway, wishes, mode, expected) in rows {
            let situation = Situation {
                present: &present,
                size_bytes: Some(SIZE),
                underway: &underway,
                wishes: &wishes,
                mode,
                spare: 9,
            };
            let decided = next(&situation).map(|fetch| (fetch.order, fetch.start, fetch.end));
            assert_eq!(decided, expected, "{name}");
        }
    }

    #[test]
    fn missing_bytes_come_in_order_over_the_lanes_that_there_are() {
        use Order::Sequential;
        let front = || present(&[0..3 * MIB]);
        let rest = Some((Sequential, 4 * MIB, Some(SIZE)));
        check(vec![
            ("the rest over one connection", front(), vec![demanded(3 * MIB, 4 * MIB)], vec![], ONE, rest),
            ("not before the first is ending", present(&[]), vec![demanded(0, 4 * MIB)], vec![], ONE, None),
            (
                "a piece leaves something for the lanes to come",
                front(),
                vec![demanded(3 * MIB, 4 * MIB)],
                vec![],
                PROBING,
                Some((Sequential, 4 * MIB, Some(16 * MIB))),
            ),
            ("one lane is taken", front(), vec![sequential(3 * MIB, 12 * MIB)], vec![], PROBING, None),
            (
                "the next lane takes the next piece",
                front(),
                vec![sequential(3 * MIB, 12 * MIB)],
                vec![],
                FOUR,
                Some((Sequential, 12 * MIB, Some(23 * MIB))),
            ),
            (
                "pieces shrink towards the end",
                present(&[0..96 * MIB]),
                vec![],
                vec![],
                FOUR,
                Some((Sequential, 96 * MIB, Some(98 * MIB))),
            ),
            (
                "four lanes are all",
                present(&[]),
                (0..4).map(|lane| sequential(lane * 8 * MIB, (lane + 1) * 8 * MIB)).collect(),
                vec![],
                FOUR,
                None,
            ),
            (
                "single segments once readers are scattered",
                front(),
                vec![],
                vec![],
                SCATTERED,
                Some((Sequential, 3 * MIB, Some(8 * MIB))),
            ),
            ("up to what is there", present(&[0..5, 9..12]), vec![], vec![], ONE, Some((Sequential, 5, Some(9)))),
            (
                "after what is promised",
                present(&[0..40 * MIB]),
                vec![demanded(40 * MIB, 44 * MIB)],
                vec![],
                FOUR,
                Some((Sequential, 44 * MIB, Some(51 * MIB))),
            ),
            ("all is there", present(&[0..SIZE]), vec![], vec![], FOUR, None),
        ]);
    }

    #[test]
    fn a_reader_gets_its_segment_when_nothing_else_brings_it_soon() {
        use Order::{Demand, Sequential};
        let front = || present(&[0..2 * MIB]);
        let first = || vec![sequential(2 * MIB, 30 * MIB)];
        check(vec![
            ("near the transfer in order", front(), first(), vec![waits(2 * MIB), waits(3 * MIB)], ONE, None),
            ("far from it", front(), first(), vec![waits(70_000_000)], ONE, Some((Demand, 70_000_000, Some(68 * MIB)))),
            (
                "little of its segment is left",
                front(),
                first(),
                vec![waits(68 * MIB - 100)],
                ONE,
                Some((Demand, 68 * MIB - 100, Some(72 * MIB))),
            ),
            ("the footer", front(), first(), vec![waits(SIZE - 47)], ONE, Some((Demand, SIZE - 47, Some(SIZE)))),
            (
                "it is on its way",
                front(),
                vec![sequential(2 * MIB, 30 * MIB), demanded(40 * MIB, 44 * MIB)],
                vec![waits(43 * MIB)],
                ONE,
                None,
            ),
            (
                "where the next piece begins anyhow",
                front(),
                vec![],
                vec![waits(2 * MIB)],
                ONE,
                Some((Sequential, 2 * MIB, Some(SIZE))),
            ),
            (
                "the longest waiting comes first",
                front(),
                first(),
                vec![waits(80 * MIB), waits(40 * MIB)],
                ONE,
                Some((Demand, 80 * MIB, Some(84 * MIB))),
            ),
            (
                "a reader that reaches the end of its segment soon",
                present(&[0..2 * MIB, 40 * MIB..43 * MIB]),
                vec![sequential(2 * MIB, 30 * MIB), demanded(43 * MIB, 44 * MIB)],
                vec![reads(43 * MIB + 1, u64::MAX)],
                ONE,
                Some((Demand, 44 * MIB, Some(48 * MIB))),
            ),
            (
                "a reader that stops before",
                present(&[0..2 * MIB, 40 * MIB..43 * MIB]),
                vec![sequential(2 * MIB, 30 * MIB), demanded(43 * MIB, 44 * MIB)],
                vec![reads(43 * MIB + 1, 44 * MIB)],
                ONE,
                None,
            ),
            ("beyond the blob", front(), first(), vec![waits(SIZE)], ONE, None),
            ("ranges are ignored", front(), first(), vec![waits(70 * MIB)], Mode::InOrder, None),
            (
                "ranges are ignored and nothing is under way",
                front(),
                vec![],
                vec![waits(70 * MIB)],
                Mode::InOrder,
                Some((Sequential, 2 * MIB, None)),
            ),
        ]);
    }

    #[test]
    fn without_a_spare_connection_only_those_who_wait_are_served() {
        let (present, underway) = (present(&[0..40 * MIB]), [demanded(43 * MIB, 44 * MIB)]);
        let next_for = |wish: Wish| {
            next(&Situation {
                present: &present,
                size_bytes: Some(SIZE),
                underway: &underway,
                wishes: &[wish],
                mode: FOUR,
                spare: 0,
            })
        };
        assert_eq!(next_for(reads(43 * MIB + 5, u64::MAX)), None);
        assert_eq!(next_for(waits(60 * MIB)).map(|fetch| fetch.start), Some(60 * MIB));
    }

    #[test]
    fn the_first_request_is_the_segment_of_the_first_reader() {
        for (from, missing, order, end) in [
            (0, 0, Order::Sequential, 4),
            (9 * MIB, 9 * MIB, Order::Sequential, 12),
            (70_000_000, 0, Order::Demand, 68),
        ] {
            assert_eq!(first(from, missing), Fetch { order, start: from, end: Some(end * MIB) });
        }
    }

    proptest! {
        #[test]
        fn no_byte_is_asked_for_twice(
            ranges in prop::collection::vec((0u64..64, 1u64..8), 0..6),
            cursors in prop::collection::vec((0u64..64, any::<bool>()), 0..6),
            lanes in 1usize..5,
            is_scattered: bool,
            spare in 0usize..9,
        ) {
            let size = 64 * MIB;
            let ranges: Vec<_> = ranges.iter().map(|(at, len)| at * MIB..((at + len) * MIB).min(size)).collect();
            let present = present(&ranges);
            let wishes: Vec<_> = cursors
                .iter()
                .map(|(at, is_waiting)| Wish { cursor: at * MIB + 17, end: size, is_waiting: *is_waiting })
                .collect();
            let mode = Mode::Anywhere { lanes, lanes_max: 4, is_scattered };
            let mut underway: Vec<Underway> = Vec::new();
            loop {
                let situation = Situation {
                    present: &present, size_bytes: Some(size), underway: &underway, wishes: &wishes, mode, spare,
                };
                let Some(fetch) = next(&situation) else { break };
                let end = fetch.end.unwrap_or(size);
                prop_assert!(fetch.start < end && end <= size);
                prop_assert_eq!(present.first_gap(fetch.start), fetch.start);
                prop_assert!(present.next_present(fetch.start).is_none_or(|next| next >= end));
                // A transfer in order gives way where it meets a demand; all else is disjoint.
                let gives_way = |other: &Underway| fetch.order == Order::Demand && other.order == Order::Sequential;
                for other in underway.iter().filter(|other| !gives_way(other)) {
                    prop_assert!(other.end.unwrap_or(size) <= fetch.start || end <= other.at);
                }
                underway.push(Underway { order: fetch.order, at: fetch.start, end: fetch.end });
                let small = underway.iter().filter(|transfer| transfer.is_ending()).count();
                prop_assert!(underway.len() <= DEMANDS_MAX + lanes + small);
            }
        }
    }
}
