//! The endpoints of one upstream: where each is, how it has been doing, and who asks it too much.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use url::Url;

use super::cooling::{Cooling, Name};
use super::error::{RateLimit, UpstreamError};
use super::health::{self, Health, Plan};
use super::origin::EndpointId;
use crate::telemetry::sentence;

/// The endpoints of one upstream.
#[derive(Debug)]
pub(super) struct Endpoints {
    urls: Vec<Url>,
    // A plain mutex: held for arithmetic on a few entries.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    health: Vec<Health>,
    cooling: Cooling,
}

impl Endpoints {
    pub(super) fn new(urls: Vec<Url>) -> Self {
        let state = Mutex::new(State { health: vec![Health::default(); urls.len()], cooling: Cooling::default() });
        Self { urls, state }
    }

    /// Returns whom to ask now in `name`, and whom to probe beside that; `about` is the limit that the request would count for.
    ///
    /// # Errors
    /// When nobody is to be asked at this moment.
    pub(super) fn plan(&self, name: Name, about: RateLimit) -> Result<Plan, UpstreamError> {
        let now = Instant::now();
        let State { health, cooling } = &mut *self.state();
        health::plan(health, about, |endpoint| cooling.until(name, endpoint, about, now), now)
    }

    /// Returns why nobody is to be asked in `name` at this moment, if that is so.
    pub(super) fn refusal_now(&self, name: Name, about: RateLimit) -> Option<UpstreamError> {
        let now = Instant::now();
        let State { health, cooling } = &*self.state();
        health::refusal_now(health, about, |endpoint| cooling.until(name, endpoint, about, now), now)
    }

    /// Returns true unless nobody answers any more.
    pub(super) fn is_available(&self) -> bool {
        self.state().health.iter().any(|health| !health.is_open())
    }

    /// Returns `<endpoint>/v2/<path>`.
    pub(super) fn url(&self, endpoint: EndpointId, path: &str) -> Option<Url> {
        let mut url = self.urls.get(endpoint.0)?.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}/v2/{path}"));
        Some(url)
    }

    /// Holds a trial that a plan began.
    pub(super) fn trial(&self, trial: Option<(usize, Instant)>) -> Trial<'_> {
        Trial { endpoints: self, trial }
    }

    /// Notes an answer that the registry meant.
    pub(super) fn answered(&self, endpoint: EndpointId) {
        let was_open = self.note(endpoint, |health| {
            let was_open = health.is_open();
            health.answered(Instant::now());
            was_open
        });
        if was_open {
            tracing::info!(upstream.endpoint = self.host(endpoint), "an endpoint answers again");
        }
    }

    /// Notes that an endpoint answered a probe.
    pub(super) fn revived(&self, endpoint: EndpointId) {
        self.note(endpoint, |health| {
            health.revived();
            false
        });
    }

    /// Notes that an attempt in `name` failed.
    pub(super) fn failed(&self, name: Name, endpoint: EndpointId, error: &UpstreamError) {
        let now = Instant::now();
        let mut state = self.state();
        if let UpstreamError::RateLimited { retry_after, limit } = error {
            state.cooling.begins(name, endpoint.0, *limit, *retry_after, now);
        }
        if let Some(health) = state.health.get_mut(endpoint.0) {
            health.failed(error, now);
        }
    }

    /// Notes that a question which began at `began` failed here, retries included.
    pub(super) fn failed_in_vain(&self, endpoint: EndpointId, error: &UpstreamError, began: Instant) {
        if self.note(endpoint, |health| health.failed_in_vain(error, began, Instant::now())) {
            let host = self.host(endpoint);
            tracing::warn!(
                upstream.endpoint = host,
                error = sentence(error),
                "an endpoint fails and is left alone for a while"
            );
        }
    }

    /// Notes that an endpoint sent wrong bytes, and says so.
    pub(super) fn distrust(&self, endpoint: EndpointId) {
        self.note(endpoint, |health| {
            health.distrust(Instant::now());
            false
        });
        let host = self.host(endpoint);
        tracing::warn!(upstream.endpoint = host, "an endpoint that sent wrong bytes is asked last for some minutes");
    }

    fn note(&self, endpoint: EndpointId, note: impl FnOnce(&mut Health) -> bool) -> bool {
        self.state().health.get_mut(endpoint.0).is_some_and(note)
    }

    fn host(&self, endpoint: EndpointId) -> &str {
        self.urls.get(endpoint.0).and_then(Url::host_str).unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A trial of an endpoint that is half-open, if there is one. Dropping it ends it, also where its question was given up: nobody else may
/// try the endpoint meanwhile.
pub(super) struct Trial<'a> {
    endpoints: &'a Endpoints,
    trial: Option<(usize, Instant)>,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let Some((index, until)) = self.trial else { return };
        self.endpoints.note(EndpointId(index), |health| {
            health.end_trial(until);
            false
        });
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.urls.iter().map(Url::as_str).collect();
        f.write_str(&urls.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_made_of_endpoint_and_path() {
        for (endpoint, base) in [
            ("https://a.io", "https://a.io/v2"),
            ("https://a.io:443/", "https://a.io/v2"),
            ("http://a.io:5000/prefix", "http://a.io:5000/prefix/v2"),
            ("http://a.io:5000/some/prefix/", "http://a.io:5000/some/prefix/v2"),
        ] {
            let endpoints = Endpoints::new(vec![Url::parse(endpoint).expect("a URL")]);
            let url = endpoints.url(EndpointId::default(), "library/alpine/manifests/3.20").expect("the first one");
            assert_eq!(url.as_str(), format!("{base}/library/alpine/manifests/3.20"));
        }
    }
}
