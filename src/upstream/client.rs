//! The client of one upstream registry: every question of [`Origin`] as HTTP requests.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::Instant;
use url::Url;

use super::answer;
use super::caller::{Caller, CallerKey};
use super::capability::Capability;
use super::error::{RateLimit, UpstreamError};
use super::exchange::{Exchange, Question};
use super::given::{self, Given};
use super::limit::Budget;
use super::observe::{Observer, RequestKind};
use super::options::{Options, OptionsError, Timeouts};
use super::origin::{BlobHead, BlobTransfer, EndpointId, ListPage, ManifestAnswer, ManifestHead, Origin};
use super::range::{self, Placement};
use super::transfer::Transfer;
use super::transport::Pool;
use super::write::{Write, Written};
use crate::oci::{Digest, MediaType, Reference, RepositoryName, UpstreamName};
use crate::tasks::TaskGroup;

/// A client of one upstream. Cheap to share, never to clone: its pools, tokens and limits are the upstream's.
///
/// # Cancel safety
/// Dropping a future or a stream that it gave closes the transfer and gives its turn to the next. Nothing goes on
/// without its asker, except that a connection being opened may end in the pool.
pub struct Client {
    name: UpstreamName,
    timeouts: Timeouts,
    exchange: Exchange,
    /// Under which those who write are told apart.
    writers: Arc<CallerKey>,
}

impl Client {
    /// Makes a client; no connection is opened. Reads the system's root certificates: some milliseconds of file I/O. What it does beside
    /// answering, looking whether an endpoint is back, runs in `tasks`.
    ///
    /// # Errors
    /// When `options` have no endpoint, or one that is not a plain `http` or `https` URL.
    pub fn new(options: &Options, observer: Arc<dyn Observer>, tasks: TaskGroup) -> Result<Self, OptionsError> {
        if !options.endpoints.iter().all(is_endpoint) {
            return Err(OptionsError::Endpoint(options.name.clone()));
        }
        if options.endpoints.is_empty() {
            return Err(OptionsError::NoEndpoint(options.name.clone()));
        }
        let exchange = Exchange::new(options, observer, tasks);
        let writers = Arc::new(CallerKey::new());
        Ok(Self { name: options.name.clone(), timeouts: options.timeouts, exchange, writers })
    }

