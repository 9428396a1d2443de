//! The policy: when to serve what is stored, when to ask the upstream, when to fill, and when to refuse.
//!
//! [`Cache`] answers four questions: a manifest ([`Cache::manifest`]), a blob ([`Cache::blob`]), a list of tags ([`Cache::tags`])
//! and a manifest's referrers ([`Cache::referrers`]). It relays writes (`push`). Every answer says how it came about ([`Outcome`]).
//! Bytes are shared by digest; who may have them is decided per (upstream, repository, kind, digest): the upstream must have
//! granted it, or is asked (S-3). Where an upstream is for callers, each of them must be let in first ([`Cache::admit`]).
//!
//! What is deliberately absent: HTTP (that is `server`), credentials and redirects (`upstream`), files (`store`).

mod access;
mod blob;
mod body;
mod check;
mod client;
mod decide;
mod error;
mod fill;
mod flight;
mod manifest;
mod piece;
mod prefetch;
mod push;
mod referrers;
mod silence;
mod tag;
mod tags;

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache as Memo;
use tokio::time::Instant;

pub use access::{AccessRules, Unadmitted, Wanted};
pub use blob::{BlobAnswer, BlobQuestion};
pub use body::{BlobBody, BodyError};
pub use client::Client;
pub use decide::Policy;
pub use error::CacheError;
pub use fill::{FillError, FillLimits, Parallel, Prefix};
pub use manifest::{MANIFEST_BYTES_MAX, ManifestAnswer, ManifestQuestion};
pub use piece::{PIECE_BYTES_MAX, Piece, Rescue};
pub use prefetch::Prefetch;
pub use push::{Begin, Begun, Chunk, Incoming, ManifestPush, ManifestPushed, PushError, UploadStatus, Writer};
pub use referrers::{ReferrersAnswer, ReferrersQuestion};
pub use tags::{TagsAnswer, TagsQuestion};

use crate::oci::{Digest, Pattern, Reference, RepositoryName, Tag, UpstreamName};
use crate::store::{BlobStore, Buffers, Class, GrantKind, Ledger};
use crate::tasks::TaskGroup;
use crate::telemetry::{Kind, UpstreamMetrics};
use crate::upstream::{CallerId, Capability, Origin, UpstreamError};
use crate::wire::Outcome;
use access::{Access, Viewer};
use client::ClientBounds;
use fill::{Bounds, Inflight, Learned};
use flight::Flights;
use silence::Silence;

/// Absences remembered at the most (S-37): a flood of random tags costs no more memory than this, some 2 MiB.
const NEGATIVES_MAX: u64 = 10_000;

/// Digests known to be image configs that are remembered, so that they are charged to the metadata budget.
const IMAGE_CONFIGS_MAX: u64 = 50_000;

/// What a cache works with.
#[derive(Debug)]
pub struct Parts {
    pub store: Arc<dyn BlobStore>,
    pub ledger: Arc<Ledger>,
    pub tasks: TaskGroup,
    /// Bounds on the fills of all upstreams together.
    pub fills: FillLimits,
    /// Bounds on those that each client has started.
    pub client_fills: FillLimits,
}

/// One upstream as the cache knows it, in our own name or in that of a caller ([`Upstream::seen_by`]).
#[derive(Debug, Clone)]
pub struct Upstream {
    origin: Arc<dyn Origin>,
    policy: Policy,
    immutable_tags: Arc<[Pattern]>,
    tells_429: bool,
    filling: Filling,
    bounds: Bounds,
    learned: Arc<Learned>,
    silence: Arc<Silence>,
    metrics: Arc<UpstreamMetrics>,
    /// `None` where it is everybody's.
    access: Option<Arc<Access>>,
    /// In whose name it is asked; `None` for our own.
    viewer: Option<Viewer>,
}

/// How old an upstream's answers may be.
#[derive(Debug, Clone)]
pub struct Rules {
    pub policy: Policy,
    /// Tags that never move.
    pub immutable_tags: Vec<Pattern>,
    /// Clients are told 429 when it limits us and nothing stale is to be served.
    pub tells_429: bool,
    /// Whom it must let read what.
    pub access: AccessRules,
}

