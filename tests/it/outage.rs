//! Upstreams that are down, slow, or limit us: who is asked how often, what clients get, and how soon (P-104…P-109, P-136…P-142, U-65).

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::harness::{Answer, Cachalot, More};
use crate::registry::{Content, Fault, Image, KIB, Match, Registry};

const TAG: &str = "/v2/app/manifests/1";

/// Tags are never fresh, absences never remembered.
const ALWAYS_ASK: More<'_> = More {
    server: "",
    store: "",
    upstream: "tag_ttl = \"0s\"\nstale_wait = \"200ms\"",
    sections: "[freshness]\nnegative_ttl = \"0s\"",
};

/// A limit that Docker Hub sets on what is fetched too often, whoever fetches it.
const ABUSE: Fault = Fault::StatusWithHeader(429, "retry-after", "30");

async fn with_image() -> (Registry, bytes::Bytes, Cachalot) {
    let registry = Registry::start().await;
    let image = registry.image("app", "1", &Image::new());
    let cachalot = Cachalot::configured(&registry, ALWAYS_ASK).await;
    assert_eq!(cachalot.get(TAG).await.status, 200);
    (registry, image.bytes, cachalot)
}

#[track_caller]
fn assert_stale(answer: &Answer, bytes: &bytes::Bytes, detail: &str) {
    assert_eq!((answer.status, &answer.body), (200, bytes), "P-139");
    assert!(answer.header("cache-status").contains(detail), "{}", answer.header("cache-status"));
    assert!(answer.header("warning").starts_with("299 "));
}

