//! Which requests are understood, and what the answers look like (P-1…P-53, P-102…P-121).

use cachalot::oci::{Digest, MediaType};

use crate::harness::{Cachalot, More};
use crate::registry::{Content, Fault, Image, Match, Registry};

#[tokio::test]
async fn every_shape_of_a_request_reaches_the_same_image() {
    let registry = Registry::start().await;
    let image = registry.image("library/alpine", "3.20", &Image::new());
    let cachalot = Cachalot::over(&registry).await;
    for (name, path, headers, namespace) in [
        ("ns (P-111)", "/v2/library/alpine/manifests/3.20?ns=registry.test", vec![], "registry.test"),
        ("ns of an alias (P-112)", "/v2/library/alpine/manifests/3.20?ns=index.docker.io", vec![], "index.docker.io"),
        ("prefix (P-1)", "/v2/registry.test/library/alpine/manifests/3.20", vec![], ""),
        ("library/ is inserted (P-117)", "/v2/docker.io/alpine/manifests/3.20", vec![], ""),
        ("prefix before /v2/ (P-1)", "/registry.test/v2/library/alpine/manifests/3.20", vec![], ""),
        ("default upstream (P-116)", "/v2/library/alpine/manifests/3.20", vec![], ""),
        ("virtual host", "/v2/library/alpine/manifests/3.20", vec![("host", "mirror.test")], ""),
        ("doubled slash (P-11)", "//v2/library/alpine/manifests/3.20", vec![], ""),
        ("percent-encoded (P-10)", "/v2/library/alpine/manifests/3%2E20", vec![], ""),
    ] {
        let answer = cachalot.send("GET", path, &headers).await;
        assert_eq!(answer.status, 200, "{name}: {:?}", answer.body);
        assert_eq!(answer.body, image.bytes, "{name}, P-22");
        assert_eq!(answer.header("oci-namespace"), namespace, "{name}, P-113");
    }
    assert_eq!(
        registry.gets("/manifests/").len(),
        1,
        "the other upstream is asked by HEAD whether it has the same bytes"
    );
    assert_eq!(registry.heads(&image.digest.to_string()).len(), 1);
    cachalot.finish().await;
}

#[tokio::test]
async fn what_is_refused_is_refused_with_the_right_code_and_without_asking() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    let digest = format!("sha256:{}", "0".repeat(64));
    for (id, method, path, status, code) in [
        ("P-114", "GET", "/v2/library/alpine/manifests/1?ns=evil.test".to_owned(), 404, "NAME_UNKNOWN"),
        ("P-114", "GET", "/v2/evil.test/library/alpine/manifests/1".into(), 404, "NAME_UNKNOWN"),
        ("P-115", "GET", "/v2/docker.io/library/alpine/manifests/1?ns=registry.test".into(), 400, "NAME_INVALID"),
        ("S-21", "GET", "/v2/alpine/manifests/1?ns=docker.io&ns=registry.test".into(), 400, "NAME_INVALID"),
        ("P-3", "GET", "/v2/UPPER/manifests/1".into(), 400, "NAME_INVALID"),
        ("S-19", "GET", "/v2/a/../b/manifests/1".into(), 400, "NAME_INVALID"),
        ("P-5", "GET", format!("/v2/app/manifests/{}", "a".repeat(135)), 404, "MANIFEST_UNKNOWN"),
        ("P-9", "GET", "/v2/app/manifests/sha256:baddigeststring".into(), 400, "DIGEST_INVALID"),
        ("P-9", "GET", "/v2/app/blobs/sha256:baddigeststring".into(), 400, "DIGEST_INVALID"),
        ("P-8", "GET", "/v2/app/blobs/blake3:00".into(), 400, "DIGEST_INVALID"),
        ("P-12", "GET", "/v2/nothing".into(), 404, "UNSUPPORTED"),
        ("P-14", "GET", "/v2/_catalog".into(), 404, "UNSUPPORTED"),
        ("P-148", "PUT", "/v2/app/manifests/1".into(), 405, "UNSUPPORTED"),
        ("P-148", "POST", "/v2/app/blobs/uploads/".into(), 405, "UNSUPPORTED"),
        ("P-148", "DELETE", format!("/v2/app/blobs/{digest}"), 405, "UNSUPPORTED"),
    ] {
        let answer = cachalot.send(method, &path, &[]).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{id}: {method} {path}");
        assert_eq!(answer.header("content-type"), "application/json", "{id}, P-102");
        assert_eq!(answer.header("allow"), if status == 405 { "GET, HEAD" } else { "" }, "{id}, P-12");
    }
    assert_eq!(registry.requests().len(), 0);
    cachalot.finish().await;
}

#[tokio::test]
async fn the_base_endpoint_is_answered_locally() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    for path in ["/v2/", "/v2", "//v2/"] {
        for method in ["GET", "HEAD"] {
            let answer = cachalot.send(method, path, &[]).await;
            assert_eq!(answer.status, 200, "{method} {path}, P-11, P-16, P-20");
            assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0", "P-19");
            assert_eq!(answer.header("x-registry-supports-signatures"), "", "P-21");
            assert_eq!(answer.header("cache-status"), "cachalot; detail=local", "P-147");
        }
    }
    assert_eq!(registry.requests().len(), 0, "P-16");
    cachalot.finish().await;
}