    async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        accept: &str,
    ) -> Result<ManifestHead, UpstreamError> {
        let budget = Budget::start(self.timeouts.header);
        let question = manifest_question(Method::HEAD, repository, reference, accept)?;
        let _permit = self.exchange.request_turn(&budget, question.counts_for()).await?;
        let attempt = async |endpoint, pool| {
            let response = self.exchange.attempt(&question, endpoint, pool).await?;
            let response = expect_ok(response).await?;
            let headers = response.headers();
            Ok(ManifestHead {
                digest: answer::content_digest(headers),
                media_type: answer::media_type(headers),
                size_bytes: answer::content_length(headers),
            })
        };
        self.exchange.persist(&budget, question.counts_for(), Pool::Api, attempt).await
    }

    async fn fetch_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        accept: &str,
        limit_bytes: usize,
    ) -> Result<ManifestAnswer, UpstreamError> {
        let budget = Budget::start(self.timeouts.header);
        let question = manifest_question(Method::GET, repository, reference, accept)?;
        let _permit = self.exchange.request_turn(&budget, question.counts_for()).await?;
        let attempt = async |endpoint, pool| {
            let response = self.exchange.attempt(&question, endpoint, pool).await?;
            let (parts, body) = expect_ok(response).await?.into_parts();
            let bytes = answer::read(body, &parts.headers, limit_bytes).await?;
            let (media_type, digest) = (answer::media_type(&parts.headers), answer::content_digest(&parts.headers));
            Ok(ManifestAnswer { bytes, media_type, digest })
        };
        self.exchange.persist(&budget, question.counts_for(), Pool::Api, attempt).await
    }

    /// Asks by HEAD, and where that is refused by the shortest GET: signed URLs are bound to a method (U-46).
    async fn head_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<BlobHead, UpstreamError> {
        let budget = Budget::start(self.timeouts.header);
        let _permit = self.exchange.request_turn(&budget, RateLimit::Requests).await?;
        let may_take_head = self.capability(Capability::BlobHead) != Some(false);
        if may_take_head {
            let head = blob_question(Method::HEAD, repository, digest, None)?;
            let attempt = async |endpoint, pool| {
                let response = expect_ok(self.exchange.attempt(&head, endpoint, pool).await?).await?;
                Ok(BlobHead { size_bytes: answer::content_length(response.headers()) })
            };
            match self.exchange.persist(&budget, RateLimit::Requests, Pool::Api, attempt).await {
                Err(UpstreamError::Denied { .. } | UpstreamError::Status { status: 405 | 501, .. }) => {}
                Ok(told) => {
                    self.note_capability(Capability::BlobHead, true);
                    return Ok(told);
                }
                Err(error) => return Err(error),
            }
        }
        let get = blob_question(Method::GET, repository, digest, Some((0, Some(0))))?;
        let attempt = async |endpoint, pool| {
            let response = self.exchange.attempt(&get, endpoint, pool).await?;
            first_byte(response).await
        };
        let told = self.exchange.persist(&budget, RateLimit::Requests, Pool::Blobs, attempt).await?;
        // A HEAD that is refused where GET is not was refused for being one.
        if may_take_head {
            self.note_capability(Capability::BlobHead, false);
        }
        Ok(told)
    }

    /// Asks by HEAD, and where that is refused by the shortest GET, as [`Client::head_blob`] does. Nobody is asked where the answer leads
    /// to, unless it is not clear that it leads to the blob.
    async fn ask_for_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), UpstreamError> {
        let budget = Budget::start(self.timeouts.header);
        let _permit = self.exchange.request_turn(&budget, RateLimit::Requests).await?;
        let first_byte = Some((0, Some(0)));
        let is_given = async |method, range, stays| {
            let question = Question { stays, ..blob_question(method, repository, digest, range)? };
            let attempt = async |endpoint, pool| {
                given::read(self.exchange.attempt(&question, endpoint, pool).await?, digest).await
            };
            self.exchange.persist(&budget, RateLimit::Requests, Pool::Api, attempt).await
        };
        let takes_head = self.capability(Capability::BlobHead);
        let mut told = None;
        if takes_head != Some(false) {
            match is_given(Method::HEAD, None, true).await {
                Err(UpstreamError::Denied { .. }) if takes_head.is_none() => {}
                // A HEAD may say no where a GET makes the upstream fetch the blob itself (U-51).
                Err(UpstreamError::NotFound { .. } | UpstreamError::Status { status: 405 | 501, .. }) => {}
                answer => told = Some(answer?),
            }
        }
        let told = match told {
            Some(told) => told,
            None => is_given(Method::GET, first_byte, true).await?,
        };
        match told {
            Given::Yes => Ok(()),
            Given::Unclear => is_given(Method::GET, first_byte, false).await.map(drop),
        }
    }

    async fn fetch_list(&self, question: Question<'_>, limit_bytes: usize) -> Result<ListPage, UpstreamError> {
        let budget = Budget::start(self.timeouts.header);
        let _permit = self.exchange.request_turn(&budget, RateLimit::Requests).await?;
        let attempt = async |endpoint, pool| {
            let response = self.exchange.attempt(&question, endpoint, pool).await?;
            let (parts, body) = expect_ok(response).await?.into_parts();
            let bytes = answer::read(body, &parts.headers, limit_bytes).await?;
            let asked = self.exchange.endpoints.url(endpoint, &question.path);
            let next_query = asked.and_then(|asked| answer::next_query(&parts.headers, &asked));
            Ok(ListPage { bytes, media_type: answer::media_type(&parts.headers), next_query })
        };
        self.exchange.persist(&budget, question.counts_for(), Pool::Api, attempt).await
    }

    async fn fetch_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        start: u64,
        end: Option<u64>,
    ) -> Result<BlobTransfer, UpstreamError> {
        let budget = Budget::start(self.timeouts.header);
        let permit = self.exchange.transfer_turn(&budget).await?;
        let asked = (start > 0 || end.is_some()).then_some((start, end));
        let question = blob_question(Method::GET, repository, digest, asked)?;
        let attempt = async |endpoint, pool| {
            let response = self.exchange.attempt(&question, endpoint, pool).await?;
            place(response, asked).await.map(|placed| (placed, endpoint))
        };
        let ((placement, body), endpoint) =
            self.exchange.persist(&budget, RateLimit::Requests, Pool::Blobs, attempt).await?;
        if placement.is_range {
            self.note_capability(Capability::Ranges, true);
        }
        let observer = Arc::clone(&self.exchange.observer);
        let (name, endpoints) = (self.exchange.name, Arc::clone(&self.exchange.endpoints));
        let broken = move |error: &UpstreamError| {
            endpoints.failed(name, endpoint, error);
            observer.failed(error);
        };
        let transfer =
            Transfer { body, length: placement.length, idle: self.timeouts.idle, broken: Box::new(broken), permit };
        Ok(BlobTransfer {
            start: placement.start,
            size_bytes: placement.size_bytes,
            is_range: placement.is_range,
            endpoint,
            chunks: transfer.chunks(),
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .field("endpoints", &format_args!("{}", self.exchange.endpoints))
            .finish_non_exhaustive()
    }
}

impl Origin for Client {
    fn name(&self) -> &UpstreamName {
        &self.name
    }

    fn manifest_head<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
        accept: &'a str,
    ) -> BoxFuture<'a, Result<ManifestHead, UpstreamError>> {
        Box::pin(self.head_manifest(repository, reference, accept))
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
        accept: &'a str,
        limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ManifestAnswer, UpstreamError>> {
        Box::pin(self.fetch_manifest(repository, reference, accept, limit_bytes))
    }

    fn blob_head<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<BlobHead, UpstreamError>> {
        Box::pin(self.head_blob(repository, digest))
    }

    fn may_read_blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<(), UpstreamError>> {
        Box::pin(self.ask_for_blob(repository, digest))
    }

    fn as_caller(&self, caller: &Caller) -> Arc<dyn Origin> {
        let exchange = self.exchange.as_caller(caller);
        let (name, writers) = (self.name.clone(), Arc::clone(&self.writers));
        Arc::new(Self { name, timeouts: self.timeouts, exchange, writers })
    }

    fn blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
        start: u64,
        end: Option<u64>,
    ) -> BoxFuture<'a, Result<BlobTransfer, UpstreamError>> {
        Box::pin(self.fetch_blob(repository, digest, start, end))
    }

    fn tags<'a>(
        &'a self,
        repository: &'a RepositoryName,
        query: &'a str,
        limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ListPage, UpstreamError>> {
        let (path, headers) = (format!("{repository}/tags/list"), HeaderMap::new());
        let (kind, method) = (RequestKind::Tags, Method::GET);
        let question = Question { kind, method, path, query, repository, headers, stays: false };
        Box::pin(self.fetch_list(question, limit_bytes))
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a RepositoryName,
        subject: &'a Digest,
        query: &'a str,
        limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ListPage, UpstreamError>> {
        let path = format!("{repository}/referrers/{subject}");
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(MediaType::OCI_INDEX))]);
        let (kind, method) = (RequestKind::Referrers, Method::GET);
        let question = Question { kind, method, path, query, repository, headers, stays: false };
        Box::pin(self.fetch_list(question, limit_bytes))
    }

    fn write<'a>(&'a self, write: Write<'a>) -> BoxFuture<'a, Result<Written, UpstreamError>> {
        let caller = Caller::new(&self.writers, write.authorization).filter(|caller| caller.account().is_some());
        Box::pin(async move { self.exchange.write(write, caller.as_ref(), self.timeouts.header).await })
    }

    fn distrust(&self, endpoint: EndpointId) {
        self.exchange.endpoints.distrust(endpoint);
    }

    fn refusal_now(&self, limit: RateLimit) -> Option<UpstreamError> {
        self.exchange.refusal_now(limit)
    }

    fn capability(&self, which: Capability) -> Option<bool> {
        self.exchange.capabilities.get(which, Instant::now())
    }

    fn note_capability(&self, which: Capability, is_there: bool) {
        self.exchange.capabilities.note(which, is_there, Instant::now());
    }

    fn free_transfers(&self) -> usize {
        self.exchange.free_transfers()
    }
}

