//! From settings to what each component asks for: the one place that knows both.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use hyper_util::client::proxy::matcher::Matcher;

use super::AppError;
use crate::cache::{AccessRules, FillLimits, Filling, Parallel, Policy, Prefetch, Rules, Upstream};
use crate::identity::{Identities, IdentityOptions, KeySource, Keys, Lasting, ServiceAccountOptions};
use crate::server::{self, ClientOptions, ClientTrust, Clients, Directory, Door, ListenerRules, Tls, TlsOptions};
use crate::settings::{self, Jwks, LogFormat, Proxy, Quantity, Settings};
use crate::store::{Disk, Ledger, prepare};
use crate::tasks::TaskGroup;
use crate::telemetry::{CertificateUse, Format, Kind, Metrics, UpstreamMetrics};
use crate::upstream::{self, Client, Observer, Origin, RequestKind, UpstreamError};
use crate::wire::Quota;

pub(super) fn log_format(format: LogFormat) -> Format {
    match format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    }
}

pub(super) fn open_disk(settings: &settings::Store, metrics: &Arc<Metrics>) -> Result<(Disk, Arc<Ledger>), AppError> {
    let failed = |source| AppError::Store { path: settings.path.display().to_string(), source };
    let size_bytes = prepare(Path::new(&settings.path)).map_err(failed)?;
    let bytes = |quantity| match quantity {
        Quantity::Bytes(bytes) => bytes,
        Quantity::Percent(percent) => size_bytes / 100 * u64::from(percent),
    };
    let capacity_bytes = bytes(settings.capacity);
    // On a small disk, manifests must not take the place of all layers.
    let metadata_capacity_bytes = settings.manifests.min(capacity_bytes / 4);
    let options = crate::store::Options {
        root: settings.path.clone(),
        capacity_bytes: capacity_bytes - metadata_capacity_bytes,
        metadata_capacity_bytes,
        min_free_bytes: bytes(settings.min_free),
    };
    Disk::open(options, Arc::clone(metrics)).map_err(failed)
}

/// Tells the metrics when certificates expire.
pub(super) fn note_certificates(settings: &Settings, metrics: &Metrics) {
    let listeners = || settings.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let shown = listeners().filter_map(|tls| tls.identity.expires_at()).min();
    metrics.certificate_expires(CertificateUse::Server, shown);
    let authorities = listeners().filter_map(|tls| server::expires_at(&tls.clients.as_ref()?.authorities)).min();
    metrics.certificate_expires(CertificateUse::ClientCa, authorities);
    let ours = settings.upstreams.iter().filter_map(|upstream| upstream.client_certificate.as_ref());
    let expiry = ours.filter_map(|certificate| certificate.identity.expires_at()).min();
    metrics.certificate_expires(CertificateUse::UpstreamClient, expiry);
}

/// Makes the directory that `settings` describe. An upstream that is the same as `before` goes on as it is, with its connections, tokens
/// and what it has learned.
///
/// # Errors
/// When an upstream makes no client.
pub(super) fn directory(
    settings: &Settings,
    metrics: &Metrics,
    tasks: &TaskGroup,
    via: &HeaderValue,
    before: Option<(&Settings, &Directory)>,
) -> Result<Directory, AppError> {
    let unchanged = |upstream: &settings::Upstream| {
        let (settings, directory) = before?;
        settings.upstreams.iter().find(|old| *old == upstream).and_then(|old| directory.upstream(&old.name)).cloned()
    };
    let upstreams = settings.upstreams.iter().map(|upstream| {
        let made = match unchanged(upstream) {
            Some(upstream) => upstream,
            None => Arc::new(one_upstream(upstream, metrics.upstream(&upstream.name), tasks.clone(), via)?),
        };
        Ok((upstream.name.clone(), made))
    });
    let directory = Directory::new(settings.table.clone(), upstreams.collect::<Result<Vec<_>, AppError>>()?);
    // An origin, as browsers write it: a port that its scheme has anyway is left out.
    Ok(directory.known_as(settings.server.public_url.as_ref().map(|url| url.origin().ascii_serialization())))
}

