//! The blob question: from the store, from a fill under way, or from a new fill.

use std::sync::Arc;

use super::body::{BlobBody, Reading};
use super::fill::Interest;
use super::fill::{Asker, Fill, FillKey, FillTask, Joined, Lead, Reach};
use super::push::Edition;
use super::{Cache, CacheError, Client, Place, Upstream};
use crate::oci::{Digest, Reference, RepositoryName};
use crate::store::{GrantKind, Object, blocking};
use crate::telemetry::{Kind, Trigger};
use crate::wire::{ByteRange, ContentHeaders, Outcome};

/// Fills of one blob that a question joins at the most: each that failed did so for somebody who had been let in a moment before.
const JOINS_MAX: usize = 4;

/// A question about a blob.
#[derive(Debug)]
pub struct BlobQuestion<'a> {
    pub upstream: &'a Arc<Upstream>,
    pub repository: &'a RepositoryName,
    pub digest: &'a Digest,
    /// False for HEAD: the size is enough, and nothing is downloaded for it.
    pub wants_bytes: bool,
    /// `None` for what we want ourselves.
    pub client: Option<Client>,
    /// The first byte that the client wants first, if it is known before the blob's size: a cold range is fetched from there.
    pub first_byte: u64,
}

/// A blob that may be read, or what is known of it.
#[derive(Debug)]
pub struct BlobAnswer {
    /// `None` only while a fill of unannounced length is under way.
    pub size_bytes: Option<u64>,
    pub outcome: Outcome,
    source: Source,
    reading: Arc<Reading>,
}

/// Where the bytes come from.
#[derive(Debug)]
enum Source {
    /// No bytes were wanted.
    Nowhere,
    Stored(Object),
    Fill(Interest),
}

impl BlobAnswer {
    /// Returns the bytes of `range`; its tail is not withheld.
    pub fn range(&self, range: ByteRange) -> BlobBody {
        self.read(range.start, Some(range.end.saturating_add(1)))
    }

    /// Returns the bytes from `start` to the end of the blob; on a fill the last ones come once the digest is known good, and so they do
    /// when all of a stored blob is read that was not verified in this process.
    pub fn from(&self, start: u64) -> BlobBody {
        self.read(start, None)
    }

    /// Returns the header values of the blob.
    pub fn headers(&self) -> Arc<ContentHeaders> {
        match &self.source {
            Source::Stored(object) => Arc::clone(&object.headers),
            Source::Nowhere | Source::Fill(_) => ContentHeaders::of(&self.reading.digest, self.size_bytes).into(),
        }
    }

    fn read(&self, start: u64, end: Option<u64>) -> BlobBody {
        match &self.source {
            Source::Nowhere => BlobBody::empty(),
            Source::Stored(object) => BlobBody::stored(
                object.clone(),
                Arc::clone(&self.reading),
                start,
                end.map_or(Reach::ToEnd, Reach::Until),
            ),
            Source::Fill(interest) => {
                let reach = end.map_or(Reach::ToEnd, Reach::Until);
                let body = BlobBody::following(interest.clone(), Arc::clone(&self.reading), start, reach);
                interest.begun();
                body
            }
        }
    }
}

impl Upstream {
    /// Returns in whose name a fill for `repository` asks.
    fn asker(&self, repository: &RepositoryName) -> Arc<Asker> {
        Arc::new(Asker { origin: Arc::clone(&self.origin), repository: repository.clone(), caller: self.caller() })
    }
}

impl Cache {
    /// Answers a question about a blob.
    pub async fn blob(&self, question: &BlobQuestion<'_>) -> Result<BlobAnswer, CacheError> {
        question.upstream.checks_in(question.repository)?;
        let answer = self.find_blob(question).await;
        if let (Ok(BlobAnswer { source: Source::Stored(_), .. }), Some(client)) = (&answer, question.client) {
            self.0.store.asked(question.digest, client.print());
        }
        question.upstream.count(Kind::Blob, &answer, |answer| answer.outcome);
        answer
    }

    async fn find_blob(&self, question: &BlobQuestion<'_>) -> Result<BlobAnswer, CacheError> {
        let BlobQuestion { upstream, repository, digest, .. } = *question;
        let granted = self.0.ledger.holds_blob(upstream.origin.name(), repository, digest);
        let stored = self.stored_blob(digest).await;
        match (stored, granted) {
            (Some(object), true) => return Ok(self.answer(question, Outcome::Hit, Source::Stored(object))),
            (Some(object), false) => {
                let edition = self.edition(upstream, repository);
                self.ask_existence(question).await?;
                self.grant_blob(question, edition);
                return Ok(self.answer(question, Outcome::Revalidated, Source::Stored(object)));
            }
            (None, _) => {}
        }
        if let Some(absence) = self.remembered_blob_absence(question) {
            return Err(absence);
        }
        if question.wants_bytes {
            self.fill_blob(question, granted).await
        } else {
            self.size_of_blob(question, granted).await
        }
    }

