//! What a tag means: from the ledger while it is fresh, else from the upstream, else stale.
//!
//! A tag is resolved by HEAD and its manifest fetched by digest, so that a tag that moves in between cannot mix the two (P-138).
//! When to ask and what to do in vain is decided in [`decide`](super::decide).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};

use super::decide::{Decision, Head, Health, decide, within};
use super::manifest::{MANIFEST_BYTES_MAX, ManifestAnswer, ManifestQuestion, passed_through, read, verify};
use super::{Cache, CacheError, Place, Policy, Upstream};
use crate::oci::{Algorithm, Digest, Reference, RepositoryName, Tag};
use crate::store::{Grant, GrantKind, TagEntry};
use crate::telemetry::{Kind, Revalidation, Trigger};
use crate::upstream::{RateLimit, UpstreamError};
use crate::wire::{Accept, ContentHeaders, Outcome};

/// How long a client waits for a form of a manifest that it would rather have than the one at hand (P-140).
const NEGOTIATION_LIMIT: Duration = Duration::from_secs(5);

/// What is known of a tag, and the policy for it.
struct Known {
    entry: Option<TagEntry>,
    policy: Policy,
}

impl Known {
    fn decide(&self, health: Health<'_>) -> Decision {
        decide(SystemTime::now(), self.entry.as_ref().map(|entry| entry.checked_at), &self.policy, health)
    }
}

/// What asking the upstream about a tag brought.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Entry(TagEntry),
    /// A manifest that is passed through and not kept: schema 1 (P-40).
    PassedThrough(ManifestAnswer),
}

impl Cache {
    pub(super) async fn manifest_by_tag(
        &self,
        question: &ManifestQuestion<'_>,
        tag: &Tag,
    ) -> Result<ManifestAnswer, CacheError> {
        let answer = self.resolve_tag(question, tag).await?;
        // P-35: another representation exists upstream, perhaps; the cached one stays as it is.
        // An upstream that has just failed, or has been waited for, is not asked again for it.
        if question.accept.covers(&answer.media_type) || question.upstream.policy.offline || answer.stale.is_some() {
            return Ok(answer);
        }
        // Boxed: a question whose answer is accepted must not carry the room for it.
        let negotiated = within(Some(NEGOTIATION_LIMIT), Box::pin(self.negotiate(question))).await;
        negotiated.and_then(Result::ok).map_or(Ok(answer), Ok)
    }

    async fn resolve_tag(&self, question: &ManifestQuestion<'_>, tag: &Tag) -> Result<ManifestAnswer, CacheError> {
        let upstream = question.upstream;
        let known = self.0.ledger.tag(upstream.origin.name(), question.repository, tag);
        let mut known = Known { entry: known, policy: upstream.policy_of(tag) };
        let patience = match (known.decide(Health::Unasked), &known.entry) {
            (Decision::Ask(patience), _) => upstream.patience(patience),
            (Decision::Serve, Some(entry)) => {
                let answer = self.tagged(question, entry, Outcome::Hit).await;
                if !self.forgets_absent(question, tag, entry, &answer) {
                    return answer;
                }
                known.entry = None;
                None
            }
            (decision, _) => return self.settle(question, tag, &known, decision, upstream.offline()).await,
        };
        if let Some(absence) =
            self.remembered_absence(upstream, question.repository, GrantKind::Manifest, question.reference)
        {
            return Err(absence);
        }
        if let Some(refusal) = upstream.origin.refusal_now(RateLimit::Requests).filter(|_| patience.is_some()) {
            let decision = known.decide(Health::Failed(&refusal));
            return self.settle(question, tag, &known, decision, upstream.error(refusal)).await;
        }
        // Boxed: a fresh tag must not carry the room for it.
        let mut asked = Box::pin(self.ask_and_serve(question, tag, &known));
        if let Some(patience) = patience {
            match timeout(patience, asked.as_mut()).await {
                Ok(answer) => return self.or_stale(question, tag, &known, answer).await,
                // The question goes on, for those who come after.
                Err(_elapsed) => {
                    upstream.silence.begins(Instant::now());
                    let decision = known.decide(Health::Silent);
                    if let Ok(stale) = self.settle(question, tag, &known, decision, CacheError::Aborted).await {
                        return Ok(stale);
                    }
                }
            }
        }
        let answer = asked.await;
        self.or_stale(question, tag, &known, answer).await
    }

    /// Asks the upstream, and serves what the tag means now.
    async fn ask_and_serve(
        &self,
        question: &ManifestQuestion<'_>,
        tag: &Tag,
        known: &Known,
    ) -> Result<ManifestAnswer, CacheError> {
        match self.ask_about_tag(question, tag, known.entry.clone()).await? {
            Asked::PassedThrough(answer) => Ok(answer),
            Asked::Entry(entry) => {
                let is_unchanged = known.entry.as_ref().is_some_and(|known| known.digest == entry.digest);
                let outcome = if is_unchanged { Outcome::Revalidated } else { Outcome::Miss };
                let answer = self.tagged(question, &entry, outcome).await;
                self.forgets_absent(question, tag, &entry, &answer);
                answer
            }
        }
    }

