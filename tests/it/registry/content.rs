//! The bytes of a blob or a manifest, readable at any offset, also when they were never held in memory.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cachalot::oci::{Algorithm, Digest, Hasher};

/// Bytes hashed at a time; bounds the memory of [`Content::digest`].
const HASH_CHUNK: u64 = 1 << 20;

/// Some bytes with a known length, and their digest, computed once.
#[derive(Clone)]
pub(crate) struct Content {
    source: Source,
    length: u64,
    digest: Arc<OnceLock<Digest>>,
}

#[derive(Clone)]
enum Source {
    Held(Bytes),
    /// Pseudo-random: eight bytes are a function of the seed and their place.
    Generated {
        seed: u64,
    },
}

impl Content {
    /// Makes `length` bytes out of `seed`; costs no memory, whatever the length.
    pub(crate) fn generated(seed: u64, length: u64) -> Self {
        Self { source: Source::Generated { seed }, length, digest: Arc::default() }
    }

    /// Returns the length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Returns the SHA-256 digest; the first call reads everything.
    pub(crate) fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            let mut at = 0;
            while at < self.length {
                let chunk = self.read(at, HASH_CHUNK);
                at += chunk.len() as u64;
                hasher.update(&chunk);
            }
            hasher.finish()
        })
    }

    /// Returns the bytes from `offset` on, at most `limit`, fewer only at the end.
    pub(crate) fn read(&self, offset: u64, limit: u64) -> Bytes {
        let start = offset.min(self.length);
        let end = start.saturating_add(limit).min(self.length);
        match &self.source {
            Source::Held(bytes) => bytes.slice(to_usize(start)..to_usize(end)),
            Source::Generated { seed } => generate(*seed, start, end),
        }
    }

    /// Returns all bytes.
    pub(crate) fn bytes(&self) -> Bytes {
        self.read(0, self.length)
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self { length: bytes.len() as u64, source: Source::Held(bytes), digest: Arc::default() }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Bytes::copy_from_slice(bytes).into()
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

/// Generates the bytes `start..end`.
fn generate(seed: u64, start: u64, end: u64) -> Bytes {
    let first = start / 8;
    let mut bytes = Vec::with_capacity(to_usize(end - start) + 16);
    for block in first..end.div_ceil(8) {
        bytes.extend_from_slice(&mix(seed, block).to_le_bytes());
    }
    let skipped = to_usize(start - first * 8);
    Bytes::from(bytes).slice(skipped..skipped + to_usize(end - start))
}

/// Returns the eight bytes at a block: the finaliser of splitmix64.
fn mix(seed: u64, block: u64) -> u64 {
    let mut word = seed.wrapping_add(block.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn to_usize(length: u64) -> usize {
    usize::try_from(length).expect("tests run on 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_bytes_are_the_same_at_every_cut() {
        let content = Content::generated(7, 100);
        let whole = content.bytes();
        assert_eq!(whole.len(), 100);
        for start in 0..100 {
            for end in start..=100 {
                assert_eq!(content.read(start as u64, (end - start) as u64), whole.slice(start..end));
            }
        }
        assert_eq!(content.digest(), Digest::sha256(&whole));
        assert_ne!(whole, Content::generated(8, 100).bytes());
    }
}
