//! The docker config (`~/.docker/config.json`, podman's `auth.json`): which account it has for a server, or whom it says to ask.
//!
//! | what the file has for the server | what is done |
//! |---|---|
//! | a helper in `credHelpers` | it is asked |
//! | an entry of `auths` that holds an account | it is taken |
//! | `credsStore` | it is asked, for the endpoint's host and for the upstream's name |
//!
//! They are tried in this order until one gives an account, but that of the longest path first: a key may name a part of a registry,
//! `registry.example/team`, and is then for the repositories beneath it. An endpoint sees what is listed for its own host, or else, if it
//! belongs to that registry, for the upstream's name, and nothing of another endpoint's. Keys are compared without scheme, `/v1` and
//! `/v2`; all names of Docker Hub are one. `registrytoken` is not used: it would be sent to the registry as it is, and nothing could
//! renew it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::error::Flaw;
use super::helper::{HelperName, Question};
use super::{Account, Asker, TOKEN_USERNAME};
use crate::oci::{RepositoryName, UpstreamName};
use crate::telemetry::Secret;

/// The names of Docker Hub (U-1), the one that we keep first.
const HUB_NAMES: [&str; 4] = ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// What `docker login` calls Docker Hub.
const HUB_ADDRESS: &str = "https://index.docker.io/v1/";

/// A docker config, as far as it is about one upstream.
pub(super) struct DockerConfig {
    /// The upstream's own name, as a host.
    name: String,
    auths: Vec<(Key, Arc<Account>)>,
    helpers: Vec<(Key, HelperName)>,
    store: Option<HelperName>,
}

/// One way to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Take(Arc<Account>),
    Ask(Question),
}

impl DockerConfig {
    /// Reads what there is for `servers`; what is wrong with other entries is not our trouble.
    pub(super) fn parse(bytes: &[u8], servers: &Servers) -> Result<Self, Flaw> {
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| Flaw::NotDockerConfig { line: error.line(), column: error.column() })?;
        let mut auths = Vec::new();
        for (name, entry) in document.auths.unwrap_or_default() {
            if let Some(key) = servers.key(&name)
                && let Some(account) = entry.account(&name)?
            {
                auths.push((key, Arc::new(account)));
            }
        }
        let mut helpers = Vec::new();
        for (name, helper) in document.cred_helpers.unwrap_or_default() {
            if let Some(key) = servers.key(&name) {
                helpers.push((key, helper_name(&helper)?));
            }
        }
        let store = document.creds_store.filter(|name| !name.is_empty());
        let store = store.map(|name| helper_name(&name)).transpose()?;
        Ok(Self { name: servers.name.clone(), auths, helpers, store })
    }

    /// Returns true when no repository has an account in it.
    pub(super) fn is_empty(&self) -> bool {
        self.auths.is_empty() && self.helpers.is_empty() && self.store.is_none()
    }

    /// Returns the ways to an account, in the order in which to try them.
    pub(super) fn steps(&self, asker: Asker<'_>) -> Vec<Step> {
        let repository = asker.repository;
        let (own, _path) = split(asker.endpoint.as_str());
        let may_see_both = asker.is_at_home && own != self.name;
        let hosts: &[&str] = if may_see_both { &[&own, &self.name] } else { &[&own] };
        let mut steps = Vec::new();
        if let Some((key, helper)) = best(&self.helpers, hosts, repository) {
            let question = Question { helper: helper.clone(), server: address(&key.host) };
            steps.push((key.path.len(), Step::Ask(question)));
        }
        if let Some((key, account)) = best(&self.auths, hosts, repository) {
            steps.push((key.path.len(), Step::Take(Arc::clone(account))));
        }
        steps.sort_by_key(|(length, _)| Reverse(*length));
        let stored = hosts
            .iter()
            .filter_map(|host| Some(Step::Ask(Question { helper: self.store.clone()?, server: address(host) })));
        steps.into_iter().map(|(_, step)| step).chain(stored).collect()
    }
}

