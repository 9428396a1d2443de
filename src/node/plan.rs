//! What is to be done, out of what is there, what we had written down, and what is wanted. Pure.
//!
//! For each file, `base` is what would be there without us:
//!
//! | written down | found | base | so |
//! |---|---|---|---|
//! | no | nothing | nothing | |
//! | no | what we would write | nothing | ours: its state was lost, or it came with the machine |
//! | no | a file | that file | |
//! | yes | what we wrote | what was saved, or nothing | |
//! | yes | what was saved | that file | we were killed before the change |
//! | yes | nothing | what was saved, or nothing | somebody removed it, or we were killed before the change |
//! | yes | theirs, changed, with our part in it | that file without our part | |
//! | yes | something else | that file | somebody took it over; what was saved stays put away |
//!
//! | wanted | base nothing | base a file, keep | prepend | replace |
//! |---|---|---|---|---|
//! | yes | write | back to base | base with our part | ours, base saved |
//! | no | remove | back to base | back to base | back to base |
//!
//! The order of the steps is what survives a kill: saved files first, then the state with everything that is about to be, then the
//! changes, then the state as it is.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::merge::{cut, prepend};
use super::merge_policy::Merge;
use super::report::{Change, Kept, Report};
use super::state::{Attributes, Entry, Saved, State, digest};
use crate::telemetry::Secret;

/// What is to be in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A `hosts.toml`.
    Hosts {
        header: String,
        server: String,
        host: String,
        /// What goes into a file of somebody else's; none where that would not do what is wanted.
        part: Option<String>,
        /// Whether `server` is the registry, whose certificates may lie beside the file.
        leads_to_registry: bool,
        /// Whether a token is in it, which nobody but root may read.
        is_secret: bool,
    },
    /// A file of which only the whole makes sense.
    Whole(String),
    /// A credential, which goes with what names it: whatever is in its place is put away.
    Installed {
        text: Secret,
        /// Whether a key is in it, which nobody but root may read.
        is_secret: bool,
    },
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    File {
        bytes: Vec<u8>,
        attributes: Attributes,
    },
    /// A link, a directory and so on; or something is in its directory's place.
    Other(&'static str),
}

/// One path, as it is wanted and as it is.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub path: PathBuf,
    /// `None` where there is to be nothing of ours.
    pub wanted: Option<Content>,
    pub found: Found,
    /// What has been saved of it, by the state.
    pub saved: Option<Vec<u8>>,
    /// Directories above it that are not there, outermost first.
    pub missing: Vec<PathBuf>,
    /// Names of the certificates beside it, which containerd reads only where there is no `hosts.toml`.
    pub certificates: Vec<String>,
    /// Something that containerd finds first.
    pub shadow: Option<PathBuf>,
}

/// One change on disk. Done twice it does no more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Keeps somebody else's bytes under their digest.
    Save(Vec<u8>),
    Record(State),
    MakeDirectory(PathBuf),
    Write {
        path: PathBuf,
        bytes: Vec<u8>,
        attributes: Attributes,
    },
    /// Removes a file, and what a killed write left beside it.
    Delete(PathBuf),
    /// Removes what a killed write left beside a file.
    Sweep(PathBuf),
    /// Unless there is something in it.
    RemoveDirectory(PathBuf),
    DropSaved(String),
    /// The state goes, and the directories that were made for it.
    Forget(BTreeSet<PathBuf>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    pub report: Report,
}

/// What is decided about one file.
enum Decision {
    /// Ours, with what was there before.
    Put(Put),
    /// Nothing of ours, whatever is there. What was saved is put away for good where its place is taken.
    Leave,
    BackTo(Option<Theirs>),
}

/// A file of somebody else's.
type Theirs = (Vec<u8>, Attributes);

/// Our bytes, with what was there before.
struct Put {
    bytes: Vec<u8>,
    base: Option<Theirs>,
    inserted: Option<String>,
    is_secret: bool,
}

/// What is where the state is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    /// Directories that are not there, outermost first.
    pub missing: Vec<PathBuf>,
    /// Digests of the files that lie saved.
    pub stored: Vec<String>,
    /// Whether a killed write has left something.
    pub has_leftover: bool,
}

