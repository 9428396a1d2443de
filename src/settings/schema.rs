//! The settings as plain values: every key that the configuration has, its meaning, unit and bounds. Defaults and the reasons for them are
//! in [`defaults`](super::defaults).
//!
//! A key stands in the file under its section (`[store] capacity = "100GiB"`), in the environment with the section in
//! front (`CACHALOT_STORE__CAPACITY=100GiB`); durations are written `30s`, `5min`, `7d`, sizes `256MiB`, `100GiB`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use url::Url;

#[cfg(doc)]
#[allow(clippy::wildcard_imports, reason = "each key links to its default")]
use super::defaults::*;
use super::units::Quantity;
use crate::identity::{CertificateName, Htpasswd, Rule, TokenKeys, Tokens};
use crate::oci::{Pattern, Table, UpstreamName};
use crate::server::ServerIdentity;
use crate::upstream::{ClientIdentity, Credentials};
use crate::wire::Network;

/// Everything that an operator can choose, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub server: Server,
    /// Those of the file, in its order; perhaps none.
    pub listeners: Vec<Listener>,
    pub admin: Admin,
    pub store: Store,
    pub clients: Clients,
    pub identity: Identity,
    /// `[[principal]]`: what principals may; the first that fits one decides, and whom none fits may nothing. Without any, whoever is let
    /// in may everything.
    ///
    /// `match`: patterns of principals' names, at least one. `repositories`: patterns of `upstream/repository`, such as
    /// `docker.io/library/*`; default: all. `push`: writes are relayed, where the upstream takes them; default: true. `rate` and `burst`:
    /// as those of `[clients]`, for each principal; default: no limit.
    pub principals: Vec<Rule>,
    pub freshness: Freshness,
    pub fills: Fills,
    pub log: Log,
    pub metrics: Metrics,
    /// The built-in ones, then those of the file and of flags; perhaps none.
    pub upstreams: Vec<Upstream>,
    /// The upstreams as requests can name them, with `server.default_upstream`.
    pub table: Table,
}

/// `[server]`: where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Addresses for clients, without TLS; at least one where there is no `[[listener]]`; in the environment separated by commas.
    /// Default: [`LISTEN`], or none where there is a `[[listener]]`.
    pub listen: Vec<SocketAddr>,
    /// The URL by which clients know us: http or https, a host, perhaps a port. Absolute links are made of it, never of what a request
    /// says, and clients are told to get tokens there. Default: none; links are relative, and there are no tokens.
    pub public_url: Option<Url>,
    /// The upstream of requests that name none; the name or an alias of one in the table, `""` for none.
    /// Default: [`DEFAULT_UPSTREAM`], or none when the table has no such upstream.
    pub default_upstream: Option<UpstreamName>,
    /// How long open responses may take to end after the signal to stop; 0 s to 1 h. Default: [`DRAIN_TIMEOUT`].
    pub drain_timeout: Duration,
    /// How long a client may take to send the head of a request, and how long a connection may stay idle between
    /// requests; 1 s to 10 min. Default: [`SERVER_HEADER_TIMEOUT`].
    pub header_timeout: Duration,
    /// How long a TLS handshake may take, from the connection's first moment on; 1 s to 1 min. Default: [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// Client connections at one time at the most, of all listeners together; 1 to 1 000 000. Default: [`SERVER_CONNECTIONS`].
    pub connections: u32,
    /// How long a client may take nothing of a response before it is cut off; 1 s to 1 h.
    /// Default: [`WRITE_STALL_TIMEOUT`].
    pub write_stall_timeout: Duration,
}

/// `[[listener]]`: one more address for clients, with rules of its own.
///
/// Its files are looked at again while we run, at most every 2 s: what they hold then counts for new connections. Files that cannot be used
/// leave what they held before in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address, with its port; no other listener has it.
    pub address: SocketAddr,
    /// TLS; without `cert` and `key` the listener speaks plain HTTP. Default: none.
    pub tls: Option<ListenerTls>,
    /// Who connects here is asked who they are. Default: true.
    pub identities: bool,
}

/// How a `[[listener]]` speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// `cert` and `key`, both or none: PEM files of the certificate with those that lead to its authority, and of its key; at most 1 MiB
    /// each.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// What they held when the settings were loaded.
    pub identity: ServerIdentity,
    /// Who may connect. Default: everybody.
    pub clients: Option<ClientAuthorities>,
    /// HTTP/2 is offered, beside HTTP/1.1. Default: true.
    pub http2: bool,
}

/// Whose certificates a `[[listener]]` believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuthorities {
    /// `client_ca`: a PEM file of the authorities that sign clients' certificates, at most 1 MiB.
    pub path: PathBuf,
    /// What it held when the settings were loaded.
    pub authorities: Vec<CertificateDer<'static>>,
    /// `client_certificate`: `required`, or `optional`: who shows none gets in without a name. Default: `required`.
    pub is_required: bool,
}

