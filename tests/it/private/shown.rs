//! What a caller shows goes to the registry that it asks and to the registry's own token service, and nowhere else (S-5, S-26…S-31).

use bytes::Bytes;

use super::ground::{APP, LAYER_BYTES, PASSWORD, Shown, cachalot, get, registry, status};
use crate::harness::{Cachalot, More, Open};
use crate::registry::{Content, Fault, Image, MIB, Match, Registry};

/// Returns every `Authorization` that a registry was shown.
fn seen(registry: &Registry) -> Vec<String> {
    registry.requests().iter().filter_map(|request| request.authorization.clone()).collect()
}

#[tokio::test]
async fn a_content_network_is_shown_nothing_and_its_word_is_no_yes() {
    for by_token in [false, true] {
        let (registry, _image) = registry(by_token).await;
        let network = Registry::start().await;
        let content = Content::generated(1, LAYER_BYTES);
        let blob = registry.with_blob_in(APP, content.clone());
        let hex = blob.to_string().replace("sha256:", "");
        let location = format!("{}/storage/sha256/{hex}/data?X-Signature=secret", network.url());
        registry.fault(Match::blob(&blob), Fault::RedirectExactly(location)).always();
        network.fault(Match::path("/storage/"), Fault::Endless(200, Some(LAYER_BYTES)));
        registry.let_in("owner", PASSWORD, &[APP]);
        let cachalot = cachalot(&registry, "access_ttl = \"0s\"").await;
        let path = format!("/v2/{APP}/blobs/{blob}");
        for _ in 0..3 {
            let answer = get(&cachalot, &Shown::user("owner"), &path).await;
            assert!(answer.status == 200 && answer.body == content.bytes(), "{}", answer.status);
        }
        for (shown, expected) in [(Shown::nothing(), 401), (Shown::user("stranger"), 403)] {
            assert_eq!(status(&cachalot, &shown, &path).await, expected);
        }
        assert_eq!(seen(&network), Vec::<String>::new(), "S-31");
        assert_eq!(network.requests().len(), 1, "whether somebody may read is not asked there");
        registry.clear_faults();
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_front_that_sends_everybody_elsewhere_lets_nobody_in() {
    let front = Registry::start().await;
    let image = front.image(APP, "1", &Image::new().layer(Content::generated(7, LAYER_BYTES)));
    let (behind, _same) = registry(false).await;
    behind.let_in("owner", PASSWORD, &[APP]);
    let login = Registry::start().await;
    login.fault(Match::any(), Fault::HtmlPage).always();
    let cachalot = cachalot(&front, "access_ttl = \"0s\"\naccess_stale_if_error = \"0s\"").await;
    let path = format!("/v2/{APP}/blobs/{}", image.layer(0));
    assert_eq!(
        status(&cachalot, &Shown::nothing(), &path).await,
        200,
        "as long as the front is the registry, for anybody"
    );
    let (elsewhere, page) = (format!("{}{{path}}", behind.url()), format!("{}/login?rd={{path}}", login.url()));
    for (location, shown, refusal) in [
        (&elsewhere, Shown::nothing(), 401),
        (&elsewhere, Shown::user("owner"), 403),
        (&page, Shown::user("second"), 502),
        (&page, Shown(Some("Bearer x".to_owned())), 502),
    ] {
        front.fault(Match::any(), Fault::RedirectWith(308, location.clone())).always();
        assert_eq!(status(&cachalot, &shown, &path).await, refusal, "{location}");
        assert_eq!((seen(&behind), seen(&login)), (Vec::new(), Vec::new()), "S-5");
        front.clear_faults();
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn a_foreign_token_service_is_shown_nothing() {
    let (registry, _image) = registry(true).await;
    let thief = Registry::start().await;
    // The same machine by another name is another host.
    let realm = thief.url().replace("127.0.0.1", "localhost");
    registry.challenge_with(&format!("Bearer realm=\"{realm}/token\",service=\"x\""));
    registry.let_in("owner", PASSWORD, &[APP]);
    let cachalot = cachalot(&registry, "").await;
    let answer = get(&cachalot, &Shown::user("owner"), &format!("/v2/{APP}/manifests/1")).await;
    assert_eq!(answer.status, 502, "S-26: {answer:?}");
    assert!(!String::from_utf8_lossy(&answer.body).contains(PASSWORD));
    assert_eq!(thief.requests().len(), 0);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_token_passes_as_it_stands_and_to_its_registry_only() {
    let (registry, image) = registry(true).await;
    registry.let_in("owner", PASSWORD, &[APP]);
    let network = Registry::start().await;
    network.with_blob(image.layers[0].clone());
    // A client that has a token of the registry itself.
    let (owner, scope) = (Shown::user("owner"), format!("/token?scope=repository:{APP}:pull"));
    let issued = Open::send(registry.address(), "GET", &scope, &owner.headers(&[]), Bytes::new()).await.finish().await;
    let issued: serde_json::Value = serde_json::from_slice(&issued.body).unwrap();
    let token = Shown(Some(format!("Bearer {}", issued["token"].as_str().unwrap())));
    registry.fault(Match::blob(&image.layer(0)), Fault::redirect_to(&network)).always();
    let cachalot = cachalot(&registry, "access_ttl = \"0s\"").await;
    for path in [format!("/v2/{APP}/manifests/1"), format!("/v2/{APP}/blobs/{}", image.layer(0))] {
        assert_eq!(status(&cachalot, &token, &path).await, 200, "{path}");
        assert_eq!(status(&cachalot, &Shown(Some("Bearer another".to_owned())), &path).await, 403, "{path}");
    }
    assert_eq!(seen(&network), Vec::<String>::new());
    let shown: std::collections::HashSet<_> = seen(&registry).into_iter().collect();
    let expected = [token.0.unwrap(), "Bearer another".to_owned(), owner.0.unwrap()];
    assert_eq!(shown, expected.into_iter().collect(), "the last one is the client's own");
    registry.revoke_tokens();
    registry.clear_faults();
    cachalot.finish().await;
}

#[tokio::test]
async fn our_own_account_is_for_what_is_shared_and_a_callers_for_what_is_for_callers() {
    let (registry, image) = registry(true).await;
    let public = registry.image("public/app", "1", &Image::new());
    registry.let_in("bot", "hunter2", &[APP, "public/app"]);
    registry.let_in("owner", PASSWORD, &[APP, "public/app"]);
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "hunter2").unwrap();
    let lines = format!(
        "access = \"caller\"\naccess_except = [\"public/*\"]\nusername = \"bot\"\npassword_file = {password:?}\nprefetch = \"layers\""
    );
    let cachalot = Cachalot::configured(&registry, More::upstream(&lines)).await;
    let owner = Shown::user("owner");
    for digest in [public.digest, image.digest] {
        let repository = if digest == image.digest { APP } else { "public/app" };
        assert_eq!(status(&cachalot, &owner, &format!("/v2/{repository}/manifests/{digest}")).await, 200);
    }
    // What is fetched ahead is fetched in the same name.
    registry.wait_for(|log| log.gets("/blobs/").iter().any(|get| get.path.contains(APP) && get.is_over)).await;
    for request in registry.requests().iter().filter(|request| request.path != "/token") {
        let Some(account) = registry.account_of(request) else { continue };
        let expected = if request.path.contains(APP) { owner.clone() } else { Shown::account("bot", "hunter2") };
        assert_eq!(Some(account), expected.0, "{request:?}");
    }
    assert_eq!(status(&cachalot, &Shown::nothing(), "/v2/public/app/manifests/1").await, 200);
    assert_eq!(status(&cachalot, &Shown::nothing(), &format!("/v2/{APP}/manifests/1")).await, 401);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_page_that_lies_elsewhere_is_not_asked_for() {
    let (registry, _image) = registry(false).await;
    registry.let_in("owner", PASSWORD, &[APP]);
    let elsewhere = Registry::start().await;
    let link =
        format!("<{}/v2/{APP}/tags/list?last=1>; rel=\"next\"", elsewhere.url().replace("127.0.0.1", "localhost"));
    registry.fault(Match::path("/tags/list"), Fault::WithHeader("link", link)).always();
    let cachalot = cachalot(&registry, "").await;
    let answer = get(&cachalot, &Shown::user("owner"), &format!("/v2/{APP}/tags/list?n=1")).await;
    assert_eq!((answer.status, answer.header("link")), (200, ""), "S-28");
    assert_eq!(elsewhere.requests().len(), 0);
    registry.clear_faults();
    cachalot.finish().await;
}

#[tokio::test]
async fn what_a_caller_shows_is_in_no_log_metric_or_answer() {
    let (registry, image) = registry(true).await;
    registry.with_blob(Content::generated(9, MIB));
    registry.let_in("owner", PASSWORD, &[APP]);
    let cachalot = cachalot(&registry, "").await;
    let (owner, wrong) = (Shown::user("owner"), Shown::account("owner", "wrong horse"));
    let mut told = String::new();
    for shown in [&owner, &wrong] {
        for path in [format!("/v2/{APP}/manifests/{}", image.digest), format!("/v2/{APP}/tags/list")] {
            let answer = get(&cachalot, shown, &path).await;
            told.extend(answer.headers.values().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()));
            told += &String::from_utf8_lossy(&answer.body);
        }
    }
    let metrics = Open::send(cachalot.admin_address(), "GET", "/metrics", &[], Bytes::new()).await;
    told += &String::from_utf8_lossy(&metrics.finish().await.body);
    for secret in [PASSWORD, "wrong horse", "secret-token", &owner.0.unwrap()["Basic ".len()..]] {
        assert!(!told.contains(secret), "S-40: {secret}");
    }
    cachalot.finish().await;
}
