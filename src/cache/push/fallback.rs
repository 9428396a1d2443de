//! Keeps the fallback tags of an upstream that has no referrers API: reads the list, merges, writes it, and looks whether it stands.
//!
//! One task at a time edits the tag of one subject; what comes meanwhile waits, and goes into the next write together. Against writers
//! elsewhere there is no lock in the protocol: a list that does not stand after the write is merged and written again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{Cache, ManifestPush, Place, PushError, Writer};
use crate::cache::{CacheError, Upstream};
use crate::oci::{Digest, MediaType, Reference, Referrer, Referrers, fallback_tag};

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

impl Edit {
    fn digest(&self) -> &Digest {
        match self {
            Self::Add(referrer) => referrer.digest(),
            Self::Remove(digest) => digest,
        }
    }
}

/// Why a list does not tell what it should.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum FallbackError {
    #[error("the upstream answered {0}")]
    Refused(StatusCode),
    #[error(transparent)]
    Failed(CacheError),
    #[error("something else than a list of referrers stands under the tag, or more than that")]
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
        writer: &Writer,
        subject: Digest,
        edit: Edit,
    ) -> Result<(), FallbackError> {
        let (done, told) = oneshot::channel();
        let place = writer.place(subject);
        let authorization = writer.authorization.clone();
        if self.0.keeper.put(&place, Waiting { edit, authorization, done }) {
            let (cache, upstream) = (self.clone(), Arc::clone(&writer.upstream));
            self.0.tasks.spawn("keep a fallback tag", async move { cache.keep_fallback(&upstream, &place).await });
        }
        told.await.unwrap_or(Err(FallbackError::Stopped))
    }

    async fn keep_fallback(&self, upstream: &Arc<Upstream>, place: &Place<Digest>) {
        loop {
            let batch = self.0.keeper.take(place);
            let Some(first) = batch.first() else { return };
            let authorization = first.authorization.clone();
            let writer = Writer { upstream: Arc::clone(upstream), repository: place.repository.clone(), authorization };
            let edits = last_words(batch.iter().map(|waiting| &waiting.edit));
            let outcome = self.write_fallback(&writer, place.what, &edits).await;
            self.is_listed_anew(&writer);
            for waiting in batch {
                // Who does not wait any more has gone away.
                let _gone = waiting.done.send(outcome.clone());
            }
        }
    }

    async fn write_fallback(&self, writer: &Writer, subject: Digest, edits: &[Edit]) -> Result<(), FallbackError> {
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
    async fn put_fallback(&self, writer: &Writer, subject: &Digest, json: Bytes) -> Result<(), FallbackError> {
        let reference = Reference::Tag(fallback_tag(subject));
        let content_type = Some(HeaderValue::from_static(MediaType::OCI_INDEX));
        let push = ManifestPush { reference, content_type, bytes: json, tags: Vec::new() };
        match self.put_manifest(writer, &push.reference, &push, "").await {
            Ok(_) => {}
            Err(PushError::Refused(written)) => return Err(FallbackError::Refused(written.status)),
            Err(PushError::Failed(error)) => return Err(FallbackError::Failed(error)),
            Err(_) => return Err(FallbackError::Stopped),
        }
        self.keep_pushed(writer, Digest::sha256(&push.bytes), &push, &[]).await;
        Ok(())
    }
}

/// Reads the list as the caller sees it at this moment, where it will be written; none is an empty one.
///
/// One that could not be written again without losing anything is left alone: whoever wrote it knows better.
async fn read(writer: &Writer, subject: &Digest) -> Result<Referrers, FallbackError> {
    let reference = Reference::Tag(fallback_tag(subject));
    let read = writer.read_manifest(&reference, LIST_BYTES_MAX).await.map_err(FallbackError::Failed)?;
    match read.status {
        StatusCode::OK => {
            let list = Referrers::read(&read.body).map_err(|_| FallbackError::Occupied)?;
            if list.is_all_of(&read.body) { Ok(list) } else { Err(FallbackError::Occupied) }
        }
        StatusCode::NOT_FOUND => Ok(Referrers::default()),
        status => Err(FallbackError::Refused(status)),
    }
}

/// Of several edits about one manifest the last one counts.
fn last_words<'a>(edits: impl DoubleEndedIterator<Item = &'a Edit>) -> Vec<Edit> {
    let mut seen = HashSet::new();
    let mut last: Vec<Edit> = edits.rev().filter(|edit| seen.insert(*edit.digest())).cloned().collect();
    last.reverse();
    last
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
