//! The drop-in that podman, buildah, skopeo and CRI-O read.

use super::proof::install_commands;
use super::{Fallback, Snippet, Wish, quoted};
use crate::oci::UpstreamName;

/// Where drop-ins are looked for.
pub const REGISTRIES_DIR: &str = "/etc/containers/registries.conf.d";

/// Where certificates are looked for, by the name of the host that asks for them.
pub const CERTS_DIR: &str = "/etc/containers/certs.d";

/// The name of ours. Of two files that name the same registry the later in the alphabet wins.
pub const DROP_IN: &str = "50-cachalot.conf";

/// Returns the tables for one registry.
pub fn registry_tables(registry: &UpstreamName, wish: &Wish) -> String {
    let name = quoted(registry.as_str());
    match wish.fallback {
        Fallback::Origin => {
            format!(
                "[[registry]]\nprefix = {name}\nlocation = {name}\n\n[[registry.mirror]]\n{}",
                mirror(registry, wish)
            )
        }
        // The cache in the place of the registry: a mirror would leave the registry as the last resort.
        Fallback::None => format!("[[registry]]\nprefix = {name}\n{}", location(registry, wish)),
    }
}

/// Returns the keys of the table of a mirror.
pub fn mirror(registry: &UpstreamName, wish: &Wish) -> String {
    let digests = if wish.resolves { "" } else { "pull-from-mirror = \"digest-only\"\n" };
    format!("{}{digests}", location(registry, wish))
}

fn location(registry: &UpstreamName, wish: &Wish) -> String {
    let insecure = if wish.endpoint.is_https() { "" } else { "insecure = true\n" };
    format!("location = {}\n{insecure}", quoted(&format!("{}/{registry}", wish.endpoint.authority())))
}

/// Returns the whole drop-in.
pub fn drop_in(wish: &Wish) -> String {
    let tables: Vec<String> = wish.registries.iter().map(|registry| registry_tables(registry, wish)).collect();
    tables.join("\n")
}

pub(super) fn file(wish: &Wish, rereads: &str) -> Snippet {
    let mut comments = format!("# {REGISTRIES_DIR}/{DROP_IN}; {rereads}\n");
    if let Some(certificate) = &wish.certificate {
        // It is found by the name of the cache, and cannot be named here.
        let commands = install_commands(certificate, CERTS_DIR, wish);
        comments.extend(commands.map(|command| format!("# {command}\n")));
    }
    Snippet { text: comments + &drop_in(wish), notes: Vec::new() }
}
