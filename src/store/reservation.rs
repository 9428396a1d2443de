//! Room that is set aside for an object before its bytes come.

use super::Class;
use super::disk::Disk;

/// Bytes set aside in a budget and on the file system; dropping it gives them back.
#[derive(Debug)]
pub(super) struct Reservation {
    disk: Disk,
    class: Class,
    bytes: u64,
    /// Of these, so many are on the file system already, where they are counted by themselves.
    written_bytes: u64,
}

impl Reservation {
    /// Owns what was claimed in the budget of `class`.
    pub(super) fn of_claimed(disk: Disk, class: Class, bytes: u64, written_bytes: u64) -> Self {
        Self { disk, class, bytes, written_bytes }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes that so many of the bytes have been written.
    pub(super) fn wrote(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes - self.written_bytes);
        self.written_bytes += bytes;
        self.disk.shelf(self.class).wrote(bytes);
    }

    /// Gives back what it holds: the object is counted by its size from here on.
    pub(super) fn release(&mut self) {
        let Self { bytes, written_bytes, .. } = *self;
        (self.bytes, self.written_bytes) = (0, 0);
        self.disk.shelf(self.class).release(bytes, bytes - written_bytes);
    }

    /// Hands over what it holds.
    pub(super) fn take(&mut self) -> Self {
        let taken = Self { disk: self.disk.clone(), ..*self };
        (self.bytes, self.written_bytes) = (0, 0);
        taken
    }

    /// Takes over what `other` holds.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
        self.written_bytes += std::mem::take(&mut other.written_bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}
