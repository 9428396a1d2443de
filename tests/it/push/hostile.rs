//! Pushes by whoever wants to harm the others: what they hold of memory, and what they take from the cache.

use std::time::Duration;

use bytes::Bytes;
use cachalot::cache::MANIFEST_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Cachalot, Image, MediaType, More, PUSH, Registry, manifest};

/// Sends all of a largest manifest but its last byte.
async fn linger(cachalot: &Cachalot, client: &str) -> TcpStream {
    let mut stream = TcpStream::connect(cachalot.address()).await.unwrap();
    let head = format!(
        "PUT /v2/app/manifests/1 HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\nContent-Length: {MANIFEST_BYTES_MAX}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Whoever is sent away need not be listened to until the end.
    let _cut = stream.write_all(&vec![b' '; MANIFEST_BYTES_MAX - 1]).await;
    stream
}

#[tokio::test]
async fn manifests_of_one_client_that_never_end_take_so_much_memory_and_leave_room_for_others() {
    let registry = Registry::start().await;
    let sections = "[clients]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let cachalot = Cachalot::configured(&registry, More { upstream: PUSH, sections, ..More::default() }).await;
    let mut lingering = Vec::new();
    for _ in 0..4 {
        lingering.push(linger(&cachalot, "192.0.2.1").await);
    }
    let mut one_more = linger(&cachalot, "192.0.2.1").await;
    let mut answer = [0; 12];
    one_more.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503", "S-33: a client has four of the largest under way at the most");
    let push = async |client: &str| {
        let headers = [("content-type", MediaType::OCI_MANIFEST), ("x-forwarded-for", client)];
        cachalot.write("PUT", "/v2/app/manifests/2", &headers, manifest("other", None)).await
    };
    assert_eq!(push("192.0.2.2").await.status, 201, "another client pushes all the same");
    let until = async |client: &str, status: u16| {
        let told = async {
            loop {
                let answer = push(client).await;
                if answer.status == status {
                    return answer;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), told)
            .await
            .expect("what was sent is read, and what is gone forgotten")
    };
    assert_eq!(until("192.0.2.1", 503).await.header("retry-after"), "5", "P-105");
    assert!(cachalot.metric(r#"cachalot_http_requests_shed_total{reason="overload"}"#) >= 2);
    drop((lingering, one_more));
    until("192.0.2.1", 201).await;
    cachalot.finish().await;
}

#[tokio::test]
async fn what_never_reached_the_upstream_takes_nothing_from_the_cache() {
    let registry = Registry::start().await;
    let image = registry.image("app", "1", &Image::new());
    let lines = "push = true\ntag_ttl = \"0s\"\nconnect_timeout = \"1s\"";
    let cachalot = Cachalot::configured(&registry, More::upstream(lines)).await;
    let tag = "/v2/app/manifests/1";
    let by_digest = format!("/v2/app/manifests/{}", image.digest);
    assert_eq!(cachalot.get(tag).await.status, 200);
    registry.stop().await;
    for (method, path, body) in [
        ("PUT", tag, manifest("x", None)),
        ("DELETE", tag, String::new()),
        ("DELETE", by_digest.as_str(), String::new()),
    ] {
        let headers = [("content-type", MediaType::OCI_MANIFEST)];
        let answer = cachalot.write(method, path, &headers, Bytes::from(body)).await;
        assert_eq!(answer.status, 502, "{method} {path}");
        for path in [tag, &by_digest] {
            assert_eq!(cachalot.get(path).await.status, 200, "P-139, P-157: after {method} {path}");
        }
    }
    cachalot.finish().await;
}
