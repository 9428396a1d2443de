//! What goes wrong at the upstream, and what a client sees of it: nothing, or a body that is visibly short.

use crate::harness::{Cachalot, More};
use crate::registry::{Content, Fault, KIB, MIB, Match, Registry};

/// What the first client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The whole blob, as if nothing had happened.
    Whole,
    /// A body that ends before its announced end, or an error in its place.
    Short,
    /// An error before any byte.
    Error(u16),
}

struct Case {
    spec: &'static str,
    fault: Fault,
    seen: Seen,
    /// Blob requests at the upstream for this client.
    requests: usize,
}

const SIZE: u64 = MIB + 7;

fn cases() -> Vec<Case> {
    let case = |spec, fault, seen, requests| Case { spec, fault, seen, requests };
    vec![
        case("P-50, U-66", Fault::CutAfter(0), Seen::Whole, 2),
        case("P-50, U-66", Fault::CutAfter(1), Seen::Whole, 2),
        case("P-50, U-66", Fault::CutAfter(SIZE - 1), Seen::Whole, 2),
        case("P-50, U-66", Fault::ResetAfter(300 * KIB), Seen::Whole, 2),
        case("P-49, P-126", Fault::WrongBytes(0), Seen::Short, 1),
        case("P-49, P-126", Fault::WrongBytes(SIZE - 1), Seen::Short, 1),
        case("U-62", Fault::NoLength, Seen::Whole, 1),
        case("P-49, P-67", Fault::ExtraBytes(5), Seen::Whole, 2),
        case("U-71", Fault::HtmlPage, Seen::Short, 1),
        case("P-123", Fault::Gzip, Seen::Error(502), 1),
        case("U-65", Fault::Hangup, Seen::Whole, 2),
        case("U-65", Fault::Status(503, ""), Seen::Whole, 2),
        case("U-59", Fault::RedirectRelative, Seen::Whole, 2),
        case("U-59, S-30", Fault::RedirectLoop, Seen::Error(502), 11),
        case("P-30", Fault::Status(404, ""), Seen::Error(404), 1),
    ]
}

