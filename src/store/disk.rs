//! The disk tier: files by digest, in two budgets, with the least recently used removed first.
//!
//! Room is reserved **before** a byte is written: reserving removes the coldest objects of the budget, and of any budget when
//! the file system itself runs short of `min_free`. Removal is an unlink: a reader that holds the object reads on.
//! The order of use is exact in memory; on disk it is the modification time, written when it is older than [`RECENCY_GRAIN`],
//! so that a restart knows the order to that grain. A start serves at once; the scan that learns sizes and order runs beside it.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::layout::{self, CLASSES, Layout, seconds};
use super::ledger::Ledger;
use super::leftover::{self, Leftover, Leftovers};
use super::object::{Content, Object};
use super::partial::DiskPartial;
use super::recency::{Opened, Recency, Victim};
use super::{BlobStore, Class, Damage, Partial, StoreError};
use crate::oci::Digest;
use crate::telemetry::{EvictReason, Kind, Metrics, StoreErrorReason, StoreOperation, Tier, sentence};

/// How old the recorded time of use may grow before a hit writes it anew: one metadata write per object and minute at most.
const RECENCY_GRAIN: Duration = Duration::from_mins(1);

/// Found objects that are listed between two releases of their memory: some 3 MiB.
const SCAN_RELEASE: usize = 32 * 1024;

/// What the disk tier may use.
#[derive(Debug, Clone)]
pub struct Options {
    pub root: PathBuf,
    /// Bytes of layers at the most, unfinished ones included.
    pub capacity_bytes: u64,
    /// Bytes of manifests and image configs at the most.
    pub metadata_capacity_bytes: u64,
    /// Bytes that stay free on the file system.
    pub min_free_bytes: u64,
}

/// The disk tier; cheap to clone.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    options: Options,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    // A plain mutex: held for list operations only, never over I/O.
    shelves: Mutex<Shelves>,
    leftovers: Leftovers,
    /// The lists are complete: what they do not hold is not there.
    is_scanned: AtomicBool,
}

#[derive(Debug, Default)]
struct Shelves {
    layers: Shelf,
    metadata: Shelf,
}

#[derive(Debug, Default)]
struct Shelf {
    recency: Recency,
    reserved_bytes: u64,
    /// Damaged objects that cannot be removed from a disk that takes no writes: absent until they are replaced.
    condemned: HashSet<Digest>,
}

impl Shelves {
    fn of(&mut self, class: Class) -> &mut Shelf {
        match class {
            Class::Layer => &mut self.layers,
            Class::Metadata => &mut self.metadata,
        }
    }
}

impl Disk {
    /// Opens the store at `options.root`, making its directories and its ledger.
    ///
    /// # Errors
    /// When the directory cannot be written, or another process uses it.
    pub fn open(options: Options, metrics: Arc<Metrics>) -> Result<(Self, Arc<Ledger>), StoreError> {
        let layout = Layout::create(&options.root).map_err(|source| StoreError::Io {
            operation: StoreOperation::Open,
            path: options.root.display().to_string(),
            source,
        })?;
        let ledger = Arc::new(Ledger::open(&layout.ledger())?);
        metrics.storage().capacity(Tier::Disk, options.capacity_bytes.saturating_add(options.metadata_capacity_bytes));
        let (shelves, leftovers) = (Mutex::default(), Leftovers::default());
        let disk = Self(Arc::new(Inner {
            layout,
            options,
            ledger: Arc::clone(&ledger),
            metrics,
            shelves,
            leftovers,
            is_scanned: AtomicBool::new(false),
        }));
        disk.collect_leftovers()?;
        Ok((disk, ledger))
    }

    /// Takes over what unfinished fills of an earlier process left.
    fn collect_leftovers(&self) -> Result<(), StoreError> {
        let layout = self.layout();
        let all =
            leftover::collect(layout).map_err(|error| self.failed(StoreOperation::Open, &layout.partials(), error))?;
        for found in all {
            match self.reserve(found.class, found.size_bytes) {
                Ok(reservation) => {
                    let leftover::Found { digest, path, class, size_bytes, present } = found;
                    self.leave(
                        digest,
                        Leftover { path, class, size_bytes, present, reservation, since: Instant::now() },
                    );
                }
                Err(_no_room) => self.remove_leftover(&found.path),
            }
        }
        Ok(())
    }

    /// Keeps an unfinished object for the next fill of it.
    pub(super) fn leave(&self, digest: Digest, left: Leftover) {
        if let Some(other) = self.0.leftovers.leave(digest, left) {
            self.remove_leftover(&other.path);
        }
    }