fn manifest_question<'a>(
    method: Method,
    repository: &'a RepositoryName,
    reference: &Reference,
    accept: &str,
) -> Result<Question<'a>, UpstreamError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, header_value(accept)?);
    let path = format!("{repository}/manifests/{reference}");
    let kind = RequestKind::of_manifest(reference);
    Ok(Question { kind, method, path, query: "", repository, headers, stays: false })
}

fn blob_question<'a>(
    method: Method,
    repository: &'a RepositoryName,
    digest: &Digest,
    range: Option<(u64, Option<u64>)>,
) -> Result<Question<'a>, UpstreamError> {
    let mut headers = HeaderMap::new();
    if let Some((start, end)) = range {
        let end = end.map(|end| end.to_string()).unwrap_or_default();
        headers.insert(header::RANGE, header_value(&format!("bytes={start}-{end}"))?);
    }
    let path = format!("{repository}/blobs/{digest}");
    Ok(Question { kind: RequestKind::Blob, method, path, query: "", repository, headers, stays: false })
}

fn is_endpoint(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

async fn expect_ok(response: Response<Incoming>) -> Result<Response<Incoming>, UpstreamError> {
    if response.status() == StatusCode::OK { Ok(response) } else { Err(answer::refusal(response).await) }
}

/// Reads a blob's size from the answer to a GET of its first byte.
async fn first_byte(response: Response<Incoming>) -> Result<BlobHead, UpstreamError> {
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        // An empty blob has no first byte (RFC 9110 §15.5.17).
        if let Some(size) = range::unsatisfied_total(response.headers()) {
            return Ok(BlobHead { size_bytes: Some(size) });
        }
    }
    let (placement, _) = place(response, Some((0, Some(0)))).await?;
    Ok(BlobHead { size_bytes: placement.size_bytes })
}

