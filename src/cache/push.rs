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
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use moka::sync::Cache as Memo;

pub(super) use fallback::Keeper;
pub use manifest::{ManifestPush, ManifestPushed};
pub(super) use session::Sessions;
pub use spool::Incoming;
pub use upload::{Begin, Begun, Chunk, UploadStatus};

use super::{Cache, CacheError, Place, Upstream};
use crate::oci::{Digest, RepositoryName};
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

/// How long after a write a repository counts as unsettled: longer than any question takes that was asked before.
const UNSETTLED: Duration = Duration::from_mins(1);

/// Repositories that this is remembered of.
const UNSETTLED_MAX: u64 = 10_000;

/// The repositories that were written to a moment ago.
pub(super) type Unsettled = Memo<Place<()>, ()>;

pub(super) fn unsettled() -> Unsettled {
    Memo::builder().max_capacity(UNSETTLED_MAX).time_to_live(UNSETTLED).build()
}

impl Cache {
    /// Returns false when the repository was written to a moment ago. Questions that were asked before may still bring answers of
    /// before: of such a repository, absences and lists are not remembered (P-157).
    pub(super) fn is_settled(&self, upstream: &Upstream, repository: &RepositoryName) -> bool {
        !self.0.unsettled.contains_key(&Place::new(upstream, repository, ()))
    }

    /// Notes that the repository was written to. Questions about it that are under way are outdated.
    fn is_written(&self, writer: &Writer<'_>) {
        let written = writer.place(());
        self.0.unsettled.insert(written.clone(), ());
        self.0.tags.forget(|place| place.is_within(&written));
        self.0.manifests.forget(|place| place.is_within(&written));
        self.0.existence.forget(|place| place.is_within(&written));
    }

    /// Notes that manifests of the repository came, went or were tagged: all lists of it are outdated as well.
    fn is_listed_anew(&self, writer: &Writer<'_>) {
        self.is_written(writer);
        let written = writer.place(());
        self.0.page_flights.forget(|place| place.is_within(&written));
        self.0.list_flights.forget(|place| place.is_within(&written));
        for (place, _) in self.0.pages.iter().filter(|(place, _)| place.is_within(&written)) {
            self.0.pages.invalidate(&*place);
        }
        for (place, _) in self.0.lists.iter().filter(|(place, _)| place.is_within(&written)) {
            self.0.lists.invalidate(&*place);
        }
    }
}

impl<T> Place<T> {
    fn is_within(&self, repository: &Place<()>) -> bool {
        self.upstream == repository.upstream && self.repository == repository.repository
    }
}
