//! The task that runs a fill.
//!
//! It begins with what an earlier fill left, asks the upstream, keeps transfers going, verifies, and commits. It goes on when its
//! clients leave, within bounds, so that the next one finds the blob; what it has when it fails is kept for the next fill.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join;
use tokio::time::Instant;

use super::askers::Asker;
use super::bounds::{self, Bounds, Place};
use super::inflight::Lead;
use super::learned::Learned;
use super::schedule::{self, Fetch, Order};
use super::transfers::{Parallel, Transfers};
use super::verify::{Unverified, verify};
use super::{Fill, FillError, Phase};
use crate::store::{BlobStore, Class, Content, Object, Partial, Present, StoreError, blocking};
use crate::telemetry::{FillEnd, Kind, MismatchSource, Trigger, UpstreamMetrics, sentence};
use crate::upstream::{BlobTransfer, Capability, UpstreamError};

/// Everything that one fill's task needs.
#[derive(Debug)]
pub(crate) struct FillTask {
    pub lead: Lead,
    /// Who started it.
    pub asker: Arc<Asker>,
    pub store: Arc<dyn BlobStore>,
    pub class: Class,
    /// The client's bounds, the upstream's, then everybody's.
    pub bounds: Vec<Bounds>,
    pub parallel: Parallel,
    pub learned: Arc<Learned>,
    pub metrics: Arc<UpstreamMetrics>,
    pub trigger: Trigger,
    /// The byte that the first reader wants first.
    pub from: u64,
}

