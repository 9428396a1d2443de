//! An object under construction on disk.
//!
//! Ownership is the cleaning up: dropped without commit, what was checkpointed is left for the next fill, and everything else is
//! removed and its reservation given back. A follower that still reads after the commit reads the same, now visible, file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use super::disk::Disk;
use super::leftover::{self, Leftover};
use super::object::ReadAt;
use super::reservation::Reservation;
use super::{Class, Partial, Present, StoreError, layout};
use crate::oci::Digest;
use crate::telemetry::StoreOperation;

/// Room reserved at a time when the size is unknown: as much as there is already, within these bounds. Few enough calls, and little is
/// held in vain.
const RESERVE_STEP_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=16 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct DiskPartial {
    digest: Digest,
    class: Class,
    file: File,
    path: PathBuf,
    disk: Disk,
    // A plain mutex: held for arithmetic, or for the room-making of one growing fill, always on the blocking pool.
    reservation: Mutex<Reservation>,
    resumed: Option<(u64, Present)>,
    /// What the record beside the file says.
    // A plain mutex: held to replace or take it.
    recorded: Mutex<Option<(u64, Present)>>,
    /// Set while a record is being written: one writer at a time, and nobody waits for another's.
    is_recording: AtomicBool,
    committed: AtomicBool,
    /// Changed with `recorded` locked: a record that is still being written then counts for nothing.
    is_discarded: AtomicBool,
}

impl DiskPartial {
    /// # Errors
    /// `NoRoom` when eviction cannot make room; else what the disk said.
    pub(super) fn create(
        disk: &Disk,
        digest: &Digest,
        class: Class,
        size_bytes: Option<u64>,
    ) -> Result<Self, StoreError> {
        let reservation = disk.reserve(class, size_bytes.unwrap_or(0))?;
        let path = disk.layout().partial(digest);
        let file = layout::create_file(&path).map_err(|source| disk.failed(StoreOperation::Open, &path, source))?;
        Ok(Self::new(disk, digest, class, file, path, reservation, None))
    }

    /// Goes on with what was left.
    ///
    /// # Errors
    /// What the disk said.
    pub(super) fn resume(disk: &Disk, digest: &Digest, left: Leftover) -> Result<Self, StoreError> {
        let Leftover { path, class, size_bytes, present, reservation, .. } = left;
        let file = layout::open_partial(&path).map_err(|source| disk.failed(StoreOperation::Open, &path, source))?;
        Ok(Self::new(disk, digest, class, file, path, reservation, Some((size_bytes, present))))
    }

    fn new(
        disk: &Disk,
        digest: &Digest,
        class: Class,
        file: File,
        path: PathBuf,
        reservation: Reservation,
        resumed: Option<(u64, Present)>,
    ) -> Self {
        Self {
            digest: *digest,
            class,
            file,
            path,
            disk: disk.clone(),
            reservation: Mutex::new(reservation),
            recorded: Mutex::new(resumed.clone()),
            resumed,
            is_recording: AtomicBool::new(false),
            committed: AtomicBool::new(false),
            is_discarded: AtomicBool::new(false),
        }
    }

    /// Reserves more when a fill of unknown size grows past what it holds.
    fn cover(&self, end: u64) -> Result<(), StoreError> {
        let mut reservation = self.reservation();
        if end > reservation.bytes() {
            let missing = end - reservation.bytes();
            let step = reservation.bytes().clamp(*RESERVE_STEP_BYTES.start(), *RESERVE_STEP_BYTES.end());
            let ahead = self.disk.reserve(self.class, missing.max(step));
            // Near the end of a budget, no more than is needed.
            let more = ahead.or_else(|_| self.disk.reserve(self.class, missing))?;
            reservation.absorb(more);
        }
        Ok(())
    }

    fn reservation(&self) -> MutexGuard<'_, Reservation> {
        self.reservation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recorded(&self) -> MutexGuard<'_, Option<(u64, Present)>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, digest: &Digest) -> io::Result<()> {
        let target = self.disk.layout().object(self.class, digest);
        let directory = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
        layout::make_directory(directory)?;
        fs::rename(&self.path, &target)?;
        leftover::forget(&self.path);
        File::open(directory)?.sync_all()
    }
}

impl Partial for DiskPartial {
    fn resumed(&self) -> Option<(u64, Present)> {
        self.resumed.clone()
    }

    fn write_at(&self, offset: u64, chunks: &[Bytes]) -> Result<(), StoreError> {
        let len: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        self.cover(offset.saturating_add(len))?;
        let began = Instant::now();
        let mut at = offset;
        for chunk in chunks {
            let written = self.file.write_all_at(chunk, at);
            written.map_err(|source| self.disk.failed(StoreOperation::Write, &self.path, source))?;
            at += chunk.len() as u64;
        }
        self.reservation().wrote(len);
        self.disk.operated(StoreOperation::Write, began);
        Ok(())
    }

    fn checkpoint(&self, size_bytes: u64, present: &Present) -> Result<(), StoreError> {
        if self.is_recording.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let written = leftover::record(&self.path, self.class, size_bytes, present);
        if written.is_ok() {
            let mut recorded = self.recorded();
            if !self.is_discarded.load(Ordering::Acquire) {
                *recorded = Some((size_bytes, present.clone()));
            }
        }
        self.is_recording.store(false, Ordering::Release);
        written.map_err(|source| self.disk.failed(StoreOperation::Write, &self.path, source))
    }

    fn discard(&self) {
        let mut recorded = self.recorded();
        self.is_discarded.store(true, Ordering::Release);
        *recorded = None;
    }

    fn commit(&self, digest: &Digest, size_bytes: u64) -> Result<(), StoreError> {
        let began = Instant::now();
        self.file.sync_all().map_err(|source| self.disk.failed(StoreOperation::Fsync, &self.path, source))?;
        self.disk.operated(StoreOperation::Fsync, began);
        let began = Instant::now();
        self.publish(digest).map_err(|source| self.disk.failed(StoreOperation::Rename, &self.path, source))?;
        self.disk.operated(StoreOperation::Rename, began);
        self.committed.store(true, Ordering::Release);
        self.reservation().release();
        self.disk.committed(self.class, *digest, size_bytes);
        Ok(())
    }
}

impl ReadAt for DiskPartial {
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.file.read_now(offset, buffer)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        ReadAt::read_at(&self.file, offset, buffer)
    }

    fn as_file(&self) -> Option<&File> {
        Some(&self.file)
    }
}

impl Drop for DiskPartial {
    fn drop(&mut self) {
        if self.committed.load(Ordering::Acquire) {
            return;
        }
        let recorded = self.recorded().take();
        if let Some((size_bytes, present)) = recorded {
            let reservation = self.reservation().take();
            let (path, class) = (self.path.clone(), self.class);
            let left = Leftover { path, class, size_bytes, present, reservation, since: Instant::now() };
            self.disk.leave(self.digest, left);
        } else if let Err(source) = leftover::remove(&self.path) {
            // Nobody waits for the answer: it is counted, and the next start removes the file.
            let _counted = self.disk.failed(StoreOperation::Delete, &self.path, source);
        }
    }
}
