//! Whom an upstream lets read what: asked in each caller's own name, before anything that is cached is told (S-1, S-2, S-4).
//!
//! Where an upstream, or some of its repositories, are for callers, bytes are shared as everywhere, and so are fills, tags and lists. But
//! a question is put only by who was admitted to its repository: the upstream has said yes to this caller about this repository not long
//! ago. A yes is no grant: whether the repository has a digest is decided as ever; and a grant is no yes.
//!
//! | what is known | the upstream says | the caller is |
//! |---|---|---|
//! | a yes to content, or to lists, whichever is wanted, younger than `access_ttl` | is not asked | admitted |
//! | a no, of a moment ago | is not asked | refused |
//! | anything else | 2xx, or a redirect for a blob | admitted; a yes is remembered |
//! | anything else | 401, 403 | refused; the yes is forgotten, a no remembered |
//! | anything else | 404 | told 404; the yes is forgotten: many registries say so to whom they hide a repository from |
//! | a yes, within `access_stale_if_error` beyond `access_ttl` | nothing: it fails, limits us, or keeps us waiting | admitted |
//! | no such yes | the same | told of the failure |
//!
//! The upstream is asked what the caller asks, by HEAD where there is one ([`Wanted`]). A 401 or 403 that a later question meets takes the
//! yes back at once ([`Watched`] sees them all).
//!
//! What one caller hears is nothing to another. Absences and denials are remembered for each caller apart. Whoever joined a question that
//! was put in somebody else's name, and is told no, asks again in its own name ([`Cache::together`]); a fill goes on in the name of another
//! follower (`fill::askers`). A denial to one takes no tag, list or grant from the others.

mod watched;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Memo;
use tokio::time::Instant;

use self::watched::Watched;
use super::decide::{is_manifest_type, within};
use super::flight::{Flights, Landed};
use super::manifest::{MANIFEST_BYTES_MAX, read};
use super::tags::PAGE_BYTES_MAX;
use super::{Cache, CacheError, Place, Upstream};
use crate::oci::{Digest, Pattern, Reference, RepositoryName, TagList};
use crate::store::GrantKind;
use crate::telemetry::Admission;
use crate::upstream::{Caller, CallerId, CallerKey, UpstreamError};
use crate::wire::Accept;

/// How long a no is remembered: a client that was refused asks again at once, and who was just given the right is in after a breath.
const NO_TTL: Duration = Duration::from_secs(5);

/// How long it is remembered that a yes was taken back: longer than any question takes that was asked before.
const ASKED_FOR: Duration = Duration::from_mins(1);

/// Yeses remembered of one upstream: some 10 MiB. Only the upstream makes them, so a stranger pushes none of them out.
const YES_MAX: u64 = 50_000;

/// Noes remembered of one upstream, some 2 MiB; beyond that, the upstream is asked again.
const NO_MAX: u64 = 10_000;

/// For whom an upstream's repositories are, and how long its word about a caller holds.
#[derive(Debug, Clone)]
pub struct AccessRules {
    /// Repositories are for callers, those of `except` are not; else it is the other way round.
    pub is_for_callers: bool,
    pub except: Vec<Pattern>,
    /// How long a yes holds without asking again.
    pub ttl: Duration,
    /// How long beyond that it holds while the upstream does not answer.
    pub stale_if_error: Duration,
}

impl AccessRules {
    /// Returns true when nobody needs to be asked about any repository.
    fn are_for_everybody(&self) -> bool {
        !self.is_for_callers && self.except.is_empty()
    }
}

