//! What unfinished fills left: a partial file and, beside it, a record of which of its bytes were written.
//!
//! The next fill of the digest goes on from there, in this process or after a crash of it. The record is written after the bytes,
//! and without waiting for the disk: it counts only while the machine has not been restarted since (its boot identifier), for then
//! the page cache has not lost what was written. Either way the bytes are only a beginning: they are hashed with the rest.
//!
//! A record that cannot be read, is of another boot, or claims bytes beyond its file is removed with its file.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::layout::{Layout, create_file, split_partial};
use super::presence::{Believed, PresenceRecord, TEXT_BYTES_MAX};
use super::reservation::Reservation;
use super::{Class, Present};
use crate::oci::Digest;

/// What is left lies so long for a next fill: clients that come back do so within minutes.
pub(super) const AGE_MAX: Duration = Duration::from_hours(1);

/// Changes whenever the machine starts, and so whenever the page cache is lost (Linux, `random(4)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// One unfinished object and its reserved room.
#[derive(Debug)]
pub(super) struct Leftover {
    pub(super) path: PathBuf,
    pub(super) class: Class,
    pub(super) size_bytes: u64,
    pub(super) present: Present,
    pub(super) reservation: Reservation,
    pub(super) since: Instant,
}

/// All that is left, by digest.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    // A plain mutex: held for a map operation.
    by_digest: Mutex<HashMap<Digest, Leftover>>,
}

impl Leftovers {
    /// Leaves something; what was left of the digest before is returned, to be removed.
    pub(super) fn leave(&self, digest: Digest, left: Leftover) -> Option<Leftover> {
        self.by_digest().insert(digest, left)
    }

    /// Takes up what was left of the digest.
    pub(super) fn take(&self, digest: &Digest) -> Option<Leftover> {
        self.by_digest().remove(digest)
    }

    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.by_digest().contains_key(digest)
    }

    /// Takes out what has lain for longer than `age`.
    pub(super) fn expire(&self, age: Duration) -> Vec<Leftover> {
        self.by_digest().extract_if(|_, left| left.since.elapsed() >= age).map(|(_, left)| left).collect()
    }

    fn by_digest(&self) -> MutexGuard<'_, HashMap<Digest, Leftover>> {
        self.by_digest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An unfinished object as it is found on disk.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) path: PathBuf,
    pub(super) class: Class,
    pub(super) size_bytes: u64,
    pub(super) present: Present,
}

/// Writes the record of the partial file at `path`, in one step.
pub(super) fn record(path: &Path, class: Class, size_bytes: u64, present: &Present) -> io::Result<()> {
    let boot = fs::read_to_string(BOOT_ID).map_err(|_| io::ErrorKind::Unsupported)?;
    let record = PresenceRecord::new(boot.trim(), class, size_bytes, present).ok_or(io::ErrorKind::FileTooLarge)?;
    let text = record.to_text()?;
    let draft = with_suffix(path, DRAFT);
    let mut file = match create_file(&draft) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&draft)?;
            create_file(&draft)?
        }
        other => other?,
    };
    io::Write::write_all(&mut file, &text)?;
    fs::rename(&draft, record_path(path))
}

/// Removes a partial file and its record.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    forget(path);
    fs::remove_file(path)
}

/// Removes the record of a partial file, if there is one.
pub(super) fn forget(path: &Path) {
    // Without its file a record means nothing: the next start removes it.
    let _meaningless = fs::remove_file(record_path(path));
}

/// Finds what can be gone on with, and removes everything else that can be removed.
pub(super) fn collect(layout: &Layout) -> io::Result<Vec<Found>> {
    let mut kept = HashMap::<Digest, Found>::new();
    let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
    for entry in fs::read_dir(layout.partials())? {
        let path = entry?.path();
        let is_companion = [RECORD, DRAFT].iter().any(|suffix| has_suffix(&path, suffix));
        let named = split_partial(&path).filter(|_| !is_companion);
        match named.and_then(|(digest, _)| found(digest, &path, boot.trim())) {
            Some(found) => {
                if let Some(other) = kept.insert(found.digest, found) {
                    clear(&other.path, remove);
                }
            }
            None if is_companion => {}
            None => clear(&path, remove),
        }
    }
    remove_strays(layout)?;
    Ok(kept.into_values().collect())
}

/// Removes drafts, and records whose file is gone.
fn remove_strays(layout: &Layout) -> io::Result<()> {
    for entry in fs::read_dir(layout.partials())? {
        let path = entry?.path();
        let is_stray_record = has_suffix(&path, RECORD) && !path.with_extension("").exists();
        if has_suffix(&path, DRAFT) || is_stray_record {
            clear(&path, |path| fs::remove_file(path));
        }
    }
    Ok(())
}

/// Removes what is of no use; where that fails it lies there until the next start, and is no reason not to serve.
fn clear(path: &Path, remove: impl FnOnce(&Path) -> io::Result<()>) {
    if let Err(error) = remove(path) {
        tracing::warn!(path = %path.display(), %error, "what an unfinished fill left stays on disk");
    }
}

fn found(digest: Digest, path: &Path, boot: &str) -> Option<Found> {
    let written = path.symlink_metadata().ok().filter(fs::Metadata::is_file)?.len();
    let Believed { class, size_bytes, present } = read_record(&record_path(path))?.believed(boot, written)?;
    Some(Found { digest, path: path.to_owned(), class, size_bytes, present })
}

fn read_record(path: &Path) -> Option<PresenceRecord> {
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(File::open(path).ok()?, TEXT_BYTES_MAX), &mut text).ok()?;
    PresenceRecord::parse(&text)
}

const RECORD: &str = "present";
const DRAFT: &str = "draft";

fn record_path(path: &Path) -> PathBuf {
    with_suffix(path, RECORD)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.extension().is_some_and(|extension| extension == suffix)
}