/// Returns how the listener at one of the addresses of `settings` treats whoever connects there; `before` is how it did so far.
///
/// # Errors
/// When its TLS cannot be made.
pub(super) fn listener_rules(
    settings: &settings::Listener,
    before: Option<&ListenerRules>,
) -> Result<ListenerRules, AppError> {
    let before = before.and_then(|rules| rules.tls.as_ref());
    let tls = settings.tls.as_ref().map(|tls| {
        let clients = tls
            .clients
            .as_ref()
            .map(|clients| ClientTrust { authorities: clients.authorities.clone(), is_required: clients.is_required });
        let options = TlsOptions { identity: tls.identity.clone(), clients, http2: tls.http2 };
        Tls::new(options, before).map_err(|source| AppError::Tls { address: settings.address, source })
    });
    Ok(ListenerRules::new(settings.identities, tls.transpose()?))
}

pub(super) fn clients(settings: &settings::Clients) -> Clients {
    let settings::Clients { rate, burst, connections, trusted_proxies, .. } = settings.clone();
    Clients::new(&ClientOptions { rate, burst, connections, trusted_proxies })
}

/// Makes the door that `settings` describe.
///
/// # Errors
/// When an authority for the keys of service accounts cannot be used.
pub(super) fn door(settings: &Settings, lasting: &Arc<Lasting>) -> Result<Door, AppError> {
    let identity = &settings.identity;
    let options = IdentityOptions {
        htpasswd: identity.htpasswd.as_ref().map(|file| file.content.clone()),
        tokens: identity.tokens.as_ref().map(|file| file.content.clone()),
        token_keys: identity.token_key_file.as_ref().map(|file| file.content.clone()),
        service_accounts: identity.service_accounts.as_ref().map(service_accounts).transpose()?,
        certificates: identity.certificates,
        anonymous: identity.anonymous,
        token_life: identity.token_life,
        rules: settings.principals.clone(),
    };
    let identities = Identities::new(options, Arc::clone(lasting)).map_err(AppError::Identities)?;
    Ok(Door::new(identities, settings.server.public_url.as_ref()))
}

fn service_accounts(settings: &settings::ServiceAccounts) -> Result<ServiceAccountOptions, AppError> {
    let settings::ServiceAccounts { issuer, audience, jwks, ca, token_file } = settings.clone();
    let keys = match jwks {
        Jwks::Url(url) => KeySource::Url { url, ca, token_file },
        Jwks::File(file) => KeySource::Keys(Keys::parse(file.content.as_bytes()).map_err(AppError::Keys)?),
    };
    Ok(ServiceAccountOptions { issuer, audience, keys })
}

/// Makes the identities of the admin listener; `None` when everybody may see everything there.
///
/// # Errors
/// None that can be met: there are no service accounts.
pub(super) fn admin_identities(
    settings: &settings::Admin,
    lasting: &Arc<Lasting>,
) -> Result<Option<Arc<Identities>>, AppError> {
    if settings.htpasswd.is_none() && settings.tokens.is_none() {
        return Ok(None);
    }
    let options = IdentityOptions {
        htpasswd: settings.htpasswd.as_ref().map(|file| file.content.clone()),
        tokens: settings.tokens.as_ref().map(|file| file.content.clone()),
        token_keys: None,
        service_accounts: None,
        certificates: None,
        anonymous: false,
        token_life: settings::TOKEN_LIFE,
        rules: Vec::new(),
    };
    Identities::new(options, Arc::clone(lasting))
        .map(|identities| Some(Arc::new(identities)))
        .map_err(AppError::Identities)
}

fn one_upstream(
    settings: &settings::Upstream,
    metrics: Arc<UpstreamMetrics>,
    tasks: TaskGroup,
    via: &HeaderValue,
) -> Result<Upstream, AppError> {
    let client = Client::new(&client_options(settings, via), Arc::new(Counting(Arc::clone(&metrics))), tasks)?;
    let rules = rules(&settings.freshness, access_rules(settings));
    let filling = Filling {
        limits: fill_limits(settings.fills),
        parallel: Parallel {
            connections: settings.connections_per_blob.min(settings.connections) as usize,
            from_bytes: settings.parallel_from,
        },
        prefetch: match settings.prefetch {
            settings::Prefetch::Off => Prefetch::Off,
            settings::Prefetch::Config => Prefetch::Config,
            settings::Prefetch::Layers => Prefetch::Layers,
        },
    };
    Ok(Upstream::new(Arc::new(client) as Arc<dyn Origin>, rules, filling, metrics))
}

