//! Writes: a caller's request, relayed once, in the caller's own name.
//!
//! The upstream's credentials are never used for them (S-6, P-161): whoever asks brings its own `Authorization`. A token goes to the
//! endpoint as it stands, and nowhere else; an account as the registry wants it, which may be by a token of its token service
//! (`write_proof`). Who asks is told what the upstream says of it. Redirects are not followed, and nothing is tried twice: a body
//! streams through and is gone.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use url::Url;

use super::answer;
use super::auth::Place;
use super::caller::Caller;
use super::error::UpstreamError;
use super::exchange::Exchange;
use super::limit::Budget;
use super::observe::RequestKind;
use super::origin::EndpointId;
use crate::oci::{Digest, RepositoryName};

/// How long an upstream may take neither a byte of the body nor answer: registries move a finished upload before they say yes.
const STILL_LIMIT: Duration = Duration::from_mins(5);

/// An error of whoever sends a body.
pub type SendError = Box<dyn std::error::Error + Send + Sync>;

/// A request in a caller's name: a write, or a read that must see what the write will meet.
#[derive(Debug)]
pub struct Write<'a> {
    pub kind: RequestKind,
    pub method: Method,
    pub repository: &'a RepositoryName,
    pub target: Target<'a>,
    /// `Content-Type`, `Content-Range`.
    pub headers: HeaderMap,
    /// The caller's.
    pub authorization: Option<&'a HeaderValue>,
    pub body: Outgoing,
    /// Bytes of the answer's body at the most; of a longer one nothing is told.
    pub limit_bytes: usize,
}

/// Where a write goes.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A path beneath the repository, and a query, encoded.
    Path(&'a str, &'a str),
    /// An upload that the upstream has opened, and what is added to its query, encoded.
    Upload(&'a UploadUrl, &'a str),
}

/// Where an upstream wants the rest of an upload. Its query may hold the upload's whole state: it is never shown.
#[derive(Clone)]
pub struct UploadUrl(Url);

/// What an upstream said of a write.
#[derive(Debug)]
pub struct Written {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// What it calls the content.
    pub digest: Option<Digest>,
    /// Where the upload goes on, when the answer says so.
    pub upload: Option<UploadUrl>,
    /// What it says beside that.
    pub body: Bytes,
}

impl Written {
    /// Returns the answer that the account gets whom the token service does not know.
    fn unknown_account() -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { status: StatusCode::UNAUTHORIZED, headers, digest: None, upload: None, body }
    }
}

/// The body of a write: bytes as they come.
pub struct Outgoing {
    chunks: Option<BoxStream<'static, Result<Bytes, SendError>>>,
    /// Bytes to come; `None` when that is not known.
    remaining: Option<u64>,
    /// Told whenever a chunk is taken.
    moved: watch::Sender<()>,
}

impl Outgoing {
    pub fn empty() -> Self {
        Self { chunks: None, remaining: Some(0), moved: watch::Sender::default() }
    }

    pub fn full(bytes: Bytes) -> Self {
        let len = bytes.len() as u64;
        Self::stream(Some(len), Box::pin(futures_util::stream::iter([Ok(bytes)])))
    }

