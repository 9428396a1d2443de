//! What was done, and what was left alone, for people.

use std::fmt;
use std::path::{Path, PathBuf};

/// A file that is not ours and stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub path: PathBuf,
    pub why: String,
}

/// Something that became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Written(PathBuf),
    /// Ours was put into theirs.
    Merged(PathBuf),
    /// Ours is in the place of theirs.
    Replaced(PathBuf),
    Removed(PathBuf),
    /// Theirs is back.
    Restored(PathBuf),
}

/// What one run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub changes: Vec<Change>,
    pub kept: Vec<Kept>,
    pub warnings: Vec<String>,
}

impl Report {
    /// Returns everything that there is to tell, a line each.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let changes = self.changes.iter().map(ToString::to_string);
        let kept = self.kept.iter().map(ToString::to_string);
        changes.chain(kept).chain(self.warnings.iter().map(|warning| format!("warning: {warning}")))
    }
}

impl Change {
    pub fn path(&self) -> &Path {
        match self {
            Self::Written(path)
            | Self::Merged(path)
            | Self::Replaced(path)
            | Self::Removed(path)
            | Self::Restored(path) => path,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, path, rest) = match self {
            Self::Written(path) => ("wrote", path, ""),
            Self::Merged(path) => ("put the cache first in", path, "; the rest of it stays"),
            Self::Replaced(path) => ("replaced", path, "; what was there comes back when this is removed"),
            Self::Removed(path) => ("removed", path, ""),
            Self::Restored(path) => ("restored", path, ""),
        };
        write!(f, "{verb} {}{rest}", path.display())
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "left {} alone: {}", self.path.display(), self.why)
    }
}
