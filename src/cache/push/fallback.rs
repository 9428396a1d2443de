//! Keeps the fallback tags of an upstream that has no referrers API: reads the list, merges, writes it, and looks whether it stands.
//!
//! One task at a time edits the tag of one subject; what comes meanwhile waits, and goes into the next write together. Against writers
//! elsewhere there is no lock in the protocol: a list that does not stand after the write is merged and written again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::manifest::put;
use super::{Cache, ManifestPush, Place, PushError, Writer};
use crate::cache::{CacheError, Upstream};
use crate::oci::{Digest, Manifest, MediaType, Reference, Referrer, Referrers, RepositoryName, fallback_tag};
use crate::store::TagEntry;
use crate::upstream::UpstreamError;
use crate::wire::Accept;

/// Writes of one list at the most, while others overwrite it.
const WRITES_MAX: u32 = 6;

/// The pause before a list is written again; doubled each time, with jitter.
const PAUSE: Duration = Duration::from_millis(50);

/// Bytes of a list at the most (P-79).
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A change of a list.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    Add(Referrer),
    Remove(Digest),
}

/// Why a list does not tell what it should.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum FallbackError {
    #[error("the upstream answered {0}")]
    Refused(http::StatusCode),
    #[error(transparent)]
    Failed(CacheError),
    #[error("something else than a list of referrers stands under the tag")]
    Occupied,
    #[error("others overwrite it")]
    Overwritten,
    #[error("the work was stopped")]
    Stopped,
}

/// The edits that wait, by subject; who finds none there begins a task.
#[derive(Debug, Default)]
pub(in crate::cache) struct Keeper {
    // A plain mutex: held for a queue operation.
    waiting: Mutex<HashMap<Place<Digest>, VecDeque<Waiting>>>,
}

#[derive(Debug)]
struct Waiting {
    edit: Edit,
    authorization: Option<HeaderValue>,
    done: oneshot::Sender<Result<(), FallbackError>>,
}

impl Keeper {
    /// Puts in an edit; true when a task is to be begun for it.
    fn put(&self, place: &Place<Digest>, waiting: Waiting) -> bool {
        let mut all = self.waiting();
        let begins = !all.contains_key(place);
        all.entry(place.clone()).or_default().push_back(waiting);
        begins
    }

