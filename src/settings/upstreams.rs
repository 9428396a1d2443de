//! The list of upstreams: the built-in ones, those of the file and those of flags, and the table that they make.

use std::collections::HashMap;
use std::num::NonZeroU32;

use url::Url;

use super::keys::BUILTIN_UPSTREAMS;
use super::problem::{Place, Problem};
use super::reader::Section;
use super::{access, account, units};
#[allow(clippy::wildcard_imports, reason = "the schema and its defaults are the vocabulary of this file")]
use super::{defaults::*, schema::*};
use crate::oci::{Entry, Table, UpstreamName};
use crate::upstream::egress;

/// The upstream of requests that name none, and whether somebody chose it.
pub(super) struct Default {
    pub(super) name: Option<UpstreamName>,
    pub(super) is_chosen: bool,
}

/// The upstreams while they are gathered.
pub(super) struct List {
    /// Those of `[freshness]`, which hold where an upstream says nothing.
    freshness: Freshness,
    drafts: Vec<Draft>,
    /// Some upstream could not be read far enough to have a name: it may be the one that is missed elsewhere.
    is_incomplete: bool,
}

/// An upstream and where it comes from.
struct Draft {
    upstream: Upstream,
    is_builtin: bool,
    name_place: Place,
    /// Beside `upstream.aliases`, as long as they come from the file.
    alias_places: Vec<Place>,
    host_places: Vec<Place>,
}

impl List {
    pub(super) fn new(freshness: Freshness) -> Self {
        Self { freshness, drafts: Vec::new(), is_incomplete: false }
    }

    /// Adds an `[[upstream]]` of the file.
    pub(super) fn add_file(&mut self, mut section: Section<'_>) {
        if !section.has("name") {
            section.report_section(
                "has no name; write name = \"…\", the host of the registry, such as \"quay.io\"".into(),
            );
        }
        let name_place = section.value_place("name");
        let name = section.text("name", units::upstream_name);
        let Some(mut upstream) =
            name.as_ref().map_or_else(|| placeholder(&self.freshness), |name| anonymous(name, &self.freshness))
        else {
            return section.report("name", "does not make a URL; set endpoints".into());
        };
        read(&mut section, &mut upstream, &self.freshness);
        let element_places =
            |key: &str, count: usize| (0..count).map(|index| section.element_place(key, index)).collect();
        let alias_places = element_places("aliases", upstream.aliases.len());
        let host_places = element_places("hosts", upstream.hosts.len());
        if name.is_none() {
            self.is_incomplete = true;
        } else {
            self.drafts.push(Draft { upstream, is_builtin: false, name_place, alias_places, host_places });
        }
    }

    /// Puts the built-in upstreams in front, but those that the file replaces.
    pub(super) fn add_builtin(&mut self) {
        let names = BUILTIN_UPSTREAMS.iter().filter_map(|(name, ..)| name.parse().ok());
        let absent = names.filter(|name| !self.drafts.iter().any(|draft| draft.upstream.name == *name));
        let mut drafts: Vec<Draft> =
            absent.filter_map(|name| Draft::new(&name, &self.freshness, Place::Default)).collect();
        drafts.append(&mut self.drafts);
        self.drafts = drafts;
    }

    /// Applies each `NAME=URL`: a known upstream keeps everything but its endpoints.
    pub(super) fn add_flags(&mut self, flags: &[String], problems: &mut Vec<Problem>) {
        let mut seen: Vec<UpstreamName> = Vec::new();
        for flag in flags {
            match self.add_flag(flag, &seen) {
                Ok(name) => seen.push(name),
                Err(text) => problems.push(Problem { place: Place::Flag("--upstream"), key: String::new(), text }),
            }
        }
    }

    fn add_flag(&mut self, flag: &str, seen: &[UpstreamName]) -> Result<UpstreamName, String> {
        let (name, url) = flag.split_once('=').ok_or_else(|| {
            "has no =; write NAME=URL, such as registry.example=https://registry.example:8443".to_owned()
        })?;
        let name = units::upstream_name(name)?;
        let url = units::endpoint(url)?;
        let known = self.drafts.iter().position(|draft| draft.upstream.answers_to(&name));
        let index = known.unwrap_or(self.drafts.len());
        if known.is_none() {
            let draft = Draft::new(&name, &self.freshness, Place::Flag("--upstream"));
            self.drafts.push(draft.ok_or_else(|| format!("{name} does not make a URL"))?);
        }
        let upstream = self.drafts.get_mut(index).map(|draft| &mut draft.upstream);
        let upstream = upstream.ok_or_else(|| format!("{name} is not an upstream"))?;
        // Given again, it is one more endpoint to try: the first one has replaced what was there.
        if seen.contains(&upstream.name) {
            upstream.endpoints.push(url);
        } else {
            upstream.endpoints = vec![url];
        }
        upstream.internal |= upstream.is_plainly_internal();
        Ok(upstream.name.clone())
    }

