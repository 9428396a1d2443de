//! What an operator decides about clients, repositories and addresses, and that it can be changed while the process runs.

use bytes::Bytes;
use cachalot::oci::Digest;
use cachalot::settings::Settings;

use crate::harness::{Cachalot, More, Open, settings};
use crate::registry::{Content, Fault, Image, KIB, MIB, Match, Registry};

fn new_settings(cachalot: &Cachalot, registry: &Registry, more: More<'_>) -> Settings {
    settings(cachalot.store(), &registry.url(), more)
}

#[tokio::test]
async fn repositories_are_allowed_and_denied_by_patterns_without_asking() {
    let registry = Registry::start().await;
    for repository in ["team/app", "team/secret/app", "other/app"] {
        registry.image(repository, "1", &Image::new());
    }
    let more = More::upstream("allow = [\"team/**\"]\ndeny = [\"team/secret/*\"]\nprefetch = \"off\"");
    let cachalot = Cachalot::configured(&registry, more).await;
    assert_eq!(cachalot.get("/v2/team/app/manifests/1").await.status, 200);
    let asked = registry.requests().len();
    for repository in ["team/secret/app", "other/app"] {
        for path in [format!("/v2/{repository}/manifests/1"), format!("/v2/{repository}/tags/list?ns=registry.test")] {
            let answer = cachalot.get(&path).await;
            assert_eq!((answer.status, answer.error_code().as_str()), (403, "DENIED"), "{path}");
        }
    }
    assert_eq!(registry.requests().len(), asked);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_client_that_asks_too_often_waits_or_is_sent_away_and_others_are_not() {
    let registry = Registry::start().await;
    registry.image("app", "1", &Image::new());
    let sections = "[clients]\nrate = 10\ntrusted_proxies = [\"127.0.0.0/8\"]";
    let cachalot = Cachalot::configured(&registry, More { sections, ..More::default() }).await;
    let ask = async |client: &str| cachalot.send("GET", "/v2/app/manifests/1", &[("x-forwarded-for", client)]).await;
    let herd = futures_util::future::join_all((0..100).map(|_| ask("192.0.2.1")));
    let (answers, other) = tokio::join!(herd, ask("192.0.2.2"));
    assert_eq!(other.status, 200);
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((50..=70).contains(&served), "ten at once and ten a second for 5 s: {served}");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!((answer.status, answer.error_code().as_str()), (503, "UNAVAILABLE"), "S-37");
        assert!(!answer.header("retry-after").is_empty());
    }
    let shed = cachalot.metric(r#"cachalot_http_requests_shed_total{reason="quota"}"#);
    assert_eq!(shed, 100 - served as u64);
    cachalot.finish().await;
}

#[tokio::test]
async fn one_client_cannot_have_all_downloads_and_others_have_theirs() {
    let registry = Registry::start().await;
    let blobs: Vec<_> = (0..4).map(|seed| registry.with_blob(Content::generated(seed, MIB))).collect();
    for blob in &blobs {
        registry.fault(Match::blob(blob), Fault::StallAfter(64 * KIB));
    }
    let sections = "[fills]\nmax = 3\n[clients]\nfills = 2\ntrusted_proxies = [\"127.0.0.0/8\"]";
    let cachalot = Cachalot::configured(&registry, More { sections, ..More::default() }).await;
    let open = async |client: &str, blob: usize| {
        let path = format!("/v2/app/blobs/{}", blobs[blob]);
        let mut open = cachalot.open("GET", &path, &[("x-forwarded-for", client)]).await;
        open.read(1000).await.unwrap();
        open
    };
    let greedy = [open("192.0.2.1", 0).await, open("192.0.2.1", 1).await];
    let path = format!("/v2/app/blobs/{}", blobs[2]);
    let (third, other) =
        tokio::join!(cachalot.send("GET", &path, &[("x-forwarded-for", "192.0.2.1")]), open("192.0.2.2", 3));
    assert_eq!((third.status, third.error_code().as_str()), (503, "UNAVAILABLE"), "S-35");
    assert_eq!(registry.gets(&format!("/blobs/{}", blobs[2])).len(), 0, "S-35");
    // What another client has started is for everybody.
    let joined = open("192.0.2.1", 3).await;
    registry.release();
    for body in greedy.into_iter().chain([other, joined]) {
        assert!(body.finish().await.is_complete);
    }
    registry.clear_faults();
    cachalot.finish().await;
}

#[tokio::test]
async fn one_client_that_pulls_everything_does_not_flush_what_several_want() {
    let registry = Registry::start().await;
    let [wanted, scanned] = [0..6, 6..40].map(|seeds| {
        let digests = seeds.map(|seed| registry.with_blob(Content::generated(seed, MIB)));
        digests.collect::<Vec<_>>()
    });
    let more = More {
        store: "capacity = \"12MiB\"\nmanifests = \"2MiB\"\nmemory = \"0\"",
        sections: "[clients]\ntrusted_proxies = [\"127.0.0.0/8\"]",
        ..More::default()
    };
    let cachalot = Cachalot::configured(&registry, more).await;
    let pull = async |client: &str, digest: &Digest| {
        let path = format!("/v2/app/blobs/{digest}");
        let answer = cachalot.send("GET", &path, &[("x-forwarded-for", client)]).await;
        assert!(answer.status == 200 && answer.is_complete);
    };
    for digest in &wanted {
        for client in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            pull(client, digest).await;
            while cachalot.fills_under_way() > 0 {
                tokio::task::yield_now().await;
            }
        }
    }
    for digest in scanned.iter().chain(&scanned) {
        pull("192.0.2.66", digest).await;
    }
    for digest in &wanted {
        pull("192.0.2.1", digest).await;
        assert_eq!(registry.gets(&format!("/blobs/{digest}")).len(), 1, "S-36");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn an_address_that_an_upstream_may_not_lead_to_is_not_dialled_and_the_refusal_says_why() {
    let registry = Registry::start().await;
    registry.image("app", "1", &Image::new());
    let cachalot = Cachalot::configured(&registry, More::upstream("internal = false")).await;
    let answer = cachalot.get("/v2/app/manifests/1").await;
    assert_eq!(registry.connections(), 0, "S-25");
    assert_eq!((answer.status, answer.error_code().as_str()), (502, "UNAVAILABLE"));
    let words = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(
        words.contains("is not dialled") && !words.contains("this machine"),
        "what more there is, is in the log: {words}"
    );
    cachalot.finish().await;
    // Also an internal upstream does not lead us to the metadata service, by whatever spelling.
    for location in
        ["http://169.254.169.254/latest", "http://[fd00:ec2::254]/", "http://2852039166/", "http://[::ffff:a9fe:a9fe]/"]
    {
        registry.fault(Match::manifest("1"), Fault::RedirectExactly(location.to_owned())).always();
        let cachalot = Cachalot::over(&registry).await;
        let answer = cachalot.get("/v2/app/manifests/1").await;
        assert_eq!(answer.status, 502, "S-25, S-30: {location}");
        assert!(String::from_utf8_lossy(&answer.body).contains("is not dialled"), "{location}: {answer:?}");
        registry.clear_faults();
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn upstreams_come_and_go_without_a_restart_and_fills_that_run_finish() {
    let (old, new) = (Registry::start().await, Registry::start().await);
    let content = Content::generated(1, 2 * MIB);
    let digest = old.with_blob(content.clone());
    let image = new.image("app", "1", &Image::new());
    old.fault(Match::blob(&digest), Fault::StallAfter(64 * KIB));
    let cachalot = Cachalot::over(&old).await;
    assert_eq!(cachalot.get("/v2/new.test/app/manifests/1").await.status, 404);
    let mut open = cachalot.open("GET", &format!("/v2/app/blobs/{digest}"), &[]).await;
    assert_eq!(open.read(100).await.unwrap(), content.read(0, 100));

    let sections = format!("[[upstream]]\nname = \"new.test\"\nendpoints = [\"{}\"]\nproxy = \"none\"\n", new.url());
    let more = More { sections: &sections, ..More::default() };
    assert_eq!(cachalot.apply(&new_settings(&cachalot, &new, more)), Vec::<String>::new());
    assert_eq!(cachalot.get("/v2/new.test/app/manifests/1").await.body, image.bytes);
    assert_eq!(cachalot.get("/v2/app/manifests/1").await.body, image.bytes, "registry.test is elsewhere now");
    assert_eq!(cachalot.metric(r#"cachalot_upstream_available{upstream="new.test"}"#), 1);
    old.release();
    let rest = open.finish().await;
    assert!(rest.is_complete && rest.body == content.read(100, 2 * MIB - 100));
    assert_eq!(old.bytes_sent("/blobs/"), 2 * MIB);

    new.stop().await;
    assert_eq!(cachalot.get("/v2/new.test/app/manifests/2").await.status, 502);
    assert_eq!(cachalot.metric(r#"cachalot_upstream_available{upstream="new.test"}"#), 0);
    assert_eq!(cachalot.apply(&new_settings(&cachalot, &new, More::default())), Vec::<String>::new());
    assert_eq!(cachalot.get("/v2/new.test/app/manifests/1").await.status, 404, "S-20");
    assert_eq!(
        cachalot.metric(r#"cachalot_upstream_available{upstream="new.test"}"#),
        1,
        "nobody waits for it any more"
    );
    cachalot.finish().await;
}

#[tokio::test]
async fn an_upstream_that_did_not_change_keeps_its_connections_and_what_needs_a_restart_is_told() {
    let registry = Registry::start().await;
    registry.image("app", "1", &Image::new());
    let cachalot = Cachalot::over(&registry).await;
    assert_eq!(cachalot.get("/v2/app/manifests/1").await.status, 200);
    let connections = registry.connections();
    let more = More { sections: "[log]\naccess = false\n[clients]\nrate = 1000", ..More::default() };
    assert_eq!(cachalot.apply(&new_settings(&cachalot, &registry, more)), ["log.access"]);
    registry.image("app", "2", &Image::new().annotation("a", "b"));
    assert_eq!(cachalot.get("/v2/app/manifests/2").await.status, 200);
    assert_eq!(registry.connections(), connections);
    cachalot.finish().await;
}

#[tokio::test]
async fn an_upstream_that_leads_back_to_the_cache_is_told_at_once() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    let own = format!(
        "[[upstream]]\nname = \"own.test\"\nendpoints = [\"http://{}\"]\nproxy = \"none\"\n",
        cachalot.address()
    );
    cachalot.apply(&new_settings(&cachalot, &registry, More { sections: &own, ..More::default() }));
    let answer = cachalot.get("/v2/own.test/own.test/own.test/app/manifests/1").await;
    assert_eq!((answer.status, registry.requests().len()), (502, 0), "P-119");
    let words = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(words.contains("508") && words.contains("leads back to a cache"), "{words}");
    cachalot.finish().await;
}

#[tokio::test]
async fn what_an_upstream_was_seen_to_do_is_exported() {
    let registry = Registry::start().await;
    let layer = registry.with_blob(Content::generated(1, 5 * MIB));
    let image = registry.image("app", "1", &Image::new());
    registry.fault(Match::path("/blobs/").head(), Fault::RefuseHead(401)).always();
    let cachalot = Cachalot::over(&registry).await;
    let capable = async || {
        let metrics = Open::send(cachalot.admin_address(), "GET", "/metrics", &[], Bytes::new()).await.finish().await;
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        let lines = text.lines().filter(|line| line.starts_with("cachalot_upstream_capable{")).map(str::to_owned);
        lines.filter(|line| line.contains("registry.test")).collect::<Vec<_>>()
    };
    assert_eq!(capable().await, Vec::<String>::new(), "nothing is known yet");
    assert_eq!(cachalot.head(&format!("/v2/app/blobs/{layer}")).await.status, 200);
    assert!(cachalot.get(&format!("/v2/app/blobs/{layer}")).await.is_complete);
    assert_eq!(cachalot.get(&format!("/v2/app/referrers/{}", image.digest)).await.status, 200);
    let series = |capability: &str, value: u8| {
        format!(r#"cachalot_upstream_capable{{capability="{capability}",upstream="registry.test"}} {value}"#)
    };
    assert_eq!(capable().await, [series("blob_head", 0), series("ranges", 1), series("referrers", 0)], "U-70");
    cachalot.finish().await;
}

#[tokio::test]
async fn readiness_tells_of_the_configuration() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    let ready = Open::send(cachalot.admin_address(), "GET", "/readyz", &[], Bytes::new()).await.finish().await;
    let told: serde_json::Value = serde_json::from_slice(&ready.body).unwrap();
    assert_eq!(told["config"]["ok"], true);
    assert_eq!(cachalot.metric("cachalot_config_last_reload_successful"), 1);
    assert!(cachalot.metric("cachalot_config_last_reload_success_timestamp_seconds") > 1_700_000_000);
    cachalot.finish().await;
}
