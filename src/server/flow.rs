//! What a connection's client has been given and has not taken, and how long it leaves it there.
//!
//! A client that takes nothing, or next to nothing, holds memory and a place that others need. The kernel notices one that acknowledges
//! no bytes; it does not see one that opens HTTP/2 streams without a window, nor one that reads a byte a minute. Both leave what they were
//! given lying here: a chunk in a buffer, a body that nobody asks for its next bytes, a socket that takes no more.
//!
//! ```text
//! Activity ─ requests   the exchanges under way
//!          ─ bodies     chunks that are on their way, and bodies whose next bytes the client is to ask for
//!          ─ socket     a write that waits for the socket
//! ```
//!
//! What the kernel has taken counts as taken. It takes more when a third of its buffer is free, which may be a MiB on a fast line: a client
//! that reads less than some 15 KiB a second there is let go as if it read nothing, and goes on with a range.
//!
//! Counting costs two atomic additions for each chunk. [`Patience`] looks at it a few times a minute.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::{fmt, io};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::limits::ABANDONED_MAX;

/// One connection's account.
#[derive(Debug, Default)]
pub(super) struct Activity {
    pub(super) requests: Arc<Flow>,
    pub(super) bodies: Arc<Flow>,
    pub(super) socket: Arc<Flow>,
    abandoned: AtomicU32,
    /// Wakes who watches when a limit on events is reached.
    pub(super) alarm: Notify,
}

impl Activity {
    /// Counts an exchange in; the lease counts it out.
    pub(super) fn lease(self: &Arc<Self>) -> Lease {
        let request = self.requests.hold();
        Lease { activity: Arc::clone(self), _request: request, theirs: None, is_over: false }
    }

    /// Notes an exchange that the client left before its end.
    fn was_abandoned(&self) {
        if (self.abandoned.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(ABANDONED_MAX) {
            self.alarm.notify_one();
        }
    }

    /// Returns how often the client has left as many exchanges as it may.
    pub(super) fn excesses(&self) -> u32 {
        self.abandoned.load(Ordering::Relaxed) / ABANDONED_MAX
    }
}

/// One exchange on the connection's account: from the request to the end of the answer's body.
#[derive(Debug)]
pub(super) struct Lease {
    activity: Arc<Activity>,
    _request: Held,
    /// Held while it is the client's turn: the body has more, and is not asked for it.
    theirs: Option<Held>,
    is_over: bool,
}

impl Lease {
    /// Notes that the next bytes are the client's to ask for, or ours to find.
    pub(super) fn waits_for_client(&mut self, is_so: bool) {
        match (is_so, &self.theirs) {
            (true, None) => self.theirs = Some(self.activity.bodies.hold()),
            (false, Some(_)) => self.theirs = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Returns the bytes as a chunk that the client has to take.
    pub(super) fn given(&self, bytes: Bytes) -> Chunk {
        Chunk::new(bytes, Some(self.activity.bodies.hold()))
    }

    /// Notes that all was given, or that it is our doing that it was not.
    pub(super) fn is_over(&mut self) {
        self.is_over = true;
        self.theirs = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_over {
            self.activity.was_abandoned();
        }
    }
}

/// Things that are held, and bytes that were taken.
#[derive(Debug, Default)]
pub(super) struct Flow {
    held: AtomicUsize,
    /// How often nothing was held any more.
    emptied: AtomicU64,
    taken_bytes: AtomicU64,
}

impl Flow {
    /// Holds one thing until the guard is dropped.
    pub(super) fn hold(self: &Arc<Self>) -> Held {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(self))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.load(Ordering::Relaxed) == 0
    }
}

/// One thing that is held.
#[derive(Debug)]
pub(super) struct Held(Arc<Flow>);

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.held.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.emptied.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How long a flow has been as it is.
#[derive(Debug)]
pub(super) struct Patience {
    flow: Arc<Flow>,
    /// Fewer bytes than that are no progress.
    least_bytes: u64,
    emptied: u64,
    taken_bytes: u64,
    since: Instant,
}

impl Patience {
    pub(super) fn new(flow: &Arc<Flow>, least_bytes: u64, now: Instant) -> Self {
        Self { flow: Arc::clone(flow), least_bytes, emptied: 0, taken_bytes: 0, since: now }
    }

