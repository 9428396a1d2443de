//! Ranges on blobs that are warm, in flight and cold: always 206, always the right bytes (P-54…P-67).

use crate::harness::{Answer, Cachalot};
use crate::registry::{Content, Fault, KIB, MIB, Match, Registry};

/// What one request must be answered.
struct Case {
    name: &'static str,
    spec: &'static str,
    range: &'static str,
    status: u16,
    /// The bytes, from and to (exclusive).
    bytes: Option<(u64, u64)>,
    content_range: &'static str,
}

const SIZE: u64 = 2048;

const CASES: &[Case] = &[
    Case {
        name: "first and last byte",
        spec: "P-54",
        range: "bytes=500-1499",
        status: 206,
        bytes: Some((500, 1500)),
        content_range: "bytes 500-1499/2048",
    },
    Case {
        name: "open end",
        spec: "P-54",
        range: "bytes=500-",
        status: 206,
        bytes: Some((500, 2048)),
        content_range: "bytes 500-2047/2048",
    },
    Case {
        name: "everything",
        spec: "P-56, C-16",
        range: "bytes=0-",
        status: 206,
        bytes: Some((0, 2048)),
        content_range: "bytes 0-2047/2048",
    },
    Case {
        name: "suffix",
        spec: "P-54",
        range: "bytes=-500",
        status: 206,
        bytes: Some((1548, 2048)),
        content_range: "bytes 1548-2047/2048",
    },
    Case {
        name: "suffix longer than the blob",
        spec: "RFC 9110 §14.1.2",
        range: "bytes=-5000",
        status: 206,
        bytes: Some((0, 2048)),
        content_range: "bytes 0-2047/2048",
    },
    Case {
        name: "end beyond the blob",
        spec: "P-54",
        range: "bytes=2000-5000",
        status: 206,
        bytes: Some((2000, 2048)),
        content_range: "bytes 2000-2047/2048",
    },
    Case {
        name: "end one past the blob",
        spec: "P-64",
        range: "bytes=100-2048",
        status: 206,
        bytes: Some((100, 2048)),
        content_range: "bytes 100-2047/2048",
    },
    Case {
        name: "the probe of lazy pullers",
        spec: "P-57",
        range: "bytes=0-1",
        status: 206,
        bytes: Some((0, 2)),
        content_range: "bytes 0-1/2048",
    },
    Case {
        name: "start beyond the blob",
        spec: "P-55",
        range: "bytes=5000-10000",
        status: 416,
        bytes: None,
        content_range: "bytes */2048",
    },
    Case {
        name: "start at the size",
        spec: "P-55",
        range: "bytes=2048-",
        status: 416,
        bytes: None,
        content_range: "bytes */2048",
    },
    Case {
        name: "end before start",
        spec: "P-55",
        range: "bytes=500-0",
        status: 416,
        bytes: None,
        content_range: "bytes */2048",
    },
    Case {
        name: "another unit",
        spec: "P-66",
        range: "lines=1-2",
        status: 200,
        bytes: Some((0, 2048)),
        content_range: "",
    },
    Case {
        name: "no range at all",
        spec: "P-66",
        range: "bytes=abc",
        status: 200,
        bytes: Some((0, 2048)),
        content_range: "",
    },
];

#[track_caller]
fn check(case: &Case, state: &str, answer: &Answer, content: &Content, digest: &str) {
    let what = format!("{} ({}), {state}", case.name, case.spec);
    assert_eq!(answer.status, case.status, "{what}");
    assert_eq!(answer.header("content-range"), case.content_range, "{what}, P-59");
    assert!(answer.is_complete, "{what}");
    assert_eq!(answer.header("docker-content-digest"), digest, "{what}, P-58");
    assert_eq!(answer.header("accept-ranges"), "bytes", "{what}, P-58");
    assert_eq!(answer.header("content-type"), "application/octet-stream", "{what}, P-45, P-58");
    assert_eq!(answer.header("etag"), format!("\"{digest}\""), "{what}, P-58");
    if let Some((from, to)) = case.bytes {
        assert_eq!(answer.header("content-length"), (to - from).to_string(), "{what}, P-54");
        assert_eq!(answer.body, content.read(from, to - from), "{what}");
    }
}

