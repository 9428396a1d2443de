//! The cache over a scripted origin and a store with faults: no sockets.

mod deceit;
mod disk;
mod rot;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::{Semaphore, watch};

use super::{
    AccessRules, BlobAnswer, BlobBody, BlobQuestion, Cache, FillLimits, Filling, Parallel, Parts, Piece, Policy,
    Prefetch, Rules, Upstream,
};
use crate::oci::{Digest, Reference, RepositoryName, UpstreamName};
use crate::store::{
    BlobStore, Class, ClientPrint, Content, Damage, Disk, Ledger, Object, Options, Partial, Present, ReadAt, StoreError,
};
use crate::tasks::TaskGroup;
use crate::telemetry::Metrics;
use crate::upstream::{
    BlobHead, BlobTransfer, Caller, Capabilities, Capability, EndpointId, ListPage, ManifestAnswer, ManifestHead,
    Origin, RateLimit, UpstreamError, Write, Written,
};
use crate::wire::{ByteRange, Outcome};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What goes wrong with one transfer.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Nothing.
    None,
    /// The transfer breaks after that many bytes.
    CutAfter(u64),
    /// The byte at that offset is another one.
    WrongByteAt(u64),
    /// The length is not told.
    NoLength,
    /// The length is not told, and everything breaks after that many bytes.
    NoLengthCutAfter(u64),
    /// The length is not told, and that many bytes come as if they were all.
    NoLengthUpTo(u64),
    /// The whole blob is said to be that many bytes, and so many come.
    SaidToBe(u64),
    /// The length is not told, and as many bytes more come after the blob's.
    NoLengthAndMore(u64),
    /// A range is answered with the whole blob.
    IgnoreRange,
    /// The upstream refuses.
    Status(u16),
}

/// One blob, given out chunk by chunk as permits allow.
#[derive(Debug)]
pub(super) struct ScriptedOrigin {
    name: UpstreamName,
    blob: Bytes,
    faults: Mutex<VecDeque<Fault>>,
    /// What was asked: start and end of every transfer.
    asked: watch::Sender<Vec<(u64, Option<u64>)>>,
    heads: AtomicU64,
    capabilities: Capabilities,
    sent: Arc<AtomicU64>,
    /// One permit per chunk; closed: no limit.
    pace: Arc<Semaphore>,
}

/// Everybody may read what it has.
fn access() -> AccessRules {
    AccessRules { is_for_callers: false, except: Vec::new(), ttl: Duration::ZERO, stale_if_error: Duration::ZERO }
}

const CHUNK: usize = 16 * 1024;

/// What a fill asks for first: one segment.
const FIRST: (u64, Option<u64>) = (0, Some(4 * MIB - 1));

const LIMITS: FillLimits = FillLimits { fills: 8, bytes: 1024 * MIB, unattended: 8 };

const PARALLEL: Parallel = Parallel { connections: 4, from_bytes: 32 * MIB };

impl ScriptedOrigin {
    pub(super) fn new(blob: Bytes) -> Self {
        let pace = Arc::new(Semaphore::new(0));
        pace.close();
        Self {
            name: "registry.test".parse().unwrap(),
            blob,
            faults: Mutex::default(),
            asked: watch::Sender::default(),
            heads: AtomicU64::new(0),
            capabilities: Capabilities::default(),
            sent: Arc::default(),
            pace,
        }
    }

    /// Gives out as many chunks as permits are added to `pace`.
    fn paced(mut self) -> Self {
        self.pace = Arc::new(Semaphore::new(0));
        self
    }

    fn faults(self, faults: impl IntoIterator<Item = Fault>) -> Self {
        *self.faults.lock().unwrap() = faults.into_iter().collect();
        self
    }

    fn asked(&self) -> Vec<(u64, Option<u64>)> {
        self.asked.borrow().clone()
    }

    /// Waits until `count` transfers have been asked for.
    async fn wait_for_transfers(&self, count: usize) {
        self.asked.subscribe().wait_for(|asked| asked.len() >= count).await.unwrap();
    }

