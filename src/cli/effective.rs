//! Writes settings as a configuration file in which every key is spelled out, for people who ask what holds.
//!
//! Loading the result gives the same settings again, but for the authorities of `ca` and `service_accounts_ca`. Of what is secret,
//! the files are named and the content is left out (S-43).

use std::fmt::{Display, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::CertificateName;
use crate::settings::{
    Access, Fills, Freshness, Jwks, Listener, LogFormat, Prefetch, Proxy, Quantity, Settings, Upstream, WhenLimited,
};
use crate::upstream::Credentials;

/// Returns the file.
pub(super) fn toml(settings: &Settings) -> String {
    let mut file = File::default();
    server(&mut file, settings);
    store(&mut file, settings);
    clients(&mut file, settings);
    identity(&mut file, settings);
    file.section("[freshness]");
    freshness(&mut file, &settings.freshness);
    file.section("[fills]");
    fills(&mut file, "max", settings.fills);
    file.section("[log]");
    file.key("level", text(&settings.log.level));
    file.key("format", text(log_format(settings.log.format)));
    file.key("access", settings.log.access);
    file.section("[metrics]");
    file.key("repositories", settings.metrics.repositories);
    for one in &settings.listeners {
        listener(&mut file, one);
    }
    for one in &settings.upstreams {
        upstream(&mut file, one);
    }
    file.0
}

fn server(file: &mut File, settings: &Settings) {
    let server = &settings.server;
    file.section("[server]");
    file.key("listen", list(&server.listen));
    match &server.public_url {
        Some(url) => file.key("public_url", text(url)),
        None => file.note("public_url is not set: links are relative"),
    }
    file.key("default_upstream", text(server.default_upstream.as_ref().map_or("", |name| name.as_str())));
    file.note("those that hold stand below");
    file.key("builtin_upstreams", false);
    file.key("drain_timeout", duration(server.drain_timeout));
    file.key("header_timeout", duration(server.header_timeout));
    file.key("handshake_timeout", duration(server.handshake_timeout));
    file.key("connections", server.connections);
    file.key("write_stall_timeout", duration(server.write_stall_timeout));
    file.section("[admin]");
    file.key("listen", text(settings.admin.listen));
    path(file, "htpasswd", settings.admin.htpasswd.as_ref().map(|file| &file.path));
    path(file, "tokens", settings.admin.tokens.as_ref().map(|file| &file.path));
}

fn identity(file: &mut File, settings: &Settings) {
    let identity = &settings.identity;
    file.section("[identity]");
    path(file, "htpasswd", identity.htpasswd.as_ref().map(|file| &file.path));
    path(file, "tokens", identity.tokens.as_ref().map(|file| &file.path));
    path(file, "token_key_file", identity.token_key_file.as_ref().map(|file| &file.path));
    file.key("certificates", text(certificates(identity.certificates)));
    if let Some(accounts) = &identity.service_accounts {
        file.key("service_accounts_issuer", text(&accounts.issuer));
        file.key("service_accounts_audience", text(&accounts.audience));
        match &accounts.jwks {
            Jwks::Url(url) => file.key("service_accounts_jwks", text(url)),
            Jwks::File(keys) => file.key("service_accounts_jwks", text(keys.path.display())),
        }
        if !accounts.ca.is_empty() {
            file.note(&format!("service_accounts_ca is set; certificates in it: {}", accounts.ca.len()));
        }
        path(file, "service_accounts_token_file", accounts.token_file.as_ref());
    }
    file.key("anonymous", identity.anonymous);
    // Without a URL it has no use, and is refused.
    if settings.server.public_url.is_some() {
        file.key("token_life", duration(identity.token_life));
    }
    for rule in &settings.principals {
        file.section("[[principal]]");
        file.key("match", list(&rule.matches));
        file.key("repositories", list(&rule.repositories));
        file.key("push", rule.push);
        limits(file, rule.rate, rule.burst);
    }
}

/// Writes where a file is; its content is left out.
fn path(file: &mut File, key: &str, path: Option<&PathBuf>) {
    if let Some(path) = path {
        file.key(key, text(path.display()));
    }
}

/// Writes `rate` and `burst`.
fn limits(file: &mut File, rate: Option<NonZeroU32>, burst: Option<NonZeroU32>) {
    match rate {
        Some(rate) => file.key("rate", rate),
        None => file.note("rate is not limited"),
    }
    if let Some(burst) = burst {
        file.key("burst", burst);
    }
}

fn clients(file: &mut File, settings: &Settings) {
    let clients = &settings.clients;
    file.section("[clients]");
    limits(file, clients.rate, clients.burst);
    file.key("connections", clients.connections);
    file.key("fills", clients.fills);
    file.key("unfinished", text(bytes(clients.unfinished)));
    file.key("trusted_proxies", list(&clients.trusted_proxies));
}

fn store(file: &mut File, settings: &Settings) {
    let store = &settings.store;
    file.section("[store]");
    file.key("path", text(store.path.display()));
    file.key("capacity", text(quantity(store.capacity)));
    file.key("min_free", text(quantity(store.min_free)));
    file.key("memory", text(bytes(store.memory)));
    file.key("manifests", text(bytes(store.manifests)));
    file.key("scrub_rate", text(bytes(store.scrub_rate)));
}

fn listener(file: &mut File, listener: &Listener) {
    file.section("[[listener]]");
    file.key("address", text(listener.address));
    if let Some(tls) = &listener.tls {
        file.key("cert", text(tls.cert.display()));
        file.key("key", text(tls.key.display()));
        if let Some(clients) = &tls.clients {
            file.key("client_ca", text(clients.path.display()));
            file.key("client_certificate", text(if clients.is_required { "required" } else { "optional" }));
        }
        file.key("http2", tls.http2);
    }
    file.key("identities", listener.identities);
}

fn upstream(file: &mut File, upstream: &Upstream) {
    file.section("[[upstream]]");
    file.key("name", text(&upstream.name));
    file.key("endpoints", list(&upstream.endpoints));
    file.key("aliases", list(&upstream.aliases));
    file.key("hosts", list(&upstream.hosts));
    account(file, upstream.credentials.as_ref());
    file.key("token_hosts", list(&upstream.token_hosts));
    if !upstream.ca.is_empty() {
        file.note(&format!("ca is set; certificates in it: {}", upstream.ca.len()));
    }
    if let Some(certificate) = &upstream.client_certificate {
        file.key("client_cert", text(certificate.cert.display()));
        file.key("client_key", text(certificate.key.display()));
    }
    file.key("insecure", upstream.insecure);
    file.key("connections", upstream.connections);
    file.key("connections_per_blob", upstream.connections_per_blob);
    file.key("parallel_from", text(bytes(upstream.parallel_from)));
    fills(file, "fills", upstream.fills);
    file.key("prefetch", text(prefetch(upstream.prefetch)));
    file.key("push", upstream.push);
    file.key("requests", upstream.requests);
    match upstream.rate {
        Some(rate) => file.key("rate", rate),
        None => file.note("rate is not limited"),
    }
    file.key("connect_timeout", duration(upstream.connect_timeout));
    file.key("header_timeout", duration(upstream.header_timeout));
    file.key("idle_timeout", duration(upstream.idle_timeout));
    file.key("token_timeout", duration(upstream.token_timeout));
    file.key("proxy", text(proxy(&upstream.proxy)));
    freshness(file, &upstream.freshness);
    access(file, upstream);
    file.key("allow", list(&upstream.allow));
    file.key("deny", list(&upstream.deny));
    file.key("internal", upstream.internal);
}

fn account(file: &mut File, credentials: Option<&Credentials>) {
    match credentials {
        None => {}
        Some(Credentials::Fixed(_)) => file.note("an account is set and not shown"),
        Some(Credentials::PasswordFile { username, path }) => {
            file.key("username", text(username));
            file.key("password_file", text(path.display()));
        }
        Some(Credentials::DockerConfig { path }) => file.key("docker_config", text(path.display())),
        Some(Credentials::Helper(name)) => file.key("credential_helper", text(name.as_str())),
    }
}

/// Writes the keys of `[fills]`, and those of `[[upstream]]` that mean the same.
fn fills(file: &mut File, max_key: &str, fills: Fills) {
    file.key(max_key, fills.max);
    file.key("unfinished", text(bytes(fills.unfinished)));
    file.key("unattended", fills.unattended);
}

/// Writes the keys that `[freshness]` and `[[upstream]]` share.
fn freshness(file: &mut File, freshness: &Freshness) {
    file.key("tag_ttl", duration(freshness.tag_ttl));
    file.key("stale_if_error", duration(freshness.stale_if_error));
    file.key("stale_wait", duration(freshness.stale_wait));
    file.key("immutable_tags", list(&freshness.immutable_tags));
    file.key("when_limited", list(&when_limited(freshness.when_limited)));
    file.key("negative_ttl", duration(freshness.negative_ttl));
    file.key("offline", freshness.offline);
}

/// The file as far as it is written.
#[derive(Default)]
struct File(String);

impl File {
    fn section(&mut self, heading: &str) {
        let space = if self.0.is_empty() { "" } else { "\n" };
        self.line(format_args!("{space}{heading}"));
    }

    fn key(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key} = {value}"));
    }

    fn note(&mut self, words: &str) {
        self.line(format_args!("# {words}"));
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a String never fails.
        let _ = writeln!(self.0, "{line}");
    }
}

