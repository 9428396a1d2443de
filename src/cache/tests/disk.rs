//! What clients get, and what stays, when the disk under a fill is slow, full, read-only or bad.

use super::*;

#[tokio::test]
async fn whatever_the_disk_does_clients_get_their_bytes_and_each_is_sent_once() {
    let cases = [
        (DiskFault::None, true),
        (DiskFault::ReadOnly, false),
        (DiskFault::FullBeyond(0), false),
        (DiskFault::FullBeyond(MIB), false),
        (DiskFault::FullBeyond(9 * MIB - 1), false),
        (DiskFault::CrashBeforeRename, false),
        (DiskFault::Slow, true),
    ];
    for (fault, is_stored) in cases {
        let bench = Bench::with_disk(ScriptedOrigin::new(blob(9 * MIB)).paced(), fault);
        let (first, second) = (bench.open().await, bench.open().await);
        let bodies = [first.from(0), second.from(0)].map(|body| tokio::spawn(read(body)));
        bench.origin.pace.close();
        for body in bodies {
            assert!(body.await.unwrap() == (bench.blob.to_vec(), true), "{fault:?}");
        }
        drop((first, second));
        let rest = (4 * MIB, if is_stored { Some(9 * MIB - 1) } else { bench.origin.asked()[1].1 });
        assert_eq!(bench.origin.asked(), [FIRST, rest], "{fault:?}");
        assert_eq!(bench.origin.sent.load(Ordering::SeqCst), 9 * MIB, "{fault:?}");
        let tasks = bench.tasks.clone();
        assert_eq!(tasks.drain(Duration::from_secs(20)).await, 0);
        assert_eq!(bench.is_stored(), is_stored, "{fault:?}");
        bench.settle().await;
    }
}

#[tokio::test]
async fn the_first_bytes_do_not_wait_for_the_disk_and_the_last_ones_do() {
    let bench = Bench::with_disk(ScriptedOrigin::new(blob(3 * MIB)), DiskFault::Stuck);
    let answer = bench.open().await;
    let (mut whole, mut range) = (answer.from(0), answer.range(ByteRange { start: 5, end: 99_999 }));
    for (body, from) in [(&mut whole, 0), (&mut range, 5)] {
        let first = body.next().await.unwrap().unwrap();
        assert!(bench.blob[from..].starts_with(&first));
    }
    let whole = tokio::spawn(read(whole));
    bench.disk_gate.close();
    assert!(whole.await.unwrap().1 && read(range).await.1);
    drop(answer);
    assert_eq!(bench.tasks.drain(Duration::from_secs(20)).await, 0);
    assert!(bench.is_stored());
    bench.settle().await;
}

#[tokio::test]
async fn what_cannot_be_read_back_is_fetched_once_more_for_everybody_who_was_reading_it() {
    for at in [0, 100, MIB + 1, 2 * MIB, 3 * MIB - 1] {
        let bench = Bench::with_disk(ScriptedOrigin::new(blob(3 * MIB)).paced(), DiskFault::PartialReadFails { at });
        let answers = [bench.open().await, bench.open().await, bench.open().await];
        let bodies = answers.map(|answer| tokio::spawn(read(answer.from(0))));
        bench.origin.pace.close();
        for body in bodies {
            assert!(body.await.unwrap() == (bench.blob.to_vec(), true), "{at}");
        }
        assert_eq!(bench.origin.asked(), [FIRST, FIRST], "{at}");
        assert_eq!(bench.tasks.drain(Duration::from_secs(20)).await, 0);
        assert!(bench.is_stored());
        bench.settle().await;
    }
}

#[tokio::test]
async fn bytes_that_were_wrong_before_they_could_not_be_read_back_are_not_completed_by_right_ones() {
    let origin = ScriptedOrigin::new(blob(3 * MIB)).paced().faults([Fault::WrongByteAt(7)]);
    let bench = Bench::with_disk(origin, DiskFault::PartialReadFails { at: 2 * MIB });
    let body = tokio::spawn(read(bench.open().await.from(0)));
    bench.origin.pace.close();
    let (bytes, complete) = body.await.unwrap();
    assert!(!complete && bytes.len() < bench.blob.len());
    bench.settle().await;
}

