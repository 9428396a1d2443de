//! One transfer: bytes of a blob from the upstream to the ground.
//!
//! It writes absent bytes only, never over present ones: what the verifier has hashed stays what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream::Fuse;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;

use super::askers::Asker;
use super::ground::Landed;
use super::schedule::{Fetch, Order, SEGMENT_BYTES, Underway};
use super::{Fill, Phase};
use crate::telemetry::{Kind, Trigger, UpstreamMetrics};
use crate::upstream::{BlobTransfer, Chunks, EndpointId, UpstreamError};

/// Bytes landed in one step at the most: less than the distance at which a waiting reader is given a transfer of its own, so that the
/// two cannot overlap. As many are gathered before they are landed, and one more network read.
const STEP_BYTES: usize = 512 * 1024;

/// A run of others' bytes this short is received and dropped rather than skipped by a new request: closing a connection wastes
/// what is on its way, which is as much.
const SKIP_BYTES: u64 = SEGMENT_BYTES;

/// The transfers of one fill that are under way.
#[derive(Debug, Default)]
pub(super) struct Board {
    // A plain mutex: held for a map operation.
    transfers: Mutex<BTreeMap<u64, Entry>>,
    /// Who has sent something.
    // A plain mutex: held to put in one of a few entries.
    senders: Mutex<BTreeSet<EndpointId>>,
    /// Told when a transfer comes so close to its end that a successor should be opened.
    ending: Notify,
}

#[derive(Debug)]
struct Entry {
    underway: Underway,
    /// The upstream has answered.
    is_open: bool,
}

impl Board {
    pub(super) fn list(&self) -> Vec<Underway> {
        self.transfers().values().map(|entry| entry.underway).collect()
    }

    /// Returns how many transfers the upstream has not answered yet.
    pub(super) fn opening(&self) -> usize {
        self.transfers().values().filter(|entry| !entry.is_open).count()
    }

    pub(super) fn enter(&self, number: u64, fetch: &Fetch, is_open: bool) {
        let underway = Underway { order: fetch.order, at: fetch.start, end: fetch.end };
        self.transfers().insert(number, Entry { underway, is_open });
    }

    /// Waits until a transfer comes close to its end.
    pub(super) async fn ending(&self) {
        self.ending.notified().await;
    }

    /// Returns who has sent something.
    pub(super) fn senders(&self) -> BTreeSet<EndpointId> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn opened(&self, number: u64, sender: EndpointId) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).insert(sender);
        if let Some(entry) = self.transfers().get_mut(&number) {
            entry.is_open = true;
        }
    }

    fn stands(&self, number: u64, at: u64) {
        if let Some(Entry { underway, .. }) = self.transfers().get_mut(&number) {
            let was_ending = underway.is_ending();
            underway.at = at;
            if underway.is_ending() && !was_ending {
                self.ending.notify_one();
            }
        }
    }

    fn leave(&self, number: u64) {
        self.transfers().remove(&number);
    }

    fn transfers(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a transfer ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It brought what it was asked for, or met bytes that are there or come otherwise.
    Done,
    /// The upstream answered a range with something else: the whole blob, or a refusal.
    RangesIgnored,
    /// It was denied to whom it was asked for; it is the turn of another.
    PassedOn,
    /// The ground did not take its bytes.
    Refused,
    /// It broke; `progressed` when it brought any byte.
    Broken { error: UpstreamError, progressed: bool },
}

impl Ended {
    /// A refused range is no reason to give up what the transfer in order may still bring.
    fn of_range(self) -> Self {
        match self {
            Self::Broken { error, progressed: false } if error.may_be_about_the_range() => Self::RangesIgnored,
            other => other,
        }
    }
}

/// One transfer.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) fill: Arc<Fill>,
    pub(super) board: Arc<Board>,
    pub(super) asker: Arc<Asker>,
    pub(super) metrics: Arc<UpstreamMetrics>,
    pub(super) trigger: Trigger,
    pub(super) number: u64,
    pub(super) fetch: Fetch,
}

impl Transfer {
    /// Runs to its end; with `opened`, the upstream has answered already.
    pub(super) async fn run(self, opened: Option<BlobTransfer>) -> Ended {
        let _on_board = OnBoard(&self.board, self.number);
        let ended = match self.fetch.order {
            Order::Sequential => self.fetch(opened).await,
            // Bytes out of order have nowhere to land once the store does not take them.
            Order::Demand => tokio::select! {
                ended = self.fetch(opened) => ended,
                () = self.fill.spilled() => Ended::Refused,
            },
        };
        if self.fetch.end.is_some() { ended.of_range() } else { ended }
    }

