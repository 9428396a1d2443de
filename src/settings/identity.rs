//! `[identity]` and `[[principal]]`: who clients are and what they may, with the files behind that.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use url::{Host, Url};

use super::check::Reader;
use super::problem::Place;
use super::reader::Section;
use super::{account, units};
#[allow(clippy::wildcard_imports, reason = "the schema and its defaults are the vocabulary of this file")]
use super::{defaults::*, schema::*};
use crate::identity::{Htpasswd, Keys, LineError, Rule, TokenKeys, Tokens};

/// Where Kubernetes puts what a pod needs to ask its API server.
const POD_FILES: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The API server's name in a cluster.
const CLUSTER_HOST: &str = "kubernetes.default.svc";

/// Bits of a file's mode.
const OTHERS_MAY_WRITE: u32 = 0o002;
const OTHERS_MAY_READ: u32 = 0o004;

/// Reads `[identity]`.
pub(super) fn read(section: &mut Section<'_>) -> Identity {
    let knows_somebody = ["htpasswd", "tokens", "service_accounts_issuer"].iter().any(|key| section.has(key));
    let htpasswd = section.text("htpasswd", |path| file(path, Htpasswd::parse));
    let tokens = section.text("tokens", |path| file(path, Tokens::parse));
    let certificates = section.text("certificates", units::certificate_name).flatten();
    let knows_anybody = knows_somebody || certificates.is_some();
    let anonymous = section.switch("anonymous");
    if anonymous == Some(false) && !knows_anybody {
        let text = "is false, and there is no way to be somebody: nobody would be let in; set htpasswd, tokens, certificates or \
                    service_accounts_issuer";
        section.report("anonymous", text.into());
    }
    Identity {
        htpasswd,
        tokens,
        token_key_file: section.text("token_key_file", |path| file(path, TokenKeys::parse)),
        certificates,
        service_accounts: service_accounts(section),
        anonymous: anonymous.unwrap_or(!knows_anybody),
        token_life: section.duration("token_life", &TOKEN_LIFE_BOUNDS).unwrap_or(TOKEN_LIFE),
    }
}

/// Reads a `[[principal]]`.
pub(super) fn rule(section: &mut Section<'_>) -> Rule {
    let is_there = section.has("match");
    let matches = section.list("match", units::wide_pattern);
    if !is_there || matches.as_ref().is_some_and(Vec::is_empty) {
        let text = "says not whom it is about; write match = [\"…\"] with patterns such as \"user:alice\", \"token:*\" or \"anonymous\"";
        section.report_section(text.into());
    }
    let rate = section.number("rate", &RATE_BOUNDS).and_then(NonZeroU32::new);
    if rate.is_none() && section.has("burst") {
        section.report("burst", "has no rate beside it; set rate as well".into());
    }
    Rule {
        matches: matches.unwrap_or_default(),
        repositories: section.list("repositories", units::wide_pattern).unwrap_or_default(),
        push: section.switch("push").unwrap_or(true),
        rate,
        burst: section.number("burst", &RATE_BOUNDS).and_then(NonZeroU32::new),
    }
}

/// Reads a file of secrets.
pub(super) fn file<T>(path: &str, parse: impl FnOnce(&str) -> Result<T, LineError>) -> Result<FileOf<T>, String> {
    if mode(Path::new(path)).is_some_and(|mode| mode & OTHERS_MAY_WRITE != 0) {
        return Err(format!(
            "{path} can be written by everybody on this machine; take that right away with chmod o-w {path}"
        ));
    }
    let text = String::from_utf8(account::read_file(path)?).map_err(|_| format!("{path} is no text"))?;
    let content = parse(&text).map_err(|error| format!("{path}, {error}"))?;
    Ok(FileOf { path: PathBuf::from(path), content })
}

/// Finds what cannot work together.
pub(super) fn check_together(reader: &mut Reader<'_>, server: &Server, identity: &Identity, upstreams: &[Upstream]) {
    let takes_callers = upstreams.iter().any(|upstream| upstream.push);
    let has_secrets = takes_callers
        || identity.htpasswd.is_some()
        || identity.tokens.is_some()
        || identity.service_accounts.is_some();
    match &server.public_url {
        Some(url) if url.scheme() == "http" && !is_this_machine(url) && has_secrets => {
            let place = reader.written("server.public_url").unwrap_or(Place::Default);
            let text = format!(
                "clients would send credentials to {url} without encryption, and some refuse to; write an https URL"
            );
            reader.report(place, "server.public_url", text);
        }
        Some(_) => {}
        None => {
            for key in ["token_key_file", "token_life"].map(|key| format!("identity.{key}")) {
                if let Some(place) = reader.written(&key) {
                    let text =
                        "has no use without server.public_url: clients get tokens where that leads; set it as well";
                    reader.report(place, &key, text.into());
                }
            }
        }
    }
}