/// What the upstream answered first.
pub(super) struct Opened {
    /// `None` when an earlier fill left all bytes.
    pub(super) transfer: Option<(Fetch, BlobTransfer)>,
    pub(super) size_bytes: Option<u64>,
    pub(super) honours_ranges: bool,
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
        self.metrics.fill_ended(self.trigger, end, began.elapsed());
    }

    pub(super) fn fill(&self) -> &Arc<Fill> {
        self.lead.fill()
    }

    async fn fill_up(&self) -> Result<(), Arc<FillError>> {
        let asked = Instant::now();
        let place = bounds::enter(&self.bounds).await;
        self.metrics.fill_waited(asked.elapsed());
        let _place = place.ok_or(FillError::Overloaded)?;
        let (object, left) = self.look().await;
        if let Some(object) = object {
            self.adopt(object);
            return Ok(());
        }
        let first = self.open(left.as_deref()).await.map_err(FillError::Upstream)?;
        let _bytes =
            bounds::take_bytes(&self.bounds, first.size_bytes.unwrap_or(0)).await.ok_or(FillError::Overloaded)?;
        let size_bytes = first.size_bytes;
        let is_resumed = left.is_some_and(|left| self.go_on_with(left, size_bytes));
        self.fill().progress.send_modify(|progress| {
            progress.phase = Phase::Streaming;
            progress.size_bytes = size_bytes;
        });
        let streamed = if is_resumed {
            self.stream(first).await
        } else {
            join(self.stream(first), self.begin(size_bytes)).await.0
        };
        self.keep_or_discard(streamed.as_ref().err()).await;
        streamed?;
        self.fill().progress.send_modify(|progress| progress.phase = Phase::Verified);
        self.commit().await;
        self.fill().empty_window().await;
        Ok(())
    }

    /// Looks for the blob, which may have been committed between the caller's look and the start of this fill, and for what an
    /// earlier fill left of it.
    async fn look(&self) -> (Option<Object>, Option<Arc<dyn Partial>>) {
        let (store, digest) = (Arc::clone(&self.store), self.fill().key.digest);
        if store.is_absent(&digest) {
            return (None, None);
        }
        let look = move || {
            let object = store.peek(&digest).or_else(|| store.open(&digest));
            // What this process has not read yet may be what brought the reader here: it does not stand for verified bytes.
            let object = object.filter(|object| object.mark.is_verified());
            let left = if object.is_none() { store.resume(&digest) } else { None };
            Ok::<_, std::io::Error>((object, left))
        };
        blocking(look).await.unwrap_or_default()
    }

    fn adopt(&self, object: Object) {
        let fill = self.fill();
        fill.is_found.store(true, Ordering::Release);
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

    /// Asks the upstream for the segment that is wanted first; it says whether it has the blob, how long it is, and whether it
    /// honours ranges.
    async fn open(&self, left: Option<&dyn Partial>) -> Result<Opened, UpstreamError> {
        let (size, present) = left.and_then(Partial::resumed).unwrap_or((u64::MAX, Present::default()));
        let missing = present.first_gap(0);
        if missing >= size {
            let Asker { origin, repository, .. } = &*self.asker;
            let head = origin.blob_head(repository, &self.fill().key.digest).await?;
            return Ok(Opened { transfer: None, size_bytes: head.size_bytes.or(Some(size)), honours_ranges: true });
        }
        let wanted = present.first_gap(self.from);
        let from = if wanted < size { wanted } else { missing };
        if self.asker.origin.capability(Capability::Ranges) == Some(false) {
            return self.open_whole().await;
        }
        let mut fetch = schedule::first(from, missing);
        let mut answer = self.ask(fetch).await;
        if from != missing && answer.as_ref().is_err_and(UpstreamError::may_be_about_the_range) {
            // The client may have asked for bytes beyond the end.
            fetch = schedule::first(missing, missing);
            answer = self.ask(fetch).await;
        }
        let refused = match answer {
            Ok(transfer) if !transfer.is_range => {
                if transfer.size_bytes.is_none_or(|size| fetch.end.is_some_and(|end| size > end)) {
                    self.asker.origin.note_capability(Capability::Ranges, false);
                }
                return Ok(Opened::whole(transfer));
            }
            Ok(transfer) => match transfer.size_bytes {
                Some(size) => return Ok(Opened::range(fetch, transfer, size)),
                // A range of an unknown whole is no help.
                None => true,
            },
            Err(error) if !error.may_be_about_the_range() => return Err(error),
            Err(_) => true,
        };
        let opened = self.open_whole().await?;
        // An empty blob has no range to give.
        if refused && opened.size_bytes != Some(0) {
            self.asker.origin.note_capability(Capability::Ranges, false);
        }
        Ok(opened)
    }

    async fn open_whole(&self) -> Result<Opened, UpstreamError> {
        self.ask(Fetch { order: Order::Sequential, start: 0, end: None }).await.map(Opened::whole)
    }

    async fn ask(&self, fetch: Fetch) -> Result<BlobTransfer, UpstreamError> {
        let last = fetch.end.map(|end| end.saturating_sub(1));
        let Asker { origin, repository, .. } = &*self.asker;
        origin.blob(repository, &self.fill().key.digest, fetch.start, last).await
    }

    /// Goes on with what was left; false when it is not of the same length.
    fn go_on_with(&self, left: Arc<dyn Partial>, size_bytes: Option<u64>) -> bool {
        match left.resumed() {
            Some((size, present)) if Some(size) == size_bytes => {
                self.fill().progress.send_modify(|progress| progress.present = present);
                self.fill().ground.take_partial(left);
                true
            }
            Some(_) | None => {
                left.discard();
                false
            }
        }
    }

    /// Begins a partial; nothing lands before it is there, or is known not to come.
    async fn begin(&self, size_bytes: Option<u64>) {
        let (store, digest, class) = (Arc::clone(&self.store), self.fill().key.digest, self.class);
        match blocking(move || store.begin(&digest, class, size_bytes)).await {
            Ok(partial) => self.fill().ground.take_partial(partial),
            Err(error) => {
                self.fill().spill(&error);
                self.fill().ground.take_none();
            }
        }
    }

    /// Keeps transfers going until all bytes are there and verified.
    async fn stream(&self, first: Opened) -> Result<(), Arc<FillError>> {
        let fill = self.fill();
        let mut moved = fill.readers.watch();
        let mut transfers = Transfers::begin(self, first);
        let mut verdict = pin!(verify(Arc::clone(fill)));
        let mut unattended = None;
        loop {
            self.attend(&mut unattended)?;
            transfers.schedule();
            tokio::select! {
                verdict = &mut verdict => {
                    match &verdict {
                        Ok(()) => transfers.judge(),
                        Err(Unverified::Failed(_)) => transfers.distrust_senders(),
                        // The next fill could not read it either.
                        Err(Unverified::Unreadable { .. }) => self.discard(),
                        Err(Unverified::Moot(_)) => {}
                    }
                    return verdict.map_err(Unverified::into_fill_error);
                }
                changed = transfers.changed() => changed?,
                // The sender lives in `fill`.
                _ = moved.changed() => {}
            }
        }
    }

    /// Lets a fill that nobody follows go on while there is a place for it (P-143). One that the store does not take ends by itself.
    fn attend(&self, unattended: &mut Option<Place>) -> Result<(), Arc<FillError>> {
        if self.fill().readers.are_interested() {
            *unattended = None;
            return Ok(());
        }
        if unattended.is_none() {
            *unattended = bounds::go_on_unattended(&self.bounds);
        }
        if unattended.is_none() {
            // Nobody joins from here on; who has joined since the look is served.
            self.lead.delist();
            if !self.fill().readers.are_interested() {
                return Err(Arc::new(FillError::Abandoned));
            }
        }
        Ok(())
    }

    /// Keeps what a failed fill has, for the next one; wrong bytes are kept by nobody.
    async fn keep_or_discard(&self, why: Option<&Arc<FillError>>) {
        let (Some(why), Some(partial)) = (why, self.fill().ground.partial()) else { return };
        if matches!(**why, FillError::DigestMismatch { .. }) {
            partial.discard();
        } else {
            self.fill().checkpoint().await;
        }
    }

    fn discard(&self) {
        if let Some(partial) = self.fill().ground.partial() {
            partial.discard();
        }
    }

    /// Makes the verified bytes an object of the store; what it does not take, it does not keep a part of.
    async fn commit(&self) {
        let fill = self.fill();
        let size = fill.progress.borrow().size_bytes;
        let (Some(partial), Some(size)) = (fill.ground.partial(), size) else { return };
        if fill.is_spilled() {
            return partial.discard();
        }
        let (committing, digest) = (Arc::clone(partial), fill.key.digest);
        let committed: Result<(), StoreError> = blocking(move || committing.commit(&digest, size)).await;
        if let Err(error) = committed {
            partial.discard();
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
            FillError::Upstream(_) | FillError::Overloaded | FillError::Unreadable { .. } => {
                tracing::warn!(digest = %key.digest, upstream.name = %key.upstream, error, "a fill failed");
                FillEnd::Error
            }
            FillError::Abandoned | FillError::Aborted => FillEnd::Aborted,
        };
        self.fill().fail(why);
        end
    }
}

impl Opened {
    fn whole(transfer: BlobTransfer) -> Self {
        let size_bytes = transfer.size_bytes;
        let fetch = Fetch { order: Order::Sequential, start: 0, end: None };
        Self { transfer: Some((fetch, transfer)), size_bytes, honours_ranges: false }
    }

    fn range(fetch: Fetch, transfer: BlobTransfer, size: u64) -> Self {
        let fetch = Fetch { end: fetch.end.map(|end| end.min(size)), ..fetch };
        Self { transfer: Some((fetch, transfer)), size_bytes: Some(size), honours_ranges: true }
    }
}

impl Unverified {
    fn into_fill_error(self) -> Arc<FillError> {
        match self {
            Self::Failed(why) => Arc::new(why),
            Self::Moot(why) => why,
            Self::Unreadable { prefix, error } => Arc::new(FillError::Unreadable { prefix, source: error }),
        }
    }
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