/// Plans for all items.
pub(super) fn plan(state: &State, items: &[Item], merge: Merge, shelf: &Shelf) -> Plan {
    let mut draft = Draft { next: state.clone(), interim: state.clone(), ..Draft::default() };
    for item in items {
        draft.add(item, state.files.get(&item.path), merge);
    }
    draft.finish(state, shelf)
}

#[derive(Default)]
struct Draft {
    next: State,
    interim: State,
    saves: Vec<Step>,
    changes: Vec<Step>,
    report: Report,
}

impl Draft {
    fn add(&mut self, item: &Item, entry: Option<&Entry>, merge: Merge) {
        let base = base(item, entry);
        let decision = match (&base, &item.wanted) {
            (Err(why), wanted) => {
                if wanted.is_some() || entry.is_some() {
                    self.keep(item, why.clone());
                }
                Decision::Leave
            }
            (Ok(_), Some(_)) if item.shadow.is_some() => {
                let shadow = item.shadow.clone().unwrap_or_default();
                let why = "containerd finds it before ours, and asks no further".into();
                self.report.kept.push(Kept { path: shadow, why });
                Decision::BackTo(base.ok().flatten())
            }
            (Ok(base), None) => Decision::BackTo(base.clone()),
            (Ok(base), Some(content)) => match put(content, base.clone(), &item.certificates, merge) {
                Ok(decision) => decision,
                Err(why) => {
                    self.keep(item, why);
                    Decision::BackTo(base.clone())
                }
            },
        };
        match decision {
            Decision::Put(put) => self.put(item, entry, put),
            Decision::BackTo(base) => self.back(item, entry, base),
            Decision::Leave => self.release(item, entry),
        }
    }

    fn keep(&mut self, item: &Item, why: String) {
        self.report.kept.push(Kept { path: item.path.clone(), why });
    }

    fn put(&mut self, item: &Item, entry: Option<&Entry>, put: Put) {
        let Put { bytes, base, inserted, is_secret } = put;
        let path = &item.path;
        let attributes = match &base {
            _ if is_secret => Attributes::SECRET,
            Some((_, attributes)) => *attributes,
            None => Attributes::OURS,
        };
        let saved = base.as_ref().map(|(bytes, attributes)| Saved { digest: digest(bytes), attributes: *attributes });
        let is_there = matches!(
            &item.found,
            Found::File { bytes: found, attributes } if *found == bytes && !(is_secret && attributes.is_open())
        );
        let new = Entry { written: vec![digest(&bytes)], saved, inserted: inserted.into_iter().collect() };
        if is_there && entry == Some(&new) {
            return;
        }
        let mut both = new.clone();
        both.written.extend(entry.into_iter().flat_map(|entry| entry.written.clone()));
        both.inserted.extend(entry.into_iter().flat_map(|entry| entry.inserted.clone()));
        self.interim.files.insert(path.clone(), both);
        self.next.files.insert(path.clone(), new.clone());
        if let Some((base, _)) = base {
            self.saves.push(Step::Save(base));
        }
        if is_there {
            return;
        }
        for directory in &item.missing {
            self.next.directories.insert(directory.clone());
            self.interim.directories.insert(directory.clone());
            self.changes.push(Step::MakeDirectory(directory.clone()));
        }
        let change = match (&new.saved, new.inserted.is_empty()) {
            (Some(_), false) => Change::Merged(path.clone()),
            (Some(_), true) => Change::Replaced(path.clone()),
            (None, _) => Change::Written(path.clone()),
        };
        self.changes.push(Step::Write { path: path.clone(), bytes, attributes });
        self.report.changes.push(change);
    }

