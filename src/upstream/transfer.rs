//! The bytes of a blob on their way from an upstream, counted against what was announced.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::answer;
use super::error::UpstreamError;
use super::limit::Permit;
use super::observe::Observer;
use super::origin::Chunks;

/// A body under way, and the turn that it takes up.
pub(super) struct Transfer {
    pub(super) body: Incoming,
    /// Bytes that were announced.
    pub(super) length: Option<u64>,
    /// How long the next byte may take.
    pub(super) idle: Duration,
    pub(super) observer: Arc<dyn Observer>,
    /// Given back at the end, at an error, or when the stream is dropped.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) permit: Permit,
}

impl Transfer {
    /// Returns the bytes as a stream that ends after the first error.
    ///
    /// Dropping it closes the connection, unless everything was read.
    pub(super) fn chunks(self) -> Chunks {
        let state = Some((self, 0));
        stream::unfold(state, |state| async {
            let (mut transfer, received) = state?;
            match transfer.next(received).await {
                Ok(None) => None,
                Ok(Some(bytes)) => {
                    let received = received + bytes.len() as u64;
                    Some((Ok(bytes), Some((transfer, received))))
                }
                Err(error) => {
                    transfer.observer.failed(&error);
                    Some((Err(error), None))
                }
            }
        })
        .boxed()
    }

    /// Returns the next bytes, never none of them, or `None` at an end that is where it should be.
    async fn next(&mut self, received: u64) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let frame = timeout(self.idle, self.body.frame()).await;
            let frame = frame.map_err(|_| UpstreamError::TimedOut { limit: "idle time-out", after: self.idle })?;
            let Some(frame) = frame else {
                return self.end(received);
            };
            let frame = frame.map_err(|error| answer::broken(received, error))?;
            // Trailers say nothing that we know.
            let Ok(bytes) = frame.into_data() else { continue };
            if self.length.is_some_and(|length| received.saturating_add(bytes.len() as u64) > length) {
                return Err(UpstreamError::Protocol { reason: "more bytes than announced".to_owned() });
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    fn end(&self, received: u64) -> Result<Option<Bytes>, UpstreamError> {
        match self.length {
            Some(length) if received < length => {
                Err(UpstreamError::Truncated { received_bytes: received, source: None })
            }
            Some(_) | None => Ok(None),
        }
    }
}
