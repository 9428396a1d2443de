//! The memory tier: manifests, image configs and small blobs, weighed in bytes, in front of another store.
//!
//! An object comes in when it is stored or first read; it leaves by least recent use, and stays on disk.

use std::sync::Arc;

use bytes::Bytes;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{BlobStore, Class, ClientPrint, Damage, Object, Partial, StoreError};
use crate::oci::Digest;
use crate::telemetry::{EvictReason, Kind, MemoryLookup, Metrics, MismatchSource, Tier};
use crate::wire::ContentHeaders;

/// The largest object that the tier holds: a manifest of the largest size that is accepted fits, a layer does not push manifests out.
const OBJECT_BYTES_MAX: u64 = 5 * 1024 * 1024;

/// The largest blob that is no manifest and no image config and still worth memory.
const SMALL_BLOB_BYTES_MAX: u64 = 64 * 1024;

/// What an entry costs beside its bytes: key, pointers, counters, header values.
const ENTRY_OVERHEAD_BYTES: u32 = 512;

/// One object of the tier.
#[derive(Debug, Clone)]
struct Kept {
    bytes: Bytes,
    headers: Arc<ContentHeaders>,
}

impl Kept {
    fn new(digest: &Digest, bytes: Bytes) -> Self {
        Self { headers: Arc::new(ContentHeaders::of(digest, Some(bytes.len() as u64))), bytes }
    }

    fn object(self) -> Object {
        Object::in_memory(self.bytes, self.headers)
    }
}

/// A store with a memory tier in front.
#[derive(Debug)]
pub struct Memory<S> {
    below: S,
    objects: Cache<Digest, Kept>,
    metrics: Arc<Metrics>,
}

impl<S: BlobStore> Memory<S> {
    /// Puts a tier of at most `capacity_bytes` in front of `below`.
    pub fn over(below: S, capacity_bytes: u64, metrics: Arc<Metrics>) -> Self {
        metrics.storage().capacity(Tier::Memory, capacity_bytes);
        let evicting = Arc::clone(&metrics);
        let objects = Cache::builder()
            .max_capacity(capacity_bytes)
            .weigher(|_, kept: &Kept| {
                u32::try_from(kept.bytes.len()).unwrap_or(u32::MAX).saturating_add(ENTRY_OVERHEAD_BYTES)
            })
            .eviction_listener(move |_, kept: Kept, cause| {
                if cause == RemovalCause::Size {
                    evicting.storage().evicted(Tier::Memory, EvictReason::Capacity, kept.bytes.len() as u64);
                }
            })
            // The default policy may refuse a newcomer: a manifest just fetched would then be asked for again.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { below, objects, metrics }
    }

    /// Brings the gauges of the tier up to date.
    pub fn refresh_gauges(&self) {
        self.objects.run_pending_tasks();
        self.metrics.storage().used(Tier::Memory, self.objects.weighted_size());
        self.metrics.storage().objects(Tier::Memory, Kind::Other, self.objects.entry_count());
    }

    /// Reads a small object from below into the tier, checking it on the way (P-146).
    fn load(&self, digest: &Digest, object: &Object) -> Option<Object> {
        let bytes = match object.read_all() {
            Ok(bytes) => bytes,
            Err(error) => {
                if let Some(damage) = Damage::of(&error)
                    && self.below.discard(digest, object, damage)
                {
                    tracing::error!(%digest, %error, "a stored object cannot be read and is dropped");
                }
                return None;
            }
        };
        if Digest::of(digest.algorithm(), &bytes) != *digest {
            if self.below.discard(digest, object, Damage::Mismatch) {
                tracing::error!(%digest, "a stored object does not match its digest and is dropped");
                self.metrics.stored_mismatch(MismatchSource::Disk);
            }
            return None;
        }
        self.below.verified(digest, object);
        let kept = Kept::new(digest, bytes);
        self.objects.insert(*digest, kept.clone());
        Some(kept.object())
    }
}

impl<S: BlobStore> BlobStore for Memory<S> {
    fn peek(&self, digest: &Digest) -> Option<Object> {
        let Some(kept) = self.objects.get(digest) else {
            self.metrics.storage().memory_lookup(MemoryLookup::Miss);
            return self.below.peek(digest);
        };
        self.metrics.storage().memory_lookup(MemoryLookup::Hit);
        self.below.touch(digest);
        Some(kept.object())
    }

    fn is_absent(&self, digest: &Digest) -> bool {
        !self.objects.contains_key(digest) && self.below.is_absent(digest)
    }

    fn touch(&self, digest: &Digest) {
        self.below.touch(digest);
    }

    fn asked(&self, digest: &Digest, client: ClientPrint) {
        self.below.asked(digest, client);
    }

    fn open(&self, digest: &Digest) -> Option<Object> {
        let object = self.below.open(digest)?;
        if object.size_bytes <= SMALL_BLOB_BYTES_MAX { self.load(digest, &object) } else { Some(object) }
    }

    fn resume(&self, digest: &Digest) -> Option<Arc<dyn Partial>> {
        self.below.resume(digest)
    }

    fn begin(&self, digest: &Digest, class: Class, size_bytes: Option<u64>) -> Result<Arc<dyn Partial>, StoreError> {
        self.below.begin(digest, class, size_bytes)
    }

    fn put(&self, digest: &Digest, class: Class, bytes: &Bytes) -> Result<(), StoreError> {
        let kept = match class {
            Class::Metadata => bytes.len() as u64 <= OBJECT_BYTES_MAX,
            Class::Layer => bytes.len() as u64 <= SMALL_BLOB_BYTES_MAX,
        };
        if kept {
            self.objects.insert(*digest, Kept::new(digest, bytes.clone()));
        }
        self.below.put(digest, class, bytes)
    }

    fn verified(&self, digest: &Digest, object: &Object) {
        self.below.verified(digest, object);
    }

    fn discard(&self, digest: &Digest, object: &Object, damage: Damage) -> bool {
        self.below.discard(digest, object, damage)
    }
}
