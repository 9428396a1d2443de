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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use moka::sync::Cache as Memo;
use tokio::sync::oneshot;

pub(super) use fallback::Keeper;
pub use manifest::{ManifestPush, ManifestPushed};
pub(super) use session::Sessions;
pub use spool::Incoming;
pub use upload::{Begin, Begun, Chunk, UploadStatus};

use super::{Cache, CacheError, Place, Upstream};
use crate::oci::{Digest, Reference, RepositoryName};
use crate::upstream::{Outgoing, RequestKind, Target, UpstreamError, Write, Written};
use crate::wire::Accept;

/// Bytes of an answer's body at the most: an error, or nothing of interest.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Who writes, and where. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    pub upstream: Arc<Upstream>,
    pub repository: RepositoryName,
    /// What the caller proves itself by, as it came.
    pub authorization: Option<HeaderValue>,
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

impl Writer {
    /// Sends one write, and returns what the upstream says, whatever it is.
    async fn send(
        &self,
        kind: RequestKind,
        method: Method,
        target: Target<'_>,
        headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Written, CacheError> {
        let (repository, authorization) = (&self.repository, self.authorization.as_ref());
        let limit_bytes = ANSWER_BYTES_MAX;
        let write = Write { kind, method, repository, target, headers, authorization, body, limit_bytes };
        self.upstream.origin.write(write).await.map_err(|error| self.upstream.error(error))
    }

    /// Reads a manifest as the caller may read it, at the endpoint that writes go to.
    async fn read_manifest(&self, reference: &Reference, limit_bytes: usize) -> Result<Written, CacheError> {
        let path = format!("manifests/{reference}");
        let read = Write {
            kind: RequestKind::of_manifest(reference),
            method: Method::GET,
            repository: &self.repository,
            target: Target::Path(&path, ""),
            headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(Accept::MANIFESTS))]),
            authorization: self.authorization.as_ref(),
            body: Outgoing::empty(),
            limit_bytes,
        };
        self.upstream.origin.write(read).await.map_err(|error| self.upstream.error(error))
    }

    /// Returns true when the upstream's yes was a yes to everybody, so that others may be served what was pushed. A caller who had to
    /// prove itself may do what they may not: then the upstream is asked for them, once they come (S-3).
    fn is_anybody(&self) -> bool {
        self.authorization.is_none()
    }

    /// Sends one without a body.
    async fn ask(&self, kind: RequestKind, method: Method, target: Target<'_>) -> Result<Written, CacheError> {
        self.send(kind, method, target, HeaderMap::new(), Outgoing::empty()).await
    }

    fn place<T>(&self, what: T) -> Place<T> {
        Place::new(&self.upstream, &self.repository, what)
    }
}

impl Written {
    /// Returns true when nothing has changed: the upstream said no. A 404 is none: what is to be deleted is not there.
    fn is_refused(&self) -> bool {
        self.status.is_client_error() && self.status != StatusCode::NOT_FOUND
    }

    /// Returns it when it is a success, else the refusal that it is. What an upstream could not do is its failure, not its word.
    fn accepted(self, writer: &Writer) -> Result<Self, PushError> {
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

/// Returns true when a write may have changed something: the upstream has said yes, or nobody knows. What never reached it takes nothing
/// from the cache: whoever may ask could empty it while the upstream is down.
fn may_have_changed(written: &Result<Written, CacheError>) -> bool {
    match written {
        Ok(written) => !written.is_refused(),
        Err(CacheError::Upstream { source, .. }) => !source.is_unsent(),
        Err(_) => true,
    }
}

/// How long after a write a repository counts as unsettled: longer than any question takes that was asked before.
const UNSETTLED: Duration = Duration::from_mins(1);

/// Repositories that this is remembered of.
const UNSETTLED_MAX: u64 = 10_000;

/// The repositories that were written to a moment ago.
pub(super) type Unsettled = Memo<Place<()>, Edition>;

/// Which state of a repository an answer is about; 0 for one that was not written to for long.
pub(super) type Edition = u64;

pub(super) fn unsettled() -> Unsettled {
    Memo::builder().max_capacity(UNSETTLED_MAX).time_to_live(UNSETTLED).build()
}

/// Numbers of editions, of all repositories together.
static EDITIONS: AtomicU64 = AtomicU64::new(1);

impl Cache {
    /// Returns false when the repository was written to a moment ago. Questions that were asked before may still bring answers of
    /// before: of such a repository, absences are not remembered, and lists for a failure only (P-157).
    pub(super) fn is_settled(&self, upstream: &Upstream, repository: &RepositoryName) -> bool {
        !self.0.unsettled.contains_key(&Place::new(upstream, repository, ()))
    }

    /// Returns the state of the repository at this moment: what is learned of one is not true of another.
    pub(super) fn edition(&self, upstream: &Upstream, repository: &RepositoryName) -> Edition {
        self.0.unsettled.get(&Place::new(upstream, repository, ())).unwrap_or_default()
    }

    /// Forgets the uploads that nobody has moved for long.
    pub fn expire_uploads(&self) {
        self.0.sessions.expire();
    }

    /// Runs a write to its end, also when its caller leaves: what it changes must be known here.
    async fn to_its_end<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, PushError>> + Send + 'static,
    ) -> Result<T, PushError> {
        let (done, told) = oneshot::channel();
        self.0.tasks.spawn(name, async move {
            // Who does not wait any more has gone away.
            let _gone = done.send(work.await);
        });
        told.await.unwrap_or(Err(PushError::Failed(CacheError::Aborted)))
    }

    /// Notes that the repository was written to, or may have been. Questions about it that are under way are outdated.
    fn is_written(&self, writer: &Writer) {
        let written = writer.place(());
        self.0.unsettled.insert(written.clone(), EDITIONS.fetch_add(1, Ordering::Relaxed));
        self.0.tags.forget(|place| place.is_within(&written));
        self.0.manifests.forget(|place| place.is_within(&written));
        self.0.existence.forget(|place| place.is_within(&written));
    }

    /// Notes that manifests of the repository came, went or were tagged: all lists of it are outdated as well.
    fn is_listed_anew(&self, writer: &Writer) {
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
