//! What is on the node's disk, and the steps that change it: each durable when it returns, each atomic to whoever reads the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::io::Errno;

use super::NodeError;
use super::plan::{Found, Shelf, Step};
use super::refusal::Refusal;
use super::root::{FILE_BYTES_MAX, Root, read_file};
use super::state::{Attributes, State, digest};

/// What a write is called until it is whole, in the directory of its file. Neither containerd nor CRI-O reads such a name.
const TEMPORARY: &str = ".cachalot-node.tmp";

/// Of the state and of saved files: they may hold what only its owner may read.
const PRIVATE: Attributes = Attributes { mode: 0o600, owner: None };

/// An agent without capabilities may not read what another user keeps to himself, be it a file or its directory.
const UNREADABLE: Found = Found::Other("not readable for us");

/// The node's root and the directory of our state, both as they are on the node.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    root: Root,
    state_dir: PathBuf,
}

/// What went wrong, at a path of the node.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct DiskError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError { doing, path, source }
}

/// Held while one process works on the node's files; a watch holds it from one question to the next.
#[derive(Debug)]
pub(super) struct Lock {
    directory: File,
}

impl Lock {
    /// Whether it keeps anybody away from a directory: the one that was locked may have been removed, and made again.
    fn is_of(&self, directory: &File) -> bool {
        let id = |file: &File| file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
        id(directory).is_some_and(|wanted| id(&self.directory) == Some(wanted))
    }
}

impl Disk {
    /// `state_dir` has its links followed already.
    pub(super) fn new(root: Root, state_dir: PathBuf) -> Self {
        Self { root, state_dir }
    }

    pub(super) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    pub(super) fn shelf(&self) -> Result<Shelf, DiskError> {
        let leftovers = [self.temporary(&self.state_dir), self.temporary(&self.state_file())];
        Ok(Shelf {
            missing: self.missing_above(&self.state_file()),
            stored: self.stored()?,
            has_leftover: leftovers.iter().any(|path| path.exists()),
        })
    }

    /// Says where a file is whose place somebody has filled since.
    pub(super) fn orphan_advice(&self, digest: &str) -> String {
        let path = self.saved_file(digest);
        format!(
            "{} is what one of these files was before; its place is taken, so it stays there for you",
            path.display()
        )
    }

    fn state_file(&self) -> PathBuf {
        self.state_dir.join("state.json")
    }

    fn saved_file(&self, digest: &str) -> PathBuf {
        self.state_dir.join("saved").join(digest)
    }

