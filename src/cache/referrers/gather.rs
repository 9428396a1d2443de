//! Gathers a subject's referrers from wherever they are kept.
//!
//! 1. The upstream's referrers API, all its pages. An upstream without it answers something else than an index (P-76).
//! 2. The fallback tag, under which clients keep what a registry without the API does not: also where the API is there, for what was
//!    pushed before it was (P-77). Anybody who may push can put anything there: what is no index is ignored, and what the API does not
//!    list must name the subject (P-79).
//! 3. Where there is no API, the manifests that passed through here, as far as the upstream still has them.
//!
//! Entries that say too little are mended from the manifests themselves (P-80). All of it is bounded (P-92).

use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};

use super::super::manifest::{ManifestAnswer, ManifestQuestion};
use super::{Cache, CacheError, Place, Upstream};
use crate::oci::{
    DESCRIPTORS_MAX, Digest, Manifest, MediaType, Reference, Referrer, Referrers, RepositoryName, fallback_tag,
};
use crate::store::{Grant, GrantKind};
use crate::telemetry::{Kind, StaleReason, Trigger};
use crate::upstream::{Capability, UpstreamError};
use crate::wire::Accept;

/// Pages of one list at the most.
const PAGES_MAX: usize = 100;

/// Bytes of one list at the most, all its pages together.
const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of what is read of a fallback tag at the most (P-79).
const FALLBACK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Manifests that are looked at for one list at the most, so that one question does not become thousands.
const LOOKS_MAX: usize = 32;

/// So many of them at once.
const LOOKS_AT_ONCE: usize = 4;

/// A list, gathered.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) list: Referrers,
    /// Why a part of it is stale, if one is.
    pub(super) stale: Option<StaleReason>,
}

/// What the fallback tag gave.
#[derive(Debug, Default)]
struct Fallback {
    list: Referrers,
    stale: Option<StaleReason>,
}

impl Cache {
    pub(super) async fn gather(
        &self,
        upstream: &Arc<Upstream>,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Gathered, CacheError> {
        let of = Of { cache: self, upstream, repository, subject };
        let (listed, fallback) = tokio::join!(of.ask_api(), of.read_fallback_tag());
        match (listed?, fallback) {
            // Some registries deny what is not there.
            (Some(listed), Err(CacheError::Upstream { source: UpstreamError::Denied { .. }, .. })) => {
                Ok(Gathered { list: listed, stale: None })
            }
            (Some(listed), Ok(Fallback { list, stale })) => {
                let others = list.into_iter().filter(|other| !listed.contains(other.digest())).collect();
                Ok(Gathered { list: listed.merged(of.vetted(others).await), stale })
            }
            (None, Ok(Fallback { list, stale })) => {
                let passed = of.still_there(of.passed_through_beside(&list).await).await;
                Ok(Gathered { list: of.mended(list).await.merged(passed), stale })
            }
            // What is there cannot be told without both.
            (_, Err(error)) => Err(error),
        }
    }
}

/// The subject, and whom to ask about it.
#[derive(Clone, Copy)]
struct Of<'a> {
    cache: &'a Cache,
    upstream: &'a Arc<Upstream>,
    repository: &'a RepositoryName,
    subject: &'a Digest,
}