/// `[clients]`: who asks, and how often one may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// Requests per second of one client, by its address, of IPv6 by its /64; 1 to 1 000 000. A request above it waits for 5 s at the most
    /// and is then told 503 with `Retry-After`. Default: no limit.
    pub rate: Option<NonZeroU32>,
    /// Requests of one client at once after a pause; 1 to 1 000 000. Default: as many as `rate`.
    pub burst: Option<NonZeroU32>,
    /// Connections of one client at one time, by its address, of IPv6 by its /64; 1 to 1 000 000. Further ones are closed at once. Trusted
    /// proxies may have as many as there are. Default: a quarter of `server.connections`, so that no client can take all of them.
    pub connections: u32,
    /// Blobs that are downloaded for one client at a time at the most, by its principal, or by its address if nobody is known there; 1 to
    /// 10 000. A further one waits for 5 s at the most, and is then told 503. Default: half of `fills.max`.
    pub fills: u32,
    /// Bytes of the blobs that are being downloaded for one client; 1 MiB to 1 PiB. Default: half of `fills.unfinished`.
    pub unfinished: u64,
    /// Addresses and networks of proxies whose `X-Forwarded-For` says who the client is. Default: none.
    pub trusted_proxies: Vec<Network>,
}

/// `[admin]`: where operators and probes connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The address of health, metrics and the API. Default: [`ADMIN_LISTEN`].
    pub listen: SocketAddr,
    /// Users who may see more than `/livez` and `/readyz`: a file as that of `[identity]`. Default: none, and everybody may.
    pub htpasswd: Option<FileOf<Htpasswd>>,
    /// Bearer tokens for the same: a file as that of `[identity]`. Default: none.
    pub tokens: Option<FileOf<Tokens>>,
}

/// A file that was read with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOf<T> {
    pub path: PathBuf,
    pub content: T,
}

/// `[identity]`: who clients are. Files have at most 1 MiB, may not be writable for everybody, and are read again as the configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// A file of users and their passwords' bcrypt hashes, as `htpasswd -B` writes it. Default: none.
    pub htpasswd: Option<FileOf<Htpasswd>>,
    /// A file of bearer tokens: lines of `name:token`, a token of 16 characters or more, or `name:sha256:HEX`. Default: none.
    pub tokens: Option<FileOf<Tokens>>,
    /// A file with what our own tokens are sealed by, 32 characters or more a line: the first seals, all open. All replicas need the same.
    /// Default: a key of this process.
    pub token_key_file: Option<FileOf<TokenKeys>>,
    /// `off`, or which name of a verified client certificate is the principal's: `cn`, `dns`, `uri`. Default: `off`.
    pub certificates: Option<CertificateName>,
    /// `service_accounts_issuer`, `service_accounts_audience`, `service_accounts_jwks` and what belongs to them. Default: none.
    pub service_accounts: Option<ServiceAccounts>,
    /// Whoever shows nothing is let in, as `anonymous`. Default: true when there is no way to be somebody, else false.
    pub anonymous: bool,
    /// How long a token of our own holds; 60 s to 1 h. Default: [`TOKEN_LIFE`].
    pub token_life: Duration,
}

/// The keys of `[identity]` about Kubernetes service accounts: the first three, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccounts {
    /// `service_accounts_issuer`: what their tokens say in `iss`.
    pub issuer: String,
    /// `service_accounts_audience`: what they say in `aud`.
    pub audience: String,
    /// `service_accounts_jwks`: where the issuer's keys are, an https URL (http on this machine), or a file.
    pub jwks: Jwks,
    /// `service_accounts_ca`: a PEM file of authorities to trust for that URL besides the system's. Default: none, in a cluster that of
    /// the cluster.
    pub ca: Vec<CertificateDer<'static>>,
    /// `service_accounts_token_file`: a file whose content is shown to that URL. Default: none, in a cluster the pod's own.
    pub token_file: Option<PathBuf>,
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jwks {
    Url(Url),
    File(FileOf<String>),
}

/// `[store]`: what is kept, where and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The directory of the store; made when absent.
    /// Default: `$XDG_CACHE_HOME/cachalot`, else `$HOME/.cache/cachalot`, else [`STORE_PATH`].
    pub path: PathBuf,
    /// What the store may fill, partial downloads included: 1 MiB to 1 PiB, or 1 % to 100 % of its file system.
    /// Default: [`CAPACITY`].
    pub capacity: Quantity,
    /// What stays free on the file system, whoever fills it: bytes to 1 PiB, or 0 % to 99 %. Default: [`MIN_FREE`].
    pub min_free: Quantity,
    /// Bytes of memory for small content that is asked for often; 0 to 1 TiB, 0 for none. Default: [`MEMORY_BYTES`].
    pub memory: u64,
    /// Bytes on disk for manifests and image configs, a budget that layers cannot take from them; 1 MiB to 1 TiB.
    /// Default: [`MANIFESTS_BYTES`].
    pub manifests: u64,
    /// Bytes per second that are read again in the background to find rot; 0 to 1 TiB, 0 for none. Default: [`SCRUB_RATE`].
    pub scrub_rate: u64,
}

