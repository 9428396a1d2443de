//! Why nothing is written, in words that say what to do instead.

use std::path::PathBuf;

use super::flavour::Flavour;
use crate::snippets::Client;

/// Why this node's configuration is left alone. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "this is {}, which writes containerd's configuration itself and would overwrite ours; nothing was changed. \
         Tell it so instead:\n\n{snippet}",
        flavour.name()
    )]
    Flavour { flavour: Flavour, snippet: String },
    #[error(
        "this is {}, which writes containerd's configuration itself, and {client} cannot do what is wanted: {why}; \
         nothing was changed", flavour.name()
    )]
    FlavourCannot { flavour: Flavour, client: Client, why: String },
    #[error(
        "there is no containerd here: no {}, no socket, no {}; nothing was changed. In a container, mount them below --host-root; \
         for CRI-O, say --runtime crio",
        config.display(), certs_dir.display()
    )]
    NoContainerd { config: PathBuf, certs_dir: PathBuf },
    #[error(
        "there is no CRI-O here: no /etc/crio, no socket, no {}; nothing was changed. In a container, mount them below --host-root",
        registries_dir.display()
    )]
    NoCrio { registries_dir: PathBuf },
    #[error(
        "containerd looks for no hosts: its configuration sets no config_path; nothing was changed. Add this to {}, and \
         restart containerd once:\n\n{advice}",
        config.display()
    )]
    NoConfigPath { config: PathBuf, advice: String },
    #[error(
        "containerd looks for no hosts: its configuration has mirrors of its own, which exclude config_path; nothing was changed. \
         Move them to files of config_path, replace them by this in {}, and restart containerd once:\n\n{advice}",
        config.display()
    )]
    Mirrors { config: PathBuf, advice: String },
    #[error(
        "containerd does not look into {}: {} has config_path = \"{}\"; nothing was changed. Say --certs-dir with one of these",
        certs_dir.display(), config.display(), joined(paths)
    )]
    OtherPath { config: PathBuf, paths: Vec<PathBuf>, certs_dir: PathBuf },
    #[error("{} is {what}, and a credential of ours belongs there; nothing was changed. Move it away", path.display())]
    Taken { path: PathBuf, what: &'static str },
    #[error("{} cannot be read: {why}; nothing was changed", path.display())]
    Unreadable { path: PathBuf, why: String },
    #[error(
        "{} cannot be written: {why}; nothing was changed. It takes root, and a file system that is not read-only; in a container, what is \
         written to, or was by an earlier agent, has to be mounted below --host-root",
        path.display()
    )]
    Unwritable { path: PathBuf, why: String },
    #[error(
        "{} cannot be understood: {why}; nothing was changed. If a newer release wrote it, run that one. If it is damaged, move {} \
         away: files that are ours say so, what was in their place is in saved there",
        path.display(), state_dir.display()
    )]
    State { state_dir: PathBuf, path: PathBuf, why: String },
    #[error(
        "another cachalot node-config is at work in {}; nothing was changed. A watch puts back what others remove, and removes what \
         they write: stop it first",
        state_dir.display()
    )]
    Held { state_dir: PathBuf },
}

fn joined(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
    paths.join(":")
}
