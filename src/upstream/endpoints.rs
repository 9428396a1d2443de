//! The endpoints of one upstream: where each is, and how it has been doing.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use url::Url;

use super::error::UpstreamError;
use super::health::{self, Health};
use super::origin::EndpointId;

/// The endpoints of one upstream.
#[derive(Debug)]
pub(super) struct Endpoints {
    urls: Vec<Url>,
    // A plain mutex: held for arithmetic on a few entries.
    health: Mutex<Vec<Health>>,
}

impl Endpoints {
    pub(super) fn new(urls: Vec<Url>) -> Self {
        let health = Mutex::new(vec![Health::default(); urls.len()]);
        Self { urls, health }
    }

    /// Returns all endpoints in the order in which to ask them.
    pub(super) fn order(&self) -> Vec<EndpointId> {
        health::order(&self.health(), Instant::now()).into_iter().map(EndpointId).collect()
    }

    /// Returns `<endpoint>/v2/<path>`.
    pub(super) fn url(&self, endpoint: EndpointId, path: &str) -> Option<Url> {
        let mut url = self.urls.get(endpoint.0)?.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}/v2/{path}"));
        Some(url)
    }

    pub(super) fn succeeded(&self, endpoint: EndpointId) {
        self.note(endpoint, Health::succeeded);
    }

    pub(super) fn failed(&self, endpoint: EndpointId, error: &UpstreamError) {
        self.note(endpoint, |health| health.failed(error, Instant::now()));
    }

    /// Notes that an endpoint sent wrong bytes, and says so.
    pub(super) fn distrust(&self, endpoint: EndpointId) {
        self.note(endpoint, |health| health.distrust(Instant::now()));
        let host = self.urls.get(endpoint.0).and_then(Url::host_str).unwrap_or_default();
        tracing::warn!(upstream.endpoint = host, "an endpoint that sent wrong bytes is asked last for some minutes");
    }

    fn note(&self, endpoint: EndpointId, note: impl FnOnce(&mut Health)) {
        if let Some(health) = self.health().get_mut(endpoint.0) {
            note(health);
        }
    }

    fn health(&self) -> MutexGuard<'_, Vec<Health>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
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