#[tokio::test]
async fn each_fault_shows_as_the_table_says_and_the_next_client_gets_the_blob() {
    for case in cases() {
        let registry = Registry::start().await;
        let content = Content::generated(5, SIZE);
        let digest = registry.with_blob(content.clone());
        let scheduled = registry.fault(Match::blob(&digest), case.fault.clone());
        if matches!(case.fault, Fault::RedirectLoop) {
            scheduled.times(11).optional();
        }
        let cachalot =
            Cachalot::configured(&registry, More { sections: "[freshness]\nnegative_ttl = \"0s\"", ..More::default() })
                .await;
        let path = format!("/v2/app/blobs/{digest}");
        let what = format!("{:?} ({})", case.fault, case.spec);
        let first = cachalot.get(&path).await;
        match case.seen {
            Seen::Whole => assert!(first.status == 200 && first.is_complete && first.body == content.bytes(), "{what}"),
            // A small wrong body may be known to be wrong before the head is sent.
            Seen::Short => assert!(first.status == 502 || first.status == 200 && !first.is_complete, "{what}"),
            Seen::Error(status) => assert_eq!(first.status, status, "{what}"),
        }
        assert_eq!(registry.gets("/blobs/").len(), case.requests, "{what}");
        registry.clear_faults();
        let second = cachalot.get(&path).await;
        assert!(second.is_complete && second.body == content.bytes(), "{what}: the second client");
        assert_eq!(cachalot.get(&path).await.header("cache-status"), "cachalot; hit", "{what}");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_wrong_blob_is_counted_and_no_reader_completes_it() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    let other = Content::generated(7, SIZE);
    let digest = registry.with_blob(other.clone());
    registry.fault(Match::blob(&digest), Fault::WrongBytes(SIZE / 2));
    let path = format!("/v2/app/blobs/{digest}");
    let requests = (0..10).map(|at| {
        let range = if at % 2 == 0 { "bytes=0-".to_owned() } else { format!("bytes={at}-") };
        let (cachalot, path) = (&cachalot, &path);
        async move { cachalot.get_range(path, &range).await }
    });
    for answer in futures_util::future::join_all(requests).await {
        assert!(!answer.is_complete || answer.body == other.read(SIZE - answer.body.len() as u64, SIZE), "P-49");
    }
    let mismatches = r#"cachalot_digest_mismatches_total{kind="blob",source="upstream",upstream="registry.test"}"#;
    assert_eq!(cachalot.metric(mismatches), 1);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_signed_url_that_expires_in_the_middle_is_replaced_by_asking_the_registry_again() {
    let (registry, cdn) = (Registry::start().await, Registry::start().await);
    let content = Content::generated(4, SIZE);
    let digest = registry.with_blob(content.clone());
    cdn.with_blob(content.clone());
    registry.fault(Match::blob(&digest), Fault::redirect_expiring(&cdn, 300 * KIB)).always();
    let cachalot = Cachalot::over(&registry).await;
    let answer = cachalot.get(&format!("/v2/app/blobs/{digest}")).await;
    assert!(answer.is_complete && answer.body == content.bytes(), "U-48");
    let signed = cdn.gets("/blobs/");
    assert_eq!((signed.len(), registry.gets("/blobs/").len()), (4, 4), "U-61");
    let starts: Vec<_> = signed.iter().map(|request| request.range.clone().unwrap_or_default()).collect();
    for (step, start) in starts.iter().enumerate() {
        let expected = format!("bytes={}-", step as u64 * 300 * KIB);
        assert!(start.starts_with(&expected), "{starts:?}");
    }
    assert!(signed.iter().all(|request| request.authorization.is_none()), "U-60");
    cachalot.finish().await;
}

#[tokio::test]
async fn an_upstream_that_ignores_ranges_is_resumed_all_the_same() {
    let registry = Registry::start().await;
    let content = Content::generated(8, SIZE);
    let digest = registry.with_blob(content.clone());
    registry.fault(Match::blob(&digest), Fault::CutAfter(SIZE / 2));
    registry.fault(Match::blob(&digest).ranged(), Fault::IgnoreRange).always();
    let cachalot = Cachalot::over(&registry).await;
    let answer = cachalot.get(&format!("/v2/app/blobs/{digest}")).await;
    assert!(answer.is_complete && answer.body == content.bytes(), "U-64, P-67");
    // What was taken for a range server shows by the second answer that it is none; the third is read from where it matters.
    assert_eq!(registry.gets("/blobs/").len(), 3);
    // The next blob is asked for as a whole.
    let next = registry.with_blob(Content::generated(9, SIZE));
    assert!(cachalot.get(&format!("/v2/app/blobs/{next}")).await.is_complete);
    assert_eq!(registry.gets(&format!("/blobs/{next}"))[0].range, None);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_transfer_is_cut_at_many_places_and_no_client_notices() {
    let registry = Registry::start().await;
    let size = 3 * MIB;
    let content = Content::generated(9, size);
    let digest = registry.with_blob(content.clone());
    for cut in [1, 16 * KIB, 16 * KIB + 1, 64 * KIB - 1, 256 * KIB, MIB] {
        registry.fault(Match::blob(&digest), Fault::CutAfter(cut));
    }
    let cachalot = Cachalot::over(&registry).await;
    let path = format!("/v2/app/blobs/{digest}");
    let answers = futures_util::future::join_all((0..5).map(|_| cachalot.get(&path))).await;
    assert!(answers.iter().all(|answer| answer.is_complete && answer.body == content.bytes()));
    assert_eq!(registry.bytes_sent("/blobs/"), size, "no byte is sent twice");
    cachalot.finish().await;
}
