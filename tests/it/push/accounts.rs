//! Writes of callers who show an account, to registries that want a token of their token service.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cachalot::oci::MediaType;
use serde_json::Value;

use super::{EMPTY, PUSH, UPLOADS, manifest, open};
use crate::harness::{Answer, Cachalot, More};
use crate::registry::Registry;

const TOKENS: &str = "public_url = \"https://cache.test\"";

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// A registry that ann may write to and bob may not, each by a token.
async fn start(server: &str) -> (Registry, Cachalot) {
    let registry = Registry::start().await;
    registry.require_account(true);
    registry.let_in("ann", "first", &["app"]);
    registry.let_in("bob", "second", &["other"]);
    let more = More { server, upstream: PUSH, ..More::default() };
    let cachalot = Cachalot::configured(&registry, more).await;
    (registry, cachalot)
}

async fn begin(cachalot: &Cachalot, authorization: &str) -> Answer {
    cachalot.write("POST", UPLOADS, &[("authorization", authorization)], "").await
}

/// Returns the scopes of the tokens that were asked for, with who asked.
fn tokens(registry: &Registry) -> Vec<(String, String)> {
    let scope = |query: &str| {
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.filter(|(name, _)| name == "scope").map(|(_, value)| value.into_owned()).collect::<Vec<_>>().join(" ")
    };
    let asked = registry.gets("/token").into_iter();
    asked.map(|ask| (scope(&ask.query.unwrap_or_default()), ask.authorization.unwrap_or_default())).collect()
}

