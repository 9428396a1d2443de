//! Fills the schema from the merged sections, with defaults for what is absent, and finds the values that do not fit together.

use std::num::NonZeroU32;
use std::path::PathBuf;

use config::{Config, ConfigError, Map, Value};

use super::layers::{Layers, Places};
use super::problem::{Place, Problem};
use super::reader::Section;
use super::units::{self, Quantity};
use super::{Sources, identity, listeners, upstreams};
#[allow(clippy::wildcard_imports, reason = "the schema and its defaults are the vocabulary of this file")]
use super::{defaults::*, schema::*};
use crate::identity::{Htpasswd, Tokens};

/// Builds the settings, or returns everything that is wrong.
pub(super) fn check(layers: Layers, sources: &Sources) -> Result<Settings, Vec<Problem>> {
    let config = layers.merge().map_err(|error| unmerged(&error))?;
    let Layers { places, mut problems, .. } = layers;
    let mut reader = Reader { config: &config, places: &places, problems: &mut problems };

    let (server, builtin_upstreams) = server(reader.section("server"));
    let (server, listeners) = listeners::read(&mut reader, server);
    let admin = admin(reader.section("admin"));
    let store = store(reader.section("store"), &sources.environment);
    let identity = identity::read(&mut reader.section("identity"));
    let principals = reader.sections("principal").into_iter().enumerate();
    let principals: Vec<_> = principals
        .map(|(index, values)| identity::rule(&mut reader.part(format!("principal[{index}]"), values)))
        .collect();
    let freshness = freshness(reader.section("freshness"));
    let fills = upstreams::fills(&mut reader.section("fills"), "max", FILLS);
    let clients = clients(reader.section("clients"), server.connections, fills);
    let log = log(reader.section("log"));
    let metrics = metrics(reader.section("metrics"));
    listeners::check_addresses(&mut reader, &server.listen, &listeners, admin.listen);

    let mut list = upstreams::List::new(freshness.clone());
    for (index, values) in reader.sections("upstream").into_iter().enumerate() {
        list.add_file(reader.part(format!("upstream[{index}]"), values));
    }
    if builtin_upstreams {
        list.add_builtin();
    }
    list.add_flags(&sources.flags.upstreams, reader.problems);
    let is_chosen = config.get::<Value>("server.default_upstream").is_ok();
    let default = upstreams::Default { name: server.default_upstream.clone(), is_chosen };
    let default_place = places.value("server.default_upstream");
    let table = list.table(default, default_place, reader.problems);
    let upstreams = list.into_upstreams();
    identity::check_together(&mut reader, &server, &identity, &upstreams);

    match table {
        Some(table) if problems.is_empty() => {
            let default_upstream = table.default_upstream().map(|entry| entry.name.clone());
            let server = Server { default_upstream, ..server };
            Ok(Settings {
                server,
                listeners: listeners.into_iter().map(|(_, listener)| listener).collect(),
                admin,
                store,
                clients,
                identity,
                principals,
                freshness,
                fills,
                log,
                metrics,
                upstreams,
                table,
            })
        }
        _ => Err(problems),
    }
}

/// The merged configuration, and where its problems go.
pub(super) struct Reader<'a> {
    config: &'a Config,
    pub(super) places: &'a Places,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    /// Returns where a key was written, if somebody wrote it.
    pub(super) fn written(&self, key: &str) -> Option<Place> {
        Some(self.places.value(key)).filter(|place| *place != Place::Default)
    }

    /// Reports what follows from several keys.
    pub(super) fn report(&mut self, place: Place, key: &str, text: String) {
        self.problems.push(Problem { place, key: key.into(), text });
    }

    fn section(&mut self, name: &str) -> Section<'_> {
        let values = self.config.get_table(name).unwrap_or_default();
        self.part(name.to_owned(), values)
    }

    pub(super) fn part(&mut self, path: String, values: Map<String, Value>) -> Section<'_> {
        Section::new(path, values, self.places, self.problems)
    }

    /// Returns the sections of that name, of which there may be several.
    pub(super) fn sections(&self, name: &str) -> Vec<Map<String, Value>> {
        let sections = self.config.get_array(name).unwrap_or_default();
        sections.into_iter().filter_map(|section| section.into_table().ok()).collect()
    }
}

/// Reads `[server]`, and whether the built-in upstreams are wanted.
fn server(mut section: Section<'_>) -> (Server, bool) {
    let default_upstream = section.text("default_upstream", |text| match text {
        "" => Ok(None),
        name => units::upstream_name(name).map(Some),
    });
    let server = Server {
        listen: section.list("listen", units::address).unwrap_or_default(),
        default_upstream: default_upstream.unwrap_or_else(|| units::upstream_name(DEFAULT_UPSTREAM).ok()),
        public_url: section.text("public_url", units::public_url),
        drain_timeout: section.duration("drain_timeout", &DRAIN_TIMEOUT_BOUNDS).unwrap_or(DRAIN_TIMEOUT),
        header_timeout: section
            .duration("header_timeout", &SERVER_HEADER_TIMEOUT_BOUNDS)
            .unwrap_or(SERVER_HEADER_TIMEOUT),
        handshake_timeout: section
            .duration("handshake_timeout", &HANDSHAKE_TIMEOUT_BOUNDS)
            .unwrap_or(HANDSHAKE_TIMEOUT),
        connections: section.number("connections", &SERVER_CONNECTIONS_BOUNDS).unwrap_or(SERVER_CONNECTIONS),
        write_stall_timeout: section
            .duration("write_stall_timeout", &WRITE_STALL_TIMEOUT_BOUNDS)
            .unwrap_or(WRITE_STALL_TIMEOUT),
    };
    (server, section.switch("builtin_upstreams").unwrap_or(true))
}

