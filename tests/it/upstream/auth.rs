//! Tokens, passwords and redirects: who is shown what, and how often.

use cachalot::upstream::{Origin as _, UpstreamError};
use futures_util::future;

use super::{ACCEPT, LIMIT, account, authorizations, blob, client, client_with, options, pull, read, tag};
use crate::registry::{Content, Fault, Image, KIB, Match, Registry};

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