/// What a caller wants to read.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    Manifest(&'a Reference),
    Blob(&'a Digest),
    Tags,
    Referrers(&'a Digest),
}

/// Why somebody is not admitted.
#[derive(Debug, Clone)]
pub enum Unadmitted {
    /// It shows something that is neither an account nor a token.
    Unreadable,
    /// The upstream does not let it in, and it has shown nothing.
    Anonymous,
    /// The upstream does not let it in.
    Denied,
    /// The upstream does not have it, or cannot be asked.
    Failed(CacheError),
}

/// What is known of one upstream's callers. It ends with the upstream: what replaces it knows nothing of it.
#[derive(Debug)]
pub(super) struct Access {
    rules: AccessRules,
    key: CallerKey,
    /// When the upstream was last asked to whom it then said yes. Apart for lists: some registries have a right to list that is
    /// none to pull.
    yes: Memo<(CallerId, RepositoryName, Sphere), Instant>,
    /// Apart for lists: who may not list tags may be let in to pull.
    no: Memo<(CallerId, RepositoryName, Sphere), ()>,
    /// When a yes was last taken back: one that was asked for before is not remembered after.
    taken_back: Memo<(CallerId, RepositoryName), Instant>,
}

/// Whose view of an upstream it is.
#[derive(Debug, Clone)]
pub(super) struct Viewer {
    pub(super) id: CallerId,
    is_anonymous: bool,
    access: Arc<Access>,
}

/// What a yes or a no is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sphere {
    Content,
    Lists,
}

/// What is remembered of a caller and a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    Yes,
    No,
    Nothing,
}

impl Access {
    /// Returns `None` where nobody needs to be asked.
    pub(super) fn new(rules: AccessRules) -> Option<Arc<Self>> {
        if rules.are_for_everybody() {
            return None;
        }
        let kept = rules.ttl.saturating_add(rules.stale_if_error);
        // The default policy refuses newcomers of a full cache, and every caller is one at first.
        let yes =
            Memo::builder().max_capacity(YES_MAX).eviction_policy(EvictionPolicy::lru()).time_to_live(kept).build();
        let no =
            Memo::builder().max_capacity(NO_MAX).eviction_policy(EvictionPolicy::lru()).time_to_live(NO_TTL).build();
        let taken_back =
            Memo::builder().max_capacity(NO_MAX).eviction_policy(EvictionPolicy::lru()).time_to_live(ASKED_FOR).build();
        Some(Arc::new(Self { rules, key: CallerKey::new(), yes, no, taken_back }))
    }

    fn is_for_callers(&self, repository: &RepositoryName) -> bool {
        let is_excepted = self.rules.except.iter().any(|pattern| pattern.matches(repository.as_str()));
        self.rules.is_for_callers != is_excepted
    }

    fn recall(&self, caller: CallerId, repository: &RepositoryName, wanted: Wanted<'_>, now: Instant) -> Memory {
        if self.holds(caller, repository, wanted, self.rules.ttl, now) {
            return Memory::Yes;
        }
        let is_no = self.no.contains_key(&(caller, repository.clone(), wanted.sphere()));
        if is_no { Memory::No } else { Memory::Nothing }
    }

    /// Returns true while a yes holds although the upstream does not answer.
    fn holds_stale(&self, caller: CallerId, repository: &RepositoryName, wanted: Wanted<'_>, now: Instant) -> bool {
        self.holds(caller, repository, wanted, self.rules.ttl.saturating_add(self.rules.stale_if_error), now)
    }

    fn holds(
        &self,
        caller: CallerId,
        repository: &RepositoryName,
        wanted: Wanted<'_>,
        length: Duration,
        now: Instant,
    ) -> bool {
        let asked_at = |sphere: &Sphere| self.yes.get(&(caller, repository.clone(), *sphere));
        wanted.enough().iter().filter_map(asked_at).any(|asked_at| is_within(length, asked_at, now))
    }

    /// Notes what the upstream said about `sphere` when it was asked at `asked_at`.
    fn note(
        &self,
        caller: CallerId,
        repository: &RepositoryName,
        sphere: Sphere,
        told: &Result<(), CacheError>,
        asked_at: Instant,
    ) {
        let place = (caller, repository.clone());
        match told {
            Ok(()) => {
                // First noted, then looked at the mark: whoever marks does it the other way round.
                let yes = (caller, repository.clone(), sphere);
                self.yes.insert(yes.clone(), asked_at);
                if self.taken_back.get(&place).is_some_and(|at| at >= asked_at) {
                    self.yes.invalidate(&yes);
                }
            }
            Err(error) if error.is_denial() => {
                self.take_back(caller, repository);
                self.no.insert((caller, repository.clone(), sphere), ());
            }
            Err(error) if error.is_absence() => self.take_back(caller, repository),
            Err(_) => {}
        }
    }