    /// Removes what has been left for longer than `age`; true when there was any.
    fn expire_leftovers(&self, age: Duration) -> bool {
        let expired = self.0.leftovers.expire(age);
        for left in &expired {
            self.remove_leftover(&left.path);
        }
        !expired.is_empty()
    }

    fn remove_leftover(&self, path: &Path) {
        if let Err(source) = leftover::remove(path) {
            let error = self.failed(StoreOperation::Delete, path, source);
            tracing::warn!(error = sentence(&error), "what an unfinished fill left stays on disk");
        }
    }

    /// Learns the sizes and the order of use of what an earlier process stored. Blocks; meant to run beside serving.
    pub fn scan(&self) -> io::Result<()> {
        let mut all = Vec::new();
        self.0.layout.scan(|found| all.push(found))?;
        all.sort_unstable_by_key(|found| found.last_use);
        for class in CLASSES {
            let count = all.iter().filter(|found| found.class == class).count();
            self.list(class, |recency| recency.reserve(count));
        }
        // The hottest first; what has been listed is given back, or else everything would be in memory twice.
        while let Some(layout::Found { class, digest, size_bytes, last_use }) = all.pop() {
            self.list(class, |recency| recency.insert_coldest(digest, size_bytes, last_use));
            if all.len() % SCAN_RELEASE == 0 {
                all.shrink_to_fit();
            }
        }
        self.0.is_scanned.store(true, Ordering::Release);
        self.refresh_gauges();
        Ok(())
    }

    /// Removes the coldest objects until every budget and `min_free` are kept. Blocks.
    pub fn sweep(&self) {
        self.expire_leftovers(leftover::AGE_MAX);
        for class in [Class::Layer, Class::Metadata] {
            if let Ok(victims) = self.claim(class, 0) {
                self.unlink(class, &victims, EvictReason::Capacity);
            }
        }
        if let Err(error) = self.keep_min_free(0) {
            tracing::debug!(%error, "the file system has less free space than min_free, and nothing is left to remove");
        }
        self.refresh_gauges();
    }