fn text(value: impl Display) -> toml::Value {
    toml::Value::String(value.to_string())
}

fn list<T: Display>(values: &[T]) -> toml::Value {
    toml::Value::Array(values.iter().map(text).collect())
}

/// Writes a duration exactly: in its largest unit where one is enough, `75s` or `7d`, else in several.
fn duration(value: Duration) -> toml::Value {
    let units = [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60), ("s", 1)];
    let unit = units.into_iter().find(|(_, seconds)| value.as_secs().is_multiple_of(*seconds));
    match unit {
        Some((unit, seconds)) if value.subsec_nanos() == 0 && !value.is_zero() => {
            text(format_args!("{}{unit}", value.as_secs() / seconds))
        }
        _ => text(humantime::format_duration(value)),
    }
}

fn quantity(value: Quantity) -> String {
    match value {
        Quantity::Bytes(value) => bytes(value),
        Quantity::Percent(value) => format!("{value}%"),
    }
}

/// Writes a size exactly, in the largest unit that allows that.
fn bytes(value: u64) -> String {
    let units = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, size)| value > 0 && value.is_multiple_of(*size));
    unit.map_or_else(|| format!("{value}B"), |(unit, size)| format!("{}{unit}", value / size))
}

fn log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

fn certificates(name: Option<CertificateName>) -> &'static str {
    match name {
        None => "off",
        Some(CertificateName::CommonName) => "cn",
        Some(CertificateName::Dns) => "dns",
        Some(CertificateName::Uri) => "uri",
    }
}