/// Checks that the answer is the blob, or the part that was asked for.
async fn place(
    response: Response<Incoming>,
    asked: Option<(u64, Option<u64>)>,
) -> Result<(Placement, Incoming), UpstreamError> {
    match response.status() {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
        StatusCode::RANGE_NOT_SATISFIABLE => {
            return Err(UpstreamError::Range { reason: "not satisfiable (status 416)" });
        }
        _ => return Err(answer::refusal(response).await),
    }
    let placement = range::place(asked, response.status(), response.headers()).map_err(|reason| match asked {
        Some(_) => UpstreamError::Range { reason },
        None => protocol(reason),
    })?;
    Ok((placement, response.into_body()))
}

fn header_value(text: &str) -> Result<HeaderValue, UpstreamError> {
    HeaderValue::from_str(text).map_err(|_| protocol("a header that HTTP cannot carry"))
}

fn protocol(reason: &str) -> UpstreamError {
    UpstreamError::Protocol { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(endpoint: &str) -> Result<Client, OptionsError> {
        let name = "docker.io".parse().expect("a name");
        let mut options = Options::new(name, Url::parse(endpoint).expect("a URL"));
        options.insecure = true; // no need to read roots
        Client::new(&options, Arc::new(()), TaskGroup::new())
    }

    #[test]
    fn an_endpoint_is_a_plain_http_url() {
        for endpoint in ["ftp://a", "https://user@a", "https://:secret@a", "https://a/?x", "https://a/#x", "data:,x"] {
            let error = client(endpoint).expect_err("not an endpoint");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