/// How an upstream's blobs are filled.
#[derive(Debug, Clone, Copy)]
pub struct Filling {
    /// Bounds on the fills of this upstream.
    pub limits: FillLimits,
    pub parallel: Parallel,
    pub prefetch: Prefetch,
}

/// The cache. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn BlobStore>,
    ledger: Arc<Ledger>,
    tasks: TaskGroup,
    buffers: Buffers,
    inflight: Inflight,
    bounds: Bounds,
    client_bounds: ClientBounds,
    tags: Flights<Place<Tag>, Result<tag::Asked, CacheError>>,
    manifests: Flights<Place<Digest>, Result<manifest::Fetched, CacheError>>,
    pages: tags::Pages,
    page_flights: Flights<Place<String>, Result<tags::Page, CacheError>>,
    lists: referrers::Lists,
    list_flights: Flights<Place<Digest>, Result<referrers::Kept, CacheError>>,
    sessions: push::Sessions,
    unsettled: push::Unsettled,
    keeper: push::Keeper,
    existence: Flights<Place<Digest>, Result<Option<u64>, CacheError>>,
    admissions: Flights<Place<Option<String>>, Result<(), CacheError>>,
    negatives: Memo<Place<(GrantKind, Reference)>, Absence>,
    image_configs: Memo<Digest, ()>,
    looked_at: prefetch::LookedAt,
}

/// Something within a repository of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place<T> {
    upstream: UpstreamName,
    repository: RepositoryName,
    what: T,
    /// Set for what is this caller's alone.
    caller: Option<CallerId>,
}

impl<T> Place<T> {
    fn new(upstream: &Upstream, repository: &RepositoryName, what: T) -> Self {
        Self { upstream: upstream.origin.name().clone(), repository: repository.clone(), what, caller: None }
    }

    /// The same for whoever asks alone, where the upstream is asked in a caller's name.
    fn own(upstream: &Upstream, repository: &RepositoryName, what: T) -> Self {
        Self { caller: upstream.caller(), ..Self::new(upstream, repository, what) }
    }
}

/// A remembered 404, 401 or 403: what the upstream said, and how long it holds.
#[derive(Debug, Clone)]
struct Absence {
    error: UpstreamError,
    ttl: Duration,
}

/// Gives each absence its upstream's `negative_ttl`.
struct AbsenceExpiry;

impl<K> moka::Expiry<K, Absence> for AbsenceExpiry {
    fn expire_after_create(&self, _key: &K, absence: &Absence, _now: std::time::Instant) -> Option<Duration> {
        Some(absence.ttl)
    }
}

impl Cache {
    pub fn new(parts: Parts) -> Self {
        let Parts { store, ledger, tasks, fills, client_fills } = parts;
        Self(Arc::new(Inner {
            store,
            ledger,
            buffers: Buffers::default(),
            inflight: Inflight::default(),
            bounds: Bounds::new(fills),
            client_bounds: ClientBounds::new(client_fills),
            tags: Flights::new(tasks.clone()),
            manifests: Flights::new(tasks.clone()),
            pages: tags::pages(),
            page_flights: Flights::new(tasks.clone()),
            lists: referrers::lists(),
            list_flights: Flights::new(tasks.clone()),
            sessions: push::Sessions::default(),
            unsettled: push::unsettled(),
            keeper: push::Keeper::default(),
            existence: Flights::new(tasks.clone()),
            admissions: Flights::new(tasks.clone()),
            negatives: Memo::builder().max_capacity(NEGATIVES_MAX).expire_after(AbsenceExpiry).build(),
            image_configs: Memo::new(IMAGE_CONFIGS_MAX),
            looked_at: prefetch::looked_at(),
            tasks,
        }))
    }

    /// Lets nobody join small questions to an upstream that are under way: whoever waits for them already is told what they bring.
    pub fn forget_questions(&self, upstream: &UpstreamName) {
        self.0.tags.forget(|place| place.upstream == *upstream);
        self.0.manifests.forget(|place| place.upstream == *upstream);
        self.0.page_flights.forget(|place| place.upstream == *upstream);
        self.0.list_flights.forget(|place| place.upstream == *upstream);
        self.0.existence.forget(|place| place.upstream == *upstream);
        self.0.admissions.forget(|place| place.upstream == *upstream);
    }