    /// Keeps other processes away while `held` lives; nothing is held where there is no state yet, and nothing to lock.
    pub(super) fn lock(&self, held: &mut Option<Lock>) -> Result<(), NodeError> {
        let directory = match File::open(self.root.here(&self.state_dir)) {
            Ok(directory) => directory,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(at("cannot open", &self.state_dir)(error).into()),
        };
        if held.as_ref().is_some_and(|lock| lock.is_of(&directory)) {
            return Ok(());
        }
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                *held = Some(Lock { directory });
                Ok(())
            }
            Err(Errno::WOULDBLOCK) => Err(Refusal::Held { state_dir: self.state_dir.clone() }.into()),
            Err(error) => Err(at("cannot lock", &self.state_dir)(error.into()).into()),
        }
    }

    /// Returns what was written down last; nothing where there is no state.
    pub(super) fn state(&self) -> Result<State, NodeError> {
        let path = self.state_file();
        match fs::read(self.root.here(&path)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Refusal::State { state_dir: self.state_dir.clone(), path, why: error.to_string() }.into()
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(at("cannot read", &path)(error).into()),
        }
    }

    /// Returns the digests of all files that lie saved.
    fn stored(&self) -> Result<Vec<String>, DiskError> {
        let directory = self.state_dir.join("saved");
        let entries = match fs::read_dir(self.root.here(&directory)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at("cannot list", &directory)(error)),
        };
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<_>, _>>().map_err(at("cannot list", &directory))?;
        names.retain(|name| name != TEMPORARY);
        names.sort();
        Ok(names)
    }

    /// Returns a saved file, if it is there and whole.
    pub(super) fn saved(&self, wanted: &str) -> Result<Option<Vec<u8>>, DiskError> {
        let path = self.saved_file(wanted);
        match fs::read(self.root.here(&path)) {
            Ok(bytes) => Ok((digest(&bytes) == wanted).then_some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("cannot read", &path)(error)),
        }
    }

    /// Returns what is at a path that has its links followed already: one that is there in spite of that leads away from us.
    pub(super) fn find(&self, path: &Path) -> Result<Found, DiskError> {
        let error_at = |error| at("cannot read", path)(error);
        let above: Vec<&Path> = path.ancestors().skip(1).filter(|above| above.parent().is_some()).collect();
        for directory in above.into_iter().rev() {
            match fs::symlink_metadata(self.root.here(directory)) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(metadata) if metadata.is_symlink() => return Ok(Found::Other("behind a symbolic link")),
                Ok(_) => return Ok(Found::Other("below something that is no directory")),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(UNREADABLE),
                Err(error) => return Err(error_at(error)),
            }
        }
        let here = self.root.here(path);
        let metadata = match fs::symlink_metadata(&here) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(UNREADABLE),
            Err(error) => return Err(error_at(error)),
        };
        if metadata.is_symlink() {
            return Ok(Found::Other("a symbolic link"));
        }
        if !metadata.is_file() {
            return Ok(Found::Other("no file"));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Ok(Found::Other("too large for a configuration"));
        }
        let (bytes, metadata) = match read_file(&here) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(UNREADABLE),
            Err(error) => return Err(error_at(error)),
        };
        let attributes = Attributes { mode: metadata.mode() & 0o7777, owner: Some((metadata.uid(), metadata.gid())) };
        Ok(Found::File { bytes, attributes })
    }

    /// Returns the directories above a path that are not there, outermost first.
    pub(super) fn missing_above(&self, path: &Path) -> Vec<PathBuf> {
        let above = path.ancestors().skip(1).take_while(|above| !self.root.here(above).exists());
        let mut missing: Vec<PathBuf> = above.map(Path::to_owned).collect();
        missing.reverse();
        missing
    }

    /// Says why nothing could be written below a directory, without writing.
    pub(super) fn why_unwritable(&self, directory: &Path) -> Option<io::Error> {
        let there = directory.ancestors().find(|above| self.root.here(above).exists())?;
        access(self.root.here(there), Access::WRITE_OK | Access::EXEC_OK).err().map(io::Error::from)
    }

    pub(super) fn run(&self, step: &Step) -> Result<(), DiskError> {
        match step {
            Step::Save(bytes) => {
                let path = self.saved_file(&digest(bytes));
                self.begin_state()?;
                self.make_directory(&self.state_dir.join("saved"), 0o700)?;
                self.write(&path, bytes, PRIVATE)
            }
            Step::Record(state) => {
                let mut text = serde_json::to_vec_pretty(state)
                    .map_err(|error| at("cannot write", &self.state_file())(io::Error::other(error)))?;
                text.push(b'\n');
                self.begin_state()?;
                self.write(&self.state_file(), &text, PRIVATE)
            }
            Step::MakeDirectory(path) => self.make_directory(path, 0o755),
            Step::Write { path, bytes, attributes } => self.write(path, bytes, *attributes),
            Step::Delete(path) => {
                self.delete(path)?;
                self.sweep(path)
            }
            Step::Sweep(path) => self.sweep(path),
            Step::RemoveDirectory(path) => self.remove_directory(path),
            Step::DropSaved(digest) => self.delete(&self.saved_file(digest)),
            Step::Forget(directories) => {
                self.sweep(&self.saved_file("any"))?;
                self.remove_directory(&self.state_dir.join("saved"))?;
                self.delete(&self.state_file())?;
                self.sweep(&self.state_file())?;
                self.sweep(&self.state_dir)?;
                for directory in directories.iter().rev() {
                    self.remove_directory(directory)?;
                }
                Ok(())
            }
        }
    }

    /// Makes the directory of the state with a state of nothing in it, at once: one that is there without was not made by us.
    fn begin_state(&self) -> Result<(), DiskError> {
        let here = self.root.here(&self.state_dir);
        if here.is_dir() {
            return Ok(());
        }
        let staging = self.state_dir.with_file_name(TEMPORARY);
        self.sweep(&self.state_dir)?;
        self.make_directory(&staging, 0o755)?;
        let missing = self.missing_above(&self.state_file()).into_iter().collect();
        let nothing = serde_json::to_vec(&State { directories: missing, ..State::default() });
        let nothing = nothing.map_err(|error| at("cannot write", &self.state_file())(io::Error::other(error)))?;
        self.write(&staging.join("state.json"), &nothing, PRIVATE)?;
        fs::rename(self.root.here(&staging), here).map_err(at("cannot make the directory", &self.state_dir))?;
        self.sync_above(&self.state_dir)
    }

    /// Makes a directory and those above it.
    fn make_directory(&self, path: &Path, mode: u32) -> Result<(), DiskError> {
        let here = self.root.here(path);
        if here.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&here)
            .map_err(at("cannot make the directory", path))?;
        // The mask of the process is not to decide who may read the address of the cache.
        fs::set_permissions(&here, fs::Permissions::from_mode(mode)).map_err(at("cannot make the directory", path))?;
        self.sync_above(path)
    }

    fn write(&self, path: &Path, bytes: &[u8], attributes: Attributes) -> Result<(), DiskError> {
        let (here, temporary) = (self.root.here(path), self.temporary(path));
        self.sweep(path)?;
        let written = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            if let Some((user, group)) = attributes.owner {
                std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
            }
            // After the owner, whose change would take bits away.
            file.set_permissions(fs::Permissions::from_mode(attributes.mode))?;
            file.sync_all()?;
            fs::rename(&temporary, &here)
        };
        written().map_err(at("cannot write", path))?;
        self.sync_above(path)
    }

    fn temporary(&self, path: &Path) -> PathBuf {
        self.root.here(path).with_file_name(TEMPORARY)
    }

    fn delete(&self, path: &Path) -> Result<(), DiskError> {
        match fs::remove_file(self.root.here(path)) {
            Ok(()) => self.sync_above(path),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
            Err(error) => Err(at("cannot remove", path)(error)),
        }
    }

    /// Removes what a killed write has left, whatever it is by now. Where there is nothing, the directory may be read-only.
    fn sweep(&self, path: &Path) -> Result<(), DiskError> {
        let temporary = self.temporary(path);
        let swept = match fs::symlink_metadata(&temporary) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&temporary),
            Ok(_) => fs::remove_file(&temporary),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
            Err(error) => Err(error),
        };
        swept.map_err(at("cannot clean up beside", path))
    }

    fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        match fs::remove_dir(self.root.here(path)) {
            Ok(()) => self.sync_above(path),
            Err(error)
                if matches!(
                    error.kind(),
                    // Somebody has put something in it, or was faster, or mounted it: from a container it cannot be removed.
                    ErrorKind::NotFound
                        | ErrorKind::DirectoryNotEmpty
                        | ErrorKind::ResourceBusy
                        | ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(at("cannot remove the directory", path)(error)),
        }
    }

    fn sync_above(&self, path: &Path) -> Result<(), DiskError> {
        let Some(above) = path.parent() else { return Ok(()) };
        let synced = File::open(self.root.here(above)).and_then(|directory| directory.sync_all());
        synced.map_err(at("cannot make durable", above))
    }
}
