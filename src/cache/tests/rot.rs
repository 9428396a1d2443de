//! Stored blobs that rot, shrink or cannot be read: what clients get of them, and what becomes of them.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::cache::Piece;
use crate::store::{BlobStore, Class, Damage, Disk, Options};
use crate::telemetry::Metrics;

const DISK_MISMATCHES: &str = r#"cachalot_digest_mismatches_total{kind="blob",source="disk",upstream="registry.test"}"#;

impl Bench {
    /// A bench whose store holds the blob, from a process that has ended.
    async fn stored_before(len: u64, fault: DiskFault) -> Self {
        let bench = Self::new(ScriptedOrigin::new(blob(len)));
        assert!(read(bench.open().await.from(0)).await.1);
        bench.restart(fault, false).await
    }

    /// Lets the stored blob count as verified.
    fn trust(&self) {
        let object = self.disk.open(&self.digest()).unwrap();
        self.disk.verified(&self.digest(), &object);
    }

    fn file(&self) -> PathBuf {
        let encoded = self.digest().encoded();
        self.directory.path().join("layer/sha256").join(&encoded[..2]).join(encoded)
    }

    /// Flips a bit of the stored file.
    fn flip(&self, at: u64) {
        let file = std::fs::File::options().read(true).write(true).open(self.file()).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    }

