//! TLS listeners: what is agreed on, who gets in, certificates that change, and bodies that end short.

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::harness::{Cachalot, More, Open};
use crate::registry::{Content, Fault, Image, KIB, MIB, Match, Registry};
use crate::secure::{Authority, Client, Ground, H1, H2};

/// Returns the status that a client gets, or `None` where it does not get that far.
async fn status(client: &Client, cachalot: &Cachalot) -> Option<u16> {
    let mut stream = client.offering(&[H1]).connect(cachalot.listener_address()).await.ok()?;
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    String::from_utf8_lossy(&answer).strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// Returns the certificate that the listener shows.
async fn shown(client: &Client, cachalot: &Cachalot) -> Vec<u8> {
    let stream = client.connect(cachalot.listener_address()).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn handshakes(cachalot: &Cachalot, result: &str) -> u64 {
    cachalot.metric(&format!(r#"cachalot_tls_handshakes_total{{result="{result}"}}"#))
}

#[tokio::test]
async fn version_and_protocol_are_agreed_on() {
    let (registry, ground) = (Registry::start().await, Ground::new());
    for (switch, offered, agreed) in [
        ("", &[H2, H1][..], Some(H2)),
        ("", &[H1, H2], Some(H2)),
        ("", &[H1], Some(H1)),
        ("", &[], None),
        ("http2 = false", &[H2, H1], Some(H1)),
        ("http2 = false", &[], None),
    ] {
        let cachalot = ground.start(&registry, switch).await;
        for version in [&TLS12, &TLS13] {
            let client = Client::of_version(&[version], &ground.authority, None);
            let stream = client.offering(offered).connect(cachalot.listener_address()).await.unwrap();
            let session = stream.get_ref().1;
            let what = format!("P-122: {switch} {offered:?} {version:?}");
            assert_eq!(session.protocol_version(), Some(version.version), "{what}");
            assert_eq!(session.alpn_protocol(), agreed.map(str::as_bytes), "{what}");
            assert_eq!(status(&client, &cachalot).await, Some(200), "{what}");
        }
        cachalot.finish().await;
    }
    let cachalot = ground.start(&registry, "http2 = false").await;
    assert!(ground.client().offering(&[H2]).connect(cachalot.listener_address()).await.is_err(), "nothing in common");
    assert_eq!(status(&Client::new(&Authority::new("other"), None), &cachalot).await, None);
    cachalot.finish().await;
}

#[tokio::test]
async fn who_may_connect_is_what_the_authority_says() {
    let (registry, ground) = (Registry::start().await, Ground::new());
    let [ours, other] = ["ours", "other"].map(Authority::new);
    let (ca, quoted) = (ground.mounted.path("ca.crt"), ground.mounted.quoted("ca.crt"));
    std::fs::write(&ca, ours.pem()).unwrap();
    for (mode, without) in
        [("", None), ("client_certificate = \"required\"", None), ("client_certificate = \"optional\"", Some(200))]
    {
        let cachalot = ground.start(&registry, &format!("client_ca = {quoted}\n{mode}")).await;
        for (name, shown, expected) in [
            ("none", None, without),
            ("ours", Some(ours.client("node-1")), Some(200)),
            ("another authority's", Some(other.client("node-1")), None),
            ("expired", Some(ours.client_until("node-1", 2020)), None),
        ] {
            for version in [&TLS12, &TLS13] {
                let shown = shown.as_ref().map(|(certificate, key)| (certificate.clone(), key.clone_key()));
                let client = Client::of_version(&[version], &ground.authority, shown);
                assert_eq!(status(&client, &cachalot).await, expected, "P-175: {mode}: {name}, {version:?}");
            }
        }
        let refused = if without.is_some() { 4 } else { 6 };
        assert_eq!(
            (handshakes(&cachalot, "client_certificate"), handshakes(&cachalot, "ok")),
            (refused, 8 - refused),
            "{mode}"
        );
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_without_touching_what_stands() {
    let (registry, ground) = (Registry::start().await, Ground::new());
    let content = Content::generated(1, MIB);
    let digest = registry.with_blob(content.clone());
    registry.fault(Match::blob(&digest), Fault::StallAfter(64 * KIB));
    let cachalot = ground.start(&registry, "").await;
    let before = shown(&ground.client(), &cachalot).await;
    let mut open =
        ground.client().open(cachalot.listener_address(), "GET", &format!("/v2/app/blobs/{digest}"), &[]).await;
    assert_eq!(open.read(100).await.unwrap(), content.read(0, 100));

    let (cert, key) = ground.authority.server();
    ground.mounted.put(&[("tls.crt", &cert), ("tls.key", &key)]);
    assert_eq!(ground.reload(&cachalot, &registry, ""), [""; 0]);
    let after = shown(&ground.client(), &cachalot).await;
    assert_ne!(before, after);

    // A key of another certificate: the settings are refused as a whole, and nothing is applied.
    let (_, other) = ground.authority.server();
    ground.mounted.put(&[("tls.crt", &cert), ("tls.key", &other)]);
    let sections = ground.listener("");
    let file = crate::harness::configuration(
        cachalot.store(),
        &registry.url(),
        More { sections: &sections, ..More::default() },
    );
    let path = cachalot.store().join("bad.toml");
    std::fs::write(&path, file).unwrap();
    let sources = cachalot::settings::Sources { file: Some(path), ..Default::default() };
    let problems = cachalot::settings::Settings::load(&sources).unwrap_err().to_string();
    assert!(problems.contains("the key is not that of the certificate"), "{problems}");
    assert_eq!(shown(&ground.client(), &cachalot).await, after);

    registry.release();
    assert!(open.finish().await.body == content.read(100, MIB - 100), "the transfer went on");
    cachalot.finish().await;
}

#[tokio::test]
async fn sessions_are_resumed_across_certificates_and_not_across_who_may_connect() {
    let (registry, ground) = (Registry::start().await, Ground::new());
    let [first, second] = ["first", "second"].map(Authority::new);
    let (ca, quoted) = (ground.mounted.path("ca.crt"), ground.mounted.quoted("ca.crt"));
    let lines = format!("client_ca = {quoted}");
    std::fs::write(&ca, first.pem()).unwrap();
    for version in [&TLS12, &TLS13] {
        std::fs::write(&ca, first.pem()).unwrap();
        let cachalot = ground.start(&registry, &lines).await;
        let client = Client::of_version(&[version], &ground.authority, Some(first.client("node-1"))).offering(&[H1]);
        let kind = async || {
            let mut stream = client.connect(cachalot.listener_address()).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            // Tickets of TLS 1.3 come with the first bytes.
            stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            let _ended = stream.read_to_end(&mut answer).await;
            (kind, answer.starts_with(b"HTTP/1.1 200"))
        };
        assert_ne!(kind().await.0, Some(HandshakeKind::Resumed), "{version:?}");
        assert_eq!(kind().await, (Some(HandshakeKind::Resumed), true), "{version:?}");

        let (cert, key) = ground.authority.server();
        ground.mounted.put(&[("tls.crt", &cert), ("tls.key", &key)]);
        ground.reload(&cachalot, &registry, &lines);
        assert_eq!(kind().await, (Some(HandshakeKind::Resumed), true), "{version:?}: another certificate");

        std::fs::write(&ca, second.pem()).unwrap();
        ground.reload(&cachalot, &registry, &lines);
        assert_eq!(status(&client, &cachalot).await, None, "{version:?}: another authority");
        ground.reload(&cachalot, &registry, "");
        assert_eq!(status(&client, &cachalot).await, Some(200), "{version:?}: everybody");
        ground.reload(&cachalot, &registry, &lines);
        assert_eq!(status(&client, &cachalot).await, None, "{version:?}: a session of when everybody might connect");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn who_knocks_at_the_wrong_port_is_told_so() {
    let (registry, ground) = (Registry::start().await, Ground::new());
    let cachalot = ground.start(&registry, "").await;
    let mut stream = TcpStream::connect(cachalot.listener_address()).await.unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("https:// in front of the URL.\n"),
        "P-129: {answer}"
    );
    drop(stream);
    // It is counted when the client has left.
    while handshakes(&cachalot, "plain_http") == 0 {
        tokio::task::yield_now().await;
    }
    // P-128: clients look for "HTTP/" where the record's head should be.
    let error = ground.client().connect(cachalot.address()).await.unwrap_err();
    assert!(
        error.to_string().contains("InvalidContentType") || error.to_string().contains("corrupt message"),
        "{error}"
    );
    cachalot.finish().await;
}

#[tokio::test]
async fn heads_ranges_and_lists_are_as_over_http_1() {
    let (registry, ground) = (Registry::start().await, Ground::new());
    let content = Content::generated(2, 300 * KIB);
    let digest = registry.with_blob(content.clone());
    let image = registry.image("app", "1", &Image::new());
    let cachalot = ground.start(&registry, "").await;
    let http2 = ground.client().http2(cachalot.listener_address()).await;
    let blob = format!("/v2/app/blobs/{digest}");
    let get = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        http2.open(method, path, headers).await.unwrap().finish().await
    };
    let whole = get("GET", &blob, &[]).await;
    assert!(whole.is_complete && whole.body == content.bytes());
    let head = get("HEAD", &blob, &[]).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "307200", 0), "P-43");
    let range = get("GET", &blob, &[("range", "bytes=1000-1999")]).await;
    assert_eq!((range.status, range.body), (206, content.read(1000, 1000)));
    let tag = get("GET", "/v2/app/manifests/1", &[]).await;
    assert_eq!((tag.status, tag.body), (200, image.bytes.clone()));
    let tags = get("GET", "/v2/app/tags/list", &[]).await;
    assert!(String::from_utf8_lossy(&tags.body).contains(r#""1""#));
    assert_eq!(get("GET", "/v2/app/manifests/none", &[]).await.error_code(), "MANIFEST_UNKNOWN");
    // By HTTP/1.1 and plainly, the bytes are the same.
    let client = ground.client();
    let secured = client.open(cachalot.listener_address(), "GET", &blob, &[]).await.finish().await;
    assert!(secured.is_complete && secured.body == content.bytes());
    assert!(cachalot.get(&blob).await.body == content.bytes());
    drop(http2);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_hundred_streams_of_one_cold_blob_cost_one_get() {
    let (registry, ground) = (Registry::start().await, Ground::new());
    let content = Content::generated(3, MIB);
    let digest = registry.with_blob(content.clone());
    registry.fault(Match::blob(&digest), Fault::StallAfter(64 * KIB));
    let cachalot = ground.start(&registry, "").await;
    let http2 = ground.client().http2(cachalot.listener_address()).await;
    let path = format!("/v2/app/blobs/{digest}");
    let streams = join_all((0..100).map(|_| http2.open("GET", &path, &[]))).await;
    registry.release();
    for answer in join_all(streams.into_iter().map(|open| open.unwrap().finish())).await {
        assert!(answer.is_complete && answer.body == content.bytes());
    }
    assert_eq!((registry.gets("/blobs/").len(), registry.bytes_sent("/blobs/")), (1, MIB), "P-132");
    drop(http2);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_body_that_fails_is_seen_to_be_incomplete() {
    for (name, fault) in
        [("P-50: wrong bytes", Fault::WrongBytes(5)), ("P-126: the upstream is gone", Fault::CutAfter(100 * KIB))]
    {
        let (registry, ground) = (Registry::start().await, Ground::new());
        let content = Content::generated(4, 300 * KIB);
        let digest = registry.with_blob(content.clone());
        registry.fault(Match::blob(&digest), fault.clone());
        // What follows the cut is refused, so that it is not mended.
        registry.fault(Match::blob(&digest), Fault::Status(404, "")).always().optional();
        let cachalot = ground.start(&registry, "").await;
        let path = format!("/v2/app/blobs/{digest}");
        let http2 = ground.client().http2(cachalot.listener_address()).await;
        let answer = http2.open("GET", &path, &[]).await.unwrap().finish().await;
        assert!(!answer.is_complete && answer.body.len() < 300 * 1024, "{name}: over HTTP/2");
        assert_eq!(http2.open("GET", "/v2/", &[]).await.unwrap().status, 200, "P-126a: the connection goes on");
        drop(http2);
        cachalot.finish().await;

        let (registry, ground) = (Registry::start().await, Ground::new());
        let digest = registry.with_blob(content.clone());
        registry.fault(Match::blob(&digest), fault);
        registry.fault(Match::blob(&digest), Fault::Status(404, "")).always().optional();
        let cachalot = ground.start(&registry, "").await;
        let mut stream = ground.client().offering(&[H1]).connect(cachalot.listener_address()).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.len() < 300 * 1024, "{name}: {}", answer.len());
        assert!(ended.is_err(), "{name}: a `close_notify` would say that this is all");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn draining_lets_streams_finish_and_begins_no_more() {
    let (registry, ground) = (Registry::start().await, Ground::new());
    let content = Content::generated(5, MIB);
    let digest = registry.with_blob(content.clone());
    registry.fault(Match::blob(&digest), Fault::StallAfter(64 * KIB));
    let cachalot = ground.start(&registry, "").await;
    let address = cachalot.listener_address();
    let idle = ground.client().offering(&[H1]).connect(address).await.unwrap();
    let http2 = ground.client().http2(address).await;
    let mut open = http2.open("GET", &format!("/v2/app/blobs/{digest}"), &[]).await.unwrap();
    assert_eq!(open.read(100).await.unwrap(), content.read(0, 100));
    let stopping = tokio::spawn(cachalot.finish());
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    // GOAWAY has come when no further stream is begun.
    while http2.open("GET", "/v2/", &[]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    registry.release();
    let rest = open.finish().await;
    assert!(rest.is_complete && rest.body == content.read(100, MIB - 100), "P-130");
    stopping.await.unwrap();
    http2.ended.await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn who_leaves_many_answers_is_asked_to_go_and_may_finish_what_it_wants() {
    let (registry, ground) = (Registry::start().await, Ground::new());
    // More than the windows of a client take by themselves.
    let [wanted, left] = [(8, 2 * MIB), (9, 32 * MIB)].map(|(seed, size)| Content::generated(seed, size));
    let [digest, other] = [&wanted, &left].map(|content| registry.with_blob(content.clone()));
    registry.fault(Match::blob(&digest), Fault::StallAfter(64 * KIB));
    let cachalot = ground.start(&registry, "").await;
    let http2 = ground.client().http2(cachalot.listener_address()).await;
    let mut open = http2.open("GET", &format!("/v2/app/blobs/{digest}"), &[]).await.unwrap();
    assert_eq!(open.read(100).await.unwrap(), wanted.read(0, 100));
    let path = format!("/v2/app/blobs/{other}");
    let mut count = 0;
    while let Ok(answer) = http2.open("GET", &path, &[]).await {
        drop(answer);
        count += 1;
    }
    assert!((100..400).contains(&count), "it was asked to go after {count}");
    registry.release();
    let rest = open.finish().await;
    assert!(rest.is_complete && rest.body == wanted.read(100, 2 * MIB - 100), "S-33");
    assert_eq!(cachalot.metric(r#"cachalot_http_connections_shed_total{reason="abandoned_requests"}"#), 0);
    http2.ended.await.unwrap();
    cachalot.finish().await;
}

#[tokio::test]
async fn links_are_made_of_the_url_by_which_clients_know_us() {
    let registry = Registry::start().await;
    for name in ["1", "2", "3"] {
        registry.image("app", name, &Image::new());
    }
    for (url, host, expected) in [
        ("", "evil.test", "</v2/app/tags/list?"),
        ("public_url = \"https://cache.test:443\"", "evil.test", "<https://cache.test/v2/app/tags/list?"),
        ("public_url = \"http://cache.test:8080/\"", "evil.test", "<http://cache.test:8080/v2/app/tags/list?"),
        // The host means an upstream: the same path would mean another one elsewhere.
        ("public_url = \"https://cache.test\"", "mirror.test", "</v2/app/tags/list?"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = crate::harness::configuration(directory.path(), &registry.url(), More::default())
            .replace("[server]", &format!("[server]\n{url}"));
        let path = directory.path().join("cachalot.toml");
        std::fs::write(&path, file).unwrap();
        let sources = cachalot::settings::Sources { file: Some(path), ..Default::default() };
        let app = cachalot::app::App::start(&cachalot::settings::Settings::load(&sources).unwrap()).await.unwrap();
        let open = Open::send(app.addresses[0], "GET", "/v2/app/tags/list?n=1", &[("host", host)], Bytes::new()).await;
        assert!(open.header("link").starts_with(expected), "P-118, S-24: {url} {host}: {}", open.header("link"));
        app.drain(std::time::Duration::from_secs(10)).await;
    }
}

#[tokio::test]
async fn one_client_does_not_have_all_connections() {
    let (registry, ground) = (Registry::start().await, Ground::new());
    let sections = format!("{}\n[clients]\nconnections = 3", ground.listener(""));
    let cachalot = Cachalot::configured(&registry, More { sections: &sections, ..More::default() }).await;
    let mut held = Vec::new();
    for address in [cachalot.address(), cachalot.listener_address(), cachalot.address()] {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    let mut further = TcpStream::connect(cachalot.address()).await.unwrap();
    let ended = further.read(&mut [0]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "S-37: closed at once: {ended:?}");
    assert_eq!(cachalot.metric(r#"cachalot_http_connections_shed_total{reason="client_limit"}"#), 1);
    assert_eq!(cachalot.metric("cachalot_http_connections_in_flight"), 3);
    held.remove(0);
    // The place is free when the connection's end is seen.
    loop {
        let mut stream = TcpStream::connect(cachalot.address()).await.unwrap();
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        if stream.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 200") {
            break;
        }
    }
    drop(held);
    cachalot.finish().await;
}