    /// Puts the entry's stored manifest in the place of a failure, where the policy allows it (P-139).
    async fn or_stale(
        &self,
        question: &ManifestQuestion<'_>,
        tag: &Tag,
        known: &Known,
        answer: Result<ManifestAnswer, CacheError>,
    ) -> Result<ManifestAnswer, CacheError> {
        let Err(error) = answer else { return answer };
        let Some(failure) = error.of_upstream() else { return Err(error) };
        let decision = known.decide(Health::Failed(&failure));
        self.settle(question, tag, known, decision, error).await
    }

    /// Does what was decided, short of asking; `failure` is told when nothing is to be served.
    async fn settle(
        &self,
        question: &ManifestQuestion<'_>,
        tag: &Tag,
        known: &Known,
        decision: Decision,
        failure: CacheError,
    ) -> Result<ManifestAnswer, CacheError> {
        let upstream = question.upstream;
        match (decision, &known.entry) {
            (Decision::ServeStale(reason), Some(entry)) => {
                let stored = self.stored_manifest(upstream, question.repository, &entry.digest).await;
                let mut answer = stored.ok_or(failure)?;
                answer.outcome = Outcome::Stale;
                answer.stale = Some(reason);
                upstream.metrics.stale(reason);
                Ok(answer)
            }
            (Decision::Drop, Some(_)) => {
                self.0.ledger.drop_tag(upstream.origin.name(), question.repository, tag);
                upstream.metrics.revalidated(Revalidation::Gone);
                Err(failure)
            }
            // What one caller may not read is the others' still.
            (Decision::Revoke, Some(entry)) if upstream.caller().is_none() => {
                let (upstream, repository) = (upstream.origin.name(), question.repository);
                self.0.ledger.drop_tag(upstream, repository, tag);
                let kind = GrantKind::Manifest;
                self.0.ledger.revoke(&Grant { upstream, repository, kind, digest: &entry.digest });
                Err(failure)
            }
            _ => Err(failure),
        }
    }

    /// Serves the entry's manifest; `outcome` holds when it is at hand, else it is a miss.
    async fn tagged(
        &self,
        question: &ManifestQuestion<'_>,
        entry: &TagEntry,
        outcome: Outcome,
    ) -> Result<ManifestAnswer, CacheError> {
        if !question.wants_bytes
            && let Some(headers) = self.headers(entry)
        {
            return Ok(ManifestAnswer {
                digest: entry.digest,
                media_type: entry.media_type.clone(),
                headers,
                bytes: None,
                outcome,
                stale: None,
            });
        }
        let mut answer = self.manifest_by_digest(question, &entry.digest).await?;
        if answer.outcome == Outcome::Hit {
            answer.outcome = outcome;
        }
        Ok(answer)
    }

    /// Forgets an entry whose manifest the upstream does not have, and returns true when it did so: the digest that a HEAD tells is no
    /// proof (S-10), and a tag may move away from it, and it be deleted, before it is asked for.
    fn forgets_absent(
        &self,
        question: &ManifestQuestion<'_>,
        tag: &Tag,
        entry: &TagEntry,
        answer: &Result<ManifestAnswer, CacheError>,
    ) -> bool {
        let is_absent = answer.as_ref().is_err_and(CacheError::is_absence);
        let (name, repository) = (question.upstream.origin.name(), question.repository);
        if is_absent && self.0.ledger.tag(name, repository, tag).as_ref() == Some(entry) {
            self.0.ledger.drop_tag(name, repository, tag);
        }
        is_absent
    }

    /// Returns the header values of the entry's manifest: the stored one's, if it is at hand; `None` when that one is of another size than
    /// the upstream told by HEAD, which is no proof of it (U-51).
    fn headers(&self, entry: &TagEntry) -> Option<Arc<ContentHeaders>> {
        match self.0.store.peek(&entry.digest) {
            Some(object) if object.size_bytes != entry.size_bytes => None,
            Some(object) => Some(object.headers),
            None => Some(ContentHeaders::of(&entry.digest, Some(entry.size_bytes)).into()),
        }
    }