    /// Puts back what would be there without us.
    fn back(&mut self, item: &Item, entry: Option<&Entry>, base: Option<Theirs>) {
        let path = &item.path;
        let Some(entry) = entry else { return };
        self.next.files.remove(path);
        match (base, &item.found) {
            (Some((base, _)), Found::File { bytes, .. }) if base == *bytes => {
                // Theirs already: they have changed it since, unless it is what was saved.
                let is_the_original = entry.saved.as_ref().is_some_and(|saved| saved.digest == digest(&base));
                if item.wanted.is_none() && !is_the_original {
                    self.keep(item, "somebody has changed it since we wrote it".into());
                }
                self.orphan(entry, Some(&base));
                self.changes.push(Step::Sweep(path.clone()));
            }
            (Some((bytes, attributes)), _) => {
                if let Some(interim) = self.interim.files.get_mut(path) {
                    // What comes back may be newer than what was saved. After a kill it is known by this.
                    interim.saved = Some(Saved { digest: digest(&bytes), attributes });
                }
                self.changes.extend(item.missing.iter().cloned().map(Step::MakeDirectory));
                self.changes.push(Step::Write { path: path.clone(), bytes, attributes });
                self.report.changes.push(Change::Restored(path.clone()));
            }
            (None, Found::File { .. }) => {
                self.changes.push(Step::Delete(path.clone()));
                self.report.changes.push(Change::Removed(path.clone()));
            }
            (None, Found::Nothing | Found::Other(_)) => self.changes.push(Step::Sweep(path.clone())),
        }
    }

    /// Lets go of a file that is not ours any more.
    fn release(&mut self, item: &Item, entry: Option<&Entry>) {
        let Some(entry) = entry else { return };
        self.next.files.remove(&item.path);
        self.orphan(entry, None);
        self.changes.push(Step::Sweep(item.path.clone()));
    }

    /// Keeps what was saved for the operator, unless it is what is there.
    fn orphan(&mut self, entry: &Entry, there: Option<&[u8]>) {
        let Some(saved) = &entry.saved else { return };
        if there.is_none_or(|there| digest(there) != saved.digest) {
            self.next.orphans.insert(saved.digest.clone());
            self.interim.orphans.insert(saved.digest.clone());
        }
    }

    fn finish(mut self, state: &State, shelf: &Shelf) -> Plan {
        let mut steps = Vec::new();
        if !self.next.is_empty() && !shelf.missing.is_empty() {
            // The directories of the state itself are ours, too, and are known before anything lies in them.
            self.next.directories.extend(shelf.missing.iter().cloned());
            self.interim.directories.extend(shelf.missing.iter().cloned());
            steps.push(Step::Record(State { directories: self.interim.directories.clone(), ..state.clone() }));
        }
        steps.append(&mut self.saves);
        // What is written down already is not written again: files are withdrawn from a full disk, too.
        if self.interim != *state {
            steps.push(Step::Record(self.interim));
        }
        steps.append(&mut self.changes);
        // Directories that no file of ours ever was in are those of the state, and go with it.
        let (gone, remaining) =
            self.next.directories.iter().cloned().partition(|it| state.uses(it) && !self.next.uses(it));
        self.next.directories = remaining;
        let gone: BTreeSet<PathBuf> = gone;
        steps.extend(gone.into_iter().rev().map(Step::RemoveDirectory));
        if !self.next.is_empty() && self.next != *state {
            steps.push(Step::Record(self.next.clone()));
        }
        let needed: Vec<&str> = self.next.saved().collect();
        let unneeded: BTreeSet<&str> = shelf.stored.iter().map(String::as_str).chain(state.saved()).collect();
        let unneeded = unneeded.into_iter().filter(|digest| !needed.contains(digest));
        steps.extend(unneeded.map(|digest| Step::DropSaved(digest.to_owned())));
        if self.next.is_empty() && (*state != State::default() || !shelf.stored.is_empty() || shelf.has_leftover) {
            steps.push(Step::Forget(self.next.directories.clone()));
        }
        Plan { steps, report: self.report }
    }
}

/// The first table above; an error is a file that stays as it is.
fn base(item: &Item, entry: Option<&Entry>) -> Result<Option<Theirs>, String> {
    let saved = || {
        let saved = entry.and_then(|entry| entry.saved.as_ref());
        saved.and_then(|saved| Some((item.saved.clone()?, saved.attributes)))
    };
    match (&item.found, entry) {
        (Found::Other(what), _) => Err(format!("it is {what}; nothing is done to such a file")),
        (Found::Nothing, _) => Ok(saved()),
        (Found::File { bytes, attributes }, None) => match &item.wanted {
            Some(content) if content.whole(&[]).as_bytes() == bytes => Ok(None),
            Some(_) | None => Ok(Some((bytes.clone(), *attributes))),
        },
        (Found::File { bytes, attributes }, Some(entry)) => {
            let without_ours = || entry.inserted.iter().find_map(|inserted| cut(bytes, inserted));
            if !entry.written.contains(&digest(bytes)) {
                return Ok(Some((without_ours().unwrap_or_else(|| bytes.clone()), *attributes)));
            }
            match (&entry.saved, saved()) {
                (None, _) => Ok(None),
                (Some(_), Some(saved)) => Ok(Some(saved)),
                (Some(lost), None) => match without_ours() {
                    Some(theirs) => Ok(Some((theirs, lost.attributes))),
                    None => Err(format!("what it replaced was saved as {} and is not there any more", lost.digest)),
                },
            }
        }
    }
}