    /// Joins the blob's fill, or starts one.
    async fn fill_blob(&self, question: &BlobQuestion<'_>, granted: bool) -> Result<BlobAnswer, CacheError> {
        let upstream = question.upstream;
        if upstream.policy.offline {
            return Err(upstream.offline());
        }
        for _ in 0..JOINS_MAX {
            // Else it failed for whoever had started it, which says nothing about this caller.
            if let Some(answer) = self.follow_fill(question, granted).await? {
                return Ok(answer);
            }
        }
        Err(CacheError::Aborted)
    }

    /// Joins the blob's fill, or starts one; `None` when it was joined and failed in somebody else's name.
    async fn follow_fill(&self, question: &BlobQuestion<'_>, granted: bool) -> Result<Option<BlobAnswer>, CacheError> {
        let upstream = question.upstream;
        let edition = self.edition(upstream, question.repository);
        let (mut interest, outcome) = self.join_fill(question);
        let fill = Arc::clone(interest.fill());
        // The upstream's yes to the fill is a yes to the repository that started it, as it was then, and to no other (P-132).
        if !granted && (fill.repository != *question.repository || fill.edition != edition) {
            self.ask_existence(question).await?;
        }
        if upstream.access.is_some() {
            interest.stands_for(upstream.asker(question.repository));
        }
        match fill.started().await {
            Ok(size_bytes) => {
                if !granted && !fill.was_given() {
                    self.ask_existence(question).await?;
                }
                self.grant_blob(question, edition);
                let mut answer = self.answer(question, outcome, Source::Fill(interest));
                answer.size_bytes = size_bytes;
                Ok(Some(answer))
            }
            Err(why) => {
                let error = CacheError::from_fill(upstream.origin.name(), &why);
                if outcome != Outcome::Miss && upstream.access.is_some() && error.may_be_about_the_caller() {
                    return Ok(None);
                }
                self.remember_blob_absence(question, &error);
                Err(error)
            }
        }
    }

    /// Notes that the upstream has given the repository the blob, unless the repository was written to since it was asked.
    fn grant_blob(&self, question: &BlobQuestion<'_>, edition: Edition) {
        if self.edition(question.upstream, question.repository) == edition {
            self.0.ledger.grant_blob(question.upstream.origin.name(), question.repository, question.digest);
        }
    }

    fn join_fill(&self, question: &BlobQuestion<'_>) -> (Interest, Outcome) {
        let upstream = question.upstream;
        let key = FillKey { upstream: upstream.origin.name().clone(), digest: *question.digest };
        let edition = self.edition(upstream, question.repository);
        let make = || Fill::new(key.clone(), question.repository.clone(), edition, self.0.buffers.clone());
        match self.0.inflight.join(&key, make) {
            // Verified, and only not yet durable: as good as stored.
            Joined::Follow(interest) if interest.fill().is_verified() => (interest, Outcome::Hit),
            Joined::Follow(interest) => (interest, Outcome::Coalesced),
            Joined::Lead(interest, lead) => {
                self.start_fill(lead, upstream, (Trigger::Client, question.client), question.first_byte);
                (interest, Outcome::Miss)
            }
        }
    }

    /// Joins or starts the fill of a blob whose bytes failed an answer in the middle; the client was told that there are `told_bytes`.
    ///
    /// `None` when the upstream does not give it, or when its length is another, or none while the one that was told `is_certain` not.
    pub(super) async fn refill(
        &self,
        reading: &Reading,
        first_byte: u64,
        told_bytes: u64,
        is_certain: bool,
    ) -> Option<Interest> {
        let Reading { upstream, repository, digest, .. } = reading;
        if upstream.policy.offline {
            return None;
        }
        let question = BlobQuestion { upstream, repository, digest, wants_bytes: true, client: None, first_byte };
        let edition = self.edition(upstream, repository);
        let (mut interest, _) = self.join_fill(&question);
        if upstream.access.is_some() {
            interest.stands_for(upstream.asker(repository));
        }
        let size_bytes = interest.fill().started().await.ok()?;
        // The client had been let in; the grant went with the object.
        self.grant_blob(&question, edition);
        let is_as_told = size_bytes.map_or(is_certain, |size| size == told_bytes);
        is_as_told.then_some(interest)
    }

