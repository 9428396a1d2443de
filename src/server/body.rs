//! The body of an answer: nothing, some bytes, or a stream, with its account.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http_body::{Frame, SizeHint};

use super::access_log::Exchange;
use crate::cache::{BlobBody, BodyError};
use crate::telemetry::sentence;

/// The body of an answer.
pub(super) struct Body {
    content: Content,
    /// Bytes that are still to come, when that is known.
    remaining: Option<u64>,
    exchange: Option<Exchange>,
}

enum Content {
    Empty,
    Full(Bytes),
    Stream(BoxStream<'static, Result<Bytes, BodyError>>),
}

impl Body {
    pub(super) fn empty() -> Self {
        Self { content: Content::Empty, remaining: Some(0), exchange: None }
    }

    pub(super) fn full(bytes: Bytes) -> Self {
        Self { remaining: Some(bytes.len() as u64), content: Content::Full(bytes), exchange: None }
    }

    /// A stream of `len` bytes, or of unknown length.
    pub(super) fn stream(len: Option<u64>, chunks: BoxStream<'static, Result<Bytes, BodyError>>) -> Self {
        Self { content: Content::Stream(chunks), remaining: len, exchange: None }
    }

    /// A blob's bytes, of which there are `len`.
    pub(super) fn blob(len: Option<u64>, body: BlobBody) -> Self {
        Self::stream(len, chunks(body))
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
            Content::Stream(chunks) => chunks.poll_next_unpin(context),
        }
    }

    fn account(&mut self, next: Option<&Result<Bytes, BodyError>>) {
        if let (Some(remaining), Some(Ok(bytes))) = (&mut self.remaining, next) {
            *remaining = remaining.saturating_sub(bytes.len() as u64);
        }
        let Some(exchange) = &mut self.exchange else { return };
        match next {
            Some(Ok(bytes)) => exchange.sent(bytes.len()),
            Some(Err(error)) => {
                tracing::warn!(request.id = exchange.request_id, error = sentence(error), "a body is cut short");
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

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = ready!(self.next(context));
        self.account(next.as_ref());
        Poll::Ready(next.map(|next| next.map(Frame::data)))
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
