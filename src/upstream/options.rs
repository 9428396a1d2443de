//! What one upstream is and how it may be asked: everything that the client needs to be told.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use hyper_util::client::proxy::matcher::Matcher;
use rustls::pki_types::CertificateDer;
use url::Url;

use super::credentials::Credentials;
use super::egress::is_plainly_internal;
use super::tls::ClientIdentity;
use crate::oci::UpstreamName;

/// Blob transfers at once towards one upstream: some images' worth of layers, and far below what registries refuse.
pub const CONNECTIONS_DEFAULT: usize = 32;

/// Other requests at once towards one upstream: they are short, so this is hundreds a second.
pub const REQUESTS_DEFAULT: usize = 64;

/// What one upstream is and how it may be asked.
#[derive(Debug, Clone)]
pub struct Options {
    pub name: UpstreamName,
    /// Where it is: `http` or `https`, perhaps with a path prefix. Asked in this order, those in good health first.
    pub endpoints: Vec<Url>,
    /// Where the account to pull with comes from; `None` is anonymous.
    pub credentials: Option<Credentials>,
    /// Where credential helpers are searched; `None` is `PATH`.
    pub helper_directories: Option<Vec<PathBuf>>,
    /// Hosts beside the upstream's own domain whose token service may get the credentials (S-26).
    pub realm_hosts: Vec<String>,
    /// Authorities to trust beside the system's.
    pub extra_ca: Vec<CertificateDer<'static>>,
    /// What we show an upstream that asks for a certificate.
    pub client_identity: Option<ClientIdentity>,
    /// Accepts any certificate of the registry's own hosts: whoever sits between sees the credentials.
    pub insecure: bool,
    /// It may lead us to private addresses and to this machine (S-25).
    pub internal: bool,
    /// Most blob transfers at once; at least 1 is used.
    pub connections: usize,
    /// Most other requests at once; at least 1 is used.
    pub requests: usize,
    /// Most requests a second; `None` is no limit. Token requests and redirects do not count.
    pub rate: Option<NonZeroU32>,
    pub timeouts: Timeouts,
    /// What requests say in `Via`, by which we know our own (P-119).
    pub via: HeaderValue,
    /// Which addresses are reached through which proxy; `None` is always direct.
    pub proxy: Option<Arc<Matcher>>,
}

impl Options {
    /// Returns the options of an anonymous upstream at one endpoint, everything else at its default, without a proxy.
    pub fn new(name: UpstreamName, endpoint: Url) -> Self {
        let internal = endpoint.host().is_some_and(|host| is_plainly_internal(&host));
        Self {
            name,
            endpoints: vec![endpoint],
            credentials: None,
            helper_directories: None,
            realm_hosts: Vec::new(),
            extra_ca: Vec::new(),
            client_identity: None,
            insecure: false,
            internal,
            connections: CONNECTIONS_DEFAULT,
            requests: REQUESTS_DEFAULT,
            rate: None,
            timeouts: Timeouts::default(),
            via: HeaderValue::from_static("1.1 cachalot"),
            proxy: None,
        }
    }

    /// Returns the proxy rules of `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, read at this moment.
    pub fn proxy_from_environment() -> Arc<Matcher> {
        Arc::new(Matcher::from_env())
    }
}

/// How long the client waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For name lookup and TCP together, and once more for a proxy's tunnel and the TLS handshake together.
    pub connect: Duration,
    /// For a question until the headers of its answer: retries, redirects, tokens and waiting for a turn included.
    /// A manifest is there whole within it.
    pub header: Duration,
    /// For the next byte of a blob. There is no limit for a whole blob (P-133).
    pub idle: Duration,
    /// For a token.
    pub token: Duration,
}

impl Timeouts {
    /// A healthy registry connects within a tenth of this, also from another continent.
    pub const CONNECT: Duration = Duration::from_secs(5);
    /// Clients give up 30 s after they asked (P-124); this leaves them our own work.
    pub const HEADER: Duration = Duration::from_secs(20);
    /// A transfer that stood still so long is dead; the fill resumes it.
    pub const IDLE: Duration = Duration::from_secs(30);
    /// Half of the header budget: a second try still fits (P-170).
    pub const TOKEN: Duration = Duration::from_secs(10);
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Self::CONNECT, header: Self::HEADER, idle: Self::IDLE, token: Self::TOKEN }
    }
}

/// Why options make no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("upstream {0} has no endpoint")]
    NoEndpoint(UpstreamName),
    /// Not `http` or `https`, no host, or with userinfo, query or fragment.
    #[error("an endpoint of upstream {0} is not a plain http or https URL")]
    Endpoint(UpstreamName),
}