    fn transfer(&self, start: u64, end: Option<u64>) -> Result<BlobTransfer, UpstreamError> {
        self.asked.send_modify(|asked| asked.push((start, end)));
        let fault = self.faults.lock().unwrap().pop_front();
        let mut bytes = self.blob.clone();
        let (mut from, mut to) = (start, end.map_or(u64::MAX, |end| end + 1).min(bytes.len() as u64));
        let mut size_bytes = Some(bytes.len() as u64);
        let mut is_range = start > 0 || end.is_some();
        let mut cut = None;
        match fault {
            None | Some(Fault::None) => {}
            Some(Fault::CutAfter(n)) => cut = Some(n),
            Some(Fault::WrongByteAt(at)) => {
                let mut wrong = bytes.to_vec();
                wrong[usize::try_from(at).unwrap()] ^= 1;
                bytes = wrong.into();
            }
            Some(Fault::NoLength) => {
                (from, to, is_range) = (0, bytes.len() as u64, false);
                size_bytes = None;
            }
            Some(Fault::NoLengthCutAfter(n)) => {
                (from, to, is_range, size_bytes) = (0, bytes.len() as u64, false, None);
                cut = Some(n);
            }
            Some(Fault::NoLengthUpTo(n)) => (from, to, is_range, size_bytes) = (0, n, false, None),
            Some(Fault::SaidToBe(n)) => (from, to, is_range, size_bytes) = (0, n, false, Some(n)),
            Some(Fault::NoLengthAndMore(n)) => {
                bytes = [&bytes[..], &vec![0; usize::try_from(n).unwrap()]].concat().into();
                (from, to, is_range, size_bytes) = (0, bytes.len() as u64, false, None);
            }
            Some(Fault::IgnoreRange) => (from, to, is_range) = (0, bytes.len() as u64, false),
            Some(Fault::Status(404)) => return Err(UpstreamError::NotFound { message: None }),
            Some(Fault::Status(status)) => return Err(UpstreamError::Status { status, message: None }),
        }
        let wanted = bytes.slice(usize::try_from(from).unwrap()..usize::try_from(to).unwrap());
        let given = cut.map_or(wanted.len(), |n| usize::try_from(n).unwrap().min(wanted.len()));
        let mut chunks: Vec<Result<Bytes, UpstreamError>> = Vec::new();
        for at in (0..given).step_by(CHUNK) {
            chunks.push(Ok(wanted.slice(at..given.min(at + CHUNK))));
        }
        if cut.is_some() {
            chunks.push(Err(UpstreamError::Truncated { received_bytes: given as u64, source: None }));
        }
        let (pace, sent) = (Arc::clone(&self.pace), Arc::clone(&self.sent));
        let chunks = stream::iter(chunks).then(move |chunk| {
            let (pace, sent) = (Arc::clone(&pace), Arc::clone(&sent));
            async move {
                if let Ok(permit) = pace.acquire().await {
                    permit.forget();
                }
                sent.fetch_add(chunk.as_ref().map_or(0, |chunk| chunk.len() as u64), Ordering::SeqCst);
                chunk
            }
        });
        let is_range = is_range && size_bytes.is_some();
        Ok(BlobTransfer { start: from, size_bytes, is_range, endpoint: EndpointId::default(), chunks: chunks.boxed() })
    }
}

impl Origin for ScriptedOrigin {
    fn name(&self) -> &UpstreamName {
        &self.name
    }

    fn capability(&self, which: Capability) -> Option<bool> {
        self.capabilities.get(which, tokio::time::Instant::now())
    }

    fn note_capability(&self, which: Capability, is_there: bool) {
        self.capabilities.note(which, is_there, tokio::time::Instant::now());
    }

    fn refusal_now(&self, _limit: RateLimit) -> Option<UpstreamError> {
        None
    }

