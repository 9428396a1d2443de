//! The disk tier: files by digest, in two budgets, with the least recently used removed first.
//!
//! Room is reserved **before** a byte is written: reserving removes the coldest objects of the budget, and of any budget when
//! the file system itself runs short of `min_free`. Removal is an unlink: a reader that holds the object reads on.
//! The order of use is exact in memory; on disk it is the modification time, written when it is older than [`RECENCY_GRAIN`],
//! so that a restart knows the order to that grain. A start serves at once; the scan that learns sizes and order runs beside it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use moka::sync::Cache;

use super::layout::{self, CLASSES, Layout};
use super::ledger::Ledger;
use super::leftover::{self, Leftover, Leftovers};
use super::object::{Content, Object};
use super::partial::DiskPartial;
use super::recency::{Opened, Victim};
use super::reservation::Reservation;
use super::shelves::{Shelf, Shelves};
use super::time::Time;
use super::{BlobStore, Class, ClientPrint, Damage, Mark, Partial, StoreError};
use crate::oci::Digest;
use crate::telemetry::{EvictReason, Kind, Metrics, StoreErrorReason, StoreOperation, Tier, sentence};
use crate::wire::ContentHeaders;

/// How old the recorded time of use may grow before a hit writes it anew: one metadata write per object and minute at most.
const RECENCY_GRAIN: Duration = Duration::from_mins(1);

/// Found objects that are listed between two releases of their memory: some 3 MiB.
const SCAN_RELEASE: usize = 32 * 1024;