#[tokio::test]
async fn on_a_full_disk_a_late_client_gets_a_transfer_of_its_own() {
    let bench = Bench::with_disk(ScriptedOrigin::new(blob(16 * MIB)).paced(), DiskFault::ReadOnly);
    let early = bench.open().await;
    // Joined, and not reading yet: the first bytes wait for it.
    let idle = bench.open().await;
    assert_eq!(idle.outcome, Outcome::Coalesced);
    let early = tokio::spawn(read(early.from(0)));
    bench.origin.pace.close();
    let idle = tokio::spawn(read(idle.from(0)));
    assert!(early.await.unwrap() == (bench.blob.to_vec(), true));
    assert!(idle.await.unwrap() == (bench.blob.to_vec(), true));
    assert_eq!(bench.origin.asked(), [FIRST, (4 * MIB, None)]);
    let mut first = bench.open().await.from(0);
    let mut taken = 0;
    while taken < 6 * MIB {
        taken += first.next().await.unwrap().unwrap().len() as u64;
    }
    let late = bench.open().await;
    assert_eq!(late.outcome, Outcome::Miss);
    assert!(read(late.from(0)).await == (bench.blob.to_vec(), true));
    drop((first, late));
    bench.settle().await;
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_a_client_that_does_not_read_holds_the_others_up_once() {
    let bench = Bench::with_disk(ScriptedOrigin::new(blob(32 * MIB)).paced(), DiskFault::ReadOnly);
    let (idle, busy) = (bench.open().await, bench.open().await);
    let mut idle = idle.from(0);
    let busy = tokio::spawn(read(busy.from(0)));
    bench.origin.pace.close();
    assert!(idle.next().await.is_some_and(|next| next.is_ok()));
    let began = tokio::time::Instant::now();
    assert!(busy.await.unwrap() == (bench.blob.to_vec(), true));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    drop(idle);
    bench.settle().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_does_not_take_is_not_kept_in_memory_for_a_client_that_does_not_read() {
    let bench = Bench::with_disk(ScriptedOrigin::new(blob(3 * MIB)), DiskFault::ReadOnly);
    let mut body = bench.open().await.from(0);
    assert!(body.next().await.is_some_and(|next| next.is_ok()));
    let began = tokio::time::Instant::now();
    assert_eq!(bench.tasks.drain(Duration::from_mins(1)).await, 0);
    assert!(began.elapsed() >= Duration::from_secs(10), "a client that reads slowly gets some time");
    assert!(read(body).await.1);
    assert_eq!(bench.origin.asked().len(), 2, "the bytes were not there any more");
    bench.settle().await;
}

#[tokio::test]
async fn wrong_bytes_are_never_complete_on_a_full_disk_either() {
    let origin = ScriptedOrigin::new(blob(9 * MIB)).paced().faults([Fault::WrongByteAt(2 * MIB)]);
    let bench = Bench::with_disk(origin, DiskFault::FullBeyond(MIB));
    let answer = bench.open().await;
    let body = tokio::spawn(read(answer.from(0)));
    bench.origin.pace.close();
    let (bytes, complete) = body.await.unwrap();
    assert!(!complete && bytes.len() < bench.blob.len());
    drop(answer);
    bench.settle().await;
}

#[tokio::test]
async fn a_fill_that_nobody_wants_and_the_disk_does_not_take_is_abandoned() {
    let bench = Bench::with_disk(ScriptedOrigin::new(blob(64 * MIB)).paced(), DiskFault::ReadOnly);
    drop(bench.open().await);
    bench.origin.pace.close();
    let tasks = bench.tasks.clone();
    assert_eq!(tasks.drain(Duration::from_secs(20)).await, 0);
    assert!(bench.origin.sent.load(Ordering::SeqCst) < 64 * MIB);
    bench.settle().await;
}

#[tokio::test]
async fn a_far_range_on_a_full_disk_goes_past_the_fill() {
    let bench = Bench::with_disk(ScriptedOrigin::new(blob(64 * MIB)).paced(), DiskFault::ReadOnly);
    let answer = bench.open().await;
    let (start, end) = (60 * MIB, 60 * MIB + 99);
    let far = tokio::spawn(read(answer.range(ByteRange { start, end })));
    bench.origin.pace.close();
    let (bytes, complete) = far.await.unwrap();
    let at = 60 * 1024 * 1024;
    assert_eq!((&bytes[..], complete), (&bench.blob[at..at + 100], true));
    drop(answer);
    bench.settle().await;
}

/// Lets one of two readers fall behind on a disk that takes nothing, until the other has all, and returns what it gets in all.
async fn left_behind(bench: &Bench) -> (Vec<u8>, bool) {
    let (swift, slow) = (bench.open().await, bench.open().await);
    let mut slow = slow.from(0);
    let swift = tokio::spawn(read(swift.from(0)));
    bench.origin.pace.close();
    let begun = slow.next().await.unwrap().unwrap();
    swift.await.unwrap();
    let (rest, is_complete) = read(slow).await;
    ([&begun[..], &rest[..]].concat(), is_complete)
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_a_reader_that_is_left_behind_gets_its_bytes_all_the_same() {
    let bench = Bench::with_disk(ScriptedOrigin::new(blob(16 * MIB)).paced(), DiskFault::ReadOnly);
    let got = left_behind(&bench).await;
    assert_eq!(bench.origin.asked(), [FIRST, (4 * MIB, None), (0, Some(16 * MIB - 1))]);
    assert!(got == (bench.blob.to_vec(), true));
    bench.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_left_behind_completes_neither_wrong_bytes_of_the_fill_nor_of_its_own_transfer() {
    let wrong_at = Fault::WrongByteAt;
    for (name, faults) in
        [("fill", vec![wrong_at(7)]), ("own transfer", vec![Fault::None, Fault::None, wrong_at(15 * MIB)])]
    {
        let origin = ScriptedOrigin::new(blob(16 * MIB)).paced().faults(faults);
        let bench = Bench::with_disk(origin, DiskFault::ReadOnly);
        let (bytes, is_complete) = left_behind(&bench).await;
        assert!(!is_complete && bytes.len() < bench.blob.len(), "{name}");
        bench.settle().await;
    }
}

#[tokio::test]
async fn a_range_that_cannot_be_read_back_comes_from_the_upstream() {
    let bench =
        Bench::with_disk(ScriptedOrigin::new(blob(9 * MIB)).paced(), DiskFault::PartialReadFails { at: 8 * MIB });
    let answer = bench.open().await;
    let (start, end) = (8 * MIB + 10, 8 * MIB + 109);
    let range = tokio::spawn(read(answer.range(ByteRange { start, end })));
    bench.origin.pace.close();
    let at = usize::try_from(start).unwrap();
    let (bytes, complete) = range.await.unwrap();
    assert_eq!((&bytes[..], complete), (&bench.blob[at..at + 100], true));
    drop(answer);
    bench.settle().await;
}
