//! Starting, stopping, hostile bytes on the socket, and a store under pressure.

use bytes::Bytes;
use cachalot::app::{App, AppError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Cachalot, More, settings};
use crate::registry::{Content, Fault, KIB, MIB, Match, Registry};

/// Nothing listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

#[tokio::test]
async fn a_busy_port_is_one_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(directory.path(), NOWHERE, More::default());
    settings.server.listen = vec![taken.local_addr().unwrap()];
    let error = App::start(&settings).await.unwrap_err();
    assert!(matches!(error, AppError::Bind { .. }), "{error}");
    assert!(error.to_string().contains(&taken.local_addr().unwrap().to_string()), "{error}");
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_one_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path(), NOWHERE, More::default());
    std::fs::write(directory.path().join("file"), b"in the way").unwrap();
    settings.store.path = directory.path().join("file/store");
    let error = App::start(&settings).await.unwrap_err();
    assert!(matches!(error, AppError::Store { .. }) && error.to_string().contains("file/store"), "{error}");
}

#[tokio::test]
async fn a_store_in_use_is_refused() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    let error = App::start(&settings(cachalot.store(), NOWHERE, More::default())).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("another process"), "{cause}");
    cachalot.finish().await;
}

#[tokio::test]
async fn stopping_lets_a_response_under_way_finish() {
    let registry = Registry::start().await;
    let content = Content::generated(1, 2 * MIB);
    let digest = registry.with_blob(content.clone());
    registry.fault(Match::blob(&digest), Fault::StallAfter(64 * KIB));
    let cachalot = Cachalot::over(&registry).await;
    let address = cachalot.address();
    let mut open = cachalot.open("GET", &format!("/v2/app/blobs/{digest}"), &[]).await;
    assert_eq!(open.read(100).await.unwrap(), content.read(0, 100));
    let stopping = tokio::spawn(cachalot.finish());
    // Accepting has ended when a connection is refused.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    registry.release();
    let rest = open.finish().await;
    assert!(rest.is_complete && rest.body == content.read(100, 2 * MIB - 100), "P-130");
    stopping.await.unwrap();
}

#[tokio::test]
async fn hostile_bytes_end_their_connection_and_nothing_else() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    let long = vec![b'a'; 200 * 1024];
    let heads: [(&str, Vec<u8>, &[&str]); 7] = [
        ("a TLS hello (P-128)", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &["HTTP/1.1 400"]),
        ("garbage", b"\x00\xff\xfe\r\n\r\n".to_vec(), &["HTTP/1.1 400"]),
        (
            "two lengths (S-22)",
            b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_vec(),
            &["HTTP/1.1 400"],
        ),
        (
            "a line that never ends (S-33)",
            [b"GET /v2/".as_slice(), &long].concat(),
            &["HTTP/1.1 431", "HTTP/1.1 414", "HTTP/1.1 400"],
        ),
        (
            "a header that never ends (S-33)",
            [b"GET /v2/ HTTP/1.1\r\nX: ".as_slice(), &long].concat(),
            &["HTTP/1.1 431", "HTTP/1.1 400"],
        ),
        ("white space before a colon (S-22)", b"GET /v2/ HTTP/1.1\r\nHost : x\r\n\r\n".to_vec(), &["HTTP/1.1 400"]),
        (
            "HTTP/2 by prior knowledge",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            &["HTTP/1.1 400", "HTTP/1.1 505", ""],
        ),
    ];
    for (name, bytes, expected) in heads {
        let mut stream = TcpStream::connect(cachalot.address()).await.unwrap();
        // The peer may close before it has read everything.
        let _written = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _read = stream.read_to_end(&mut answer).await;
        let line = String::from_utf8_lossy(&answer);
        assert!(expected.iter().any(|start| line.starts_with(start)), "{name}: {line:?}");
    }
    assert_eq!(cachalot.get("/v2/").await.status, 200);
    cachalot.finish().await;
}

#[tokio::test]
async fn the_least_recently_used_layer_makes_room_and_a_reader_of_it_reads_on() {
    let registry = Registry::start().await;
    let blobs: Vec<_> = (0..4).map(|seed| Content::generated(seed, MIB)).collect();
    let paths: Vec<_> =
        blobs.iter().map(|blob| format!("/v2/app/blobs/{}", registry.with_blob(blob.clone()))).collect();
    let cachalot =
        Cachalot::configured(&registry, More { store: "capacity = \"4MiB\"\nmanifests = \"1MiB\"", ..More::default() })
            .await;
    let hit = async |path: &str| cachalot.get(path).await.header("cache-status") == "cachalot; hit";
    for path in &paths[..3] {
        assert!(cachalot.get(path).await.is_complete);
    }
    // The first one is used again: the second one is the coldest, and has a reader.
    let reader = cachalot.open("GET", &paths[1], &[]).await;
    assert!(hit(&paths[2]).await && hit(&paths[0]).await);
    assert!(cachalot.get(&paths[3]).await.is_complete);
    assert!(reader.finish().await.body == blobs[1].bytes(), "P-143");
    assert!(hit(&paths[0]).await && hit(&paths[2]).await && hit(&paths[3]).await);
    assert_eq!(cachalot.metric(r#"cachalot_evictions_total{reason="capacity",tier="disk"}"#), 1);
    assert!(!hit(&paths[1]).await);
    cachalot.finish().await;
}

#[tokio::test]
async fn health_and_metrics_are_on_the_admin_listener_only() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    let admin =
        |path: &'static str| crate::harness::Open::send(cachalot.admin_address(), "GET", path, &[], Bytes::new());
    assert_eq!(admin("/livez").await.status.as_u16(), 200);
    assert_eq!(admin("/readyz").await.status.as_u16(), 200);
    let metrics = admin("/metrics").await.finish().await;
    assert!(String::from_utf8_lossy(&metrics.body).contains("cachalot_build_info"));
    assert_eq!(cachalot.get("/metrics").await.status, 404, "S-42");
    cachalot.finish().await;
}
