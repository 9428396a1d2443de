//! The cache over a scripted origin and a store with faults: no sockets.

mod bench;
mod deceit;
mod disk;
mod faulty;
mod origin;
mod rot;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use self::bench::{Bench, blob, read};
use self::faulty::DiskFault;
pub(super) use self::origin::ScriptedOrigin;
use self::origin::{CHUNK, Fault};
use super::{FillLimits, Parallel};
use crate::oci::Digest;
use crate::wire::{ByteRange, Outcome};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What a fill asks for first: one segment.
const FIRST: (u64, Option<u64>) = (0, Some(4 * MIB - 1));

const LIMITS: FillLimits = FillLimits { fills: 8, bytes: 1024 * MIB, unattended: 8 };

const PARALLEL: Parallel = Parallel { connections: 4, from_bytes: 32 * MIB };

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