impl Of<'_> {
    /// Returns what the upstream lists; `None` when it has no such API.
    async fn ask_api(&self) -> Result<Option<Referrers>, CacheError> {
        let mut listed = Vec::new();
        let (mut query, mut len) = (String::new(), 0);
        for _ in 0..PAGES_MAX {
            let origin = &self.upstream.origin;
            let page = match origin.referrers(self.repository, self.subject, &query, LIST_BYTES_MAX - len).await {
                Ok(page) => page,
                Err(
                    UpstreamError::NotFound { .. } | UpstreamError::Status { status: 303 | 400 | 405 | 406 | 501, .. },
                ) if query.is_empty() => {
                    origin.note_capability(Capability::Referrers, false);
                    return Ok(None);
                }
                Err(error) => return Err(self.upstream.error(error)),
            };
            if page.media_type.as_ref().is_none_or(|is| is.as_str() != MediaType::OCI_INDEX) && query.is_empty() {
                origin.note_capability(Capability::Referrers, false);
                return Ok(None);
            }
            origin.note_capability(Capability::Referrers, true);
            len += page.bytes.len();
            self.upstream.metrics.fetched(Kind::Referrers, Trigger::Client, page.bytes.len() as u64);
            listed.extend(Referrers::read(&page.bytes).map_err(|error| self.violation(&error))?);
            if listed.len() > DESCRIPTORS_MAX {
                break;
            }
            match page.next_query {
                Some(next) if next != query => query = next,
                _ => return Ok(Some(listed.into_iter().collect())),
            }
        }
        Err(self.violation(&"the list of referrers has no end"))
    }

    fn violation(&self, reason: &dyn std::fmt::Display) -> CacheError {
        self.upstream.error(UpstreamError::Protocol { reason: format!("no list of referrers: {reason}") })
    }

    /// Returns what stands under the fallback tag; nothing when there is no such tag, or something else under it.
    async fn read_fallback_tag(&self) -> Result<Fallback, CacheError> {
        let tag = fallback_tag(self.subject);
        let reference = Reference::Tag(tag.clone());
        let accept = Accept::default();
        let question = ManifestQuestion {
            upstream: self.upstream,
            repository: self.repository,
            reference: &reference,
            accept: &accept,
            wants_bytes: true,
            client: None,
        };
        let answer = match self.cache.manifest_by_tag(&question, &tag).await {
            Ok(answer) => answer,
            Err(error) if error.is_absence() => return Ok(Fallback::default()),
            Err(
                error @ (CacheError::InvalidManifest { .. }
                | CacheError::Upstream { source: UpstreamError::TooLarge { .. }, .. }),
            ) => {
                tracing::warn!(upstream.name = %self.upstream.origin.name(), %tag, %error, "a fallback tag is ignored");
                return Ok(Fallback::default());
            }
            Err(error) => return Err(error),
        };
        let bytes = answer.bytes.unwrap_or_default();
        let read = if bytes.len() <= FALLBACK_BYTES_MAX { Referrers::read(&bytes).ok() } else { None };
        if read.is_none() {
            tracing::warn!(upstream.name = %self.upstream.origin.name(), %tag, "a fallback tag is no list of referrers and is ignored");
        }
        Ok(Fallback { list: read.unwrap_or_default(), stale: answer.stale })
    }

    /// Returns those whose manifest names the subject, mended.
    async fn vetted(&self, list: Referrers) -> Referrers {
        self.looked_at(list, |_| true).await
    }

    /// Returns all that the upstream has, those that say too little mended.
    async fn mended(&self, list: Referrers) -> Referrers {
        self.looked_at(list, |referrer| referrer.artifact_type().is_none()).await
    }

    /// Looks at the manifests of those that `is_doubtful` is true for: what is absent or names another subject is left out, what cannot
    /// be looked at stays as it is.
    async fn looked_at(&self, list: Referrers, is_doubtful: impl Fn(&Referrer) -> bool) -> Referrers {
        let mut looks = 0;
        let plan = |referrer| {
            let looks_at_it = is_doubtful(&referrer) && looks < LOOKS_MAX;
            looks += usize::from(looks_at_it);
            (referrer, looks_at_it)
        };
        let planned: Vec<_> = list.into_iter().map(plan).collect();
        let look = async |(referrer, looks_at_it)| {
            if looks_at_it { self.look_at(referrer).await } else { Some(referrer) }
        };
        some_of(stream::iter(planned).map(look)).await
    }

    async fn look_at(&self, referrer: Referrer) -> Option<Referrer> {
        let digest = *referrer.digest();
        if let Some(known) = self.record(&digest) {
            return Some(referrer.mended(&known));
        }
        let reference = Reference::Digest(digest);
        let question = ManifestQuestion {
            upstream: self.upstream,
            repository: self.repository,
            reference: &reference,
            accept: &Accept::default(),
            wants_bytes: true,
            client: None,
        };
        match self.cache.manifest_by_digest(&question, &digest).await {
            Ok(answer) => self.recorded(&digest, &answer).map(|known| referrer.mended(&known)),
            Err(error) if error.is_absence() => None,
            Err(_) => Some(referrer),
        }
    }

    /// Records a manifest that names the subject, if it does and was not recorded on its way.
    fn recorded(&self, digest: &Digest, answer: &ManifestAnswer) -> Option<Referrer> {
        let bytes = answer.bytes.as_ref()?;
        let manifest = Manifest::read(bytes, Some(&answer.media_type)).ok()?;
        manifest.subject.as_ref().filter(|subject| subject.digest == *self.subject)?;
        let referrer = Referrer::of(&manifest, digest, bytes.len() as u64);
        self.cache.0.ledger.record_referrer(self.upstream.origin.name(), self.repository, self.subject, &referrer);
        Some(referrer)
    }

    fn record(&self, referrer: &Digest) -> Option<Referrer> {
        let name = self.upstream.origin.name();
        self.cache.0.ledger.recorded_referrer(name, self.repository, self.subject, referrer)
    }

    /// Returns those that passed through and are not in `list`.
    async fn passed_through_beside(&self, list: &Referrers) -> Vec<Referrer> {
        let place = Place::new(self.upstream, self.repository, *self.subject);
        let recorded = self.cache.recorded_referrers(&place).await;
        recorded.into_iter().filter(|passed| !list.contains(passed.digest())).take(LOOKS_MAX).collect()
    }

    /// Returns those of `passed` that the upstream still has, and forgets the others.
    async fn still_there(&self, passed: Vec<Referrer>) -> Referrers {
        let ask = async |referrer: Referrer| {
            let reference = Reference::Digest(*referrer.digest());
            let head = self.upstream.origin.manifest_head(self.repository, &reference, Accept::MANIFESTS).await;
            if let Err(UpstreamError::NotFound { .. }) = head {
                // What is hidden from one caller is the others' still.
                if self.upstream.caller().is_some() {
                    return None;
                }
                let (upstream, repository) = (self.upstream.origin.name(), self.repository);
                let gone = Grant { upstream, repository, kind: GrantKind::Manifest, digest: referrer.digest() };
                self.cache.0.ledger.revoke(&gone);
                self.cache.0.ledger.drop_referrer(upstream, repository, referrer.digest());
                return None;
            }
            Some(referrer)
        };
        some_of(stream::iter(passed).map(ask)).await
    }
}

/// Waits for all looks, a few at once, and returns in order what they leave.
async fn some_of(looks: impl Stream<Item = impl Future<Output = Option<Referrer>>>) -> Referrers {
    let left: Vec<_> = looks.buffered(LOOKS_AT_ONCE).filter_map(std::future::ready).collect().await;
    left.into_iter().collect()
}