#[tokio::test]
async fn manifests_carry_the_three_headers_on_get_and_head_cold_and_warm() {
    for by_tag in [true, false] {
        let registry = Registry::start().await;
        let image = registry.image("app", "1", &Image::new());
        let reference = if by_tag { "1".to_owned() } else { image.digest.to_string() };
        let path = format!("/v2/app/manifests/{reference}");
        let cachalot = Cachalot::over(&registry).await;
        for (state, method) in [("cold", "HEAD"), ("cold", "GET"), ("warm", "HEAD"), ("warm", "GET")] {
            let answer = cachalot.send(method, &path, &[]).await;
            let what = format!("{state} {method} {path}, P-23, P-24");
            assert_eq!(answer.status, 200, "{what}");
            assert_eq!(answer.header("content-type"), image.media_type, "{what}");
            assert_eq!(answer.header("content-length"), image.bytes.len().to_string(), "{what}");
            assert_eq!(answer.header("docker-content-digest"), image.digest.to_string(), "{what}");
            assert_eq!(answer.body.is_empty(), method == "HEAD", "{what}");
        }
        assert_eq!(registry.gets("/manifests/").len(), 1, "{path}: one GET, whatever the order");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_head_of_a_cold_blob_downloads_nothing() {
    let registry = Registry::start().await;
    let digest = registry.with_blob(Content::generated(1, 5000));
    let cachalot = Cachalot::over(&registry).await;
    let head = cachalot.head(&format!("/v2/app/blobs/{digest}")).await;
    assert_eq!((head.status, head.header("content-length")), (200, "5000"), "P-43, P-51");
    assert_eq!((registry.gets("/blobs/").len(), registry.heads("/blobs/").len()), (0, 1));
    cachalot.finish().await;
}

#[tokio::test]
async fn a_digest_of_one_kind_is_absent_as_the_other() {
    let registry = Registry::start().await;
    let image = registry.image("app", "1", &Image::new());
    let cachalot = Cachalot::over(&registry).await;
    assert_eq!(cachalot.get(&format!("/v2/app/manifests/{}", image.digest)).await.status, 200);
    assert_eq!(cachalot.get(&format!("/v2/app/blobs/{}", image.config.digest())).await.status, 200);
    let as_blob = cachalot.get(&format!("/v2/app/blobs/{}", image.digest)).await;
    assert_eq!((as_blob.status, as_blob.error_code().as_str()), (404, "BLOB_UNKNOWN"), "P-48");
    let as_manifest = cachalot.get(&format!("/v2/app/manifests/{}", image.config.digest())).await;
    assert_eq!((as_manifest.status, as_manifest.error_code().as_str()), (404, "MANIFEST_UNKNOWN"), "P-48");
    cachalot.finish().await;
}

#[tokio::test]
async fn failures_of_the_upstream_are_told_so_that_the_client_does_the_right_thing_next() {
    for (id, fault, times, status, code) in [
        ("P-30", Fault::Status(404, ""), 1, 404, "BLOB_UNKNOWN"),
        ("P-104", Fault::Status(401, ""), 2, 403, "DENIED"),
        ("P-104", Fault::Status(403, "{}"), 1, 403, "DENIED"),
        ("P-105", Fault::Status(500, "<html>"), 3, 502, "UNAVAILABLE"),
        ("P-106", Fault::RateLimited { retry_after: Some("7") }, 1, 503, "UNAVAILABLE"),
        ("P-123", Fault::Gzip, 1, 502, "UNAVAILABLE"),
    ] {
        let registry = Registry::start().await;
        let digest = registry.with_blob(Content::generated(3, 100));
        registry.fault(Match::blob(&digest), fault.clone()).always();
        let cachalot = Cachalot::over(&registry).await;
        let answer = cachalot.get(&format!("/v2/app/blobs/{digest}")).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{id}: {fault:?}");
        assert_eq!(answer.header("www-authenticate"), "", "{id}");
        assert_eq!(answer.header("retry-after"), if status == 503 { "7" } else { "" }, "{id}");
        assert!(registry.gets("/blobs/").len() <= times, "{id}: {}", registry.gets("/blobs/").len());
        registry.clear_faults();
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_manifest_that_is_not_what_it_says_is_refused_and_not_kept() {
    for (id, fault, status) in [
        ("P-29", Fault::WrongBytes(20), 502),
        ("U-71", Fault::HtmlPage, 502),
        ("U-63: a missing type is derived from the document", Fault::NoContentType, 200),
    ] {
        let registry = Registry::start().await;
        let image = registry.image("app", "1", &Image::new());
        registry.fault(Match::manifest(image.digest).get(), fault);
        let cachalot = Cachalot::over(&registry).await;
        let path = format!("/v2/app/manifests/{}", image.digest);
        assert_eq!(cachalot.get(&path).await.status, status, "{id}");
        assert_eq!(cachalot.get(&path).await.body, image.bytes, "{id}");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_document_that_could_be_taken_for_two_things_is_never_served() {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    let empty = format!(r#"{{"mediaType":"a/b","digest":"sha256:{}","size":0}}"#, "0".repeat(64));
    for (id, content_type, document) in [
        (
            "P-25: header and body disagree",
            IMAGE,
            format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[]}}"#),
        ),
        (
            "S-11: both an index and an image",
            INDEX,
            format!(r#"{{"schemaVersion":2,"manifests":[],"config":{empty},"layers":[]}}"#),
        ),
        ("S-11: the structure of the other", IMAGE, r#"{"schemaVersion":2,"manifests":[]}"#.to_owned()),
        ("S-12: a key twice", INDEX, r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#.to_owned()),
    ] {
        let digest = registry.manifest("app", Some("1"), document, content_type);
        for attempt in 0..2 {
            let answer = cachalot.get(&format!("/v2/app/manifests/{digest}")).await;
            assert_eq!((answer.status, answer.error_code().as_str()), (502, "UNAVAILABLE"), "{id}, attempt {attempt}");
        }
        assert_eq!(registry.gets(&digest.to_string()).len(), 2, "{id}: nothing was kept");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn manifests_of_unknown_types_are_passed_on_as_they_are_and_kept() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    let thing = "application/vnd.acme.thing.v1+json";
    let document = r#"{ "mediaType":"application/vnd.acme.thing.v1+json",  "anything": [1, {"é": null}] }"#;
    let digest = registry.manifest("app", Some("thing"), document, thing);
    for reference in ["thing", "thing", &digest.to_string()] {
        let answer = cachalot.get(&format!("/v2/app/manifests/{reference}")).await;
        assert_eq!(
            (answer.header("content-type"), &answer.body[..]),
            (thing, document.as_bytes()),
            "P-39: {reference}"
        );
        assert_eq!(answer.header("docker-content-digest"), digest.to_string(), "P-39");
    }
    assert_eq!(registry.gets("/manifests/").len(), 1, "P-39");
    cachalot.finish().await;
}

#[tokio::test]
async fn schema_1_is_passed_on_and_not_kept() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    let signed = r#"{"schemaVersion":1,"name":"app","tag":"old","fsLayers":[],"history":[],"signatures":[{}]}"#;
    registry.manifest("app", Some("old"), signed, MediaType::SCHEMA1_SIGNED);
    for asked in 1..3 {
        let answer = cachalot.get("/v2/app/manifests/old").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, MediaType::SCHEMA1_SIGNED), "P-40");
        assert_eq!((&answer.body[..], registry.gets("/manifests/old").len()), (signed.as_bytes(), asked), "P-40");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn what_a_manifest_embeds_is_served_without_asking() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::configured(&registry, More::upstream("prefetch = \"layers\"")).await;
    let config = Digest::sha256(b"{}");
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    let document = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"a/b","digest":"{config}","size":2,"data":"e30="}},
            "layers":[{{"mediaType":"{foreign}","digest":"{}","size":1,"urls":["http://127.0.0.1:1/x"]}}]}}"#,
        MediaType::OCI_MANIFEST,
        Digest::sha256(b"elsewhere")
    );
    registry.manifest("app", Some("1"), document, MediaType::OCI_MANIFEST);
    assert_eq!(cachalot.get("/v2/app/manifests/1").await.status, 200);
    let blob = cachalot.get(&format!("/v2/app/blobs/{config}")).await;
    assert_eq!((blob.status, &blob.body[..]), (200, &b"{}"[..]), "P-53");
    assert_eq!(registry.requests().iter().filter(|one| one.path.contains("/blobs/")).count(), 0, "P-53, S-29");
    let absent = cachalot.get(&format!("/v2/app/blobs/{}", Digest::sha256(b"elsewhere"))).await;
    assert_eq!((absent.status, absent.error_code().as_str()), (404, "BLOB_UNKNOWN"), "U-42");
    cachalot.finish().await;
}

#[tokio::test]
async fn errors_of_a_head_have_no_body() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    let answer = cachalot.head("/v2/app/manifests/none").await;
    assert_eq!((answer.status, answer.body.len()), (404, 0), "P-109");
    cachalot.finish().await;
}

#[tokio::test]
async fn an_absence_is_remembered_for_a_moment() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    for _ in 0..5 {
        assert_eq!(cachalot.get("/v2/app/manifests/none").await.error_code(), "MANIFEST_UNKNOWN");
    }
    assert_eq!(registry.requests().len(), 1, "P-142");
    registry.fault(Match::manifest("denied"), Fault::Status(403, "")).always();
    assert_eq!(cachalot.head("/v2/app/manifests/denied").await.status, 403);
    let asked = registry.requests().len();
    let words = cachalot.get("/v2/app/manifests/denied").await;
    assert_eq!((words.status, words.error_code().as_str()), (403, "DENIED"));
    assert_eq!(words.header("cache-status"), "cachalot; hit; detail=negative");
    assert_eq!(registry.requests().len(), asked, "P-109");
    cachalot.finish().await;
}
