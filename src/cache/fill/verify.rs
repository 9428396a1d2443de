//! Verification: hashing the bytes of a fill in order as its contiguous prefix grows.
//!
//! The verifier is one more reader, so it does not care in which order, from where or by how many transfers the bytes came, and it
//! hashes exactly the bytes that are kept and served (S-9).

use std::io;
use std::sync::Arc;

use super::follow::{FollowError, Follower};
use super::{Fill, FillError};
use crate::oci::Hasher;
use crate::store::blocking;

/// Bytes hashed in one go on the blocking pool: about a millisecond.
const BATCH_BYTES: usize = 1024 * 1024;

/// How verification ended when it could not be completed.
#[derive(Debug)]
pub(super) enum Unverified {
    Failed(FillError),
    /// The fill had failed already.
    Moot(Arc<FillError>),
    /// What landed cannot be read back.
    Unreadable(io::Error),
}

/// Hashes all bytes of `fill` and compares.
pub(super) async fn verify(fill: Arc<Fill>) -> Result<(), Unverified> {
    let expected = fill.key.digest;
    let mut follower = Follower::internal(fill);
    let mut hasher = Hasher::new(expected.algorithm());
    while let Some(batch) = gather(&mut follower).await? {
        hasher = hash(hasher, batch).await.map_err(Unverified::Unreadable)?;
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

/// Waits for bytes and takes what is there, up to a batch; `None` at the end.
async fn gather(follower: &mut Follower) -> Result<Option<Vec<bytes::Bytes>>, Unverified> {
    let mut batch = Vec::new();
    let mut len = 0;
    while len < BATCH_BYTES && (batch.is_empty() || follower.is_ready()) {
        match follower.next().await {
            None => break,
            Some(Ok(chunk)) => {
                len += chunk.len();
                batch.push(chunk);
            }
            Some(Err(FollowError::Fill(why))) => return Err(Unverified::Moot(why)),
            Some(Err(FollowError::Disk(error))) => return Err(Unverified::Unreadable(error)),
            Some(Err(FollowError::Outpaced)) => return Err(Unverified::Unreadable(io::ErrorKind::NotFound.into())),
        }
    }
    Ok((!batch.is_empty()).then_some(batch))
}
