//! Where the bytes of a fill land: the store, or, when the store does not take them, a window in memory.
//!
//! The change from the one to the other happens at most once, at any byte, and no client notices (promise 8).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::SetOnce;
use tokio::time::{Instant, timeout, timeout_at};

use super::early::{Early, Landing};
use super::window::{WINDOW_BYTES, Window};
use super::{Fill, Progress};
use crate::store::{Partial, ReadAt, StoreError, blocking};
use crate::telemetry::sentence;

/// How long a full window waits for its slowest reader before that reader is left behind.
///
/// A reader left behind goes on with a transfer of its own.
const SLOWEST_READER_PATIENCE: Duration = Duration::from_secs(10);

/// How long bytes that were received wait for those before them, when the store has just been given up between the two.
const TURN_PATIENCE: Duration = Duration::from_secs(2);

/// What a crash may cost at the most, beside what is on its way: a small file is written for each so many bytes.
const CHECKPOINT_BYTES: u64 = 4 * 1024 * 1024;

/// Less than this is not worth going on with.
const CHECKPOINT_BYTES_MIN: u64 = 1024 * 1024;

/// The ground of one fill.
#[derive(Debug, Default)]
pub(super) struct Ground {
    /// Where bytes are written, once that is decided; `None` in it when there is nowhere.
    partial: SetOnce<Option<Arc<dyn Partial>>>,
    /// What readers read: the partial, or an object that was there already.
    content: SetOnce<Arc<dyn ReadAt>>,
    early: Early,
    window: Window,
    /// Bytes written since the last checkpoint.
    unrecorded_bytes: AtomicU64,
}

/// What became of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landed {
    /// Obtained: readable, and counted as present.
    Yes,
    /// Not taken: they do not continue the window, or nobody wants them.
    No,
}

impl Ground {
    pub(super) fn take_partial(&self, partial: Arc<dyn Partial>) {
        let content: Arc<dyn ReadAt> = Arc::clone(&partial) as _;
        // Set once, by the task, before the first byte is written.
        let _first = (self.content.set(content), self.partial.set(Some(partial)));
    }

    /// Has nothing written.
    pub(super) fn take_none(&self) {
        let _first = self.partial.set(None);
    }

    pub(super) fn take_object(&self, content: Arc<dyn ReadAt>) {
        let _first = self.content.set(content);
    }

    pub(super) fn partial(&self) -> Option<&Arc<dyn Partial>> {
        self.partial.get().and_then(Option::as_ref)
    }

    pub(super) fn content(&self) -> Option<&Arc<dyn ReadAt>> {
        self.content.get()
    }

    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    pub(super) fn early(&self) -> &Early {
        &self.early
    }
}

impl Fill {
    /// Gives up the store for the rest of this fill: what is missing passes through the window, in order.
    pub(super) fn spill(&self, why: &StoreError) {
        let mut first = false;
        self.progress.send_modify(|progress| {
            if progress.on_disk.is_none() {
                first = true;
                self.ground.window.begin(progress.present.first_gap(0));
                progress.on_disk = Some(progress.present.clone());
            }
        });
        if first {
            self.readers.pace();
            tracing::warn!(
                digest = %self.key.digest, upstream.name = %self.key.upstream, error = sentence(why),
                "the store does not take a blob; it is streamed to its readers and not cached"
            );
        }
    }

    pub(super) fn is_spilled(&self) -> bool {
        self.progress.borrow().on_disk.is_some()
    }

    /// Waits until the store has been given up; for ever when it never is.
    pub(super) async fn spilled(&self) {
        let mut progress = self.progress.subscribe();
        // The sender lives in `self`: the wait cannot fail.
        let _spilled = progress.wait_for(|progress| progress.on_disk.is_some()).await;
    }

