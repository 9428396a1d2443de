//! The pooled HTTP clients of one upstream, and what their failures mean.
//!
//! Two pools: one for manifests, tokens and other small things (HTTP/2 where offered), one for blobs (HTTP/1.1, so that
//! parallel transfers have a connection each). A write gets a connection of its own: its body cannot be sent again when a pooled
//! one turns out to be dead. One request in, one answer out: no redirects, no authentication.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use url::Url;

use super::connect::{ConnectError, Connector, Uses, cause};
use super::egress::Egress;
use super::error::{CONNECT_LIMIT, UpstreamError};
use super::observe::Observer;
use super::options::Options;
use super::tls::{Protocols, Trust};
use super::write::Outgoing;

/// Idle connections live so long: below the keep-alive of common load balancers (60 s, 75 s), to lose few races.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// Idle connections per host in the pool for small requests; with HTTP/2 there is one.
const POOL_API_MAX: usize = 8;

/// A shared HTTP/2 connection that is silent so long under a request is asked whether it lives …
const H2_PING: Duration = Duration::from_secs(5);

/// … and is given up when it does not say so: it would hold up every request after it.
const H2_PING_LIMIT: Duration = Duration::from_secs(5);

const USER_AGENT: &str = concat!("cachalot/", env!("CARGO_PKG_VERSION"));

/// Which pool a request goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pool {
    Api,
    Blobs,
}

/// The pools.
pub(super) struct Transport {
    api: Client<Connector, Empty<Bytes>>,
    blobs: Client<Connector, Empty<Bytes>>,
    writes: Client<Connector, Outgoing>,
    proxy: Option<Arc<Matcher>>,
    via: HeaderValue,
    observer: Arc<dyn Observer>,
}

impl Transport {
    pub(super) fn new(options: &Options, observer: Arc<dyn Observer>) -> Self {
        let trust = Trust::new(options);
        let egress = Egress { is_internal: options.internal };
        let connector = |protocols| {
            Connector::new(trust.tls(protocols, options), options.proxy.clone(), egress, options.timeouts.connect)
        };
        let client = |protocols, idle| {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new()) // without it the idle time-out does nothing
                .pool_idle_timeout(POOL_IDLE)
                .pool_max_idle_per_host(idle)
                .http2_keep_alive_interval(H2_PING)
                .http2_keep_alive_timeout(H2_PING_LIMIT)
                .build(connector(protocols))
        };
        Self {
            api: client(Protocols::Http2OrHttp1, POOL_API_MAX),
            blobs: client(Protocols::Http1, options.connections.max(1)),
            writes: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector(Protocols::Http1)),
            proxy: options.proxy.clone(),
            via: options.via.clone(),
            observer,
        }
    }

    /// Sends one request and returns its answer, whatever the status.
    ///
    /// A pooled connection that turns out to be dead is replaced at once, once: its peer closed it while it was idle.
    /// GET and HEAD only, so a request that did arrive does no harm twice.
    ///
    /// # Cancel safety
    /// Dropping the future gives the request up; a connection that it was opening may end in the pool.
    pub(super) async fn send(
        &self,
        pool: Pool,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let client = match pool {
            Pool::Api => &self.api,
            Pool::Blobs => &self.blobs,
        };
        let mut outcome = client.request(self.request(method, url, headers)?).await;
        if outcome.as_ref().is_err_and(is_stale_connection) {
            self.observer.retried("stale_connection");
            outcome = client.request(self.request(method, url, headers)?).await;
        }
        let response = outcome.map_err(|error| explain(&error, url))?;
        if let Some(uses) = response.extensions().get::<Uses>() {
            uses.add();
        }
        check_encoding(response.headers())?;
        Ok(response)
    }

    /// Sends one request with a body, once.
    pub(super) async fn write(
        &self,
        method: &Method,
        url: &Url,
        headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let request = self.request(method, url, &headers)?.map(|_empty| body);
        self.writes.request(request).await.map_err(|error| explain(&error, url))
    }

    fn request(&self, method: &Method, url: &Url, headers: &HeaderMap) -> Result<Request<Empty<Bytes>>, UpstreamError> {
        let uri = Uri::try_from(url.as_str())
            .map_err(|_| UpstreamError::Protocol { reason: "a URL that HTTP cannot carry".to_owned() })?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method.clone();
        *request.headers_mut() = headers.clone();
        let constants: [(HeaderName, &'static str); 2] =
            // P-123: encoded bytes would not be the bytes that the digest names.
            [(header::ACCEPT_ENCODING, "identity"), (header::USER_AGENT, USER_AGENT)];
        for (name, value) in constants {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        request.headers_mut().insert(header::VIA, self.via.clone());
        if let Some(authorization) = self.plain_proxy_authorization(&uri) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization);
        }
        *request.uri_mut() = uri;
        Ok(request)
    }

    /// Returns the `Proxy-Authorization` of a request that the proxy itself reads; tunnels carry it in their CONNECT.
    fn plain_proxy_authorization(&self, target: &Uri) -> Option<HeaderValue> {
        if target.scheme_str() != Some("http") {
            return None;
        }
        self.proxy.as_ref()?.intercept(target)?.basic_auth().cloned()
    }
}

