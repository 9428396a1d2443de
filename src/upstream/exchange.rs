//! One question to an upstream from beginning to end: its turn, its proof, its redirects and its second chances.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout};

use super::answer;
use super::auth::{Auth, Place};
use super::caller::Caller;
use super::capability::Capabilities;
use super::cooling::Name;
use super::endpoints::Endpoints;
use super::error::{RateLimit, UpstreamError};
use super::health::{self, Plan};
use super::limit::{Budget, Limits, Permit};
use super::observe::{Observer, RequestKind};
use super::options::Options;
use super::origin::EndpointId;
use super::redirect::{self, Verdict};
use super::retry;
use super::transport::{Pool, Transport};
use crate::oci::RepositoryName;
use crate::tasks::TaskGroup;
use crate::wire::Quota;

/// What is asked.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) kind: RequestKind,
    pub(super) method: Method,
    /// Beneath `/v2/` of whichever endpoint is asked.
    pub(super) path: String,
    /// Encoded; empty for none.
    pub(super) query: &'a str,
    pub(super) repository: &'a RepositoryName,
    /// `Accept`, `Range`; nothing that may not be seen by a host that a redirect leads to.
    pub(super) headers: HeaderMap,
    /// An answer that leads to another origin is the answer: nobody is asked there.
    pub(super) stays: bool,
}

impl Question<'_> {
    /// Returns which of the upstream's limits it counts for: what fetches a manifest is a pull (U-4).
    pub(super) fn counts_for(&self) -> RateLimit {
        match (self.kind, &self.method) {
            (RequestKind::ManifestTag | RequestKind::ManifestDigest, &Method::GET) => RateLimit::Pulls,
            _ => RateLimit::Requests,
        }
    }
}

/// A round without an answer.
struct Failed {
    /// What to tell.
    error: UpstreamError,
    /// Who was asked, and how that failed.
    failures: Vec<(EndpointId, UpstreamError)>,
}

/// How long an endpoint may take to answer a probe.
pub(super) const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What it takes to ask one upstream.
pub(super) struct Exchange {
    /// In whose name.
    pub(super) name: Name,
    pub(super) transport: Arc<Transport>,
    pub(super) auth: Auth,
    limits: Arc<Limits>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) capabilities: Arc<Capabilities>,
    pub(super) observer: Arc<dyn Observer>,
    tasks: TaskGroup,
}

impl Exchange {
    pub(super) fn new(options: &Options, observer: Arc<dyn Observer>, tasks: TaskGroup) -> Self {
        observer.available(true);
        let capabilities = Arc::<Capabilities>::default();
        Self {
            name: None,
            transport: Arc::new(Transport::new(options, Arc::clone(&observer))),
            auth: Auth::new(options, Arc::clone(&capabilities), Arc::clone(&observer)),
            limits: Arc::new(Limits::new(options)),
            endpoints: Arc::new(Endpoints::new(options.endpoints.clone())),
            capabilities,
            observer,
            tasks,
        }
    }

    /// Returns the same in the name of `caller`: what proves us is the caller's, everything else is shared.
    pub(super) fn as_caller(&self, caller: &Caller) -> Self {
        Self {
            name: Some(caller.id()),
            transport: Arc::clone(&self.transport),
            auth: self.auth.as_caller(caller),
            limits: Arc::clone(&self.limits),
            endpoints: Arc::clone(&self.endpoints),
            capabilities: Arc::clone(&self.capabilities),
            observer: Arc::clone(&self.observer),
            tasks: self.tasks.clone(),
        }
    }

    /// Waits for the turn of a blob transfer.
    pub(super) async fn transfer_turn(&self, budget: &Budget) -> Result<Permit, UpstreamError> {
        self.not_in_vain(RateLimit::Requests)?;
        self.limits.transfer(budget).await.inspect_err(|error| self.observer.failed(error))
    }

