//! What to fetch next: a pure function of what is present, what is under way and who waits.
//!
//! One transfer reads in order from the first missing byte on. A reader that waits far beyond it gets its segment fetched by a
//! ranged request at once. No byte is asked for twice: a transfer ends where present bytes or another transfer begin.

use std::ops::Range;

use crate::store::Present;

/// The unit in which bytes are fetched out of order.
pub(super) const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// A reader at most this far ahead of the transfer in order is reached soon enough by it.
const NEAR_BYTES: u64 = 1024 * 1024;

/// Transfers for waiting readers at once, beside the one in order.
const DEMANDS_MAX: usize = 4;

/// Which kind of transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// In order, from the first missing byte.
    Sequential,
    /// For a reader that waits.
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

/// What the decision depends on.
#[derive(Debug)]
pub(super) struct Situation<'a> {
    pub(super) present: &'a Present,
    pub(super) size_bytes: Option<u64>,
    pub(super) underway: &'a [Underway],
    /// Cursors of waiting readers.
    pub(super) waiting: &'a [u64],
    /// The upstream honours ranges, as far as is known, and out-of-order bytes have somewhere to land.
    pub(super) allows_demand: bool,
}

/// Returns the next transfer to start, if any; ask again until `None`.
pub(super) fn next(situation: &Situation<'_>) -> Option<Fetch> {
    situation.sequential().or_else(|| situation.demand())
}

impl Situation<'_> {
    fn demand(&self) -> Option<Fetch> {
        let size = self.size_bytes?;
        let running = self.underway.iter().filter(|transfer| transfer.order == Order::Demand).count();
        if !self.allows_demand || running >= DEMANDS_MAX {
            return None;
        }
        let start = *self.waiting.iter().find(|cursor| **cursor < size && !self.is_served(**cursor))?;
        let segment_end = (start / SEGMENT_BYTES + 1).saturating_mul(SEGMENT_BYTES).min(size);
        Some(Fetch { order: Order::Demand, start, end: Some(self.free_until(start, segment_end)) })
    }

    fn sequential(&self) -> Option<Fetch> {
        if self.underway.iter().any(|transfer| transfer.order == Order::Sequential) {
            return None;
        }
        let start = self.first_free();
        if self.size_bytes.is_some_and(|size| start >= size) {
            return None;
        }
        let bound = self.free_until(start, u64::MAX);
        Some(Fetch { order: Order::Sequential, start, end: (bound < u64::MAX).then_some(bound) })
    }

    /// Returns true when the byte at `cursor` is present or will come soon without a further transfer.
    fn is_served(&self, cursor: u64) -> bool {
        let comes = |transfer: &Underway| match transfer.order {
            Order::Demand => span(transfer).contains(&cursor),
            Order::Sequential => span(transfer).contains(&cursor) && cursor - transfer.at <= NEAR_BYTES,
        };
        self.present.first_gap(cursor) > cursor || self.underway.iter().any(comes)
    }

    /// Returns the first byte that is neither present nor promised by a bounded transfer.
    fn first_free(&self) -> u64 {
        let mut at = 0;
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
    ///
    /// An open-ended transfer in order is no bound: it gives way where it meets others' bytes.
    fn free_until(&self, start: u64, limit: u64) -> u64 {
        let next_present = self.present.next_present(start).unwrap_or(limit);
        let next_promised =
            self.underway.iter().map(|transfer| transfer.at).filter(|at| *at > start).min().unwrap_or(limit);
        limit.min(next_present).min(next_promised)
    }
}

fn span(transfer: &Underway) -> Range<u64> {
    transfer.at..transfer.end.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn present(ranges: &[Range<u64>]) -> Present {
        let mut present = Present::default();
        ranges.iter().cloned().for_each(|range| present.insert(range));
        present
    }

    type Row<'a> = (&'a str, Present, Option<u64>, Vec<Underway>, Vec<u64>, bool, Option<(Order, u64, Option<u64>)>);

    #[test]
    fn the_next_transfer_is_the_one_that_the_table_says() {
        let in_order = Underway { order: Order::Sequential, at: 2 * MIB, end: None };
        let far = Underway { order: Order::Demand, at: 40 * MIB, end: Some(44 * MIB) };
        let size = Some(100 * MIB);
        let rows: [Row<'_>; 10] = [
            ("nothing is there", present(&[]), size, vec![], vec![0], true, Some((Order::Sequential, 0, None))),
            ("unknown size", present(&[]), None, vec![in_order], vec![70 * MIB], true, None),
            ("a near reader waits", present(&[0..2 * MIB]), size, vec![in_order], vec![2 * MIB, 3 * MIB], true, None),
            (
                "a far reader waits",
                present(&[0..2 * MIB]),
                size,
                vec![in_order],
                vec![70_000_000],
                true,
                Some((Order::Demand, 70_000_000, Some(68 * MIB))),
            ),
            ("a far reader is served already", present(&[]), size, vec![in_order, far], vec![41 * MIB], true, None),
            ("far, but ranges are ignored", present(&[]), size, vec![in_order], vec![70 * MIB], false, None),
            (
                "resume at the missing byte",
                present(&[0..5]),
                size,
                vec![],
                vec![],
                true,
                Some((Order::Sequential, 5, None)),
            ),
            (
                "resume up to what is there",
                present(&[0..5, 9..12]),
                size,
                vec![],
                vec![],
                true,
                Some((Order::Sequential, 5, Some(9))),
            ),
            (
                "pass over what is promised",
                present(&[0..40 * MIB]),
                size,
                vec![far],
                vec![],
                true,
                Some((Order::Sequential, 44 * MIB, None)),
            ),
            ("all is there", present(&[0..100 * MIB]), size, vec![], vec![], true, None),
        ];
        for (name, present, size_bytes, underway, waiting, allows_demand, expected) in rows {
            let situation =
                Situation { present: &present, size_bytes, underway: &underway, waiting: &waiting, allows_demand };
            let decided = next(&situation).map(|fetch| (fetch.order, fetch.start, fetch.end));
            assert_eq!(decided, expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_byte_is_asked_for_twice(
            ranges in prop::collection::vec((0u64..64, 1u64..8), 0..6),
            waiting in prop::collection::vec(0u64..64, 0..6),
        ) {
            let size = 64 * MIB;
            let ranges: Vec<_> = ranges.iter().map(|(at, len)| at * MIB..((at + len) * MIB).min(size)).collect();
            let present = present(&ranges);
            let waiting: Vec<_> = waiting.iter().map(|at| at * MIB + 17).collect();
            let mut underway: Vec<Underway> = Vec::new();
            loop {
                let situation = Situation {
                    present: &present, size_bytes: Some(size), underway: &underway, waiting: &waiting, allows_demand: true,
                };
                let Some(fetch) = next(&situation) else { break };
                let end = fetch.end.unwrap_or(size);
                prop_assert!(fetch.start < end && end <= size);
                prop_assert_eq!(present.first_gap(fetch.start), fetch.start);
                prop_assert!(present.next_present(fetch.start).is_none_or(|next| next >= end));
                // A transfer in order gives way where it meets others' bytes.
                for other in underway.iter().filter(|other| other.order == Order::Demand) {
                    prop_assert!(other.end.unwrap_or(size) <= fetch.start || end <= other.at);
                }
                underway.push(Underway { order: fetch.order, at: fetch.start, end: fetch.end });
                prop_assert!(underway.len() <= DEMANDS_MAX + 1);
            }
        }
    }
}