/// Writes who may read; what has no effect is left out, since a file may not hold it.
fn access(file: &mut File, upstream: &Upstream) {
    file.key("access", text(if upstream.access == Access::Caller { "caller" } else { "shared" }));
    file.key("access_except", list(&upstream.access_except));
    if upstream.access == Access::Caller || !upstream.access_except.is_empty() {
        file.key("access_ttl", duration(upstream.access_ttl));
        file.key("access_stale_if_error", duration(upstream.access_stale_if_error));
    }
}

fn prefetch(prefetch: Prefetch) -> &'static str {
    match prefetch {
        Prefetch::Off => "off",
        Prefetch::Config => "config",
        Prefetch::Layers => "layers",
    }
}

fn when_limited(words: WhenLimited) -> Vec<&'static str> {
    let status = if words.is_429 { "429" } else { "503" };
    if words.stale { vec!["stale", status] } else { vec![status] }
}

fn proxy(proxy: &Proxy) -> &str {
    match proxy {
        Proxy::Environment => "environment",
        Proxy::None => "none",
        Proxy::Url(url) => url.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::Sources;

    fn load(directory: &Path, file: &str) -> Settings {
        let path = directory.join("cachalot.toml");
        std::fs::write(&path, file).unwrap();
        let sources = Sources { file: Some(path), ..Sources::default() };
        Settings::load(&sources).unwrap_or_else(|problems| panic!("{problems}\n{file}"))
    }

    #[test]
    fn what_is_printed_can_be_loaded_and_means_the_same() {
        let directory = tempfile::tempdir().unwrap();
        for file in [
            "",
            "[server]\nbuiltin_upstreams = false\ndefault_upstream = \"\"\n[store]\npath = \"/a \\\"b\\\"\"\n",
            "[server]\npublic_url = \"https://cache.test/\"\n[identity]\nanonymous = true\ncertificates = \"uri\"\ntoken_life = \"90s\"\n\
             [[principal]]\nmatch = [\"cert:spiffe://**\", \"anonymous\"]\nrepositories = [\"docker.io/**\"]\npush = false\nrate = 7\n\
             [[principal]]\nmatch = [\"**\"]\n",
            "[store]\ncapacity = \"1500000001B\"\nmin_free = \"3%\"\nmemory = \"0\"\n[freshness]\ntag_ttl = \"90s\"\n\
             [server]\npublic_url = \"https://cache.test:5443\"\nlisten = []\n[[listener]]\naddress = \"[::]:5443\"\nidentities = false\n\
             [log]\nformat = \"json\"\n[[upstream]]\nname = \"a.test\"\nproxy = \"http://p.test:3128\"\nrate = 7\n\
             hosts = [\"h.test\"]\ntoken_hosts = [\"sso.test\"]\ntoken_timeout = \"1s\"\nendpoints = [\"http://a.test:5000\"]\noffline = true\n\
             [[upstream]]\nname = \"b.test\"\naccess = \"caller\"\naccess_ttl = \"7s\"\n[[upstream]]\nname = \"c.test\"\naccess_except = [\"x/*\"]\n",
        ] {
            let printed = toml(&load(directory.path(), file));
            assert_eq!(toml(&load(directory.path(), &printed)), printed);
        }
    }

    #[test]
    fn passwords_are_not_printed() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            text(path.display()).to_string()
        };
        let password = put("password", "hunter2\n");
        let config = put("config.json", r#"{"auths":{"b.test":{"username":"u","password":"hunter2"}}}"#);
        let identity = rcgen::generate_simple_self_signed(["c.test".to_owned()]).unwrap();
        let (cert, key) =
            (put("cert.pem", &identity.cert.pem()), put("key.pem", &identity.signing_key.serialize_pem()));
        let accounts = [
            format!("username = \"bot\"\npassword_file = {password}\n"),
            format!("docker_config = {config}\n"),
            "credential_helper = \"ecr-login\"\n".to_owned(),
        ];
        let more = format!("client_cert = {cert}\nclient_key = {key}\ntoken_hosts = [\"sso.test\"]\n");
        let mut file = String::new();
        for (name, account) in ["a.test", "b.test", "c.test"].into_iter().zip(&accounts) {
            let _ = write!(file, "[[upstream]]\nname = \"{name}\"\n{account}{more}");
        }
        let settings = load(directory.path(), &file);
        let printed = toml(&settings);
        for account in &accounts {
            assert!(printed.contains(account), "{printed}");
        }
        assert_eq!(load(directory.path(), &printed).upstreams, settings.upstreams);
        let private = identity.signing_key.serialize_pem();
        for secret in ["hunter2", private.lines().nth(1).unwrap()] {
            assert!(!printed.contains(secret) && !format!("{settings:?}").contains(secret), "S-43: {printed}");
        }
    }

    #[test]
    fn durations_are_exact() {
        for (value, written) in
            [(0, "0s"), (75_000, "75s"), (60_000, "1m"), (7 * 86_400_000, "7d"), (1_500, "1s 500ms")]
        {
            assert_eq!(duration(Duration::from_millis(value)), text(written));
        }
    }

    #[test]
    fn sizes_are_exact() {
        for (value, written) in
            [(0, "0B"), (1 << 40, "1TiB"), (5 << 30, "5GiB"), (1536 << 20, "1536MiB"), (1025, "1025B")]
        {
            assert_eq!(bytes(value), written);
        }
    }
}
