//! Which files are wanted, and what is in each: pure text out of the operator's wish.

use std::path::{Path, PathBuf};

use super::credentials::Installed;
use super::plan::Content;
use crate::oci::UpstreamName;
use crate::snippets::containerd::{DEFAULT_DIRECTORY, HostsToml, directory_of};
use crate::snippets::containers::DROP_IN;
use crate::snippets::{Certificate, Fallback, Wish};
use crate::telemetry::Secret;

/// What stands in every file of ours.
pub(super) const MARK: &str = "managed by cachalot node-config";

/// The directory of what is installed, beside those of the registries: no registry can be called so, and whoever reads these reads it.
const INSTALLED_DIRECTORY: &str = "_cachalot";

/// The authorities of the cache.
const CA: &str = "ca.pem";

/// The certificate that the cache is shown, and its key.
const CLIENT: &str = "client.pem";

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

/// Returns what is installed on the node, and where.
pub(super) fn installed_files(installed: &Installed, certs_dir: &Path) -> Vec<(PathBuf, Content)> {
    let file = |name: &str, text: &Secret, is_secret| {
        let text = Secret::new(format!("{}{}\n", header(), text.expose().trim_end()));
        (installed_path(certs_dir, name), Content::Installed { text, is_secret })
    };
    let ca = installed.ca.iter().map(|text| file(CA, text, false));
    let certificate = installed.certificate.iter().map(|text| file(CLIENT, text, true));
    ca.chain(certificate).collect()
}

/// Returns the wish with what is installed named in it.
pub(super) fn naming_installed(wish: &Wish, installed: &Installed, certs_dir: &Path) -> Wish {
    let path = |name: &str| installed_path(certs_dir, name).to_string_lossy().into_owned();
    let mut wish = wish.clone();
    if installed.ca.is_some() {
        wish.ca = Some(path(CA));
    }
    if installed.certificate.is_some() {
        wish.certificate = Some(Certificate { cert: path(CLIENT), key: path(CLIENT) });
    }
    wish
}

/// Whether a file is one that others of ours name.
pub(super) fn is_installed(path: &Path) -> bool {
    path.parent().is_some_and(|directory| directory.ends_with(INSTALLED_DIRECTORY))
}

fn installed_path(certs_dir: &Path, name: &str) -> PathBuf {
    certs_dir.join(INSTALLED_DIRECTORY).join(name)
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