#[tokio::test]
async fn single_ranges_are_answered_alike_cold_and_warm() {
    for case in CASES {
        let registry = Registry::start().await;
        let content = Content::generated(7, SIZE);
        let digest = registry.with_blob(content.clone()).to_string();
        let cachalot = Cachalot::over(&registry).await;
        let path = format!("/v2/app/blobs/{digest}");
        for state in ["cold", "warm"] {
            let answer = cachalot.get_range(&path, case.range).await;
            check(case, state, &answer, &content, &digest);
        }
        let sent: u64 =
            registry.gets("/blobs/").iter().filter(|get| get.status != Some(416)).map(|get| get.bytes_sent).sum();
        assert_eq!(sent, SIZE, "{}: no byte is asked for twice", case.name);
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn single_ranges_are_answered_alike_while_the_fill_is_under_way() {
    let registry = Registry::start().await;
    let content = Content::generated(8, SIZE);
    let digest = registry.with_blob(content.clone());
    registry.fault(Match::blob(&digest), Fault::StallAfter(SIZE - 1));
    let cachalot = Cachalot::over(&registry).await;
    let (path, digest) = (format!("/v2/app/blobs/{digest}"), digest.to_string());
    let whole = cachalot.open("GET", &path, &[]).await;
    for case in CASES.iter().filter(|case| case.bytes.is_none_or(|(_, to)| to < SIZE)) {
        let answer = cachalot.get_range(&path, case.range).await;
        check(case, "in flight", &answer, &content, &digest);
    }
    registry.release();
    assert_eq!(whole.finish().await.body, content.bytes());
    assert_eq!(registry.gets("/blobs/").len(), 1);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_cold_range_is_the_first_thing_that_is_fetched_and_becomes_part_of_the_whole() {
    let size = 40 * MIB;
    // What is asked, its first byte, and what the upstream is asked for it, in order.
    for (range, start, len, upstream) in [
        ("bytes=30000000-30000999", 30_000_000, 1000, &["bytes=30000000-33554431"][..]),
        ("bytes=39000000-", 39_000_000, 100_000, &["bytes=39000000-41943039"]),
        ("bytes=0-1", 0, 2, &["bytes=0-4194303"]),
        // A suffix needs the size first: two round trips.
        ("bytes=-47", size - 47, 47, &["bytes=0-4194303", "bytes=41942993-41943039"]),
    ] {
        let registry = Registry::start().await;
        let content = Content::generated(9, size);
        let digest = registry.with_blob(content.clone());
        let cachalot = Cachalot::over(&registry).await;
        let path = format!("/v2/app/blobs/{digest}");
        let mut answer = cachalot.open("GET", &path, &[("range", range)]).await;
        assert_eq!(answer.status.as_u16(), 206, "{range}");
        assert_eq!(answer.read(len).await.unwrap(), content.read(start, len as u64), "{range}");
        let asked = registry.gets("/blobs/");
        for wanted in upstream {
            assert!(asked.iter().take(3).any(|get| get.range.as_deref() == Some(*wanted)), "{range}: {asked:?}");
        }
        assert_eq!(asked[0].range.as_deref(), Some(upstream[0]), "{range}");
        drop(answer);
        let whole = cachalot.get(&path).await;
        assert!(whole.is_complete && whole.body == content.bytes(), "{range}");
        assert_eq!(registry.bytes_sent("/blobs/"), size, "{range}: no byte is asked for twice");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_far_range_does_not_wait_for_a_fill_that_stands_still() {
    let registry = Registry::start().await;
    let size = 80 * MIB;
    let content = Content::generated(9, size);
    let digest = registry.with_blob(content.clone());
    // The transfer in order stands still: only a transfer of its own can serve the range.
    registry.fault(Match::blob(&digest), Fault::StallAfter(64 * KIB));
    let cachalot = Cachalot::over(&registry).await;
    let path = format!("/v2/app/blobs/{digest}");
    let whole = cachalot.open("GET", &path, &[]).await;
    let answer = cachalot.get_range(&path, "bytes=70000000-70000999").await;
    assert_eq!((answer.status, answer.body), (206, content.read(70_000_000, 1000)));
    let footer = cachalot.get_range(&path, "bytes=-47").await;
    assert_eq!((footer.status, footer.body), (206, content.read(size - 47, 47)));
    registry.release();
    let whole = whole.finish().await;
    assert!(whole.is_complete && whole.body == content.bytes());
    assert_eq!(registry.bytes_sent("/blobs/"), size);
    cachalot.finish().await;
}

#[tokio::test]
async fn several_ranges_come_as_one_part_each_in_the_order_asked_for() {
    let registry = Registry::start().await;
    let content = Content::generated(10, SIZE);
    let digest = registry.with_blob(content.clone());
    let cachalot = Cachalot::over(&registry).await;
    let path = format!("/v2/app/blobs/{digest}");
    for state in ["cold", "warm"] {
        let answer = cachalot.get_range(&path, "bytes=1000-1009,0-4,5-9,-3").await;
        assert_eq!(answer.status, 206, "{state}, P-60");
        let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
        assert!(boundary.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "P-61: {boundary}");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        let mut expected = Vec::new();
        for (from, to) in [(1000, 1009), (0, 4), (5, 9), (2045, 2047)] {
            expected.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
            expected.extend_from_slice(b"Content-Type: application/octet-stream\r\n");
            expected.extend_from_slice(format!("Content-Range: bytes {from}-{to}/2048\r\n\r\n").as_bytes());
            expected.extend_from_slice(&content.read(from, to - from + 1));
        }
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_start().to_lowercase();
        assert_eq!(text(&answer.body), text(&expected), "{state}");
    }
    let many = format!("bytes={}", vec!["0-0"; 300].join(","));
    assert_eq!(cachalot.get_range(&path, &many).await.status, 400, "P-62, S-38");
    cachalot.finish().await;
}

#[tokio::test]
async fn conditions_are_honoured() {
    let registry = Registry::start().await;
    let content = Content::generated(11, SIZE);
    let digest = registry.with_blob(content.clone());
    let cachalot = Cachalot::over(&registry).await;
    let path = format!("/v2/app/blobs/{digest}");
    let etag = format!("\"{digest}\"");
    for (name, headers, status) in [
        ("if-none-match hits (P-38)", vec![("if-none-match", etag.as_str())], 304),
        ("if-none-match any (P-38)", vec![("if-none-match", "*")], 304),
        ("if-none-match misses", vec![("if-none-match", "\"other\"")], 200),
        ("if-range hits (P-65)", vec![("range", "bytes=1-2"), ("if-range", etag.as_str())], 206),
        ("if-range misses (P-65)", vec![("range", "bytes=1-2"), ("if-range", "\"other\"")], 200),
    ] {
        let answer = cachalot.send("GET", &path, &headers).await;
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.header("etag"), etag, "{name}");
    }
    let head = cachalot.send("HEAD", &path, &[("range", "bytes=1-2")]).await;
    assert_eq!((head.status, head.header("content-length")), (200, "2048"), "P-66");
    cachalot.finish().await;
}

#[tokio::test]
async fn an_empty_blob_has_no_range() {
    let registry = Registry::start().await;
    let digest = registry.with_blob(Content::generated(1, 0));
    let cachalot = Cachalot::over(&registry).await;
    let path = format!("/v2/app/blobs/{digest}");
    for state in ["cold", "warm"] {
        let answer = cachalot.get_range(&path, "bytes=0-").await;
        assert_eq!((answer.status, answer.header("content-length")), (200, "0"), "{state}, P-46");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn open_ranges_that_are_closed_early_are_no_error() {
    let registry = Registry::start().await;
    let content = Content::generated(12, 8 * MIB);
    let digest = registry.with_blob(content.clone());
    let cachalot = Cachalot::over(&registry).await;
    let path = format!("/v2/app/blobs/{digest}");
    // As containerd does in parallel: from each multiple of the chunk to the end, closed after one chunk (C-16).
    for start in (0..8).map(|chunk| chunk * MIB) {
        let range = format!("bytes={start}-");
        let mut open = cachalot.open("GET", &path, &[("range", &range)]).await;
        assert_eq!(open.status.as_u16(), 206, "P-56");
        assert_eq!(open.header("content-range"), format!("bytes {start}-{}/{}", 8 * MIB - 1, 8 * MIB));
        // The last chunk's end is the blob's end, which waits for the digest.
        let bytes = open.read(usize::try_from(MIB).unwrap()).await.unwrap();
        assert!(bytes == content.read(start, MIB), "chunk at {start}");
    }
    assert!(cachalot.get(&path).await.body == content.bytes());
    assert_eq!(registry.bytes_sent("/blobs/"), 8 * MIB);
    cachalot.finish().await;
}
