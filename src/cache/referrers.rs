//! The referrers question: which manifests of a repository name this one as their subject.
//!
//! A list is gathered from all places where referrers are kept ([`gather`]), whole and unfiltered (P-83), and kept for a moment. An empty
//! one is not: what was looked for in vain is signed a moment later (P-88). A failure is never an empty list (P-87):
//!
//! | the upstream | what is known | answer |
//! |---|---|---|
//! | answers | – | what it lists |
//! | fails, or is not to be asked | its last list | that one, with those that passed through since; stale |
//! | fails, or is not to be asked | manifests that passed through | those; stale, for there may be more (P-89) |
//! | fails | nothing | the failure |

mod gather;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use moka::sync::Cache as Memo;

use self::gather::Gathered;
use super::decide::{Decision, Health, REFERRERS_TTL, decide, within};
use super::{Cache, CacheError, Place, Upstream};
use crate::oci::{Digest, Referrer, Referrers, RepositoryName, is_probe};
use crate::store::{ListEntry, blocking};
use crate::telemetry::{Kind, StaleReason};
use crate::upstream::RateLimit;
use crate::wire::Outcome;

/// Bytes of all lists that are kept in memory.
const KEPT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What a list costs in memory beside its entries, which are held twice: as they are read, and as they are sent.
const OVERHEAD_BYTES: usize = 1024;

/// A question about the referrers of a manifest.
#[derive(Debug)]
pub struct ReferrersQuestion<'a> {
    pub upstream: &'a Arc<Upstream>,
    pub repository: &'a RepositoryName,
    pub subject: &'a Digest,
}

/// All referrers of a manifest that are known.
#[derive(Debug, Clone)]
pub struct ReferrersAnswer {
    pub list: Arc<Referrers>,
    /// The same as an image index.
    pub json: Bytes,
    pub outcome: Outcome,
    /// Why the answer is stale, and perhaps incomplete, when it is.
    pub stale: Option<StaleReason>,
}

/// A list that is kept.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    list: Arc<Referrers>,
    json: Bytes,
    checked_at: SystemTime,
    /// Why it was stale when it was gathered.
    stale: Option<StaleReason>,
}

/// The lists that are kept.
pub(super) type Lists = Memo<Place<Digest>, Kept>;

pub(super) fn lists() -> Lists {
    let weigh = |_: &Place<Digest>, kept: &Kept| {
        u32::try_from(kept.json.len().saturating_mul(2) + OVERHEAD_BYTES).unwrap_or(u32::MAX)
    };
    Memo::builder().max_capacity(KEPT_BYTES_MAX).weigher(weigh).build()
}

impl Cache {
    /// Answers a question about the referrers of a manifest.
    pub async fn referrers(&self, question: &ReferrersQuestion<'_>) -> Result<ReferrersAnswer, CacheError> {
        question.upstream.checks_in(question.repository)?;
        let answer = self.find_referrers(question).await;
        question.upstream.count(Kind::Referrers, &answer, |answer| answer.outcome);
        answer
    }

