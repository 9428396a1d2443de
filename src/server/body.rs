//! The body of an answer: nothing, some bytes, or a stream, with its account.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http_body::{Frame, SizeHint};

use super::access_log::Exchange;
use super::flow::{Chunk, Lease};
use super::socket::{Outbox, Rescue};
use crate::cache::{BlobBody, BodyError, Piece};
use crate::telemetry::sentence;

/// Bytes that one body sends before others have their turn, when neither the disk nor the client makes it wait: without this a
/// fast client keeps a worker for itself, and who has just come waits for its first byte.
///
/// A turn is what a client's kernel takes in one go, and short ones wake it more often: with four clients a GB costs 1.3 times what
/// it costs nginx in turns of 512 KiB, 0.95 in turns of 2 MiB, which nginx takes as well, and 0.83 in turns of 4 MiB.
const TURN_BYTES: u64 = 2 * 1024 * 1024;

/// The body of an answer.
pub(super) struct Body {
    content: Content,
    /// Bytes that are still to come, when that is known.
    remaining: Option<u64>,
    exchange: Option<Exchange>,
    /// Where file content is put that the connection sends by itself.
    outbox: Option<Outbox>,
    /// The exchange on the connection's account.
    lease: Option<Lease>,
}

enum Content {
    Empty,
    Full(Bytes),
    /// Becomes a stream when it is first asked.
    Blob(BlobBody),
    Stream(BoxStream<'static, Result<Bytes, BodyError>>),
}

impl Body {
    pub(super) fn empty() -> Self {
        Self { content: Content::Empty, remaining: Some(0), exchange: None, outbox: None, lease: None }
    }

    pub(super) fn full(bytes: Bytes) -> Self {
        Self { remaining: Some(bytes.len() as u64), content: Content::Full(bytes), ..Self::empty() }
    }

    /// A stream of `len` bytes, or of unknown length.
    pub(super) fn stream(len: Option<u64>, chunks: BoxStream<'static, Result<Bytes, BodyError>>) -> Self {
        Self { content: Content::Stream(chunks), remaining: len, ..Self::empty() }
    }

    /// A blob's bytes, of which there are `len`.
    pub(super) fn blob(len: Option<u64>, body: BlobBody) -> Self {
        Self { content: Content::Blob(body), remaining: len, ..Self::empty() }
    }

    /// Puts the body on a connection: on its account, and with its outbox, if it has one, for file content.
    pub(super) fn leased(self, mut lease: Lease, outbox: Option<Outbox>) -> Self {
        if self.remaining == Some(0) {
            lease.is_over();
        } else {
            lease.waits_for_client(true);
        }
        Self { outbox, lease: Some(lease), ..self }
    }

    /// Gives the body its account; the account is closed with it.
    pub(super) fn accounted(mut self, mut exchange: Exchange) -> Self {
        if self.remaining == Some(0) {
            exchange.completed();
        }
        self.exchange = Some(exchange);
        self
    }

    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)))
            }
            Content::Blob(_) => {
                if let Content::Blob(body) = std::mem::replace(&mut self.content, Content::Empty) {
                    self.content = Content::Stream(match self.outbox.clone() {
                        Some(outbox) => pieces(body, outbox),
                        None => chunks(body),
                    });
                }
                self.next(context)
            }
            Content::Stream(chunks) => chunks.poll_next_unpin(context),
        }
    }

    /// Notes whose turn it is, and gives out the bytes.
    fn given(&mut self, next: Option<Result<Bytes, BodyError>>) -> Option<Result<Frame<Chunk>, BodyError>> {
        let is_over = self.remaining == Some(0) || !matches!(next, Some(Ok(_)));
        let Some(lease) = &mut self.lease else {
            return next.map(|next| next.map(|b| Frame::data(Chunk::new(b, None))));
        };
        if is_over {
            lease.is_over();
        } else {
            lease.waits_for_client(true);
        }
        next.map(|next| next.map(|bytes| Frame::data(lease.given(bytes))))
    }

    fn account(&mut self, next: Option<&Result<Bytes, BodyError>>) {
        if let (Some(remaining), Some(Ok(bytes))) = (&mut self.remaining, next) {
            *remaining = remaining.saturating_sub(bytes.len() as u64);
        }
        let Some(exchange) = &mut self.exchange else { return };
        match next {
            Some(Ok(bytes)) => exchange.sent(bytes.len()),
            Some(Err(error)) => {
                tracing::warn!(request.id = %exchange.request_id, error = sentence(error), "a body is cut short");
                exchange.failed();
                return;
            }
            None => exchange.completed(),
        }
        if self.remaining == Some(0) {
            exchange.completed();
        }
    }
}

/// Returns the chunks of a blob's body as a stream.
pub(super) fn chunks(body: BlobBody) -> BoxStream<'static, Result<Bytes, BodyError>> {
    stream::unfold(body, |mut body| async move { body.next().await.map(|next| (next, body)) }).boxed()
}

/// Returns the chunks of a blob's body, stand-ins among them for what lies in files.
fn pieces(body: BlobBody, outbox: Outbox) -> BoxStream<'static, Result<Bytes, BodyError>> {
    stream::unfold((body, outbox, 0), |(mut body, outbox, turn)| async move {
        if turn >= TURN_BYTES {
            tokio::task::yield_now().await;
        }
        let next = body.next_piece().await?;
        let turn = turn % TURN_BYTES + next.as_ref().map_or(0, Piece::len);
        let chunk = next.map(|piece| match piece {
            Piece::Bytes(bytes) => bytes,
            Piece::File { file, range, rescue } => {
                let rescue = rescue.map(|rescue| Arc::new(move |range| chunks(rescue.clone().body(range))) as Rescue);
                outbox.put(file, range, rescue)
            }
        });
        Some((chunk, (body, outbox, turn)))
    })
    .boxed()
}

impl http_body::Body for Body {
    type Data = Chunk;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BodyError>>> {
        let Poll::Ready(next) = self.next(context) else {
            if let Some(lease) = &mut self.lease {
                lease.waits_for_client(false);
            }
            return Poll::Pending;
        };
        self.account(next.as_ref());
        Poll::Ready(self.given(next))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}
