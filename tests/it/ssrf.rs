//! Nobody gets through us to the inside (S-20, S-25…S-30): every way by which a client or an upstream could name an address, with every
//! spelling of one that must not be dialled.
//!
//! That a name which is looked up twice cannot lead elsewhere the second time is shown where the look-up is (`upstream::egress`).

use cachalot::oci::{Digest, MediaType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Answer, Cachalot, More};
use crate::registry::{Fault, Image, Match, Registry};

/// The metadata services of clouds and link-local addresses, as hosts of URLs; an internal upstream may lead to none of them.
const TARGETS: [&str; 12] = [
    "169.254.169.254",
    "2852039166",
    "0xA9FEA9FE",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "[::169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "100.100.100.200",
    "0.0.0.0",
];

async fn start() -> (Registry, Cachalot) {
    let registry = Registry::start().await;
    registry.image("app", "1", &Image::new());
    let cachalot = Cachalot::configured(&registry, More::upstream("push = true\nprefetch = \"off\"")).await;
    (registry, cachalot)
}

/// The upstream's word is refused before anybody is dialled, and the refusal says so.
#[track_caller]
fn is_refused(answer: &Answer, what: &str) {
    let words = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 502, "S-25: {what}: {words}");
    assert!(words.contains("is not dialled") || words.contains("is not https"), "S-25: {what}: {words}");
}

#[tokio::test]
async fn no_redirect_leads_to_the_inside() {
    for target in TARGETS {
        let (registry, cachalot) = start().await;
        let blob = Digest::sha256(b"somewhere");
        for (scope, path) in [
            (Match::manifest("1"), "/v2/app/manifests/1".to_owned()),
            (Match::blob(&blob), format!("/v2/app/blobs/{blob}")),
            (Match::path("/tags/list"), "/v2/app/tags/list".to_owned()),
        ] {
            registry.fault(scope, Fault::RedirectExactly(format!("http://{target}/latest/meta-data"))).always();
            is_refused(&cachalot.get(&path).await, &format!("{path} → {target}"));
            registry.clear_faults();
        }
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn no_token_service_is_on_the_inside() {
    for target in TARGETS {
        let registry = Registry::start().await;
        registry.image("app", "1", &Image::new());
        registry.require_token();
        registry.challenge_with(&format!("Bearer realm=\"http://{target}/token\",service=\"s\""));
        let cachalot = Cachalot::over(&registry).await;
        is_refused(&cachalot.get("/v2/app/manifests/1").await, &format!("realm {target}"));
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn no_upload_goes_on_elsewhere() {
    let thief = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = thief.local_addr().unwrap().port();
    for target in TARGETS.into_iter().map(str::to_owned).chain([format!("localhost:{port}"), "127.1".to_owned()]) {
        let (registry, cachalot) = start().await;
        let opened = format!("HTTP/1.1 202 Accepted\r\nLocation: http://{target}/v2/x\r\nContent-Length: 0\r\n\r\n");
        registry.fault(Match::path("/blobs/uploads/").post(), Fault::raw(opened));
        let answer = cachalot.write("POST", "/v2/app/blobs/uploads/", &[], "").await;
        // 127.1 is 127.0.0.1 written in another way: the upload goes on where it was begun, whatever port is told.
        let expected = if target == "127.1" { 202 } else { 502 };
        assert_eq!(answer.status, expected, "P-150, S-25: {target}: {}", String::from_utf8_lossy(&answer.body));
        cachalot.finish().await;
    }
    let nobody = tokio::time::timeout(std::time::Duration::from_millis(50), thief.accept()).await;
    assert!(nobody.is_err(), "the thief was dialled");
}

#[tokio::test]
async fn what_a_request_names_is_looked_up_in_the_table_and_never_dialled() {
    let (registry, cachalot) = start().await;
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = inside.local_addr().unwrap().port();
    let hosts =
        TARGETS.into_iter().map(str::to_owned).chain([format!("127.0.0.1:{port}"), format!("localhost:{port}")]);
    // What has neither a dot nor a colon is a component of a repository, and no host.
    for host in hosts.filter(|host| host.contains(['.', ':'])) {
        let encoded: String = url::form_urlencoded::byte_serialize(host.as_bytes()).collect();
        for path in [
            format!("/v2/app/manifests/1?ns={encoded}"),
            format!("/v2/app/tags/list?ns=http%3A%2F%2F{encoded}"),
            format!("/v2/{encoded}/app/manifests/1"),
            format!("/{encoded}/v2/app/manifests/1"),
        ] {
            let status = cachalot.get(&path).await.status;
            assert!(matches!(status, 400 | 404), "S-20: {path}: {status}");
            assert_eq!(registry.requests().len(), 0, "S-20: {path}");
        }
        for target in [format!("http://{host}/v2/"), format!("http://{host}/latest/meta-data"), format!("{host}:443")] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let status = raw(&cachalot, &head).await;
            let expected: &[&str] = if target.ends_with("/v2/") { &["200"] } else { &["400", "404"] };
            assert!(expected.contains(&status.as_str()), "S-20: {target}: {status}");
        }
    }
    assert_eq!(registry.requests().len(), 0, "S-20");
    let nobody = tokio::time::timeout(std::time::Duration::from_millis(50), inside.accept()).await;
    assert!(nobody.is_err(), "an address was dialled that a request named");
    cachalot.finish().await;
}

/// Sends a head as it is and returns the status of what comes; empty for nothing.
async fn raw(cachalot: &Cachalot, head: &str) -> String {
    let mut stream = TcpStream::connect(cachalot.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_urls_of_foreign_layers_are_nobodys_business_here() {
    let (registry, cachalot) = start().await;
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let foreign = Digest::sha256(b"foreign");
    let config = Digest::sha256(b"{}");
    let document = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"a/b","digest":"{config}","size":2,"data":"e30="}},
            "layers":[{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{foreign}","size":7,
            "urls":["http://{}/layer","http://169.254.169.254/"]}}]}}"#,
        MediaType::OCI_MANIFEST,
        inside.local_addr().unwrap()
    );
    registry.manifest("app", Some("2"), document, MediaType::OCI_MANIFEST);
    assert_eq!(cachalot.get("/v2/app/manifests/2").await.status, 200);
    assert_eq!(cachalot.get(&format!("/v2/app/blobs/{foreign}")).await.status, 404, "S-29");
    let nobody = tokio::time::timeout(std::time::Duration::from_millis(50), inside.accept()).await;
    assert!(nobody.is_err(), "S-29");
    cachalot.finish().await;
}