fn access_rules(settings: &settings::Upstream) -> AccessRules {
    AccessRules {
        is_for_callers: settings.access == settings::Access::Caller,
        except: settings.access_except.clone(),
        ttl: settings.access_ttl,
        stale_if_error: settings.access_stale_if_error,
    }
}

fn rules(freshness: &settings::Freshness, access: AccessRules) -> Rules {
    let policy = Policy {
        tag_ttl: freshness.tag_ttl,
        stale_if_error: freshness.stale_if_error,
        stale_if_limited: freshness.when_limited.stale,
        stale_wait: freshness.stale_wait,
        negative_ttl: freshness.negative_ttl,
        offline: freshness.offline,
        is_immutable: false,
    };
    let (immutable_tags, tells_429) = (freshness.immutable_tags.clone(), freshness.when_limited.is_429);
    Rules { policy, immutable_tags, tells_429, access }
}

pub(super) fn fill_limits(fills: settings::Fills) -> FillLimits {
    FillLimits { fills: fills.max as usize, bytes: fills.unfinished, unattended: fills.unattended as usize }
}

/// Returns the bounds on what one client has started; how much goes on without it is not its own to say.
pub(super) fn client_fill_limits(settings: &Settings) -> FillLimits {
    let settings::Clients { fills, unfinished, .. } = settings.clients;
    FillLimits { fills: fills as usize, bytes: unfinished, unattended: settings.fills.unattended as usize }
}

fn client_options(settings: &settings::Upstream, via: &HeaderValue) -> upstream::Options {
    upstream::Options {
        name: settings.name.clone(),
        endpoints: settings.endpoints.clone(),
        credentials: settings.credentials.clone(),
        helper_directories: None,
        realm_hosts: settings.token_hosts.clone(),
        extra_ca: settings.ca.clone(),
        client_identity: settings.client_certificate.as_ref().map(|certificate| certificate.identity.clone()),
        insecure: settings.insecure,
        internal: settings.internal,
        connections: settings.connections as usize,
        requests: settings.requests as usize,
        rate: settings.rate,
        timeouts: upstream::Timeouts {
            connect: settings.connect_timeout,
            header: settings.header_timeout,
            idle: settings.idle_timeout,
            token: settings.token_timeout,
        },
        via: via.clone(),
        proxy: match &settings.proxy {
            Proxy::Environment => Some(upstream::Options::proxy_from_environment()),
            Proxy::None => None,
            Proxy::Url(url) => Some(Arc::new(Matcher::builder().all(url.as_str()).build())),
        },
    }
}

pub(super) fn limits(server: &settings::Server, access_log: bool, via: HeaderValue) -> server::Options {
    server::Options {
        handshake_timeout: server.handshake_timeout,
        header_timeout: server.header_timeout,
        write_stall_timeout: server.write_stall_timeout,
        access_log,
        via,
    }
}

/// Returns what this process calls itself in `Via` (RFC 9110 §7.6.3): no other one does.
pub(super) fn via() -> HeaderValue {
    let name = format!("1.1 cachalot-{:08x}", fastrand::u32(..));
    HeaderValue::try_from(name).unwrap_or_else(|_invalid| HeaderValue::from_static("1.1 cachalot"))
}

/// Counts what the network client tells.
struct Counting(Arc<UpstreamMetrics>);

impl Observer for Counting {
    fn answered(&self, kind: RequestKind, status: u16, elapsed: Duration) {
        let kind = match kind {
            RequestKind::ManifestTag => Kind::ManifestTag,
            RequestKind::ManifestDigest => Kind::ManifestDigest,
            RequestKind::Blob => Kind::Blob,
            RequestKind::Tags => Kind::Tags,
            RequestKind::Referrers => Kind::Referrers,
        };
        self.0.upstream_answered(kind, status, elapsed);
    }

    fn failed(&self, error: &UpstreamError) {
        self.0.upstream_failed(error.as_str());
    }

    fn retried(&self, reason: &'static str) {
        self.0.retried(reason);
    }

    fn token(&self, result: &'static str) {
        self.0.token(result);
    }

    fn available(&self, is_available: bool) {
        self.0.set_available(is_available);
    }

    fn quota(&self, quota: Quota) {
        self.0.set_quota(quota);
    }
}
