//! The node's agent: tells the container runtime of this machine to pull through the cache, and takes that back without a trace.
//!
//! ```text
//!              the cache answers                            nobody answers for a while
//!  nothing ───────────────────────► applied ◄──────────────────────────────────────────► withdrawn
//!     ▲                                │              the cache answers again                │
//!     └────────────────────────────────┴───────────────── remove ────────────────────────────┘
//! ```
//!
//! One run looks at what is there, plans, and does the steps; run again it finds nothing to do. It touches files of its own only, and
//! those of others only as far as the operator says ([`Merge`]); it restarts nothing and writes to no configuration of a runtime.
//!
//! | file | idea |
//! |---|---|
//! | `flavour`, `containerd`, `refusal` | whether this node will read what is written, and what to do where it will not |
//! | `targets`, `registries`, `merge` | which files are wanted, with what in them |
//! | `plan` | the decision table: what is there, what was written down, what is wanted → steps |
//! | `state`, `disk`, `root` | what was done, the steps themselves, links that stay on the node |
//! | `credentials`, `agent` | what the cache is shown, from files that others renew |
//! | `probe`, `watch` | whether the cache answers, and what follows from that over time |
//!
//! # Invariants
//!
//! * Nothing is written before the cache has answered.
//! * The state says what is about to be, before it is. After a kill at any step, `remove` brings back every original byte.
//! * A file of ours that somebody has changed is theirs.
//! * One process changes this node's files: who comes while a watch runs is refused, since the watch would undo what it does.

mod agent;
mod containerd;
mod credentials;
mod disk;
mod flavour;
mod merge;
mod merge_policy;
mod plan;
mod probe;
mod refusal;
mod registries;
mod report;
mod root;
mod state;
mod targets;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use agent::{Agent, AgentError};
pub use containerd::Binary;
pub use credentials::{Copies, Credentials, CredentialsError, Files, Installed};
pub use disk::DiskError;
pub use flavour::Flavour;
pub use merge_policy::Merge;
pub use probe::{Asking, Probe, ProbeError};
pub use refusal::Refusal;
pub use report::{Change, Kept, Report};
pub use root::Root;
pub use watch::{Event, Patience, watch};

use disk::{Disk, Lock};
use plan::{Found, Item, Plan, Step};
use registries::Foreign;
use state::digest;
use targets::MARK;

use crate::oci::UpstreamName;
use crate::snippets::{self, Wish};

/// Who pulls on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    Containerd,
    Crio,
}

/// What the operator wants, and where. Paths are the node's own.
#[derive(Debug, Clone)]
pub struct Options {
    pub root: Root,
    pub runtimes: Vec<Runtime>,
    /// `None` is found out.
    pub flavour: Option<Flavour>,
    /// Without the excluded registries.
    pub wish: Wish,
    /// What the node gets besides, and containerd's files name.
    pub installed: Installed,
    /// Registries that are never to go through the cache: the one of its own image.
    pub excluded: Vec<UpstreamName>,
    pub merge: Merge,
    /// `None` is where the flavour has it.
    pub certs_dir: Option<PathBuf>,
    pub registries_dir: PathBuf,
    pub state_dir: PathBuf,
    pub binary: Binary,
}

/// Why a run did not end well.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Whether a file of ours is as we wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileStatus {
    Applied,
    Changed,
    Missing,
}

/// Brings the node's files to what is wanted. Run again, it changes nothing.
///
/// # Errors
/// A [`Refusal`] before anything was changed; what a step met otherwise. What was done until then is written down.
pub fn apply(options: &Options) -> Result<Report, NodeError> {
    apply_holding(options, &mut None)
}

/// As [`apply`]; what is held is held on.
fn apply_holding(options: &Options, held: &mut Option<Lock>) -> Result<Report, NodeError> {
    let mut warnings = Vec::new();
    let mut items = Vec::new();
    let mut kept = Vec::new();
    let disk = disk(&options.root, &options.state_dir)?;
    disk.lock(held)?;
    for runtime in &options.runtimes {
        match runtime {
            Runtime::Containerd => items.extend(containerd_items(options, &disk, &mut warnings)?),
            Runtime::Crio => items.extend(crio_item(options, &disk, &mut kept)?),
        }
    }
    let mut report = carry_out(&disk, items, options.merge)?;
    report.kept.splice(0..0, kept);
    report.warnings.splice(0..0, warnings);
    Ok(report)
}

/// Takes back everything that [`apply`] did on this node, with whatever options.
///
/// # Errors
/// What a step met. What was done until then is written down.
pub fn remove(root: &Root, state_dir: &Path) -> Result<Report, NodeError> {
    remove_holding(root, state_dir, &mut None)
}

/// As [`remove`]; what is held is held on.
fn remove_holding(root: &Root, state_dir: &Path, held: &mut Option<Lock>) -> Result<Report, NodeError> {
    let disk = disk(root, state_dir)?;
    disk.lock(held)?;
    carry_out(&disk, Vec::new(), Merge::Keep)
}