    fn manifest_head<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _reference: &'a Reference,
        _accept: &'a str,
    ) -> BoxFuture<'a, Result<ManifestHead, UpstreamError>> {
        async { Err(UpstreamError::NotFound { message: None }) }.boxed()
    }

    fn manifest<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _reference: &'a Reference,
        _accept: &'a str,
        _limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ManifestAnswer, UpstreamError>> {
        async { Err(UpstreamError::NotFound { message: None }) }.boxed()
    }

    fn blob_head<'a>(
        &'a self,
        repository: &'a RepositoryName,
        _digest: &'a Digest,
    ) -> BoxFuture<'a, Result<BlobHead, UpstreamError>> {
        self.heads.fetch_add(1, Ordering::SeqCst);
        let known = !repository.as_str().starts_with("foreign");
        let size_bytes = Some(self.blob.len() as u64);
        async move { if known { Ok(BlobHead { size_bytes }) } else { Err(UpstreamError::NotFound { message: None }) } }
            .boxed()
    }

    fn blob<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _digest: &'a Digest,
        start: u64,
        end: Option<u64>,
    ) -> BoxFuture<'a, Result<BlobTransfer, UpstreamError>> {
        async move { self.transfer(start, end) }.boxed()
    }

    fn tags<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _query: &'a str,
        _limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ListPage, UpstreamError>> {
        async { Err(UpstreamError::NotFound { message: None }) }.boxed()
    }

    fn referrers<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _subject: &'a Digest,
        _query: &'a str,
        _limit_bytes: usize,
    ) -> BoxFuture<'a, Result<ListPage, UpstreamError>> {
        async { Err(UpstreamError::NotFound { message: None }) }.boxed()
    }

    fn write<'a>(&'a self, _write: Write<'a>) -> BoxFuture<'a, Result<Written, UpstreamError>> {
        async { Err(UpstreamError::NotFound { message: None }) }.boxed()
    }

    fn as_caller(&self, _caller: &Caller) -> Arc<dyn Origin> {
        unreachable!("everybody may read what it has")
    }

    fn may_read_blob<'a>(
        &'a self,
        _repository: &'a RepositoryName,
        _digest: &'a Digest,
    ) -> BoxFuture<'a, Result<(), UpstreamError>> {
        async { Ok(()) }.boxed()
    }

    fn distrust(&self, _endpoint: EndpointId) {}

    fn free_transfers(&self) -> usize {
        32
    }
}

/// What the disk does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DiskFault {
    None,
    /// No object can be begun.
    ReadOnly,
    /// Writes that end beyond this offset fail with ENOSPC.
    FullBeyond(u64),
    /// The commit fails before the rename.
    CrashBeforeRename,
    /// Every write takes a while.
    Slow,
    /// Beginning an object takes until the test closes the gate.
    Stuck,
    /// The first stored object that is opened counts as absent.
    OpenFailsOnce,
    /// Reads of stored objects that reach this offset fail with EIO.
    ReadFails {
        at: u64,
    },
    /// Reads of the first object that is begun fail with EIO from this offset on, also when it is resumed.
    PartialReadFails {
        at: u64,
    },
}

#[derive(Debug)]
struct FaultyStore {
    disk: Disk,
    fault: DiskFault,
    /// The fault has happened to what was stored: what comes in its place is on sound blocks.
    replaced: AtomicBool,
    gate: Arc<Semaphore>,
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn ReadAt>,
    fails_at: u64,
}

impl ReadAt for FaultyFile {
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
        let len = readable(self.fails_at, offset, buffer)?;
        self.file.read_now(offset, &mut buffer[..len])
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = readable(self.fails_at, offset, buffer)?;
        self.file.read_at(offset, &mut buffer[..len])
    }

    fn as_file(&self) -> Option<&std::fs::File> {
        None
    }
}

#[derive(Debug)]
struct FaultyPartial {
    partial: Arc<dyn Partial>,
    fault: DiskFault,
    is_sound: bool,
}

impl FaultyPartial {
    /// Returns how much of `buffer` can be read.
    fn check(&self, offset: u64, buffer: &[u8]) -> std::io::Result<usize> {
        match self.fault {
            DiskFault::PartialReadFails { at } if !self.is_sound => readable(at, offset, buffer),
            _ => Ok(buffer.len()),
        }
    }
}

/// Returns how much of `buffer` a disk gives whose blocks from `fails_at` on are bad.
fn readable(fails_at: u64, offset: u64, buffer: &[u8]) -> std::io::Result<usize> {
    match fails_at.saturating_sub(offset) {
        0 => Err(rustix::io::Errno::IO.into()),
        readable => Ok(buffer.len().min(usize::try_from(readable).unwrap())),
    }
}

fn disk_error(kind: std::io::ErrorKind) -> StoreError {
    std::io::Error::from(kind).into()
}

impl BlobStore for FaultyStore {
    fn peek(&self, digest: &Digest) -> Option<Object> {
        self.disk.peek(digest)
    }

    fn is_absent(&self, digest: &Digest) -> bool {
        self.disk.is_absent(digest)
    }