    /// Forgets a yes: the upstream has said no since.
    fn take_back(&self, caller: CallerId, repository: &RepositoryName) {
        let place = (caller, repository.clone());
        self.taken_back.insert(place, Instant::now());
        for sphere in [Sphere::Content, Sphere::Lists] {
            self.yes.invalidate(&(caller, repository.clone(), sphere));
        }
    }
}

/// A yes of zero length holds for nobody.
fn is_within(length: Duration, asked_at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(asked_at) < length
}

impl Upstream {
    /// Returns true for a repository that the upstream must let the caller read, each one by itself.
    pub fn is_for_callers(&self, repository: &RepositoryName) -> bool {
        self.access.as_ref().is_some_and(|access| access.is_for_callers(repository))
    }

    /// Returns true where some repositories are for callers.
    pub fn has_callers(&self) -> bool {
        self.access.is_some()
    }

    /// Returns the upstream in the name of whoever shows `authorization`; `None` when that is neither an account nor a token.
    pub fn seen_by(&self, authorization: Option<&HeaderValue>) -> Option<Arc<Self>> {
        let access = self.access.as_ref()?;
        let caller = Caller::new(&access.key, authorization)?;
        let viewer = Viewer { id: caller.id(), is_anonymous: caller.is_anonymous(), access: Arc::clone(access) };
        let origin = Arc::new(Watched::new(self.origin.as_caller(&caller), viewer.clone()));
        Some(Arc::new(Self { origin, viewer: Some(viewer), ..self.clone() }))
    }

    /// Returns whose name it is asked in; `None` for our own.
    pub(super) fn caller(&self) -> Option<CallerId> {
        self.viewer.as_ref().map(|viewer| viewer.id)
    }

    /// Returns how somebody is refused whom the upstream denies something in the middle, `None` where it denies us.
    pub fn refusal(&self, error: &CacheError) -> Option<Unadmitted> {
        let viewer = self.viewer.as_ref().filter(|_| error.is_denial())?;
        Some(viewer.refused())
    }

    /// Stops a question about a repository that is for callers and that was put in nobody's name: our account is no caller's.
    pub(super) fn checks_in(&self, repository: &RepositoryName) -> Result<(), CacheError> {
        match &self.access {
            Some(access) if self.viewer.is_none() && access.is_for_callers(repository) => {
                Err(self.error(UpstreamError::Denied { status: 401, message: None }))
            }
            _ => Ok(()),
        }
    }
}

impl Viewer {
    fn refused(&self) -> Unadmitted {
        if self.is_anonymous { Unadmitted::Anonymous } else { Unadmitted::Denied }
    }

    /// Takes back what the upstream said of this caller before.
    fn is_denied(&self, repository: &RepositoryName) {
        self.access.take_back(self.id, repository);
    }
}

impl Cache {
    /// Lets a caller in to a repository that is for callers, or not; returns the upstream in its name.
    ///
    /// # Errors
    /// Why not. Nothing in it tells whether anything is cached.
    pub async fn admit(
        &self,
        upstream: &Arc<Upstream>,
        repository: &RepositoryName,
        authorization: Option<&HeaderValue>,
        wanted: Wanted<'_>,
    ) -> Result<Arc<Upstream>, Unadmitted> {
        let (view, admitted) = match upstream.seen_by(authorization) {
            Some(view) => {
                let admitted = self.admission(&view, repository, wanted).await;
                (Some(view), admitted)
            }
            None => (None, Err(Unadmitted::Unreadable)),
        };
        upstream.metrics.admission(match &admitted {
            Ok(how) => *how,
            Err(Unadmitted::Failed(error)) if !error.is_absence() => Admission::Error,
            Err(_) => Admission::Denied,
        });
        admitted.and(view.ok_or(Unadmitted::Unreadable))
    }

