//! The manifest question: by tag or by digest, with or without its bytes.
//!
//! A manifest is verified before anybody sees it, and kept with its media type, byte for byte.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::decide::is_manifest_type;
use super::flight::Landed;
use super::{Cache, CacheError, Client, Place, Upstream};
use crate::oci::{Digest, Manifest, ManifestKind, MediaType, Reference, Referrer, RepositoryName};
use crate::store::{Class, Damage, GrantKind, blocking};
use crate::telemetry::{Kind, MismatchSource, StaleReason, Trigger, sentence};
use crate::upstream::{ManifestAnswer as Received, UpstreamError};
use crate::wire::{Accept, ContentHeaders, Outcome};

/// Bytes of a manifest at the most: a little above what containerd accepts (P-32).
pub const MANIFEST_BYTES_MAX: usize = 4_500_000;

/// How long a fresh manifest's answer waits for the disk; past that it is kept behind the answer.
const KEEP_PATIENCE: Duration = Duration::from_millis(500);

/// A question about a manifest.
#[derive(Debug)]
pub struct ManifestQuestion<'a> {
    pub upstream: &'a Arc<Upstream>,
    pub repository: &'a RepositoryName,
    pub reference: &'a Reference,
    pub accept: &'a Accept,
    /// False for HEAD: an answer without bytes is enough.
    pub wants_bytes: bool,
    /// `None` for what we want ourselves.
    pub client: Option<Client>,
}

/// A manifest, or what is known of it.
#[derive(Debug, Clone)]
pub struct ManifestAnswer {
    pub digest: Digest,
    pub media_type: MediaType,
    pub headers: Arc<ContentHeaders>,
    /// `None` only when no bytes were wanted.
    pub bytes: Option<Bytes>,
    pub outcome: Outcome,
    /// Why the answer is stale, when it is.
    pub stale: Option<StaleReason>,
}

/// A manifest as fetched and verified.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    bytes: Bytes,
    headers: Arc<ContentHeaders>,
    media_type: MediaType,
}

impl Cache {
    /// Answers a question about a manifest.
    pub async fn manifest(&self, question: &ManifestQuestion<'_>) -> Result<ManifestAnswer, CacheError> {
        question.upstream.checks_in(question.repository)?;
        let (kind, answer) = match question.reference {
            Reference::Tag(tag) => (Kind::ManifestTag, self.manifest_by_tag(question, tag).await),
            Reference::Digest(digest) => (Kind::ManifestDigest, self.manifest_by_digest(question, digest).await),
        };
        if let (Ok(answer), Some(client)) = (&answer, question.client) {
            self.0.store.asked(&answer.digest, client.print());
        }
        if let (Ok(answer), true) = (&answer, question.wants_bytes) {
            self.prefetch(question.upstream, question.repository, answer);
        }
        question.upstream.count(kind, &answer, |answer| answer.outcome);
        answer
    }

    pub(super) async fn manifest_by_digest(
        &self,
        question: &ManifestQuestion<'_>,
        digest: &Digest,
    ) -> Result<ManifestAnswer, CacheError> {
        let (upstream, repository) = (question.upstream, question.repository);
        if let Some(answer) = self.stored_manifest(upstream, repository, digest).await {
            return Ok(answer);
        }
        let reference = Reference::Digest(*digest);
        if let Some(absence) = self.remembered_absence(upstream, repository, GrantKind::Manifest, &reference) {
            return Err(absence);
        }
        if upstream.policy.offline {
            return Err(upstream.offline());
        }
        if !question.wants_bytes
            && let Some(answer) = self.manifest_head(upstream, repository, digest).await?
        {
            return Ok(answer);
        }
        let landed = self.fetch_together(upstream, repository, digest).await;
        let fetched = landed.answer.unwrap_or(Err(CacheError::Aborted))?;
        let outcome = match (landed.led, fetched.media_type.is_schema1()) {
            (_, true) => Outcome::Bypass,
            (true, false) => Outcome::Miss,
            (false, false) => Outcome::Coalesced,
        };
        Ok(ManifestAnswer {
            digest: *digest,
            media_type: fetched.media_type,
            headers: fetched.headers,
            bytes: Some(fetched.bytes),
            outcome,
            stale: None,
        })
    }