/// `[freshness]`: how old an answer may be. An upstream may override each key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// How long a tag is served without asking the upstream; 0 s to 30 days, 0 s asks every time. Default: [`TAG_TTL`].
    pub tag_ttl: Duration,
    /// How long past its freshness a tag is served while the upstream is down, slow or rate-limiting; 0 s to 365 days.
    /// Default: [`STALE_IF_ERROR`].
    pub stale_if_error: Duration,
    /// How long a client waits for the upstream's word while a stale answer is at hand; 0 s to 20 s, with 0 s it is served at once and the
    /// upstream asked behind it. Default: [`STALE_WAIT`].
    pub stale_wait: Duration,
    /// Tags that never move, and so are never asked about again once they are known: patterns such as `v*` or `*-release`, in which `*` is
    /// any text. Default: none.
    pub immutable_tags: Vec<Pattern>,
    /// What clients get while the upstream limits us, in this order: `stale`, if they shall have what is known, and then `503` or `429`,
    /// both with `Retry-After`. containerd answers a 429 by five requests without a pause. Default: `["stale", "503"]`.
    pub when_limited: WhenLimited,
    /// How long "there is no such thing" is remembered; 0 s to 5 min. Default: [`NEGATIVE_TTL`].
    pub negative_ttl: Duration,
    /// Never ask an upstream, serve only what is in the store. Default: false.
    pub offline: bool,
}

/// `when_limited`: what clients get while an upstream limits us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WhenLimited {
    /// What is known is served, within `stale_if_error`.
    pub stale: bool,
    /// Else 429 is told, not 503.
    pub is_429: bool,
}

/// `[fills]`: the downloads from all upstreams together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fills {
    /// Blobs downloaded at one time at the most; 1 to 10 000. Default: [`FILLS_MAX`].
    pub max: u32,
    /// Bytes of the blobs that are being downloaded; 1 MiB to 1 PiB. A blob above it is downloaded alone.
    /// Default: [`UNFINISHED_BYTES`].
    pub unfinished: u64,
    /// Downloads that go on though no client waits for them any more; 0 to 10 000, with 0 a download ends with its last client.
    /// Default: [`UNATTENDED`].
    pub unattended: u32,
}

/// `prefetch`: what is downloaded before a client asks for it, when a manifest is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefetch {
    Off,
    /// The image's config.
    Config,
    /// The image's config and its layers.
    Layers,
}

/// `[log]`: what is written to stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `off`, `error`, `warn`, `info`, `debug`, `trace`, or levels per module: `info,cachalot::upstream=debug`.
    /// Default: [`LOG_LEVEL`].
    pub level: String,
    /// `text` or `json`. Default: `text`.
    pub format: LogFormat,
    /// One line for each request. Default: true.
    pub access: bool,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// `[metrics]`: what is counted besides what always is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Repositories that have series of their own in `repository_requests_total` and `repository_served_bytes_total`, some five each;
    /// those in which something is found first, and all others together; 0 to 10 000, 0 for none at all. Default: 0.
    pub repositories: u32,
}