    async fn fetch(&self, opened: Option<BlobTransfer>) -> Ended {
        let opened = match opened {
            Some(opened) => opened,
            None => match self.open().await {
                Ok(opened) => opened,
                Err(error) if error.may_be_about_the_caller() && self.fill.askers.pass_on(&self.asker) => {
                    return Ended::PassedOn;
                }
                Err(error) => return Ended::Broken { error, progressed: false },
            },
        };
        self.board.opened(self.number, opened.endpoint);
        if self.fetch.end.is_some() && !opened.is_range {
            return Ended::RangesIgnored;
        }
        if let Err(error) = self.agree_on_size(&opened) {
            return Ended::Broken { error, progressed: false };
        }
        self.receive(opened).await
    }

    async fn open(&self) -> Result<BlobTransfer, UpstreamError> {
        let last = self.fetch.end.map(|end| end.saturating_sub(1));
        let answer = self.ask(self.fetch.start, last).await;
        match answer {
            // The rest comes with all that is before it, or not at all.
            Err(error) if last.is_none() && self.fetch.start > 0 && error.may_be_about_the_range() => {
                self.ask(0, None).await
            }
            answer => answer,
        }
    }

    async fn ask(&self, start: u64, last: Option<u64>) -> Result<BlobTransfer, UpstreamError> {
        let Asker { origin, repository, .. } = &*self.asker;
        origin.blob(repository, &self.fill.key.digest, start, last).await
    }