/// Objects whose header values are kept ready: those in use, in some 4 MiB.
const HEADERS_MAX: u64 = 10_000;

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
    shelves: Shelves,
    leftovers: Leftovers,
    /// Ready for answers with objects that are asked for again and again.
    headers: Cache<(Digest, u64), Arc<ContentHeaders>>,
    /// The lists are complete: what they do not hold is not there.
    is_scanned: AtomicBool,
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
        let shelves = Shelves::new(options.capacity_bytes, options.metadata_capacity_bytes);
        let disk = Self(Arc::new(Inner {
            layout,
            options,
            ledger: Arc::clone(&ledger),
            metrics,
            shelves,
            leftovers: Leftovers::default(),
            headers: Cache::new(HEADERS_MAX),
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
            match self.reserve_for(found.class, found.size_bytes, found.present.len_bytes()) {
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
            let of_class = all.iter().filter(|found| found.class == class);
            self.shelf(class).expect(of_class.map(|found| &found.digest));
        }
        // The hottest first; what has been listed is given back, or else everything would be in memory twice.
        while let Some(layout::Found { class, digest, size_bytes, last_use }) = all.pop() {
            self.shelf(class).list(&digest, |recency| recency.insert_coldest(digest, size_bytes, last_use));
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
        for class in CLASSES {
            if let Some(victims) = self.shelf(class).claim(0, 0) {
                self.unlink(class, &victims, EvictReason::Capacity);
            }
        }
        match self.keep_min_free() {
            Ok(true) => {}
            Ok(false) => {
                tracing::debug!("the file system has less free than min_free, and removing all would not change that");
            }
            Err(error) => tracing::debug!(error = sentence(&error), "the free space is not known"),
        }
        self.refresh_gauges();
    }

    /// Brings the storage gauges up to date: one `statvfs`.
    pub fn refresh_gauges(&self) {
        let storage = self.0.metrics.storage();
        storage.used(Tier::Disk, self.0.shelves.used_bytes());
        storage.objects(Tier::Disk, Kind::Blob, self.shelf(Class::Layer).len() as u64);
        storage.objects(Tier::Disk, Kind::ManifestDigest, self.shelf(Class::Metadata).len() as u64);
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
        let reserved = self.reserve_for(class, bytes, 0);
        // Room is worth more than a head start.
        if reserved.is_err() && self.expire_leftovers(Duration::ZERO) {
            self.reserve_for(class, bytes, 0)
        } else {
            reserved
        }
    }

    /// Reserves `bytes`, of which so many are on the file system already.
    fn reserve_for(&self, class: Class, bytes: u64, written_bytes: u64) -> Result<Reservation, StoreError> {
        let no_room = || StoreError::NoRoom { needed_bytes: bytes };
        let victims = self.shelf(class).claim(bytes, written_bytes).ok_or_else(no_room)?;
        let reservation = Reservation::of_claimed(self.clone(), class, bytes, written_bytes);
        self.unlink(class, &victims, EvictReason::Capacity);
        if self.keep_min_free()? { Ok(reservation) } else { Err(no_room()) }
    }

    /// Enters a committed object, the hottest of its budget.
    pub(super) fn committed(&self, class: Class, digest: Digest, size_bytes: u64) {
        let (shelf, other_class) = (self.shelf(class), class.other());
        shelf.list(&digest, |recency| recency.insert(digest, size_bytes, Time::now()));
        shelf.pardon(&digest);
        let other = self.shelf(other_class).list(&digest, |recency| recency.remove(&digest));
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

    /// Removes the coldest layers, then the coldest metadata, until what is reserved leaves `min_free` on the file system; false, with
    /// nothing removed, when removing all would not do.
    fn keep_min_free(&self) -> Result<bool, StoreError> {
        // In this order, what is written meanwhile counts twice rather than not at all.
        let to_come = self.0.shelves.unwritten_bytes();
        let root = self.0.layout.root();
        let (available, _) = self.space().map_err(|source| self.failed(StoreOperation::Open, root, source))?;
        let mut missing = self.0.options.min_free_bytes.saturating_add(to_come).saturating_sub(available);
        if missing > self.0.shelves.used_bytes() {
            return Ok(false);
        }
        for class in CLASSES {
            while missing > 0
                && let Some(victim) = self.shelf(class).pop_coldest(Time::now())
            {
                missing = missing.saturating_sub(victim.size_bytes);
                self.unlink(class, &[victim], EvictReason::MinFree);
            }
        }
        Ok(true)
    }

    fn unlink(&self, class: Class, victims: &[Victim], reason: EvictReason) {
        let now = Time::now();
        for victim in victims {
            if self.unlink_one(class, victim, reason) {
                let idle = now.since(victim.last_use);
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

    pub(super) fn shelf(&self, class: Class) -> &Shelf {
        self.0.shelves.of(class)
    }

    pub(super) fn shelves(&self) -> &Shelves {
        &self.0.shelves
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn is_scanned(&self) -> bool {
        self.0.is_scanned.load(Ordering::Acquire)
    }

    /// Returns the bytes free for us, and the size of the file system.
    fn space(&self) -> io::Result<(u64, u64)> {
        space_at(self.0.layout.root())
    }

    fn open_in(&self, class: Class, digest: &Digest) -> io::Result<Object> {
        let shelf = self.shelf(class);
        if shelf.is_condemned(digest) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let known = shelf.list(digest, |recency| recency.mark(digest));
        let file = layout::open(&self.0.layout.object(class, digest))?;
        let metadata = file.metadata()?;
        let now = SystemTime::now();
        let size_bytes = metadata.len();
        let mark = match shelf.list(digest, |recency| recency.opened(digest, size_bytes, now.into())) {
            Opened::Whole(mark) if known.is_some_and(|known| known.is_same_file(mark)) => mark,
            // Another file was put in its place since the look, before or after the opening: this one is to be read with care.
            Opened::Whole(mark) => known.unwrap_or(mark).unverified(),
            Opened::Resized(mark) if known.is_some_and(|known| known.is_same_file(mark)) => {
                return Err(self.discard_resized(class, digest, mark, size_bytes));
            }
            Opened::Resized(_) => return Err(io::ErrorKind::NotFound.into()),
            // Evicted, or not entered yet: listing it would list what is gone.
            Opened::Unknown if self.is_scanned() => Mark::UNLISTED,
            Opened::Unknown => shelf.list(digest, |recency| recency.insert_found(*digest, size_bytes, now.into())),
        };
        // What a crash of the machine leaves most often.
        if size_bytes == 0 && Digest::of(digest.algorithm(), b"") != *digest {
            return Err(self.discard_resized(class, digest, mark, size_bytes));
        }
        if metadata.modified().is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age > RECENCY_GRAIN)) {
            // Only the order after a restart depends on it: on a read-only disk it stays as it was.
            let _kept_as_it_was = file.set_modified(now);
        }
        let prepare = || Arc::new(ContentHeaders::of(digest, Some(size_bytes)));
        // An object has one size for ever; a file of another is not it, and is found to be none.
        let headers = self.0.headers.get_with((*digest, size_bytes), prepare);
        Ok(Object { size_bytes, content: Content::File(Arc::new(file)), mark, headers })
    }
}

/// Makes the directory `root` and returns the size in bytes of the file system that it is on.
pub fn prepare(root: &Path) -> Result<u64, StoreError> {
    let failed = |source| StoreError::Io { operation: StoreOperation::Open, path: root.display().to_string(), source };
    layout::make_directory(root).map_err(failed)?;
    space_at(root).map(|(_, size_bytes)| size_bytes).map_err(failed)
}

/// Returns the bytes available and the size in bytes of the file system that holds `path`.
pub(super) fn space_at(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}

impl BlobStore for Disk {
    fn peek(&self, _digest: &Digest) -> Option<Object> {
        None
    }

    fn is_absent(&self, digest: &Digest) -> bool {
        self.is_scanned()
            && !self.0.leftovers.holds(digest)
            && CLASSES.iter().all(|class| self.shelf(*class).list(digest, |recency| recency.mark(digest).is_none()))
    }

    fn touch(&self, digest: &Digest) {
        let now = Time::now();
        for class in CLASSES {
            self.shelf(class).list(digest, |recency| recency.touch(digest, now));
        }
    }

    fn asked(&self, digest: &Digest, client: ClientPrint) {
        for class in CLASSES {
            self.shelf(class).list(digest, |recency| recency.asked(digest, client));
        }
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
        let now = Time::now();
        for class in CLASSES {
            self.shelf(class).list(digest, |recency| recency.verified(digest, object.mark, now));
        }
    }

    fn discard(&self, digest: &Digest, object: &Object, damage: Damage) -> bool {
        CLASSES.iter().any(|class| self.discard_in(*class, digest, object.mark, damage))
    }
}
