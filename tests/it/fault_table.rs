//! Every network fault, met by every kind of reader, with one endpoint and with two: what each client sees, what is kept, and what
//! the upstream was asked.
//!
//! The fault happens once at the only endpoint, or whenever the first of two endpoints is asked. Whatever the fault, a reader of
//! what is stored sees nothing of it, and with a good endpoint beside the bad one nobody does, except where bytes were wrong: those
//! cannot be told before their end, which is withheld.

use std::time::{Duration, Instant};

use futures_util::future::join;
use futures_util::{StreamExt, stream};

use crate::harness::{Answer, Cachalot, More};
use crate::registry::{Content, Fault, KIB, MIB, Match, Registry};

/// Several segments, so that a whole is more than one transfer.
const SIZE: u64 = 5 * MIB + 7;

const RANGE: &str = "bytes=4500000-4500999";

/// A transfer that stands still is given up after a second. No row is about an answer that does not begin.
const IMPATIENT: &str = "idle_timeout = \"1s\"";

/// How long the registry's limit lasts.
const LIMIT: Duration = Duration::from_secs(1);

/// Rows under way at once: most of their time is waiting.
const AT_ONCE: usize = 8;

/// What a client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// What it asked for, as if nothing had happened.
    Right,
    /// A body that ends before its announced end, or an error in its place.
    Short,
    /// An error before any byte.
    Error(u16),
}
use Seen::{Error, Right, Short};

struct Row {
    spec: &'static str,
    fault: Fault,
    /// Once, with one endpoint: a whole blob that is cold, a range of it, and a whole that follows another client's.
    seen: [Seen; 3],
    /// Always at the first of two endpoints: the same.
    seen_with_two: [Seen; 3],
}

fn rows(other: &Registry) -> Vec<Row> {
    let row = |spec, fault, seen, seen_with_two| Row { spec, fault, seen, seen_with_two };
    let mended = |spec, fault| row(spec, fault, [Right; 3], [Right; 3]);
    let told = |spec, fault, status| row(spec, fault, [Error(status); 3], [Right; 3]);
    vec![
        mended("U-65", Fault::Hangup),
        mended("P-50, U-66", Fault::CutAfter(0)),
        mended("P-50, U-66", Fault::CutAfter(1)),
        mended("P-50, U-66", Fault::CutAfter(3 * MIB)),
        mended("P-50, U-66", Fault::ResetAfter(300 * KIB)),
        mended("P-125, U-66", Fault::StallAfter(64 * KIB)),
        mended("P-133", Fault::SlowBytes(50 * MIB)),
        // The range has none of the wrong bytes.
        row("P-49, P-126", Fault::WrongBytes(0), [Short, Right, Short], [Short, Right, Short]),
        mended("P-49, P-67", Fault::WrongLength(5)),
        mended("P-49, P-67", Fault::WrongLength(-5)),
        mended("U-62", Fault::NoLength),
        mended("P-49, P-67", Fault::ExtraBytes(5)),
        mended("U-64, P-67", Fault::IgnoreRange),
        mended("U-64, P-67", Fault::WrongRange),
        told("P-123", Fault::Gzip, 502),
        mended("U-59", Fault::RedirectRelative),
        mended("U-59, S-30", Fault::RedirectLoop),
        mended("U-60, U-61", Fault::redirect_to(other)),
        mended("U-48, U-61", Fault::redirect_expiring(other, 300 * KIB)),
        mended("U-65", Fault::Status(500, "")),
        mended("U-65", Fault::Status(503, "<html>")),
        told("P-104", Fault::Status(403, ""), 403),
        told("P-30", Fault::Status(404, ""), 404),
        told("P-106, U-65", Fault::RateLimited { retry_after: Some("1") }, 503),
        mended("P-51, U-46", Fault::RefuseHead(403)),
        mended("S-10", Fault::LieAboutDigest),
        mended("U-63", Fault::NoDigestHeader),
    ]
}

fn path(digest: &cachalot::oci::Digest) -> String {
    format!("/v2/app/blobs/{digest}")
}

#[track_caller]
fn check(what: &str, answer: &Answer, seen: Seen, content: &Content, range: Option<(u64, u64)>) {
    let (start, len) = range.unwrap_or((0, SIZE));
    match seen {
        Right => {
            assert_eq!(answer.status, if range.is_some() { 206 } else { 200 }, "{what}");
            assert!(answer.is_complete && answer.body == content.read(start, len), "{what}: {}", answer.body.len());
        }
        // What is wrong may be known before the head is sent.
        Short => assert!(answer.status == 502 || answer.status == 200 && !answer.is_complete, "{what}"),
        Error(status) => assert_eq!(answer.status, status, "{what}"),
    }
}

