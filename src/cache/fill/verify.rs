//! Verification: hashing the bytes of a fill in order as its contiguous prefix grows.
//!
//! The verifier is one more reader, so it does not care in which order, from where or by how many transfers the bytes came, and it
//! hashes exactly the bytes that are kept and served (S-9).

use std::io;
use std::sync::Arc;

use super::follow::{FollowError, Follower};
use super::{Fill, FillError};
use crate::oci::{Digest, Hasher};
use crate::store::blocking;

/// Bytes hashed in one go on the blocking pool: about a millisecond.
const BATCH_BYTES: usize = 1024 * 1024;

/// A blob's beginning as it was landed, and sent to those who follow: what vouches for it when the rest cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    pub len_bytes: u64,
    pub digest: Digest,
}

/// How verification ended when it could not be completed.
#[derive(Debug)]
pub(super) enum Unverified {
    Failed(FillError),
    /// The fill had failed already.
    Moot(Arc<FillError>),
    /// What landed cannot be read back beyond `prefix`.
    Unreadable {
        prefix: Prefix,
        error: io::Error,
    },
}

/// Why no more bytes can be gathered.
enum Stuck {
    Moot(Arc<FillError>),
    Unreadable(io::Error),
}

/// Hashes all bytes of `fill` and compares.
pub(super) async fn verify(fill: Arc<Fill>) -> Result<(), Unverified> {
    let expected = fill.key.digest;
    let mut follower = Follower::internal(Arc::clone(&fill));
    let mut hasher = Hasher::new(expected.algorithm());
    loop {
        match gather(&mut follower).await {
            Ok(batch) if batch.is_empty() => break,
            // The pool does no I/O here: it fails with the runtime only.
            Ok(batch) => {
                let hashed = hash(hasher, batch).await;
                hasher = hashed.map_err(|_stopped| Unverified::Failed(FillError::Aborted))?;
                fill.hashed(follower.cursor());
            }
            Err(Stuck::Moot(why)) => return Err(Unverified::Moot(why)),
            Err(Stuck::Unreadable(error)) => {
                let prefix = Prefix { len_bytes: follower.cursor(), digest: hasher.finish() };
                return Err(Unverified::Unreadable { prefix, error });
            }
        }
    }
    let actual = hasher.finish();
    if actual == expected { Ok(()) } else { Err(Unverified::Failed(FillError::DigestMismatch { expected, actual })) }
}

async fn hash(mut hasher: Hasher, batch: Vec<bytes::Bytes>) -> io::Result<Hasher> {
    blocking(move || {
        for chunk in &batch {
            hasher.update(chunk);
        }
        Ok(hasher)
    })
    .await
}

/// Waits for bytes and takes what is there, up to a batch; nothing at the end. A batch is whole: an error comes where one would begin.
async fn gather(follower: &mut Follower) -> Result<Vec<bytes::Bytes>, Stuck> {
    let mut batch = Vec::new();
    let mut len = 0;
    while len < BATCH_BYTES && (batch.is_empty() || follower.is_ready()) {
        match follower.next().await {
            None => break,
            Some(Ok(chunk)) => {
                len += chunk.len();
                batch.push(chunk);
            }
            Some(Err(FollowError::Fill(why))) => return Err(Stuck::Moot(why)),
            // It comes up again.
            Some(Err(FollowError::Disk(_) | FollowError::Outpaced)) if !batch.is_empty() => break,
            Some(Err(FollowError::Disk(error))) => return Err(Stuck::Unreadable(error)),
            Some(Err(FollowError::Outpaced)) => return Err(Stuck::Unreadable(io::ErrorKind::NotFound.into())),
        }
    }
    Ok(batch)
}
