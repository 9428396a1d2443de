//! An upstream with one blob, which it gives out chunk by chunk, with faults.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::{Semaphore, watch};

use crate::oci::{Digest, Reference, RepositoryName, UpstreamName};
use crate::upstream::{
    BlobHead, BlobTransfer, Caller, Capabilities, Capability, EndpointId, ListPage, ManifestAnswer, ManifestHead,
    Origin, RateLimit, UpstreamError, Write, Written,
};

/// What goes wrong with one transfer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// The transfer breaks after that many bytes.
    CutAfter(u64),
    /// The byte at that offset is another one.
    WrongByteAt(u64),
    /// The length is not told.
    NoLength,
    /// The length is not told, and everything breaks after that many bytes.
    NoLengthCutAfter(u64),
    /// The length is not told, and that many bytes come as if they were all.
    NoLengthUpTo(u64),
    /// The whole blob is said to be that many bytes, and so many come.
    SaidToBe(u64),
    /// The length is not told, and as many bytes more come after the blob's.
    NoLengthAndMore(u64),
    /// A range is answered with the whole blob.
    IgnoreRange,
    /// The upstream refuses.
    Status(u16),
}

/// One blob, given out chunk by chunk as permits allow.
#[derive(Debug)]
pub(in crate::cache) struct ScriptedOrigin {
    pub(super) name: UpstreamName,
    pub(super) blob: Bytes,
    pub(super) faults: Mutex<VecDeque<Fault>>,
    /// What was asked: start and end of every transfer.
    pub(super) asked: watch::Sender<Vec<(u64, Option<u64>)>>,
    pub(super) heads: AtomicU64,
    pub(super) capabilities: Capabilities,
    pub(super) sent: Arc<AtomicU64>,
    /// One permit per chunk; closed: no limit.
    pub(super) pace: Arc<Semaphore>,
}

pub(super) const CHUNK: usize = 16 * 1024;

impl ScriptedOrigin {
    pub(in crate::cache) fn new(blob: Bytes) -> Self {
        let pace = Arc::new(Semaphore::new(0));
        pace.close();
        Self {
            name: "registry.test".parse().unwrap(),
            blob,
            faults: Mutex::default(),
            asked: watch::Sender::default(),
            heads: AtomicU64::new(0),
            capabilities: Capabilities::default(),
            sent: Arc::default(),
            pace,
        }
    }

    /// Gives out as many chunks as permits are added to `pace`.
    pub(super) fn paced(mut self) -> Self {
        self.pace = Arc::new(Semaphore::new(0));
        self
    }

    pub(super) fn faults(self, faults: impl IntoIterator<Item = Fault>) -> Self {
        *self.faults.lock().unwrap() = faults.into_iter().collect();
        self
    }

    pub(super) fn asked(&self) -> Vec<(u64, Option<u64>)> {
        self.asked.borrow().clone()
    }

    /// Waits until `count` transfers have been asked for.
    pub(super) async fn wait_for_transfers(&self, count: usize) {
        self.asked.subscribe().wait_for(|asked| asked.len() >= count).await.unwrap();
    }

