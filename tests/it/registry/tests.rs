//! The scripted registry checked with a bare socket, so that a test over it fails for the right reason.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Content, Fault, Image, KIB, MIB, Match, Registry};

/// Sends a request and returns everything until the connection ends, and whether it ended cleanly.
async fn exchange(registry: &Registry, method: &str, path: &str, headers: &str) -> (String, Vec<u8>, bool) {
    let mut tcp = TcpStream::connect(registry.address()).await.expect("the registry listens");
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    tcp.write_all(request.as_bytes()).await.expect("the registry reads");
    let mut answer = Vec::new();
    let is_clean = tcp.read_to_end(&mut answer).await.is_ok();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(answer.len(), |place| place + 4);
    let body = answer.split_off(end);
    (String::from_utf8_lossy(&answer).into_owned(), body, is_clean)
}

#[tokio::test]
async fn a_blob_is_served_whole_and_in_ranges() {
    let registry = Registry::start().await;
    let content = Content::generated(1, 300 * KIB + 3);
    let digest = registry.with_blob(content.clone());
    let path = format!("/v2/any/thing/blobs/{digest}");

    let (head, body, _) = exchange(&registry, "GET", &path, "").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, content.bytes());
    let (head, body, _) = exchange(&registry, "GET", &path, "range: bytes=10-19\r\n").await;
    assert!(head.starts_with("HTTP/1.1 206") && head.contains("content-range: bytes 10-19/307203"), "{head}");
    assert_eq!(body, content.read(10, 10));
    let (head, body, _) = exchange(&registry, "HEAD", &path, "").await;
    assert!(head.contains("content-length: 307203"), "{head}");
    assert!(body.is_empty());
    let (head, _, _) = exchange(&registry, "GET", &path, "range: bytes=307203-\r\n").await;
    assert!(head.starts_with("HTTP/1.1 416"), "{head}");

    registry.wait_for(|log| log.running() == 0).await;
    assert_eq!(registry.gets("/blobs/").len(), 3);
    assert_eq!(registry.requests().peak("/blobs/"), 1);
}

#[tokio::test]
async fn a_cut_body_has_exactly_the_bytes_that_were_allowed() {
    let registry = Registry::start().await;
    let digest = registry.with_blob(Content::generated(2, 3 * MIB));
    for limit in [0, 1, 64 * KIB, 64 * KIB + 1, 2 * MIB] {
        registry.fault(Match::blob(&digest), Fault::CutAfter(limit));
        let (head, body, is_clean) = exchange(&registry, "GET", &format!("/v2/a/blobs/{digest}"), "").await;
        assert!(head.contains("content-length: 3145728"), "{head}");
        assert_eq!((body.len() as u64, is_clean), (limit, true));
    }
    registry.fault(Match::blob(&digest), Fault::ResetAfter(KIB));
    let (_, body, is_clean) = exchange(&registry, "GET", &format!("/v2/a/blobs/{digest}"), "").await;
    assert!(body.len() as u64 <= KIB && !is_clean);
}

#[tokio::test]
async fn lengths_can_be_wrong_and_absent() {
    let registry = Registry::start().await;
    let digest = registry.with_blob("0123456789");
    let path = format!("/v2/a/blobs/{digest}");
    for (fault, announced, arrives) in [
        (Fault::WrongLength(5), "content-length: 15", "0123456789"),
        (Fault::WrongLength(-5), "content-length: 5", "01234"),
        (Fault::ExtraBytes(2), "content-length: 12", "0123456789xx"),
        (Fault::NoLength, "transfer-encoding: chunked", "A\r\n0123456789\r\n0\r\n\r\n"),
        (Fault::WrongBytes(2), "content-length: 10", "0133456789"),
    ] {
        registry.fault(Match::blob(&digest), fault.clone());
        let (head, body, _) = exchange(&registry, "GET", &path, "").await;
        assert!(head.contains(announced), "{fault:?}: {head}");
        assert_eq!(String::from_utf8_lossy(&body), arrives, "{fault:?}");
    }
}

#[tokio::test]
async fn a_held_answer_waits_for_its_release_and_a_stopped_registry_refuses() {
    let registry = Registry::start().await;
    let image = registry.image("library/alpine", "3.20", &Image::new());
    registry.fault(Match::manifest("3.20"), Fault::Hold);
    let (answer, ()) = tokio::join!(exchange(&registry, "GET", "/v2/library/alpine/manifests/3.20", ""), async {
        registry.wait_for(|log| log.held() == 1).await;
        registry.release();
    });
    assert_eq!(answer.1, image.bytes);

    registry.stop().await;
    assert!(TcpStream::connect(registry.address()).await.is_err());
    registry.restart().await;
    let (_, body, _) = exchange(&registry, "GET", &format!("/v2/library/alpine/manifests/{}", image.digest), "").await;
    assert_eq!(body, image.bytes);
}

#[tokio::test]
async fn a_token_opens_its_own_repository_only() {
    let registry = Registry::start().await;
    registry.image("one", "latest", &Image::new());
    registry.image("two", "latest", &Image::new());
    registry.require_token();
    let (head, _, _) = exchange(&registry, "GET", "/v2/one/manifests/latest", "").await;
    assert!(head.starts_with("HTTP/1.1 401") && head.contains("scope=\"repository:one:pull\""), "{head}");
    let (_, body, _) = exchange(&registry, "GET", "/token?service=scripted&scope=repository:one:pull", "").await;
    assert!(String::from_utf8_lossy(&body).contains("secret-token-1"));
    for (repository, status) in [("one", "200"), ("two", "401")] {
        let path = format!("/v2/{repository}/manifests/latest");
        let (head, _, _) = exchange(&registry, "GET", &path, "authorization: Bearer secret-token-1\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{repository}: {head}");
    }
}