    async fn find_referrers(&self, question: &ReferrersQuestion<'_>) -> Result<ReferrersAnswer, CacheError> {
        // P-73: nothing refers to what cannot be, whether the upstream is there or not.
        if is_probe(question.subject) {
            return Ok(Kept::new(Referrers::default(), SystemTime::now(), None).answer(Outcome::Hit));
        }
        let upstream = question.upstream;
        let place = Place::new(upstream, question.repository, *question.subject);
        let known = self.known_referrers(&place);
        let decide = |checked_at, health: Health<'_>| {
            decide(SystemTime::now(), checked_at, &upstream.policy.of_referrers(), health)
        };
        let checked_at = known.as_ref().map(|kept| kept.checked_at);
        let patience = match (decide(checked_at, Health::Unasked), &known) {
            (Decision::Serve, Some(kept)) if !kept.list.is_empty() => return Ok(kept.clone().answer(Outcome::Hit)),
            (Decision::Ask(patience), _) => upstream.patience(patience),
            (Decision::ServeStale(reason), _) => return self.stale_referrers(upstream, &place, known, reason).await,
            (Decision::Refuse, _) => {
                let synthesised = self.stale_referrers(upstream, &place, known, StaleReason::Offline).await;
                return synthesised.map_err(|_nothing| upstream.offline());
            }
            // An empty list is not believed for a moment.
            (Decision::Serve | Decision::Drop | Decision::Revoke | Decision::Tell, _) => None,
        };
        let refusal = upstream.origin.refusal_now(RateLimit::Requests);
        let failure = match refusal {
            Some(refusal) => upstream.error(refusal),
            None => match within(patience, Box::pin(self.ask_for_referrers(upstream, place.clone()))).await {
                Some(Ok((kept, outcome))) => return Ok(kept.answer(outcome)),
                Some(Err(failure)) => failure,
                None => return self.stale_referrers(upstream, &place, known, StaleReason::WhileRevalidate).await,
            },
        };
        let CacheError::Upstream { source, .. } = &failure else { return Err(failure) };
        // What passed through is as good as a list of this moment, as far as it goes.
        let reason = match decide(checked_at.or(Some(just_old())), Health::Failed(source)) {
            Decision::ServeStale(reason) => reason,
            Decision::Serve => StaleReason::UpstreamError,
            // The next failure must not bring back what we may not read, or what is gone.
            Decision::Drop | Decision::Revoke => {
                // What one caller may not list is the others' still.
                if upstream.caller().is_none() {
                    self.forget_referrers(&place);
                }
                return Err(failure);
            }
            Decision::Ask(_) | Decision::Tell | Decision::Refuse => {
                return Err(failure);
            }
        };
        self.stale_referrers(upstream, &place, known, reason).await.map_err(|_nothing| failure)
    }

    /// Returns the last list: from memory, or as it was written to disk.
    fn known_referrers(&self, place: &Place<Digest>) -> Option<Kept> {
        if let Some(kept) = self.0.lists.get(place) {
            return Some(kept);
        }
        let ListEntry { list, checked_at } =
            self.0.ledger.referrers(&place.upstream, &place.repository, &place.what)?;
        // What stands there may be of before a push: it is never the upstream's word of this moment.
        Some(Kept::new(list, checked_at.min(just_old()), None))
    }

    /// Returns the last list with what has passed through, if any of both is known.
    async fn stale_referrers(
        &self,
        upstream: &Upstream,
        place: &Place<Digest>,
        known: Option<Kept>,
        reason: StaleReason,
    ) -> Result<ReferrersAnswer, CacheError> {
        let Place { upstream: name, repository, .. } = place;
        let is_granted = |passed: &Referrer| self.0.ledger.manifest_type(name, repository, passed.digest()).is_some();
        // What somebody pushed may be nobody else's to know of (S-4).
        let recorded: Referrers = self.recorded_referrers(place).await.into_iter().filter(is_granted).collect();
        let list = match known {
            Some(kept) => Arc::unwrap_or_clone(kept.list).merged(recorded),
            None if recorded.is_empty() => return Err(upstream.offline()),
            None => recorded,
        };
        upstream.metrics.stale(reason);
        Ok(Kept::new(list, SystemTime::now(), Some(reason)).answer(Outcome::Stale))
    }

    /// Returns those that passed through and are still stored.
    async fn recorded_referrers(&self, place: &Place<Digest>) -> Referrers {
        let (ledger, place) = (Arc::clone(&self.0.ledger), place.clone());
        let read =
            move || Ok::<_, std::io::Error>(ledger.recorded_referrers(&place.upstream, &place.repository, &place.what));
        blocking(read).await.unwrap_or_default()
    }

    /// Gathers a list, once for all who ask together.
    async fn ask_for_referrers(
        &self,
        upstream: &Arc<Upstream>,
        place: Place<Digest>,
    ) -> Result<(Kept, Outcome), CacheError> {
        let work = || {
            let (cache, upstream, asked) = (self.clone(), Arc::clone(upstream), place.clone());
            async move {
                let Gathered { list, stale } = cache.gather(&upstream, &asked.repository, &asked.what).await?;
                let kept = Kept::new(list, SystemTime::now(), stale);
                // A caller may be shown nothing where others are shown something.
                if stale.is_none() && (upstream.caller().is_none() || !kept.list.is_empty()) {
                    cache.keep_referrers(&upstream, asked, &kept);
                }
                Ok(kept)
            }
        };
        let landed = self.together(&self.0.list_flights, upstream, place.clone(), "ask for referrers", work).await;
        let kept = landed.answer.unwrap_or(Err(CacheError::Aborted))?;
        let outcome = match (landed.led, kept.stale) {
            (_, Some(_)) => Outcome::Stale,
            (true, None) => Outcome::Miss,
            (false, None) => Outcome::Coalesced,
        };
        Ok((kept, outcome))
    }

    fn forget_referrers(&self, place: &Place<Digest>) {
        self.0.lists.invalidate(place);
        self.0.ledger.drop_referrers(&place.upstream, &place.repository, &place.what);
    }

    fn keep_referrers(&self, upstream: &Upstream, place: Place<Digest>, kept: &Kept) {
        let Place { upstream: name, repository, what: subject, .. } = &place;
        self.0.ledger.set_referrers(name, repository, subject, &kept.json, kept.checked_at);
        if self.is_settled(upstream, repository) {
            self.0.lists.insert(place, kept.clone());
        }
    }
}

/// Returns when a list was checked that has just ceased to be fresh.
fn just_old() -> SystemTime {
    SystemTime::now().checked_sub(REFERRERS_TTL).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Kept {
    fn new(list: Referrers, checked_at: SystemTime, stale: Option<StaleReason>) -> Self {
        Self { json: list.to_json(), list: Arc::new(list), checked_at, stale }
    }

    fn answer(self, outcome: Outcome) -> ReferrersAnswer {
        ReferrersAnswer { list: self.list, json: self.json, outcome, stale: self.stale }
    }
}
