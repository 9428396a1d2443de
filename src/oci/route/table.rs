//! The closed table of upstreams: which names, aliases and virtual hosts lead to which upstream.

use std::collections::HashMap;

use super::refusal::Refusal;
use crate::oci::name::{RepositoryName, UpstreamName};
use crate::oci::pattern::Pattern;

/// One upstream, as far as requests can name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: UpstreamName,
    /// Other names for the same upstream: `index.docker.io` for `docker.io` (P-112), or a short word.
    pub aliases: Vec<UpstreamName>,
    /// Hosts under which clients reach us and mean this upstream; without a port, any port is meant.
    pub hosts: Vec<String>,
    /// Insert `library/` before names of one component: Docker Hub, and nobody else (P-117).
    pub library: bool,
    /// Take writes: pushes and deletes.
    pub push: bool,
    /// Repositories that may be asked for; none is all.
    pub allow: Vec<Pattern>,
    /// Repositories that may not, whatever `allow` says.
    pub deny: Vec<Pattern>,
}

impl Entry {
    /// Returns true when `repository` may be asked for.
    pub fn allows(&self, repository: &RepositoryName) -> bool {
        let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(repository.as_str()));
        (self.allow.is_empty() || fits(&self.allow)) && !fits(&self.deny)
    }
}

/// All upstreams that there are. Nothing outside it is ever dialled for a client (S-20).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    entries: Vec<Entry>,
    /// Names and aliases → index into `entries`.
    names: HashMap<UpstreamName, usize>,
    /// Virtual hosts, normalised → index into `entries`.
    hosts: HashMap<String, usize>,
    /// Index into `entries`.
    default: Option<usize>,
}

impl Table {
    /// Checks that every key leads to one upstream only; `default` may be a name or an alias.
    pub fn new(entries: Vec<Entry>, default: Option<UpstreamName>) -> Result<Self, TableError> {
        let mut names = HashMap::new();
        let mut hosts = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            for name in std::iter::once(&entry.name).chain(&entry.aliases) {
                // `/v2/v2/…` would be both the base path and an upstream.
                if name.as_str() == "v2" {
                    return Err(TableError::ReservedName { name: name.clone() });
                }
                if names.insert(name.clone(), index).is_some() {
                    return Err(TableError::DuplicateName { name: name.clone() });
                }
            }
            for host in &entry.hosts {
                let host = normalise_host(host);
                if host.is_empty() || host.contains(['/', '@', ' ']) {
                    return Err(TableError::InvalidHost { host });
                }
                if hosts.insert(host.clone(), index).is_some() {
                    return Err(TableError::DuplicateHost { host });
                }
            }
        }
        let default = match default {
            Some(name) => Some(*names.get(&name).ok_or(TableError::UnknownDefault { name })?),
            None => None,
        };
        Ok(Self { entries, names, hosts, default })
    }

    /// Returns the upstreams in the order given.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the upstream for requests that name none (P-116).
    pub fn default_upstream(&self) -> Option<&Entry> {
        self.entries.get(self.default?)
    }

    /// Finds an upstream by name or alias, in any case, with or without the default port (P-112).
    pub fn find(&self, name: &str) -> Option<&Entry> {
        let name: UpstreamName = name.parse().ok()?;
        self.entries.get(*self.names.get(&name)?)
    }

    /// Finds an upstream by the host that the client believes to talk to: first with the port, then without.
    pub fn find_host(&self, host: &str) -> Option<&Entry> {
        let host = normalise_host(host);
        let index = self.hosts.get(&host).or_else(|| self.hosts.get(&normalise_host(without_port(&host))))?;
        self.entries.get(*index)
    }

    /// Finds an upstream that the client named on purpose (P-114).
    pub(super) fn lookup(&self, name: &str) -> Result<&Entry, Refusal> {
        self.find(name).ok_or_else(|| Refusal::unknown_upstream(name))
    }
}

/// Why a table would be ambiguous.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("upstream name or alias {name} is given twice")]
    DuplicateName { name: UpstreamName },
    #[error("upstream cannot be named {name}")]
    ReservedName { name: UpstreamName },
    #[error("virtual host {host} is given twice")]
    DuplicateHost { host: String },
    #[error("virtual host {host:?} is not a host")]
    InvalidHost { host: String },
    #[error("default upstream {name} is not in the table")]
    UnknownDefault { name: UpstreamName },
}

fn normalise_host(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Takes the port off a host; the colons inside `[…]` belong to an IPv6 address.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UpstreamName {
        text.parse().expect("a valid name")
    }

    fn entry(text: &str, aliases: &[&str], hosts: &[&str]) -> Entry {
        Entry {
            name: name(text),
            aliases: aliases.iter().map(|alias| name(alias)).collect(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            library: false,
            push: false,
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }

    #[test]
    fn ambiguous_tables_are_refused() {
        let host = |text: &str| text.to_owned();
        let rows = [
            (vec![entry("a", &[], &[]), entry("A", &[], &[])], None, TableError::DuplicateName { name: name("a") }),
            (vec![entry("a", &["b"], &[]), entry("b", &[], &[])], None, TableError::DuplicateName { name: name("b") }),
            (vec![entry("a:443", &["a"], &[])], None, TableError::DuplicateName { name: name("a") }),
            (vec![entry("a", &["v2"], &[])], None, TableError::ReservedName { name: name("v2") }),
            (
                vec![entry("a", &[], &["H."]), entry("b", &[], &["h"])],
                None,
                TableError::DuplicateHost { host: host("h") },
            ),
            (vec![entry("a", &[], &["http://h"])], None, TableError::InvalidHost { host: host("http://h") }),
            (vec![entry("a", &[], &[""])], None, TableError::InvalidHost { host: host("") }),
            (vec![entry("a", &[], &[])], Some(name("b")), TableError::UnknownDefault { name: name("b") }),
        ];
        for (entries, default, error) in rows {
            assert_eq!(Table::new(entries, default).map(|_| ()), Err(error));
        }
    }

    #[test]
    fn hosts_are_found_with_and_without_the_port() {
        let entries = vec![entry("a", &[], &["hub.example", "[::1]"]), entry("b", &[], &["hub.example:5001"])];
        let table = Table::new(entries, Some(name("a"))).expect("a valid table");
        let rows = [
            ("hub.example", Some("a")),
            ("HUB.example.:80", Some("a")),
            ("hub.example:5001", Some("b")),
            ("[::1]", Some("a")),
            ("[::1]:5000", Some("a")),
            ("other", None),
            ("", None),
            (":", None),
        ];
        for (host, expected) in rows {
            assert_eq!(table.find_host(host).map(|entry| entry.name.as_str()), expected, "{host}");
        }
    }

    #[test]
    fn the_default_may_be_given_by_an_alias() {
        let table = Table::new(vec![entry("docker.io", &["hub"], &[])], Some(name("hub"))).expect("a valid table");
        assert_eq!(table.default_upstream().map(|entry| entry.name.as_str()), Some("docker.io"));
    }
}