#[tokio::test]
async fn a_push_by_an_account_comes_with_one_token_and_the_registry_never_sees_the_account() {
    for server in ["", TOKENS] {
        let (registry, cachalot) = start(server).await;
        let ann = if server.is_empty() {
            basic("ann:first")
        } else {
            let given = cachalot.send("GET", "/token", &[("authorization", &basic("ann:first"))]).await;
            let body: Value = serde_json::from_slice(&given.body).unwrap();
            format!("Bearer {}", body["token"].as_str().unwrap())
        };
        let shown = ("authorization", ann.as_str());
        let location = open(&cachalot, UPLOADS, &[shown]).await;
        let location = location.trim_start_matches("https://cache.test");
        let sent = cachalot.write("PATCH", location, &[shown], "{").await;
        assert_eq!(sent.status, 202);
        let done = cachalot.write("PUT", &format!("{location}?digest={EMPTY}"), &[shown], "}").await;
        assert_eq!(done.status, 201);
        let typed = [shown, ("content-type", MediaType::OCI_MANIFEST)];
        let put = cachalot.write("PUT", "/v2/app/manifests/1", &typed, manifest("one", None)).await;
        assert_eq!(put.status, 201);
        let account = basic("ann:first");
        assert_eq!(tokens(&registry), [("repository:app:pull,push".to_owned(), account.clone())]);
        let log = registry.requests();
        let pings: Vec<_> = log.iter().filter(|request| request.path == "/v2/").collect();
        assert_eq!(pings.len(), 1, "it is learned once how the registry wants it");
        assert_eq!(pings[0].authorization, None, "by a question that shows nothing");
        for request in log.iter().filter(|request| request.path.starts_with("/v2/app/")) {
            let shown = request.authorization.as_deref().unwrap_or_default();
            assert!(shown.starts_with("Bearer secret-token-"), "{} {}: {shown}", request.method, request.path);
            assert_ne!(request.status, Some(401), "nothing is sent in vain: {} {}", request.method, request.path);
        }
        let deleted = cachalot.write("DELETE", "/v2/app/manifests/1", &[shown], "").await;
        assert_eq!(deleted.status, 202);
        assert_eq!(tokens(&registry)[1..], [("repository:app:pull,push,delete".to_owned(), account)]);
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn who_may_not_write_is_told_so_and_by_our_own_challenge_where_we_give_tokens() {
    let ours = "Bearer realm=\"https://cache.test/token\",service=\"cache.test\",scope=\"repository:app:pull,push\"";
    for (server, challenge) in [("", "Bearer realm=\"http://127.0.0.1"), (TOKENS, ours)] {
        let (registry, cachalot) = start(server).await;
        for (pair, is_known) in [("bob:second", true), ("ann:wrong", false)] {
            let refused = begin(&cachalot, &basic(pair)).await;
            assert_eq!((refused.status, refused.error_code().as_str()), (401, "UNAUTHORIZED"), "{pair}");
            let told = refused.header("www-authenticate");
            assert!((!is_known && server.is_empty()) || told.starts_with(challenge), "P-176: {pair}: {told}");
            assert!(server.is_empty() || !told.contains("scripted"), "P-176: {told}");
        }
        let nobody = cachalot.write("POST", UPLOADS, &[], "").await;
        assert_eq!(nobody.status, 401);
        assert!(nobody.header("www-authenticate").starts_with(challenge), "{}", nobody.header("www-authenticate"));
        assert_eq!(begin(&cachalot, &basic("ann:first")).await.status, 202, "others are not in the way");
        let writers = registry.requests().all("/v2/app/").len();
        assert_eq!(writers, 3, "whom the token service does not know is not sent on");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_token_that_the_registry_takes_no_more_is_replaced_for_the_next_write() {
    let (registry, cachalot) = start("").await;
    let ann = basic("ann:first");
    assert_eq!(begin(&cachalot, &ann).await.status, 202);
    registry.revoke_tokens();
    assert_eq!(begin(&cachalot, &ann).await.status, 401, "P-150: a body passes once, and nothing is tried twice");
    assert_eq!(begin(&cachalot, &ann).await.status, 202);
    assert_eq!(tokens(&registry).len(), 2);
    cachalot.finish().await;
}

#[tokio::test]
async fn the_account_of_who_writes_goes_to_no_token_service_of_somebody_else() {
    let (registry, cachalot) = start("").await;
    let thief = Registry::start().await;
    registry
        .challenge_with(&format!("Bearer realm=\"http://localhost:{}/token\",service=\"x\"", thief.address().port()));
    let refused = begin(&cachalot, &basic("ann:first")).await;
    assert_eq!(refused.status, 502, "S-26");
    assert_eq!(thief.requests().len(), 0, "S-26");
    assert_eq!(registry.requests().all("/v2/app/").len(), 0);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_registry_that_asks_for_a_token_at_the_write_only_gets_one_with_the_next() {
    let (registry, cachalot) = start("").await;
    registry.open();
    let ann = basic("ann:first");
    assert_eq!(begin(&cachalot, &ann).await.status, 202, "it asks nobody, so the account goes as it stands");
    registry.require_account(true);
    registry.let_in("ann", "first", &["app"]);
    assert_eq!(begin(&cachalot, &ann).await.status, 401, "P-150: nothing is tried twice");
    assert_eq!(begin(&cachalot, &ann).await.status, 202);
    assert_eq!(tokens(&registry).len(), 1);
    cachalot.finish().await;
}

#[tokio::test]
async fn an_account_goes_as_it_stands_where_no_token_is_wanted() {
    let ann = basic("ann:first");
    for wants_account in [false, true] {
        let registry = Registry::start().await;
        if wants_account {
            registry.require_basic("ann", "first");
        }
        let cachalot = Cachalot::configured(&registry, More::upstream(PUSH)).await;
        for _ in 0..2 {
            assert_eq!(begin(&cachalot, &ann).await.status, 202);
        }
        let log = registry.requests();
        let shown = |path: &str| log.all(path).into_iter().map(|ask| ask.authorization).collect::<Vec<_>>();
        assert_eq!(shown("/v2/app/"), [Some(ann.clone()), Some(ann.clone())]);
        assert_eq!(log.iter().filter(|ask| ask.path == "/v2/").count(), 1, "it is asked how once");
        cachalot.finish().await;
    }
}
