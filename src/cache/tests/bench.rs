//! A cache over one scripted origin and a store with a fault.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::faulty::{DiskFault, FaultyStore};
use super::origin::ScriptedOrigin;
use super::{LIMITS, MIB, PARALLEL};
use crate::cache::{
    AccessRules, BlobAnswer, BlobBody, BlobQuestion, Cache, CacheError, Filling, Parts, Policy, Prefetch, Rules,
    Upstream,
};
use crate::oci::Digest;
use crate::store::{BlobStore, Disk, Ledger, Options};
use crate::tasks::TaskGroup;
use crate::telemetry::Metrics;
use crate::upstream::Origin;

/// Everybody may read what it has.
pub(super) fn access() -> AccessRules {
    AccessRules { is_for_callers: false, except: Vec::new(), ttl: Duration::ZERO, stale_if_error: Duration::ZERO }
}

/// A cache over one scripted origin.
pub(super) struct Bench {
    pub(super) cache: Cache,
    pub(super) upstream: Arc<Upstream>,
    pub(super) origin: Arc<ScriptedOrigin>,
    pub(super) disk: Disk,
    pub(super) tasks: TaskGroup,
    pub(super) blob: Bytes,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) directory: tempfile::TempDir,
    pub(super) disk_gate: Arc<Semaphore>,
}

impl Bench {
    pub(super) fn new(origin: ScriptedOrigin) -> Self {
        Self::with_disk(origin, DiskFault::None)
    }

    pub(super) fn with_disk(origin: ScriptedOrigin, fault: DiskFault) -> Self {
        Self::over(tempfile::tempdir().unwrap(), Arc::new(origin), fault, false)
    }

    pub(super) fn over(
        directory: tempfile::TempDir,
        origin: Arc<ScriptedOrigin>,
        fault: DiskFault,
        offline: bool,
    ) -> Self {
        let metrics = Arc::new(Metrics::new(std::slice::from_ref(&origin.name), 0).unwrap());
        let options = Options {
            root: directory.path().to_owned(),
            capacity_bytes: 1024 * MIB,
            metadata_capacity_bytes: MIB,
            min_free_bytes: 0,
        };
        let (disk, ledger) = Disk::open(options, Arc::clone(&metrics)).unwrap();
        let tasks = TaskGroup::new();
        let blob = origin.blob.clone();
        let policy = Policy {
            tag_ttl: Duration::from_secs(10),
            stale_if_error: Duration::from_hours(1),
            stale_if_limited: true,
            stale_wait: Duration::from_secs(2),
            negative_ttl: Duration::ZERO,
            offline,
            is_immutable: false,
        };
        let rules = Rules { policy, immutable_tags: Vec::new(), tells_429: false, access: access() };
        let filling = Filling { limits: LIMITS, parallel: PARALLEL, prefetch: Prefetch::Off };
        let upstream =
            Upstream::new(Arc::clone(&origin) as Arc<dyn Origin>, rules, filling, metrics.upstream(&origin.name))
                .into();
        let disk_gate = Arc::new(Semaphore::new(0));
        let (replaced, gate) = (AtomicBool::new(false), Arc::clone(&disk_gate));
        let store = Arc::new(FaultyStore { disk: disk.clone(), fault, replaced, gate });
        let kept = Arc::clone(&ledger);
        let cache = Cache::new(Parts { store, ledger, tasks: tasks.clone(), fills: LIMITS, client_fills: LIMITS });
        Self { cache, upstream, origin, disk, tasks, blob, metrics, ledger: kept, directory, disk_gate }
    }

    /// Ends this process, so to speak, and begins the next one over the same store.
    pub(super) async fn restart(self, fault: DiskFault, offline: bool) -> Self {
        let Self { cache, origin, disk, tasks, ledger, directory, .. } = self;
        assert_eq!(tasks.drain(Duration::from_secs(20)).await, 0, "a task hangs");
        ledger.flush().unwrap();
        drop((cache, disk, ledger));
        let bench = Self::over(directory, origin, fault, offline);
        bench.disk.scan().unwrap();
        bench
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::sha256(&self.blob)
    }

    pub(super) async fn ask(&self, repository: &str, digest: Digest) -> Result<BlobAnswer, CacheError> {
        let upstream = &self.upstream;
        let repository = repository.parse().unwrap();
        let question = BlobQuestion {
            upstream,
            repository: &repository,
            digest: &digest,
            wants_bytes: true,
            client: None,
            first_byte: 0,
        };
        self.cache.blob(&question).await
    }

    pub(super) async fn open(&self) -> BlobAnswer {
        self.ask("app", self.digest()).await.unwrap()
    }

    /// Waits until no task runs, then checks that nothing is left over.
    pub(super) async fn settle(self) {
        assert_eq!(self.tasks.drain(Duration::from_secs(20)).await, 0, "a task hangs");
        assert_eq!(self.cache.fills_under_way(), 0, "a fill is listed after its end");
        drop(self.cache);
        let left: Vec<_> = std::fs::read_dir(self.directory.path().join("partial")).unwrap().collect();
        assert!(left.is_empty(), "a partial is left: {left:?}");
    }

    pub(super) fn is_stored(&self) -> bool {
        self.disk.open(&self.digest()).is_some()
    }
}

/// Bytes that differ at every offset that matters.
pub(super) fn blob(len: u64) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(usize::try_from(len).unwrap()).collect()
}

pub(super) async fn read(mut body: BlobBody) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(_) => return (bytes, false),
        }
    }
    (bytes, true)
}
