//! A stored object and how its bytes are read.
//!
//! Reads try the page cache first, on the caller's thread (`preadv2` with `RWF_NOWAIT`), and go to the blocking pool only
//! when the bytes must come from the disk: a hit in the page cache costs what `sendfile` costs, and a slow disk never
//! stalls the runtime.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags};

use super::buffers::Buffers;
use super::mark::Mark;
use crate::wire::ContentHeaders;

/// Something that can be read at any offset, by many readers at once.
pub trait ReadAt: Send + Sync + fmt::Debug {
    /// Reads what is at hand without waiting for the disk; `None` when it would have to wait.
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Reads, waiting for the disk: for the blocking pool only.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Returns the file that holds the same bytes at the same offsets, if there is one.
    fn as_file(&self) -> Option<&File>;
}

impl ReadAt for File {
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::preadv2(self, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(Some(read)),
            // Not in the page cache; or the file system does not know the flag.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn as_file(&self) -> Option<&File> {
        Some(self)
    }
}

/// A complete object that was verified when it was stored. Its bytes stay readable while it is held, also when it is evicted
/// meanwhile (P-143).
#[derive(Debug, Clone)]
pub struct Object {
    pub size_bytes: u64,
    pub content: Content,
    /// As it was when the object was opened.
    pub mark: Mark,
    /// Ready for every answer with the object.
    pub headers: Arc<ContentHeaders>,
}

/// Where the bytes of an object are.
#[derive(Debug, Clone)]
pub enum Content {
    Memory(Bytes),
    File(Arc<dyn ReadAt>),
}

impl Object {
    /// Returns an object of bytes that were verified on their way into memory.
    pub fn in_memory(bytes: Bytes, headers: Arc<ContentHeaders>) -> Self {
        Self { size_bytes: bytes.len() as u64, content: Content::Memory(bytes), mark: Mark::IN_MEMORY, headers }
    }

    /// Reads at most `limit` bytes at `offset`: at least one, at most one chunk from a file.
    ///
    /// # Errors
    /// `UnexpectedEof` when there is no byte at `offset`; else what the disk said.
    pub async fn read(&self, buffers: &Buffers, offset: u64, limit: u64) -> io::Result<Bytes> {
        match &self.content {
            Content::Memory(bytes) => slice(bytes, offset, limit),
            Content::File(file) => read_chunk(file, buffers, offset, limit).await,
        }
    }

    /// Reads the whole object on this thread: for the blocking pool, and for small objects only.
    pub fn read_all(&self) -> io::Result<Bytes> {
        let file = match &self.content {
            Content::Memory(bytes) => return Ok(bytes.clone()),
            Content::File(file) => file,
        };
        let size = usize::try_from(self.size_bytes).map_err(io::Error::other)?;
        let mut bytes = vec![0; size];
        let mut filled = 0;
        while let Some(space @ [_, ..]) = bytes.get_mut(filled..) {
            match file.read_at(filled as u64, space)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(bytes.into())
    }
}

/// Reads one chunk at `offset`, at most `limit` bytes, at least one.
pub async fn read_chunk(file: &Arc<dyn ReadAt>, buffers: &Buffers, offset: u64, limit: u64) -> io::Result<Bytes> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut buffer = buffers.take(limit);
    if let Some(read @ 1..) = file.read_now(offset, buffer.space(limit))? {
        return Ok(buffer.into_bytes(read));
    }
    let file = Arc::clone(file);
    super::blocking(move || match file.read_at(offset, buffer.space(limit))? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(buffer.into_bytes(read)),
    })
    .await
}

fn slice(bytes: &Bytes, offset: u64, limit: u64) -> io::Result<Bytes> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(usize::try_from(limit).unwrap_or(usize::MAX)).min(bytes.len());
    if start < end { Ok(bytes.slice(start..end)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

impl ReadAt for Bytes {
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.read_at(offset, buffer).map(Some)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    fn as_file(&self) -> Option<&File> {
        None
    }
}
