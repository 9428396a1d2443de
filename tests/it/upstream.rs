//! The client of one upstream over real sockets: what it asks, of whom, and what it makes of odd answers.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cachalot::oci::{Digest, MediaType, Reference, RepositoryName};
use cachalot::telemetry::Secret;
use cachalot::upstream::{
    BlobTransfer, Client, Credentials, ManifestAnswer, Observer, Options, Origin, RequestKind, UpstreamError,
};
use futures_util::{StreamExt as _, future};
use url::Url;

use crate::registry::{Content, Fault, Image, KIB, Log, MIB, Match, Registry};

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
    Client::new(options, Arc::new(())).expect("valid options")
}

fn account(username: &str, password: &str) -> Credentials {
    Credentials { username: username.to_owned(), password: Secret::new(password) }
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
    let client = client(&registry);
    let json = r#"{"errors":[{"code":"X","message":"in our own words"}]}"#;
    for (fault, expected) in [
        (Fault::Status(404, json), r#"NotFound { message: Some("in our own words") }"#),
        (Fault::Status(403, json), r#"Denied { status: 403, message: Some("in our own words") }"#),
        (Fault::Status(401, "no challenge"), "Denied { status: 401, message: None }"),
        (Fault::Status(418, "<html>"), "Status { status: 418, message: None }"),
        (Fault::Status(304, ""), "Status { status: 304, message: None }"),
        (Fault::RateLimited { retry_after: Some("7") }, "RateLimited { retry_after: Some(7s) }"),
        (Fault::RateLimited { retry_after: Some("999999") }, "RateLimited { retry_after: Some(3600s) }"),
        (Fault::RateLimited { retry_after: None }, "RateLimited { retry_after: None }"),
        (Fault::Gzip, r#"Protocol { reason: "an encoded body though identity was asked for" }"#),
    ] {
        registry.fault(Match::manifest("3.20"), fault.clone());
        let error = pull(&client, &tag("3.20")).await.expect_err("a fault");
        assert_eq!(format!("{error:?}"), expected, "{fault:?}");
    }
    for (fault, digest, media_type) in [
        (Fault::NoDigestHeader, false, true),
        (Fault::NoContentType, true, false),
        (Fault::NoLength, true, true),
        (Fault::LieAboutDigest, true, true),
    ] {
        registry.fault(Match::manifest("3.20"), fault.clone());
        let answer = pull(&client, &tag("3.20")).await.expect("the cache verifies, not the client");
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
async fn fifty_concurrent_requests_share_one_token() {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    registry.require_token();
    let client = client(&registry);
    let answers = future::join_all((0..50).map(|_| async { pull(&client, &tag("3.20")).await })).await;
    assert!(answers.iter().all(Result::is_ok));

    let tokens = registry.gets("/token");
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens.first().and_then(|token| token.authorization.clone()), None);
    let query = tokens.first().and_then(|token| token.query.clone());
    assert_eq!(query.as_deref(), Some("service=scripted&scope=repository%3Alibrary%2Falpine%3Apull"));

    // What the host wants is known from here on: no more 401, and a token for another repository is asked for at once.
    let before = registry.requests().len();
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    assert_eq!(registry.requests().len(), before + 1);
    let other = "other/thing".parse().expect("a valid name");
    assert!(client.manifest(&other, &tag("x"), ACCEPT, LIMIT).await.is_err());
    assert_eq!(registry.requests().len(), before + 3);
    assert_eq!(registry.gets("/token").len(), 2);
}

#[tokio::test]
async fn a_refused_token_is_replaced_exactly_once() {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    registry.require_token();
    let client = client(&registry);
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    registry.revoke_tokens();
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    assert_eq!(registry.gets("/token").len(), 2);

    registry.fault(Match::manifest("3.20"), Fault::ExpiredToken).times(2);
    let before = registry.gets("/manifests/").len();
    let error = pull(&client, &tag("3.20")).await.expect_err("refused twice");
    assert!(matches!(error, UpstreamError::Denied { status: 401, .. }), "{error:?}");
    assert_eq!(registry.gets("/manifests/").len(), before + 2);
    assert_eq!(registry.gets("/token").len(), 3);
}

#[tokio::test]
async fn a_herd_with_an_old_token_fetches_one_new_one() {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    registry.require_token();
    let client = client(&registry);
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    registry.revoke_tokens();
    let answers = future::join_all((0..20).map(|_| async { pull(&client, &tag("3.20")).await })).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(registry.gets("/token").len(), 2);
}

#[tokio::test]
async fn credentials_are_sent_to_the_token_service_and_never_to_the_registry() {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    registry.require_token_of("user", "password");
    let mut options = options(&registry);
    options.credentials = Some(account("user", "password"));
    assert!(pull(&client_with(&options), &tag("3.20")).await.is_ok());
    let log = registry.requests();
    let token = log.gets("/token").remove(0);
    assert_eq!(token.authorization.as_deref(), Some("Basic dXNlcjpwYXNzd29yZA=="));
    assert!(log.gets("/v2/").iter().all(|request| request.authorization != token.authorization));

    options.credentials = Some(account("user", "wrong"));
    let error = pull(&client_with(&options), &tag("3.20")).await.expect_err("a wrong password");
    assert!(matches!(error, UpstreamError::Auth { .. }), "{error:?}");
    options.credentials = None;
    let error = pull(&client_with(&options), &tag("3.20")).await.expect_err("no password");
    assert!(matches!(error, UpstreamError::Denied { status: 401, .. }), "{error:?}");
}

#[tokio::test]
async fn a_basic_challenge_is_answered_and_remembered() {
    let registry = Registry::start().await;
    let image = registry.image("library/alpine", "3.20", &Image::new());
    registry.require_basic("user", "password");
    let mut options = options(&registry);
    let error = pull(&client_with(&options), &tag("3.20")).await.expect_err("no password");
    assert!(matches!(error, UpstreamError::Denied { status: 401, .. }), "{error:?}");

    options.credentials = Some(account("user", "password"));
    let client = client_with(&options);
    let before = registry.requests().len();
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    assert!(blob(&client, &image.layer(0), 0, None).await.is_ok());
    assert_eq!(registry.requests().len(), before + 3);

    options.credentials = Some(account("user", "wrong"));
    let before = registry.requests().len();
    let error = pull(&client_with(&options), &tag("3.20")).await.expect_err("a wrong password");
    assert!(matches!(error, UpstreamError::Denied { status: 401, .. }), "{error:?}");
    assert_eq!(registry.requests().len(), before + 2);
}

#[tokio::test]
async fn a_foreign_realm_never_sees_the_credentials() {
    let thief = Registry::start().await;
    thief.answer_tokens_with(r#"{"token":"loot"}"#);
    let registry = Registry::start().await;
    registry.require_token();
    let mut options = options(&registry);
    options.credentials = Some(account("user", "password"));
    let port = thief.address().port();
    for realm in
        [format!("http://localhost:{port}/token"), format!("https://thief.test:{port}/token"), "/token".to_owned()]
    {
        registry.challenge_with(&format!(r#"Bearer realm="{realm}",service="s""#));
        let error = pull(&client_with(&options), &tag("3.20")).await.expect_err("the realm is not ours");
        assert!(matches!(error, UpstreamError::Auth { .. }), "{realm}: {error:?}");
    }
    assert_eq!(thief.requests().len(), 0);

    // The same port of another host is foreign; another port of the same host is not: registries run that way.
    registry.challenge_with(&format!(r#"Bearer realm="{}/token",service="s""#, thief.url()));
    let _ = pull(&client_with(&options), &tag("3.20")).await;
    assert_eq!(thief.gets("/token").len(), 1);

    // And what that one answers must not lead them on.
    let other = Registry::start().await;
    thief.fault(Match::token(), Fault::redirect_to(&other));
    let error = pull(&client_with(&options), &tag("3.20")).await.expect_err("a redirect of the credentials");
    assert!(matches!(error, UpstreamError::Auth { .. }), "{error:?}");
    assert_eq!(other.requests().len(), 0);
}

#[tokio::test]
async fn odd_token_answers_are_errors_of_their_own() {
    let registry = Registry::start().await;
    registry.require_token();
    let client = client(&registry);
    for (answer, reason) in [
        ("<html>".to_owned(), "token answer is not JSON"),
        ("{}".to_owned(), "token answer has no token"),
        (format!(r#"{{"token":"t","x":"{}"}}"#, "x".repeat(1 << 20)), "token answer is larger than 1048576 bytes"),
    ] {
        registry.answer_tokens_with(&answer);
        let error = pull(&client, &tag("3.20")).await.expect_err("no token");
        assert_eq!(format!("{error:?}"), format!("Auth {{ reason: {reason:?} }}"));
    }
    registry.fault(Match::token(), Fault::Status(400, ""));
    let error = pull(&client, &tag("3.20")).await.expect_err("no token");
    assert!(matches!(error, UpstreamError::Auth { .. }), "{error:?}");
}

#[tokio::test]
async fn a_redirect_to_another_origin_takes_no_authorization_along() {
    let cdn = Registry::start().await;
    let registry = Registry::start().await;
    let content = Content::generated(1, 100 * KIB);
    let digest = registry.with_blob(content.clone());
    cdn.with_blob(content.clone());
    registry.require_token();
    registry.fault(Match::blob(&digest), Fault::redirect_to(&cdn)).always();

    let client = client(&registry);
    let transfer = blob(&client, &digest, 0, None).await.expect("the redirect is followed");
    assert_eq!(transfer.size_bytes, Some(100 * KIB));
    let (bytes, error) = read(transfer).await;
    assert!(bytes == content.bytes() && error.is_none());
    let log = cdn.requests();
    assert_eq!(authorizations(&log), Vec::<&str>::new());
    assert_eq!(log.gets("/blobs/").remove(0).query.as_deref(), Some("X-Signature=secret-signature"));

    // Back at the upstream the token is not sent again: it is foreign ground by then.
    cdn.fault(Match::blob(&digest), Fault::redirect_to(&registry));
    registry.clear_faults();
    registry.fault(Match::blob(&digest), Fault::redirect_to(&cdn));
    let before = registry.gets("/blobs/").len();
    let _ = blob(&client, &digest, 0, None).await;
    let visits = registry.gets("/blobs/");
    assert!(visits.get(before).is_some_and(|first| first.authorization.is_some()));
    assert!(visits.get(before + 1).is_some_and(|second| second.query.is_some()));
    assert_eq!(authorizations(&cdn.requests()), Vec::<&str>::new());
}

#[tokio::test]
async fn a_host_that_a_redirect_led_to_gets_an_anonymous_token_of_its_own() {
    let mirror = Registry::start().await;
    let registry = Registry::start().await;
    let content = Content::generated(2, KIB);
    let digest = registry.with_blob(content.clone());
    mirror.with_blob(content);
    registry.require_token_of("user", "password");
    mirror.require_token();
    registry.fault(Match::blob(&digest), Fault::redirect_to(&mirror)).times(2);
    let mut options = options(&registry);
    options.credentials = Some(account("user", "password"));
    let client = client_with(&options);
    for _ in 0..2 {
        assert!(blob(&client, &digest, 0, None).await.is_ok());
    }
    let log = mirror.requests();
    assert_eq!(log.gets("/token").len(), 1);
    assert_eq!(log.gets("/blobs/").len(), 3);
    assert!(log.gets("/token").iter().all(|request| request.authorization.is_none()));
    assert!(!authorizations(&log).iter().any(|value| value.starts_with("Basic")));
}

#[tokio::test]
async fn a_redirect_within_the_origin_keeps_the_authorization_and_a_loop_ends() {
    let registry = Registry::start().await;
    let digest = registry.with_blob("bytes");
    registry.require_token();
    let client = client(&registry);
    registry.fault(Match::blob(&digest), Fault::RedirectRelative);
    assert!(blob(&client, &digest, 0, None).await.is_ok());
    assert_eq!(registry.gets("/blobs/").iter().filter(|request| request.authorization.is_some()).count(), 2);

    registry.fault(Match::blob(&digest), Fault::RedirectLoop).times(11);
    let before = registry.gets("/blobs/").len();
    let error = blob(&client, &digest, 0, None).await.expect_err("a loop");
    assert_eq!(error.to_string(), "protocol violation: more than 10 redirects");
    assert_eq!(registry.gets("/blobs/").len(), before + 11);

    for location in ["ftp://a/b?secret", "http://user:secret@127.0.0.1/", "https://"] {
        registry.fault(Match::blob(&digest), Fault::RedirectExactly(location.to_owned()));
        let error = blob(&client, &digest, 0, None).await.expect_err("not a place to go");
        assert!(matches!(error, UpstreamError::Protocol { .. }), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_refused_head_is_asked_again_as_the_shortest_get() {
    let cdn = Registry::start().await;
    let registry = Registry::start().await;
    let content = Content::generated(3, 5 * KIB);
    let digest = registry.with_blob(content.clone());
    cdn.with_blob(content);
    let client = client(&registry);
    let size = async || client.blob_head(&repository(), &digest).await.map(|head| head.size_bytes);

    assert_eq!(size().await.ok(), Some(Some(5 * KIB)));
    assert_eq!(registry.gets("/blobs/").len(), 0);
    for status in [401, 403, 405, 501] {
        registry.fault(Match::blob(&digest).head(), Fault::RefuseHead(status));
        assert_eq!(size().await.ok(), Some(Some(5 * KIB)), "{status}");
    }
    assert!(registry.gets("/blobs/").iter().all(|get| get.range.as_deref() == Some("bytes=0-0")));
    assert_eq!(registry.bytes_sent("/blobs/"), 4);

    // The target of a redirect that was signed for GET refuses the HEAD.
    registry.fault(Match::blob(&digest), Fault::redirect_to(&cdn)).times(2);
    cdn.fault(Match::blob(&digest).head(), Fault::RefuseHead(403));
    assert_eq!(size().await.ok(), Some(Some(5 * KIB)));
    assert_eq!(cdn.gets("/blobs/").len(), 1);

    registry.fault(Match::blob(&digest), Fault::Status(404, ""));
    assert!(matches!(size().await, Err(UpstreamError::NotFound { .. })));
}

#[tokio::test]
async fn ranges_are_what_was_asked_or_an_error() {
    let registry = Registry::start().await;
    let content = Content::generated(4, 10 * KIB);
    let digest = registry.with_blob(content.clone());
    let client = client(&registry);
    for (start, end, range) in
        [(0, None, None), (0, Some(9), Some("bytes=0-9")), (5, None, Some("bytes=5-")), (5, Some(5), Some("bytes=5-5"))]
    {
        let transfer = blob(&client, &digest, start, end).await.expect("it is there");
        assert_eq!((transfer.start, transfer.size_bytes), (start, Some(10 * KIB)));
        let length = end.map_or(10 * KIB, |end| end + 1) - start;
        assert_eq!(read(transfer).await.0, content.read(start, length));
        assert_eq!(registry.gets("/blobs/").last().and_then(|get| get.range.clone()).as_deref(), range);
    }

    registry.fault(Match::blob(&digest).ranged(), Fault::IgnoreRange);
    let transfer = blob(&client, &digest, 5, None).await.expect("everything, from 0");
    assert_eq!((transfer.start, transfer.size_bytes), (0, Some(10 * KIB)));
    assert_eq!(read(transfer).await.0, content.bytes());

    registry.fault(Match::blob(&digest).ranged(), Fault::WrongRange);
    for (start, reason) in
        [(5, "a range that starts elsewhere than asked"), (10 * KIB, "range not satisfiable (status 416)")]
    {
        let error = blob(&client, &digest, start, None).await.expect_err("not what was asked");
        assert_eq!(error.to_string(), format!("protocol violation: {reason}"));
    }
}

#[tokio::test]
async fn a_body_that_ends_early_is_an_error_and_one_of_unknown_length_is_not() {
    let registry = Registry::start().await;
    let content = Content::generated(5, 300 * KIB);
    let digest = registry.with_blob(content.clone());
    let client = client(&registry);
    for (fault, whole_arrives) in
        [(Fault::CutAfter(100 * KIB), false), (Fault::ResetAfter(100 * KIB), false), (Fault::WrongLength(7), true)]
    {
        registry.fault(Match::blob(&digest), fault.clone());
        let transfer = blob(&client, &digest, 0, None).await.expect("the headers are good");
        let (bytes, error) = read(transfer).await;
        let expected = if whole_arrives { 300 * KIB } else { 100 * KIB };
        assert!(bytes.len() as u64 <= expected, "{fault:?}");
        assert_eq!(bytes, content.read(0, bytes.len() as u64), "{fault:?}");
        let Some(UpstreamError::Truncated { received_bytes, .. }) = error else { panic!("{fault:?}: {error:?}") };
        assert_eq!(received_bytes, bytes.len() as u64, "{fault:?}");
    }

    registry.fault(Match::blob(&digest), Fault::NoLength);
    let transfer = blob(&client, &digest, 0, None).await.expect("the headers are good");
    assert_eq!(transfer.size_bytes, None);
    let (bytes, error) = read(transfer).await;
    assert!(bytes == content.bytes() && error.is_none());
}

#[tokio::test]
async fn a_transfer_that_stands_still_is_given_up() {
    let registry = Registry::start().await;
    let digest = registry.with_blob(Content::generated(6, 200 * KIB));
    registry.fault(Match::blob(&digest), Fault::StallAfter(KIB));
    let mut options = options(&registry);
    options.timeouts.idle = Duration::from_millis(50);
    let transfer = blob(&client_with(&options), &digest, 0, None).await.expect("the headers are good");
    let (bytes, error) = read(transfer).await;
    assert_eq!(bytes.len() as u64, KIB);
    assert!(matches!(error, Some(UpstreamError::TimedOut { limit: "idle time-out", .. })), "{error:?}");
    // The connection is closed: the registry sees its client go.
    registry.wait_for(|log| log.running() == 0).await;
}

#[tokio::test]
async fn a_question_ends_with_its_budget() {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    registry.fault(Match::manifest("3.20"), Fault::Hold);
    let mut options = options(&registry);
    options.timeouts.header = Duration::from_millis(50);
    let error = pull(&client_with(&options), &tag("3.20")).await.expect_err("no answer");
    assert!(matches!(error, UpstreamError::TimedOut { limit: "header budget", .. }), "{error:?}");
    registry.wait_for(|log| log.running() == 0).await;
}

#[tokio::test]
async fn never_more_transfers_at_once_than_allowed() {
    let registry = Registry::start().await;
    let digest = registry.with_blob(Content::generated(7, 4 * KIB));
    registry.fault(Match::blob(&digest), Fault::StallAfter(KIB)).times(3);
    let mut options = options(&registry);
    options.connections = 3;
    let client = Arc::new(client_with(&options));
    let transfers = future::join_all((0..10).map(|_| async {
        let transfer = blob(&client, &digest, 0, None).await.expect("a turn comes");
        read(transfer).await
    }));
    let (transfers, ()) = tokio::join!(transfers, async {
        registry.wait_for(|log| log.held() == 3).await;
        registry.release();
    });
    assert!(transfers.iter().all(|(bytes, error)| bytes.len() as u64 == 4 * KIB && error.is_none()));
    assert_eq!(registry.requests().peak("/blobs/"), 3);
    assert_eq!(registry.gets("/blobs/").len(), 10);

    // A dropped transfer gives its turn back.
    registry.fault(Match::blob(&digest), Fault::StallAfter(KIB)).times(3);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(blob(&client, &digest, 0, None).await.expect("a turn"));
    }
    drop(held);
    assert!(blob(&client, &digest, 0, None).await.is_ok());
}

#[tokio::test]
async fn a_rate_beyond_the_budget_is_told_without_asking() {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    let mut options = options(&registry);
    options.rate = NonZeroU32::new(1);
    options.timeouts.header = Duration::from_millis(500);
    let client = client_with(&options);
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    let error = pull(&client, &tag("3.20")).await.expect_err("once a second");
    assert!(matches!(error, UpstreamError::RateLimited { retry_after: Some(_) }), "{error:?}");
    assert_eq!(registry.gets("/manifests/").len(), 1);
}

#[tokio::test]
async fn passing_failures_are_tried_again_and_counted() {
    let registry = Registry::start().await;
    registry.image("library/alpine", "3.20", &Image::new());
    let notes = Arc::new(Notes::default());
    let observer: Arc<dyn Observer> = Arc::clone(&notes) as _;
    let client = Client::new(&options(&registry), observer).expect("valid options");

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
    let client = Client::new(&options(&registry), observer).expect("valid options");
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
    assert!(pull(&client, &tag("3.20")).await.is_ok());
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