    async fn admission(
        &self,
        view: &Arc<Upstream>,
        repository: &RepositoryName,
        wanted: Wanted<'_>,
    ) -> Result<Admission, Unadmitted> {
        let Some(viewer) = &view.viewer else { return Err(Unadmitted::Unreadable) };
        let (access, caller) = (&viewer.access, viewer.id);
        match access.recall(caller, repository, wanted, Instant::now()) {
            Memory::Yes => return Ok(Admission::Cached),
            Memory::No => return Err(viewer.refused()),
            Memory::Nothing => {}
        }
        if let Some(absence) = self.absence_of(view, repository, wanted) {
            return Err(Unadmitted::Failed(absence));
        }
        let patience = access.holds_stale(caller, repository, wanted, Instant::now()).then_some(view.policy.stale_wait);
        let asked = within(view.patience(patience), Box::pin(self.ask_whether(view, repository, wanted))).await;
        let failure = match asked {
            Some(Ok(())) => return Ok(Admission::Allowed),
            Some(Err(error)) if error.is_denial() => return Err(viewer.refused()),
            Some(Err(error)) if error.is_absence() => return Err(Unadmitted::Failed(error)),
            Some(Err(error)) => error,
            None => {
                view.silence.begins(Instant::now());
                CacheError::Aborted
            }
        };
        // Asked again: it may have been taken back in the meantime.
        if access.holds_stale(caller, repository, wanted, Instant::now()) {
            return Ok(Admission::Stale);
        }
        Err(Unadmitted::Failed(failure))
    }

    /// Returns the absence that this caller was told of a moment ago.
    fn absence_of(&self, view: &Upstream, repository: &RepositoryName, wanted: Wanted<'_>) -> Option<CacheError> {
        let (kind, reference) = wanted.kind()?;
        self.remembered_absence(view, repository, kind, &reference).filter(CacheError::is_absence)
    }

    /// Asks the upstream whether the caller may read, once for all of the caller's questions about the repository.
    async fn ask_whether(
        &self,
        view: &Arc<Upstream>,
        repository: &RepositoryName,
        wanted: Wanted<'_>,
    ) -> Result<(), CacheError> {
        let place = |what| Place::own(view, repository, what);
        let fly = async |what| {
            let (cache, view, repository, wanted) =
                (self.clone(), Arc::clone(view), repository.clone(), wanted.owned());
            let work = move || async move {
                let told = ask(&view, &repository, wanted.wanted()).await;
                if let (Some((kind, reference)), Err(error)) = (wanted.wanted().kind(), &told)
                    && error.is_absence()
                {
                    cache.remember_absence(&view, &repository, kind, &reference, error);
                }
                told
            };
            self.0.admissions.join(place(what), "ask whether a caller may read", work).await
        };
        // Whoever may list is not known by that to be let in to pull: lists are asked about apart.
        let landed = fly((wanted.sphere() == Sphere::Lists).then(|| wanted.to_string())).await;
        let landed = match &landed.answer {
            // Something else is absent, which says nothing about this.
            Some(Err(error)) if !landed.led && error.is_absence() => fly(Some(wanted.to_string())).await,
            _ => landed,
        };
        landed.answer.unwrap_or(Err(CacheError::Aborted))
    }

    /// Joins a question that is everybody's; who is told no, and had it asked in somebody else's name, asks it in its own.
    pub(super) async fn together<T, V, F>(
        &self,
        flights: &Flights<Place<T>, Result<V, CacheError>>,
        upstream: &Upstream,
        place: Place<T>,
        name: &'static str,
        work: impl Fn() -> F,
    ) -> Landed<Result<V, CacheError>>
    where
        Place<T>: Clone + Eq + std::hash::Hash + Send + 'static,
        V: Clone + Send + Sync + 'static,
        F: Future<Output = Result<V, CacheError>> + Send + 'static,
    {
        let Some(caller) = upstream.caller() else { return flights.join(place, name, work).await };
        let landed = flights.join(place.clone(), name, &work).await;
        match &landed.answer {
            Some(Err(error)) if !landed.led && error.may_be_about_the_caller() => {
                flights.join(Place { caller: Some(caller), ..place }, name, work).await
            }
            _ => landed,
        }
    }
}