    /// Builds the table, or reports why requests would not find one upstream.
    pub(super) fn table(
        &mut self,
        default: Default,
        default_place: Place,
        problems: &mut Vec<Problem>,
    ) -> Option<Table> {
        let problems_before = problems.len();
        self.check_names(problems);
        self.check_hosts(problems);
        self.add_plain_http_aliases();
        let known = default
            .name
            .filter(|name| self.drafts.iter().any(|draft| draft.upstream.answers_to(name)) || default.is_chosen);
        if let Some(name) = &known
            && !self.is_incomplete
            && !self.drafts.iter().any(|draft| draft.upstream.answers_to(name))
        {
            let names = self.drafts.iter().map(|draft| draft.upstream.name.as_str());
            let advice = match units::nearest(name.as_str(), names) {
                Some(nearest) => format!("did you mean {nearest:?}?"),
                None => "write the name of an upstream, or \"\" for none".to_owned(),
            };
            let text = format!("{name} is not an upstream; {advice}");
            problems.push(Problem { place: default_place.clone(), key: "server.default_upstream".into(), text });
        }
        if problems.len() > problems_before || self.is_incomplete {
            return None;
        }
        let table = Table::new(self.drafts.iter().map(|draft| draft.upstream.entry()).collect(), known);
        let report = |error: crate::oci::TableError| {
            problems.push(Problem { place: default_place, key: "upstream".into(), text: error.to_string() });
        };
        table.map_err(report).ok()
    }

    pub(super) fn into_upstreams(self) -> Vec<Upstream> {
        self.drafts.into_iter().map(|draft| draft.upstream).collect()
    }

    fn check_names(&self, problems: &mut Vec<Problem>) {
        let mut owners: HashMap<&UpstreamName, &Draft> = HashMap::new();
        for draft in &self.drafts {
            let aliases = draft.upstream.aliases.iter().enumerate();
            let aliases = aliases.map(|(index, alias)| (alias, draft.alias_places.get(index), "upstream.aliases"));
            for (name, place, key) in std::iter::once((&draft.upstream.name, None, "upstream.name")).chain(aliases) {
                let text = if name.as_str() == "v2" {
                    "\"v2\" cannot name an upstream: it begins every path of a registry; take another name".to_owned()
                } else if let Some(owner) = owners.get(name) {
                    taken(name, owner)
                } else {
                    owners.insert(name, draft);
                    continue;
                };
                let place = place.unwrap_or(&draft.name_place).clone();
                problems.push(Problem { place, key: key.into(), text });
            }
        }
    }

    fn check_hosts(&self, problems: &mut Vec<Problem>) {
        let mut owners: HashMap<String, &UpstreamName> = HashMap::new();
        for draft in &self.drafts {
            for (index, host) in draft.upstream.hosts.iter().enumerate() {
                let normal = host.trim_end_matches('.').to_ascii_lowercase();
                if let Some(owner) = owners.insert(normal, &draft.upstream.name) {
                    let place = draft.host_places.get(index).unwrap_or(&draft.name_place).clone();
                    let text = format!("{host} leads to {owner} already; a host leads to one upstream");
                    problems.push(Problem { place, key: "upstream.hosts".into(), text });
                }
            }
        }
    }

    /// P-112: port 80 is the default port of a plain-http upstream, so clients may write it or not.
    fn add_plain_http_aliases(&mut self) {
        for index in 0..self.drafts.len() {
            let Some(alias) = self.drafts.get(index).and_then(|draft| draft.upstream.port_80_alias()) else { continue };
            let is_taken = self.drafts.iter().any(|draft| draft.upstream.answers_to(&alias));
            if let Some(draft) = self.drafts.get_mut(index).filter(|_| !is_taken) {
                draft.upstream.aliases.push(alias);
            }
        }
    }
}

impl Draft {
    fn new(name: &UpstreamName, freshness: &Freshness, name_place: Place) -> Option<Self> {
        let is_builtin = name_place == Place::Default;
        let upstream = anonymous(name, freshness)?;
        Some(Self { upstream, is_builtin, name_place, alias_places: Vec::new(), host_places: Vec::new() })
    }
}

impl Upstream {
    /// Returns true when an endpoint is where no public registry can be.
    fn is_plainly_internal(&self) -> bool {
        self.endpoints.iter().filter_map(Url::host).any(|host| egress::is_plainly_internal(&host))
    }

