//! Where things are on disk.
//!
//! ```text
//! <root>/layer/sha256/ab/ab12…      content, by class and digest
//! <root>/metadata/sha256/ab/ab12…
//! <root>/partial/sha256-ab12….<number>            unfinished content
//! <root>/partial/sha256-ab12….<number>.present    which of its bytes are there
//! <root>/ledger.redb                tags and grants
//! ```
//!
//! Every path is made from a parsed digest or a number of our own, never from a peer's text (S-19).
//! Directories are 0700, files 0600, and symbolic links are not followed (S-44).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::Class;
use super::time::Time;
use crate::oci::{Algorithm, Digest};

/// In the order in which an object is looked for.
pub(super) const CLASSES: [Class; 2] = [Class::Layer, Class::Metadata];
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// The paths of one store.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    next_partial: AtomicU64,
}

/// A file of the store, as a scan finds it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) class: Class,
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    /// The modification time, which the store keeps as the time of the last use.
    pub(super) last_use: Time,
}

impl Layout {
    /// Makes the directories, or finds them to be ours alone.
    pub(super) fn create(root: &Path) -> io::Result<Self> {
        let layout = Self { root: root.to_owned(), next_partial: AtomicU64::new(0) };
        make_own_directory(&layout.partials())?;
        for entry in fs::read_dir(layout.partials())? {
            let number = split_partial(&entry?.path()).map_or(0, |(_, number)| number);
            layout.next_partial.fetch_max(number.saturating_add(1), Ordering::Relaxed);
        }
        for class in CLASSES {
            for algorithm in ALGORITHMS {
                make_own_directory(&root.join(directory(class)))?;
                make_own_directory(&layout.shelf(class, algorithm))?;
            }
        }
        Ok(layout)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn ledger(&self) -> PathBuf {
        self.root.join("ledger.redb")
    }

    pub(super) fn object(&self, class: Class, digest: &Digest) -> PathBuf {
        let encoded = digest.encoded();
        let fan = encoded.get(..2).unwrap_or_default();
        self.shelf(class, digest.algorithm()).join(fan).join(&encoded)
    }

    /// Returns a new path for an unfinished object.
    pub(super) fn partial(&self, digest: &Digest) -> PathBuf {
        let number = self.next_partial.fetch_add(1, Ordering::Relaxed);
        self.partials().join(format!("{}-{}.{number}", digest.algorithm().as_str(), digest.encoded()))
    }

    /// Calls `visit` for every object; what is not named like one is passed over, and so is what cannot be read: one bad sector
    /// hides no more than itself.
    pub(super) fn scan(&self, mut visit: impl FnMut(Found)) -> io::Result<()> {
        for class in CLASSES {
            for algorithm in ALGORITHMS {
                for fan in fs::read_dir(self.shelf(class, algorithm))? {
                    let path = fan?.path();
                    if let Err(error) = scan_fan(class, algorithm, &path, &mut visit) {
                        tracing::warn!(path = %path.display(), %error, "a part of the store cannot be scanned");
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    fn shelf(&self, class: Class, algorithm: Algorithm) -> PathBuf {
        self.root.join(directory(class)).join(algorithm.as_str())
    }
}

/// Opens an object for reading.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(no_follow()).open(path)
}

/// Opens an unfinished object for reading and writing.
pub(super) fn open_partial(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(no_follow()).open(path)
}

/// Makes a new file for reading and writing.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).custom_flags(no_follow()).open(path)
}

/// Opens a file that is kept from one process to the next, or makes it; it is ours alone (S-44).
pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow());
    let file = options.open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a directory of the store, unless it is there. One that is a link, or that others may write to, could have us serve, overwrite or
/// remove what is not ours (S-44). The store's own directory is the operator's: a volume may belong to another user there.
fn make_own_directory(path: &Path) -> io::Result<()> {
    make_directory(path)?;
    let metadata = path.symlink_metadata()?;
    let flaw = if !metadata.is_dir() {
        "is a link"
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        "belongs to another user"
    } else if metadata.mode() & 0o002 != 0 {
        "can be written to by everybody"
    } else {
        return Ok(());
    };
    let advice = "is it of an earlier store? Empty the directory of the store, or give another one";
    Err(io::Error::other(format!("{} {flaw}; {advice}", path.display())))
}

fn scan_fan(class: Class, algorithm: Algorithm, path: &Path, visit: &mut impl FnMut(Found)) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match found(class, algorithm, &entry) {
            Ok(found) => found.into_iter().for_each(&mut *visit),
            Err(error) => tracing::warn!(path = %entry.path().display(), %error, "an object cannot be scanned"),
        }
    }
    Ok(())
}

fn found(class: Class, algorithm: Algorithm, entry: &fs::DirEntry) -> io::Result<Option<Found>> {
    let name = entry.file_name();
    let digest = name.to_str().and_then(|name| format!("{}:{name}", algorithm.as_str()).parse().ok());
    let Some(digest) = digest else { return Ok(None) };
    let metadata = match entry.metadata() {
        // Evicted since the directory was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let last_use = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH).into();
    Ok(metadata.is_file().then_some(Found { class, digest, size_bytes: metadata.len(), last_use }))
}

/// Reads the digest that the unfinished object at `path`, or beside it, is to have, and its number.
pub(super) fn split_partial(path: &Path) -> Option<(Digest, u64)> {
    let mut parts = path.file_name()?.to_str()?.split('.');
    let digest = parts.next()?.replacen('-', ":", 1).parse().ok()?;
    let number = parts.next()?.parse().ok()?;
    Some((digest, number))
}

fn directory(class: Class) -> &'static str {
    match class {
        Class::Layer => "layer",
        Class::Metadata => "metadata",
    }
}

fn no_follow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}
