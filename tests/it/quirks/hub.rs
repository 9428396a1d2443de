//! Docker Hub: tokens for everybody, `library/`, signed URLs of a content network, pulls that are counted.

use std::collections::HashSet;

use super::site::Site;
use crate::harness::More;
use crate::registry::{Content, Fault, Image, KIB, MIB, Match, Paging};

const CHALLENGE: &str =
    r#"Bearer realm="{url}/token",service="registry.docker.io",scope="repository:{repository}:pull""#;

async fn hub() -> Site {
    let site = Site::start("library/alpine").await;
    site.ask_for_tokens(CHALLENGE, "/token");
    site.sign_blobs(307);
    site
}

#[tokio::test]
async fn an_image_is_pulled_under_every_name_of_the_hub_with_one_token_and_one_counted_request() {
    let site = hub().await;
    let cachalot = site.cachalot().await;
    let pulled = site.pull(&cachalot, "docker.io/alpine").await;
    assert_eq!(
        site.asked(),
        [
            "HEAD manifests/1 nobody 401",
            "GET /token?service=registry.docker.io&scope=repository:library/alpine:pull nobody 200",
            "HEAD manifests/1 token 200",
            "GET manifests/{image} token 200",
            "GET blobs/{config} token bytes=0- 307",
            "GET blobs/{layer} token bytes=0- 307",
        ],
        "U-2, U-3, U-4: a token with library/ in it, HEAD for the tag, and the one GET that counts"
    );
    assert_eq!(
        site.fetched(),
        [
            "GET blobs/{config}?X-Signature=secret nobody bytes=0- 206",
            "GET blobs/{layer}?X-Signature=secret nobody bytes=0- 206"
        ],
        "U-8: what is signed is shown nothing else"
    );
    site.check(&pulled, "U-1, U-2, U-3, U-4, U-8");
    for name in ["index.docker.io/alpine", "registry-1.docker.io/library/alpine"] {
        let again = site.pull(&cachalot, name).await;
        assert_eq!((site.asked().len(), site.fetched().len()), (6, 2), "U-1: {name} is the same upstream");
        site.check(&again, "U-1");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn a_signed_url_that_expires_in_the_middle_is_replaced_and_none_is_used_twice() {
    let site = hub().await;
    let content = Content::generated(1, MIB);
    let layer = site.registry.with_blob(content.clone());
    site.storage.with_blob(content.clone());
    site.registry.clear_faults();
    site.registry.fault(Match::blob(&layer), Fault::redirect_expiring(&site.storage, 300 * KIB)).always();
    let cachalot = site.cachalot().await;
    let answer = cachalot.get(&format!("/v2/docker.io/alpine/blobs/{layer}")).await;
    let asked: Vec<_> = site.registry.gets("/blobs/").into_iter().filter(|get| get.status == Some(307)).collect();
    let signed: HashSet<_> = site.storage.gets("/blobs/").into_iter().map(|get| get.query).collect();
    assert_eq!(
        (asked.len(), signed.len(), site.storage.requests().len()),
        (4, 4, 4),
        "U-8, U-48: four URLs, each once"
    );
    assert_eq!(site.storage.bytes_sent("/blobs/"), MIB, "U-48: no byte is sent twice");
    assert!(answer.is_complete && answer.body == content.bytes(), "U-48");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_denied_and_asked_about_once() {
    let site = hub().await;
    site.registry.fault(Match::path("/v2/library/secret/"), Fault::InsufficientScope).always();
    let cachalot = site.cachalot().await;
    let answers = [
        cachalot.head("/v2/docker.io/secret/manifests/1").await,
        cachalot.get("/v2/docker.io/secret/manifests/1").await,
    ];
    let asked = site.asked();
    assert_eq!(
        asked,
        [
            "HEAD /v2/library/secret/manifests/1 nobody 401",
            "GET /token?service=registry.docker.io&scope=repository:library/secret:pull nobody 200",
            "HEAD /v2/library/secret/manifests/1 token 401",
            "GET /v2/library/secret/manifests/1 nobody 401",
            "GET /v2/library/secret/manifests/1 token 401",
        ],
        "U-3: HEAD and GET, and one token for both"
    );
    for answer in answers {
        assert_eq!((answer.status, answer.header("www-authenticate")), (403, ""), "U-3: 401 becomes 403");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn both_limits_are_understood_and_what_they_say_stays_here() {
    let json = Fault::RateLimited { retry_after: Some("30") };
    let text = Fault::Status(429, "Too Many Requests (HAP429)");
    for (fault, pause) in [(json, "30"), (text, "60")] {
        let site = hub().await;
        site.registry.with_header("ratelimit-limit", "100;w=21600");
        site.registry.with_header("ratelimit-remaining", "0;w=21600");
        site.registry.with_header("docker-ratelimit-source", "192.0.2.1");
        site.registry.fault(Match::manifest("limited"), fault.clone()).always();
        let cachalot = site.cachalot().await;
        let pulled = site.pull(&cachalot, "docker.io/alpine").await;
        let answer = cachalot.get("/v2/docker.io/alpine/manifests/limited").await;
        let limited = site.registry.requests().all("/manifests/limited");
        assert_eq!(limited.len(), 1, "U-6: whoever asks for quiet is not asked again: {fault:?}");
        site.check(&pulled, "U-5");
        assert_eq!((answer.status, answer.header("retry-after")), (503, pause), "U-6: {fault:?}");
        assert_eq!(answer.error_code(), "UNAVAILABLE", "U-6: {fault:?}");
        let fresh = cachalot.get("/v2/docker.io/alpine/manifests/1").await;
        for name in ["ratelimit-limit", "ratelimit-remaining", "docker-ratelimit-source"] {
            assert_eq!((answer.header(name), fresh.header(name)), ("", ""), "U-5: it is our account's (P-121)");
        }
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn whether_there_is_a_referrers_api_is_asked_anew() {
    let site = hub().await;
    let signature = site.registry.attach("library/alpine", &site.image.digest, "signature/example", "");
    let tag = site.registry.fallback("library/alpine", &site.image.digest, &[signature], true);
    let cachalot = site.cachalot().await;
    let path = format!("/v2/docker.io/alpine/referrers/{}", site.image.digest);
    let without = cachalot.get(&path).await;
    site.registry.list_referrers(10);
    site.registry.remove_tag("library/alpine", &tag);
    let cachalot = cachalot.restart(&site.registry, More::default()).await;
    let with = cachalot.get(&path).await;
    let asked = site.registry.gets("/referrers/");
    let statuses: Vec<_> = asked.iter().filter_map(|request| request.status).filter(|status| *status != 401).collect();
    assert_eq!(statuses, [404, 200], "U-9: that there was none is not remembered");
    for answer in [without, with] {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == 200 && text.contains(&signature.to_string()), "U-9: {text}");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn lists_of_tags_come_in_pages() {
    let site = hub().await;
    for tag in ["2", "3"] {
        site.registry.image("library/alpine", tag, &Image::new());
    }
    site.registry.page_tags(Paging { cap: 2, ..Paging::default() });
    let cachalot = site.cachalot().await;
    let first = cachalot.get("/v2/docker.io/alpine/tags/list").await;
    let second = cachalot.get("/v2/docker.io/alpine/tags/list?n=2&last=2").await;
    let asked: Vec<_> = site.asked().into_iter().filter(|line| line.contains("tags/list")).collect();
    assert_eq!(asked, ["GET tags/list nobody 401", "GET tags/list token 200", "GET tags/list?n=2&last=2 token 200"]);
    assert!(String::from_utf8_lossy(&first.body).contains(r#""tags":["1","2"]"#), "P-95");
    assert_eq!(first.header("link"), "</v2/docker.io/alpine/tags/list?n=2&last=2>; rel=\"next\"", "P-95");
    assert!(String::from_utf8_lossy(&second.body).contains(r#""tags":["3"]"#), "P-95");
    cachalot.finish().await;
}