/// Refuses an encoded body: nobody asked for one, and its bytes are not the ones that were named (P-123).
fn check_encoding(headers: &HeaderMap) -> Result<(), UpstreamError> {
    let is_identity = |value: &HeaderValue| value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity) {
        return Ok(());
    }
    Err(UpstreamError::Protocol { reason: "an encoded body though identity was asked for".to_owned() })
}

/// Returns true when a request failed on a connection that had served before, and no answer had begun.
fn is_stale_connection(error: &legacy::Error) -> bool {
    let mut extensions = http::Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extensions);
    }
    let is_reused = extensions.get::<Uses>().is_some_and(Uses::is_reused);
    is_reused && cause::<hyper::Error>(error).is_none_or(|error| !error.is_parse())
}

/// Says what a failed request means.
fn explain(error: &legacy::Error, url: &Url) -> UpstreamError {
    if let Some(error) = cause::<ConnectError>(error) {
        return explain_connect(error, url);
    }
    match cause::<hyper::Error>(error) {
        Some(error) if error.is_parse() => UpstreamError::Protocol { reason: "an answer that is not HTTP".to_owned() },
        Some(_) | None => UpstreamError::Truncated { received_bytes: 0, source: Some(Arc::new(Broken::new(error))) },
    }
}

fn explain_connect(error: &ConnectError, url: &Url) -> UpstreamError {
    let host = host_of(url);
    match error {
        ConnectError::TimedOut(after) => UpstreamError::TimedOut { limit: CONNECT_LIMIT, after: *after },
        ConnectError::Forbidden(why) => UpstreamError::Forbidden { host, reason: why.to_string() },
        ConnectError::Lookup(_) => UpstreamError::Dns { host, source: Arc::new(error.clone()) },
        ConnectError::Tcp(_) | ConnectError::Tunnel(_) | ConnectError::ProxyScheme => {
            UpstreamError::Connect { host, source: Arc::new(error.clone()) }
        }
        ConnectError::Tls(_) | ConnectError::UnknownIssuer | ConnectError::NoRoots | ConnectError::ServerName => {
            UpstreamError::Tls { host, source: Arc::new(error.clone()) }
        }
    }
}

/// Returns `host` or `host:port`: what an error may say of a URL.
fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A broken exchange in words; the client's own error can be neither shared nor cloned.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

impl Broken {
    fn new(error: &legacy::Error) -> Self {
        let mut words = error.to_string();
        let mut next = error.source();
        while let Some(error) = next {
            words.push_str(": ");
            words.push_str(&error.to_string());
            next = error.source();
        }
        Self(words)
    }
}