    /// Brings the storage gauges up to date: one `statvfs`.
    pub fn refresh_gauges(&self) {
        let storage = self.0.metrics.storage();
        let (used, layers, metadata) = {
            let mut shelves = self.shelves();
            let used = [Class::Layer, Class::Metadata].map(|class| shelves.of(class).recency.used_bytes());
            (used.iter().sum(), shelves.layers.recency.len(), shelves.metadata.recency.len())
        };
        storage.used(Tier::Disk, used);
        storage.objects(Tier::Disk, Kind::Blob, layers as u64);
        storage.objects(Tier::Disk, Kind::ManifestDigest, metadata as u64);
        if let Ok((available, size)) = self.space() {
            storage.filesystem(available, size);
        }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// Reserves `bytes` in the budget of `class`, removing the coldest objects for them.
    ///
    /// # Errors
    /// `NoRoom` when the budget or the file system cannot hold them even so; then nothing is removed for this budget.
    pub(super) fn reserve(&self, class: Class, bytes: u64) -> Result<Reservation, StoreError> {
        let reserved = self.try_reserve(class, bytes);
        // Room is worth more than a head start.
        if reserved.is_err() && self.expire_leftovers(Duration::ZERO) {
            self.try_reserve(class, bytes)
        } else {
            reserved
        }
    }

    fn try_reserve(&self, class: Class, bytes: u64) -> Result<Reservation, StoreError> {
        let victims = self.claim(class, bytes)?;
        let reservation = Reservation { disk: self.clone(), class, bytes };
        self.unlink(class, &victims, EvictReason::Capacity);
        self.keep_min_free(bytes)?;
        Ok(reservation)
    }

    /// Enters a committed object, the hottest of its budget.
    pub(super) fn committed(&self, class: Class, digest: Digest, size_bytes: u64) {
        let now = seconds(SystemTime::now());
        let (other_class, other) = {
            let mut shelves = self.shelves();
            shelves.of(class).recency.insert(digest, size_bytes, now);
            shelves.of(class).condemned.remove(&digest);
            let other_class = class.other();
            (other_class, shelves.of(other_class).recency.remove(&digest))
        };
        if let Some(other) = other {
            // It could not be opened, or else it had not been fetched anew.
            let path = self.0.layout.object(other_class, &other.digest);
            if let Err(source) = std::fs::remove_file(&path) {
                let _counted = self.failed(StoreOperation::Delete, &path, source);
            }
        }
        self.refresh_gauges();
    }

    /// Counts a failed operation and returns it as an error.
    pub(super) fn failed(&self, operation: StoreOperation, path: &Path, source: io::Error) -> StoreError {
        self.0.metrics.storage().failed(operation, StoreErrorReason::of(&source));
        StoreError::Io { operation, path: path.display().to_string(), source }
    }

    pub(super) fn operated(&self, operation: StoreOperation, began: Instant) {
        self.0.metrics.storage().operated(operation, began.elapsed());
    }

    /// Adds `bytes` to what is reserved and takes the coldest objects off the list until the budget holds.
    fn claim(&self, class: Class, bytes: u64) -> Result<Vec<Victim>, StoreError> {
        let budget = match class {
            Class::Layer => self.0.options.capacity_bytes,
            Class::Metadata => self.0.options.metadata_capacity_bytes,
        };
        let mut shelves = self.shelves();
        let shelf = shelves.of(class);
        let reserved = shelf.reserved_bytes.saturating_add(bytes);
        if reserved > budget {
            return Err(StoreError::NoRoom { needed_bytes: bytes });
        }
        shelf.reserved_bytes = reserved;
        let mut victims = Vec::new();
        while shelf.recency.used_bytes().saturating_add(reserved) > budget
            && let Some(victim) = shelf.recency.pop_coldest()
        {
            victims.push(victim);
        }
        Ok(victims)
    }

    /// Removes the coldest layers, then the coldest metadata, until `bytes` more leave `min_free` on the file system.
    fn keep_min_free(&self, bytes: u64) -> Result<(), StoreError> {
        let root = self.0.layout.root();
        let (available, _) = self.space().map_err(|source| self.failed(StoreOperation::Open, root, source))?;
        let mut missing = self.0.options.min_free_bytes.saturating_add(bytes).saturating_sub(available);
        let held: u64 = {
            let mut shelves = self.shelves();
            [Class::Layer, Class::Metadata].map(|class| shelves.of(class).recency.used_bytes()).iter().sum()
        };
        if missing > held {
            return Err(StoreError::NoRoom { needed_bytes: bytes });
        }
        for class in [Class::Layer, Class::Metadata] {
            while missing > 0
                && let Some(victim) = self.pop_coldest(class)
            {
                missing = missing.saturating_sub(victim.size_bytes);
                self.unlink(class, &[victim], EvictReason::MinFree);
            }
        }
        Ok(())
    }

    fn pop_coldest(&self, class: Class) -> Option<Victim> {
        self.shelves().of(class).recency.pop_coldest()
    }

    fn unlink(&self, class: Class, victims: &[Victim], reason: EvictReason) {
        let now = seconds(SystemTime::now());
        for victim in victims {
            if self.unlink_one(class, victim, reason) {
                let idle = Duration::from_secs(now.saturating_sub(victim.last_use));
                self.0.metrics.storage().victim_idle(Tier::Disk, idle);
            }
        }
    }

    /// Removes an object that is off the list, and its grants; false when its file stays.
    pub(super) fn unlink_one(&self, class: Class, victim: &Victim, reason: EvictReason) -> bool {
        let path = self.0.layout.object(class, &victim.digest);
        let began = Instant::now();
        if let Err(source) = std::fs::remove_file(&path)
            && source.kind() != io::ErrorKind::NotFound
        {
            let error = self.failed(StoreOperation::Delete, &path, source);
            tracing::warn!(error = sentence(&error), "a removed object stays on disk");
            return false;
        }
        self.operated(StoreOperation::Delete, began);
        self.0.ledger.forget(&victim.digest);
        self.0.metrics.storage().evicted(Tier::Disk, reason, victim.size_bytes);
        true
    }

    /// Looks into the list of one budget, or changes it.
    pub(super) fn list<T>(&self, class: Class, work: impl FnOnce(&mut Recency) -> T) -> T {
        work(&mut self.shelves().of(class).recency)
    }

    /// Lets an object count as absent although its file cannot be removed.
    pub(super) fn condemn(&self, class: Class, digest: &Digest) {
        self.shelves().of(class).condemned.insert(*digest);
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Returns the bytes free for us, and the size of the file system.
    fn space(&self) -> io::Result<(u64, u64)> {
        space_at(self.0.layout.root())
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.0.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_in(&self, class: Class, digest: &Digest) -> io::Result<Object> {
        let known = {
            let mut shelves = self.shelves();
            let shelf = shelves.of(class);
            if shelf.condemned.contains(digest) {
                return Err(io::ErrorKind::NotFound.into());
            }
            shelf.recency.mark(digest)
        };
        let file = layout::open(&self.0.layout.object(class, digest))?;
        let metadata = file.metadata()?;
        let now = SystemTime::now();
        let size_bytes = metadata.len();
        let mark = match self.list(class, |recency| recency.opened(*digest, size_bytes, seconds(now))) {
            Opened::Whole(mark) if known.is_some_and(|known| known.is_same_file(mark)) => mark,
            // Another file was put in its place since the look, before or after the opening: this one is to be read with care.
            Opened::Whole(mark) => known.unwrap_or(mark).unverified(),
            Opened::Resized(mark) if known.is_some_and(|known| known.is_same_file(mark)) => {
                return Err(self.discard_resized(class, digest, mark, size_bytes));
            }
            Opened::Resized(_) => return Err(io::ErrorKind::NotFound.into()),
        };
        // What a crash of the machine leaves most often.
        if size_bytes == 0 && Digest::of(digest.algorithm(), b"") != *digest {
            return Err(self.discard_resized(class, digest, mark, size_bytes));
        }
        if metadata.modified().is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age > RECENCY_GRAIN)) {
            // Only the order after a restart depends on it: on a read-only disk it stays as it was.
            let _kept_as_it_was = file.set_modified(now);
        }
        Ok(Object { size_bytes, content: Content::File(Arc::new(file)), mark })
    }
}

/// Makes the directory `root` and returns the size in bytes of the file system that it is on.
pub fn prepare(root: &Path) -> Result<u64, StoreError> {
    let failed = |source| StoreError::Io { operation: StoreOperation::Open, path: root.display().to_string(), source };
    layout::make_directory(root).map_err(failed)?;
    space_at(root).map(|(_, size_bytes)| size_bytes).map_err(failed)
}

/// Returns the bytes available and the size in bytes of the file system that holds `path`.
fn space_at(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}

impl BlobStore for Disk {
    fn peek(&self, _digest: &Digest) -> Option<Object> {
        None
    }

