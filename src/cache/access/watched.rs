//! An upstream in a caller's name, watched: when it says no, what it said of the caller before does not hold any more (S-7).

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Viewer;
use crate::oci::{Digest, Reference, RepositoryName, UpstreamName};
use crate::upstream::{
    BlobHead, BlobTransfer, Caller, Capability, EndpointId, ListPage, ManifestAnswer, ManifestHead, Origin, RateLimit,
    UpstreamError, Write, Written,
};

/// An origin and who asks it.
#[derive(Debug)]
pub(super) struct Watched {
    origin: Arc<dyn Origin>,
    viewer: Viewer,
}

impl Watched {
    pub(super) fn new(origin: Arc<dyn Origin>, viewer: Viewer) -> Self {
        Self { origin, viewer }
    }

    fn watch<'a, T: Send + 'a>(
        &'a self,
        repository: &'a RepositoryName,
        answer: BoxFuture<'a, Result<T, UpstreamError>>,
    ) -> BoxFuture<'a, Result<T, UpstreamError>> {
        let watched = async move {
            let answer = answer.await;
            if let Err(UpstreamError::Denied { .. }) = &answer {
                self.viewer.is_denied(repository);
            }
            answer
        };
        watched.boxed()
    }
}

impl Origin for Watched {
    fn name(&self) -> &UpstreamName {
        self.origin.name()
    }

    fn as_caller(&self, caller: &Caller) -> Arc<dyn Origin> {
        self.origin.as_caller(caller)
    }

    fn manifest_head<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
        accept: &'a str,
    ) -> BoxFuture<'a, Result<ManifestHead, UpstreamError>> {
        // A HEAD that is denied is not the last word (P-137): the GET after it is.
        self.origin.manifest_head(repository, reference, accept)
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
        accept: &'a str,
        limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ManifestAnswer, UpstreamError>> {
        self.watch(repository, self.origin.manifest(repository, reference, accept, limit_bytes))
    }

    fn blob_head<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<BlobHead, UpstreamError>> {
        self.watch(repository, self.origin.blob_head(repository, digest))
    }

    fn may_read_blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<(), UpstreamError>> {
        self.watch(repository, self.origin.may_read_blob(repository, digest))
    }

    fn blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
        start: u64,
        end: Option<u64>,
    ) -> BoxFuture<'a, Result<BlobTransfer, UpstreamError>> {
        self.watch(repository, self.origin.blob(repository, digest, start, end))
    }

    fn tags<'a>(
        &'a self,
        repository: &'a RepositoryName,
        query: &'a str,
        limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ListPage, UpstreamError>> {
        self.watch(repository, self.origin.tags(repository, query, limit_bytes))
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a RepositoryName,
        subject: &'a Digest,
        query: &'a str,
        limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ListPage, UpstreamError>> {
        self.watch(repository, self.origin.referrers(repository, subject, query, limit_bytes))
    }

    // A right to write says nothing about reading, nor does its lack.
    fn write<'a>(&'a self, write: Write<'a>) -> BoxFuture<'a, Result<Written, UpstreamError>> {
        self.origin.write(write)
    }

    fn distrust(&self, endpoint: EndpointId) {
        self.origin.distrust(endpoint);
    }

    fn refusal_now(&self, limit: RateLimit) -> Option<UpstreamError> {
        self.origin.refusal_now(limit)
    }

    fn capability(&self, which: Capability) -> Option<bool> {
        self.origin.capability(which)
    }

    fn note_capability(&self, which: Capability, is_there: bool) {
        self.origin.note_capability(which, is_there);
    }

    fn free_transfers(&self) -> usize {
        self.origin.free_transfers()
    }
}
