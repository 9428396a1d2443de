//! The questions that the cache may put to one upstream.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use super::caller::Caller;
use super::capability::Capability;
use super::error::{RateLimit, UpstreamError};
use super::write::{Write, Written};
use crate::oci::{Digest, MediaType, Reference, RepositoryName, UpstreamName};

/// One upstream registry, as the cache sees it.
///
/// Every method authenticates, follows redirects, obeys the upstream's limits and gives up within the header budget.
/// Dropping a returned future or stream closes its transfer.
pub trait Origin: Send + Sync + fmt::Debug {
    fn name(&self) -> &UpstreamName;

    /// Returns the same upstream in the name of `caller`: its transport, limits, health and what is known of it are shared, our account is
    /// not. What the caller shows goes where our account would go, and nowhere else.
    fn as_caller(&self, caller: &Caller) -> Arc<dyn Origin>;

    /// Asks what `reference` is, without its bytes (HEAD; free of charge at Docker Hub, U-4).
    ///
    /// `accept` is the value of the `Accept` header to send.
    fn manifest_head<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
        accept: &'a str,
    ) -> BoxFuture<'a, Result<ManifestHead, UpstreamError>>;

    /// Fetches a manifest whole; one above `limit_bytes` is [`UpstreamError::TooLarge`].
    ///
    /// The bytes are as received and **not verified**: that is the cache's work.
    fn manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
        accept: &'a str,
        limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ManifestAnswer, UpstreamError>>;

    /// Asks for a blob's size without its bytes: HEAD, or `bytes=0-0` where HEAD is refused (P-51, U-28, U-46).
    fn blob_head<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<BlobHead, UpstreamError>>;

    /// Asks whether the registry gives a blob, by itself or by telling where it is; where that is clear, nobody is asked there.
    ///
    /// # Errors
    /// It does not, or does not say.
    fn may_read_blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<(), UpstreamError>>;

    /// Starts a transfer of a blob from byte `start` to byte `end` inclusive, or to its end.
    ///
    /// The answer says where the transfer really starts: an upstream that ignores ranges starts at 0 (U-64, P-67).
    fn blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
        start: u64,
        end: Option<u64>,
    ) -> BoxFuture<'a, Result<BlobTransfer, UpstreamError>>;

    /// Asks for a page of the repository's tags by `query`, encoded as it is sent; a page above `limit_bytes` is
    /// [`UpstreamError::TooLarge`].
    fn tags<'a>(
        &'a self,
        repository: &'a RepositoryName,
        query: &'a str,
        limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ListPage, UpstreamError>>;

    /// Asks for a page of the manifests that refer to `subject`, as [`Origin::tags`] does.
    fn referrers<'a>(
        &'a self,
        repository: &'a RepositoryName,
        subject: &'a Digest,
        query: &'a str,
        limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ListPage, UpstreamError>>;

    /// Relays a write in its caller's name, once, and returns what the upstream says, whatever the status.
    fn write<'a>(&'a self, write: Write<'a>) -> BoxFuture<'a, Result<Written, UpstreamError>>;

    /// Notes that `endpoint` sent bytes that do not match their digest: it is asked last for a while.
    fn distrust(&self, endpoint: EndpointId);

    /// Returns why a question would be refused at this moment without being asked, if that is so: the upstream failed not long ago, or
    /// said to wait. `limit` is the one that the question counts for.
    fn refusal_now(&self, limit: RateLimit) -> Option<UpstreamError>;

    /// Returns whether the upstream can do this, as far as is known.
    fn capability(&self, which: Capability) -> Option<bool>;

    /// Notes what an answer told of the upstream.
    fn note_capability(&self, which: Capability, is_there: bool);

    /// Returns how many blob transfers could start at this moment without waiting for a turn.
    fn free_transfers(&self) -> usize;
}

/// What a HEAD of a manifest told; each field is `None` when the upstream left it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// The upstream's claim, not proof (S-10).
    pub digest: Option<Digest>,
    pub media_type: Option<MediaType>,
    pub size_bytes: Option<u64>,
}

/// A manifest as received.
#[derive(Debug, Clone)]
pub struct ManifestAnswer {
    pub bytes: Bytes,
    pub media_type: Option<MediaType>,
    /// The upstream's claim, not proof (S-10).
    pub digest: Option<Digest>,
}

/// A page of a list, of tags or of referrers, as received.
#[derive(Debug, Clone)]
pub struct ListPage {
    pub bytes: Bytes,
    pub media_type: Option<MediaType>,
    /// The query of the next page, encoded as the upstream gave it (P-96).
    pub next_query: Option<String>,
}

/// What is known of a blob without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobHead {
    pub size_bytes: Option<u64>,
}

/// Which endpoint of an upstream, by its place in the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub(super) usize);

/// Some bytes of a blob on their way.
pub struct BlobTransfer {
    /// The offset of the first byte that `chunks` yields.
    pub start: u64,
    /// The blob's whole length, when the upstream told it (P-44).
    pub size_bytes: Option<u64>,
    /// The answer is the range that was asked for (206), not the whole blob.
    pub is_range: bool,
    /// Who sends it.
    pub endpoint: EndpointId,
    /// The bytes. An end before what was announced is an `Err`, never a clean end (P-50).
    pub chunks: Chunks,
}

/// Bytes in order, as the network gives them.
pub type Chunks = BoxStream<'static, Result<Bytes, UpstreamError>>;

impl fmt::Debug for BlobTransfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobTransfer")
            .field("start", &self.start)
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}
