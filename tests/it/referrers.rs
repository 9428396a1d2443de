//! Lists of referrers: from the upstream's API, its fallback tags, and what has passed through; whole, in order, and never falsely empty.

use cachalot::oci::{Digest, MediaType};
use futures_util::future::join_all;
use serde_json::Value;

use crate::harness::{Answer, Cachalot, More};
use crate::registry::{Fault, Image, Match, Registry};

const API: &str = "/referrers/";
const SIGNATURE: &str = "signature/example";
const SBOM: &str = "sbom/example";

/// A registry with an image `app:1`.
async fn registry() -> (Registry, Digest) {
    let registry = Registry::start().await;
    let subject = registry.image("app", "1", &Image::new()).digest;
    (registry, subject)
}

fn path(subject: &Digest) -> String {
    format!("/v2/app/referrers/{subject}")
}

#[track_caller]
fn entries(answer: &Answer) -> Vec<Value> {
    assert_eq!((answer.status, answer.header("content-type")), (200, MediaType::OCI_INDEX), "P-68, P-69");
    assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "P-86");
    let index: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (&index["schemaVersion"], &index["mediaType"]),
        (&Value::from(2), &Value::from(MediaType::OCI_INDEX)),
        "P-70"
    );
    index["manifests"].as_array().expect("P-70: not null").clone()
}