/// Asks the upstream in the caller's name, and notes what it says.
async fn ask(view: &Arc<Upstream>, repository: &RepositoryName, wanted: Wanted<'_>) -> Result<(), CacheError> {
    let Some(Viewer { id, access, .. }) = &view.viewer else { return Err(CacheError::Aborted) };
    let asked_at = Instant::now();
    let mut sphere = wanted.sphere();
    let told = match wanted {
        Wanted::Manifest(reference) => may_read_manifest(view, repository, reference).await,
        Wanted::Blob(digest) => view.origin.may_read_blob(repository, digest).await.map_err(|error| view.error(error)),
        Wanted::Tags => may_list_tags(view, repository).await,
        Wanted::Referrers(subject) => {
            // What is referred to need not be there.
            match may_read_manifest(view, repository, &Reference::Digest(*subject)).await {
                Err(error) if error.is_absence() => may_list_tags(view, repository).await,
                Ok(()) => {
                    sphere = Sphere::Content;
                    Ok(())
                }
                told => told,
            }
        }
    };
    if !told.as_ref().is_err_and(|error| error.of_upstream().is_none_or(|error| error.allows_stale())) {
        view.silence.ends();
    }
    access.note(*id, repository, sphere, &told, asked_at);
    told
}

/// Asks by HEAD, and where that says too little or is refused, by GET (P-137).
async fn may_read_manifest(
    view: &Upstream,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<(), CacheError> {
    match view.origin.manifest_head(repository, reference, Accept::MANIFESTS).await {
        // A page for people is no yes (U-71).
        Ok(head) if head.media_type.as_ref().is_some_and(is_manifest_type) => return Ok(()),
        Ok(_) | Err(UpstreamError::Denied { .. } | UpstreamError::Status { status: 405 | 501, .. }) => {}
        Err(error) => return Err(view.error(error)),
    }
    let received = view.origin.manifest(repository, reference, Accept::MANIFESTS, MANIFEST_BYTES_MAX).await;
    read(view, &received.map_err(|error| view.error(error))?).map(drop)
}

async fn may_list_tags(view: &Upstream, repository: &RepositoryName) -> Result<(), CacheError> {
    let page = view.origin.tags(repository, "n=1", PAGE_BYTES_MAX).await.map_err(|error| view.error(error))?;
    let list = TagList::read(&page.bytes);
    list.map(drop).map_err(|error| view.error(UpstreamError::Protocol { reason: format!("no list of tags: {error}") }))
}

impl Wanted<'_> {
    fn sphere(self) -> Sphere {
        match self {
            Self::Manifest(_) | Self::Blob(_) => Sphere::Content,
            Self::Tags | Self::Referrers(_) => Sphere::Lists,
        }
    }

    /// Returns what a yes must be about, any of these, to be one to this. Who refers to what is told to whoever may read either.
    fn enough(self) -> &'static [Sphere] {
        match self {
            Self::Manifest(_) | Self::Blob(_) => &[Sphere::Content],
            Self::Tags => &[Sphere::Lists],
            Self::Referrers(_) => &[Sphere::Content, Sphere::Lists],
        }
    }

    /// Returns as what its absence is remembered.
    fn kind(self) -> Option<(GrantKind, Reference)> {
        match self {
            Self::Manifest(reference) => Some((GrantKind::Manifest, reference.clone())),
            Self::Blob(digest) => Some((GrantKind::Blob, Reference::Digest(*digest))),
            Self::Tags | Self::Referrers(_) => None,
        }
    }

    fn owned(self) -> OwnedWanted {
        match self {
            Self::Manifest(reference) => OwnedWanted::Manifest(reference.clone()),
            Self::Blob(digest) => OwnedWanted::Blob(*digest),
            Self::Tags => OwnedWanted::Tags,
            Self::Referrers(subject) => OwnedWanted::Referrers(*subject),
        }
    }
}

impl std::fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifest(reference) => write!(f, "manifests/{reference}"),
            Self::Blob(digest) => write!(f, "blobs/{digest}"),
            Self::Tags => f.write_str("tags"),
            Self::Referrers(subject) => write!(f, "referrers/{subject}"),
        }
    }
}

/// The same for a task of its own.
#[derive(Debug)]
enum OwnedWanted {
    Manifest(Reference),
    Blob(Digest),
    Tags,
    Referrers(Digest),
}

impl OwnedWanted {
    fn wanted(&self) -> Wanted<'_> {
        match self {
            Self::Manifest(reference) => Wanted::Manifest(reference),
            Self::Blob(digest) => Wanted::Blob(digest),
            Self::Tags => Wanted::Tags,
            Self::Referrers(subject) => Wanted::Referrers(subject),
        }
    }
}

#[cfg(test)]
mod tests;