#[tokio::test]
async fn who_keeps_failing_is_left_alone_and_stale_answers_do_not_wait_for_it() {
    let (registry, image, cachalot) = with_image().await;
    let cachalot = cachalot.restart(&registry, More { upstream: "tag_ttl = \"0s\"", ..ALWAYS_ASK }).await;
    registry.fault(Match::any(), Fault::Status(503, "")).always();
    let mut asked = Vec::new();
    for _ in 0..6 {
        assert_stale(&cachalot.get(TAG).await, &image, "upstream_error");
        asked.push(registry.requests().len());
    }
    assert!(asked[2] > asked[0] && asked[5] == asked[2], "three questions opened the circuit: {asked:?}");
    assert_eq!(cachalot.metric(r#"cachalot_upstream_available{upstream="registry.test"}"#), 0);
    // What is not cached is refused at once, as it failed, and says when to come again.
    let cold = cachalot.get("/v2/app/manifests/2").await;
    assert_eq!((cold.status, cold.error_code().as_str()), (502, "UNAVAILABLE"), "P-105");
    let wait: u64 = cold.header("retry-after").parse().unwrap();
    assert!((1..=15).contains(&wait), "{wait}");
    assert_eq!(registry.requests().len(), asked[5]);
    // Then one of the next is its trial, and the others do not wait for it.
    registry.clear_faults();
    registry.fault(Match::manifest("1"), Fault::Hold);
    tokio::time::sleep(Duration::from_secs(wait)).await;
    let others = async {
        registry.wait_for(|log| log.held() == 1).await;
        for answer in join_all((0..20).map(|_| cachalot.get(TAG))).await {
            assert_stale(&answer, &image, "upstream_error");
        }
        registry.release();
    };
    let (trial, ()) = tokio::join!(cachalot.get(TAG), others);
    assert_eq!((trial.status, trial.header("warning")), (200, ""));
    assert_eq!(registry.requests().len(), asked[5] + 1);
    assert_eq!(cachalot.metric(r#"cachalot_upstream_available{upstream="registry.test"}"#), 1);
    cachalot.finish().await;
}

#[tokio::test]
async fn who_is_silent_holds_nobody_who_can_have_a_stale_answer_and_is_heard_when_it_speaks() {
    let (registry, image, cachalot) = with_image().await;
    let other = registry.image("app", "other", &Image::new().annotation("other", "yes"));
    assert_eq!(cachalot.get("/v2/app/manifests/other").await.status, 200);
    registry.fault(Match::manifest("1"), Fault::Hold);
    registry.fault(Match::manifest("other"), Fault::Hold);
    let before = registry.heads(TAG).len();
    let began = Instant::now();
    let answers = join_all((0..50).map(|_| cachalot.get(TAG))).await;
    let waited = began.elapsed();
    for answer in answers {
        assert_stale(&answer, &image, "while_revalidate");
    }
    assert_eq!(registry.heads(TAG).len() - before, 1, "P-140: one question for all");
    assert!(waited >= Duration::from_millis(200), "they gave it its time: {waited:?}");
    let answer = cachalot.get("/v2/app/manifests/other").await;
    assert_stale(&answer, &other.bytes, "while_revalidate");
    registry.wait_for(|log| log.heads("/manifests/other").len() == 2).await;
    // The tag moves while nobody waits: the question goes on, and what it brings is fetched behind it (P-138).
    let moved = registry.image("app", "1", &Image::new().annotation("moved", "yes"));
    registry.release();
    registry.wait_for(|log| !log.gets(&moved.digest.to_string()).is_empty() && log.running() == 0).await;
    registry.fault(Match::manifest("1"), Fault::Hold).optional();
    let fresh = async { while cachalot.get(TAG).await.body != moved.bytes {} };
    tokio::time::timeout(Duration::from_secs(10), fresh).await.expect("what was fetched behind the answer is served");
    registry.release();
    assert_eq!(registry.gets("/manifests/").len(), 3);
    cachalot.finish().await;
}

#[tokio::test]
async fn who_is_silent_is_not_asked_for_another_form_of_a_stale_answer() {
    let (registry, image, cachalot) = with_image().await;
    registry.fault(Match::manifest("1"), Fault::Hold).always();
    let asked = registry.requests().all("/manifests/").len();
    let answer = cachalot.send("GET", TAG, &[("accept", "application/vnd.oci.image.index.v1+json")]).await;
    registry.wait_for(|log| log.all("/manifests/").len() > asked).await;
    assert_eq!(registry.requests().all("/manifests/").len() - asked, 1, "P-140: the question that waits, and no other");
    assert_stale(&answer, &image, "while_revalidate");
    registry.release();
    cachalot.finish().await;
}

#[tokio::test]
async fn a_thousand_clients_of_one_expired_tag_cost_one_head() {
    let registry = Registry::start().await;
    let image = registry.image("app", "1", &Image::new());
    let upstream = "tag_ttl = \"1s\"\nstale_wait = \"20s\"\nprefetch = \"off\"";
    let cachalot = Cachalot::configured(&registry, More::upstream(upstream)).await;
    assert_eq!(cachalot.get(TAG).await.status, 200);
    tokio::time::sleep(Duration::from_secs(1)).await;
    registry.fault(Match::manifest("1").head(), Fault::Hold);
    let clients = join_all((0..1000).map(|_| cachalot.get(TAG)));
    let release = async {
        while cachalot.metric(r#"cachalot_http_requests_in_flight{handler="manifests"}"#) < 1000 {
            tokio::task::yield_now().await;
        }
        registry.release();
    };
    let (answers, ()) = tokio::join!(clients, release);
    for answer in answers {
        assert_eq!((answer.status, &answer.body), (200, &image.bytes));
    }
    assert_eq!((registry.heads(TAG).len(), registry.gets("/manifests/").len()), (2, 1), "P-140: one more HEAD");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_storm_of_instant_retries_lets_one_request_through_for_each_object() {
    for (name, fault) in [
        ("a limit of pulls", Fault::RateLimited { retry_after: Some("30") }),
        ("a limit of abuse (U-6)", ABUSE),
        ("one that does not say how long", Fault::RateLimited { retry_after: None }),
    ] {
        let registry = Registry::start().await;
        registry.fault(Match::any(), fault).always();
        let cachalot = Cachalot::over(&registry).await;
        let objects: Vec<_> =
            (0..200u64).map(|seed| format!("/v2/app/manifests/{}", Content::generated(seed, 10).digest())).collect();
        // C-10: five attempts at each, without a pause and whatever `Retry-After` says.
        let pulls = objects.iter().map(async |path| {
            let mut told = Vec::new();
            for _ in 0..5 {
                told.push(cachalot.get(path).await);
            }
            told
        });
        let answers: Vec<Answer> = join_all(pulls).await.into_iter().flatten().collect();
        assert_eq!(answers.len(), 1000);
        for answer in &answers {
            assert_eq!((answer.status, answer.error_code().as_str()), (503, "UNAVAILABLE"), "P-106, {name}");
            assert!((1..=60).contains(&answer.header("retry-after").parse::<u64>().unwrap()), "{name}");
        }
        let log = registry.requests();
        for path in &objects {
            assert!(log.gets(path).len() <= 1, "{name}: {path}");
        }
        assert!(log.len() <= 200, "{name}: {} requests", log.len());
        let asked = log.len();
        assert_eq!(cachalot.get(&objects[0]).await.status, 503);
        assert_eq!(registry.requests().len(), asked, "{name}: it is not asked until then");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_limit_of_where_a_blob_is_kept_is_none_of_the_upstreams() {
    let (registry, image, cachalot) = with_image().await;
    let elsewhere = Registry::start().await;
    let digest = registry.with_blob(Content::generated(1, KIB));
    registry.fault(Match::blob(&digest), Fault::redirect_to(&elsewhere)).always();
    elsewhere.fault(Match::any(), Fault::RateLimited { retry_after: Some("3600") }).always();
    assert!(cachalot.get(&format!("/v2/app/blobs/{digest}")).await.status >= 429);
    let answer = cachalot.get(TAG).await;
    assert_eq!((answer.status, &answer.body), (200, &image), "P-106");
    assert_eq!(answer.header("warning"), "", "{}", answer.header("cache-status"));
    cachalot.finish().await;
}

#[tokio::test]
async fn a_limit_of_pulls_leaves_what_costs_nothing() {
    let registry = Registry::start().await;
    let image = registry.image("app", "1", &Image::new().layer(Content::generated(1, 10 * KIB)));
    let cachalot = Cachalot::over(&registry).await;
    assert_eq!(cachalot.get(TAG).await.status, 200);
    registry.fault(Match::path("/manifests/").get(), Fault::RateLimited { retry_after: Some("30") }).always();
    assert_eq!(cachalot.get("/v2/app/manifests/2").await.status, 404, "HEAD is free (U-4)");
    let other = registry.image("app", "3", &Image::new().annotation("a", "b"));
    assert_eq!(cachalot.get("/v2/app/manifests/3").await.status, 503);
    assert_eq!(cachalot.head("/v2/app/manifests/3").await.header("docker-content-digest"), other.digest.to_string());
    let layer = cachalot.get(&format!("/v2/app/blobs/{}", image.layer(0))).await;
    assert_eq!((layer.status, layer.body.len()), (200, 10 * 1024), "blobs are free");
    assert_eq!(registry.gets("/manifests/").len(), 2, "the second one was limited, and no third one asked");
    cachalot.finish().await;
}

#[tokio::test]
async fn what_clients_get_while_the_upstream_limits_us_is_a_choice() {
    for (choice, known, unknown) in [
        (r#"["stale", "503"]"#, 200, 503),
        (r#"["stale", "429"]"#, 200, 429),
        (r#"["503"]"#, 503, 503),
        (r#"["429"]"#, 429, 429),
    ] {
        let registry = Registry::start().await;
        let image = registry.image("app", "1", &Image::new());
        let upstream = format!("tag_ttl = \"0s\"\nwhen_limited = {choice}");
        let cachalot = Cachalot::configured(&registry, More::upstream(&upstream)).await;
        assert_eq!(cachalot.get(TAG).await.status, 200);
        registry.fault(Match::any(), ABUSE).always();
        for (path, expected) in [(TAG, known), ("/v2/app/manifests/2", unknown)] {
            let answer = cachalot.get(path).await;
            assert_eq!(answer.status, expected, "P-106, {choice}, {path}");
            match expected {
                200 => assert_stale(&answer, &image.bytes, "rate_limited"),
                429 => assert_eq!(answer.error_code(), "TOOMANYREQUESTS"),
                _ => assert_eq!(answer.error_code(), "UNAVAILABLE"),
            }
            assert_eq!(expected == 200, answer.header("retry-after").is_empty(), "{choice}, {path}");
        }
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn the_quota_is_read_and_not_passed_on() {
    let registry = Registry::start().await;
    registry.image("app", "1", &Image::new());
    registry.with_header("ratelimit-limit", "100;w=21600");
    registry.with_header("ratelimit-remaining", "76;w=21600");
    registry.with_header("docker-ratelimit-source", "192.0.2.7");
    let cachalot = Cachalot::over(&registry).await;
    let answer = cachalot.get(TAG).await;
    for name in ["ratelimit-limit", "ratelimit-remaining", "docker-ratelimit-source"] {
        assert_eq!(answer.header(name), "", "P-121");
    }
    let gauge =
        |name: &str| cachalot.metric(&format!(r#"cachalot_upstream_rate_limit_{name}{{upstream="registry.test"}}"#));
    assert_eq!((gauge("quota"), gauge("remaining"), gauge("window_seconds")), (100, 76, 21_600), "U-5");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_dead_first_endpoint_is_asked_once_and_probed_beside_the_traffic() {
    let (first, second) = (Registry::start().await, Registry::start().await);
    let image = second.image("app", "1", &Image::new());
    let urls = [first.url(), second.url()];
    first.stop().await;
    let cachalot = Cachalot::over_endpoints(&urls, ALWAYS_ASK).await;
    for _ in 0..5 {
        let answer = cachalot.get(TAG).await;
        assert_eq!((answer.status, &answer.body, answer.header("warning")), (200, &image.bytes, ""));
    }
    let retries = r#"cachalot_upstream_retries_total{reason="connect",upstream="registry.test"}"#;
    assert_eq!(cachalot.metric(retries), 1, "the first question found out, for all that followed");
    assert_eq!(cachalot.metric(r#"cachalot_upstream_available{upstream="registry.test"}"#), 1);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_store_of_blobs_that_is_down_is_no_outage_of_its_registry() {
    for (name, fault) in
        [("it is gone", None), ("it is silent", Some(Fault::Hold)), ("it fails", Some(Fault::Status(503, "")))]
    {
        let (registry, store) = (Registry::start().await, Registry::start().await);
        let image = registry.image("app", "1", &Image::new().layer(Content::generated(1, 10 * KIB)));
        registry.fault(Match::path("/blobs/"), Fault::redirect_to(&store)).always();
        match fault {
            Some(fault) => drop(store.fault(Match::any(), fault).always()),
            None => store.stop().await,
        }
        let upstream = "tag_ttl = \"0s\"\nheader_timeout = \"2s\"\nprefetch = \"off\"";
        let cachalot = Cachalot::configured(&registry, More::upstream(upstream)).await;
        for _ in 0..3 {
            let blob = cachalot.get(&format!("/v2/app/blobs/{}", image.layer(0))).await;
            assert!(matches!(blob.status, 502 | 504), "{name}: {}", blob.status);
        }
        let tag = cachalot.get(TAG).await;
        assert_eq!((tag.status, tag.header("warning"), &tag.body), (200, "", &image.bytes), "{name}");
        assert_eq!(cachalot.metric(r#"cachalot_upstream_available{upstream="registry.test"}"#), 1, "{name}");
        store.release();
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_silent_upstream_never_holds_a_client_beyond_its_budget() {
    let registry = Registry::start().await;
    registry.image("app", "1", &Image::new());
    registry.fault(Match::any(), Fault::Hold).always();
    let cachalot = Cachalot::configured(&registry, More::upstream("header_timeout = \"1s\"")).await;
    let answer = cachalot.get(TAG).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (504, "UNAVAILABLE"), "P-105, P-124");
    let asked = registry.requests().len();
    let again = cachalot.get(TAG).await;
    assert_eq!((again.status, again.header("retry-after")), (504, "1"), "nobody queues for who does not answer");
    assert_eq!((registry.requests().len(), asked), (1, 1));
    registry.clear_faults();
    registry.release();
    cachalot.finish().await;
}

#[tokio::test]
async fn immutable_tags_are_asked_about_once_also_after_a_restart() {
    let more = More { upstream: "tag_ttl = \"0s\"\nimmutable_tags = [\"v*\"]", ..More::default() };
    let registry = Registry::start().await;
    let image = registry.image("app", "v1.2", &Image::new());
    registry.image("app", "latest", &Image::new());
    let mut cachalot = Cachalot::configured(&registry, more).await;
    for _ in 0..2 {
        for _ in 0..3 {
            assert_eq!(cachalot.get("/v2/app/manifests/v1.2").await.body, image.bytes);
            assert_eq!(cachalot.get("/v2/app/manifests/latest").await.body, image.bytes);
        }
        cachalot = cachalot.restart(&registry, more).await;
    }
    assert_eq!((registry.heads("/v1.2").len(), registry.heads("/latest").len()), (1, 6));
    cachalot.finish().await;
}