/// Returns the entry with the longest path that covers the repository; of several, that of the first of `hosts`.
fn best<'a, T>(entries: &'a [(Key, T)], hosts: &[&str], repository: &RepositoryName) -> Option<&'a (Key, T)> {
    let covering = entries.iter().filter(|(key, _)| hosts.contains(&key.host.as_str()) && key.covers(repository));
    covering.min_by_key(|(key, _)| (Reverse(key.path.len()), hosts.iter().position(|host| *host == key.host)))
}

fn helper_name(name: &str) -> Result<HelperName, Flaw> {
    name.parse().map_err(|_| Flaw::HelperName { name: name.to_owned() })
}

/// Returns a host as credential helpers know it.
fn address(host: &str) -> String {
    if host == HUB_NAMES[0] { HUB_ADDRESS.to_owned() } else { host.to_owned() }
}

/// The hosts under which an upstream's account may be listed: those of its endpoints, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Servers {
    endpoints: Vec<String>,
    name: String,
}

impl Servers {
    pub(super) fn new(name: &UpstreamName, endpoints: &[Url]) -> Self {
        let host = |place: &str| split(place).0;
        Self { endpoints: endpoints.iter().map(|url| host(url.as_str())).collect(), name: host(name.as_str()) }
    }

    /// Returns the first host.
    pub(super) fn first(&self) -> &str {
        self.endpoints.first().unwrap_or(&self.name)
    }

    /// Returns the first host, as credential helpers know it.
    pub(super) fn first_address(&self) -> String {
        address(self.first())
    }

    /// Reads the key of an entry; `None` when it is another registry's.
    fn key(&self, text: &str) -> Option<Key> {
        let (host, path) = split(text);
        (self.name == host || self.endpoints.contains(&host)).then_some(Key { host, path })
    }
}

/// The key of an entry for one of the servers.
struct Key {
    host: String,
    /// The repositories that it is for; empty for all.
    path: String,
}