/// Returns the files of ours, and how they are.
///
/// # Errors
/// When the state or one of them cannot be read.
pub fn status(root: &Root, state_dir: &Path) -> Result<Vec<(PathBuf, FileStatus)>, NodeError> {
    let disk = disk(root, state_dir)?;
    let mut files = Vec::new();
    for (path, entry) in disk.state()?.files {
        let status = match disk.find(&path)? {
            Found::File { bytes, .. } if entry.written.contains(&digest(&bytes)) => FileStatus::Applied,
            Found::File { .. } | Found::Other(_) => FileStatus::Changed,
            Found::Nothing => FileStatus::Missing,
        };
        files.push((path, status));
    }
    Ok(files)
}

/// Returns what [`apply`] would write on a node on which nothing is: path and text.
pub fn files(options: &Options) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for runtime in &options.runtimes {
        match runtime {
            Runtime::Containerd => {
                let flavour = options.flavour.unwrap_or(Flavour::Generic);
                let certs_dir = options.certs_dir.clone().unwrap_or_else(|| flavour.certs_dir().into());
                for file in targets::hosts_files(&options.wish, &options.excluded) {
                    let path = targets::hosts_path(&certs_dir, file.directories.first().map_or("", String::as_str));
                    files.push((path, file.content.whole(&[])));
                }
            }
            Runtime::Crio => {
                let (tables, _) = registries::compose(&options.wish, &[], options.merge);
                let content = targets::drop_in(&tables);
                files.push((targets::drop_in_path(&options.registries_dir), content.whole(&[])));
            }
        }
    }
    files
}

fn disk(root: &Root, state_dir: &Path) -> Result<Disk, Refusal> {
    Ok(Disk::new(root.clone(), resolve(root, state_dir)?))
}

fn resolve(root: &Root, path: &Path) -> Result<PathBuf, Refusal> {
    root.resolve(path).map_err(|error| Refusal::Unreadable { path: path.to_owned(), why: error.to_string() })
}

fn containerd_items(options: &Options, disk: &Disk, warnings: &mut Vec<String>) -> Result<Vec<Item>, NodeError> {
    let root = &options.root;
    let flavour = options.flavour.unwrap_or_else(|| Flavour::detect(root));
    if let Some(client) = flavour.advice() {
        return Err(match snippets::render(client, &options.wish) {
            Ok(snippet) => Refusal::Flavour { flavour, snippet: snippet.text },
            Err(error) => Refusal::FlavourCannot { flavour, client, why: error.to_string() },
        }
        .into());
    }
    let certs_dir = resolve(root, &options.certs_dir.clone().unwrap_or_else(|| flavour.certs_dir().into()))?;
    let reads = containerd::check(root, flavour, &certs_dir, &options.binary)?;
    warnings.extend(reads.warning);
    // Before the files that name them.
    let mut items = installed_items(&options.installed, disk, &certs_dir)?;
    let wish = targets::naming_installed(&options.wish, &options.installed, &certs_dir);
    for file in targets::hosts_files(&wish, &options.excluded) {
        let is_there = |directory: &Path, name: &String| root.here(&directory.join(name)).exists();
        let used = file.directories.iter().find(|name| is_there(&certs_dir, name)).or(file.directories.first());
        let path = targets::hosts_path(&certs_dir, used.map_or("", String::as_str));
        let mut item = item(disk, &path)?;
        let names = || file.directories.iter().map(String::as_str).chain([snippets::containerd::DEFAULT_DIRECTORY]);
        let shadows = reads.earlier.iter().flat_map(|earlier| names().map(|name| earlier.join(name)));
        item.shadow = shadows.into_iter().find(|shadow| root.here(shadow).exists());
        if !matches!(item.found, Found::Other(_)) {
            item.certificates = certificates(root, &path)?;
        }
        item.wanted = Some(file.content);
        items.push(item);
    }
    Ok(items)
}

fn installed_items(installed: &Installed, disk: &Disk, certs_dir: &Path) -> Result<Vec<Item>, NodeError> {
    let mut items = Vec::new();
    for (path, content) in targets::installed_files(installed, certs_dir) {
        let mut item = item(disk, &path)?;
        if let Found::Other(what) = item.found {
            // What names it would make every pull fail.
            return Err(Refusal::Taken { path, what }.into());
        }
        item.wanted = Some(content);
        items.push(item);
    }
    Ok(items)
}

