//! Turns a request's method, target and host into the question that the client asks, or into a refusal.
//!
//! An upstream is an entry of a closed [`Table`]; the virtual host, the path and `ns` are only keys into it (S-20).
//! Three shapes work at once (P-1), and a virtual host stands in front of each of them:
//!
//! ```text
//! /v2/<repository>/…?ns=<registry>     /v2/<registry>/<repository>/…     /<registry>/v2/<repository>/…
//! ```
//!
//! How the upstream is found, in this order (P-115):
//!
//! | virtual host, `/<registry>/v2/` or `ns` | first component of the path | answer |
//! |---|---|---|
//! | name different upstreams | – | [`Refusal::ConflictingSelectors`] |
//! | name one | names the same | that one; the component is taken off |
//! | name one | is a host in the table, another one | [`Refusal::ConflictingSelectors`] |
//! | name one | anything else, also the short alias of another upstream | that one; the component belongs to the repository |
//! | none | names one | that one; the component is taken off |
//! | none | looks like a host (`.` or `:`), not in the table | [`Refusal::UnknownUpstream`], never the default (P-114) |
//! | none | anything else | the default upstream (P-116), or [`Refusal::NoUpstream`] |
//!
//! The path is split first, each component is percent-decoded once and then validated (P-10): what leaves this module is
//! made of grammatical names, tags and digests only, so `..`, NUL, `\` and their encoded forms end here (S-19).
//!
//! Source: distribution-spec 1.1 "Endpoints"; its unreleased section "Registry proxying" for `ns`.

mod refusal;
mod table;
mod target;

use http::Method;
use url::form_urlencoded;

pub use self::refusal::Refusal;
pub use self::table::{Entry, Table, TableError};
use self::target::{Kind, Shape, Target};
use super::digest::Digest;
use super::name::{RepositoryName, UpstreamName};
use super::reference::{Reference, ReferenceError};

/// Bytes in a request target at the most: room for the longest opaque `last` that upstreams give (S-33, U-24), twice over.
pub const TARGET_LENGTH_MAX: usize = 16 * 1024;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The base endpoint, answered without any upstream (P-16).
    Base,
    Question(Question),
}

/// What a client asks of one repository of one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The upstream's name in the table, never one of its aliases.
    pub upstream: UpstreamName,
    /// `ns` as received, decoded, to be sent back as `OCI-Namespace` (P-113).
    pub namespace: Option<String>,
    pub repository: RepositoryName,
    pub endpoint: Endpoint,
    /// The rest of the query as received, still encoded, without `ns` (P-13, P-96).
    pub query: String,
}

impl Question {
    /// Returns every value of a parameter of the query, decoded, in order.
    pub fn parameters(&self, name: &str) -> Vec<String> {
        form_urlencoded::parse(self.query.as_bytes())
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .collect()
    }
}

/// Which of a repository's things is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Manifest(Reference),
    Blob(Digest),
    Tags,
    Referrers(Digest),
    /// Where uploads of blobs begin.
    Uploads,
    /// One upload under way, by whatever name it was given here.
    Upload(String),
}

/// Finds the question in a request, or the reason why there is none.
///
/// `host` is the `Host` header or `:authority`; it is only compared with the table's virtual hosts, never echoed (S-24).
pub fn route(table: &Table, method: &Method, path_and_query: &str, host: Option<&str>) -> Result<Route, Refusal> {
    if path_and_query.len() > TARGET_LENGTH_MAX {
        return Err(Refusal::UriTooLong);
    }
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    let Target { prefix, shape } = Target::parse(path).ok_or(Refusal::UnknownPath)?;
    let by_path = prefix.map(|name| table.lookup(&name)).transpose()?;
    let (name, kind, last) = match shape {
        Shape::Base if reads(method) => return Ok(Route::Base),
        Shape::Base => return Err(Refusal::MethodNotAllowed),
        Shape::Unknown { first, is_doubled } => {
            let is_mistake = is_doubled && table.find(&first).is_some();
            return Err(if is_mistake { Refusal::DoubledVersion } else { Refusal::UnknownPath });
        }
        Shape::Content { name, kind, last } => (name, kind, last),
    };
    let (namespace, query) = take_namespace(query)?;
    let by_namespace = namespace.as_deref().map(|name| table.lookup(name)).transpose()?;
    let by_host = host.and_then(|host| table.find_host(host));
    let selected = agree([by_host, by_path, by_namespace])?;
    let (entry, rest) = split_prefix(table, selected, &name)?;
    if !allows(entry, kind, &last, method) {
        return Err(Refusal::MethodNotAllowed);
    }
    let repository = repository(entry, rest)?;
    if !entry.allows(&repository) {
        return Err(Refusal::NotAllowed { upstream: entry.name.clone(), repository });
    }
    let endpoint = endpoint(kind, &last)?;
    Ok(Route::Question(Question { upstream: entry.name.clone(), namespace, repository, endpoint, query }))
}

