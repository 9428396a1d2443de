//! What we have on this node: written down before it is done, so that a kill at any moment loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The state file. Paths are the node's own, wherever its root is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub files: BTreeMap<PathBuf, Entry>,
    /// Directories that we made. In their order those above come first.
    pub directories: BTreeSet<PathBuf>,
    /// Saved files, by digest, whose place somebody else has filled since; they are for the operator.
    pub orphans: BTreeSet<String>,
}

/// One file of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Digests of what may be there from us: two while one text is being put in the place of another.
    pub written: Vec<String>,
    /// What was there before.
    pub saved: Option<Saved>,
    /// What we put into theirs, likewise; nothing where the whole file is ours.
    pub inserted: Vec<String>,
}

/// A file of somebody else's that lies in our directory meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    pub digest: String,
    pub attributes: Attributes,
}

/// Who may do what with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attributes {
    pub mode: u32,
    /// User and group; of files of ours, whoever we are.
    pub owner: Option<(u32, u32)>,
}

impl Attributes {
    /// Of files of ours: everybody may know the address of the cache.
    pub(super) const OURS: Self = Self { mode: 0o644, owner: None };

    /// Of those of them with a token or a key.
    pub(super) const SECRET: Self = Self { mode: 0o600, owner: None };

    /// Whether others than the owner may do anything with the file.
    pub(super) fn is_open(self) -> bool {
        self.mode & 0o077 != 0
    }
}

impl State {
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.orphans.is_empty()
    }

    /// Returns the digests of saved files that are needed.
    pub(super) fn saved(&self) -> impl Iterator<Item = &str> {
        let of_files = self.files.values().filter_map(|entry| entry.saved.as_ref()).map(|saved| saved.digest.as_str());
        of_files.chain(self.orphans.iter().map(String::as_str))
    }

    /// Returns true when one of our files lies below a directory.
    pub(super) fn uses(&self, directory: &Path) -> bool {
        self.files.keys().any(|file| file.starts_with(directory))
    }
}

/// Returns the SHA-256 of some bytes, in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let halves = |byte: u8| [byte >> 4, byte & 15];
    let digits = Sha256::digest(bytes).into_iter().flat_map(halves);
    digits.filter_map(|half| DIGITS.get(usize::from(half))).collect()
}