    /// Returns since when something is held of which hardly anything is taken; `now` when that is not so.
    pub(super) fn stalled_since(&mut self, now: Instant) -> Instant {
        let (emptied, taken) = self.look();
        if self.flow.is_empty() || emptied != self.emptied || taken - self.taken_bytes >= self.least_bytes {
            (self.emptied, self.taken_bytes, self.since) = (emptied, taken, now);
        }
        self.since
    }

    /// Returns since when nothing is held; `now` when that is not so.
    pub(super) fn idle_since(&mut self, now: Instant) -> Instant {
        let (emptied, _) = self.look();
        if !self.flow.is_empty() || emptied != self.emptied {
            (self.emptied, self.since) = (emptied, now);
        }
        self.since
    }

    fn look(&self) -> (u64, u64) {
        (self.flow.emptied.load(Ordering::Relaxed), self.flow.taken_bytes.load(Ordering::Relaxed))
    }
}

/// Bytes of a body on their way to the client: held until the connection has passed on the last of them.
pub(super) struct Chunk {
    bytes: Bytes,
    held: Option<Held>,
}

impl Chunk {
    pub(super) fn new(bytes: Bytes, held: Option<Held>) -> Self {
        Self { bytes, held }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(Held(flow)) = &self.held {
            flow.taken_bytes.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// A stream whose writes are held while the socket does not take them.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    flow: Arc<Flow>,
    waiting: Option<Held>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: &Activity) -> Self {
        Self { stream, flow: Arc::clone(&activity.socket), waiting: None }
    }

    fn noted<T>(&mut self, outcome: Poll<T>) -> Poll<T> {
        match outcome {
            Poll::Pending if self.waiting.is_none() => self.waiting = Some(self.flow.hold()),
            Poll::Pending => {}
            Poll::Ready(_) => self.waiting = None,
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, slice: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, slice);
        self.noted(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.noted(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.noted(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.noted(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn flow() -> (Arc<Flow>, Patience, Instant) {
        let (flow, now) = (Arc::new(Flow::default()), Instant::now());
        let patience = Patience::new(&flow, 10, now);
        (flow, patience, now)
    }

    #[test]
    fn a_client_that_takes_next_to_nothing_stalls_and_one_that_takes_its_time_does_not() {
        let (flow, mut patience, start) = flow();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(patience.stalled_since(at(10)), at(10), "nothing is held");
        let mut chunk = Chunk::new(Bytes::from_static(&[0; 100]), Some(flow.hold()));
        assert_eq!(patience.stalled_since(at(20)), at(10));
        chunk.advance(9);
        assert_eq!(patience.stalled_since(at(30)), at(10), "nine bytes are none");
        chunk.advance(1);
        assert_eq!(patience.stalled_since(at(40)), at(40));
        drop(chunk);
        let next = Chunk::new(Bytes::from_static(&[0; 100]), Some(flow.hold()));
        assert_eq!(patience.stalled_since(at(50)), at(50), "all of the other was taken");
        assert_eq!(patience.stalled_since(at(60)), at(50));
        drop(next);
    }

    #[test]
    fn a_connection_is_idle_from_its_last_request_on() {
        let (flow, mut patience, start) = flow();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(patience.idle_since(at(10)), start);
        let request = flow.hold();
        assert_eq!(patience.idle_since(at(20)), at(20));
        drop(request);
        assert_eq!(patience.idle_since(at(30)), at(30));
        assert_eq!(patience.idle_since(at(40)), at(30));
        drop(flow.hold());
        assert_eq!(patience.idle_since(at(50)), at(50), "there was one in between");
    }
}
