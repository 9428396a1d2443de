//! Upstreams that contradict themselves: what their clients get, and that it ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_blob_is_never_shorter_than_what_was_sent_of_it() {
    for shorter in [Fault::NoLengthUpTo(100 * KIB), Fault::SaidToBe(100 * KIB), Fault::SaidToBe(0)] {
        let faults = [Fault::NoLengthCutAfter(512 * KIB), shorter];
        let bench = Bench::new(ScriptedOrigin::new(blob(MIB)).faults(faults));
        let (bytes, complete) = read(bench.open().await.from(0)).await;
        assert!(bytes == bench.blob && complete, "{shorter:?}: {} bytes, complete: {complete}", bytes.len());
        bench.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_sends_too_much_is_given_up() {
    let faults = std::iter::once(Fault::CutAfter(100 * KIB)).chain([Fault::NoLengthAndMore(5); 50]);
    let bench = Bench::new(ScriptedOrigin::new(blob(900 * KIB)).faults(faults));
    let body = tokio::time::timeout(Duration::from_mins(10), read(bench.open().await.from(0))).await;
    assert!(body.is_ok_and(|(_, complete)| !complete), "asked {} times", bench.origin.asked().len());
    bench.settle().await;
}