    /// Starts the task of a fill that was just listed.
    pub(super) fn start_fill(
        &self,
        lead: Lead,
        upstream: &Arc<Upstream>,
        (trigger, client): (Trigger, Option<Client>),
        from: u64,
    ) {
        let of_client = client.map(|client| self.0.client_bounds.of(client));
        let bounds = of_client.into_iter().chain([upstream.bounds.clone(), self.0.bounds.clone()]);
        let class = self.class(&lead.fill().key.digest);
        let asker = upstream.asker(&lead.fill().repository);
        let task = FillTask {
            lead,
            asker,
            store: self.store(),
            class,
            bounds: bounds.collect(),
            parallel: upstream.filling.parallel,
            learned: Arc::clone(&upstream.learned),
            metrics: Arc::clone(&upstream.metrics),
            trigger,
            from,
        };
        self.0.tasks.spawn("fill", task.run());
    }

    /// Answers a HEAD of a blob that is not stored, without starting a download (P-51).
    async fn size_of_blob(&self, question: &BlobQuestion<'_>, granted: bool) -> Result<BlobAnswer, CacheError> {
        let key = FillKey { upstream: question.upstream.origin.name().clone(), digest: *question.digest };
        if let Some(interest) = self.0.inflight.find(&key)
            && (granted || interest.fill().repository == *question.repository)
            && let Ok(Some(size_bytes)) = interest.fill().started().await
            && (granted || interest.fill().was_given())
        {
            let mut answer = self.answer(question, Outcome::Coalesced, Source::Nowhere);
            answer.size_bytes = Some(size_bytes);
            return Ok(answer);
        }
        let size_bytes = self.ask_existence(question).await?;
        let mut answer = self.answer(question, Outcome::Miss, Source::Nowhere);
        answer.size_bytes = size_bytes;
        Ok(answer)
    }

    /// Asks the upstream whether the repository has the blob, once for all who ask together.
    async fn ask_existence(&self, question: &BlobQuestion<'_>) -> Result<Option<u64>, CacheError> {
        let upstream = question.upstream;
        if let Some(absence) = self.remembered_blob_absence(question) {
            return Err(absence);
        }
        if upstream.policy.offline {
            return Err(upstream.offline());
        }
        let place = Place::new(upstream, question.repository, *question.digest);
        let work = || {
            let (upstream, repository, digest) = (Arc::clone(upstream), question.repository.clone(), *question.digest);
            async move {
                let head = upstream.origin.blob_head(&repository, &digest).await;
                head.map(|head| head.size_bytes).map_err(|error| upstream.error(error))
            }
        };
        let landed = self.together(&self.0.existence, upstream, place, "ask about a blob", work).await;
        let told = landed.answer.unwrap_or(Err(CacheError::Aborted));
        if let Err(error) = &told
            // A HEAD may say no where a GET makes the upstream fetch the blob itself (U-51): the GET after it is put all the same.
            && (question.wants_bytes || !error.is_absence())
        {
            self.remember_blob_absence(question, error);
        }
        told
    }

    pub(super) async fn stored_blob(&self, digest: &Digest) -> Option<Object> {
        if let Some(object) = self.0.store.peek(digest) {
            return Some(object);
        }
        if self.0.store.is_absent(digest) {
            return None;
        }
        let (store, digest) = (self.store(), *digest);
        blocking(move || Ok::<_, std::io::Error>(store.open(&digest))).await.ok()?
    }

    fn answer(&self, question: &BlobQuestion<'_>, outcome: Outcome, source: Source) -> BlobAnswer {
        let size_bytes = match &source {
            Source::Stored(object) => Some(object.size_bytes),
            Source::Nowhere | Source::Fill(_) => None,
        };
        let reading = Reading {
            cache: self.clone(),
            upstream: Arc::clone(question.upstream),
            repository: question.repository.clone(),
            digest: *question.digest,
        };
        BlobAnswer { size_bytes, outcome, source, reading: Arc::new(reading) }
    }

    fn remembered_blob_absence(&self, question: &BlobQuestion<'_>) -> Option<CacheError> {
        let reference = Reference::Digest(*question.digest);
        self.remembered_absence(question.upstream, question.repository, GrantKind::Blob, &reference)
    }

    fn remember_blob_absence(&self, question: &BlobQuestion<'_>, error: &CacheError) {
        let reference = Reference::Digest(*question.digest);
        self.remember_absence(question.upstream, question.repository, GrantKind::Blob, &reference, error);
    }
}