/// The second table above, where something is wanted.
fn put(content: &Content, base: Option<Theirs>, certificates: &[String], merge: Merge) -> Result<Decision, String> {
    let is_secret = content.is_secret();
    let whole = |base| {
        Ok(Decision::Put(Put { bytes: content.whole(certificates).into_bytes(), base, inserted: None, is_secret }))
    };
    if matches!(content, Content::Installed { .. }) {
        return whole(base);
    }
    let written_by_us = |base: &[u8]| String::from_utf8_lossy(base).contains(super::MARK);
    match (base, merge) {
        (None, Merge::Keep) if !certificates.is_empty() => Err(format!(
            "containerd reads the certificates beside it ({}) only without it; --merge prepend names them in it",
            certificates.join(", ")
        )),
        (None, _) => whole(None),
        (Some((base, _)), Merge::Keep) if written_by_us(&base) => {
            Err("it says that we wrote it, but it is not as we write it; remove it, or say --merge replace".into())
        }
        (Some(_), Merge::Keep) => Err(
            "somebody else wrote it; --merge prepend puts the cache before what it says, --merge replace in its place"
                .into(),
        ),
        (Some(base), Merge::Replace) => whole(Some(base)),
        (Some((base, attributes)), Merge::Prepend) => match content {
            Content::Hosts { part: Some(part), .. } => {
                let insertion = prepend(&base, part).map_err(|error| error.to_string())?;
                let base = Some((base, attributes));
                Ok(Decision::Put(Put { bytes: insertion.merged, base, inserted: Some(insertion.inserted), is_secret }))
            }
            Content::Hosts { part: None, .. } | Content::Whole(_) | Content::Installed { .. } => {
                Err("somebody else wrote it, and ours cannot be put into it; --merge replace puts ours in its place"
                    .into())
            }
        },
    }
}

impl Content {
    pub(super) fn is_secret(&self) -> bool {
        matches!(self, Self::Hosts { is_secret: true, .. } | Self::Installed { is_secret: true, .. })
    }

    /// Returns the whole file; a `hosts.toml` names the certificates that containerd would have read without it.
    pub(super) fn whole(&self, certificates: &[String]) -> String {
        match self {
            Self::Whole(text) => text.clone(),
            Self::Installed { text, .. } => text.expose().to_owned(),
            Self::Hosts { header, server, host, leads_to_registry, .. } => {
                let keys = if *leads_to_registry { certificate_keys(certificates) } else { String::new() };
                let gap = if server.is_empty() && keys.is_empty() { "" } else { "\n" };
                format!("{header}{server}{keys}{gap}{host}")
            }
        }
    }
}

/// Returns the keys that name certificates: `*.crt` are authorities, `*.cert` with `*.key` are the client's own.
fn certificate_keys(names: &[String]) -> String {
    let quoted = |name: &str| toml::Value::from(name).to_string();
    let ending =
        |end: &'static str| names.iter().filter_map(move |name| Some((name, name.strip_suffix(end)?.to_owned())));
    let authorities: Vec<String> = ending(".crt").map(|(name, _)| quoted(name)).collect();
    let pairs =
        ending(".cert").map(|(name, stem)| (name, format!("{stem}.key"))).filter(|(_, key)| names.contains(key));
    let pairs: Vec<String> = pairs.map(|(name, key)| format!("[{}, {}]", quoted(name), quoted(&key))).collect();
    let mut text = String::new();
    if !authorities.is_empty() {
        text.extend([format!("ca = [{}]\n", authorities.join(", "))]);
    }
    if !pairs.is_empty() {
        text.extend([format!("client = [{}]\n", pairs.join(", "))]);
    }
    text
}