    /// Takes the edits that wait of whoever is first; when there are none, the task is over.
    fn take(&self, place: &Place<Digest>) -> Vec<Waiting> {
        let mut all = self.waiting();
        let Some(queue) = all.get_mut(place) else { return Vec::new() };
        let Some(first) = queue.front().map(|first| first.authorization.clone()) else {
            all.remove(place);
            return Vec::new();
        };
        let (of_first, others) = queue.drain(..).partition(|waiting| waiting.authorization == first);
        *queue = others;
        Vec::from(of_first)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Place<Digest>, VecDeque<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Makes the fallback tag of `subject` tell of a change, and waits until it does.
    pub(super) async fn edit_fallback(
        &self,
        writer: &Writer<'_>,
        subject: Digest,
        edit: Edit,
    ) -> Result<(), FallbackError> {
        let (done, told) = oneshot::channel();
        let place = writer.place(subject);
        let authorization = writer.authorization.cloned();
        if self.0.keeper.put(&place, Waiting { edit, authorization, done }) {
            let (cache, upstream) = (self.clone(), Arc::clone(writer.upstream));
            self.0.tasks.spawn("keep a fallback tag", async move { cache.keep_fallback(&upstream, &place).await });
        }
        told.await.unwrap_or(Err(FallbackError::Stopped))
    }

    async fn keep_fallback(&self, upstream: &Arc<Upstream>, place: &Place<Digest>) {
        loop {
            let batch = self.0.keeper.take(place);
            let Some(first) = batch.first() else { return };
            let authorization = first.authorization.clone();
            let writer = Writer { upstream, repository: &place.repository, authorization: authorization.as_ref() };
            let edits: Vec<Edit> = batch.iter().map(|waiting| waiting.edit.clone()).collect();
            let outcome = self.write_fallback(&writer, place.what, &edits).await;
            self.is_listed_anew(&writer);
            for waiting in batch {
                // Who does not wait any more has gone away.
                let _gone = waiting.done.send(outcome.clone());
            }
        }
    }

    async fn write_fallback(&self, writer: &Writer<'_>, subject: Digest, edits: &[Edit]) -> Result<(), FallbackError> {
        let mut pause = PAUSE;
        for _ in 0..WRITES_MAX {
            let listed = read(writer, &subject).await?;
            if stands(&listed, edits) {
                return Ok(());
            }
            let json = edited(listed, edits).to_json();
            self.put_fallback(writer, &subject, json).await?;
            if stands(&read(writer, &subject).await?, edits) {
                return Ok(());
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause *= 2;
        }
        Err(FallbackError::Overwritten)
    }

    /// Writes the list, and knows it here from then on, as every manifest that is pushed.
    async fn put_fallback(&self, writer: &Writer<'_>, subject: &Digest, json: Bytes) -> Result<(), FallbackError> {
        let tag = fallback_tag(subject);
        let content_type = Some(HeaderValue::from_static(MediaType::OCI_INDEX));
        let push =
            ManifestPush { reference: &Reference::Tag(tag.clone()), content_type, bytes: json, tags: Vec::new() };
        match put(writer, push.reference, &push, "").await {
            Ok(_) => {}
            Err(PushError::Refused(written)) => return Err(FallbackError::Refused(written.status)),
            Err(PushError::Failed(error)) => return Err(FallbackError::Failed(error)),
            Err(_) => return Err(FallbackError::Stopped),
        }
        let digest = Digest::sha256(&push.bytes);
        if let Ok(manifest) = Manifest::read(&push.bytes, None) {
            let size_bytes = push.bytes.len() as u64;
            let media_type = manifest.media_type.clone();
            self.keep_manifest(writer.upstream, writer.repository, digest, &manifest, push.bytes).await;
            let entry = TagEntry { digest, media_type, size_bytes, checked_at: SystemTime::now() };
            self.0.ledger.set_tag(writer.upstream.origin.name(), writer.repository, &tag, &entry);
        }
        Ok(())
    }
}

/// Reads the list as the upstream has it at this moment; none is an empty one.
async fn read(writer: &Writer<'_>, subject: &Digest) -> Result<Referrers, FallbackError> {
    let reference = Reference::Tag(fallback_tag(subject));
    let Writer { upstream, repository, .. } = *writer;
    match origin_manifest(upstream, repository, &reference).await {
        Ok(bytes) => Referrers::read(&bytes).map_err(|_| FallbackError::Occupied),
        Err(UpstreamError::NotFound { .. }) => Ok(Referrers::default()),
        Err(UpstreamError::TooLarge { .. }) => Err(FallbackError::Occupied),
        Err(error) => Err(FallbackError::Failed(upstream.error(error))),
    }
}

async fn origin_manifest(
    upstream: &Upstream,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Bytes, UpstreamError> {
    let received = upstream.origin.manifest(repository, reference, Accept::MANIFESTS, LIST_BYTES_MAX).await?;
    Ok(received.bytes)
}

/// Returns true when the list tells all that the edits make it tell.
fn stands(list: &Referrers, edits: &[Edit]) -> bool {
    edits.iter().all(|edit| match edit {
        Edit::Add(referrer) => list.contains(referrer.digest()),
        Edit::Remove(digest) => !list.contains(digest),
    })
}

/// Those that were there keep their places; new ones come last, as clients put them.
fn edited(list: Referrers, edits: &[Edit]) -> Referrers {
    let removed = |digest: &Digest| edits.iter().any(|edit| matches!(edit, Edit::Remove(other) if other == digest));
    let added = edits.iter().filter_map(|edit| match edit {
        Edit::Add(referrer) => Some(referrer.clone()),
        Edit::Remove(_) => None,
    });
    list.into_iter().filter(|referrer| !removed(referrer.digest())).chain(added).collect()
}
