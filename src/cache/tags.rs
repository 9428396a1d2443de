//! The tags question: a page of the list of a repository's tags.
//!
//! A list is the upstream's word: what is known of some tags is not all of them (P-97). Pages are kept as they came, by the query that
//! asked for them, under the same policy of freshness as a tag, and in memory only.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use moka::sync::Cache as Memo;
use url::form_urlencoded;

use super::decide::{Decision, Health, decide, within};
use super::{Cache, CacheError, Place, Upstream};
use crate::oci::{RepositoryName, TagList};
use crate::telemetry::{Kind, StaleReason, Trigger};
use crate::upstream::{RateLimit, UpstreamError};
use crate::wire::Outcome;

/// Bytes of an upstream's page at the most: some 100,000 long tags.
pub(super) const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of all pages that are kept.
const KEPT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What a page costs in memory beside its bytes and its query.
const OVERHEAD_BYTES: usize = 512;

/// A question about a repository's tags.
#[derive(Debug)]
pub struct TagsQuestion<'a> {
    pub upstream: &'a Arc<Upstream>,
    pub repository: &'a RepositoryName,
    /// What the upstream is asked, encoded: `n`, `last`, or the query of a link that it gave (P-94, P-96).
    pub query: &'a str,
}

/// A page of tags.
#[derive(Debug, Clone)]
pub struct TagsAnswer {
    /// A document as clients want it.
    pub json: Bytes,
    /// The query of the next page, as the upstream gave it.
    pub next_query: Option<Arc<str>>,
    pub outcome: Outcome,
    /// Why the answer is stale, when it is.
    pub stale: Option<StaleReason>,
}

/// A page that is kept.
#[derive(Debug, Clone)]
pub(super) struct Page {
    json: Bytes,
    next_query: Option<Arc<str>>,
    checked_at: SystemTime,
}

/// The pages that are kept.
pub(super) type Pages = Memo<Place<String>, Page>;

pub(super) fn pages() -> Pages {
    let weigh = |place: &Place<String>, page: &Page| {
        u32::try_from(place.what.len() + page.json.len() + OVERHEAD_BYTES).unwrap_or(u32::MAX)
    };
    Memo::builder().max_capacity(KEPT_BYTES_MAX).weigher(weigh).build()
}

impl Cache {
    /// Answers a question about a repository's tags.
    pub async fn tags(&self, question: &TagsQuestion<'_>) -> Result<TagsAnswer, CacheError> {
        question.upstream.checks_in(question.repository)?;
        let answer = self.find_tags(question).await;
        question.upstream.count(Kind::Tags, &answer, |answer| answer.outcome);
        answer
    }

    async fn find_tags(&self, question: &TagsQuestion<'_>) -> Result<TagsAnswer, CacheError> {
        let upstream = question.upstream;
        let place = Place::new(upstream, question.repository, question.query.to_owned());
        let known = self.0.pages.get(&place);
        let decide = |health: Health<'_>| {
            decide(SystemTime::now(), known.as_ref().map(|page| page.checked_at), &upstream.policy, health)
        };
        let settle = |decision, failure| self.settle_tags(upstream, &place, known.clone(), decision, failure);
        let patience = match decide(Health::Unasked) {
            Decision::Ask(patience) => upstream.patience(patience),
            decision => return settle(decision, upstream.offline()),
        };
        if let Some(refusal) = upstream.origin.refusal_now(RateLimit::Requests).filter(|_| patience.is_some()) {
            return settle(decide(Health::Failed(&refusal)), upstream.error(refusal));
        }
        let asked = within(patience, Box::pin(self.ask_for_tags(upstream, place.clone()))).await;
        let Some(answer) = asked else { return settle(decide(Health::Silent), CacheError::Aborted) };
        match answer {
            Ok((page, outcome)) => Ok(page.answer(outcome, None)),
            Err(CacheError::Upstream { source, .. }) => settle(decide(Health::Failed(&source)), upstream.error(source)),
            Err(error) => Err(error),
        }
    }

    /// Does what was decided, short of asking; `failure` is told when nothing is to be served.
    fn settle_tags(
        &self,
        upstream: &Upstream,
        place: &Place<String>,
        known: Option<Page>,
        decision: Decision,
        failure: CacheError,
    ) -> Result<TagsAnswer, CacheError> {
        match (decision, known) {
            (Decision::Serve, Some(page)) => Ok(page.answer(Outcome::Hit, None)),
            (Decision::ServeStale(reason), Some(page)) => Ok(page.stale(upstream, reason)),
            // What one caller may not list is the others' still.
            (Decision::Revoke, Some(_)) if upstream.caller().is_some() => Err(failure),
            (Decision::Drop | Decision::Revoke, Some(_)) => {
                self.0.pages.invalidate(place);
                Err(failure)
            }
            _ => Err(failure),
        }
    }

    /// Asks the upstream for a page, once for all who ask together.
    async fn ask_for_tags(
        &self,
        upstream: &Arc<Upstream>,
        place: Place<String>,
    ) -> Result<(Page, Outcome), CacheError> {
        let work = || {
            let (cache, upstream, asked) = (self.clone(), Arc::clone(upstream), place.clone());
            async move {
                let page = fetch(&upstream, &asked).await?;
                let mut kept = page.clone();
                if !cache.is_settled(&upstream, &asked.repository) {
                    // Good for a failure, and never the upstream's word of this moment.
                    kept.checked_at =
                        kept.checked_at.checked_sub(upstream.policy.tag_ttl).unwrap_or(SystemTime::UNIX_EPOCH);
                }
                cache.0.pages.insert(asked, kept);
                Ok(page)
            }
        };
        let landed = self.together(&self.0.page_flights, upstream, place.clone(), "ask for tags", work).await;
        let outcome = if landed.led { Outcome::Miss } else { Outcome::Coalesced };
        landed.answer.unwrap_or(Err(CacheError::Aborted)).map(|page| (page, outcome))
    }
}

async fn fetch(upstream: &Upstream, place: &Place<String>) -> Result<Page, CacheError> {
    let received = upstream.origin.tags(&place.repository, &place.what, PAGE_BYTES_MAX).await;
    let received = received.map_err(|error| upstream.error(error))?;
    upstream.metrics.fetched(Kind::Tags, Trigger::Client, received.bytes.len() as u64);
    let mut list = TagList::read(&received.bytes)
        .map_err(|error| upstream.error(UpstreamError::Protocol { reason: format!("no list of tags: {error}") }))?;
    let parameter =
        |name: &str| form_urlencoded::parse(place.what.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value);
    let last = parameter("last");
    let next_query = if let Some(next) = received.next_query {
        if let Some(last) = &last {
            list.after(last);
        }
        Some(next)
    } else {
        // The last page, or the whole list of a registry that has no pages.
        let n = parameter("n").and_then(|n| n.parse().ok());
        list.cut(last.as_deref(), n).map(|last| next_query(n, last))
    };
    Ok(Page { json: list.to_json().into(), next_query: next_query.map(Arc::from), checked_at: SystemTime::now() })
}

fn next_query(n: Option<usize>, last: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(n) = n {
        query.append_pair("n", &n.to_string());
    }
    query.append_pair("last", last).finish()
}

impl Page {
    fn answer(self, outcome: Outcome, stale: Option<StaleReason>) -> TagsAnswer {
        TagsAnswer { json: self.json, next_query: self.next_query, outcome, stale }
    }

    fn stale(self, upstream: &Upstream, reason: StaleReason) -> TagsAnswer {
        upstream.metrics.stale(reason);
        self.answer(Outcome::Stale, Some(reason))
    }
}
