//! The client of one upstream over real sockets: what it asks, of whom, and what it makes of odd answers.

mod accounts;
mod auth;
mod blobs;
mod endpoints;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cachalot::oci::{Digest, MediaType, Reference, RepositoryName};
use cachalot::tasks::TaskGroup;
use cachalot::telemetry::Secret;
use cachalot::upstream::{
    Account, BlobTransfer, Client, Credentials, ManifestAnswer, Observer, Options, Origin, RequestKind, UpstreamError,
};
use cachalot::wire::Quota;
use futures_util::StreamExt as _;
use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use crate::registry::{Content, Fault, Image, Log, MIB, Match, Proxy, Registry};

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, */*";
const LIMIT: usize = 4 << 20;

/// Options for a client that trusts nobody but the certificates it is given.
fn options(registry: &Registry) -> Options {
    options_at(&registry.url())
}

fn options_at(endpoint: &str) -> Options {
    let name = "upstream.test".parse().expect("a valid name");
    Options::new(name, Url::parse(endpoint).expect("a valid URL"))
}

fn client(registry: &Registry) -> Client {
    client_with(&options(registry))
}

fn client_with(options: &Options) -> Client {
    Client::new(options, Arc::new(()), TaskGroup::new()).expect("valid options")
}

fn account(username: &str, password: &str) -> Credentials {
    Credentials::Fixed(Account::Password { username: username.to_owned(), password: Secret::new(password) })
}

fn repository() -> RepositoryName {
    "library/alpine".parse().expect("a valid name")
}

fn tag(text: &str) -> Reference {
    text.parse().expect("a valid tag")
}

async fn pull(client: &Client, reference: &Reference) -> Result<ManifestAnswer, UpstreamError> {
    client.manifest(&repository(), reference, ACCEPT, LIMIT).await
}

async fn blob(client: &Client, digest: &Digest, start: u64, end: Option<u64>) -> Result<BlobTransfer, UpstreamError> {
    client.blob(&repository(), digest, start, end).await
}

/// Reads a transfer to its end: the bytes, and the error if it ended in one.
async fn read(mut transfer: BlobTransfer) -> (Vec<u8>, Option<UpstreamError>) {
    let mut bytes = Vec::new();
    while let Some(chunk) = transfer.chunks.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => {
                assert!(transfer.chunks.next().await.is_none(), "nothing comes after an error");
                return (bytes, Some(error));
            }
        }
    }
    (bytes, None)
}

/// Returns every `Authorization` that a registry was sent.
fn authorizations(log: &Log) -> Vec<&str> {
    log.iter().filter_map(|request| request.authorization.as_deref()).collect()
}

/// Writes down what the client tells.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn add(&self, note: String) {
        self.0.lock().expect("nobody panics while writing").push(note);
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("nobody panics while writing"))
    }
}

impl Observer for Notes {
    fn answered(&self, kind: RequestKind, status: u16, _: Duration) {
        self.add(format!("answered {} {status}", kind.as_str()));
    }

    fn failed(&self, error: &UpstreamError) {
        self.add(format!("failed {}", error.as_str()));
    }

    fn retried(&self, reason: &'static str) {
        self.add(format!("retried {reason}"));
    }

    fn token(&self, result: &'static str) {
        self.add(format!("token {result}"));
    }

    fn available(&self, is_available: bool) {
        if !is_available {
            self.add("not available".to_owned());
        }
    }

    fn quota(&self, quota: Quota) {
        self.add(format!("quota {quota:?}"));
    }
}

#[tokio::test]
async fn a_manifest_comes_with_its_bytes_type_and_digest() {
    let registry = Registry::start().await;
    let image = registry.image("library/alpine", "3.20", &Image::new());
    let client = client(&registry);

    let answer = pull(&client, &tag("3.20")).await.expect("it is there");
    assert_eq!(answer.bytes, image.bytes);
    assert_eq!(answer.media_type.as_ref().map(MediaType::as_str), Some(image.media_type));
    assert_eq!(answer.digest, Some(image.digest));
    let head = client.manifest_head(&repository(), &tag("3.20"), ACCEPT).await.expect("it is there");
    assert_eq!((head.digest, head.size_bytes), (Some(image.digest), Some(image.bytes.len() as u64)));

    let log = registry.requests();
    let get = log.gets("/v2/library/alpine/manifests/3.20").remove(0);
    assert_eq!(get.accept.as_deref(), Some(ACCEPT));
    assert_eq!(get.accept_encoding.as_deref(), Some("identity"));
    assert_eq!(get.user_agent.as_deref(), Some(concat!("cachalot/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(get.via.as_deref(), Some("1.1 cachalot"));
    assert_eq!(get.host, Some(registry.host()));
    assert_eq!(authorizations(&log), Vec::<&str>::new());
    assert_eq!(registry.connections(), 1);
}

#[tokio::test]
async fn an_endpoint_may_have_a_path_of_its_own() {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    let client = client_with(&options_at(&format!("{}/some/prefix/", registry.url())));
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    assert_eq!(registry.gets("/some/prefix/v2/library/alpine/manifests/3.20").len(), 1);
}

#[tokio::test]
async fn odd_manifest_answers_are_told_apart() {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    let json = r#"{"errors":[{"code":"X","message":"in our own words"}]}"#;
    let ask = async |fault: &Fault| {
        let client = client(&registry);
        registry.fault(Match::manifest("3.20"), fault.clone());
        pull(&client, &tag("3.20")).await
    };
    for (fault, expected) in [
        (Fault::Status(404, json), r#"NotFound { message: Some("in our own words") }"#),
        (Fault::Status(403, json), r#"Denied { status: 403, message: Some("in our own words") }"#),
        (Fault::Status(401, "no challenge"), "Denied { status: 401, message: None }"),
        (Fault::Status(418, "<html>"), "Status { status: 418, message: None }"),
        (Fault::Status(304, ""), "Status { status: 304, message: None }"),
        (Fault::RateLimited { retry_after: Some("7") }, "RateLimited { retry_after: Some(7s), limit: Pulls }"),
        (Fault::RateLimited { retry_after: Some("999999") }, "RateLimited { retry_after: Some(3600s), limit: Pulls }"),
        (Fault::RateLimited { retry_after: None }, "RateLimited { retry_after: None, limit: Pulls }"),
        (Fault::Gzip, r#"Protocol { reason: "an encoded body though identity was asked for" }"#),
    ] {
        let error = ask(&fault).await.expect_err("a fault");
        assert_eq!(format!("{error:?}"), expected, "{fault:?}");
    }
    for (fault, digest, media_type) in [
        (Fault::NoDigestHeader, false, true),
        (Fault::NoContentType, true, false),
        (Fault::NoLength, true, true),
        (Fault::LieAboutDigest, true, true),
    ] {
        let answer = ask(&fault).await.expect("the cache verifies, not the client");
        assert_eq!((answer.digest.is_some(), answer.media_type.is_some()), (digest, media_type), "{fault:?}");
    }
}

#[tokio::test]
async fn a_manifest_above_the_limit_is_refused_with_and_without_a_length() {
    let registry = Registry::start().await;
    let digest = registry.manifest("library/alpine", Some("big"), vec![b' '; 1001], MediaType::OCI_MANIFEST);
    let client = client(&registry);
    let ask = async |limit| client.manifest(&repository(), &Reference::Digest(digest), ACCEPT, limit).await;
    assert!(matches!(ask(1000).await, Err(UpstreamError::TooLarge { limit_bytes: 1000 })));
    registry.fault(Match::manifest(digest), Fault::NoLength);
    assert!(matches!(ask(1000).await, Err(UpstreamError::TooLarge { limit_bytes: 1000 })));
    assert_eq!(ask(1001).await.expect("at the limit").bytes.len(), 1001);
}

#[tokio::test]
async fn a_question_that_is_dropped_ends_at_the_upstream_too() {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    registry.fault(Match::manifest("3.20"), Fault::Hold);
    let (client, reference) = (client(&registry), tag("3.20"));
    tokio::select! {
        answer = pull(&client, &reference) => panic!("nobody released the answer: {answer:?}"),
        () = registry.wait_for(|log| log.held() == 1) => {}
    }
    registry.wait_for(|log| log.running() == 0).await;
}

#[tokio::test]
async fn passing_failures_are_tried_again_and_counted() {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    let notes = Arc::new(Notes::default());
    let observer: Arc<dyn Observer> = Arc::clone(&notes) as _;
    let client = Client::new(&options(&registry), observer, TaskGroup::new()).expect("valid options");

    registry.fault(Match::manifest("3.20"), Fault::Status(503, ""));
    registry.fault(Match::manifest("3.20"), Fault::CutAfter(3));
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    let expected = [
        "answered manifest_tag 503",
        "failed http_5xx",
        "retried http_5xx",
        "answered manifest_tag 200",
        "failed truncated",
        "retried truncated",
        "answered manifest_tag 200",
    ];
    assert_eq!(notes.taken(), expected);

    registry.fault(Match::manifest("3.20"), Fault::Status(502, "")).times(3);
    let error = pull(&client, &tag("3.20")).await.expect_err("three times");
    assert!(matches!(error, UpstreamError::Status { status: 502, .. }), "{error:?}");

    registry.fault(Match::manifest("3.20"), Fault::RateLimited { retry_after: Some("1") });
    notes.taken();
    assert!(pull(&client, &tag("3.20")).await.is_err());
    assert_eq!(notes.taken(), ["answered manifest_tag 429", "failed rate_limited"]);
}

#[tokio::test]
async fn a_pooled_connection_that_died_is_replaced_at_once() {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    let notes = Arc::new(Notes::default());
    let observer: Arc<dyn Observer> = Arc::clone(&notes) as _;
    let client = Client::new(&options(&registry), observer, TaskGroup::new()).expect("valid options");
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    registry.fault(Match::manifest("3.20"), Fault::Hangup);
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    let expected = ["answered manifest_tag 200", "retried stale_connection", "answered manifest_tag 200"];
    assert_eq!(notes.taken(), expected);
}

#[tokio::test]
async fn a_registry_that_is_down_is_an_error_with_its_host() {
    let registry = Registry::start().await;
    let client = client(&registry);
    registry.stop().await;
    let error = pull(&client, &tag("3.20")).await.expect_err("nobody listens");
    assert_eq!(error.to_string(), format!("cannot connect to {}", registry.host()));
    registry.restart().await;
    registry.image("library/alpine", "3.20", &Image::new());
    wait_as_told(&pull(&client, &tag("3.20")).await.expect_err("it is left alone for a moment")).await;
    assert!(pull(&client, &tag("3.20")).await.is_ok());
}

/// Waits as long as the client is not to ask.
async fn wait_as_told(error: &UpstreamError) {
    let UpstreamError::CircuitOpen { retry_after, .. } = error else { panic!("{error:?}") };
    tokio::time::sleep(*retry_after).await;
}

#[tokio::test]
async fn a_certificate_is_believed_when_its_authority_is_given_or_nobody_asks() {
    for registry in [Registry::start_tls().await, Registry::start_h2().await] {
        let image = registry.image("library/alpine", "3.20", &Image::new().layer(Content::generated(8, MIB)));
        let mut options = options(&registry);
        let error = pull(&client_with(&options), &tag("3.20")).await.expect_err("an unknown authority");
        assert!(matches!(error, UpstreamError::Tls { .. }), "{error:?}");

        options.extra_ca = vec![registry.ca()];
        let client = client_with(&options);
        assert_eq!(pull(&client, &tag("3.20")).await.expect("a known authority").bytes, image.bytes);
        let transfer = blob(&client, &image.layer(0), 0, None).await.expect("a known authority");
        assert_eq!(read(transfer).await.0.len() as u64, MIB);

        options.extra_ca = Vec::new();
        options.insecure = true;
        assert!(pull(&client_with(&options), &tag("3.20")).await.is_ok());
    }
}

#[tokio::test]
async fn requests_go_through_a_proxy_where_one_is_set() {
    let proxy = Proxy::start().await;
    let url = format!("http://user:password@{}", proxy.host());
    let matcher = Arc::new(Matcher::builder().all(url).build());
    let authorization = "proxy-authorization: basic dxnlcjpwyxnzd29yza==";

    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    let mut plain = options(&registry);
    plain.proxy = Some(Arc::clone(&matcher));
    assert!(pull(&client_with(&plain), &tag("3.20")).await.is_ok());
    let head = proxy.heads().remove(0);
    assert!(head.starts_with(&format!("get {}/v2/library/alpine/manifests/3.20 http/1.1", registry.url())), "{head}");
    assert!(head.contains(authorization), "{head}");

    let registry = Registry::start_tls().await;
    registry.image("library/alpine", "3.20", &Image::new());
    let mut secure = options(&registry);
    secure.proxy = Some(Arc::clone(&matcher));
    secure.extra_ca = vec![registry.ca()];
    assert!(pull(&client_with(&secure), &tag("3.20")).await.is_ok());
    let head = proxy.heads().remove(1);
    assert!(head.starts_with(&format!("connect {} http/1.1", registry.host())), "{head}");
    assert!(head.contains(authorization) && !head.contains("/v2/"), "{head}");

    drop(proxy);
    let error = pull(&client_with(&plain), &tag("3.20")).await.expect_err("the proxy is gone");
    assert!(matches!(error, UpstreamError::Connect { .. }), "{error:?}");
    assert!(!format!("{error:?} {error}").contains("password"), "{error:?}");
    plain.proxy = Some(Arc::new(Matcher::builder().all("socks5://127.0.0.1:1").build()));
    let error = pull(&client_with(&plain), &tag("3.20")).await.expect_err("no SOCKS");
    assert!(matches!(error, UpstreamError::Connect { .. }), "{error:?}");
}
