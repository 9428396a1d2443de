//! The task that runs a fill.
//!
//! It owns the transfers and the verifier, resumes what breaks at the missing byte, and commits what was verified. It goes on when
//! its clients leave, so that the next one finds the blob; only a fill that the store does not take ends with its last reader.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use super::inflight::Lead;
use super::schedule::{self, Fetch, Order, Situation};
use super::transfer::{Board, Ended, Transfer};
use super::verify::{Unverified, verify};
use super::{Fill, FillError, Phase};
use crate::store::{BlobStore, Class, Content, Object, StoreError, blocking};
use crate::telemetry::{FillEnd, Kind, MismatchSource, Trigger, UpstreamMetrics, sentence};
use crate::upstream::{BlobTransfer, Origin, UpstreamError};

/// Transfers in a row that may break without bringing a byte before the fill fails.
const FRUITLESS_MAX: u32 = 5;

/// The pause before the first resumption; doubled each time, with jitter.
const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause before a resumption.
const RESUME_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long a new fill waits for a place; it leaves most of the time that a client waits for headers to the upstream (P-124).
const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// Places for fills under way; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Permits(Arc<Semaphore>);

impl Permits {
    /// Allows at most `fills` at once.
    pub(crate) fn new(fills: usize) -> Self {
        Self(Arc::new(Semaphore::new(fills)))
    }
}

/// Everything that one fill's task needs.
#[derive(Debug)]
pub(crate) struct FillTask {
    pub lead: Lead,
    pub origin: Arc<dyn Origin>,
    pub store: Arc<dyn BlobStore>,
    pub class: Class,
    pub permits: Permits,
    pub metrics: Arc<UpstreamMetrics>,
}

impl FillTask {
    /// Runs the fill to its end.
    pub(crate) async fn run(self) {
        let began = Instant::now();
        let _counted = Gauge::raise(&self.metrics);
        let end = match self.fill_up().await {
            Ok(()) => FillEnd::Ok,
            Err(why) => {
                // Whoever asks from here on starts afresh.
                self.lead.delist();
                self.report(why)
            }
        };
        self.metrics.fill_ended(Kind::Blob, Trigger::Client, end, began.elapsed());
    }

    fn fill(&self) -> &Arc<Fill> {
        self.lead.fill()
    }

    async fn fill_up(&self) -> Result<(), Arc<FillError>> {
        let waiting = timeout(QUEUE_WAIT, self.permits.0.acquire());
        let Ok(Ok(_permit)) = waiting.await else { return Err(Arc::new(FillError::Overloaded)) };
        if let Some(object) = self.look_again().await {
            self.adopt(object);
            return Ok(());
        }
        let fill = self.fill();
        let first = self.origin.blob(&fill.repository, &fill.key.digest, 0, None).await;
        let first = first.map_err(|error| Arc::new(FillError::Upstream(error)))?;
        self.take_ground(first.size_bytes).await;
        fill.progress.send_modify(|progress| {
            progress.phase = Phase::Streaming;
            progress.size_bytes = first.size_bytes;
        });
        self.stream(first).await?;
        fill.progress.send_modify(|progress| progress.phase = Phase::Verified);
        self.commit().await;
        Ok(())
    }

    /// The blob may have been committed between the caller's look and the start of this fill.
    async fn look_again(&self) -> Option<Object> {
        let (store, digest) = (Arc::clone(&self.store), self.fill().key.digest);
        blocking(move || Ok::<_, std::io::Error>(store.peek(&digest).or_else(|| store.open(&digest)))).await.ok()?
    }

    fn adopt(&self, object: Object) {
        let fill = self.fill();
        fill.ground.take_object(match object.content {
            Content::Memory(bytes) => Arc::new(bytes),
            Content::File(file) => file,
        });
        fill.progress.send_modify(|progress| {
            progress.present.insert(0..object.size_bytes);
            progress.size_bytes = Some(object.size_bytes);
            progress.phase = Phase::Verified;
        });
    }

    async fn take_ground(&self, size_bytes: Option<u64>) {
        let (store, digest, class) = (Arc::clone(&self.store), self.fill().key.digest, self.class);
        match blocking(move || store.begin(&digest, class, size_bytes)).await {
            Ok(partial) => self.fill().ground.take_partial(partial),
            Err(error) => self.fill().spill(&error),
        }
    }

    /// Keeps transfers going until all bytes are there and verified.
    async fn stream(&self, first: BlobTransfer) -> Result<(), Arc<FillError>> {
        let mut transfers = Transfers::new(self);
        transfers.start(Fetch { order: Order::Sequential, start: 0, end: None }, Some(first));
        let mut verdict = pin!(verify(Arc::clone(self.fill())));
        loop {
            tokio::select! {
                verdict = &mut verdict => return verdict.map_err(Unverified::into_fill_error),
                Some(ended) = transfers.running.next() => transfers.ended(ended)?,
                () = self.fill().readers.moved() => {}
                () = sleep_until(transfers.not_before), if transfers.is_pausing() => {}
            }
            transfers.schedule();
        }
    }