    fn touch(&self, digest: &Digest) {
        self.disk.touch(digest);
    }

    fn asked(&self, digest: &Digest, client: ClientPrint) {
        self.disk.asked(digest, client);
    }

    fn open(&self, digest: &Digest) -> Option<Object> {
        if self.fault == DiskFault::OpenFailsOnce && !self.replaced.swap(true, Ordering::SeqCst) {
            return None;
        }
        let mut object = self.disk.open(digest)?;
        if let (DiskFault::ReadFails { at }, Content::File(file)) = (self.fault, &object.content)
            && !self.replaced.load(Ordering::SeqCst)
        {
            object.content = Content::File(Arc::new(FaultyFile { file: Arc::clone(file), fails_at: at }));
        }
        Some(object)
    }

    fn begin(&self, digest: &Digest, class: Class, size_bytes: Option<u64>) -> Result<Arc<dyn Partial>, StoreError> {
        if self.fault == DiskFault::ReadOnly {
            return Err(disk_error(std::io::ErrorKind::ReadOnlyFilesystem));
        }
        if self.fault == DiskFault::Stuck {
            assert!(tokio::runtime::Handle::current().block_on(self.gate.acquire()).is_err(), "the gate is closed");
        }
        let partial = self.disk.begin(digest, class, size_bytes)?;
        let is_faulty = matches!(self.fault, DiskFault::PartialReadFails { .. });
        let is_sound = !is_faulty || self.replaced.swap(true, Ordering::SeqCst);
        Ok(Arc::new(FaultyPartial { partial, fault: self.fault, is_sound }))
    }

    fn resume(&self, digest: &Digest) -> Option<Arc<dyn Partial>> {
        let partial = self.disk.resume(digest)?;
        Some(Arc::new(FaultyPartial { partial, fault: self.fault, is_sound: false }))
    }

    fn verified(&self, digest: &Digest, object: &Object) {
        self.disk.verified(digest, object);
    }

    fn discard(&self, digest: &Digest, object: &Object, damage: Damage) -> bool {
        let is_dropped = self.disk.discard(digest, object, damage);
        self.replaced.fetch_or(is_dropped, Ordering::SeqCst);
        is_dropped
    }
}

impl Partial for FaultyPartial {
    fn write_at(&self, offset: u64, chunks: &[Bytes]) -> Result<(), StoreError> {
        let end = offset + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        match self.fault {
            DiskFault::FullBeyond(limit) if end > limit => return Err(disk_error(std::io::ErrorKind::StorageFull)),
            DiskFault::Slow => std::thread::sleep(Duration::from_millis(5)),
            DiskFault::None
            | DiskFault::ReadOnly
            | DiskFault::FullBeyond(_)
            | DiskFault::Stuck
            | DiskFault::CrashBeforeRename
            | DiskFault::OpenFailsOnce
            | DiskFault::ReadFails { .. }
            | DiskFault::PartialReadFails { .. } => {}
        }
        self.partial.write_at(offset, chunks)
    }

    fn resumed(&self) -> Option<(u64, Present)> {
        self.partial.resumed()
    }

    fn checkpoint(&self, size_bytes: u64, present: &Present) -> Result<(), StoreError> {
        self.partial.checkpoint(size_bytes, present)
    }

    fn discard(&self) {
        self.partial.discard();
    }

    fn commit(&self, digest: &Digest, size_bytes: u64) -> Result<(), StoreError> {
        if self.fault == DiskFault::CrashBeforeRename {
            return Err(disk_error(std::io::ErrorKind::Other));
        }
        self.partial.commit(digest, size_bytes)
    }
}

impl ReadAt for FaultyPartial {
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
        let len = self.check(offset, buffer)?;
        self.partial.read_now(offset, &mut buffer[..len])
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.check(offset, buffer)?;
        self.partial.read_at(offset, &mut buffer[..len])
    }

    fn as_file(&self) -> Option<&std::fs::File> {
        None
    }
}

/// A cache over one scripted origin.
struct Bench {
    cache: Cache,
    upstream: Arc<Upstream>,
    origin: Arc<ScriptedOrigin>,
    disk: Disk,
    tasks: TaskGroup,
    blob: Bytes,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    directory: tempfile::TempDir,
    disk_gate: Arc<Semaphore>,
}