    fn answers_to(&self, name: &UpstreamName) -> bool {
        self.name == *name || self.aliases.contains(name)
    }

    fn port_80_alias(&self) -> Option<UpstreamName> {
        let is_plain = self.endpoints.iter().all(|endpoint| endpoint.scheme() == "http");
        let has_port = self.name.as_str().contains(':');
        if is_plain && !has_port { format!("{}:80", self.name).parse().ok() } else { None }
    }

    fn entry(&self) -> Entry {
        Entry {
            name: self.name.clone(),
            aliases: self.aliases.clone(),
            hosts: self.hosts.clone(),
            library: self.name.as_str() == DEFAULT_UPSTREAM,
            push: self.push,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
        }
    }
}

fn taken(name: &UpstreamName, owner: &Draft) -> String {
    let other = &owner.upstream.name;
    match (owner.is_builtin, name == other) {
        (true, true) => {
            format!("{name} is a built-in upstream already; leave it out, or set server.builtin_upstreams = false")
        }
        (true, false) => format!("{name} is an alias of the built-in upstream {other} already; write {other} instead"),
        (false, true) => format!("{name} names another upstream already; give each name once"),
        (false, false) => format!("{name} is an alias of upstream {other} already; give each name once"),
    }
}

/// Returns the upstream of that name with defaults everywhere; a well-known one has its own endpoint and aliases.
fn anonymous(name: &UpstreamName, freshness: &Freshness) -> Option<Upstream> {
    let builtin = BUILTIN_UPSTREAMS.iter().find(|(builtin, ..)| *builtin == name.as_str());
    let aliases = builtin.map_or(&[] as &[&str], |(_, aliases, _)| aliases);
    let endpoint = builtin.map_or_else(|| format!("https://{name}"), |(.., endpoint)| (*endpoint).to_owned());
    Some(Upstream {
        name: name.clone(),
        endpoints: vec![Url::parse(&endpoint).ok()?],
        aliases: aliases.iter().filter_map(|alias| alias.parse().ok()).collect(),
        hosts: Vec::new(),
        credentials: None,
        token_hosts: Vec::new(),
        ca: Vec::new(),
        client_certificate: None,
        insecure: false,
        connections: UPSTREAM_CONNECTIONS,
        connections_per_blob: CONNECTIONS_PER_BLOB,
        parallel_from: PARALLEL_FROM_BYTES,
        fills: FILLS_OF_UPSTREAM,
        prefetch: Prefetch::Config,
        push: false,
        requests: UPSTREAM_REQUESTS,
        rate: None,
        connect_timeout: CONNECT_TIMEOUT,
        header_timeout: UPSTREAM_HEADER_TIMEOUT,
        idle_timeout: IDLE_TIMEOUT,
        token_timeout: TOKEN_TIMEOUT,
        proxy: Proxy::Environment,
        freshness: freshness.clone(),
        access: Access::Shared,
        access_except: Vec::new(),
        access_ttl: ACCESS_TTL,
        access_stale_if_error: ACCESS_STALE_IF_ERROR,
        allow: Vec::new(),
        deny: Vec::new(),
        internal: false,
    })
}

/// Stands in for an upstream whose name is wrong, so that its other keys are checked nevertheless.
fn placeholder(freshness: &Freshness) -> Option<Upstream> {
    anonymous(&DEFAULT_UPSTREAM.parse().ok()?, freshness)
}