    /// Hands `chunks` to those who wait for them at `offset`, while they land.
    pub(super) fn hand_out(&self, offset: u64, chunks: Vec<Bytes>) -> Landing<'_> {
        let landing = self.ground.early.hold(offset, chunks);
        self.progress.send_modify(|_| {});
        landing
    }

    /// Notes how far the blob has been hashed.
    pub(super) fn hashed(&self, until: u64) {
        self.ground.early.hashed(until);
    }

    /// Lands `chunks` at `offset` and publishes them.
    pub(super) async fn land(&self, offset: u64, chunks: Vec<Bytes>) -> Landed {
        let len: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let partial = self.ground.partial.wait().await;
        if let Some(partial) = partial.as_ref().filter(|_| !self.is_spilled()) {
            let (partial, batch) = (Arc::clone(partial), chunks.clone());
            match blocking(move || partial.write_at(offset, &batch)).await {
                Ok(()) => {
                    self.progress.send_modify(|progress| progress.wrote(offset, len));
                    if self.ground.unrecorded_bytes.fetch_add(len, Ordering::Relaxed) + len >= CHECKPOINT_BYTES {
                        self.checkpoint().await;
                    }
                    return Landed::Yes;
                }
                Err(error) => self.spill(&error),
            }
        }
        if !self.wait_for_turn(offset).await || !self.wait_for_window().await {
            return Landed::No;
        }
        self.ground.window.push(offset, &chunks);
        self.progress.send_modify(|progress| progress.present.insert(offset..offset + len));
        Landed::Yes
    }

    /// Records what the store holds, so that a later fill goes on from there.
    pub(super) async fn checkpoint(&self) {
        self.ground.unrecorded_bytes.store(0, Ordering::Relaxed);
        let (size, present) = {
            let progress = self.progress.borrow();
            (progress.size_bytes, progress.on_disk.as_ref().unwrap_or(&progress.present).clone())
        };
        let (Some(size), Some(partial)) = (size, self.ground.partial()) else { return };
        if present.len_bytes() < CHECKPOINT_BYTES_MIN {
            return;
        }
        let partial = Arc::clone(partial);
        if let Err(error) = blocking(move || partial.checkpoint(size, &present)).await {
            tracing::debug!(error = sentence(&error), "a fill cannot be resumed after a restart");
        }
    }

    /// Waits until all readers have passed what the window still holds, or do not move any more: its memory belongs to the fill, and
    /// ends with its place.
    pub(super) async fn empty_window(&self) {
        let mut moved = self.readers.watch();
        while self.ground.window.len_bytes() > 0 {
            self.drop_passed();
            if self.ground.window.len_bytes() > 0 && timeout(SLOWEST_READER_PATIENCE, moved.changed()).await.is_err() {
                self.drop_window();
            }
        }
    }

    /// Drops what the window holds, whoever still waits for it.
    pub(super) fn drop_window(&self) {
        self.ground.window.give_up(u64::MAX);
    }

    /// Drops what all readers have passed.
    fn drop_passed(&self) {
        self.readers.close();
        let slowest = self.readers.slowest(self.ground.window.lost_until());
        self.ground.window.trim(slowest.unwrap_or(u64::MAX));
    }

    /// Waits until the bytes at `offset` are those that continue the window; false when another transfer does not bring it so far.
    async fn wait_for_turn(&self, offset: u64) -> bool {
        let next = |progress: &Progress| progress.present.first_gap(self.ground.window.end());
        let mut progress = self.progress.subscribe();
        let reached = timeout(TURN_PATIENCE, progress.wait_for(|progress| next(progress) >= offset)).await;
        reached.is_ok_and(|progress| progress.is_ok_and(|progress| next(&progress) == offset))
    }

    /// Waits until the window has room; false when no client wants the bytes any more.
    async fn wait_for_window(&self) -> bool {
        let patience = Instant::now() + SLOWEST_READER_PATIENCE;
        let mut moved = self.readers.watch();
        loop {
            if !self.readers.are_interested() {
                return false;
            }
            if self.ground.window.len_bytes() < WINDOW_BYTES {
                return true;
            }
            self.drop_passed();
            if self.ground.window.len_bytes() < WINDOW_BYTES {
                return true;
            }
            if timeout_at(patience, moved.changed()).await.is_err() {
                let oldest_kept = self.ground.window.end().saturating_sub(WINDOW_BYTES / 2);
                self.ground.window.give_up(oldest_kept);
            }
        }
    }
}

impl Progress {
    fn wrote(&mut self, offset: u64, len: u64) {
        self.present.insert(offset..offset + len);
        if let Some(on_disk) = &mut self.on_disk {
            on_disk.insert(offset..offset + len);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::{FillKey, Inflight, Joined};
    use super::*;
    use crate::oci::Digest;
    use crate::store::Buffers;

    #[tokio::test(start_paused = true)]
    async fn bytes_received_before_their_turn_wait_for_those_before_them() {
        let key = FillKey { upstream: "registry.test".parse().unwrap(), digest: Digest::sha256(b"abcd") };
        let make = || Fill::new(key.clone(), "app".parse().unwrap(), 0, Buffers::default());
        let Joined::Lead(_interest, lead) = Inflight::default().join(&key, make) else { panic!("there is no other") };
        let fill = lead.fill();
        fill.ground.take_none();
        fill.spill(&StoreError::NoRoom { needed_bytes: 4 });
        let mut last = Box::pin(fill.land(2, vec![Bytes::from_static(b"cd")]));
        assert!(last.as_mut().now_or_never().is_none());
        assert_eq!(fill.land(0, vec![Bytes::from_static(b"ab")]).await, Landed::Yes);
        assert_eq!(last.await, Landed::Yes);
        assert_eq!(fill.ground.window.get(2, 9), Some(Bytes::from_static(b"cd")));
        assert_eq!(fill.land(9, vec![Bytes::from_static(b"x")]).await, Landed::No, "nobody brings those between");
        assert_eq!(fill.land(0, vec![Bytes::from_static(b"x")]).await, Landed::No, "they have passed");
    }
}