    /// Asks the upstream what a tag means, once for all who ask together (P-140).
    async fn ask_about_tag(
        &self,
        question: &ManifestQuestion<'_>,
        tag: &Tag,
        known: Option<TagEntry>,
    ) -> Result<Asked, CacheError> {
        let place = Place::new(question.upstream, question.repository, tag.clone());
        let work = || {
            let (cache, upstream) = (self.clone(), Arc::clone(question.upstream));
            let (repository, tag, known) = (question.repository.clone(), tag.clone(), known.clone());
            async move {
                let asked = cache.ask_tag(&upstream, &repository, &tag, known.as_ref()).await;
                if asked.is_ok() {
                    upstream.silence.ends();
                }
                upstream.metrics.revalidated(match &asked {
                    Ok(Asked::Entry(entry)) if known.is_some_and(|known| known.digest == entry.digest) => {
                        Revalidation::Unchanged
                    }
                    Ok(_) => Revalidation::Changed,
                    Err(CacheError::Upstream { source: UpstreamError::RateLimited { .. }, .. }) => {
                        Revalidation::RateLimited
                    }
                    Err(CacheError::Upstream { source: UpstreamError::NotFound { .. }, .. }) => Revalidation::Gone,
                    Err(_) => Revalidation::Error,
                });
                if let Err(error) = &asked {
                    cache.remember_absence(&upstream, &repository, GrantKind::Manifest, &Reference::Tag(tag), error);
                }
                asked
            }
        };
        let landed = self.together(&self.0.tags, question.upstream, place, "ask about a tag", work).await;
        landed.answer.unwrap_or(Err(CacheError::Aborted))
    }

    async fn ask_tag(
        &self,
        upstream: &Arc<Upstream>,
        repository: &RepositoryName,
        tag: &Tag,
        known: Option<&TagEntry>,
    ) -> Result<Asked, CacheError> {
        let reference = Reference::Tag(tag.clone());
        let told = upstream.origin.manifest_head(repository, &reference, Accept::MANIFESTS).await;
        let Head::Means { digest, media_type, size_bytes } = Head::read(told).map_err(|error| upstream.error(error))?
        else {
            return self.get_tag(upstream, repository, tag, known).await;
        };
        let entry = TagEntry { digest, media_type, size_bytes, checked_at: SystemTime::now() };
        // An entry whose manifest is stored is worth more than one whose manifest must yet be fetched: while that fails, the old one
        // can still be served stale.
        let is_granted = |digest| self.0.ledger.manifest_type(upstream.origin.name(), repository, digest).is_some();
        if known.is_some_and(|known| known.digest != digest && is_granted(&known.digest)) && !is_granted(&digest) {
            self.fetch_together(upstream, repository, &digest).await.answer.unwrap_or(Err(CacheError::Aborted))?;
        }
        self.set_tag(upstream, repository, tag, known, &entry);
        Ok(Asked::Entry(entry))
    }

    /// Notes what a tag means, unless something else was noted since the question was asked: a push knows better.
    fn set_tag(
        &self,
        upstream: &Upstream,
        repository: &RepositoryName,
        tag: &Tag,
        known: Option<&TagEntry>,
        entry: &TagEntry,
    ) {
        let name = upstream.origin.name();
        if self.0.ledger.tag(name, repository, tag).as_ref() == known {
            self.0.ledger.set_tag(name, repository, tag, entry);
        }
    }

    /// Fetches a tag's manifest itself, where HEAD does not say enough.
    async fn get_tag(
        &self,
        upstream: &Arc<Upstream>,
        repository: &RepositoryName,
        tag: &Tag,
        known: Option<&TagEntry>,
    ) -> Result<Asked, CacheError> {
        let edition = self.edition(upstream, repository);
        let reference = Reference::Tag(tag.clone());
        let received = upstream.origin.manifest(repository, &reference, Accept::MANIFESTS, MANIFEST_BYTES_MAX).await;
        let received = received.map_err(|error| upstream.error(error))?;
        let algorithm = received.digest.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let digest = Digest::of(algorithm, &received.bytes);
        let manifest = read(upstream, &received)?;
        if manifest.media_type.is_schema1() {
            return Ok(Asked::PassedThrough(passed_through(received, manifest.media_type, digest)));
        }
        upstream.metrics.fetched(Kind::ManifestDigest, Trigger::Client, received.bytes.len() as u64);
        verify(upstream, received.digest.unwrap_or(digest), digest)?;
        let size_bytes = received.bytes.len() as u64;
        if self.edition(upstream, repository) == edition {
            self.keep_manifest(upstream, repository, digest, &manifest, received.bytes).await;
        }
        let entry = TagEntry { digest, media_type: manifest.media_type, size_bytes, checked_at: SystemTime::now() };
        self.set_tag(upstream, repository, tag, known, &entry);
        Ok(Asked::Entry(entry))
    }

    /// Asks with the client's own `Accept` and passes the answer through (P-35).
    async fn negotiate(&self, question: &ManifestQuestion<'_>) -> Result<ManifestAnswer, CacheError> {
        let upstream = question.upstream;
        let accept = question.accept.as_str();
        let received =
            upstream.origin.manifest(question.repository, question.reference, accept, MANIFEST_BYTES_MAX).await;
        let received = received.map_err(|error| upstream.error(error))?;
        let algorithm = received.digest.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let digest = Digest::of(algorithm, &received.bytes);
        let manifest = read(upstream, &received)?;
        if !manifest.media_type.is_schema1() {
            verify(upstream, received.digest.unwrap_or(digest), digest)?;
        }
        Ok(passed_through(received, manifest.media_type, digest))
    }
}
