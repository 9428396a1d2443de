//! Quay: robots, pages by a sealed key, and 400 for referrers of what it does not know.

use super::site::{PASSWORD, Site};
use crate::harness::Answer;
use crate::registry::{Fault, Image, Match, Paging};

const CHALLENGE: &str = r#"Bearer realm="{url}/v2/auth",service="quay.io",scope="repository:{repository}:pull""#;
const ROBOT: &str = "org+robot";

async fn quay() -> Site {
    let site = Site::start("org/app").await;
    site.ask_for_tokens(CHALLENGE, "/v2/auth");
    site.sign_blobs(302);
    site
}

fn tags(answer: &Answer) -> String {
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    document["tags"].to_string()
}

#[tokio::test]
async fn a_robot_pulls_an_image() {
    let site = quay().await;
    site.registry.require_token_of(ROBOT, PASSWORD);
    let cachalot = site.cachalot_of_user(ROBOT).await;
    let pulled = site.pull(&cachalot, "org/app").await;
    assert_eq!(
        site.asked(),
        [
            "HEAD manifests/1 nobody 401",
            "GET /v2/auth?service=quay.io&scope=repository:org/app:pull password 200",
            "HEAD manifests/1 token 200",
            "GET manifests/{image} token 200",
            "GET blobs/{config} token bytes=0- 302",
            "GET blobs/{layer} token bytes=0- 302",
        ],
        "U-15: the plus sign is in the password, not in a form; U-16"
    );
    assert!(site.fetched().iter().all(|line| line.contains(" nobody ")), "U-16: {:?}", site.fetched());
    site.check(&pulled, "U-15, U-16");
    cachalot.finish().await;
}

#[tokio::test]
async fn pages_of_tags_are_followed_whatever_the_key_and_the_form_of_the_link() {
    for (key, seal, is_absolute) in
        [("last", 0, false), ("last", 0, true), ("next_page", 40, false), ("next_page", 40, true)]
    {
        let site = quay().await;
        for tag in ["2", "3", "4", "5"] {
            site.registry.image("org/app", tag, &Image::new());
        }
        site.registry.page_tags(Paging { cap: 2, key, seal, is_absolute });
        let cachalot = site.cachalot().await;
        let (mut path, mut seen) = ("/v2/org/app/tags/list?n=100".to_owned(), Vec::new());
        while !path.is_empty() && seen.len() < 5 {
            let page = cachalot.get(&path).await;
            let link = page.header("link").to_owned();
            path = link.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            assert!(path.is_empty() || path.starts_with("/v2/org/app/tags/list?"), "U-17: our own host: {link}");
            seen.push(tags(&page));
        }
        let asked = site.registry.gets("/tags/list").into_iter().filter(|get| get.status == Some(200));
        let queries: Vec<_> = asked.filter_map(|get| get.query).collect();
        let seal = "x".repeat(seal);
        // A page by a sealed key begins with the last tag of the page before, as the registry has it.
        assert_eq!(queries[..2], ["n=100".to_owned(), format!("n=2&{key}=2{seal}")], "U-17: {key}, {is_absolute}");
        assert_eq!(seen.first().map(String::as_str), Some(r#"["1","2"]"#), "U-17: {key}, {is_absolute}");
        assert!(seen.last().is_some_and(|tags| tags.contains(r#""5""#)), "U-17: {key}, {is_absolute}: {seen:?}");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn an_empty_page_is_asked_for_as_such_and_too_large_a_one_is_an_error() {
    let site = quay().await;
    let body = r#"{"errors":[{"code":"TOO_MANY_TAGS_REQUESTED","message":"too many tags"}]}"#;
    let cachalot = site.cachalot().await;
    let none = cachalot.get("/v2/org/app/tags/list?n=0").await;
    site.registry.fault(Match::path("/tags/list"), Fault::Status(413, body)).always();
    let many = cachalot.get("/v2/org/app/tags/list?n=1000000").await;
    let asked: Vec<_> = site.registry.gets("/tags/list").into_iter().filter_map(|get| get.query).collect();
    assert_eq!(asked.last().map(String::as_str), Some("n=1000000"), "U-19: {asked:?}");
    assert_eq!(site.registry.gets("/tags/list").iter().filter(|get| get.status == Some(413)).count(), 1, "U-19");
    assert_eq!((none.status, tags(&none).as_str()), (200, "[]"), "U-17");
    assert_eq!((many.status, many.error_code().as_str()), (502, "UNAVAILABLE"), "U-19");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_subject_that_it_does_not_know_may_have_referrers_all_the_same() {
    let unknown = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid"}]}"#;
    for fault in [Fault::Status(400, unknown), Fault::Status(404, "page not found")] {
        for has_tag in [true, false] {
            let site = quay().await;
            let digest = site.image.digest;
            let signature = site.registry.attach("org/app", &digest, "signature/example", "");
            let tag = digest.to_string().replace(':', "-");
            if has_tag {
                site.registry.fallback("org/app", &digest, &[signature], true);
            }
            site.registry.fault(Match::path("/referrers/"), fault.clone()).always();
            let cachalot = site.cachalot().await;
            let answer = cachalot.get(&format!("/v2/org/app/referrers/{digest}")).await;
            assert!(!site.registry.heads(&format!("/manifests/{tag}")).is_empty(), "U-18: {fault:?}");
            assert_eq!(answer.status, 200, "U-18: {fault:?}");
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(text.contains(&signature.to_string()), has_tag, "U-18: {fault:?}: {text}");
            cachalot.finish().await;
        }
    }
}

#[tokio::test]
async fn it_is_never_asked_without_the_types_that_we_take() {
    let site = quay().await;
    let cachalot = site.cachalot().await;
    let answer = cachalot.send("GET", "/v2/org/app/manifests/1", &[]).await;
    for request in site.registry.requests().all("/manifests/") {
        let accept = request.accept.unwrap_or_default();
        for media_type in ["vnd.oci.image.index.v1+json", "vnd.docker.distribution.manifest.v2+json"] {
            assert!(accept.contains(media_type), "U-20: without it, schema 1 is what comes: {accept}");
        }
    }
    assert_eq!(answer.header("content-type"), site.image.media_type, "U-20");
    cachalot.finish().await;
}