#[track_caller]
fn digests(answer: &Answer) -> Vec<String> {
    entries(answer).iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

fn texts(digests: &[Digest]) -> Vec<String> {
    digests.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn the_upstreams_list_is_asked_for_once_and_all_its_pages_are_one() {
    let (registry, subject) = registry().await;
    registry.list_referrers(2);
    let mut attached = texts(&[1, 2, 3, 4, 5].map(|n| registry.attach("app", &subject, SIGNATURE, &n.to_string())));
    attached.sort();
    let cachalot = Cachalot::over(&registry).await;
    let asked = path(&subject);
    let answers = join_all((0..50).map(|_| cachalot.get(&asked))).await;
    assert_eq!(registry.gets(API).len(), 3, "P-84: three pages, for all clients together");
    for answer in &answers {
        assert_eq!(digests(answer), attached, "P-85");
        assert_eq!((answer.header("link"), answer.header("oci-filters-applied")), ("", ""), "P-81");
    }
    assert_eq!(entries(&answers[0])[0]["artifactType"], SIGNATURE);
    assert_eq!(cachalot.get(&path(&subject)).await.header("cache-status"), "cachalot; hit");
    assert_eq!(cachalot.head(&path(&subject)).await.status, 200);
    cachalot.finish().await;
}

#[tokio::test]
async fn without_the_api_the_fallback_tag_tells_and_what_it_leaves_out_is_mended() {
    for says_all in [true, false] {
        let (registry, subject) = registry().await;
        let attached = [(SIGNATURE, "a"), (SBOM, "b")].map(|(kind, name)| registry.attach("app", &subject, kind, name));
        registry.fallback("app", &subject, &attached, says_all);
        let cachalot = Cachalot::over(&registry).await;
        let answer = cachalot.get(&path(&subject)).await;
        assert_eq!(digests(&answer), texts(&attached), "P-76");
        assert_eq!(entries(&answer)[1]["artifactType"], SBOM, "P-80: {says_all}");
        assert_eq!(entries(&answer)[1]["annotations"]["name"], "b", "P-80: {says_all}");
        let looked = attached.iter().filter(|digest| !registry.gets(&digest.to_string()).is_empty()).count();
        assert_eq!(looked, if says_all { 0 } else { 2 }, "only what says too little is looked at");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn filters_are_a_union_and_told_of() {
    let (registry, subject) = registry().await;
    let kinds = [SIGNATURE, SBOM, "other/example"];
    let attached = kinds.map(|kind| registry.attach("app", &subject, kind, ""));
    registry.fallback("app", &subject, &attached, true);
    let cachalot = Cachalot::over(&registry).await;
    for (query, expected, told) in [
        ("", &attached[..], ""),
        ("?artifactType=signature/example", &attached[..1], "artifactType"),
        ("?artifactType=sbom%2Fexample&artifactType=signature%2Fexample", &attached[..2], "artifactType"),
        ("?artifactType=none", &[], "artifactType"),
        ("?n=1&digest=x", &attached[..], ""),
    ] {
        let answer = cachalot.get(&format!("{}{query}", path(&subject))).await;
        assert_eq!(
            (digests(&answer), answer.header("oci-filters-applied")),
            (texts(expected), told),
            "P-81, P-82, P-83: {query}"
        );
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn what_only_the_fallback_tag_knows_comes_before_the_upstreams_list_if_it_names_the_subject() {
    let (registry, subject) = registry().await;
    registry.list_referrers(100);
    let listed = registry.attach("app", &subject, SIGNATURE, "listed");
    let old = registry.attach("app", &subject, SBOM, "old");
    registry.hide_from_lists(old);
    let stranger = registry.image("app", "2", &Image::new().annotation("a", "b")).digest;
    let gone = Digest::sha256(b"gone");
    registry.fallback("app", &subject, &[old, listed, stranger, gone], true);
    let cachalot = Cachalot::over(&registry).await;
    assert_eq!(digests(&cachalot.get(&path(&subject)).await), texts(&[old, listed]), "P-77, P-91a");
    cachalot.finish().await;
}

#[tokio::test]
async fn what_stands_under_the_fallback_tag_and_is_no_list_is_ignored() {
    let (registry, subject) = registry().await;
    let tag = registry.fallback("app", &subject, &[], true);
    let image = registry.image("app", &tag, &Image::new().annotation("a", "b"));
    let cachalot = Cachalot::over(&registry).await;
    assert_eq!(digests(&cachalot.get(&path(&subject)).await), texts(&[]), "P-79: an image");
    assert_eq!(registry.gets(&image.digest.to_string()).len(), 1);
    let many = vec!["0"; 1_000_000].join(",");
    registry.manifest(
        "app",
        Some(&tag),
        format!("{{\"mediaType\":\"{}\",\"manifests\":[{many}]}}", MediaType::OCI_INDEX),
        MediaType::OCI_INDEX,
    );
    let cachalot = cachalot.restart(&registry, More::default()).await;
    assert_eq!(digests(&cachalot.get(&path(&subject)).await), texts(&[]), "P-79: a million entries");
    cachalot.finish().await;
}

#[tokio::test]
async fn an_empty_list_is_not_remembered() {
    let (registry, subject) = registry().await;
    let cachalot = Cachalot::over(&registry).await;
    assert_eq!(digests(&cachalot.get(&path(&subject)).await), texts(&[]), "P-68");
    let tag = subject.to_string().replace(':', "-");
    assert_eq!(cachalot.get(&format!("/v2/app/manifests/{tag}")).await.status, 404);
    let signature = registry.attach("app", &subject, SIGNATURE, "");
    registry.fallback("app", &subject, &[signature], true);
    assert_eq!(digests(&cachalot.get(&path(&subject)).await), texts(&[signature]), "P-88");
    assert_eq!(cachalot.get(&format!("/v2/app/manifests/{tag}")).await.status, 200, "P-88: by tag as well");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_failure_is_never_an_empty_list() {
    let rows = [
        ("the API fails", Match::path(API), Fault::Status(500, "")),
        ("the API breaks off", Match::path(API), Fault::CutAfter(10)),
        ("the API lists nonsense", Match::path(API), Fault::Status(429, "")),
        ("the fallback tag fails", Match::path("/manifests/sha256-"), Fault::Status(503, "")),
    ];
    for (name, scope, fault) in rows {
        let (registry, subject) = registry().await;
        registry.list_referrers(100);
        registry.attach("app", &subject, SIGNATURE, "");
        registry.fault(scope, fault).always();
        let cachalot = Cachalot::over(&registry).await;
        let answer = cachalot.get(&path(&subject)).await;
        assert!(answer.status >= 500, "P-87: {name}: {}", answer.status);
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn answers_that_mean_there_is_no_api_lead_to_the_fallback_tag() {
    for fault in [
        Fault::Status(400, ""),
        Fault::Status(404, "page not found"),
        Fault::Status(405, ""),
        Fault::Status(406, ""),
        Fault::Status(501, ""),
        Fault::HtmlPage,
        Fault::Status(200, "{}"),
    ] {
        let (registry, subject) = registry().await;
        let signature = registry.attach("app", &subject, SIGNATURE, "");
        registry.fallback("app", &subject, &[signature], true);
        registry.fault(Match::path(API), fault.clone()).always();
        let cachalot = Cachalot::over(&registry).await;
        assert_eq!(digests(&cachalot.get(&path(&subject)).await), texts(&[signature]), "P-76: {fault:?}");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn when_the_upstream_is_gone_the_last_list_and_what_passed_through_are_told_with_a_warning() {
    let (registry, subject) = registry().await;
    let listed = registry.attach("app", &subject, SIGNATURE, "listed");
    let passed = registry.attach("app", &subject, SBOM, "passed");
    registry.fallback("app", &subject, &[listed], true);
    let cachalot = Cachalot::configured(&registry, More::upstream("tag_ttl = \"0s\"")).await;
    assert_eq!(digests(&cachalot.get(&path(&subject)).await), texts(&[listed]));
    let leaf = format!("/v2/app/referrers/{listed}");
    assert_eq!(digests(&cachalot.get(&leaf).await), texts(&[]));
    // Known only from passing through: a manifest whose subject does not exist (P-75), and one that no list tells of.
    let absent = Digest::sha256(b"absent");
    let orphan = registry.attach("app", &absent, SIGNATURE, "orphan");
    for digest in [passed, orphan] {
        assert_eq!(cachalot.get(&format!("/v2/app/manifests/{digest}")).await.status, 200);
    }
    assert_eq!(digests(&cachalot.get(&path(&subject)).await), texts(&[passed, listed]), "the upstream still has it");
    assert_eq!(registry.heads(&passed.to_string()).len(), 1);
    registry.stop().await;
    let cachalot = cachalot.restart(&registry, More::upstream("tag_ttl = \"0s\"")).await;
    for (name, subject, expected) in
        [("listed", subject, vec![passed, listed]), ("a leaf", listed, vec![]), ("never listed", absent, vec![orphan])]
    {
        let answer = cachalot.get(&format!("/v2/app/referrers/{subject}")).await;
        assert_eq!(digests(&answer), texts(&expected), "P-89: {name}");
        assert!(answer.header("warning").starts_with("299 "), "P-89: {name}");
        assert!(answer.header("cache-status").contains("stale"), "{name}: {}", answer.header("cache-status"));
    }
    let unknown = cachalot.get(&path(&Digest::sha256(b"unknown"))).await;
    assert!(unknown.status >= 500, "P-87: {}", unknown.status);
    let other = cachalot.get(&format!("/v2/other/referrers/{absent}")).await;
    assert!(other.status >= 500, "P-90: referrers do not cross repositories");
    let probe = cachalot.get(&path(&Digest::Sha256([0; 32]))).await;
    assert_eq!(digests(&probe), texts(&[]), "P-73");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_list_that_was_denied_is_not_told_when_the_upstream_fails_later() {
    let (registry, subject) = registry().await;
    registry.list_referrers(100);
    let signature = registry.attach("app", &subject, SIGNATURE, "");
    let cachalot = Cachalot::configured(&registry, More::upstream("tag_ttl = \"0s\"")).await;
    assert_eq!(digests(&cachalot.get(&path(&subject)).await), texts(&[signature]));
    for (fault, expected) in [(Fault::Status(403, ""), 403), (Fault::Status(503, ""), 502)] {
        registry.clear_faults();
        registry.fault(Match::any(), fault.clone()).always();
        assert_eq!(cachalot.get(&path(&subject)).await.status, expected, "P-139, S-7: {fault:?}");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn what_the_upstream_has_lost_is_told_no_more() {
    let (registry, subject) = registry().await;
    let passed = registry.attach("app", &subject, SBOM, "passed");
    let cachalot = Cachalot::over(&registry).await;
    assert_eq!(cachalot.get(&format!("/v2/app/manifests/{passed}")).await.status, 200);
    assert_eq!(digests(&cachalot.get(&path(&subject)).await), texts(&[passed]));
    registry.remove_manifest("app", &passed);
    let cachalot = cachalot.restart(&registry, More::upstream("tag_ttl = \"0s\"")).await;
    assert_eq!(digests(&cachalot.get(&path(&subject)).await), texts(&[]));
    cachalot.finish().await;
}

#[tokio::test]
async fn bad_questions_are_told_apart() {
    let (registry, _) = registry().await;
    let cachalot = Cachalot::over(&registry).await;
    for (path, status, code) in
        [("/v2/app/referrers/sha256:abc", 400, "DIGEST_INVALID"), ("/v2/app/referrers/latest", 400, "DIGEST_INVALID")]
    {
        let answer = cachalot.get(path).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "P-71: {path}");
    }
    let unknown = cachalot.get(&format!("/v2/unknown/referrers/{}", Digest::sha256(b"x"))).await;
    assert_eq!(digests(&unknown), texts(&[]), "P-72");
    assert_eq!(registry.requests().heads("/manifests/sha256-").len(), 1);
    cachalot.finish().await;
}

#[tokio::test]
async fn an_index_that_was_lost_is_made_again_by_what_passes() {
    let (registry, subject) = registry().await;
    let signature = registry.attach("app", &subject, SIGNATURE, "");
    let cachalot = Cachalot::over(&registry).await;
    let manifest = format!("/v2/app/manifests/{signature}");
    assert_eq!(cachalot.get(&manifest).await.status, 200);
    let stopped = cachalot.stop().await;
    std::fs::remove_file(stopped.store().join("ledger.redb")).unwrap();
    let cachalot = stopped.start(&registry, More::default()).await;
    assert_eq!(cachalot.get(&manifest).await.status, 200);
    registry.stop().await;
    assert_eq!(digests(&cachalot.get(&path(&subject)).await), texts(&[signature]), "P-90");
    cachalot.finish().await;
}

#[tokio::test]
async fn an_evicted_manifest_is_listed_no_more() {
    let (registry, subject) = registry().await;
    let signatures: Vec<_> =
        (0..40).map(|n| registry.attach("app", &subject, SIGNATURE, &format!("{n} {}", "x".repeat(40_000)))).collect();
    let more = More { store: "capacity = \"8MiB\"\nmanifests = \"1MiB\"\nmemory = \"0\"", ..More::default() };
    let cachalot = Cachalot::configured(&registry, more).await;
    for signature in &signatures {
        assert_eq!(cachalot.get(&format!("/v2/app/manifests/{signature}")).await.status, 200);
    }
    registry.stop().await;
    let listed = digests(&cachalot.get(&path(&subject)).await);
    assert!(!listed.is_empty() && listed.len() < 40, "those that are stored: {}", listed.len());
    for digest in &listed {
        assert_eq!(cachalot.get(&format!("/v2/app/manifests/{digest}")).await.status, 200, "{digest}");
    }
    cachalot.finish().await;
}
