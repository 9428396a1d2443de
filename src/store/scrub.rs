//! Scrubbing: reading every stored object again in the background, so that rot is found before a client meets it.
//!
//! A pass walks along the lists of the budgets, layers first, part by part in the order of their nodes: after a start that is the
//! order of use, the hottest first, and then what was stored since. It reads what was not verified in this process, or longer than
//! [`PERIOD`] ago. What is damaged is dropped; the next request fetches it anew.
//!
//! It stays out of the way: one object and one buffer at a time, at a bounded rate, and what it brings into the page cache it takes out
//! again. What is in the page cache already is hashed as it is there: that is what clients would get.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use tokio::time::{Instant, sleep};

use super::disk::Disk;
use super::layout;
use super::object::ReadAt;
use super::recency::Due;
use super::time::Time;
use super::{Class, Damage, Mark, blocking};
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
        let now = Time::now().seconds();
        match round.next(now, |part, from, time| disk.shelves().due(part, from, LOOKS, time)) {
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
    /// Which part of the lists.
    part: usize,
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
    mark: Mark,
}

impl Round {
    /// Decides what comes next at `now`, in seconds since the epoch. `look(part, from, time)` looks for an object that was not
    /// verified since `time`, from node `from` of that part of the lists on.
    fn next(&mut self, now: u64, look: impl FnOnce(usize, usize, u64) -> Option<(Class, Due)>) -> Next {
        match look(self.part, self.node, now.saturating_sub(PERIOD.as_secs())) {
            Some((class, Due::Object { next, digest, mark })) => {
                self.node = next;
                Next::Object(Candidate { class, digest, mark })
            }
            Some((_, Due::None { next })) => {
                self.node = next;
                Next::Look
            }
            Some((_, Due::End)) => {
                *self = Self { part: self.part + 1, node: 0 };
                Next::Look
            }
            None => Next::Done,
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
    let (disk, class, digest, mark) = (disk.clone(), candidate.class, candidate.digest, candidate.mark);
    let recorded = blocking(move || {
        record(&disk, class, &digest, mark, found);
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
        let (then, step) = blocking(move || {
            let step = reading.step()?;
            Ok::<_, io::Error>((reading, step))
        })
        .await?;
        reading = then;
        if step.read_bytes == 0 {
            return Ok(reading.hasher.finish());
        }
        disk.metrics().storage().scrubbed_bytes(step.read_bytes);
        if let Some(elapsed) = step.disk_time {
            disk.metrics().storage().operated(StoreOperation::Read, elapsed);
        }
        pace.keep(step.read_bytes).await;
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

/// What one read brought.
#[derive(Debug)]
struct Step {
    /// 0 at the end.
    read_bytes: u64,
    /// How long the disk took; `None` for what was in the page cache.
    disk_time: Option<Duration>,
}

impl Reading {
    fn open(file: File, digest: &Digest, read_bytes: u64) -> io::Result<Self> {
        // No reading ahead: what it brings could not be told from what was in the page cache before. Only a hint.
        let _hinted = fadvise(&file, 0, None, Advice::Random);
        let len = file.metadata()?.len().clamp(1, read_bytes);
        let buffer = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        Ok(Self { file, hasher: Hasher::new(digest.algorithm()), buffer, offset: 0 })
    }

    /// Reads and hashes the next bytes. Blocks.
    fn step(&mut self) -> io::Result<Step> {
        let cached = self.file.read_now(self.offset, &mut self.buffer)?.filter(|read| *read > 0);
        let (read, disk_time) = if let Some(read) = cached {
            (read, None)
        } else {
            let began = Instant::now();
            let read = ReadAt::read_at(&self.file, self.offset, &mut self.buffer)?;
            (read, Some(began.elapsed()))
        };
        self.hasher.update(self.buffer.get(..read).unwrap_or_default());
        let (offset, read) = (self.offset, read as u64);
        self.offset += read;
        if disk_time.is_some() {
            // Nobody was reading this part. Only a hint.
            let _hinted = NonZeroU64::new(read).map(|len| fadvise(&self.file, offset, Some(len), Advice::DontNeed));
        }
        Ok(Step { read_bytes: read, disk_time })
    }
}

/// Notes what reading an object brought, and drops it when it is damaged. Blocks.
fn record(disk: &Disk, class: Class, digest: &Digest, mark: Mark, found: io::Result<Digest>) {
    let storage = disk.metrics().storage();
    match found {
        Ok(actual) if actual == *digest => {
            disk.shelf(class).list(digest, |recency| recency.verified(digest, mark, Time::now()));
            storage.scrubbed(Scrubbed::Ok);
        }
        Ok(actual) => {
            if disk.discard_in(class, digest, mark, Damage::Mismatch) {
                tracing::error!(%digest, %actual, "a scrub found that a stored object does not match its digest; it is dropped");
                storage.scrubbed(Scrubbed::Corrupt);
                disk.metrics().stored_mismatch(MismatchSource::Disk);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Evicted meanwhile, or removed by somebody else.
            if disk.forget_missing(class, digest, mark) {
                storage.scrubbed(Scrubbed::Missing);
            }
        }
        Err(error) => match Damage::of(&error) {
            Some(damage) if disk.discard_in(class, digest, mark, damage) => {
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::store::{BlobStore, Options};
    use crate::telemetry::Metrics;

    const MIB: u64 = 1024 * 1024;
    const WEEK: u64 = 7 * 24 * 60 * 60;

    fn disk(root: &Path) -> (Disk, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new(&[], 0).unwrap());
        let options = Options {
            root: root.to_owned(),
            capacity_bytes: 100 * MIB,
            metadata_capacity_bytes: 100 * MIB,
            min_free_bytes: 0,
        };
        let disk = Disk::open(options, Arc::clone(&metrics)).unwrap().0;
        disk.scan().unwrap();
        (disk, metrics)
    }

    fn put(disk: &Disk, class: Class, seed: u8, len: u64) -> Digest {
        let bytes = Bytes::from(vec![seed; usize::try_from(len).unwrap()]);
        let digest = Digest::sha256(&bytes);
        disk.put(&digest, class, &bytes).unwrap();
        digest
    }

    async fn pass_at_once(disk: &Disk) {
        pass(disk, &mut Pace::new(NonZeroU64::MAX, Instant::now())).await;
    }

    #[track_caller]
    fn metric(metrics: &Metrics, series: &str) -> u64 {
        let text = metrics.encode().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series}")).parse().unwrap()
    }

    fn results(metrics: &Metrics) -> [u64; 4] {
        ["ok", "corrupt", "unreadable", "missing"]
            .map(|result| metric(metrics, &format!(r#"cachalot_scrub_objects_total{{result="{result}"}}"#)))
    }

    #[tokio::test]
    async fn a_pass_finds_what_rotted_and_drops_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (good, flipped, cut, gone, manifest) = {
            let (disk, _) = disk(directory.path());
            let [good, flipped, cut, gone] = [1, 2, 3, 4].map(|seed| put(&disk, Class::Layer, seed, 2 * MIB + 5));
            (good, flipped, cut, gone, put(&disk, Class::Metadata, 5, 700))
        };
        let (disk, metrics) = disk(directory.path());
        let path = |digest| disk.layout().object(Class::Layer, digest);
        let open = |digest| std::fs::File::options().write(true).open(path(digest)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&open(&flipped), b"x", MIB + 3).unwrap();
        open(&cut).set_len(MIB).unwrap();
        std::fs::remove_file(path(&gone)).unwrap();
        let fresh = put(&disk, Class::Layer, 6, 10);
        pass_at_once(&disk).await;
        assert_eq!(results(&metrics), [2, 2, 0, 1], "what was stored just now is not read");
        assert_eq!(metric(&metrics, "cachalot_scrub_bytes_total"), 2 * (2 * MIB + 5) + MIB + 700);
        let mismatches = r#"cachalot_digest_mismatches_total{kind="other",source="disk",upstream="_other"}"#;
        assert_eq!(metric(&metrics, mismatches), 2);
        assert!(metric(&metrics, "cachalot_scrub_last_completion_timestamp_seconds") > 0);
        for digest in [&good, &manifest, &fresh] {
            assert!(disk.open(digest).unwrap().mark.is_verified());
        }
        for digest in [&flipped, &cut, &gone] {
            assert!(disk.open(digest).is_none() && !path(digest).exists());
        }
        assert_eq!(disk.shelf(Class::Layer).used_bytes(), 2 * MIB + 5 + 10);
        // Nothing is due any more.
        pass_at_once(&disk).await;
        assert_eq!(results(&metrics), [2, 2, 0, 1]);
    }

    #[tokio::test]
    async fn a_pass_leaves_the_order_of_use_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let digests = {
            let (disk, _) = disk(directory.path());
            [1, 2, 3].map(|seed| put(&disk, Class::Layer, seed, MIB))
        };
        let (disk, _) = disk(directory.path());
        let by_use = [2, 0, 1].map(|at| digests[at]);
        for digest in by_use {
            assert!(disk.open(&digest).is_some());
        }
        pass_at_once(&disk).await;
        let coldest_first = std::iter::from_fn(|| disk.shelf(Class::Layer).pop_coldest(Time::now()));
        assert!(coldest_first.map(|victim| victim.digest).eq(by_use));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, metrics) = disk(directory.path());
        let digest = put(&disk, Class::Layer, 1, MIB);
        disk.shelf(Class::Layer).list(&digest, |recency| {
            recency.remove(&digest);
            recency.insert_coldest(digest, MIB, Time::from_seconds(0));
        });
        // Reading a directory fails.
        let path = disk.layout().object(Class::Layer, &digest);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        pass_at_once(&disk).await;
        assert_eq!(results(&metrics), [0, 0, 1, 0]);
        assert_eq!(disk.shelf(Class::Layer).len(), 0);
    }

    #[test]
    fn a_round_goes_through_all_parts_and_asks_for_what_is_older_than_the_period() {
        let mut round = Round::default();
        let (digest, mark) = (Digest::sha256(b"x"), Mark::found(1));
        let mut asked = Vec::new();
        let mut next = |answer| {
            round.next(10 * WEEK, |part, from, time| {
                asked.push((part, from, time));
                answer
            })
        };
        let (layer, metadata) = (Class::Layer, Class::Metadata);
        assert_eq!(next(Some((layer, Due::None { next: 7 }))), Next::Look);
        let candidate = Candidate { class: layer, digest, mark };
        assert_eq!(next(Some((layer, Due::Object { next: 9, digest, mark }))), Next::Object(candidate));
        assert_eq!(next(Some((layer, Due::End))), Next::Look);
        assert_eq!(next(Some((metadata, Due::End))), Next::Look);
        assert_eq!(next(None), Next::Done);
        assert!(asked.into_iter().eq([(0, 0), (0, 7), (0, 9), (1, 0), (2, 0)].map(|(part, from)| (
            part,
            from,
            9 * WEEK
        ))));
    }

    #[test]
    fn the_pace_keeps_the_rate_and_catches_up_on_no_more_than_a_second() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let mut pace = Pace::new(NonZeroU64::new(16 * MIB).unwrap(), began);
        // 1 MiB is worth 62.5 ms.
        assert_eq!(pace.pause(at(0), MIB), Duration::from_micros(62_500));
        assert_eq!(pace.pause(at(80), MIB), Duration::from_millis(45), "a slow read is caught up on");
        assert_eq!(pace.pause(at(125), 1024), Duration::ZERO, "too short to be kept");
        assert!(pace.pause(at(125), MIB) > Duration::from_micros(62_500), "and not forgotten");
        // A long stall is worth one second, which is sixteen times 1 MiB.
        let free = (0..30).take_while(|_| pace.pause(at(90_000), MIB).is_zero()).count();
        assert_eq!(free, 16);
        assert_eq!(pace.read_bytes(), MIB);
        let slow = Pace::new(NonZeroU64::new(1000).unwrap(), began);
        assert_eq!(slow.read_bytes(), READ_BYTES_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_of_nothing_is_no_scrub() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, metrics) = disk(directory.path());
        scrub(disk, 0).await;
        assert_eq!(metric(&metrics, "cachalot_scrub_last_completion_timestamp_seconds"), 0);
    }
}
