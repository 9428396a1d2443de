//! The file system of the node, wherever it is mounted: symbolic links in it mean places in it.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

/// Symbolic links that are followed at the most, as Linux has it.
const LINKS_MAX: usize = 40;

/// Bytes of a file of somebody else's that are read at the most: configuration is small.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// The root directory of the node. Paths on the node are absolute, as the node itself sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    pub fn new(mounted_at: impl Into<PathBuf>) -> Self {
        Self(mounted_at.into())
    }

    /// Returns where a path of the node is for us; links in it are not followed.
    pub fn here(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Returns the node's path with its links followed, as `chroot` would; what does not exist stays as it is.
    ///
    /// # Errors
    /// When links lead in a circle, or a directory cannot be read.
    pub fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut resolved = PathBuf::from("/");
        let mut rest = parts(path);
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == ".." {
                resolved.pop();
                continue;
            }
            let next = resolved.join(&part);
            match std::fs::read_link(self.here(&next)) {
                Ok(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(io::Error::other("too many symbolic links"));
                    }
                    if target.is_absolute() {
                        resolved = PathBuf::from("/");
                    }
                    rest.extend(parts(&target));
                }
                // No link, or nothing at all.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => resolved = next,
                Err(error) => return Err(error),
            }
        }
        Ok(resolved)
    }

    pub fn exists(&self, path: &str) -> bool {
        self.resolve(Path::new(path)).is_ok_and(|path| self.here(&path).exists())
    }

    /// Returns a file's text, if there is such a file.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(&self, path: &Path) -> io::Result<Option<String>> {
        let path = self.here(&self.resolve(path)?);
        match read_file(&path) {
            Ok((bytes, _)) => String::from_utf8(bytes).map(Some).map_err(io::Error::other),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the files of a directory whose names end so, sorted; none when there is no such directory.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn list(&self, directory: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
        let resolved = self.resolve(directory)?;
        let entries = match std::fs::read_dir(self.here(&resolved)) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            if name.to_str().is_some_and(|name| name.ends_with(ending)) {
                names.push(resolved.join(name));
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Reads a file, and says what it was when it was opened: others may put something else there at any time.
///
/// # Errors
/// Also when it is a link or no file (a pipe would be waited for without end), or larger than [`FILE_BYTES_MAX`].
pub(super) fn read_file(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is too large for a configuration"));
    }
    Ok((bytes, metadata))
}

/// Returns the parts of a path, last first.
fn parts(path: &Path) -> Vec<OsString> {
    let part = |component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_the_node_stay_on_the_node() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        std::fs::create_dir_all(directory.path().join("var/certs")).unwrap();
        std::fs::create_dir_all(directory.path().join("etc")).unwrap();
        symlink("/var/certs", directory.path().join("etc/absolute")).unwrap();
        symlink("../var/certs", directory.path().join("etc/relative")).unwrap();
        symlink("../../../../etc", directory.path().join("etc/climbing")).unwrap();
        symlink("circle", directory.path().join("etc/circle")).unwrap();
        let rows = [
            ("/etc/absolute/a", "/var/certs/a"),
            ("/etc/relative/a/b", "/var/certs/a/b"),
            ("/etc/climbing/relative", "/var/certs"),
            ("/etc/nothing/../else", "/etc/else"),
            ("/none/at/all", "/none/at/all"),
        ];
        for (path, resolved) in rows {
            assert_eq!(root.resolve(Path::new(path)).unwrap(), Path::new(resolved), "{path}");
        }
        assert!(root.resolve(Path::new("/etc/circle")).is_err());
    }

    #[test]
    fn what_is_no_configuration_is_neither_waited_for_nor_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        std::fs::write(directory.path().join("huge"), vec![b'#'; 1 << 20 | 1]).unwrap();
        std::fs::write(directory.path().join("largest"), vec![b'#'; 1 << 20]).unwrap();
        symlink("largest", directory.path().join("link")).unwrap();
        let error = |name: &str| root.read(Path::new(name)).unwrap_err().to_string();
        assert_eq!(error("/pipe"), "it is no file");
        assert_eq!(error("/huge"), "it is too large for a configuration");
        assert_eq!(root.read(Path::new("/link")).unwrap().map(|text| text.len()), Some(1 << 20), "a link of the node");
        assert!(read_file(&directory.path().join("link")).is_err(), "a link that came after it was looked for");
    }
}
