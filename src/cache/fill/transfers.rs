//! The transfers of one fill: which to start, and what to make of those that ended.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::learned::{self, Pace};
use super::run::{FillTask, Opened};
use super::schedule::{self, Fetch, Mode, Situation};
use super::transfer::{Board, Ended, Transfer};
use super::{Fill, FillError};
use crate::upstream::{BlobTransfer, Capability, UpstreamError};

/// Failures without a byte in between before a fill is given up; with the pauses between them, and the client's own attempts, an
/// upstream may be away for well over ten seconds.
const FRUITLESS_MAX: u32 = 7;

/// What an error counts that the same request would meet again: another endpoint may still mend it.
const FRUITLESS_FINAL: u32 = 3;

/// The pause before the first resumption; doubled each time, with jitter.
const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause before a resumption.
const RESUME_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The pause before a further connection, after the upstream has refused one beside others.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Bytes that come over one connection before further ones are opened: the first bytes come first, and the pace of one is known.
const ALONE_BYTES: u64 = schedule::SEGMENT_BYTES - schedule::ENDING_BYTES;

/// When a blob is fetched over several connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parallel {
    /// Connections for one blob at the most; 1 is one after another.
    pub connections: usize,
    /// The smallest blob for which that is done.
    pub from_bytes: u64,
}

/// The transfers of one fill.
pub(super) struct Transfers<'a> {
    task: &'a FillTask,
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    board: Arc<Board>,
    next_number: u64,
    /// The upstream honours ranges, as far as is known.
    honours_ranges: bool,
    fruitless: u32,
    not_before: Instant,
    /// Nothing was scheduled because of a pause: when it is over, that must be made up for.
    is_held: bool,
    began: Instant,
    /// Bytes that were there before the first transfer.
    resumed_bytes: u64,
    /// Set when further connections were opened: when, and what came until then.
    widened: Option<(Instant, Pace)>,
}

impl<'a> Transfers<'a> {
    /// Begins with the transfer that the upstream has answered.
    pub(super) fn begin(task: &'a FillTask, first: Opened) -> Self {
        let now = Instant::now();
        let mut transfers = Self {
            task,
            running: FuturesUnordered::new(),
            board: Arc::default(),
            next_number: 0,
            honours_ranges: first.honours_ranges,
            fruitless: 0,
            not_before: now,
            is_held: false,
            began: now,
            resumed_bytes: task.fill().progress.borrow().present.len_bytes(),
            widened: None,
        };
        if let Some((fetch, transfer)) = first.transfer {
            transfers.start(fetch, Some(transfer));
        }
        transfers
    }

    /// Waits until there may be something to start: a transfer ended or is about to, or a pause is over.
    pub(super) async fn changed(&mut self) -> Result<(), Arc<FillError>> {
        let (not_before, is_held) = (self.not_before, self.is_held);
        tokio::select! {
            Some(ended) = self.running.next() => self.ended(ended),
            () = self.board.ending() => Ok(()),
            // Not asked of the clock again: the pause may be over since `schedule` asked.
            () = sleep_until(not_before), if is_held => Ok(()),
        }
    }

    /// Starts what should be under way and is not.
    pub(super) fn schedule(&mut self) {
        self.is_held = self.is_pausing();
        if self.is_held {
            return;
        }
        let fill = Arc::clone(self.task.fill());
        let wishes = fill.readers.wishes();
        let mode = self.mode(&fill);
        loop {
            let underway = self.board.list();
            let fetch = {
                let progress = fill.progress.borrow();
                schedule::next(&Situation {
                    present: &progress.present,
                    size_bytes: progress.size_bytes,
                    underway: &underway,
                    wishes: &wishes,
                    mode,
                    spare: self.task.asker.origin.free_transfers().saturating_sub(self.opening()),
                })
            };
            match fetch {
                Some(fetch) => self.start(fetch, None),
                None => return,
            }
        }
    }

    /// Judges, once all bytes are there, whether several connections were worth it.
    pub(super) fn judge(&self) {
        let Some((since, alone)) = self.widened else { return };
        let landed = self.landed();
        let together = Pace { bytes: landed.saturating_sub(alone.bytes), time: since.elapsed() };
        if learned::is_no_gain(alone, together) {
            self.task.learned.does_not_gain(Instant::now());
        }
    }

    /// Tells the upstream that the bytes were wrong, unless some of them were left by an earlier fill.
    pub(super) fn distrust_senders(&self) {
        if self.resumed_bytes == 0 {
            for sender in self.board.senders() {
                self.task.asker.origin.distrust(sender);
            }
        }
    }

    fn is_pausing(&self) -> bool {
        self.not_before > Instant::now()
    }

    /// Returns how many transfers were started and have not been given a connection yet.
    fn opening(&self) -> usize {
        self.board.opening()
    }

    fn mode(&mut self, fill: &Fill) -> Mode {
        let progress = fill.progress.borrow();
        let (Some(size), None, true) = (progress.size_bytes, &progress.on_disk, self.honours_ranges) else {
            return Mode::InOrder;
        };
        drop(progress);
        let lanes_max = self.lanes_max(size);
        let landed = self.landed();
        let lanes = if landed < ALONE_BYTES { 1 } else { lanes_max };
        if lanes > 1 && self.widened.is_none() {
            self.widened = Some((Instant::now(), Pace { bytes: landed, time: self.began.elapsed() }));
        }
        Mode::Anywhere { lanes, lanes_max, is_scattered: fill.readers.are_scattered() }
    }

    fn lanes_max(&self, size: u64) -> usize {
        let Parallel { connections, from_bytes } = self.task.parallel;
        let may_gain = size >= from_bytes && self.task.learned.may_gain(Instant::now());
        if may_gain { connections.max(1) } else { 1 }
    }