impl Key {
    fn covers(&self, repository: &RepositoryName) -> bool {
        let rest = repository.as_str().strip_prefix(&self.path);
        self.path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Splits what names a registry, or a part of one: the host in small letters, with its port unless that is 443, and the path without
/// the version of the API and without slashes at its ends.
fn split(text: &str) -> (String, String) {
    let rest = text.split_once("://").map_or(text, |(_scheme, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    let versionless = ["v1", "v2"].iter().find_map(|version| path.strip_prefix(version));
    let path = versionless.filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    let host = if HUB_NAMES.contains(&host) { HUB_NAMES[0] } else { host };
    (host.to_owned(), path.trim_matches('/').to_owned())
}

// No `Debug`: it is made of secrets.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    auths: Option<BTreeMap<String, Entry>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Entry {
    /// Returns the account; `None` for an entry without one, as docker leaves behind where a helper keeps it.
    fn account(self, key: &str) -> Result<Option<Account>, Flaw> {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (username, password) = match filled(self.auth) {
            None => (self.username, self.password),
            Some(auth) => {
                let auth = Zeroizing::new(auth);
                let (username, password) = decode(&auth).ok_or_else(|| Flaw::Auth { key: key.to_owned() })?;
                (Some(username), Some(password))
            }
        };
        Ok(match (filled(self.identitytoken), filled(username), filled(password)) {
            (Some(token), username, _) => {
                let username = username.unwrap_or_else(|| TOKEN_USERNAME.to_owned());
                Some(Account::IdentityToken { username, token: Secret::new(token) })
            }
            (None, Some(username), Some(password)) => {
                Some(Account::Password { username, password: Secret::new(password) })
            }
            (None, ..) => None,
        })
    }
}

/// Reads base64 of `user:password`; docker has written NULs behind the password.
fn decode(auth: &str) -> Option<(String, String)> {
    let pair = Zeroizing::new(STANDARD.decode(auth.trim()).ok()?);
    let (username, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(name: &str, endpoint: &str) -> Servers {
        Servers::new(&name.parse().unwrap(), &[Url::parse(endpoint).unwrap()])
    }

    /// Returns the steps in words: `user`, `token of user`, `helper: server`.
    fn words(steps: Vec<Step>) -> Vec<String> {
        let word = |step| match step {
            Step::Ask(Question { helper, server }) => format!("{}: {server}", helper.as_str()),
            Step::Take(account) => match &*account {
                Account::Password { username, .. } => username.clone(),
                Account::IdentityToken { username, .. } => format!("token of {username}"),
            },
        };
        steps.into_iter().map(word).collect()
    }

    fn asking<'a>(endpoint: &'a Url, repository: &'a RepositoryName) -> Asker<'a> {
        Asker { endpoint, is_at_home: true, repository }
    }

    #[test]
    fn the_account_of_a_host_is_found_whatever_docker_and_podman_call_it() {
        let hub = ("docker.io", "https://registry-1.docker.io");
        let ours = ("reg.test", "https://reg.test");
        // {"auth": base64 of u:p} for user u
        for (at, file, repository, expected) in [
            (hub, r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#, "library/a", &["u"][..]),
            (hub, r#"{"auths":{"docker.io":{"auth":"dTpw"}}}"#, "library/a", &["u"]),
            (hub, r#"{"auths":{"registry-1.docker.io":{"auth":"dTpw"}}}"#, "library/a", &["u"]),
            (ours, r#"{"auths":{"docker.io":{"auth":"dTpw"}}}"#, "a", &[]),
            (ours, r#"{"auths":{"https://REG.test/v2/":{"auth":"dTpw"}}}"#, "a", &["u"]),
            (ours, r#"{"auths":{"http://reg.test:443":{"auth":"dTpw"}}}"#, "a", &["u"]),
            (ours, r#"{"auths":{"reg.test:5000":{"auth":"dTpw"}}}"#, "a", &[]),
            (("reg.test:5000", "https://x.test"), r#"{"auths":{"reg.test:5000":{"auth":"dTpw"}}}"#, "a", &["u"]),
            // An endpoint's own account goes before that of the name.
            (
                ("reg.test", "https://x.test"),
                r#"{"auths":{"reg.test":{"auth":"dTpw"},"x.test":{"username":"x","password":"p"}}}"#,
                "a",
                &["x"],
            ),
            // The longest path wins, and paths end at slashes.
            (
                ours,
                r#"{"auths":{"reg.test":{"auth":"dTpw"},"reg.test/team":{"username":"t","password":"p"},
                    "reg.test/team/app":{"username":"a","password":"p"}}}"#,
                "team/app",
                &["a"],
            ),
            (
                ours,
                r#"{"auths":{"reg.test":{"auth":"dTpw"},"reg.test/team":{"username":"t","password":"p"}}}"#,
                "team/other",
                &["t"],
            ),
            (
                ours,
                r#"{"auths":{"reg.test":{"auth":"dTpw"},"reg.test/team":{"username":"t","password":"p"}}}"#,
                "teams/app",
                &["u"],
            ),
            // Identity tokens, with and without a user.
            (ours, r#"{"auths":{"reg.test":{"auth":"dTo=","identitytoken":"i"}}}"#, "a", &["token of u"]),
            (ours, r#"{"auths":{"reg.test":{"identitytoken":"i"}}}"#, "a", &["token of <token>"]),
            // Helpers, and the empty entries that docker leaves beside them.
            (ours, r#"{"auths":{"reg.test":{}},"credsStore":"pass"}"#, "a", &["pass: reg.test"]),
            (hub, r#"{"credsStore":"pass"}"#, "library/a", &["pass: https://index.docker.io/v1/"]),
            (
                ("reg.test", "https://x.test"),
                r#"{"credsStore":"pass","credHelpers":{"x.test":"ecr-login"}}"#,
                "a",
                &["ecr-login: x.test", "pass: x.test", "pass: reg.test"],
            ),
            (
                ours,
                r#"{"auths":{"reg.test":{"auth":"dTpw"},"reg.test/team":{"username":"t","password":"p"}},
                    "credHelpers":{"reg.test":"gcloud"}}"#,
                "team/a",
                &["t", "gcloud: reg.test"],
            ),
            (
                ours,
                r#"{"auths":{"reg.test":{"auth":"dTpw"}},"credHelpers":{"reg.test":"gcloud"}}"#,
                "a",
                &["gcloud: reg.test", "u"],
            ),
            (ours, r#"{"auths":null,"HttpHeaders":{"a":"b"}}"#, "a", &[]),
        ] {
            let repository: RepositoryName = repository.parse().unwrap();
            let config = DockerConfig::parse(file.as_bytes(), &servers(at.0, at.1)).unwrap();
            let endpoint = Url::parse(at.1).unwrap();
            assert_eq!(words(config.steps(asking(&endpoint, &repository))), expected, "P-174: {at:?} {file}");
        }
    }

    #[test]
    fn an_endpoint_sees_no_account_of_another_one() {
        let endpoints = ["https://a.test", "https://b.test", "https://c.test"].map(|url| Url::parse(url).unwrap());
        let servers = Servers::new(&"reg.test".parse().unwrap(), &endpoints);
        for (file, expected) in [
            (
                r#"{"auths":{"a.test":{"username":"a","password":"p"},"b.test":{"username":"b","password":"p"}}}"#,
                [&["a"][..], &["b"], &[]],
            ),
            (
                r#"{"auths":{"a.test/team":{"username":"a","password":"p"},"reg.test":{"username":"r","password":"p"}}}"#,
                [&["a"], &["r"], &["r"]],
            ),
            (
                r#"{"credsStore":"pass","credHelpers":{"a.test":"ecr-login"}}"#,
                [
                    &["ecr-login: a.test", "pass: a.test", "pass: reg.test"],
                    &["pass: b.test", "pass: reg.test"],
                    &["pass: c.test", "pass: reg.test"],
                ],
            ),
        ] {
            let config = DockerConfig::parse(file.as_bytes(), &servers).unwrap();
            let repository = "team/a".parse().unwrap();
            for (endpoint, expected) in endpoints.iter().zip(expected) {
                assert_eq!(words(config.steps(asking(endpoint, &repository))), expected, "{endpoint} {file}");
                let stranger = Asker { is_at_home: false, ..asking(endpoint, &repository) };
                assert!(!words(config.steps(stranger)).iter().any(|word| word.contains("reg.test") || word == "r"));
            }
        }
    }

    #[test]
    fn passwords_are_read_as_they_stand() {
        // base64 of `_json_key:{"a":1}` and a NUL, and of `org+robot:x:y`.
        for (auth, username, password) in
            [("X2pzb25fa2V5OnsiYSI6MX0A", "_json_key", "{\"a\":1}"), ("b3JnK3JvYm90Ong6eQ==", "org+robot", "x:y")]
        {
            let file = format!(r#"{{"auths":{{"reg.test":{{"auth":"{auth}"}}}}}}"#);
            let config = DockerConfig::parse(file.as_bytes(), &servers("reg.test", "https://reg.test")).unwrap();
            let steps = config.steps(asking(&Url::parse("https://reg.test").unwrap(), &"a".parse().unwrap()));
            let expected = Account::Password { username: username.to_owned(), password: Secret::new(password) };
            assert_eq!(steps, [Step::Take(Arc::new(expected))], "U-15, U-29: {username}");
        }
    }

    #[test]
    fn what_is_wrong_for_this_upstream_is_told_without_secrets() {
        let ours = servers("reg.test", "https://reg.test");
        for (file, told) in [
            ("{", "is not a docker config (line 1, column 1); docker login writes one"),
            (
                r#"{"auths":{"reg.test":"hunter2"}}"#,
                "is not a docker config (line 1, column 30); docker login writes one",
            ),
            (
                r#"{"auths":{"reg.test":{"auth":"hunter2"}}}"#,
                "holds an auth for \"reg.test\" that is not base64 of user:password; write it anew with docker login reg.test",
            ),
            (
                r#"{"credHelpers":{"reg.test":"../x"}}"#,
                "names the credential helper \"../x\"; write its name after docker-credential-, such as \"ecr-login\"",
            ),
            // The trouble of another registry is not ours.
            (r#"{"auths":{"b.test":{"auth":"hunter2"},"reg.test/team":{"auth":"dTpw"}}}"#, ""),
            (r#"{"credHelpers":{"b.test":"../x"},"credsStore":"pass"}"#, ""),
        ] {
            let parsed = DockerConfig::parse(file.as_bytes(), &ours);
            let words = parsed.err().map(|flaw| format!("{flaw} {flaw:?}")).unwrap_or_default();
            assert!(words.starts_with(told) && words.is_empty() == told.is_empty(), "{file}: {words}");
            assert!(!words.contains("hunter2"), "{words}");
        }
    }
}