    /// Asks the upstream about a digest without fetching; `None` when its answer does not say enough.
    async fn manifest_head(
        &self,
        upstream: &Arc<Upstream>,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestAnswer>, CacheError> {
        let reference = Reference::Digest(*digest);
        let head = match upstream.origin.manifest_head(repository, &reference, Accept::MANIFESTS).await {
            Ok(head) => head,
            Err(UpstreamError::Denied { .. } | UpstreamError::Status { status: 405 | 501, .. }) => return Ok(None),
            Err(error) => {
                let error = upstream.error(error);
                self.remember_absence(upstream, repository, GrantKind::Manifest, &reference, &error);
                return Err(error);
            }
        };
        let (Some(media_type), Some(size_bytes)) = (head.media_type, head.size_bytes) else { return Ok(None) };
        if head.digest.is_some_and(|told| told != *digest) || !is_manifest_type(&media_type) {
            return Ok(None);
        }
        Ok(Some(ManifestAnswer {
            digest: *digest,
            media_type,
            headers: ContentHeaders::of(digest, Some(size_bytes)).into(),
            bytes: None,
            outcome: Outcome::Miss,
            stale: None,
        }))
    }

    /// Fetches a manifest, once for all who want it at the same time.
    pub(super) async fn fetch_together(
        &self,
        upstream: &Arc<Upstream>,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Landed<Result<Fetched, CacheError>> {
        let place = Place::new(upstream, repository, *digest);
        let digest = *digest;
        let work = || {
            let (cache, upstream, repository) = (self.clone(), Arc::clone(upstream), repository.clone());
            async move {
                let fetched = cache.fetch_manifest(&upstream, &repository, &digest).await;
                if let Err(error) = &fetched {
                    let reference = Reference::Digest(digest);
                    cache.remember_absence(&upstream, &repository, GrantKind::Manifest, &reference, error);
                }
                fetched
            }
        };
        self.together(&self.0.manifests, upstream, place, "fetch a manifest", work).await
    }

    async fn fetch_manifest(
        &self,
        upstream: &Arc<Upstream>,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Fetched, CacheError> {
        let edition = self.edition(upstream, repository);
        if let Some(fetched) = self.confirm_stored(upstream, repository, digest).await {
            return Ok(fetched);
        }
        let reference = Reference::Digest(*digest);
        let received = upstream.origin.manifest(repository, &reference, Accept::MANIFESTS, MANIFEST_BYTES_MAX).await;
        let received = received.map_err(|error| upstream.error(error))?;
        let manifest = read(upstream, &received)?;
        let fetched = Fetched {
            bytes: received.bytes.clone(),
            headers: ContentHeaders::of(digest, Some(received.bytes.len() as u64)).into(),
            media_type: manifest.media_type.clone(),
        };
        // P-40: the digest of schema 1 does not cover the bytes as sent; they are passed on and not kept.
        if manifest.media_type.is_schema1() {
            return Ok(fetched);
        }
        upstream.metrics.fetched(Kind::ManifestDigest, Trigger::Client, received.bytes.len() as u64);
        verify(upstream, *digest, Digest::of(digest.algorithm(), &received.bytes))?;
        // What came from before a write may have been deleted by it.
        if self.edition(upstream, repository) == edition {
            self.keep_manifest(upstream, repository, *digest, &manifest, received.bytes).await;
        }
        Ok(fetched)
    }

    /// Asks the upstream whether the repository has a manifest whose bytes are here already, from another repository or from a push; `None`
    /// when they are not, or when it does not say.
    async fn confirm_stored(
        &self,
        upstream: &Arc<Upstream>,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Option<Fetched> {
        let (bytes, headers) = self.stored_bytes(upstream, digest).await?;
        let edition = self.edition(upstream, repository);
        let reference = Reference::Digest(*digest);
        let head = upstream.origin.manifest_head(repository, &reference, Accept::MANIFESTS).await.ok()?;
        let manifest = Manifest::read(&bytes, Some(&head.media_type?)).ok()?;
        if manifest.media_type.is_schema1() || self.edition(upstream, repository) != edition {
            return None;
        }
        let media_type = manifest.media_type.clone();
        self.keep_manifest(upstream, repository, *digest, &manifest, bytes.clone()).await;
        Some(Fetched { bytes, headers, media_type })
    }

    /// Grants, indexes and stores a verified manifest. The client's answer waits for the disk only a moment.
    pub(super) async fn keep_manifest(
        &self,
        upstream: &Arc<Upstream>,
        repository: &RepositoryName,
        digest: Digest,
        manifest: &Manifest,
        bytes: Bytes,
    ) {
        if let ManifestKind::Image { config, .. } = &manifest.kind {
            self.0.image_configs.insert(config.digest, ());
        }
        let name = upstream.origin.name();
        self.0.ledger.grant_manifest(name, repository, &digest, &manifest.media_type);
        if let Some(subject) = &manifest.subject {
            let referrer = Referrer::of(manifest, &digest, bytes.len() as u64);
            self.0.ledger.record_referrer(name, repository, &subject.digest, &referrer);
        }
        let embedded: Vec<_> = manifest.embedded().collect();
        for (blob, _) in &embedded {
            self.0.ledger.grant_blob(name, repository, blob);
        }
        let store = self.store();
        let keep = move || {
            store.put(&digest, Class::Metadata, &bytes)?;
            embedded.iter().try_for_each(|(blob, bytes)| store.put(blob, Class::Metadata, bytes))
        };
        let kept = self.0.tasks.spawn("keep a manifest", async move {
            if let Err(error) = blocking(keep).await {
                tracing::warn!(%digest, error = sentence(&error), "a manifest is not cached, or not all that it holds");
            }
        });
        // Past the patience the task goes on by itself.
        let _in_time = tokio::time::timeout(KEEP_PATIENCE, kept).await;
    }

    /// Returns a manifest that was granted to the repository and is stored.
    pub(super) async fn stored_manifest(
        &self,
        upstream: &Upstream,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Option<ManifestAnswer> {
        let media_type = self.0.ledger.manifest_type(upstream.origin.name(), repository, digest)?;
        let (bytes, headers) = self.stored_bytes(upstream, digest).await?;
        Some(ManifestAnswer {
            digest: *digest,
            media_type,
            headers,
            bytes: Some(bytes),
            outcome: Outcome::Hit,
            stale: None,
        })
    }

    async fn stored_bytes(&self, upstream: &Upstream, digest: &Digest) -> Option<(Bytes, Arc<ContentHeaders>)> {
        if let Some(object) = self.0.store.peek(digest) {
            return Some((object.read_all().ok()?, object.headers));
        }
        let (store, digest, metrics) = (self.store(), *digest, Arc::clone(&upstream.metrics));
        let load = move || {
            let Some(object) = store.open(&digest).filter(|object| object.size_bytes <= MANIFEST_BYTES_MAX as u64)
            else {
                return Ok(None);
            };
            let bytes = match object.read_all() {
                Ok(bytes) => bytes,
                Err(error) => {
                    Damage::of(&error).map(|damage| store.discard(&digest, &object, damage));
                    return Err(error);
                }
            };
            if Digest::of(digest.algorithm(), &bytes) == digest {
                store.verified(&digest, &object);
                return Ok(Some((bytes, object.headers)));
            }
            if store.discard(&digest, &object, Damage::Mismatch) {
                tracing::error!(%digest, "a stored manifest does not match its digest and is dropped");
                metrics.mismatch(Kind::ManifestDigest, MismatchSource::Disk);
            }
            Ok::<_, std::io::Error>(None)
        };
        match blocking(load).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%digest, %error, "a stored manifest cannot be read and counts as absent");
                None
            }
        }
    }
}

pub(super) fn read(upstream: &Upstream, received: &Received) -> Result<Manifest, CacheError> {
    Manifest::read(&received.bytes, received.media_type.as_ref()).map_err(|source| CacheError::InvalidManifest {
        upstream: upstream.origin.name().clone(),
        source: Arc::new(source),
    })
}

pub(super) fn verify(upstream: &Upstream, expected: Digest, actual: Digest) -> Result<(), CacheError> {
    if expected == actual {
        return Ok(());
    }
    upstream.metrics.mismatch(Kind::ManifestDigest, MismatchSource::Upstream);
    let upstream = upstream.origin.name().clone();
    tracing::error!(upstream.name = %upstream, %expected, %actual, "the upstream sent a manifest with a wrong digest; it was discarded");
    Err(CacheError::mismatch(upstream, expected, actual))
}

pub(super) fn passed_through(received: Received, media_type: MediaType, computed: Digest) -> ManifestAnswer {
    let digest = received.digest.unwrap_or(computed);
    ManifestAnswer {
        digest,
        media_type,
        headers: ContentHeaders::of(&digest, Some(received.bytes.len() as u64)).into(),
        bytes: Some(received.bytes),
        outcome: Outcome::Bypass,
        stale: None,
    }
}