/// `[[upstream]]`: one registry that is cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The name that clients give in the path or in `ns`: the registry's host, with its port unless that is 443.
    pub name: UpstreamName,
    /// URLs of the registry without `/v2/`, at least one; asked in this order, those in good health first.
    /// Default: `https://<name>`, for docker.io `https://registry-1.docker.io`.
    pub endpoints: Vec<Url>,
    /// Other names for the same upstream. Default: none, for docker.io its other three names.
    /// A plain-http upstream without a port in its name has `<name>:80` besides (P-112).
    pub aliases: Vec<UpstreamName>,
    /// Hosts under which clients reach us and mean this upstream. Default: none.
    pub hosts: Vec<String>,
    /// The account to pull with, from one source at the most. Default: none, the upstream is asked anonymously.
    ///
    /// `username`, without a colon (RFC 7617 §2), and `password_file`: the password is the content of the file, at most 64 KiB, without
    /// its last line break.
    ///
    /// `docker_config`: a file as `docker login` and `podman login` write it, at most 1 MiB. An account in `auths`, a helper in
    /// `credHelpers` or a `credsStore` counts for the host of an endpoint, or for the name of the upstream; `host/path` counts for the
    /// repositories beneath that path.
    ///
    /// `credential_helper`: what stands after `docker-credential-` in the name of a program in `PATH`, 1 to 64 of `A-Z a-z 0-9 . _ -`.
    /// It is asked for the host of the first endpoint, has 10 s, and what it says is used for 10 min.
    ///
    /// Files are looked at again while we run, at most every 2 s; one that cannot be used any more leaves the last good account in use.
    pub credentials: Option<Credentials>,
    /// Hosts beside those of the upstream's own domain whose token service may get the account (S-26), without ports. Default: none.
    pub token_hosts: Vec<String>,
    /// `ca`: a PEM file of certificates that sign the upstream's, besides the system's. Default: none.
    pub ca: Vec<CertificateDer<'static>>,
    /// `client_cert` and `client_key`, both or none: PEM files of our certificate with those that lead to its authority, and of its key.
    /// Default: none.
    pub client_certificate: Option<ClientCertificate>,
    /// Do not check the upstream's certificate. Default: false.
    pub insecure: bool,
    /// Connections at one time at the most; 1 to 1 024. Default: [`UPSTREAM_CONNECTIONS`].
    pub connections: u32,
    /// Connections for one blob at the most; 1 to 64. Default: [`CONNECTIONS_PER_BLOB`].
    pub connections_per_blob: u32,
    /// The smallest blob that is fetched over several connections; 0 bytes to 1 PiB. Default: [`PARALLEL_FROM_BYTES`].
    pub parallel_from: u64,
    /// `fills`, `unfinished` and `unattended`: as those of `[fills]`, for this upstream alone.
    /// Default: [`UPSTREAM_FILLS`], [`UPSTREAM_UNFINISHED_BYTES`], [`UPSTREAM_UNATTENDED`].
    pub fills: Fills,
    /// `off`, `config` or `layers`. Default: `config`.
    pub prefetch: Prefetch,
    /// Pushes and deletes are relayed, with the caller's own credentials. Default: false.
    pub push: bool,
    /// Requests at one time at the most, waiting ones included; 1 to 10 000. Default: [`UPSTREAM_REQUESTS`].
    pub requests: u32,
    /// Requests per second at the most; 1 to 1 000 000. Default: no limit.
    pub rate: Option<NonZeroU32>,
    /// How long a connection may take to stand, with TLS; 100 ms to 25 s. Default: [`CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// How long an answer's head may take; 100 ms to 25 s. Default: [`UPSTREAM_HEADER_TIMEOUT`].
    pub header_timeout: Duration,
    /// How long a body may bring no byte before the transfer counts as broken; 1 s to 10 min. Default: [`IDLE_TIMEOUT`].
    pub idle_timeout: Duration,
    /// How long a token service may take; 100 ms to 25 s. Default: [`TOKEN_TIMEOUT`].
    pub token_timeout: Duration,
    /// `environment`, `none`, or the URL of a proxy. Default: `environment` (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`).
    pub proxy: Proxy,
    /// All keys of `[freshness]`. Default: those of `[freshness]`.
    pub freshness: Freshness,
    /// `shared`: whoever may ask us reads what our account reads. `caller`: each caller reads what the upstream lets it read, asked in its own
    /// name for each repository; our account is not used. Default: `shared`.
    pub access: Access,
    /// Patterns of repositories for which the other of the two holds. Default: none.
    pub access_except: Vec<Pattern>,
    /// How long the upstream's yes about a caller and a repository holds without asking again; 0 s to 1 h, 0 s asks every time.
    /// Default: [`ACCESS_TTL`].
    pub access_ttl: Duration,
    /// How long beyond that it holds while the upstream is down, slow or rate-limiting; 0 s to 24 h. Default: [`ACCESS_STALE_IF_ERROR`].
    pub access_stale_if_error: Duration,
    /// Patterns of repositories that may be asked for, such as `library/*` or `team/**`; others are refused. Default: all.
    pub allow: Vec<Pattern>,
    /// Patterns of repositories that are refused, also where `allow` has them. Default: none.
    pub deny: Vec<Pattern>,
    /// The upstream may lead us to private and loopback addresses, itself, by redirect or by its token service. Default: true when an
    /// endpoint's host is such an address, `localhost`, or a name that no public registry has (one label, or an unknown suffix).
    pub internal: bool,
}

/// `access`: who may read what an upstream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever may ask us.
    Shared,
    /// Whom the upstream lets in.
    Caller,
}

/// What an upstream is shown when it asks for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// What the files held when the settings were loaded.
    pub identity: ClientIdentity,
}

/// How an upstream is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// As `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say.
    Environment,
    /// Directly, whatever the environment says.
    None,
    /// Through this one: http or https, without credentials.
    Url(Url),
}