    /// Returns how many fills are under way.
    pub fn fills_under_way(&self) -> usize {
        self.0.inflight.len()
    }

    fn store(&self) -> Arc<dyn BlobStore> {
        Arc::clone(&self.0.store)
    }

    fn class(&self, digest: &Digest) -> Class {
        if self.0.image_configs.contains_key(digest) { Class::Metadata } else { Class::Layer }
    }

    /// Returns the absence remembered of `reference`, as the error that it is.
    fn remembered_absence(
        &self,
        upstream: &Upstream,
        repository: &RepositoryName,
        kind: GrantKind,
        reference: &Reference,
    ) -> Option<CacheError> {
        let place = Place::own(upstream, repository, (kind, reference.clone()));
        let absence = self.0.negatives.get(&place).filter(|_| self.is_settled(upstream, repository))?;
        Some(CacheError::Negative { upstream: place.upstream, source: absence.error })
    }

    /// Remembers a 404, 401 or 403 of the upstream, for the caller in whose name it was asked, for its `negative_ttl` (P-142):
    /// containerd asks again after a refused HEAD, only to read the words (P-109).
    fn remember_absence(
        &self,
        upstream: &Upstream,
        repository: &RepositoryName,
        kind: GrantKind,
        reference: &Reference,
        error: &CacheError,
    ) {
        let CacheError::Upstream { source, .. } = error else { return };
        if matches!(source, UpstreamError::NotFound { .. } | UpstreamError::Denied { .. }) {
            let place = Place::own(upstream, repository, (kind, reference.clone()));
            let policy = match reference {
                Reference::Tag(tag) => upstream.policy_of(tag),
                Reference::Digest(_) => upstream.policy,
            };
            self.0.negatives.insert(place, Absence { error: source.clone(), ttl: policy.negative_ttl });
        }
    }
}

impl Upstream {
    pub fn new(origin: Arc<dyn Origin>, rules: Rules, filling: Filling, metrics: Arc<UpstreamMetrics>) -> Self {
        let (bounds, learned) = (Bounds::new(filling.limits), Arc::default());
        let Rules { policy, immutable_tags, tells_429, access } = rules;
        Self {
            origin,
            policy,
            immutable_tags: immutable_tags.into(),
            tells_429,
            filling,
            bounds,
            learned,
            silence: Arc::default(),
            metrics,
            access: Access::new(access),
            viewer: None,
        }
    }

    /// Returns how long a client waits for this upstream that has a stale answer at hand, of the time that it would wait at the most.
    fn patience(&self, patience: Option<Duration>) -> Option<Duration> {
        patience.map(|patience| self.silence.shortens(patience, Instant::now()))
    }

    /// Returns the policy for `tag`.
    fn policy_of(&self, tag: &Tag) -> Policy {
        let is_immutable = self.immutable_tags.iter().any(|pattern| pattern.matches(tag.as_str()));
        Policy { is_immutable, ..self.policy }.of_tag(tag)
    }

    /// Brings the gauges up to date that change by time alone.
    pub fn refresh_gauges(&self) {
        for which in Capability::ALL {
            self.metrics.set_capable(which.as_str(), self.origin.capability(which));
        }
    }

    /// Returns true when clients are to be told of its limits as such.
    pub fn tells_429(&self) -> bool {
        self.tells_429
    }

    pub fn name(&self) -> &UpstreamName {
        self.origin.name()
    }

    pub fn metrics(&self) -> &Arc<UpstreamMetrics> {
        &self.metrics
    }

    fn error(&self, source: UpstreamError) -> CacheError {
        CacheError::Upstream { upstream: self.origin.name().clone(), source }
    }

    fn offline(&self) -> CacheError {
        CacheError::Offline { upstream: self.origin.name().clone() }
    }

    /// Counts a question by how it was answered; a failed one as an error.
    fn count<T>(&self, kind: Kind, result: &Result<T, CacheError>, outcome: impl FnOnce(&T) -> Outcome) {
        self.metrics.requested(
            kind,
            match result {
                Ok(answer) => outcome(answer),
                Err(error) => error.outcome(),
            },
        );
    }
}

#[cfg(test)]
mod tests;