    /// A body of `len` bytes, or of unknown length.
    pub fn stream(len: Option<u64>, chunks: BoxStream<'static, Result<Bytes, SendError>>) -> Self {
        Self { chunks: Some(chunks), remaining: len, moved: watch::Sender::default() }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        let Some(chunks) = &mut self.chunks else { return Poll::Ready(None) };
        let next = ready!(chunks.as_mut().poll_next(context));
        self.moved.send_replace(());
        if let (Some(remaining), Some(Ok(chunk))) = (&mut self.remaining, &next) {
            *remaining = remaining.saturating_sub(chunk.len() as u64);
        }
        Poll::Ready(next.map(|next| next.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

impl fmt::Debug for UploadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.host_str().unwrap_or_default())
    }
}

impl Exchange {
    /// Sends a write to the first endpoint, whatever its health, and returns what it says, whatever the status: what is pushed must not be
    /// scattered over mirrors of each other. `caller` is whoever shows an account.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; what the upstream makes of a half-sent body is its own affair.
    pub(super) async fn write(
        &self,
        write: Write<'_>,
        caller: Option<&Caller>,
        turn: Duration,
    ) -> Result<Written, UpstreamError> {
        let budget = Budget::start(turn);
        let _permit = self.write_turn(&budget).await?;
        let endpoint = EndpointId::default();
        let none = || UpstreamError::Protocol { reason: "no endpoint to ask".to_owned() };
        let url = match write.target {
            Target::Path(path, query) => {
                let mut url = self.endpoints.url(endpoint, &format!("{}/{path}", write.repository)).ok_or_else(none)?;
                url.set_query(Some(query).filter(|query| !query.is_empty()));
                url
            }
            Target::Upload(UploadUrl(url), more) => with_query(url.clone(), more),
        };
        let place = Place { url: &url, is_upstream: true, repository: write.repository };
        let auth = caller.map(|caller| self.auth.as_caller(caller));
        let proof = match &auth {
            None => None,
            Some(auth) => match self.prove_write(auth, endpoint, place, &write.method).await {
                // The token service's word about the account is the registry's.
                Err(UpstreamError::Denied { status: 401, .. }) => return Ok(Written::unknown_account()),
                proof => proof.inspect_err(|error| self.observer.failed(error))?,
            },
        };
        let mut headers = write.headers;
        let shown = proof.as_ref().map(|proof| &proof.authorization).or(write.authorization);
        headers.extend(shown.map(|shown| (header::AUTHORIZATION, shown.clone())));
        let began = Instant::now();
        let mut moved = write.body.moved.subscribe();
        let sent = self.transport.write(&write.method, &url, headers, write.body);
        let written = async {
            let response = sent.await?;
            self.observer.answered(write.kind, response.status().as_u16(), began.elapsed());
            Ok(read(response, &url, write.limit_bytes).await)
        };
        let written = still(written, &mut moved).await;
        if let (Some(auth), Ok(Written { status: StatusCode::UNAUTHORIZED, headers, .. })) = (&auth, &written) {
            auth.refused_write(place, headers, proof).await;
        }
        match &written {
            Ok(written) if is_meant(written.status) => self.endpoints.answered(endpoint),
            // Whether a write that fails is about the endpoint or about the write is not known.
            Ok(_) => {}
            Err(error) => {
                self.endpoints.failed(caller.map(Caller::id), endpoint, error);
                self.observer.failed(error);
            }
        }
        written
    }
}

/// Returns true for an answer that the registry meant: neither that it cannot answer, nor that it was asked too much.
fn is_meant(status: StatusCode) -> bool {
    !status.is_server_error() && !matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// Waits for `answer` as long as the body moves, and [`STILL_LIMIT`] beyond.
async fn still<T>(
    answer: impl Future<Output = Result<T, UpstreamError>>,
    moved: &mut watch::Receiver<()>,
) -> Result<T, UpstreamError> {
    let mut answer = std::pin::pin!(answer);
    let mut moves = true;
    loop {
        let next = timeout(STILL_LIMIT, async {
            tokio::select! {
                answer = answer.as_mut() => Some(answer),
                // The sender goes with the body, which is sent whole then.
                moved = moved.changed(), if moves => { moves = moved.is_ok(); None }
            }
        });
        match next.await {
            Ok(Some(answer)) => return answer,
            Ok(None) => {}
            Err(_elapsed) => return Err(UpstreamError::TimedOut { limit: "write time-out", after: STILL_LIMIT }),
        }
    }
}

async fn read(response: Response<Incoming>, asked: &Url, limit_bytes: usize) -> Written {
    let (parts, body) = response.into_parts();
    // An answer without its words is an answer.
    let body = answer::read(body, &parts.headers, limit_bytes).await.unwrap_or_default();
    let upload = answer::text(&parts.headers, &header::LOCATION).and_then(|location| upload_url(asked, location));
    let digest = answer::content_digest(&parts.headers);
    Written { status: parts.status, headers: parts.headers, digest, upload, body }
}

/// Returns where an upload goes on: at the host that was asked, by the scheme and port that it was asked by, whatever it takes itself
/// for behind its proxies.
fn upload_url(asked: &Url, location: &str) -> Option<UploadUrl> {
    let told = asked.join(location).ok()?;
    if told.host() != asked.host() {
        return None;
    }
    let mut url = asked.clone();
    url.set_path(told.path());
    url.set_query(told.query());
    Some(UploadUrl(url))
}

fn with_query(mut url: Url, more: &str) -> Url {
    if !more.is_empty() {
        let query =
            url.query().filter(|query| !query.is_empty()).map_or(more.to_owned(), |query| format!("{query}&{more}"));
        url.set_query(Some(&query));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_where_the_upstream_says_at_the_same_host() {
        let asked = Url::parse("https://a.io:8443/v2/app/blobs/uploads/").unwrap();
        for (location, expected) in [
            (
                "/v2/app/blobs/uploads/1?_state=x%2F",
                Some("https://a.io:8443/v2/app/blobs/uploads/1?_state=x%2F&digest=d"),
            ),
            ("http://a.io/v2/app/blobs/uploads/1", Some("https://a.io:8443/v2/app/blobs/uploads/1?digest=d")),
            ("1", Some("https://a.io:8443/v2/app/blobs/uploads/1?digest=d")),
            ("https://b.io/v2/app/blobs/uploads/1", None),
        ] {
            let url = upload_url(&asked, location).map(|UploadUrl(url)| with_query(url, "digest=d").to_string());
            assert_eq!(url.as_deref(), expected, "P-150: {location}");
        }
    }

    #[test]
    fn a_write_that_is_refused_for_an_outage_is_no_sign_of_life() {
        for (status, expected) in [(201, true), (401, true), (404, true), (408, false), (429, false), (503, false)] {
            assert_eq!(is_meant(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_while_the_body_moves() {
        let moved = watch::Sender::new(());
        let mut watched = moved.subscribe();
        let moving = tokio::spawn(async move {
            for _ in 0..3 {
                tokio::time::sleep(STILL_LIMIT / 2).await;
                moved.send_replace(());
            }
        });
        let answer = async {
            tokio::time::sleep(STILL_LIMIT * 2).await;
            Ok(())
        };
        assert!(still(answer, &mut watched).await.is_ok());
        moving.await.unwrap();
        let never = still(std::future::pending::<Result<(), _>>(), &mut watched).await;
        assert!(matches!(never, Err(UpstreamError::TimedOut { after: STILL_LIMIT, .. })));
    }
}
