//! Google: relative redirects before those to the store, ranges one by one, and web pages in place of lists.

use super::site::Site;
use crate::registry::{Fault, Match};

const CHALLENGE: &str = r#"Bearer realm="{url}/v2/token",service="",scope="repository:{repository}:pull""#;

async fn artifacts() -> Site {
    let site = Site::start("project/repository/app").await;
    site.ask_for_tokens(CHALLENGE, "/v2/token");
    site.redirect("/artifacts-downloads/", 302, "{storage}{path}?X-Goog-Signature=secret");
    site.redirect("/blobs/", 302, "/artifacts-downloads{path}");
    site
}

#[tokio::test]
async fn a_relative_redirect_keeps_the_token_and_the_one_after_it_does_not() {
    let site = artifacts().await;
    let cachalot = site.cachalot().await;
    let pulled = site.pull(&cachalot, "project/repository/app").await;
    let asked: Vec<_> = site.asked().into_iter().map(|line| line.replace("/artifacts-downloads", "/down/")).collect();
    assert_eq!(
        asked,
        [
            "HEAD manifests/1 nobody 401",
            "GET /v2/token?scope=repository:project/repository/app:pull nobody 200",
            "HEAD manifests/1 token 200",
            "GET manifests/{image} token 200",
            "GET blobs/{config} token bytes=0- 302",
            "GET /down/blobs/{config} token bytes=0- 302",
            "GET blobs/{layer} token bytes=0- 302",
            "GET /down/blobs/{layer} token bytes=0- 302",
        ],
        "U-29, U-31"
    );
    assert!(site.fetched().iter().all(|line| line.contains(" nobody ")), "U-31: {:?}", site.fetched());
    assert_eq!(site.fetched().len(), 2, "U-31");
    site.check(&pulled, "U-29, U-31");
    cachalot.finish().await;
}

#[tokio::test]
async fn several_ranges_are_one_at_a_time_for_the_store() {
    let site = artifacts().await;
    let cachalot = site.cachalot().await;
    let path = format!("/v2/project/repository/app/blobs/{}", site.image.layer(0));
    let answer = cachalot.get_range(&path, "bytes=20-22,0-2").await;
    let ranges: Vec<_> = site.storage.requests().iter().filter_map(|get| get.range.clone()).collect();
    assert!(!ranges.is_empty() && ranges.iter().all(|range| !range.contains(',')), "U-32: {ranges:?}");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(answer.status == 206 && text.contains("\r\n\r\nthe\r\n"), "U-32: {text}");
    cachalot.finish().await;
}

#[tokio::test]
async fn what_a_list_of_tags_says_beside_the_tags_is_passed_on() {
    let site = artifacts().await;
    let cachalot = site.cachalot().await;
    let answer = cachalot.get("/v2/project/repository/app/tags/list").await;
    assert_eq!(site.asked().last().map(String::as_str), Some("GET tags/list token 200"), "U-33");
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&document["tags"][0], &document["child"]), (&"1".into(), &serde_json::json!([])), "U-33");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_login_page_is_no_list_of_referrers() {
    let site = artifacts().await;
    let digest = site.image.digest;
    let signature = site.registry.attach("project/repository/app", &digest, "signature/example", "");
    site.registry.fallback("project/repository/app", &digest, &[signature], true);
    site.redirect("/referrers/", 302, "{storage}/ServiceLogin");
    site.storage.open();
    site.storage.fault(Match::path("/ServiceLogin"), Fault::HtmlPage);
    let cachalot = site.cachalot().await;
    let answer = cachalot.get(&format!("/v2/project/repository/app/referrers/{digest}")).await;
    assert_eq!(site.fetched(), ["GET /ServiceLogin nobody 200"], "U-30: and it is shown no token");
    assert_eq!(answer.status, 200, "U-30");
    assert!(String::from_utf8_lossy(&answer.body).contains(&signature.to_string()), "U-30: the fallback tag tells");
    cachalot.finish().await;
}
