//! The mark of a stored object: which of the files of its digest it is, and when its bytes were last seen to match.
//!
//! What an earlier process stored was verified then; disks rot, so it is not trusted to its last byte before this process has read it
//! once. Pure: time is an argument.

/// The mark of one object. Four bytes, because there is one for each stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u32);

/// The lower bits number the files; of 4096 that come one after another no two are taken for each other. The upper ones are the hour of
/// the verification since the epoch, 0 for none in this process; they are good until the year 2089.
const NUMBER_BITS: u32 = 12;
const NUMBER: u32 = (1 << NUMBER_BITS) - 1;
const HOUR_MAX: u32 = (u32::MAX >> NUMBER_BITS) - 1;

impl Mark {
    /// Of what is in memory, where it does not rot.
    pub(super) const IN_MEMORY: Self = Self(1 << NUMBER_BITS);

    /// Of a file that is on no list.
    pub(super) const UNLISTED: Self = Self(0);

    /// Of nothing: never due.
    pub(super) const FREE: Self = Self(u32::MAX);

    /// Returns the mark of a file that was not verified in this process.
    pub(super) fn found(number: u32) -> Self {
        Self(number & NUMBER)
    }

    /// Returns the mark of the same file, not verified.
    pub(super) fn unverified(self) -> Self {
        Self(self.0 & NUMBER)
    }

    /// Returns the mark of the same file, verified at `now`, in seconds since the epoch.
    pub(super) fn verified_at(self, now: u64) -> Self {
        Self(hour(now) << NUMBER_BITS | self.0 & NUMBER)
    }

    /// Returns true when all bytes matched the digest at some time in this process.
    pub fn is_verified(self) -> bool {
        self.0 > NUMBER
    }

    /// Returns true when they were last seen to match in an hour before that of `time`, in seconds since the epoch, or never.
    pub(super) fn is_due(self, time: u64) -> bool {
        self.0 >> NUMBER_BITS < hour(time)
    }

    /// Returns true when both are marks of the same file.
    pub(super) fn is_same_file(self, other: Self) -> bool {
        self.0 & NUMBER == other.0 & NUMBER
    }
}

fn hour(time: u64) -> u32 {
    u32::try_from(time / 3600).unwrap_or(u32::MAX).clamp(1, HOUR_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    #[test]
    fn a_mark_tells_the_file_and_the_hour() {
        let (one, two) = (Mark::found(4095), Mark::found(4096));
        assert!(!one.is_verified() && !two.is_verified() && !one.is_same_file(two));
        let verified = one.verified_at(100 * HOUR);
        assert!(verified.is_verified() && verified.is_same_file(one) && !verified.is_same_file(two));
        assert!(!verified.is_due(100 * HOUR) && verified.is_due(101 * HOUR));
        assert_eq!(verified.unverified(), one);
        assert!(verified.unverified().is_due(0), "what was never verified is due at any time");
        assert!(two.verified_at(0).is_verified() && Mark::IN_MEMORY.is_verified());
        assert!(!Mark::FREE.is_due(u64::MAX));
    }
}
