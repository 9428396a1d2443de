//! A store over a real disk that fails as it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::oci::Digest;
use crate::store::{
    BlobStore, Class, ClientPrint, Content, Damage, Disk, Object, Partial, Present, ReadAt, StoreError,
};

/// What the disk does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskFault {
    None,
    /// No object can be begun.
    ReadOnly,
    /// Writes that end beyond this offset fail with ENOSPC.
    FullBeyond(u64),
    /// The commit fails before the rename.
    CrashBeforeRename,
    /// Every write takes a while.
    Slow,
    /// Beginning an object takes until the test closes the gate.
    Stuck,
    /// The first stored object that is opened counts as absent.
    OpenFailsOnce,
    /// Reads of stored objects that reach this offset fail with EIO.
    ReadFails {
        at: u64,
    },
    /// Reads of the first object that is begun fail with EIO from this offset on, also when it is resumed.
    PartialReadFails {
        at: u64,
    },
}

#[derive(Debug)]
pub(super) struct FaultyStore {
    pub(super) disk: Disk,
    pub(super) fault: DiskFault,
    /// The fault has happened to what was stored: what comes in its place is on sound blocks.
    pub(super) replaced: AtomicBool,
    pub(super) gate: Arc<Semaphore>,
}

#[derive(Debug)]
pub(super) struct FaultyFile {
    pub(super) file: Arc<dyn ReadAt>,
    pub(super) fails_at: u64,
}

impl ReadAt for FaultyFile {
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
        let len = readable(self.fails_at, offset, buffer)?;
        self.file.read_now(offset, &mut buffer[..len])
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = readable(self.fails_at, offset, buffer)?;
        self.file.read_at(offset, &mut buffer[..len])
    }

    fn as_file(&self) -> Option<&std::fs::File> {
        None
    }
}

#[derive(Debug)]
pub(super) struct FaultyPartial {
    pub(super) partial: Arc<dyn Partial>,
    pub(super) fault: DiskFault,
    pub(super) is_sound: bool,
}

impl FaultyPartial {
    /// Returns how much of `buffer` can be read.
    pub(super) fn check(&self, offset: u64, buffer: &[u8]) -> std::io::Result<usize> {
        match self.fault {
            DiskFault::PartialReadFails { at } if !self.is_sound => readable(at, offset, buffer),
            _ => Ok(buffer.len()),
        }
    }
}

/// Returns how much of `buffer` a disk gives whose blocks from `fails_at` on are bad.
pub(super) fn readable(fails_at: u64, offset: u64, buffer: &[u8]) -> std::io::Result<usize> {
    match fails_at.saturating_sub(offset) {
        0 => Err(rustix::io::Errno::IO.into()),
        readable => Ok(buffer.len().min(usize::try_from(readable).unwrap())),
    }
}

pub(super) fn disk_error(kind: std::io::ErrorKind) -> StoreError {
    std::io::Error::from(kind).into()
}

impl BlobStore for FaultyStore {
    fn peek(&self, digest: &Digest) -> Option<Object> {
        self.disk.peek(digest)
    }

    fn is_absent(&self, digest: &Digest) -> bool {
        self.disk.is_absent(digest)
    }

    fn touch(&self, digest: &Digest) {
        self.disk.touch(digest);
    }

    fn asked(&self, digest: &Digest, client: ClientPrint) {
        self.disk.asked(digest, client);
    }

    fn open(&self, digest: &Digest) -> Option<Object> {
        if self.fault == DiskFault::OpenFailsOnce && !self.replaced.swap(true, Ordering::SeqCst) {
            return None;
        }
        let mut object = self.disk.open(digest)?;
        if let (DiskFault::ReadFails { at }, Content::File(file)) = (self.fault, &object.content)
            && !self.replaced.load(Ordering::SeqCst)
        {
            object.content = Content::File(Arc::new(FaultyFile { file: Arc::clone(file), fails_at: at }));
        }
        Some(object)
    }

    fn begin(&self, digest: &Digest, class: Class, size_bytes: Option<u64>) -> Result<Arc<dyn Partial>, StoreError> {
        if self.fault == DiskFault::ReadOnly {
            return Err(disk_error(std::io::ErrorKind::ReadOnlyFilesystem));
        }
        if self.fault == DiskFault::Stuck {
            assert!(tokio::runtime::Handle::current().block_on(self.gate.acquire()).is_err(), "the gate is closed");
        }
        let partial = self.disk.begin(digest, class, size_bytes)?;
        let is_faulty = matches!(self.fault, DiskFault::PartialReadFails { .. });
        let is_sound = !is_faulty || self.replaced.swap(true, Ordering::SeqCst);
        Ok(Arc::new(FaultyPartial { partial, fault: self.fault, is_sound }))
    }

    fn resume(&self, digest: &Digest) -> Option<Arc<dyn Partial>> {
        let partial = self.disk.resume(digest)?;
        Some(Arc::new(FaultyPartial { partial, fault: self.fault, is_sound: false }))
    }

    fn verified(&self, digest: &Digest, object: &Object) {
        self.disk.verified(digest, object);
    }

    fn discard(&self, digest: &Digest, object: &Object, damage: Damage) -> bool {
        let is_dropped = self.disk.discard(digest, object, damage);
        self.replaced.fetch_or(is_dropped, Ordering::SeqCst);
        is_dropped
    }
}

impl Partial for FaultyPartial {
    fn write_at(&self, offset: u64, chunks: &[Bytes]) -> Result<(), StoreError> {
        let end = offset + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        match self.fault {
            DiskFault::FullBeyond(limit) if end > limit => return Err(disk_error(std::io::ErrorKind::StorageFull)),
            DiskFault::Slow => std::thread::sleep(Duration::from_millis(5)),
            DiskFault::None
            | DiskFault::ReadOnly
            | DiskFault::FullBeyond(_)
            | DiskFault::Stuck
            | DiskFault::CrashBeforeRename
            | DiskFault::OpenFailsOnce
            | DiskFault::ReadFails { .. }
            | DiskFault::PartialReadFails { .. } => {}
        }
        self.partial.write_at(offset, chunks)
    }

    fn resumed(&self) -> Option<(u64, Present)> {
        self.partial.resumed()
    }

    fn checkpoint(&self, size_bytes: u64, present: &Present) -> Result<(), StoreError> {
        self.partial.checkpoint(size_bytes, present)
    }

    fn discard(&self) {
        self.partial.discard();
    }

    fn commit(&self, digest: &Digest, size_bytes: u64) -> Result<(), StoreError> {
        if self.fault == DiskFault::CrashBeforeRename {
            return Err(disk_error(std::io::ErrorKind::Other));
        }
        self.partial.commit(digest, size_bytes)
    }
}

impl ReadAt for FaultyPartial {
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
        let len = self.check(offset, buffer)?;
        self.partial.read_now(offset, &mut buffer[..len])
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.check(offset, buffer)?;
        self.partial.read_at(offset, &mut buffer[..len])
    }

    fn as_file(&self) -> Option<&std::fs::File> {
        None
    }
}
