//! The bytes of a blob on their way from an upstream, counted against what was announced.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::answer;
use super::error::UpstreamError;
use super::limit::Permit;
use super::origin::Chunks;

/// A body under way, and the turn that it takes up.
pub(super) struct Transfer<B> {
    pub(super) body: B,
    /// Bytes that were announced.
    pub(super) length: Option<u64>,
    /// How long the next byte may take.
    pub(super) idle: Duration,
    /// Is told when it breaks.
    pub(super) broken: Box<dyn Fn(&UpstreamError) + Send + Sync>,
    /// Given back at the end, at an error, or when the stream is dropped.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) permit: Permit,
}

impl<B> Transfer<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: StdError + Send + Sync + 'static,
{
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
                    (transfer.broken)(&error);
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::Frame;
    use tokio::time::{Sleep, sleep};

    use super::super::limit::{Budget, Limits};
    use super::super::options::Options;
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);

    /// What a body does next.
    enum Step {
        Data(&'static str),
        Trailers,
        /// Nothing for so many seconds, then the next step.
        Pause(u64),
        Break,
    }

    struct Script {
        steps: VecDeque<Step>,
        pause: Option<Pin<Box<Sleep>>>,
    }

    impl Body for Script {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            if let Some(Step::Pause(seconds)) = self.steps.front() {
                let length = Duration::from_secs(*seconds);
                let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(length)));
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
                self.steps.pop_front();
            }
            Poll::Ready(match self.steps.pop_front() {
                None => None,
                Some(Step::Data(text)) => Some(Ok(Frame::data(Bytes::from(text)))),
                Some(Step::Trailers) => Some(Ok(Frame::trailers(http::HeaderMap::new()))),
                Some(Step::Break | Step::Pause(_)) => Some(Err(std::io::ErrorKind::ConnectionReset.into())),
            })
        }
    }

    fn limits() -> Limits {
        let name = "docker.io".parse().expect("a name");
        let mut options = Options::new(name, url::Url::parse("https://a").expect("a URL"));
        options.connections = 1;
        Limits::new(&options)
    }

    /// Starts a transfer that takes the only turn.
    async fn start(limits: &Limits, length: Option<u64>, steps: Vec<Step>) -> Chunks {
        let permit = limits.transfer(&Budget::start(IDLE)).await.expect("the turn is free");
        Transfer {
            body: Script { steps: steps.into(), pause: None },
            length,
            idle: IDLE,
            broken: Box::new(|_| {}),
            permit,
        }
        .chunks()
    }

    /// Runs a transfer to its end and returns its text and the word for its error.
    async fn run(length: Option<u64>, steps: Vec<Step>) -> (String, Option<&'static str>) {
        let limits = limits();
        let mut chunks = start(&limits, length, steps).await;
        let mut text = String::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(bytes) => {
                    assert!(!bytes.is_empty());
                    text.push_str(&String::from_utf8_lossy(&bytes));
                }
                Err(error) => {
                    if let UpstreamError::Truncated { received_bytes, .. } = error {
                        assert_eq!(received_bytes, text.len() as u64);
                    }
                    assert!(chunks.next().await.is_none(), "nothing comes after an error");
                    assert!(limits.transfer(&Budget::start(IDLE)).await.is_ok(), "the turn is free again");
                    return (text, Some(error.as_str()));
                }
            }
        }
        assert!(limits.transfer(&Budget::start(IDLE)).await.is_ok(), "the turn is free again");
        (text, None)
    }

    #[tokio::test(start_paused = true)]
    async fn every_ending_is_told() {
        use Step::{Break, Data, Pause, Trailers};
        for (name, length, steps, text, error) in [
            ("whole", Some(6), vec![Data("abc"), Data("def")], "abcdef", None),
            ("empty pieces and trailers", Some(3), vec![Data(""), Data("abc"), Data(""), Trailers], "abc", None),
            ("nothing", Some(0), vec![], "", None),
            ("unknown length", None, vec![Data("abc")], "abc", None),
            ("slow, but alive", Some(6), vec![Pause(29), Data("abc"), Pause(29), Data("def")], "abcdef", None),
            ("short", Some(6), vec![Data("abc")], "abc", Some("truncated")),
            ("broken", Some(6), vec![Data("abc"), Break], "abc", Some("truncated")),
            ("broken, unknown length", None, vec![Data("abc"), Break], "abc", Some("truncated")),
            ("broken at once", Some(6), vec![Break], "", Some("truncated")),
            ("too long", Some(3), vec![Data("abc"), Data("d")], "abc", Some("protocol")),
            ("too long at once", Some(3), vec![Data("abcd")], "", Some("protocol")),
            ("dead", Some(6), vec![Data("abc"), Pause(31), Data("def")], "abc", Some("timeout")),
            ("dead from the start", Some(6), vec![Pause(31), Data("abcdef")], "", Some("timeout")),
        ] {
            assert_eq!(run(length, steps).await, (text.to_owned(), error), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_transfer_gives_its_turn_back() {
        let limits = limits();
        let chunks = start(&limits, Some(3), vec![Step::Data("abc")]).await;
        assert!(limits.transfer(&Budget::start(IDLE)).await.is_err());
        drop(chunks);
        assert!(limits.transfer(&Budget::start(IDLE)).await.is_ok());
    }
}