    /// Returns the bytes that the transfers of this fill have brought.
    fn landed(&self) -> u64 {
        self.task.fill().progress.borrow().present.len_bytes().saturating_sub(self.resumed_bytes)
    }

    fn start(&mut self, fetch: Fetch, opened: Option<BlobTransfer>) {
        let number = self.next_number;
        self.next_number += 1;
        self.board.enter(number, &fetch, opened.is_some());
        let transfer = Transfer {
            fill: Arc::clone(self.task.fill()),
            board: Arc::clone(&self.board),
            asker: self.task.fill().askers.current().unwrap_or_else(|| Arc::clone(&self.task.asker)),
            metrics: Arc::clone(&self.task.metrics),
            trigger: self.task.trigger,
            number,
            fetch,
        };
        self.running.push(Box::pin(transfer.run(opened)));
    }

    fn ended(&mut self, ended: Ended) -> Result<(), Arc<FillError>> {
        match ended {
            Ended::Done => self.fruitless = 0,
            // The next one is asked for at once.
            Ended::PassedOn => {}
            Ended::RangesIgnored => {
                self.honours_ranges = false;
                self.task.asker.origin.note_capability(Capability::Ranges, false);
            }
            Ended::Refused if self.task.fill().readers.are_interested() => {}
            Ended::Refused => return Err(Arc::new(FillError::Abandoned)),
            Ended::Broken { error, progressed: false } if self.is_one_too_many(&error) => {
                self.task.learned.does_not_gain(Instant::now());
                self.not_before = Instant::now() + REFUSED_PAUSE;
            }
            Ended::Broken { error, progressed } => return self.broken(error, progressed),
        }
        Ok(())
    }

    /// Returns true when the upstream may have refused a connection only because there are others.
    fn is_one_too_many(&self, error: &UpstreamError) -> bool {
        let is_refusal = matches!(
            error,
            UpstreamError::RateLimited { .. } | UpstreamError::Denied { .. } | UpstreamError::Status { .. }
        );
        is_refusal && !self.running.is_empty()
    }

    /// Resumes after a pause, or gives up.
    fn broken(&mut self, error: UpstreamError, progressed: bool) -> Result<(), Arc<FillError>> {
        if progressed {
            self.fruitless = 0;
        }
        // Transfers that break together are one failure of the upstream.
        if !self.is_pausing() {
            self.fruitless += if error.is_transient() { 1 } else { FRUITLESS_FINAL };
        }
        if self.fruitless > FRUITLESS_MAX {
            return Err(Arc::new(FillError::Upstream(error)));
        }
        self.task.metrics.retried(error.as_str());
        let key = &self.task.fill().key;
        tracing::debug!(digest = %key.digest, upstream.name = %key.upstream, %error, "a transfer broke; resuming");
        let left_alone =
            if let UpstreamError::CircuitOpen { retry_after, .. } = error { retry_after } else { Duration::ZERO };
        self.not_before = Instant::now() + pause(self.fruitless) + left_alone;
        Ok(())
    }
}

/// Jitter below a doubling bound.
fn pause(fruitless: u32) -> Duration {
    let bound = RESUME_PAUSE.saturating_mul(1 << fruitless.saturating_sub(1).min(16)).min(RESUME_PAUSE_MAX);
    bound.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::super::askers::Asker;
    use super::super::bounds::{Bounds, FillLimits};
    use super::super::{FillKey, Inflight, Joined, Phase};
    use super::*;
    use crate::cache::tests::ScriptedOrigin;
    use crate::oci::Digest;
    use crate::store::{Buffers, Class, Disk, Options};
    use crate::telemetry::{Metrics, Trigger};
    use crate::upstream::Origin;

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_ends_between_the_look_and_the_wait_is_not_waited_for_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let origin = Arc::new(ScriptedOrigin::new(vec![7; 100].into()));
        let metrics = Arc::new(Metrics::new(std::slice::from_ref(origin.name()), 0).unwrap());
        let options = Options {
            root: directory.path().to_owned(),
            capacity_bytes: 1024,
            metadata_capacity_bytes: 1024,
            min_free_bytes: 0,
        };
        let (disk, _ledger) = Disk::open(options, Arc::clone(&metrics)).unwrap();
        let key = FillKey { upstream: origin.name().clone(), digest: Digest::sha256(&[7; 100]) };
        let make = || Fill::new(key.clone(), "app".parse().unwrap(), 0, Buffers::default());
        let Joined::Lead(_interest, lead) = Inflight::default().join(&key, make) else { panic!("there is no other") };
        let task = FillTask {
            lead,
            metrics: metrics.upstream(origin.name()),
            asker: Arc::new(Asker { origin, repository: "app".parse().unwrap(), caller: None }),
            store: Arc::new(disk),
            class: Class::Layer,
            bounds: vec![Bounds::new(FillLimits { fills: 1, bytes: 1024, unattended: 1 })],
            parallel: Parallel { connections: 1, from_bytes: 0 },
            learned: Arc::default(),
            trigger: Trigger::Client,
            from: 0,
        };
        task.fill().progress.send_modify(|progress| progress.phase = Phase::Streaming);
        let mut transfers = Transfers::begin(&task, Opened { transfer: None, size_bytes: None, honours_ranges: false });
        transfers.broken(UpstreamError::Truncated { received_bytes: 0, source: None }, false).unwrap();
        transfers.schedule();
        assert!(transfers.running.is_empty(), "it pauses");
        advance(RESUME_PAUSE_MAX).await;
        assert!(timeout(RESUME_PAUSE_MAX, transfers.changed()).await.is_ok(), "nothing would ever be started again");
        transfers.schedule();
        assert!(!transfers.running.is_empty());
    }
}