fn metrics(mut section: Section<'_>) -> Metrics {
    Metrics { repositories: section.number("repositories", &METRICS_REPOSITORIES_BOUNDS).unwrap_or(0) }
}

fn admin(mut section: Section<'_>) -> Admin {
    Admin {
        listen: section.text("listen", units::address).unwrap_or(ADMIN_LISTEN),
        htpasswd: section.text("htpasswd", |path| identity::file(path, Htpasswd::parse)),
        tokens: section.text("tokens", |path| identity::file(path, Tokens::parse)),
    }
}

fn store(mut section: Section<'_>, environment: &[(String, String)]) -> Store {
    let path = section.text("path", |text| match text {
        "" => Err("is empty; write a directory, such as \"/var/lib/cachalot\"".to_owned()),
        path => Ok(PathBuf::from(path)),
    });
    let capacity =
        section.measure("capacity", |text| units::quantity(text, &DISK_BYTES_BOUNDS, &CAPACITY_PERCENT_BOUNDS));
    let min_free =
        section.measure("min_free", |text| units::quantity(text, &MIN_FREE_BYTES_BOUNDS, &MIN_FREE_PERCENT_BOUNDS));
    let place = section.value_place("capacity");
    let manifests_place = section.value_place("manifests");
    let store = Store {
        path: path.unwrap_or_else(|| default_path(environment)),
        capacity: capacity.unwrap_or(CAPACITY),
        min_free: min_free.unwrap_or(MIN_FREE),
        memory: section.measure("memory", |text| units::bytes(text, &MEMORY_BYTES_BOUNDS)).unwrap_or(MEMORY_BYTES),
        manifests: section
            .measure("manifests", |text| units::bytes(text, &MANIFESTS_BYTES_BOUNDS))
            .unwrap_or(MANIFESTS_BYTES),
        scrub_rate: section.measure("scrub_rate", |text| units::bytes(text, &SCRUB_RATE_BOUNDS)).unwrap_or(SCRUB_RATE),
    };
    if let Quantity::Bytes(capacity) = store.capacity
        && capacity <= store.manifests
    {
        let (place, key) = if place == Place::Default { (manifests_place, "manifests") } else { (place, "capacity") };
        let [capacity, manifests] = [capacity, store.manifests].map(bytesize::ByteSize);
        let text = format!(
            "capacity ({capacity}) leaves nothing for layers beside manifests ({manifests}); raise the one or lower the other"
        );
        section.report_at(place, key, text);
    }
    store
}

/// Follows the XDG base directory specification, version 0.8: a relative path in the variable is ignored.
fn default_path(environment: &[(String, String)]) -> PathBuf {
    let directory = |name: &str| {
        let value = environment.iter().find(|(variable, _)| variable == name).map(|(_, value)| PathBuf::from(value));
        value.filter(|path| path.is_absolute())
    };
    let cache = directory("XDG_CACHE_HOME").or_else(|| Some(directory("HOME")?.join(".cache")));
    cache.map_or_else(|| PathBuf::from(STORE_PATH), |cache| cache.join("cachalot"))
}

fn clients(mut section: Section<'_>, connections: u32, fills: Fills) -> Clients {
    let rate = section.number("rate", &RATE_BOUNDS).and_then(NonZeroU32::new);
    if rate.is_none() && section.has("burst") {
        section.report("burst", "has no rate beside it; set rate as well".into());
    }
    Clients {
        rate,
        burst: section.number("burst", &RATE_BOUNDS).and_then(NonZeroU32::new),
        connections: section
            .number("connections", &SERVER_CONNECTIONS_BOUNDS)
            .unwrap_or_else(|| (connections / CLIENT_SHARE).max(1)),
        fills: section.number("fills", &FILLS_MAX_BOUNDS).unwrap_or_else(|| (fills.max / CLIENT_FILLS_SHARE).max(1)),
        unfinished: section
            .measure("unfinished", |text| units::bytes(text, &UNFINISHED_BYTES_BOUNDS))
            .unwrap_or(fills.unfinished / u64::from(CLIENT_FILLS_SHARE)),
        trusted_proxies: section.list("trusted_proxies", units::network).unwrap_or_default(),
    }
}

fn freshness(mut section: Section<'_>) -> Freshness {
    upstreams::freshness(&mut section, &FRESHNESS)
}

fn log(mut section: Section<'_>) -> Log {
    Log {
        level: section.text("level", units::log_level).unwrap_or_else(|| LOG_LEVEL.to_owned()),
        format: section.text("format", units::log_format).unwrap_or(LogFormat::Text),
        access: section.switch("access").unwrap_or(true),
    }
}

/// No layer can fail to merge, for each was built of values only; if it does, that is said rather than hidden.
fn unmerged(error: &ConfigError) -> Vec<Problem> {
    vec![Problem { place: Place::Default, key: String::new(), text: error.to_string() }]
}
