//! Which bytes of an unfinished blob are present: a set of byte ranges.
//!
//! Pure; ranges are half-open (`start..end`), sorted, and never touch each other.

use std::ops::Range;

/// A set of byte offsets, kept as the fewest ranges that describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    runs: Vec<Range<u64>>,
}

impl Present {
    /// Adds `range`, merging it with the runs that it touches.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.runs.partition_point(|run| run.end < range.start);
        let after = self.runs.partition_point(|run| run.start <= range.end);
        let touched = self.runs.get(first..after).unwrap_or_default();
        let start = touched.first().map_or(range.start, |run| run.start.min(range.start));
        let end = touched.last().map_or(range.end, |run| run.end.max(range.end));
        self.runs.splice(first..after, std::iter::once(start..end));
    }

    /// Returns the first offset at or after `from` that is absent.
    pub fn first_gap(&self, from: u64) -> u64 {
        match self.run_at_or_after(from) {
            Some(run) if run.start <= from => run.end,
            Some(_) | None => from,
        }
    }

    /// Returns the first offset at or after `from` that is present.
    pub fn next_present(&self, from: u64) -> Option<u64> {
        self.run_at_or_after(from).map(|run| run.start.max(from))
    }

    /// Returns the offset after the last byte that is present.
    pub fn end(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.end)
    }

    /// Returns how many bytes are present.
    pub fn len_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// Returns the runs of present bytes, in order.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs.iter().cloned()
    }

    fn run_at_or_after(&self, from: u64) -> Option<&Range<u64>> {
        self.runs.get(self.runs.partition_point(|run| run.end <= from))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn touching_ranges_become_one() {
        let mut present = Present::default();
        for range in [10..20, 30..40, 20..30, 0..5, 50..50] {
            present.insert(range);
        }
        assert_eq!(present.runs, [0..5, 10..40]);
        assert_eq!((present.first_gap(0), present.first_gap(5), present.first_gap(12)), (5, 5, 40));
        assert_eq!(
            (present.next_present(5), present.next_present(12), present.next_present(40)),
            (Some(10), Some(12), None)
        );
        assert_eq!(present.len_bytes(), 35);
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_set_of_offsets(ranges in prop::collection::vec((0usize..60, 0usize..12), 0..20), from in 0usize..80) {
            let mut present = Present::default();
            let mut model = [false; 80];
            for (start, len) in ranges {
                present.insert(start as u64..(start + len) as u64);
                model.iter_mut().skip(start).take(len).for_each(|byte| *byte = true);
            }
            let probe = from as u64;
            let gap = (from..80).find(|at| !model[*at]).unwrap_or(80).max(from);
            let next = (from..80).find(|at| model[*at]);
            prop_assert_eq!(present.first_gap(probe), gap as u64);
            prop_assert_eq!(present.next_present(probe), next.map(|at| at as u64));
            prop_assert_eq!(present.end(), model.iter().rposition(|byte| *byte).map_or(0, |last| last as u64 + 1));
            prop_assert_eq!(present.len_bytes(), model.iter().filter(|byte| **byte).count() as u64);
            prop_assert!(present.runs.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
