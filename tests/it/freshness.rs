//! Tags: fresh, revalidated, moved, stale, gone (P-136…P-142).

use crate::harness::{Cachalot, More};
use crate::registry::{Fault, Image, Match, Registry};

const PATH: &str = "/v2/app/manifests/1";

/// No tag is ever fresh.
const ALWAYS_ASK: More<'_> = More { server: "", store: "", upstream: "tag_ttl = \"0s\"", sections: "" };

#[tokio::test]
async fn a_fresh_tag_costs_nothing_and_a_herd_one_question() {
    let registry = Registry::start().await;
    let image = registry.image("app", "1", &Image::new());
    let cachalot = Cachalot::over(&registry).await;
    let answers = futures_util::future::join_all((0..50).map(|_| cachalot.get(PATH))).await;
    for answer in answers {
        assert_eq!((answer.status, &answer.body), (200, &image.bytes));
    }
    assert_eq!((registry.heads("/manifests/1").len(), registry.gets("/manifests/").len()), (1, 1), "P-140");
    assert_eq!(cachalot.get(PATH).await.header("cache-status"), "cachalot; hit");
    assert_eq!((registry.heads("/manifests/1").len(), registry.gets("/manifests/").len()), (1, 1));
    cachalot.finish().await;
}

#[tokio::test]
async fn an_old_tag_is_revalidated_by_head_and_fetched_by_digest_only_when_it_moved() {
    let registry = Registry::start().await;
    registry.image("app", "1", &Image::new());
    let cachalot = Cachalot::configured(&registry, ALWAYS_ASK).await;
    assert_eq!(cachalot.get(PATH).await.status, 200);
    let again = cachalot.get(PATH).await;
    assert!(again.header("cache-status").contains("revalidated"), "{}", again.header("cache-status"));
    assert_eq!((registry.heads("/manifests/1").len(), registry.gets("/manifests/").len()), (2, 1), "P-136");
    let moved = registry.image("app", "1", &Image::new().annotation("moved", "yes"));
    assert_eq!(cachalot.get(PATH).await.body, moved.bytes);
    let gets = registry.gets("/manifests/");
    assert!(gets.iter().all(|get| get.path.contains("sha256:")), "P-138: {gets:?}");
    assert_eq!(gets.len(), 2);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_head_that_is_refused_or_says_too_little_is_followed_by_a_get() {
    for fault in [Fault::RefuseHead(405), Fault::RefuseHead(403), Fault::NoDigestHeader] {
        let registry = Registry::start().await;
        let image = registry.image("app", "1", &Image::new());
        registry.fault(Match::manifest("1").head(), fault.clone()).always();
        let cachalot = Cachalot::over(&registry).await;
        let answer = cachalot.get(PATH).await;
        assert_eq!((answer.status, &answer.body), (200, &image.bytes), "P-137, {fault:?}");
        assert_eq!(registry.gets("/manifests/1").len(), 1, "{fault:?}");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_stale_tag_is_served_while_the_upstream_fails_and_never_when_it_refuses() {
    for (fault, served) in [
        (Fault::Hangup, true),
        (Fault::Status(503, ""), true),
        (Fault::RateLimited { retry_after: None }, true),
        (Fault::HtmlPage, true),
        (Fault::Status(403, ""), false),
        (Fault::StatusWithHeader(401, "x-reason", "gone"), false),
        (Fault::Status(404, ""), false),
    ] {
        let registry = Registry::start().await;
        let image = registry.image("app", "1", &Image::new());
        let cachalot = Cachalot::configured(&registry, ALWAYS_ASK).await;
        assert_eq!(cachalot.get(PATH).await.status, 200);
        registry.fault(Match::manifest("1"), fault.clone()).always();
        let answer = cachalot.get(PATH).await;
        if served {
            assert_eq!((answer.status, &answer.body), (200, &image.bytes), "P-139, {fault:?}");
            assert!(answer.header("cache-status").contains("stale"), "{fault:?}");
            assert!(answer.header("warning").starts_with("299 "), "P-42, {fault:?}");
        } else {
            assert!(matches!(answer.status, 403 | 404), "P-139, {fault:?}: {}", answer.status);
            // S-7: who may not read it by its tag may not read it by its digest; what is gone by its tag is not gone.
            registry.fault(Match::manifest(image.digest), Fault::Status(403, "")).always().optional();
            let by_digest = cachalot.get(&format!("/v2/app/manifests/{}", image.digest)).await;
            assert_eq!(by_digest.status, if answer.status == 403 { 403 } else { 200 }, "{fault:?}");
        }
        registry.clear_faults();
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn what_was_pulled_is_served_after_a_restart_while_the_upstream_is_down() {
    let registry = Registry::start().await;
    let image = registry.image("app", "1", &Image::new().layer(vec![7; 100_000]));
    let cachalot = Cachalot::configured(&registry, ALWAYS_ASK).await;
    let blobs: Vec<_> = image.blobs().map(|blob| (format!("/v2/app/blobs/{}", blob.digest()), blob.bytes())).collect();
    assert_eq!(cachalot.get(PATH).await.status, 200);
    for (path, bytes) in &blobs {
        assert_eq!(cachalot.get(path).await.body, bytes);
    }
    registry.stop().await;
    let cachalot = cachalot.restart(&registry, ALWAYS_ASK).await;
    let manifest = cachalot.get(PATH).await;
    assert_eq!((manifest.status, manifest.body), (200, image.bytes.clone()));
    for (path, bytes) in &blobs {
        let answer = cachalot.get(path).await;
        assert_eq!((answer.status, &answer.body, answer.header("cache-status")), (200, bytes, "cachalot; hit"));
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn what_a_tag_means_and_when_that_was_checked_outlives_a_restart() {
    let registry = Registry::start().await;
    let image = registry.image("app", "1", &Image::new());
    let more = More::upstream("tag_ttl = \"1h\"");
    let cachalot = Cachalot::configured(&registry, more).await;
    assert_eq!(cachalot.get(PATH).await.status, 200);
    let cachalot = cachalot.restart(&registry, more).await;
    assert_eq!(cachalot.get(PATH).await.body, image.bytes);
    assert_eq!(registry.heads("/manifests/").len(), 1, "it is fresh still");
    cachalot.finish().await;
}

#[tokio::test]
async fn offline_serves_what_is_known_and_never_asks() {
    let registry = Registry::start().await;
    let image = registry.image("app", "1", &Image::new());
    let cachalot = Cachalot::over(&registry).await;
    assert_eq!(cachalot.get(PATH).await.status, 200);
    let cachalot = cachalot.restart(&registry, More::upstream("offline = true\ntag_ttl = \"0s\"")).await;
    let asked = registry.requests().len();
    assert_eq!(cachalot.get(PATH).await.body, image.bytes);
    assert_eq!(cachalot.get("/v2/app/manifests/2").await.status, 504);
    assert_eq!(registry.requests().len(), asked);
    cachalot.finish().await;
}