/// Puts the three kinds of cold reader to the test, each over a blob and a cache of its own.
async fn meet(row: &Row, registries: &[&Registry], seen: [Seen; 3]) {
    let (first, last) = (registries[0], registries[registries.len() - 1]);
    let is_alone = registries.len() == 1;
    for (reader, seen) in ["cold whole", "cold range", "follower"].into_iter().zip(seen) {
        let what = format!("{:?} ({}), {reader}, {} endpoints", row.fault, row.spec, registries.len());
        let content = Content::generated(5, SIZE);
        let digest = first.with_blob(content.clone());
        let fault = first.fault(Match::blob(&digest), row.fault.clone());
        if is_alone {
            fault.optional();
        } else {
            fault.always().optional();
            last.with_blob(content.clone());
        }
        let urls: Vec<_> = registries.iter().map(|registry| registry.url()).collect();
        let more = More { upstream: IMPATIENT, sections: "[freshness]\nnegative_ttl = \"0s\"", ..More::default() };
        let cachalot = Cachalot::over_endpoints(&urls, more).await;
        let sent = || registries.iter().map(|registry| registry.bytes_sent("/blobs/")).sum::<u64>();
        let (before, began) = (sent(), Instant::now());
        match reader {
            "cold whole" => check(&what, &cachalot.get(&path(&digest)).await, seen, &content, None),
            "cold range" => {
                let answer = cachalot.get_range(&path(&digest), RANGE).await;
                check(&what, &answer, seen, &content, Some((4_500_000, 1000)));
            }
            _ => {
                let path = path(&digest);
                let (leader, follower) = join(cachalot.get(&path), cachalot.get(&path)).await;
                check(&what, &leader, seen, &content, None);
                check(&what, &follower, seen, &content, None);
            }
        }
        first.clear_faults();
        first.release();
        // Whoever comes next gets it right, and from then on from the store.
        let mut next = cachalot.get(&path(&digest)).await;
        if matches!(row.fault, Fault::RateLimited { .. }) && is_alone {
            assert!(next.status == 503 || began.elapsed() >= LIMIT, "P-106: {}", next.status);
            if next.status == 503 {
                tokio::time::sleep(Duration::from_secs(next.header("retry-after").parse().unwrap())).await;
                next = cachalot.get(&path(&digest)).await;
            }
        }
        let is_wrong = matches!(row.fault, Fault::WrongBytes(_));
        if is_wrong && !next.is_complete {
            // It followed the fill that a range began, whose bytes turned out wrong.
            next = cachalot.get(&path(&digest)).await;
        }
        check(&format!("{what}, the next"), &next, Right, &content, None);
        let asked = registries.iter().map(|registry| registry.requests().len()).sum::<usize>();
        let warm = cachalot.get(&path(&digest)).await;
        check(&format!("{what}, warm"), &warm, Right, &content, None);
        assert_eq!(warm.header("cache-status"), "cachalot; hit", "{what}");
        assert_eq!(registries.iter().map(|registry| registry.requests().len()).sum::<usize>(), asked, "{what}");
        // A fill that failed is paid for, and so is what a bad endpoint sends each time that it is tried; everything else is fetched
        // once, but for what was on its way when it was given up.
        let fetches = if is_wrong || !is_alone { 2 } else { 1 };
        assert!(sent() - before <= fetches * SIZE + 4 * MIB + KIB, "{what}: {} bytes", sent() - before);
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn with_one_endpoint_readers_see_what_the_table_says() {
    let other = Registry::start().await;
    other.with_blob(Content::generated(5, SIZE));
    let rows = rows(&other);
    let meetings = stream::iter(&rows).for_each_concurrent(AT_ONCE, |row| async {
        let registry = Registry::start().await;
        meet(row, &[&registry], row.seen).await;
    });
    meetings.await;
}

#[tokio::test]
async fn with_two_endpoints_one_that_fails_always_is_not_noticed() {
    let other = Registry::start().await;
    other.with_blob(Content::generated(5, SIZE));
    let rows = rows(&other);
    let meetings = stream::iter(&rows).for_each_concurrent(AT_ONCE, |row| async {
        let (first, second) = (Registry::start().await, Registry::start().await);
        meet(row, &[&first, &second], row.seen_with_two).await;
    });
    meetings.await;
}

#[tokio::test]
async fn what_is_stored_is_served_whatever_the_upstream_does() {
    let registry = Registry::start().await;
    let content = Content::generated(6, SIZE);
    let digest = registry.with_blob(content.clone());
    let cachalot = Cachalot::over(&registry).await;
    assert!(cachalot.get(&path(&digest)).await.is_complete);
    let asked = registry.requests().len();
    for row in rows(&registry) {
        registry.fault(Match::any(), row.fault.clone()).always().optional();
        let what = format!("{:?}, warm", row.fault);
        check(&what, &cachalot.get(&path(&digest)).await, Right, &content, None);
        let answer = cachalot.get_range(&path(&digest), RANGE).await;
        check(&what, &answer, Right, &content, Some((4_500_000, 1000)));
        registry.clear_faults();
    }
    registry.stop().await;
    check("stopped, warm", &cachalot.get(&path(&digest)).await, Right, &content, None);
    assert_eq!(registry.requests().len(), asked);
    cachalot.finish().await;
}
