//! The check of a whole body whose bytes are not trusted: it hashes them as they pass, and holds back the last ones until the digest
//! is known.
//!
//! It is for what an earlier process stored and this one has not read yet, and for what one reader fetches past a fill. A fill
//! verifies by itself.
//!
//! It hashes where it is called. A chunk takes some 30 µs with the processor's SHA instructions and 110 µs without them; handing each
//! to the blocking pool halves the rate of one body, and batches of them are slower, too, and would have to be kept.

use bytes::{Bytes, BytesMut};

use super::fill::{Prefix, WITHHELD_BYTES};
use crate::oci::{Digest, Hasher};

/// The check of one body, from its first byte to its last.
#[derive(Debug)]
pub(super) struct Check {
    expected: Digest,
    hasher: Hasher,
    size_bytes: u64,
    /// The offset of the next byte.
    cursor: u64,
    /// What lies below has been sent already, and is not sent again.
    sent: u64,
    /// What vouches for what has been sent, where it came from elsewhere.
    prefix: Option<Prefix>,
    held: BytesMut,
}

/// What may be sent of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// These.
    Some(Bytes),
    /// Nothing yet.
    Held,
    /// These are the last ones, and the whole is good.
    Last(Bytes),
    /// Nothing more: the whole is not what it should be.
    Wrong { actual: Digest },
}

impl Check {
    pub(super) fn new(expected: Digest, size_bytes: u64) -> Self {
        let hasher = Hasher::new(expected.algorithm());
        Self { expected, hasher, size_bytes, cursor: 0, sent: 0, prefix: None, held: BytesMut::new() }
    }

    /// A check for a body whose first `sent` bytes have been sent already; they are hashed with the others.
    pub(super) fn resuming(expected: Digest, size_bytes: u64, sent: u64) -> Self {
        Self { sent, ..Self::new(expected, size_bytes) }
    }

    /// Has the beginning be the same as that which `prefix` tells of.
    pub(super) fn beginning_as(self, prefix: Prefix) -> Self {
        Self { prefix: Some(prefix).filter(|prefix| prefix.len_bytes > 0), ..self }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns true when not all bytes have been seen.
    pub(super) fn lacks_bytes(&self) -> bool {
        self.cursor < self.size_bytes
    }

    /// Takes the next bytes, of which there is at least one.
    pub(super) fn pass(&mut self, mut chunk: Bytes) -> Passed {
        if let Err(actual) = self.hash(&chunk) {
            return Passed::Wrong { actual };
        }
        let again = usize::try_from(self.sent.saturating_sub(self.cursor)).unwrap_or(usize::MAX).min(chunk.len());
        self.cursor += chunk.len() as u64;
        let start = self.cursor - (chunk.len() - again) as u64;
        drop(chunk.split_to(again));
        if self.cursor >= self.size_bytes {
            return self.end(chunk);
        }
        let free = self.size_bytes.saturating_sub(WITHHELD_BYTES).saturating_sub(start);
        let free = usize::try_from(free).unwrap_or(usize::MAX).min(chunk.len());
        self.held.extend_from_slice(&chunk.split_off(free));
        if chunk.is_empty() { Passed::Held } else { Passed::Some(chunk) }
    }

    /// Hashes the next bytes; where the prefix ends among them and is not as it should be, its digest is the error.
    fn hash(&mut self, chunk: &Bytes) -> Result<(), Digest> {
        let end = self.cursor + chunk.len() as u64;
        let Some(prefix) = self.prefix.take_if(|prefix| prefix.len_bytes <= end) else {
            self.hasher.update(chunk);
            return Ok(());
        };
        let len = usize::try_from(prefix.len_bytes.saturating_sub(self.cursor)).unwrap_or(usize::MAX);
        let (before, after) = chunk.split_at(len.min(chunk.len()));
        self.hasher.update(before);
        let actual = self.hasher.clone().finish();
        self.hasher.update(after);
        if actual == prefix.digest { Ok(()) } else { Err(actual) }
    }

    fn end(&mut self, chunk: Bytes) -> Passed {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(self.expected.algorithm()));
        let actual = hasher.finish();
        if actual != self.expected {
            return Passed::Wrong { actual };
        }
        if self.held.is_empty() {
            return Passed::Last(chunk);
        }
        self.held.extend_from_slice(&chunk);
        Passed::Last(self.held.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends `bytes` in pieces of `piece` and returns what passed, and whether the end was reached.
    fn send(expected: Digest, bytes: &Bytes, piece: usize, sent_before: usize) -> (Vec<u8>, bool) {
        let mut check = Check::resuming(expected, bytes.len() as u64, sent_before as u64);
        let (mut sent, mut rest) = (Vec::new(), bytes.clone());
        while !rest.is_empty() {
            match check.pass(rest.split_to(piece.min(rest.len()))) {
                Passed::Some(bytes) => sent.extend_from_slice(&bytes),
                Passed::Held => {}
                Passed::Last(bytes) => {
                    sent.extend_from_slice(&bytes);
                    return (sent, true);
                }
                Passed::Wrong { .. } => return (sent, false),
            }
        }
        (sent, false)
    }

    proptest! {
        #[test]
        fn right_bytes_pass_whole_and_wrong_ones_without_their_end(
            len in 1_usize..100_000,
            piece in 1_usize..70_000,
            wrong_at: prop::sample::Index,
            sent_before: prop::sample::Index,
        ) {
            let right: Bytes = vec![7; len].into();
            let digest = Digest::sha256(&right);
            prop_assert_eq!(send(digest, &right, piece, 0), (right.to_vec(), true));
            let before = sent_before.index(len);
            prop_assert_eq!(send(digest, &right, piece, before), (right[before..].to_vec(), true));
            let mut wrong = right.to_vec();
            wrong[wrong_at.index(len)] ^= 1;
            let withheld = usize::try_from(WITHHELD_BYTES).unwrap();
            let (sent, is_complete) = send(digest, &wrong.into(), piece, 0);
            prop_assert!(!is_complete && sent.len() <= len.saturating_sub(withheld), "{} of {}", sent.len(), len);
        }
    }
}