    /// Returns how many turns of blob transfers are free.
    pub(super) fn free_transfers(&self) -> usize {
        self.limits.free_transfers()
    }

    /// Waits for the turn of a write.
    pub(super) async fn write_turn(&self, budget: &Budget) -> Result<Permit, UpstreamError> {
        self.limits.write(budget).await.inspect_err(|error| self.observer.failed(error))
    }

    /// Waits for the turn of any other question, which counts for the limit `about`.
    pub(super) async fn request_turn(&self, budget: &Budget, about: RateLimit) -> Result<Permit, UpstreamError> {
        self.not_in_vain(about)?;
        self.limits.request(budget).await.inspect_err(|error| self.observer.failed(error))
    }

    /// Returns why nobody is to be asked at this moment, if that is so.
    pub(super) fn refusal_now(&self, about: RateLimit) -> Option<UpstreamError> {
        self.endpoints.refusal_now(self.name, about)
    }

    /// Nobody queues for what would be refused at this moment.
    fn not_in_vain(&self, about: RateLimit) -> Result<(), UpstreamError> {
        self.refusal_now(about).map_or(Ok(()), Err)
    }

    /// Makes rounds of attempts until one succeeds, its error is final, or the budget is spent; `about` is the limit that the question
    /// counts for.
    ///
    /// After a connection broke, the next attempt goes over HTTP/1.1: some front ends break HTTP/2 streams (U-67).
    ///
    /// # Cancel safety
    /// Dropping the future closes what is under way.
    pub(super) async fn persist<T, F>(
        &self,
        budget: &Budget,
        about: RateLimit,
        pool: Pool,
        attempt: impl Fn(EndpointId, Pool) -> F,
    ) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let mut pool = pool;
        let mut number = 1;
        let mut last: Option<Failed> = None;
        let (error, failures) = loop {
            let Failed { error, failures } = match (self.round(budget, about, pool, &attempt).await, last.take()) {
                (Ok(answer), _) => return Ok(answer),
                // A round in which nobody was asked says less than the one before: that one failed.
                (Err(refused), Some(failed)) if refused.failures.is_empty() => break (failed.error, failed.failures),
                (Err(failed), _) => failed,
            };
            match retry::decide(number, &error, budget.elapsed(), budget.limit(), fastrand::f64()) {
                retry::Verdict::GiveUp => break (error, failures),
                retry::Verdict::Wait(wait) => {
                    self.observer.failed(&error);
                    self.observer.retried(error.as_str());
                    sleep(wait).await;
                }
            }
            if matches!(error, UpstreamError::Truncated { .. }) {
                pool = Pool::Blobs;
            }
            last = Some(Failed { error, failures });
            number += 1;
        };
        self.note_failures(&failures, budget);
        if !failures.is_empty() {
            self.observer.failed(&error);
        }
        Err(error)
    }

    /// Makes one attempt at each endpoint that is to be asked, those in good health first, until one succeeds. While there is another one
    /// to ask, none may use up the time for it.
    async fn round<T, F>(
        &self,
        budget: &Budget,
        about: RateLimit,
        pool: Pool,
        attempt: &impl Fn(EndpointId, Pool) -> F,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let not_asked = |error| Failed { error, failures: Vec::new() };
        let Plan { mut ask, probe, trial, refused } = self.endpoints.plan(self.name, about).map_err(not_asked)?;
        ask.retain(|endpoint| self.endpoints.url(EndpointId(*endpoint), "").is_some_and(|url| self.auth.may_ask(&url)));
        let _trial = self.endpoints.trial(trial);
        for endpoint in probe {
            self.probe(EndpointId(endpoint));
        }
        let (mut told, mut failures) = (None, Vec::new());
        for (index, endpoint) in ask.iter().copied().map(EndpointId).enumerate() {
            if let Err(error) = self.limits.pace(budget).await {
                return Err(Failed { error, failures });
            }
            let left = u32::try_from(ask.len() - index).unwrap_or(u32::MAX);
            let share = budget.share(left);
            let outcome = timeout(share, attempt(endpoint, pool)).await;
            let error = match outcome.unwrap_or_else(|_elapsed| Err(budget.spent_share(left, share))) {
                Ok(answer) => {
                    self.endpoints.answered(endpoint);
                    self.note_failures(&failures, budget);
                    return Ok(answer);
                }
                Err(error) => of_kind(error, about),
            };
            self.endpoints.failed(self.name, endpoint, &error);
            if left > 1 {
                self.observer.failed(&error);
                self.observer.retried(error.as_str());
            }
            failures.push((endpoint, error.clone()));
            told = Some(health::more_telling(told, error));
        }
        if let Some(refused) = refused {
            told = Some(health::more_telling(told, refused));
        }
        let error = told.unwrap_or_else(|| UpstreamError::Protocol { reason: "no endpoint to ask".to_owned() });
        Err(Failed { error, failures })
    }

    /// Notes where a question got no answer, now that it is over.
    fn note_failures(&self, failures: &[(EndpointId, UpstreamError)], budget: &Budget) {
        for (endpoint, error) in failures {
            self.endpoints.failed_in_vain(*endpoint, error, budget.began());
        }
        self.observer.available(self.endpoints.is_available());
    }

    /// Looks, beside what is asked, whether an endpoint that failed answers again.
    fn probe(&self, endpoint: EndpointId) {
        let Some(url) = self.endpoints.url(endpoint, "") else { return };
        let (transport, endpoints) = (Arc::clone(&self.transport), Arc::clone(&self.endpoints));
        self.tasks.spawn("probe an endpoint", async move {
            let began = Instant::now();
            let headers = HeaderMap::new();
            // An answer whose body does not come is none.
            let whole = async {
                let response = transport.send(Pool::Api, &Method::GET, &url, &headers).await?;
                let status = response.status();
                answer::drain(response).await;
                Ok(status)
            };
            let error = match timeout(PROBE_LIMIT, whole).await {
                Ok(Ok(status)) => {
                    if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
                        return endpoints.revived(endpoint);
                    }
                    UpstreamError::Status { status: status.as_u16(), message: None }
                }
                Ok(Err(error)) => error,
                Err(_elapsed) => UpstreamError::TimedOut { limit: "probe", after: PROBE_LIMIT },
            };
            endpoints.failed(None, endpoint, &error);
            endpoints.failed_in_vain(endpoint, &error, began);
        });
    }

    /// Makes one attempt: returns the answer at the end of the redirects, whatever its status.
    pub(super) async fn attempt(
        &self,
        question: &Question<'_>,
        endpoint: EndpointId,
        pool: Pool,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let began = Instant::now();
        let response = self.follow(question, endpoint, pool).await?;
        self.observer.answered(question.kind, response.status().as_u16(), began.elapsed());
        Ok(response)
    }

    /// Follows redirects. Their targets are used for this one request and forgotten (U-61).
    async fn follow(
        &self,
        question: &Question<'_>,
        endpoint: EndpointId,
        pool: Pool,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let url = self.endpoints.url(endpoint, &question.path);
        let mut url = url.ok_or_else(|| UpstreamError::Protocol { reason: "no such endpoint".to_owned() })?;
        url.set_query(Some(question.query).filter(|query| !query.is_empty()));
        let mut is_upstream = true;
        let mut hops = 0;
        loop {
            let place = Place { url: &url, is_upstream, repository: question.repository };
            let mut response = self.authenticated(question, place, pool).await?;
            if !is_upstream {
                response.extensions_mut().insert(answer::Elsewhere);
            }
            // A caller's quota is no concern of whoever watches ours.
            let is_ours = is_upstream && self.name.is_none();
            if let Some(quota) = Some(&response).filter(|_| is_ours).and_then(|told| Quota::of(told.headers())) {
                self.observer.quota(quota);
            }
            // Some registries send whoever asks for referrers to a web page (U-13); those with their lists elsewhere do not say 303.
            let is_elsewhere = question.kind == RequestKind::Referrers && response.status() == StatusCode::SEE_OTHER;
            let Some(location) = answer::location(&response).filter(|_| !is_elsewhere) else { return Ok(response) };
            match redirect::decide(&url, location, hops) {
                Verdict::Refuse(refusal) => return Err(UpstreamError::Protocol { reason: refusal.to_string() }),
                Verdict::Follow { keeps_authorization: false, .. } if question.stays => return Ok(response),
                Verdict::Follow { url: next, keeps_authorization } => {
                    url = next;
                    // Once gone, trust does not come back, also when the redirect does (U-60).
                    is_upstream &= keeps_authorization;
                    if !is_upstream {
                        // It did its part: what fails from here on is not its failure.
                        self.endpoints.answered(endpoint);
                    }
                }
            }
            answer::drain(response).await;
            hops += 1;
        }
    }

    /// Asks one host, with what proves us there; after a 401 once more, with what it asks for.
    async fn authenticated(
        &self,
        question: &Question<'_>,
        place: Place<'_>,
        pool: Pool,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let send = async |authorization: Option<&HeaderValue>| {
            let mut headers = question.headers.clone();
            if let Some(authorization) = authorization {
                headers.insert(header::AUTHORIZATION, authorization.clone());
            }
            self.transport.send(pool, &question.method, place.url, &headers).await
        };
        let proof = self.auth.before(&self.transport, place).await?;
        let response = send(proof.as_ref().map(|proof| &proof.authorization)).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let came_without = proof.is_none();
        let Some(mut proof) = self.auth.after(&self.transport, place, response.headers(), proof).await? else {
            return Ok(response);
        };
        answer::drain(response).await;
        let mut response = send(Some(&proof.authorization)).await?;
        // U-22: the first account that is shown may have been replaced by another; that one is shown once.
        if response.status() == StatusCode::UNAUTHORIZED
            && came_without
            && let Some(renewed) = self.auth.renewed(place, &proof).await?
        {
            answer::drain(response).await;
            response = send(Some(&renewed.authorization)).await?;
            proof = renewed;
        }
        if response.status() != StatusCode::UNAUTHORIZED {
            self.auth.remember(place, &proof);
        }
        Ok(response)
    }
}

