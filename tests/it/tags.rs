//! Lists of tags: the upstream's word, in pages, for a moment from memory, and stale when the upstream fails.

use futures_util::future::join_all;

use crate::harness::{Cachalot, More};
use crate::registry::{Fault, Image, Match, Registry};

const LIST: &str = "/tags/list";

/// Starts a registry with tags of two repositories.
async fn registry() -> Registry {
    let registry = Registry::start().await;
    for tag in ["b", "a", "c"] {
        registry.image("app", tag, &Image::new());
    }
    registry.image("other", "x", &Image::new());
    registry
}

fn tags(answer: &crate::harness::Answer) -> Vec<String> {
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    document["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_list_is_the_upstreams_and_costs_one_question() {
    let registry = registry().await;
    let cachalot = Cachalot::over(&registry).await;
    let answers = join_all((0..20).map(|_| cachalot.get("/v2/app/tags/list"))).await;
    assert_eq!(registry.gets(LIST).len(), 1, "P-98");
    for answer in &answers {
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "P-100");
        assert_eq!(tags(answer), ["a", "b", "c"], "P-93");
        assert!(String::from_utf8_lossy(&answer.body).contains(r#""child":[]"#), "P-99");
    }
    assert_eq!(tags(&cachalot.get("/v2/other/tags/list").await), ["x"]);
    let absent = cachalot.get("/v2/absent/tags/list").await;
    assert_eq!((absent.status, absent.error_code().as_str()), (404, "NAME_UNKNOWN"), "P-101");
    let head = cachalot.head("/v2/app/tags/list").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    cachalot.finish().await;
}

#[tokio::test]
async fn pages_are_followed_by_links_in_the_shape_of_the_request() {
    let registry = registry().await;
    let cachalot = Cachalot::over(&registry).await;
    for (first, second) in [
        ("/v2/app/tags/list?n=2", "</v2/app/tags/list?n=2&last=b>; rel=\"next\""),
        ("/v2/registry.test/app/tags/list?n=2", "</v2/registry.test/app/tags/list?n=2&last=b>; rel=\"next\""),
        ("/registry.test/v2/app/tags/list?n=2", "</registry.test/v2/app/tags/list?n=2&last=b>; rel=\"next\""),
        ("/v2/app/tags/list?ns=registry.test&n=2", "</v2/app/tags/list?n=2&last=b&ns=registry.test>; rel=\"next\""),
    ] {
        let page = cachalot.get(first).await;
        assert_eq!((tags(&page), page.header("link")), (vec!["a".to_owned(), "b".to_owned()], second), "P-95: {first}");
        let target = second.trim_start_matches('<').split('>').next().unwrap();
        let page = cachalot.get(target).await;
        assert_eq!(tags(&page), ["c"], "what the upstream repeats is not told again: {first}");
        assert_eq!(page.header("link"), "", "{first}");
    }
    let none = cachalot.get("/v2/app/tags/list?n=0").await;
    assert_eq!((none.status, tags(&none).len(), none.header("link")), (200, 0, ""), "P-94");
    assert_eq!(cachalot.get("/v2/absent/tags/list?n=0").await.status, 404, "P-101");
    assert_eq!(cachalot.get("/v2/app/tags/list?n=-1").await.status, 400);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_list_is_served_stale_while_the_upstream_fails_and_never_when_it_refuses() {
    let more = More { sections: "[freshness]\ntag_ttl = \"0s\"\nnegative_ttl = \"0s\"", ..More::default() };
    for (fault, expected) in [
        (Fault::Status(503, ""), 200),
        (Fault::RateLimited { retry_after: Some("7") }, 200),
        (Fault::HtmlPage, 200),
        (Fault::Status(403, ""), 403),
        (Fault::Status(404, ""), 404),
    ] {
        let registry = registry().await;
        let cachalot = Cachalot::configured(&registry, more).await;
        assert_eq!(tags(&cachalot.get("/v2/app/tags/list").await), ["a", "b", "c"]);
        registry.image("app", "d", &Image::new());
        assert_eq!(tags(&cachalot.get("/v2/app/tags/list").await).len(), 4, "P-97");
        registry.fault(Match::path(LIST), fault.clone()).always();
        let answer = cachalot.get("/v2/app/tags/list").await;
        assert_eq!(answer.status, expected, "{fault:?}");
        if expected == 200 {
            assert_eq!(tags(&answer).len(), 4);
            assert!(answer.header("warning").starts_with("299 ") && answer.header("cache-status").contains("stale"));
        }
        if expected == 404 {
            registry.clear_faults();
            registry.fault(Match::path(LIST), Fault::Status(503, "")).always();
            let answer = cachalot.get("/v2/app/tags/list").await;
            assert_eq!(answer.status, 502, "the 404 has dropped the page: a failure has nothing to fall back on");
        }
        cachalot.finish().await;
    }
}
