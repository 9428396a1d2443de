//! Which files are wanted, and what is in each: pure text out of the operator's wish.

use std::path::{Path, PathBuf};

use super::plan::Content;
use crate::oci::UpstreamName;
use crate::snippets::containerd::{DEFAULT_DIRECTORY, HostsToml, directory_of};
use crate::snippets::containers::DROP_IN;
use crate::snippets::{Fallback, Wish};

/// What stands in every file of ours.
pub(super) const MARK: &str = "managed by cachalot node-config";

/// The first line of a file that is ours as a whole.
pub(super) fn header() -> String {
    format!("# {MARK}, release {}: it is written again when it changes\n", env!("CARGO_PKG_VERSION"))
}

/// One `hosts.toml`.
#[derive(Debug, Clone)]
pub(super) struct HostsFile {
    /// Names of the directory, in the order in which containerd looks.
    pub directories: Vec<String>,
    pub content: Content,
}

/// Returns the files for containerd. With `_default`, excluded registries need one that leads past the cache.
pub(super) fn hosts_files(wish: &Wish, excluded: &[UpstreamName]) -> Vec<HostsFile> {
    let has_fallback = wish.fallback == Fallback::Origin;
    let file = |registry: Option<&UpstreamName>| {
        let toml = HostsToml::new(registry, wish);
        let part = has_fallback
            .then(|| format!("# {MARK}, release {}: begin\n{}# {MARK}: end\n\n", env!("CARGO_PKG_VERSION"), toml.host));
        HostsFile {
            directories: directories_of(registry),
            content: content(toml, part, has_fallback, wish.token.is_some()),
        }
    };
    let direct = |registry| {
        let content = content(HostsToml::direct(registry), None, true, false);
        HostsFile { directories: directories_of(Some(registry)), content }
    };
    let mut files: Vec<HostsFile> = wish.registries.iter().map(Some).map(file).collect();
    if wish.with_default {
        files.extend(excluded.iter().map(direct));
        files.push(file(None));
    }
    files
}

fn directories_of(registry: Option<&UpstreamName>) -> Vec<String> {
    match registry {
        None => vec![DEFAULT_DIRECTORY.to_owned()],
        Some(registry) if registry.as_str().contains(':') => vec![directory_of(registry), registry.to_string()],
        Some(registry) => vec![directory_of(registry)],
    }
}

fn content(toml: HostsToml, part: Option<String>, leads_to_registry: bool, is_secret: bool) -> Content {
    Content::Hosts { header: header(), server: toml.server, host: toml.host, part, leads_to_registry, is_secret }
}

/// Returns the path of a `hosts.toml`.
pub(super) fn hosts_path(certs_dir: &Path, directory: &str) -> PathBuf {
    certs_dir.join(directory).join("hosts.toml")
}

/// Returns the path of the drop-in.
pub(super) fn drop_in_path(registries_dir: &Path) -> PathBuf {
    registries_dir.join(DROP_IN)
}

/// Returns the drop-in, `tables` being its registries.
pub(super) fn drop_in(tables: &str) -> Content {
    Content::Whole(format!("{}{tables}", header()))
}