/// A limit that is told as one of pulls, and met by what is none, is one of everything.
fn of_kind(error: UpstreamError, about: RateLimit) -> UpstreamError {
    match error {
        UpstreamError::RateLimited { retry_after, .. } if about == RateLimit::Requests => {
            UpstreamError::RateLimited { retry_after, limit: about }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::num::NonZeroU32;

    use url::Url;

    use super::*;

    const BUDGET: Duration = Duration::from_secs(20);

    fn exchange(rate: Option<u32>) -> Exchange {
        let name = "docker.io".parse().expect("a name");
        let mut options = Options::new(name, Url::parse("https://upstream.invalid").expect("a URL"));
        options.insecure = true; // no need to read roots
        options.rate = rate.and_then(NonZeroU32::new);
        Exchange::new(&options, Arc::new(()), TaskGroup::new())
    }

    /// Runs attempts that fail with these errors and then succeed; returns the outcome and the pools they went through.
    async fn persist(errors: Vec<UpstreamError>) -> (Result<(), UpstreamError>, Vec<Pool>) {
        let errors = RefCell::new(errors.into_iter());
        let pools = RefCell::new(Vec::new());
        let attempt = |_endpoint, pool| {
            pools.borrow_mut().push(pool);
            std::future::ready(errors.borrow_mut().next().map_or(Ok(()), Err))
        };
        let outcome = exchange(None).persist(&Budget::start(BUDGET), RateLimit::Requests, Pool::Api, attempt).await;
        (outcome, pools.take())
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_end_with_success_a_final_error_or_the_third() {
        use Pool::{Api, Blobs};
        let busy = || UpstreamError::Status { status: 503, message: None };
        let broken = || UpstreamError::Truncated { received_bytes: 0, source: None };
        let absent = || UpstreamError::NotFound { message: None };
        for (errors, expected, pools) in [
            (vec![], None, vec![Api]),
            (vec![busy()], None, vec![Api, Api]),
            (vec![broken(), busy()], None, vec![Api, Blobs, Blobs]),
            (vec![busy(), absent()], Some("http_4xx"), vec![Api, Api]),
            (vec![absent()], Some("http_4xx"), vec![Api]),
            (vec![busy(), busy(), busy()], Some("http_5xx"), vec![Api, Api, Api]),
        ] {
            let (outcome, seen) = persist(errors).await;
            assert_eq!((outcome.err().map(|error| error.as_str()), seen), (expected, pools));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_fails_is_over() {
        let exchange = exchange(None);
        let busy = |_, _| std::future::ready(Err::<(), _>(UpstreamError::Status { status: 503, message: None }));
        for _ in 0..3 {
            sleep(Duration::from_secs(15)).await;
            let _ = exchange.persist(&Budget::start(BUDGET), RateLimit::Requests, Pool::Api, busy).await;
        }
        let wait = |exchange: &Exchange| match exchange.refusal_now(RateLimit::Requests) {
            Some(UpstreamError::CircuitOpen { retry_after, .. }) => retry_after,
            other => panic!("{other:?}"),
        };
        sleep(wait(&exchange)).await;
        let outcome = exchange.persist(&Budget::start(BUDGET), RateLimit::Requests, Pool::Api, busy).await;
        assert!(matches!(outcome, Err(UpstreamError::Status { status: 503, .. })), "what the trial met: {outcome:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_is_given_up_leaves_the_next_one_free() {
        let exchange = exchange(None);
        let gone =
            || UpstreamError::Connect { host: "a".to_owned(), source: Arc::new(std::io::Error::other("refused")) };
        exchange.endpoints.failed(None, EndpointId::default(), &gone());
        exchange.endpoints.failed_in_vain(EndpointId::default(), &gone(), Instant::now());
        assert!(exchange.refusal_now(RateLimit::Requests).is_some());
        sleep(Duration::from_secs(1)).await;
        let budget = Budget::start(BUDGET);
        let hangs = |_, _| std::future::pending::<Result<(), _>>();
        let trial = exchange.persist(&budget, RateLimit::Requests, Pool::Api, hangs);
        assert!(timeout(Duration::from_secs(1), trial).await.is_err());
        let refusal = exchange.refusal_now(RateLimit::Requests);
        assert!(refusal.is_none(), "{refusal:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_ends_an_attempt_that_hangs() {
        let exchange = exchange(None);
        let began = Instant::now();
        let budget = Budget::start(BUDGET);
        let outcome: Result<(), _> =
            exchange.persist(&budget, RateLimit::Requests, Pool::Api, |_, _| std::future::pending()).await;
        assert!(
            matches!(outcome, Err(UpstreamError::TimedOut { limit: "header budget", after: BUDGET })),
            "{outcome:?}"
        );
        assert_eq!(began.elapsed(), BUDGET);
    }

    #[tokio::test]
    async fn a_rate_beyond_the_budget_is_told_without_asking() {
        let exchange = exchange(Some(1));
        let budget = Budget::start(Duration::from_millis(100));
        assert!(exchange.limits.pace(&budget).await.is_ok());
        let never = |_, _| std::future::pending::<Result<(), _>>();
        let error = exchange.persist(&budget, RateLimit::Requests, Pool::Api, never).await.expect_err("once a second");
        assert!(matches!(error, UpstreamError::RateLimited { retry_after: Some(_), .. }), "{error:?}");
    }
}