    async fn commit(&self) {
        let fill = self.fill();
        let size = fill.progress.borrow().size_bytes;
        let (Some(partial), Some(size), false) = (fill.ground.partial(), size, fill.is_spilled()) else { return };
        let partial = Arc::clone(partial);
        let committed: Result<(), StoreError> = blocking(move || partial.commit(size)).await;
        if let Err(error) = committed {
            tracing::warn!(digest = %fill.key.digest, upstream.name = %fill.key.upstream, error = sentence(&error), "a verified blob is not cached");
        }
    }

    fn report(&self, why: Arc<FillError>) -> FillEnd {
        let key = &self.fill().key;
        let error = sentence(&*why);
        let end = match &*why {
            FillError::DigestMismatch { .. } => {
                self.metrics.mismatch(Kind::Blob, MismatchSource::Upstream);
                tracing::error!(digest = %key.digest, upstream.name = %key.upstream, error, "the upstream sent wrong bytes; they were discarded");
                FillEnd::DigestMismatch
            }
            FillError::Upstream(UpstreamError::NotFound { .. } | UpstreamError::Denied { .. }) => {
                tracing::debug!(digest = %key.digest, upstream.name = %key.upstream, error, "no fill");
                FillEnd::Error
            }
            FillError::Upstream(_) | FillError::Overloaded => {
                tracing::warn!(digest = %key.digest, upstream.name = %key.upstream, error, "a fill failed");
                FillEnd::Error
            }
            FillError::Abandoned | FillError::Aborted => FillEnd::Aborted,
        };
        self.fill().fail(why);
        end
    }
}

/// The transfers of one fill and what was learned from those that ended.
struct Transfers<'a> {
    task: &'a FillTask,
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    board: Arc<Board>,
    next_number: AtomicU64,
    /// The upstream honours ranges, as far as is known.
    honours_ranges: bool,
    fruitless: u32,
    not_before: Instant,
}

impl<'a> Transfers<'a> {
    fn new(task: &'a FillTask) -> Self {
        Self {
            task,
            running: FuturesUnordered::new(),
            board: Arc::default(),
            next_number: AtomicU64::new(0),
            honours_ranges: true,
            fruitless: 0,
            not_before: Instant::now(),
        }
    }

    fn is_pausing(&self) -> bool {
        self.not_before > Instant::now()
    }

    fn start(&self, fetch: Fetch, opened: Option<BlobTransfer>) {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        self.board.enter(number, &fetch);
        let transfer = Transfer {
            fill: Arc::clone(self.task.fill()),
            board: Arc::clone(&self.board),
            origin: Arc::clone(&self.task.origin),
            metrics: Arc::clone(&self.task.metrics),
            number,
            fetch,
        };
        self.running.push(Box::pin(transfer.run(opened)));
    }

    /// Starts what should be under way and is not.
    fn schedule(&self) {
        if self.is_pausing() {
            return;
        }
        let fill = self.task.fill();
        let waiting = fill.readers.waiting();
        loop {
            let underway = self.board.list();
            let fetch = {
                let progress = fill.progress.borrow();
                schedule::next(&Situation {
                    present: &progress.present,
                    size_bytes: progress.size_bytes,
                    underway: &underway,
                    waiting: &waiting,
                    allows_demand: self.honours_ranges && progress.on_disk.is_none(),
                })
            };
            match fetch {
                Some(fetch) => self.start(fetch, None),
                None => return,
            }
        }
    }

    fn ended(&mut self, ended: Ended) -> Result<(), Arc<FillError>> {
        match ended {
            Ended::Done => self.fruitless = 0,
            Ended::RangesIgnored => self.honours_ranges = false,
            Ended::Refused if self.task.fill().readers.are_interested() => {}
            Ended::Refused => return Err(Arc::new(FillError::Abandoned)),
            Ended::Broken { error, progressed } => {
                self.fruitless = if progressed { 1 } else { self.fruitless + 1 };
                if !error.is_transient() || self.fruitless > FRUITLESS_MAX {
                    return Err(Arc::new(FillError::Upstream(error)));
                }
                self.task.metrics.retried(error.as_str());
                let key = &self.task.fill().key;
                tracing::debug!(digest = %key.digest, upstream.name = %key.upstream, %error, "a transfer broke; resuming");
                self.not_before = Instant::now() + pause(self.fruitless);
            }
        }
        Ok(())
    }
}

impl Unverified {
    fn into_fill_error(self) -> Arc<FillError> {
        match self {
            Self::Failed(why) => Arc::new(why),
            Self::Moot(why) => why,
            Self::Unreadable(error) => {
                tracing::warn!(%error, "what a fill wrote cannot be read back");
                Arc::new(FillError::Aborted)
            }
        }
    }
}

/// Full jitter below a doubling bound.
fn pause(fruitless: u32) -> Duration {
    let bound = RESUME_PAUSE.saturating_mul(1 << fruitless.saturating_sub(1).min(16)).min(RESUME_PAUSE_MAX);
    bound.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Counts a fill as under way while it lives.
struct Gauge<'a>(&'a UpstreamMetrics);

impl<'a> Gauge<'a> {
    fn raise(metrics: &'a UpstreamMetrics) -> Self {
        metrics.fills_in_flight().inc();
        Self(metrics)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fills_in_flight().dec();
    }
}