    #[track_caller]
    fn metric(&self, series: &str) -> u64 {
        let text = self.metrics.encode().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series}")).parse().unwrap()
    }

    fn mismatches(&self) -> u64 {
        self.metric(DISK_MISMATCHES)
    }

    fn evicted(&self, reason: &str) -> u64 {
        self.metric(&format!(r#"cachalot_evictions_total{{reason="{reason}",tier="disk"}}"#))
    }

    fn transfers(&self) -> usize {
        self.origin.asked().len()
    }
}

#[tokio::test]
async fn a_rotten_blob_never_ends_and_the_next_request_fetches_it_anew() {
    for at in [0, 100 * KIB, MIB - 1] {
        let bench = Bench::stored_before(MIB, DiskFault::None).await;
        bench.flip(at);
        let before = bench.transfers();
        let first = bench.open().await;
        assert_eq!(first.outcome, Outcome::Hit);
        let (bytes, complete) = read(first.from(0)).await;
        assert!(!complete && bytes.len() as u64 <= MIB - 16 * KIB, "{at}: {} bytes", bytes.len());
        assert_eq!((bench.mismatches(), bench.evicted("corrupt"), bench.is_stored()), (1, 1, false), "{at}");
        let second = bench.open().await;
        assert_eq!(second.outcome, Outcome::Miss);
        assert!(read(second.from(0)).await == (bench.blob.to_vec(), true), "{at}");
        assert_eq!(bench.transfers(), before + 1, "{at}");
        drop((first, second));
        bench.settle().await;
    }
}

#[tokio::test]
async fn a_good_blob_is_checked_once_in_a_process_and_then_trusted() {
    let bench = Bench::stored_before(MIB, DiskFault::None).await;
    let verified = || bench.disk.open(&bench.digest()).unwrap().mark.is_verified();
    assert!(!verified());
    let answer = bench.open().await;
    assert!(read(answer.range(ByteRange { start: 0, end: MIB - 2 })).await.1);
    assert!(read(answer.from(1)).await.1);
    assert!(!verified(), "a part was read");
    assert!(read(answer.range(ByteRange { start: 0, end: MIB - 1 })).await == (bench.blob.to_vec(), true));
    assert!(verified());
    // Nothing is hashed any more: what rots from here on is the scrub's to find.
    bench.flip(5);
    assert!(read(bench.open().await.from(0)).await.1);
    drop(answer);
    bench.settle().await;
}

#[tokio::test]
async fn what_was_fetched_in_this_process_is_trusted_at_once() {
    let bench = Bench::new(ScriptedOrigin::new(blob(MIB)));
    assert!(read(bench.open().await.from(0)).await.1);
    assert_eq!(bench.tasks.drain(Duration::from_secs(20)).await, 0);
    assert!(bench.disk.open(&bench.digest()).unwrap().mark.is_verified());
    bench.settle().await;
}

#[tokio::test]
async fn readers_of_a_rotten_file_do_not_drop_the_one_that_replaced_it() {
    let bench = Bench::stored_before(MIB, DiskFault::None).await;
    bench.flip(9);
    let (first, late) = (bench.open().await, bench.open().await);
    let mut late = late.from(0);
    assert!(late.next().await.unwrap().is_ok());
    assert!(!read(first.from(0)).await.1);
    assert!(read(bench.open().await.from(0)).await.1);
    let tasks = bench.tasks.clone();
    assert_eq!(tasks.drain(Duration::from_secs(20)).await, 0);
    assert!(!read(late).await.1);
    assert!(bench.is_stored());
    assert_eq!((bench.mismatches(), bench.evicted("corrupt")), (1, 1));
    assert!(bench.disk.open(&bench.digest()).unwrap().mark.is_verified());
    drop(first);
    bench.settle().await;
}

#[tokio::test]
async fn a_disk_that_fails_in_the_middle_is_not_noticed() {
    // What is asked for, and where the disk fails.
    let whole = (0, None);
    let rows: [((u64, Option<u64>), u64); 8] = [
        (whole, 0),
        (whole, 1),
        (whole, 1000 * KIB + 3),
        (whole, 2 * MIB - 1),
        ((MIB, None), MIB + 5),
        ((MIB, Some(2 * MIB - 9)), MIB + 5),
        ((MIB, Some(2 * MIB - 1)), 2 * MIB - 1),
        ((0, Some(2 * MIB - 1)), MIB),
    ];
    for ((start, end), at) in rows {
        for is_verified in [false, true] {
            let name = format!("{start}..{end:?} failing at {at}, verified: {is_verified}");
            let bench = Bench::stored_before(2 * MIB, DiskFault::ReadFails { at }).await;
            if is_verified {
                bench.trust();
            }
            let before = bench.transfers();
            let answer = bench.open().await;
            let body = end.map_or_else(|| answer.from(start), |end| answer.range(ByteRange { start, end }));
            let from = usize::try_from(start).unwrap();
            let to = end.map_or(bench.blob.len(), |end| usize::try_from(end).unwrap() + 1);
            assert!(read(body).await == (bench.blob[from..to].to_vec(), true), "{name}");
            assert!(bench.transfers() > before, "{name}");
            let tasks = bench.tasks.clone();
            assert_eq!(tasks.drain(Duration::from_secs(20)).await, 0, "{name}");
            assert_eq!((bench.evicted("unreadable"), bench.mismatches()), (1, 0), "{name}");
            let errors = bench.metric(r#"cachalot_storage_errors_total{operation="read",reason="eio"}"#);
            assert!(errors == 1 && bench.is_stored(), "{name}");
            let again = bench.open().await;
            assert_eq!(again.outcome, Outcome::Hit, "{name}");
            assert!(read(again.from(0)).await == (bench.blob.to_vec(), true), "{name}");
            drop((answer, again));
            bench.settle().await;
        }
    }
}

#[tokio::test]
async fn rot_before_the_place_where_the_disk_fails_is_found_nevertheless() {
    let bench = Bench::stored_before(2 * MIB, DiskFault::ReadFails { at: MIB }).await;
    bench.flip(1000);
    let answer = bench.open().await;
    let (bytes, complete) = read(answer.from(0)).await;
    assert!(!complete && bytes.len() as u64 <= 2 * MIB - 16 * KIB, "{}", bytes.len());
    assert!(read(bench.open().await.from(0)).await == (bench.blob.to_vec(), true));
    drop(answer);
    bench.settle().await;
}

#[tokio::test]
async fn without_the_upstream_a_body_ends_where_the_disk_fails() {
    for (offline, faults) in [(true, vec![]), (false, vec![Fault::Status(404)])] {
        let bench = Bench::stored_before(2 * MIB, DiskFault::None).await;
        let bench = bench.restart(DiskFault::ReadFails { at: MIB }, offline).await;
        *bench.origin.faults.lock().unwrap() = faults.into();
        let answer = bench.open().await;
        let (bytes, complete) = read(answer.from(0)).await;
        assert_eq!((bytes.len() as u64, complete), (MIB, false), "offline: {offline}");
        drop(answer);
        bench.settle().await;
    }
}

#[tokio::test]
async fn a_file_that_is_cut_while_it_is_read_is_not_noticed() {
    let bench = Bench::stored_before(MIB, DiskFault::None).await;
    let answer = bench.open().await;
    std::fs::File::options().write(true).open(bench.file()).unwrap().set_len(300 * KIB).unwrap();
    assert!(read(answer.from(0)).await == (bench.blob.to_vec(), true));
    drop(answer);
    bench.settle().await;
}

#[tokio::test]
async fn a_file_that_was_cut_before_the_start_is_found_and_its_shortness_is_visible() {
    let bench = Bench::new(ScriptedOrigin::new(blob(MIB)));
    assert!(read(bench.open().await.from(0)).await.1);
    assert_eq!(bench.tasks.drain(Duration::from_secs(20)).await, 0);
    std::fs::File::options().write(true).open(bench.file()).unwrap().set_len(300 * KIB).unwrap();
    let bench = bench.restart(DiskFault::None, false).await;
    let answer = bench.open().await;
    let told = answer.size_bytes.unwrap();
    let (bytes, complete) = read(answer.from(0)).await;
    assert!(!complete && (bytes.len() as u64) < told);
    assert!(read(bench.open().await.from(0)).await == (bench.blob.to_vec(), true));
    drop(answer);
    bench.settle().await;
}

#[tokio::test]
async fn a_piece_of_a_file_that_fails_comes_from_the_upstream_and_is_good_if_the_body_must_be() {
    // A wrong byte of the upstream, outside of the piece; whether the body runs to the blob's end; whether the piece is completed.
    for (wrong, is_whole, completes) in [(false, true, true), (true, true, false), (true, false, true)] {
        let bench = Bench::stored_before(2 * MIB, DiskFault::None).await;
        bench.trust();
        if wrong {
            bench.origin.faults.lock().unwrap().push_back(Fault::WrongByteAt(MIB));
        }
        let answer = bench.open().await;
        let mut body = if is_whole { answer.from(0) } else { answer.range(ByteRange { start: 0, end: 2 * MIB - 2 }) };
        let Some(Ok(Piece::File { range, rescue: Some(rescue), .. })) = body.next_piece().await else {
            panic!("not a piece of a file");
        };
        std::fs::File::options().write(true).open(bench.file()).unwrap().set_len(0).unwrap();
        let expected = bench.blob[..usize::try_from(range.end).unwrap()].to_vec();
        let (bytes, is_complete) = read(rescue.body(range)).await;
        assert!(is_complete == completes && expected.starts_with(&bytes), "wrong: {wrong}, whole: {is_whole}");
        assert!(completes == (bytes == expected));
        drop((answer, body));
        bench.settle().await;
    }
}

#[tokio::test]
async fn a_fill_takes_nothing_over_that_was_not_verified_in_this_process() {
    let bench = Bench::stored_before(MIB, DiskFault::OpenFailsOnce).await;
    bench.flip(MIB - 1);
    let before = bench.transfers();
    let answer = bench.open().await;
    assert!(read(answer.from(0)).await == (bench.blob.to_vec(), true));
    assert_eq!(bench.transfers(), before + 1);
    drop(answer);
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
