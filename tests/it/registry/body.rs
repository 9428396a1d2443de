//! The bodies that the scripted registry sends: in small pieces, at a pace, cut, reset, stalled or with a wrong byte.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use super::World;
use super::content::Content;
use super::log::Line;

/// Bytes in one piece of a body at the most.
const PIECE: u64 = 64 << 10;

pub(crate) type Body = UnsyncBoxBody<Bytes, Broken>;

/// A body or a connection that is to break off.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("breaks off as scheduled")]
pub(crate) struct Broken;

/// What a body's task knows of its connection.
#[derive(Default)]
pub(crate) struct Wire {
    /// Set once this connection is to end with RST.
    pub(crate) resets: AtomicBool,
    /// Several bodies share the connection (HTTP/2): flushes tell nothing.
    pub(crate) is_shared: AtomicBool,
    /// What goes out in place of everything that is written, once this is set.
    pub(crate) raw: Mutex<Option<Bytes>>,
    /// Told whenever everything written so far is with the kernel.
    pub(crate) flushed: Notify,
}

impl Wire {
    /// Waits until what the body yielded before is with the kernel.
    async fn flush(&self) {
        if self.is_shared.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        } else {
            self.flushed.notified().await;
        }
    }
}

/// How a body ends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum End {
    /// After everything.
    #[default]
    Whole,
    /// After so many bytes, with FIN.
    Cut(u64),
    /// After so many bytes, with RST.
    Reset(u64),
    /// As `Whole`, but a release is awaited after so many bytes.
    Stall(u64),
    /// After everything, though more was announced.
    Short,
}

/// A body before it is sent.
pub(crate) struct Plan {
    pub(crate) content: Content,
    /// The first byte, and the one after the last.
    pub(crate) start: u64,
    pub(crate) stop: u64,
    /// Bytes of nonsense after the content.
    pub(crate) extra: u64,
    /// Offset of the byte to spoil.
    pub(crate) wrong: Option<u64>,
    pub(crate) end: End,
    /// Bytes a second.
    pub(crate) pace: Option<u64>,
}

impl Plan {
    /// Plans to send all of `content`.
    pub(crate) fn whole(content: Content) -> Self {
        let stop = content.length();
        Self { content, start: 0, stop, extra: 0, wrong: None, end: End::Whole, pace: None }
    }

    /// Returns the bytes that it will send if it ends well.
    pub(crate) fn length(&self) -> u64 {
        self.stop - self.start + self.extra
    }

    /// Makes the body; the request is over in the log when it is dropped.
    pub(crate) fn send(self, world: Arc<World>, wire: Arc<Wire>, line: Line) -> Body {
        let sending = Sending { plan: self, sent: 0, has_stalled: false, began: Instant::now(), world, wire, line };
        let pieces = stream::unfold(Some(sending), |sending| async { sending?.next().await });
        BodyExt::boxed_unsync(StreamBody::new(pieces))
    }
}

/// A body on its way.
struct Sending {
    plan: Plan,
    sent: u64,
    has_stalled: bool,
    began: Instant,
    world: Arc<World>,
    wire: Arc<Wire>,
    line: Line,
}

type Piece = Result<Frame<Bytes>, Broken>;

impl Sending {
    async fn next(mut self) -> Option<(Piece, Option<Self>)> {
        match self.plan.end {
            End::Cut(limit) | End::Reset(limit) if self.sent >= limit => return Some(self.break_off().await),
            End::Stall(limit) if self.sent >= limit && !self.has_stalled => {
                self.has_stalled = true;
                self.world.hold(&self.line).await;
            }
            End::Short if self.sent >= self.plan.length() => return Some(self.break_off().await),
            End::Whole | End::Cut(_) | End::Reset(_) | End::Stall(_) | End::Short => {}
        }
        let piece = self.piece();
        if piece.is_empty() {
            return None;
        }
        self.sent += piece.len() as u64;
        self.wait_for_pace().await;
        self.line.add_bytes(piece.len() as u64);
        Some((Ok(Frame::data(piece)), Some(self)))
    }

    async fn break_off(self) -> (Piece, Option<Self>) {
        if matches!(self.plan.end, End::Reset(_)) {
            self.wire.resets.store(true, Ordering::SeqCst);
        }
        self.wire.flush().await;
        (Err(Broken), None)
    }

    /// Returns the next bytes, up to the next thing that happens.
    fn piece(&self) -> Bytes {
        let limit = match self.plan.end {
            End::Cut(limit) | End::Reset(limit) => limit - self.sent,
            End::Stall(limit) if !self.has_stalled => limit - self.sent,
            End::Whole | End::Stall(_) | End::Short => PIECE,
        };
        // A slow body moves 20 times a second.
        let limit = limit.min(self.plan.pace.map_or(PIECE, |rate| (rate / 20).clamp(1, PIECE)));
        let at = self.plan.start + self.sent;
        if at >= self.plan.stop {
            let left = self.plan.length() - self.sent;
            return Bytes::from(vec![b'x'; usize::try_from(left.min(limit)).expect("a piece is small")]);
        }
        let bytes = self.plan.content.read(at, limit.min(self.plan.stop - at));
        match self.plan.wrong {
            Some(wrong) if (at..at + bytes.len() as u64).contains(&wrong) => spoil(&bytes, wrong - at),
            Some(_) | None => bytes,
        }
    }

    async fn wait_for_pace(&self) {
        if let Some(rate) = self.plan.pace {
            let micros = self.sent.saturating_mul(1_000_000) / rate.max(1);
            tokio::time::sleep_until(self.began + Duration::from_micros(micros)).await;
        }
    }
}

fn spoil(bytes: &Bytes, place: u64) -> Bytes {
    let mut spoilt = BytesMut::from(bytes.as_ref());
    if let Some(byte) = usize::try_from(place).ok().and_then(|place| spoilt.get_mut(place)) {
        *byte ^= 1;
    }
    spoilt.freeze()
}