/// P-20: HEAD works wherever GET does.
fn reads(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

/// Returns true when there is such a method. P-148: of writes there is none unless the upstream takes them.
fn allows(entry: &Entry, kind: Kind, last: &str, method: &Method) -> bool {
    match (kind, method) {
        (Kind::Manifest, &Method::PUT | &Method::DELETE) | (Kind::Blob, &Method::DELETE) => entry.push,
        (Kind::Upload, &Method::POST) => entry.push && last.is_empty(),
        (Kind::Upload, &Method::GET | &Method::PATCH | &Method::PUT | &Method::DELETE) => {
            entry.push && !last.is_empty()
        }
        (Kind::Upload, _) => false,
        (Kind::Manifest | Kind::Blob | Kind::Tags | Kind::Referrers, method) => reads(method),
    }
}

/// Takes `ns` out of a query, leaving every other parameter in its own encoding.
fn take_namespace(query: &str) -> Result<(Option<String>, String), Refusal> {
    let mut namespace = None;
    let mut rest = String::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match form_urlencoded::parse(pair.as_bytes()).next() {
            // S-21: two of them are refused even when they agree, for the next server might read the other one.
            Some((key, _)) if key == "ns" && namespace.is_some() => return Err(Refusal::DuplicateNamespace),
            Some((key, value)) if key == "ns" => namespace = Some(value.into_owned()),
            _ => {
                if !rest.is_empty() {
                    rest.push('&');
                }
                rest.push_str(pair);
            }
        }
    }
    Ok((namespace, rest))
}

/// Returns the one upstream that the selectors name, if any does (P-115).
fn agree(selectors: [Option<&Entry>; 3]) -> Result<Option<&Entry>, Refusal> {
    let mut named = selectors.into_iter().flatten();
    let Some(first) = named.next() else { return Ok(None) };
    match named.find(|other| other.name != first.name) {
        Some(second) => Err(conflict(first, second)),
        None => Ok(Some(first)),
    }
}

/// Finds the upstream and takes its name off the front of the path; the module's table says when.
fn split_prefix<'t, 'n>(
    table: &'t Table,
    selected: Option<&'t Entry>,
    name: &'n str,
) -> Result<(&'t Entry, &'n str), Refusal> {
    let default = || table.default_upstream().ok_or(Refusal::NoUpstream);
    // A lone component is a repository, not a registry: nothing would be left to ask for.
    let Some((first, rest)) = name.split_once('/') else {
        return Ok((selected.map_or_else(default, Ok)?, name));
    };
    match (selected, table.find(first)) {
        (Some(selected), Some(named)) if selected.name != named.name => {
            // `hub/app` may well be a repository of ghcr.io although `hub` is an alias of docker.io; `quay.io/app` is not.
            if is_host_like(first) { Err(conflict(selected, named)) } else { Ok((selected, name)) }
        }
        // C-23: a mirror URL that ends in `/v2/<registry>`, without `override_path`, has `/v2/` appended.
        (_, Some(_)) if rest == "v2" || rest.starts_with("v2/") => Err(Refusal::DoubledVersion),
        (_, Some(named)) => Ok((named, rest)),
        (Some(selected), None) => Ok((selected, name)),
        (None, None) if is_host_like(first) => Err(Refusal::unknown_upstream(first)),
        (None, None) => Ok((default()?, name)),
    }
}

/// Returns true for what a client means as a registry when it stands first in a reference.
fn is_host_like(component: &str) -> bool {
    component.contains(['.', ':'])
}

fn conflict(first: &Entry, second: &Entry) -> Refusal {
    Refusal::ConflictingSelectors { first: first.name.clone(), second: second.name.clone() }
}

fn repository(entry: &Entry, name: &str) -> Result<RepositoryName, Refusal> {
    let repository: RepositoryName = name.parse().map_err(Refusal::NameInvalid)?;
    if !entry.library || !repository.is_single_component() {
        return Ok(repository);
    }
    // P-117: official images live under `library/`; clients that name the registry in the path leave it out.
    format!("library/{repository}").parse().map_err(Refusal::NameInvalid)
}

/// Returns the repository of `upstream` that a client means by `from` when it wants to mount a blob: by the name that it knows it by
/// here, and only within the same upstream (P-154).
pub fn mount_source(table: &Table, upstream: &UpstreamName, from: &str) -> Option<RepositoryName> {
    let own = table.find(upstream.as_str())?;
    let source = match from.split_once('/') {
        Some((first, rest)) => match table.find(first) {
            Some(named) if named.name == *upstream => repository(own, rest).ok(),
            // `hub/app` may be a repository of its own.
            Some(_) | None if is_host_like(first) => None,
            Some(_) | None => repository(own, from).ok(),
        },
        None => repository(own, from).ok(),
    };
    source.filter(|source| own.allows(source))
}

fn endpoint(kind: Kind, last: &str) -> Result<Endpoint, Refusal> {
    match kind {
        Kind::Manifest => last.parse().map(Endpoint::Manifest).map_err(|error| match error {
            ReferenceError::Tag => Refusal::TagInvalid,
            ReferenceError::Digest(error) => Refusal::DigestInvalid(error),
        }),
        Kind::Blob => last.parse().map(Endpoint::Blob).map_err(Refusal::DigestInvalid),
        Kind::Referrers => last.parse().map(Endpoint::Referrers).map_err(Refusal::DigestInvalid),
        Kind::Tags => Ok(Endpoint::Tags),
        Kind::Upload if last.is_empty() => Ok(Endpoint::Uploads),
        Kind::Upload => Ok(Endpoint::Upload(last.to_owned())),
    }
}

#[cfg(test)]
mod tests;
