//! Scrubbing: reading every stored object again in the background, so that rot is found before a client meets it.
//!
//! A pass walks along the lists of the budgets, layers first, in the order of their nodes: after a start that is the order of use, the
//! hottest first, and then what was stored since. It reads what was not verified in this process, or longer than [`PERIOD`] ago. What is
//! damaged is dropped; the next request fetches it anew.
//!
//! It stays out of the way: one object and one buffer at a time, at a bounded rate, and what it brings into the page cache it takes out
//! again. What is in the page cache already is hashed as it is there: that is what clients would get.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use rustix::fs::{Advice, fadvise};
use tokio::time::{Instant, sleep};

use super::disk::Disk;
use super::layout::{self, CLASSES, seconds};
use super::object::ReadAt;
use super::recency::Due;
use super::{Class, Damage, Verified, blocking};
use crate::oci::{Digest, Hasher};
use crate::telemetry::{MismatchSource, Scrubbed, StoreErrorReason, StoreOperation};

/// An object is read again when it was last verified so long ago: common practice for disks is once in one to four weeks.
const PERIOD: Duration = Duration::from_hours(7 * 24);

/// How long a scrub rests when nothing is due any more.
const REST: Duration = Duration::from_mins(10);

/// Bytes read in one go at the most: long reads cost a disk the least; hashing them takes less than a millisecond.
const READ_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes read in one go at the least: a page.
const READ_BYTES_MIN: u64 = 4096;

/// What opening an object costs beside its bytes: a seek takes a disk about as long as reading so much.
const OPEN_COST_BYTES: u64 = 64 * 1024;

/// How much time may be caught up on after a slow read or a busy runtime.
const CREDIT: Duration = Duration::from_secs(1);

/// Pauses below this are summed up: the runtime's clock knows nothing shorter.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// List nodes looked at in one go, while nobody else can look: some tens of microseconds.
const LOOKS: usize = 1024;

/// Reads what `disk` holds again and again, at most `rate_bytes` per second; returns at once when that is 0. Drop it to stop it.
pub async fn scrub(disk: Disk, rate_bytes: u64) {
    let Some(rate) = NonZeroU64::new(rate_bytes) else { return };
    let mut pace = Pace::new(rate, Instant::now());
    loop {
        pass(&disk, &mut pace).await;
        sleep(REST).await;
    }
}

/// Reads everything that is due.
async fn pass(disk: &Disk, pace: &mut Pace) {
    let mut round = Round::default();
    loop {
        let now = seconds(SystemTime::now());
        match round.next(now, |class, from, before| disk.list(class, |recency| recency.due(from, LOOKS, before))) {
            Next::Object(candidate) => check(disk, &candidate, pace).await,
            Next::Look => tokio::task::yield_now().await,
            Next::Done => {
                disk.metrics().storage().scrub_completed(now);
                return;
            }
        }
    }
}

/// Where a pass stands.
#[derive(Debug, Default)]
struct Round {
    /// Which of [`CLASSES`].
    shelf: usize,
    node: usize,
}

/// What a pass does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Object(Candidate),
    /// Nothing so far: look further.
    Look,
    Done,
}

/// An object that is due.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    class: Class,
    digest: Digest,
    verified: Verified,
}

impl Round {
    /// Decides what comes next at `now`, in seconds since the epoch. `look(class, from, before)` looks for an object that was last
    /// verified before `before`, from node `from` on.
    fn next(&mut self, now: u64, look: impl FnOnce(Class, usize, Verified) -> Due) -> Next {
        let Some(class) = CLASSES.get(self.shelf).copied() else { return Next::Done };
        match look(class, self.node, Verified::at(now.saturating_sub(PERIOD.as_secs()))) {
            Due::Object { next, digest, verified } => {
                self.node = next;
                Next::Object(Candidate { class, digest, verified })
            }
            Due::None { next } => {
                self.node = next;
                Next::Look
            }
            Due::End => {
                *self = Self { shelf: self.shelf + 1, node: 0 };
                Next::Look
            }
        }
    }
}

/// Spreads reading over time. Pure: time is an argument.
#[derive(Debug)]
struct Pace {
    rate_bytes: NonZeroU64,
    /// When everything read so far would have been read at that rate.
    even_at: Instant,
}

impl Pace {
    fn new(rate_bytes: NonZeroU64, now: Instant) -> Self {
        Self { rate_bytes, even_at: now }
    }

    /// Returns how long to pause after `bytes` more were read.
    fn pause(&mut self, now: Instant, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate_bytes.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        self.even_at = self.even_at.max(earliest) + cost;
        let pause = self.even_at.saturating_duration_since(now);
        if pause < PAUSE_MIN { Duration::ZERO } else { pause }
    }