impl Bench {
    fn new(origin: ScriptedOrigin) -> Self {
        Self::with_disk(origin, DiskFault::None)
    }

    fn with_disk(origin: ScriptedOrigin, fault: DiskFault) -> Self {
        Self::over(tempfile::tempdir().unwrap(), Arc::new(origin), fault, false)
    }

    fn over(directory: tempfile::TempDir, origin: Arc<ScriptedOrigin>, fault: DiskFault, offline: bool) -> Self {
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
    async fn restart(self, fault: DiskFault, offline: bool) -> Self {
        let Self { cache, origin, disk, tasks, ledger, directory, .. } = self;
        assert_eq!(tasks.drain(Duration::from_secs(20)).await, 0, "a task hangs");
        ledger.flush().unwrap();
        drop((cache, disk, ledger));
        let bench = Self::over(directory, origin, fault, offline);
        bench.disk.scan().unwrap();
        bench
    }

    fn digest(&self) -> Digest {
        Digest::sha256(&self.blob)
    }

    async fn ask(&self, repository: &str, digest: Digest) -> Result<BlobAnswer, super::CacheError> {
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

    async fn open(&self) -> BlobAnswer {
        self.ask("app", self.digest()).await.unwrap()
    }

    /// Waits until no task runs, then checks that nothing is left over.
    async fn settle(self) {
        assert_eq!(self.tasks.drain(Duration::from_secs(20)).await, 0, "a task hangs");
        assert_eq!(self.cache.fills_under_way(), 0, "a fill is listed after its end");
        drop(self.cache);
        let left: Vec<_> = std::fs::read_dir(self.directory.path().join("partial")).unwrap().collect();
        assert!(left.is_empty(), "a partial is left: {left:?}");
    }

    fn is_stored(&self) -> bool {
        self.disk.open(&self.digest()).is_some()
    }
}

/// Bytes that differ at every offset that matters.
fn blob(len: u64) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(usize::try_from(len).unwrap()).collect()
}

async fn read(mut body: BlobBody) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(_) => return (bytes, false),
        }
    }
    (bytes, true)
}

#[tokio::test]
async fn a_hundred_clients_of_a_cold_blob_cost_one_transfer() {
    let bench = Bench::new(ScriptedOrigin::new(blob(3 * MIB + 17)).paced());
    let mut bodies = Vec::new();
    for at in 0..100 {
        let answer = bench.open().await;
        assert_eq!(answer.outcome, if at == 0 { Outcome::Miss } else { Outcome::Coalesced });
        bodies.push(tokio::spawn(read(answer.from(0))));
        bench.origin.pace.add_permits(1);
    }
    bench.origin.pace.close();
    for body in bodies {
        assert!(body.await.unwrap() == (bench.blob.to_vec(), true));
    }
    assert_eq!(bench.origin.asked(), [FIRST]);
    assert_eq!(bench.open().await.outcome, Outcome::Hit);
    bench.settle().await;
}

#[tokio::test]
async fn a_wrong_byte_ends_every_body_short_and_the_next_request_starts_afresh() {
    let faults = [Fault::WrongByteAt(5)];
    let bench = Bench::new(ScriptedOrigin::new(blob(MIB)).paced().faults(faults));
    let (first, second) = (bench.open().await, bench.open().await);
    let bodies = [first.from(0), second.from(0), second.from(MIB / 2)].map(|body| tokio::spawn(read(body)));
    drop((first, second));
    bench.origin.pace.close();
    for body in bodies {
        let (bytes, complete) = body.await.unwrap();
        assert!(!complete && (bytes.len() as u64) < MIB, "{}", bytes.len());
    }
    assert!(!bench.is_stored());
    assert_eq!(read(bench.open().await.from(0)).await, (bench.blob.to_vec(), true));
    assert_eq!(bench.origin.asked(), [FIRST, FIRST]);
    bench.settle().await;
}

