//! Reused read buffers, so that serving a chunk neither allocates nor clears memory.
//!
//! A buffer travels to the socket as [`Bytes`] and comes back to the pool when the last reference to it is dropped.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

/// Bytes in one buffer, and so in one chunk of a body at the most.
///
/// A response holds at most two of them (one in hyper, one on its way there): this bounds the memory of a connection.
/// Larger chunks gain little: the read is a copy from the page cache either way.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Fewer bytes get a buffer of their own size: a thousand readers that wait for the same bytes read few of them at a time.
const POOLED_BYTES_MIN: usize = 16 * 1024;

/// Free buffers that the pool keeps at the most: 16 MiB.
const FREE_MAX: usize = 256;

/// A pool of buffers of [`CHUNK_BYTES`] each, beside small ones that are not kept; cheap to clone.
#[derive(Debug, Clone)]
pub struct Buffers {
    free: Arc<ArrayQueue<Box<[u8]>>>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { free: Arc::new(ArrayQueue::new(FREE_MAX)) }
    }
}

impl Buffers {
    /// Takes a buffer for at most `limit` bytes from the pool, or makes one.
    pub fn take(&self, limit: usize) -> Buffer {
        let make = |len| vec![0; len].into_boxed_slice();
        let bytes =
            if limit < POOLED_BYTES_MIN { make(limit) } else { self.free.pop().unwrap_or_else(|| make(CHUNK_BYTES)) };
        Buffer { bytes, filled: 0, pool: self.clone() }
    }
}

/// A buffer on loan; dropping it gives it back.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
    pool: Buffers,
}

impl Buffer {
    /// Returns the first `limit` bytes to read into, at most [`CHUNK_BYTES`].
    pub fn space(&mut self, limit: usize) -> &mut [u8] {
        let limit = limit.min(self.bytes.len());
        self.bytes.get_mut(..limit).unwrap_or_default()
    }

    /// Returns the first `filled` bytes; the buffer comes back to the pool when they are dropped.
    pub fn into_bytes(mut self, filled: usize) -> Bytes {
        self.filled = filled.min(self.bytes.len());
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() == CHUNK_BYTES {
            // One more than the pool keeps is freed.
            let _one_too_many = self.pool.free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_the_last_reference_to_its_bytes_is_dropped() {
        let pool = Buffers::default();
        let mut buffer = pool.take(CHUNK_BYTES);
        buffer.space(3).copy_from_slice(b"abc");
        let bytes = buffer.into_bytes(3);
        let tail = bytes.slice(1..);
        drop(bytes);
        assert_eq!((pool.free.len(), &tail[..]), (0, &b"bc"[..]));
        drop(tail);
        assert_eq!(pool.free.len(), 1);
        let mut small = pool.take(3);
        assert_eq!((small.space(9).len(), pool.free.len()), (3, 1));
        drop(small);
        assert_eq!(pool.free.len(), 1, "small ones are not kept");
    }
}