    /// The length is what the first answer said; a later one that says otherwise is another object (P-67).
    fn agree_on_size(&self, opened: &BlobTransfer) -> Result<(), UpstreamError> {
        let (known, present_end) = {
            let progress = self.fill.progress.borrow();
            (progress.size_bytes, progress.present.end())
        };
        match (known, opened.size_bytes) {
            (Some(known), Some(told)) if known != told => {
                Err(UpstreamError::Protocol { reason: format!("size changed from {known} to {told} bytes") })
            }
            _ if opened.start > self.fetch.start => {
                Err(UpstreamError::Protocol { reason: "answer starts after what was asked for".into() })
            }
            (None, Some(told)) if told < present_end => {
                Err(UpstreamError::Protocol { reason: format!("{told} bytes in all, {present_end} were sent") })
            }
            (None, Some(told)) => {
                self.fill.progress.send_modify(|progress| progress.size_bytes = Some(told));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn receive(&self, opened: BlobTransfer) -> Ended {
        let mut at = opened.start;
        let mut progressed = false;
        let mut reads = opened.chunks.fuse();
        while let Some((chunks, broken)) = gather(&mut reads).await {
            let received: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
            self.metrics.fetched(Kind::Blob, self.trigger, received);
            progressed |= at + received > self.fetch.start && received > 0;
            if let Some(ended) = self.land(&mut at, chunks).await {
                return ended;
            }
            if let Some(error) = broken {
                return Ended::Broken { error, progressed };
            }
        }
        self.finish(at, progressed)
    }

    /// Lands what was received at `at`, step by step; `Some` when the transfer is over.
    async fn land(&self, at: &mut u64, chunks: Vec<Bytes>) -> Option<Ended> {
        for step in steps(chunks) {
            let len: u64 = step.iter().map(|chunk| chunk.len() as u64).sum();
            let end = *at + len;
            if self.size().is_some_and(|size| end > size) {
                let error = UpstreamError::Protocol { reason: "more bytes than the announced size".into() };
                // It would send them again: no progress, or this would go on for ever.
                return Some(Ended::Broken { error, progressed: false });
            }
            let stop = self.fetch.end.unwrap_or(u64::MAX);
            let mut from = (*at).max(self.fetch.start);
            while from < end.min(stop) {
                let (free_end, taken_end) = self.free_run(from, end.min(stop));
                if from < free_end {
                    let chunks = cut(&step, from - *at, free_end - *at);
                    let early = (from == self.fetch.start).then(|| self.fill.hand_out(from, chunks.clone()));
                    match self.fill.land(from, chunks).await {
                        Landed::Yes => {
                            if let Some(early) = early {
                                early.landed();
                            }
                            self.board.stands(self.number, free_end);
                        }
                        Landed::No => return Some(Ended::Refused),
                    }
                } else if taken_end - from > SKIP_BYTES || self.size() == Some(taken_end) {
                    return Some(Ended::Done);
                } else {
                    // What is received from here to there is dropped.
                    self.board.stands(self.number, taken_end);
                }
                from = free_end.max(taken_end.min(end));
            }
            *at = end;
            if *at >= stop {
                return Some(Ended::Done);
            }
        }
        None
    }

    /// Returns where the free bytes from `from` on end, at most at `limit`; and, if `from` itself is taken, where the taken ones end.
    fn free_run(&self, from: u64, limit: u64) -> (u64, u64) {
        let progress = self.fill.progress.borrow();
        let mut free_end = progress.present.next_present(from).unwrap_or(limit).min(limit);
        let mut taken_end = progress.present.first_gap(from);
        drop(progress);
        let others = self.board.list();
        // A demand owns its range; the transfer in order gives way.
        for other in others.iter().filter(|other| self.fetch.order == Order::Sequential && other.order == Order::Demand)
        {
            let other_end = other.end.unwrap_or(u64::MAX);
            if (other.at..other_end).contains(&from) {
                free_end = from;
                taken_end = taken_end.max(other_end);
            } else if other.at > from {
                free_end = free_end.min(other.at);
            }
        }
        (free_end, taken_end)
    }

    fn finish(&self, at: u64, progressed: bool) -> Ended {
        let mut short = false;
        self.fill.progress.send_modify(|progress| match (self.fetch.end, progress.size_bytes) {
            (Some(end), _) => short = at < end,
            (None, Some(size)) => short = at < size,
            // What readers have of a longer one cannot be taken back.
            (None, None) if at < progress.present.end() => short = true,
            // The end of an unannounced body is the blob's size (U-62); the digest tells whether it is the true end.
            (None, None) => progress.size_bytes = Some(at),
        });
        if short {
            let error = UpstreamError::Truncated { received_bytes: at - self.fetch.start.min(at), source: None };
            return Ended::Broken { error, progressed };
        }
        Ended::Done
    }

    fn size(&self) -> Option<u64> {
        let progress = self.fill.progress.borrow();
        debug_assert!(!matches!(progress.phase, Phase::Connecting), "bytes come after the upstream's answer");
        progress.size_bytes
    }
}

/// Waits for a network read, and takes what else is there without waiting, up to a step; with the error that came after them, if any.
/// `None` at the end.
async fn gather(reads: &mut Fuse<Chunks>) -> Option<(Vec<Bytes>, Option<UpstreamError>)> {
    let (mut chunks, mut len) = (Vec::new(), 0);
    let mut next = Some(reads.next().await?);
    while let Some(read) = next {
        match read {
            Ok(chunk) => {
                len += chunk.len();
                chunks.push(chunk);
            }
            Err(error) => return Some((chunks, Some(error))),
        }
        // The end, met here, is met again.
        next = if len < STEP_BYTES { reads.next().now_or_never().flatten() } else { None };
    }
    Some((chunks, None))
}

/// Takes a transfer off the board, however it ends.
struct OnBoard<'a>(&'a Board, u64);

impl Drop for OnBoard<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

/// Groups chunks into steps of at most [`STEP_BYTES`], cutting larger chunks.
fn steps(chunks: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let mut steps: Vec<Vec<Bytes>> = Vec::new();
    let mut room = 0;
    for mut chunk in chunks {
        while !chunk.is_empty() {
            if room == 0 {
                steps.push(Vec::new());
                room = STEP_BYTES;
            }
            let part = chunk.split_to(chunk.len().min(room));
            room -= part.len();
            if let Some(step) = steps.last_mut() {
                step.push(part);
            }
        }
    }
    steps
}

/// Returns the bytes from `from` to `to` of the concatenation of `chunks`.
fn cut(chunks: &[Bytes], from: u64, to: u64) -> Vec<Bytes> {
    let mut start = 0;
    let mut parts = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let end = start + chunk.len() as u64;
        let (left, right) = (from.max(start), to.min(end));
        if left < right {
            // Both lie within the chunk, whose length is a usize.
            let within = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
            parts.push(chunk.slice(within(left)..within(right)));
        }
        start = end;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(parts: &[&'static str]) -> Vec<Bytes> {
        parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect()
    }

    #[test]
    fn cutting_across_chunks_gives_the_bytes_between() {
        let all = chunks(&["abc", "", "defg", "h"]);
        for from in 0..=8 {
            for to in from..=8 {
                let joined: Vec<u8> = cut(&all, from as u64, to as u64).concat();
                assert_eq!(joined, b"abcdefgh"[from..to]);
            }
        }
    }

    #[test]
    fn steps_keep_the_order_and_the_bound() {
        let large = Bytes::from(vec![7; STEP_BYTES * 2 + 5]);
        let grouped = steps(vec![Bytes::from_static(b"x"), large.clone(), Bytes::from_static(b"y")]);
        assert!(grouped.iter().all(|step| step.iter().map(Bytes::len).sum::<usize>() <= STEP_BYTES));
        assert_eq!(grouped.concat().concat(), [b"x", &large[..], b"y"].concat());
    }
}