fn crio_item(options: &Options, disk: &Disk, kept: &mut Vec<Kept>) -> Result<Option<Item>, NodeError> {
    let root = &options.root;
    let registries_dir = resolve(root, &options.registries_dir)?;
    let marks = ["/etc/crio", "/run/crio/crio.sock", "/var/run/crio/crio.sock"];
    if !marks.iter().any(|mark| root.exists(mark)) && !root.here(&registries_dir).exists() {
        return Err(Refusal::NoCrio { registries_dir }.into());
    }
    let path = targets::drop_in_path(&registries_dir);
    let unreadable = |path: &Path, why: String| Refusal::Unreadable { path: path.to_owned(), why };
    let mut files = vec![registries_dir.with_extension("")];
    let list = root.list(&registries_dir, ".conf").map_err(|error| unreadable(&registries_dir, error.to_string()))?;
    files.extend(list.into_iter().filter(|file| *file != path));
    let mut foreign = Vec::new();
    for file in files {
        let text = root.read(&file).map_err(|error| unreadable(&file, error.to_string()))?.unwrap_or_default();
        foreign.extend(Foreign::all_of(&file, &text).map_err(|error| unreadable(&file, error.message().to_owned()))?);
    }
    let (tables, left_out) = registries::compose(&options.wish, &foreign, options.merge);
    kept.extend(left_out);
    let mut item = item(disk, &path)?;
    item.wanted = (!tables.is_empty()).then(|| targets::drop_in(&tables));
    Ok(Some(item))
}

/// Returns what is at a path, for nothing that is wanted yet.
fn item(disk: &Disk, path: &Path) -> Result<Item, DiskError> {
    Ok(Item {
        path: path.to_owned(),
        wanted: None,
        found: disk.find(path)?,
        saved: None,
        missing: disk.missing_above(path),
        certificates: Vec::new(),
        shadow: None,
    })
}

/// Returns the names of the certificates beside a `hosts.toml`.
fn certificates(root: &Root, path: &Path) -> Result<Vec<String>, Refusal> {
    let directory = path.parent().unwrap_or(path);
    let mut names = Vec::new();
    for ending in [".crt", ".cert", ".key"] {
        let unreadable =
            |error: std::io::Error| Refusal::Unreadable { path: directory.to_owned(), why: error.to_string() };
        let paths = root.list(directory, ending).map_err(unreadable)?;
        names.extend(paths.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())));
    }
    Ok(names)
}

/// Plans for these items and for every file of ours that is not among them.
fn plan_for(disk: &Disk, mut items: Vec<Item>, merge: Merge) -> Result<Plan, NodeError> {
    let state = disk.state()?;
    let wanted: BTreeSet<PathBuf> = items.iter().map(|item| item.path.clone()).collect();
    let (installed, others): (Vec<_>, Vec<_>) =
        state.files.keys().filter(|path| !wanted.contains(*path)).partition(|path| targets::is_installed(path));
    // What a file names goes after the file: containerd fails a pull over a certificate that is not there.
    for path in others.into_iter().chain(installed) {
        items.push(item(disk, path)?);
    }
    for item in &mut items {
        let saved = state.files.get(&item.path).and_then(|entry| entry.saved.as_ref());
        item.saved = saved.map(|saved| disk.saved(&saved.digest)).transpose()?.flatten();
    }
    Ok(plan::plan(&state, &items, merge, &disk.shelf()?))
}

fn carry_out(disk: &Disk, items: Vec<Item>, merge: Merge) -> Result<Report, NodeError> {
    let plan = plan_for(disk, items, merge)?;
    check_writable(disk, &plan.steps)?;
    for step in &plan.steps {
        disk.run(step)?;
    }
    let mut report = plan.report;
    report.warnings.extend(reload_advice(&report.changes));
    report.warnings.extend(disk.state()?.orphans.iter().map(|orphan| disk.orphan_advice(orphan)));
    Ok(report)
}

/// Refuses before the first step what would fail at a later one.
fn check_writable(disk: &Disk, steps: &[Step]) -> Result<(), Refusal> {
    for step in steps {
        let directory = match step {
            // A sweep is of a file that is to be gone: where nobody may write, it is not gone but out of sight.
            Step::Write { path, .. } | Step::Delete(path) | Step::MakeDirectory(path) | Step::Sweep(path) => {
                path.parent().unwrap_or(path).to_owned()
            }
            Step::Record(_) | Step::Save(_) => disk.state_dir().to_owned(),
            // Directories stay where they cannot be removed.
            Step::RemoveDirectory(_) | Step::DropSaved(_) | Step::Forget(_) => continue,
        };
        if let Some(error) = disk.why_unwritable(&directory) {
            return Err(Refusal::Unwritable { path: directory, why: error.to_string() });
        }
    }
    Ok(())
}

/// containerd reads its files for each pull; CRI-O has to be told.
fn reload_advice(changes: &[Change]) -> Option<String> {
    let is_drop_in = |change: &&Change| change.path().ends_with(snippets::containers::DROP_IN);
    changes.iter().find(is_drop_in).map(|_| "CRI-O reads this when it is reloaded: systemctl reload crio".to_owned())
}