/// Reads every key of an `[[upstream]]` but its name.
fn read(section: &mut Section<'_>, upstream: &mut Upstream, freshness: &Freshness) {
    if let Some(endpoints) = section.list("endpoints", units::endpoint) {
        upstream.endpoints = endpoints;
        if upstream.endpoints.is_empty() {
            section.report("endpoints", "is empty; write at least one URL, or leave the key out".into());
        }
    }
    upstream.aliases = section.list("aliases", units::upstream_name).unwrap_or_else(|| upstream.aliases.clone());
    upstream.hosts = section.list("hosts", units::host).unwrap_or_default();
    upstream.credentials = account::credentials(section, &upstream.name, &upstream.endpoints);
    upstream.token_hosts = section.list("token_hosts", units::token_host).unwrap_or_default();
    upstream.insecure = section.switch("insecure").unwrap_or(false);
    if upstream.insecure && section.has("ca") {
        section.report("ca", "is not used with insecure = true; take one of them out".into());
    }
    upstream.ca = section.text("ca", account::certificates).unwrap_or_default();
    upstream.client_certificate = account::client_certificate(section);
    upstream.connections = section.number("connections", &UPSTREAM_CONNECTIONS_BOUNDS).unwrap_or(UPSTREAM_CONNECTIONS);
    upstream.connections_per_blob =
        section.number("connections_per_blob", &CONNECTIONS_PER_BLOB_BOUNDS).unwrap_or(CONNECTIONS_PER_BLOB);
    upstream.parallel_from = section
        .measure("parallel_from", |text| units::bytes(text, &PARALLEL_FROM_BYTES_BOUNDS))
        .unwrap_or(PARALLEL_FROM_BYTES);
    upstream.fills = fills(section, "fills", FILLS_OF_UPSTREAM);
    upstream.prefetch = section.text("prefetch", units::prefetch).unwrap_or(Prefetch::Config);
    upstream.push = section.switch("push").unwrap_or(false);
    upstream.requests = section.number("requests", &UPSTREAM_REQUESTS_BOUNDS).unwrap_or(UPSTREAM_REQUESTS);
    upstream.rate = section.number("rate", &RATE_BOUNDS).and_then(NonZeroU32::new);
    upstream.connect_timeout = section.duration("connect_timeout", &ANSWER_TIMEOUT_BOUNDS).unwrap_or(CONNECT_TIMEOUT);
    upstream.header_timeout =
        section.duration("header_timeout", &ANSWER_TIMEOUT_BOUNDS).unwrap_or(UPSTREAM_HEADER_TIMEOUT);
    upstream.idle_timeout = section.duration("idle_timeout", &IDLE_TIMEOUT_BOUNDS).unwrap_or(IDLE_TIMEOUT);
    upstream.token_timeout = section.duration("token_timeout", &ANSWER_TIMEOUT_BOUNDS).unwrap_or(TOKEN_TIMEOUT);
    upstream.proxy = section.text("proxy", units::proxy).unwrap_or(Proxy::Environment);
    upstream.freshness = self::freshness(section, freshness);
    access::read(section, upstream);
    upstream.allow = section.list("allow", units::pattern).unwrap_or_default();
    upstream.deny = section.list("deny", units::pattern).unwrap_or_default();
    upstream.internal = section.switch("internal").unwrap_or_else(|| upstream.is_plainly_internal());
}

/// Reads the keys that `[freshness]` and `[[upstream]]` share.
pub(super) fn freshness(section: &mut Section<'_>, defaults: &Freshness) -> Freshness {
    Freshness {
        tag_ttl: section.duration("tag_ttl", &TAG_TTL_BOUNDS).unwrap_or(defaults.tag_ttl),
        stale_if_error: section.duration("stale_if_error", &STALE_IF_ERROR_BOUNDS).unwrap_or(defaults.stale_if_error),
        stale_wait: section.duration("stale_wait", &STALE_WAIT_BOUNDS).unwrap_or(defaults.stale_wait),
        immutable_tags: section
            .list("immutable_tags", units::pattern)
            .unwrap_or_else(|| defaults.immutable_tags.clone()),
        when_limited: when_limited(section).unwrap_or(defaults.when_limited),
        negative_ttl: section.duration("negative_ttl", &NEGATIVE_TTL_BOUNDS).unwrap_or(defaults.negative_ttl),
        offline: section.switch("offline").unwrap_or(defaults.offline),
    }
}

fn when_limited(section: &mut Section<'_>) -> Option<WhenLimited> {
    let words = section.list("when_limited", |word| match word {
        "stale" | "429" | "503" => Ok(word.to_owned()),
        _ => Err(format!("holds {word:?}; write [\"stale\", \"503\"], or \"429\" in the place of \"503\"")),
    })?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (stale, status) = match words.as_slice() {
        ["stale", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    match status {
        ["503"] => Some(WhenLimited { stale, is_429: false }),
        ["429"] => Some(WhenLimited { stale, is_429: true }),
        _ => {
            let text = "does not end with one status; write [\"stale\", \"503\"], [\"stale\", \"429\"], [\"503\"] or [\"429\"]";
            section.report("when_limited", text.into());
            None
        }
    }
}

/// Reads bounds on fills; `max_key` is the key of their count.
pub(super) fn fills(section: &mut Section<'_>, max_key: &str, default: Fills) -> Fills {
    Fills {
        max: section.number(max_key, &FILLS_MAX_BOUNDS).unwrap_or(default.max),
        unfinished: section
            .measure("unfinished", |text| units::bytes(text, &UNFINISHED_BYTES_BOUNDS))
            .unwrap_or(default.unfinished),
        unattended: section.number("unattended", &UNATTENDED_BOUNDS).unwrap_or(default.unattended),
    }
}