    fn is_absent(&self, digest: &Digest) -> bool {
        self.0.is_scanned.load(Ordering::Acquire)
            && !self.0.leftovers.holds(digest)
            && CLASSES.iter().all(|class| self.list(*class, |recency| recency.mark(digest).is_none()))
    }

    fn touch(&self, digest: &Digest) {
        let now = seconds(SystemTime::now());
        let mut shelves = self.shelves();
        shelves.layers.recency.touch(digest, now);
        shelves.metadata.recency.touch(digest, now);
    }

    fn open(&self, digest: &Digest) -> Option<Object> {
        let began = Instant::now();
        for class in CLASSES {
            match self.open_in(class, digest) {
                Ok(object) => {
                    self.operated(StoreOperation::Open, began);
                    return Some(object);
                }
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    let error = self.failed(StoreOperation::Open, &self.0.layout.object(class, digest), source);
                    tracing::warn!(error = sentence(&error), "a stored object cannot be opened and counts as absent");
                }
            }
        }
        None
    }

    fn begin(&self, digest: &Digest, class: Class, size_bytes: Option<u64>) -> Result<Arc<dyn Partial>, StoreError> {
        Ok(Arc::new(DiskPartial::create(self, digest, class, size_bytes)?))
    }

    fn resume(&self, digest: &Digest) -> Option<Arc<dyn Partial>> {
        let left = self.0.leftovers.take(digest)?;
        let path = left.path.clone();
        match DiskPartial::resume(self, digest, left) {
            Ok(partial) => Some(Arc::new(partial)),
            Err(error) => {
                tracing::warn!(error = sentence(&error), "what an unfinished fill left cannot be used");
                self.remove_leftover(&path);
                None
            }
        }
    }

    fn verified(&self, digest: &Digest, object: &Object) {
        let now = seconds(SystemTime::now());
        let mut shelves = self.shelves();
        for class in CLASSES {
            shelves.of(class).recency.verified(digest, object.mark, now);
        }
    }

    fn discard(&self, digest: &Digest, object: &Object, damage: Damage) -> bool {
        CLASSES.iter().any(|class| self.discard_in(*class, digest, object.mark, damage))
    }
}

/// Bytes set aside in a budget; dropping it gives them back.
#[derive(Debug)]
pub(super) struct Reservation {
    disk: Disk,
    class: Class,
    bytes: u64,
}

impl Reservation {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what it holds: the object is counted by its size from here on.
    pub(super) fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut shelves = self.disk.shelves();
        let shelf = shelves.of(self.class);
        shelf.reserved_bytes = shelf.reserved_bytes.saturating_sub(bytes);
    }

    /// Hands over what it holds.
    pub(super) fn take(&mut self) -> Self {
        Self { disk: self.disk.clone(), class: self.class, bytes: std::mem::take(&mut self.bytes) }
    }

    /// Takes over what `other` holds.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}
