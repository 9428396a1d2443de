//! Pushes and deletes: relayed to the upstream in the caller's name, and what they change is known here before they are answered.
//!
//! * `session` is what is known of an upload under way; `upload` moves its bytes: to the upstream and, on the way, into a `spool`, so
//!   that what was pushed is in the cache without being fetched.
//! * `manifest` relays manifests. Where the upstream has no referrers API, `fallback` keeps its fallback tags, as clients would have to.
//!
//! The order of chunks and the digests are checked here as well: not every upstream does. What the upstream refuses is told in its
//! own words. Nothing is tried twice, and the upstream's credentials are never used (P-148…P-162, S-6).

mod fallback;
mod manifest;
mod session;
mod spool;
mod upload;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode};

pub(super) use fallback::Keeper;
pub use manifest::{ManifestPush, ManifestPushed};
pub(super) use session::Sessions;
pub use spool::Incoming;
pub use upload::{Begin, Begun, Chunk, UploadStatus};

use super::{Cache, CacheError, Place, Upstream};
use crate::oci::{Digest, Reference, RepositoryName};
use crate::store::GrantKind;
use crate::upstream::{Outgoing, RequestKind, Target, UpstreamError, Write, Written};

/// Who writes, and where.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    pub upstream: &'a Arc<Upstream>,
    pub repository: &'a RepositoryName,
    /// What the caller proves itself by, as it came.
    pub authorization: Option<&'a HeaderValue>,
}

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// In the upstream's own words.
    #[error("the upstream answered {}", .0.status)]
    Refused(Box<Written>),
    #[error(transparent)]
    Failed(#[from] CacheError),
    /// There is none of that name, or it is another caller's.
    #[error("no such upload, or it has ended: begin a new one")]
    UnknownUpload,
    #[error("the next byte of this upload is byte {offset}")]
    OutOfOrder { offset: u64 },
    #[error("Content-Range names {range_bytes} bytes, Content-Length {len_bytes}")]
    WrongLength { range_bytes: u64, len_bytes: u64 },
    #[error("the bytes do not have the digest {expected}")]
    WrongDigest { expected: Digest },
}

impl Writer<'_> {
    /// Sends one write, and returns what the upstream says, whatever it is.
    async fn send(
        &self,
        kind: RequestKind,
        method: Method,
        target: Target<'_>,
        headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Written, CacheError> {
        let (repository, authorization) = (self.repository, self.authorization);
        let write = Write { kind, method, repository, target, headers, authorization, body };
        self.upstream.origin.write(write).await.map_err(|error| self.upstream.error(error))
    }

    /// Sends one without a body.
    async fn ask(&self, kind: RequestKind, method: Method, target: Target<'_>) -> Result<Written, CacheError> {
        self.send(kind, method, target, HeaderMap::new(), Outgoing::empty()).await
    }

    fn place<T>(&self, what: T) -> Place<T> {
        Place::new(self.upstream, self.repository, what)
    }
}

impl Written {
    /// Returns true when the content is not there, whether it has been deleted or never was.
    fn is_gone(&self) -> bool {
        self.status.is_success() || self.status == StatusCode::NOT_FOUND
    }

    /// Returns it when it is a success, else the refusal that it is. What an upstream could not do is its failure, not its word.
    fn accepted(self, writer: &Writer<'_>) -> Result<Self, PushError> {
        match self.status {
            status if status.is_success() => Ok(self),
            status if status.is_client_error() => Err(PushError::Refused(Box::new(self))),
            status => {
                let error = UpstreamError::Status { status: status.as_u16(), message: None };
                Err(writer.upstream.error(error).into())
            }
        }
    }
}

impl Cache {
    /// Forgets that something was absent.
    fn is_there(&self, writer: &Writer<'_>, kind: GrantKind, reference: Reference) {
        self.0.negatives.invalidate(&writer.place((kind, reference)));
    }
}