#[tokio::test]
async fn a_broken_transfer_is_resumed_at_the_missing_byte_under_the_same_body() {
    let cuts = [0, 1, CHUNK as u64, MIB - 1, 3].map(Fault::CutAfter);
    let bench = Bench::new(ScriptedOrigin::new(blob(2 * MIB)).faults(cuts));
    assert!(read(bench.open().await.from(0)).await == (bench.blob.to_vec(), true));
    let after: Vec<u64> = bench.origin.asked().iter().map(|(start, _)| *start).collect();
    let (one, two) = (1 + CHUNK as u64, CHUNK as u64 + MIB);
    assert_eq!(after, [0, 0, 1, one, two, two + 3]);
    assert_eq!(bench.origin.sent.load(Ordering::SeqCst), 2 * MIB);
    bench.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_never_progresses_fails_after_bounded_attempts() {
    let bench = Bench::new(ScriptedOrigin::new(blob(MIB)).faults([Fault::CutAfter(0); 50]));
    let (bytes, complete) = read(bench.open().await.from(0)).await;
    assert_eq!((bytes.len(), complete), (0, false));
    assert_eq!(bench.origin.asked().len(), 8);
    bench.settle().await;
}

#[tokio::test]
async fn a_far_range_comes_before_the_prefix_and_no_byte_is_asked_for_twice() {
    let bench = Bench::new(ScriptedOrigin::new(blob(20 * MIB)).paced());
    let answer = bench.open().await;
    let (start, end) = (10 * MIB + 5, 10 * MIB + 1004);
    let mut far = answer.range(ByteRange { start, end });
    let reading = tokio::spawn(async move { far.next().await });
    bench.origin.wait_for_transfers(2).await;
    // Both transfers wait for permits by now, in turn.
    bench.origin.pace.add_permits(8);
    let chunk = reading.await.unwrap().unwrap().unwrap();
    assert_eq!(chunk, bench.blob.slice(10 * 1024 * 1024 + 5..10 * 1024 * 1024 + 1005));
    assert!(bench.origin.sent.load(Ordering::SeqCst) <= 8 * CHUNK as u64);
    bench.origin.pace.close();
    assert!(read(answer.from(0)).await == (bench.blob.to_vec(), true));
    let sent = bench.origin.sent.load(Ordering::SeqCst);
    assert!(sent <= 20 * MIB + 2 * MIB, "{sent} bytes for a blob of 20 MiB, {:?}", bench.origin.asked());
    bench.settle().await;
}

#[tokio::test]
async fn an_upstream_that_ignores_ranges_still_serves_a_far_one() {
    let bench = Bench::new(ScriptedOrigin::new(blob(8 * MIB)).paced());
    let answer = bench.open().await;
    bench.origin.faults.lock().unwrap().push_back(Fault::IgnoreRange);
    let reading = tokio::spawn(read(answer.range(ByteRange { start: 7 * MIB, end: 7 * MIB + 9 })));
    bench.origin.wait_for_transfers(2).await;
    bench.origin.pace.close();
    let (bytes, complete) = reading.await.unwrap();
    assert_eq!((&bytes[..], complete), (&bench.blob[7 * 1024 * 1024..7 * 1024 * 1024 + 10], true));
    drop(answer);
    bench.settle().await;
}

#[tokio::test]
async fn a_refused_range_does_not_end_the_fill() {
    let bench = Bench::new(ScriptedOrigin::new(blob(8 * MIB)).paced());
    let answer = bench.open().await;
    bench.origin.faults.lock().unwrap().push_back(Fault::Status(404));
    let reading = tokio::spawn(read(answer.range(ByteRange { start: 7 * MIB, end: 7 * MIB + 9 })));
    bench.origin.wait_for_transfers(2).await;
    bench.origin.pace.close();
    let (bytes, complete) = reading.await.unwrap();
    assert_eq!((&bytes[..], complete), (&bench.blob[7 * 1024 * 1024..7 * 1024 * 1024 + 10], true));
    assert!(read(answer.from(0)).await == (bench.blob.to_vec(), true));
    drop(answer);
    bench.settle().await;
}

#[tokio::test]
async fn a_blob_of_unknown_length_is_streamed_verified_and_kept() {
    let bench = Bench::new(ScriptedOrigin::new(blob(MIB + 3)).paced().faults([Fault::NoLength]));
    let answer = bench.open().await;
    assert_eq!(answer.size_bytes, None);
    bench.origin.pace.close();
    assert!(read(answer.from(0)).await == (bench.blob.to_vec(), true));
    drop(answer);
    let again = bench.open().await;
    assert_eq!((again.outcome, again.size_bytes), (Outcome::Hit, Some(MIB + 3)));
    drop(again);
    bench.settle().await;
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let bench = Bench::new(ScriptedOrigin::new(Bytes::new()));
    let answer = bench.open().await;
    assert_eq!(answer.size_bytes, Some(0));
    assert_eq!(read(answer.from(0)).await, (Vec::new(), true));
    drop(answer);
    bench.settle().await;
}

#[tokio::test]
async fn a_leaving_client_does_not_stop_the_fill() {
    let bench = Bench::new(ScriptedOrigin::new(blob(MIB)).paced());
    drop(bench.open().await);
    bench.origin.pace.close();
    let answer = bench.open().await;
    assert!(read(answer.from(0)).await == (bench.blob.to_vec(), true));
    drop(answer);
    assert_eq!(bench.origin.asked(), [FIRST]);
    bench.settle().await;
}

#[tokio::test]
async fn the_tail_of_a_whole_body_waits_for_the_digest_and_an_explicit_range_does_not() {
    let bench = Bench::new(ScriptedOrigin::new(blob(MIB)).paced());
    let answer = bench.open().await;
    let mut tail = answer.range(ByteRange { start: MIB - 1, end: MIB - 1 });
    let whole = tokio::spawn(read(answer.from(0)));
    // All chunks but the first: the last byte is there, the digest is not.
    let footer = tokio::spawn(async move { tail.next().await });
    bench.origin.pace.add_permits(64);
    assert_eq!(footer.await.unwrap().unwrap().unwrap(), bench.blob.slice(1024 * 1024 - 1..));
    assert!(whole.await.unwrap() == (bench.blob.to_vec(), true));
    drop(answer);
    bench.settle().await;
}

#[tokio::test]
async fn knowing_a_digest_is_no_right_to_read_it() {
    let bench = Bench::new(ScriptedOrigin::new(blob(MIB)).paced());
    let answer = bench.open().await;
    // In flight: another repository is asked about first.
    assert!(bench.ask("foreign/app", bench.digest()).await.is_err());
    assert_eq!(bench.ask("other/app", bench.digest()).await.unwrap().outcome, Outcome::Coalesced);
    bench.origin.pace.close();
    assert!(read(answer.from(0)).await.1);
    drop(answer);
    let tasks = bench.tasks.clone();
    assert_eq!(tasks.drain(Duration::from_secs(20)).await, 0);
    // Stored: likewise, and once for good where the upstream agrees.
    assert!(bench.ask("foreign/app", bench.digest()).await.is_err());
    assert_eq!(bench.ask("third/app", bench.digest()).await.unwrap().outcome, Outcome::Revalidated);
    assert_eq!(bench.ask("third/app", bench.digest()).await.unwrap().outcome, Outcome::Hit);
    assert_eq!(bench.origin.asked(), [FIRST]);
    bench.settle().await;
}

#[tokio::test]
async fn an_absent_blob_is_an_error_and_leaves_nothing_behind() {
    let bench = Bench::new(ScriptedOrigin::new(blob(10)).faults([Fault::Status(404), Fault::Status(503)]));
    assert!(bench.ask("app", bench.digest()).await.is_err());
    assert!(bench.ask("app", bench.digest()).await.is_err());
    assert!(read(bench.open().await.from(0)).await.1);
    bench.settle().await;
}

#[test]
fn a_corrupt_object_is_dropped_and_its_grants_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new(&[], 0).unwrap());
    let options = Options {
        root: directory.path().to_owned(),
        capacity_bytes: MIB,
        metadata_capacity_bytes: MIB,
        min_free_bytes: 0,
    };
    let (disk, ledger) = Disk::open(options, metrics).unwrap();
    let (digest, bytes) = (Digest::sha256(b"x"), Bytes::from_static(b"x"));
    let (upstream, repository) = ("registry.test".parse().unwrap(), "app".parse().unwrap());
    disk.put(&digest, Class::Layer, &bytes).unwrap();
    ledger.grant_blob(&upstream, &repository, &digest);
    let object = disk.open(&digest).unwrap();
    assert!(disk.discard(&digest, &object, Damage::Mismatch));
    assert!(!disk.discard(&digest, &object, Damage::Mismatch), "it is gone already");
    assert!(disk.open(&digest).is_none() && !ledger.holds_blob(&upstream, &repository, &digest));
}
