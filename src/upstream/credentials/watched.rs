//! A small file that is read again when it has changed, so that a rotated secret needs no restart.
//!
//! A look is one `stat` call, made when the content is wanted and at most every few seconds. A file that has gone, cannot be read or
//! does not parse leaves the last good content in use, which is said once for each such change.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::error::{CredentialsError, Flaw};
use crate::oci::UpstreamName;
use crate::telemetry::sentence;

/// The content is at most so old: an operator who replaces a file sees it used at once, and a busy upstream costs no `stat` per question.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How the content of a file becomes a value.
type Parse<T> = dyn Fn(&[u8]) -> Result<T, Flaw> + Send + Sync;

/// Reads a file whole and parses it; blocks.
///
/// # Errors
/// It cannot be read, is larger than `limit_bytes`, or does not parse.
pub(super) fn read<T>(
    path: &Path,
    limit_bytes: u64,
    parse: impl Fn(&[u8]) -> Result<T, Flaw>,
) -> Result<T, CredentialsError> {
    let content = || -> io::Result<Zeroizing<Vec<u8>>> {
        let file = File::open(path)?;
        // Room for all of it: a buffer that grew would leave copies behind.
        let len = file.metadata()?.len().min(limit_bytes) + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or_default()));
        // One byte more than allowed tells a file that is too large from one that fits.
        file.take(limit_bytes + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let unreadable = |error| CredentialsError::Unreadable { path: path.to_path_buf(), source: Arc::new(error) };
    let bytes = content().map_err(unreadable)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(CredentialsError::TooLarge { path: path.to_path_buf(), limit_bytes });
    }
    parse(&bytes).map_err(|flaw| CredentialsError::Unusable { path: path.to_path_buf(), flaw })
}

/// A file and what it last said.
pub(super) struct Watched<T> {
    upstream: UpstreamName,
    path: PathBuf,
    limit_bytes: u64,
    parse: Arc<Parse<T>>,
    // A plain mutex: held for copying a few words.
    state: Mutex<State<T>>,
}

struct State<T> {
    looked: Instant,
    /// The file when it was last looked at; `None` when there was none to look at.
    stamp: Option<Stamp>,
    /// The last look gave what is in `content`.
    is_current: bool,
    /// The last good one; an error as long as there was none.
    content: Result<Arc<T>, CredentialsError>,
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads the file; blocks for some microseconds.
    pub(super) fn open(
        upstream: UpstreamName,
        path: PathBuf,
        limit_bytes: u64,
        parse: impl Fn(&[u8]) -> Result<T, Flaw> + Send + Sync + 'static,
    ) -> Self {
        let stamp = Stamp::of(&path);
        let content = read(&path, limit_bytes, &parse).map(Arc::new);
        let state = State { looked: Instant::now(), stamp, is_current: content.is_ok(), content };
        Self { upstream, path, limit_bytes, parse: Arc::new(parse), state: Mutex::new(state) }
    }

    /// Returns the content, after a look at the file when the last one was some seconds ago.
    ///
    /// # Errors
    /// The file never had a content that can be used.
    pub(super) async fn current(&self) -> Result<Arc<T>, CredentialsError> {
        if self.state().looked.elapsed() >= LOOK_EVERY {
            self.look().await;
        }
        self.state().content.clone()
    }

    /// Looks at the file at once, and reads it when it has changed or could not be used before.
    pub(super) async fn look(&self) {
        let known = {
            let mut state = self.state();
            // Set beforehand: who comes meanwhile goes on with what is known.
            state.looked = Instant::now();
            state.stamp.filter(|_| state.is_current)
        };
        let (path, limit_bytes, parse) = (self.path.clone(), self.limit_bytes, Arc::clone(&self.parse));
        let looked = tokio::task::spawn_blocking(move || {
            // Before reading: a change in between is then seen by the next look.
            let stamp = Stamp::of(&path);
            let is_same = stamp.is_some() && stamp == known;
            (!is_same).then(|| (stamp, read(&path, limit_bytes, &*parse)))
        });
        // It can only fail when the process ends.
        if let Ok(Some((stamp, content))) = looked.await {
            self.note(stamp, content);
        }
    }

    fn note(&self, stamp: Option<Stamp>, content: Result<T, CredentialsError>) {
        let mut state = self.state();
        let is_news = state.is_current || state.stamp != stamp;
        state.stamp = stamp;
        state.is_current = content.is_ok();
        match content {
            Ok(content) => state.content = Ok(Arc::new(content)),
            Err(error) if state.content.is_err() => state.content = Err(error),
            Err(error) if is_news => tracing::warn!(
                upstream.name = %self.upstream,
                error = %sentence(&error),
                "the account cannot be read again; the last good one stays in use"
            ),
            Err(_) => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What tells one content of a file from another without reading it. The change time is in it for permissions that were mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let stamp = |file: Metadata| Self {
            device: file.dev(),
            inode: file.ino(),
            len_bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        };
        std::fs::metadata(path).map(stamp).ok()
    }
}