    /// Returns how many bytes to read in one go: no more than a quarter of a second's.
    fn read_bytes(&self) -> u64 {
        (self.rate_bytes.get() / 4).clamp(READ_BYTES_MIN, READ_BYTES_MAX)
    }

    async fn keep(&mut self, bytes: u64) {
        let pause = self.pause(Instant::now(), bytes);
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
}

/// Reads one object and tells what came of it.
async fn check(disk: &Disk, candidate: &Candidate, pace: &mut Pace) {
    let found = hash(disk, candidate, pace).await;
    let (disk, class, digest, verified) = (disk.clone(), candidate.class, candidate.digest, candidate.verified);
    let recorded = blocking(move || {
        record(&disk, class, &digest, verified, found);
        Ok::<_, io::Error>(())
    });
    if let Err(error) = recorded.await {
        tracing::warn!(%digest, %error, "what a scrub found is lost");
    }
}

/// Returns the digest that the object's bytes have.
async fn hash(disk: &Disk, candidate: &Candidate, pace: &mut Pace) -> io::Result<Digest> {
    let path = disk.layout().object(candidate.class, &candidate.digest);
    let (digest, read_bytes) = (candidate.digest, pace.read_bytes());
    let mut reading = blocking(move || Reading::open(layout::open(&path)?, &digest, read_bytes)).await?;
    pace.keep(OPEN_COST_BYTES).await;
    loop {
        let (then, read) = blocking(move || {
            let read = reading.step()?;
            Ok::<_, io::Error>((reading, read))
        })
        .await?;
        reading = then;
        if read == 0 {
            return Ok(reading.hasher.finish());
        }
        disk.metrics().storage().scrubbed_bytes(read);
        pace.keep(read).await;
    }
}

/// An object that is being read.
#[derive(Debug)]
struct Reading {
    file: File,
    hasher: Hasher,
    buffer: Vec<u8>,
    offset: u64,
}

impl Reading {
    fn open(file: File, digest: &Digest, read_bytes: u64) -> io::Result<Self> {
        // No reading ahead: what it brings could not be told from what was in the page cache before. Only a hint.
        let _hinted = fadvise(&file, 0, None, Advice::Random);
        let len = file.metadata()?.len().clamp(1, read_bytes);
        let buffer = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        Ok(Self { file, hasher: Hasher::new(digest.algorithm()), buffer, offset: 0 })
    }

    /// Reads and hashes the next bytes, and returns how many: 0 at the end. Blocks.
    fn step(&mut self) -> io::Result<u64> {
        let (read, was_cached) = match self.file.read_now(self.offset, &mut self.buffer)? {
            Some(read @ 1..) => (read, true),
            Some(0) | None => (ReadAt::read_at(&self.file, self.offset, &mut self.buffer)?, false),
        };
        self.hasher.update(self.buffer.get(..read).unwrap_or_default());
        let (offset, read) = (self.offset, read as u64);
        self.offset += read;
        if !was_cached {
            // Nobody was reading this part. Only a hint.
            let _hinted = NonZeroU64::new(read).map(|len| fadvise(&self.file, offset, Some(len), Advice::DontNeed));
        }
        Ok(read)
    }
}

/// Notes what reading an object brought, and drops it when it is damaged. Blocks.
fn record(disk: &Disk, class: Class, digest: &Digest, verified: Verified, found: io::Result<Digest>) {
    let storage = disk.metrics().storage();
    match found {
        Ok(actual) if actual == *digest => {
            disk.list(class, |recency| recency.verified(digest, seconds(SystemTime::now())));
            storage.scrubbed(Scrubbed::Ok);
        }
        Ok(actual) => {
            if disk.discard_in(class, digest, verified, Damage::Mismatch) {
                tracing::error!(%digest, %actual, "a scrub found that a stored object does not match its digest; it is dropped");
                storage.scrubbed(Scrubbed::Corrupt);
                disk.metrics().stored_mismatch(MismatchSource::Disk);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Evicted meanwhile, or removed by somebody else.
            if disk.forget_missing(class, digest, verified) {
                storage.scrubbed(Scrubbed::Missing);
            }
        }
        Err(error) => match Damage::of(&error) {
            Some(damage) if disk.discard_in(class, digest, verified, damage) => {
                tracing::error!(%digest, %error, "a scrub cannot read a stored object; it is dropped");
                storage.scrubbed(Scrubbed::Unreadable);
            }
            Some(_replaced) => {}
            None => {
                storage.failed(StoreOperation::Read, StoreErrorReason::of(&error));
                tracing::debug!(%digest, %error, "a scrub passes over a stored object");
            }
        },
    }
}