/// Returns which secrets others can read, and whether anybody can read the metrics. Looks at the files.
pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let identity = &settings.identity;
    let files = [
        ("identity.htpasswd", identity.htpasswd.as_ref().map(|file| &file.path)),
        ("identity.tokens", identity.tokens.as_ref().map(|file| &file.path)),
        ("identity.token_key_file", identity.token_key_file.as_ref().map(|file| &file.path)),
        ("admin.htpasswd", settings.admin.htpasswd.as_ref().map(|file| &file.path)),
        ("admin.tokens", settings.admin.tokens.as_ref().map(|file| &file.path)),
    ];
    let is_open = |path: &PathBuf| mode(path).is_some_and(|mode| mode & OTHERS_MAY_READ != 0);
    let open = files.into_iter().filter_map(|(key, path)| Some((key, path.filter(|path| is_open(path))?)));
    let mut warnings: Vec<String> = open
        .map(|(key, path)| {
            let path = path.display();
            format!("{key}: {path} can be read by everybody on this machine; chmod o-r {path} unless that is meant")
        })
        .collect();
    let admin = &settings.admin;
    if !admin.listen.ip().is_loopback() && admin.htpasswd.is_none() && admin.tokens.is_none() {
        warnings.push(format!(
            "admin.listen: whoever reaches {} may read the metrics; set admin.htpasswd or admin.tokens, or let a network policy say who \
             reaches it",
            admin.listen
        ));
    }
    warnings
}

fn service_accounts(section: &mut Section<'_>) -> Option<ServiceAccounts> {
    let needed = ["issuer", "audience", "jwks"].map(|key| format!("service_accounts_{key}"));
    let others = ["ca", "token_file"].map(|key| format!("service_accounts_{key}"));
    let missing: Vec<&str> = needed.iter().map(String::as_str).filter(|key| !section.has(key)).collect();
    let given = needed.iter().chain(&others).find(|key| section.has(key)).cloned();
    if let (Some(given), false) = (given, missing.is_empty()) {
        section.report(
            &given,
            format!("is not enough to know service accounts by; set {} as well", missing.join(" and ")),
        );
    }
    let some = |text: &str| {
        if text.is_empty() { Err("is empty; write what the tokens say".to_owned()) } else { Ok(text.to_owned()) }
    };
    let issuer = section.text("service_accounts_issuer", some);
    let audience = section.text("service_accounts_audience", some);
    let jwks = section.text("service_accounts_jwks", jwks);
    let pod_file = |name: &str| {
        let is_cluster = matches!(&jwks, Some(Jwks::Url(url)) if is_cluster(url));
        let path = format!("{POD_FILES}/{name}");
        (is_cluster && Path::new(&path).exists()).then_some(path)
    };
    let ca = section.text("service_accounts_ca", account::certificates);
    let ca = ca.or_else(|| account::certificates(&pod_file("ca.crt")?).ok()).unwrap_or_default();
    let token_file = section.text("service_accounts_token_file", |path| {
        account::read_file(path)?;
        Ok(PathBuf::from(path))
    });
    let token_file = token_file.or_else(|| pod_file("token").map(PathBuf::from));
    Some(ServiceAccounts { issuer: issuer?, audience: audience?, jwks: jwks?, ca, token_file })
}

fn jwks(text: &str) -> Result<Jwks, String> {
    if text.contains("://") {
        let url =
            Url::parse(text).ok().filter(|url| url.has_host() && url.username().is_empty() && url.password().is_none());
        let url = url.ok_or_else(|| {
            format!(
                "is not a URL that can be asked; write for example \"https://{CLUSTER_HOST}/openid/v1/jwks\", or a file"
            )
        })?;
        if url.scheme() != "https" && !(url.scheme() == "http" && is_this_machine(&url)) {
            return Err(format!("{url} is not https: whoever is on the way could make keys; write an https URL"));
        }
        return Ok(Jwks::Url(url));
    }
    let bytes = account::read_file(text)?;
    Keys::parse(&bytes).map_err(|error| format!("{text} {error}"))?;
    let content = String::from_utf8(bytes).map_err(|_| format!("{text} is no text"))?;
    Ok(Jwks::File(FileOf { path: PathBuf::from(text), content }))
}

fn is_cluster(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        host == "kubernetes.default" || host == CLUSTER_HOST || host.starts_with(&format!("{CLUSTER_HOST}."))
    })
}

/// Returns true for loopback addresses and `localhost`.
fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

fn mode(path: &Path) -> Option<u32> {
    Some(std::fs::metadata(path).ok()?.permissions().mode())
}