    pub(super) fn transfer(&self, start: u64, end: Option<u64>) -> Result<BlobTransfer, UpstreamError> {
        self.asked.send_modify(|asked| asked.push((start, end)));
        let fault = self.faults.lock().unwrap().pop_front();
        let mut bytes = self.blob.clone();
        let (mut from, mut to) = (start, end.map_or(u64::MAX, |end| end + 1).min(bytes.len() as u64));
        let mut size_bytes = Some(bytes.len() as u64);
        let mut is_range = start > 0 || end.is_some();
        let mut cut = None;
        match fault {
            None | Some(Fault::None) => {}
            Some(Fault::CutAfter(n)) => cut = Some(n),
            Some(Fault::WrongByteAt(at)) => {
                let mut wrong = bytes.to_vec();
                wrong[usize::try_from(at).unwrap()] ^= 1;
                bytes = wrong.into();
            }
            Some(Fault::NoLength) => {
                (from, to, is_range) = (0, bytes.len() as u64, false);
                size_bytes = None;
            }
            Some(Fault::NoLengthCutAfter(n)) => {
                (from, to, is_range, size_bytes) = (0, bytes.len() as u64, false, None);
                cut = Some(n);
            }
            Some(Fault::NoLengthUpTo(n)) => (from, to, is_range, size_bytes) = (0, n, false, None),
            Some(Fault::SaidToBe(n)) => (from, to, is_range, size_bytes) = (0, n, false, Some(n)),
            Some(Fault::NoLengthAndMore(n)) => {
                bytes = [&bytes[..], &vec![0; usize::try_from(n).unwrap()]].concat().into();
                (from, to, is_range, size_bytes) = (0, bytes.len() as u64, false, None);
            }
            Some(Fault::IgnoreRange) => (from, to, is_range) = (0, bytes.len() as u64, false),
            Some(Fault::Status(404)) => return Err(UpstreamError::NotFound { message: None }),
            Some(Fault::Status(status)) => return Err(UpstreamError::Status { status, message: None }),
        }
        let wanted = bytes.slice(usize::try_from(from).unwrap()..usize::try_from(to).unwrap());
        let given = cut.map_or(wanted.len(), |n| usize::try_from(n).unwrap().min(wanted.len()));
        let mut chunks: Vec<Result<Bytes, UpstreamError>> = Vec::new();
        for at in (0..given).step_by(CHUNK) {
            chunks.push(Ok(wanted.slice(at..given.min(at + CHUNK))));
        }
        if cut.is_some() {
            chunks.push(Err(UpstreamError::Truncated { received_bytes: given as u64, source: None }));
        }
        let (pace, sent) = (Arc::clone(&self.pace), Arc::clone(&self.sent));
        let chunks = stream::iter(chunks).then(move |chunk| {
            let (pace, sent) = (Arc::clone(&pace), Arc::clone(&sent));
            async move {
                if let Ok(permit) = pace.acquire().await {
                    permit.forget();
                }
                sent.fetch_add(chunk.as_ref().map_or(0, |chunk| chunk.len() as u64), Ordering::SeqCst);
                chunk
            }
        });
        let is_range = is_range && size_bytes.is_some();
        Ok(BlobTransfer { start: from, size_bytes, is_range, endpoint: EndpointId::default(), chunks: chunks.boxed() })
    }
}

impl Origin for ScriptedOrigin {
    fn name(&self) -> &UpstreamName {
        &self.name
    }

    fn capability(&self, which: Capability) -> Option<bool> {
        self.capabilities.get(which, tokio::time::Instant::now())
    }

    fn note_capability(&self, which: Capability, is_there: bool) {
        self.capabilities.note(which, is_there, tokio::time::Instant::now());
    }

    fn refusal_now(&self, _limit: RateLimit) -> Option<UpstreamError> {
        None
    }

    fn manifest_head<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _reference: &'a Reference,
        _accept: &'a str,
    ) -> BoxFuture<'a, Result<ManifestHead, UpstreamError>> {
        async { Err(UpstreamError::NotFound { message: None }) }.boxed()
    }

    fn manifest<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _reference: &'a Reference,
        _accept: &'a str,
        _limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ManifestAnswer, UpstreamError>> {
        async { Err(UpstreamError::NotFound { message: None }) }.boxed()
    }

    fn blob_head<'a>(
        &'a self,
        repository: &'a RepositoryName,
        _digest: &'a Digest,
    ) -> BoxFuture<'a, Result<BlobHead, UpstreamError>> {
        self.heads.fetch_add(1, Ordering::SeqCst);
        let known = !repository.as_str().starts_with("foreign");
        let size_bytes = Some(self.blob.len() as u64);
        async move { if known { Ok(BlobHead { size_bytes }) } else { Err(UpstreamError::NotFound { message: None }) } }
            .boxed()
    }

    fn blob<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _digest: &'a Digest,
        start: u64,
        end: Option<u64>,
    ) -> BoxFuture<'a, Result<BlobTransfer, UpstreamError>> {
        async move { self.transfer(start, end) }.boxed()
    }

    fn tags<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _query: &'a str,
        _limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ListPage, UpstreamError>> {
        async { Err(UpstreamError::NotFound { message: None }) }.boxed()
    }

    fn referrers<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _subject: &'a Digest,
        _query: &'a str,
        _limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ListPage, UpstreamError>> {
        async { Err(UpstreamError::NotFound { message: None }) }.boxed()
    }

    fn write<'a>(&'a self, _write: Write<'a>) -> BoxFuture<'a, Result<Written, UpstreamError>> {
        async { Err(UpstreamError::NotFound { message: None }) }.boxed()
    }

    fn as_caller(&self, _caller: &Caller) -> Arc<dyn Origin> {
        unreachable!("everybody may read what it has")
    }

    fn may_read_blob<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _digest: &'a Digest,
    ) -> BoxFuture<'a, Result<(), UpstreamError>> {
        async { Ok(()) }.boxed()
    }

    fn distrust(&self, _endpoint: EndpointId) {}

    fn free_transfers(&self) -> usize {
        32
    }
}
