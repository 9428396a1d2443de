//! Pushes and deletes, relayed in the caller's name: what the upstream is asked, what is cached of it, and what is true here at once.

mod accounts;
mod hostile;

use cachalot::oci::{Algorithm, Digest, MediaType};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Answer, Cachalot, More};
use crate::registry::{Content, Fault, Image, Match, Registry};

const PUSH: &str = "push = true";
const UPLOADS: &str = "/v2/app/blobs/uploads/";
const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

async fn start() -> (Registry, Cachalot) {
    let registry = Registry::start().await;
    let cachalot = Cachalot::configured(&registry, More::upstream(PUSH)).await;
    (registry, cachalot)
}

/// Opens an upload and returns where it goes on.
async fn open(cachalot: &Cachalot, path: &str, headers: &[(&str, &str)]) -> String {
    let opened = cachalot.write("POST", path, headers, "").await;
    assert_eq!((opened.status, opened.header("range")), (202, "0-0"), "P-150");
    opened.header("location").to_owned()
}

async fn push_blob(cachalot: &Cachalot, bytes: &'static [u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    let pushed = cachalot.write("POST", &format!("{UPLOADS}?digest={digest}"), &[], bytes).await;
    assert_eq!(pushed.status, 201, "P-153");
    digest
}

async fn put(cachalot: &Cachalot, reference: &str, manifest: &str) -> Answer {
    let path = format!("/v2/app/manifests/{reference}");
    cachalot.write("PUT", &path, &[("content-type", MediaType::OCI_MANIFEST)], manifest.to_owned()).await
}

fn manifest(name: &str, subject: Option<&Digest>) -> String {
    let config = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 2 });
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "artifactType": "signature/example", "config": config,
        "layers": [], "annotations": { "name": name },
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!({ "mediaType": MediaType::OCI_MANIFEST, "digest": subject.to_string(), "size": 1 });
    }
    manifest.to_string()
}

fn listed(answer: &Answer) -> Vec<String> {
    let index: Value = serde_json::from_slice(&answer.body).unwrap();
    let digests =
        index["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned());
    digests.collect()
}

#[tokio::test]
async fn writes_are_refused_unless_the_upstream_takes_them() {
    let registry = Registry::start().await;
    let cachalot = Cachalot::over(&registry).await;
    for (method, path) in [
        ("POST", UPLOADS.to_owned()),
        ("PUT", "/v2/app/manifests/1".to_owned()),
        ("DELETE", format!("/v2/app/blobs/{EMPTY}")),
        ("DELETE", "/v2/app/manifests/1".to_owned()),
    ] {
        let refused = cachalot.write(method, &path, &[], "x").await;
        assert_eq!((refused.status, refused.error_code().as_str()), (405, "UNSUPPORTED"), "P-148: {method} {path}");
        assert_eq!(refused.header("allow"), "GET, HEAD", "P-148");
    }
    assert_eq!(registry.requests().len(), 0);
    cachalot.finish().await;
}

#[tokio::test]
async fn what_is_pushed_in_chunks_is_cached_on_its_way() {
    for (path, more) in [
        (UPLOADS.to_owned(), ""),
        ("/v2/registry.test/app/blobs/uploads/".to_owned(), ""),
        ("/registry.test/v2/app/blobs/uploads/".to_owned(), ""),
        (format!("{UPLOADS}?ns=registry.test"), "?ns=registry.test"),
    ] {
        let (registry, cachalot) = start().await;
        let mut location = open(&cachalot, &path, &[]).await;
        let prefix = path.split('?').next().unwrap();
        assert!(location.starts_with(prefix) && location.ends_with(more), "P-150: {location}");
        for (range, chunk, taken) in [("0-3", "abcd", "0-3"), ("4-5", "ef", "0-5")] {
            let sent = cachalot.write("PATCH", &location, &[("content-range", range)], chunk).await;
            assert_eq!((sent.status, sent.header("range")), (202, taken), "P-151");
            location = sent.header("location").to_owned();
        }
        let wrong = cachalot.write("PATCH", &location, &[("content-range", "4-5")], "ef").await;
        assert_eq!((wrong.status, wrong.header("range")), (416, "0-5"), "P-151");
        let status = cachalot.write("GET", &location, &[], "").await;
        assert_eq!((status.status, status.header("range")), (204, "0-5"), "P-151");
        let digest = Digest::sha256(b"abcdefgh");
        let separator = if more.is_empty() { '?' } else { '&' };
        let last = format!("{location}{separator}digest={digest}");
        let done = cachalot.write("PUT", &last, &[("content-range", "6-7")], "gh").await;
        assert_eq!((done.status, done.header("docker-content-digest")), (201, digest.to_string().as_str()), "P-150");
        let blob = cachalot.get(done.header("location")).await;
        assert_eq!((blob.header("cache-status"), &blob.body[..]), ("cachalot; hit", &b"abcdefgh"[..]));
        assert_eq!(registry.gets("/blobs/sha256").len(), 0, "it passed once, and was not fetched");
        assert_eq!((registry.uploads(), registry.requests().len()), (0, 4), "what was out of order stayed here");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_nothing_is_kept() {
    let (registry, cachalot) = start().await;
    let digest = Digest::sha256(b"right");
    let one = cachalot.write("POST", &format!("{UPLOADS}?digest={digest}"), &[], "wrong").await;
    let location = open(&cachalot, UPLOADS, &[]).await;
    assert_eq!(cachalot.write("PATCH", &location, &[], "wrong").await.status, 202);
    let two = cachalot.write("PUT", &format!("{location}?digest={digest}"), &[], "").await;
    let location = open(&cachalot, UPLOADS, &[]).await;
    let three = cachalot.write("PUT", &format!("{location}?digest={digest}"), &[], "wrong").await;
    let four = put(&cachalot, &digest.to_string(), &manifest("x", None)).await;
    for (name, answer) in [("post", one), ("put without a body", two), ("put with a body", three), ("a manifest", four)]
    {
        assert_eq!((answer.status, answer.error_code().as_str()), (400, "DIGEST_INVALID"), "P-159: {name}");
    }
    let before = registry.requests().len();
    for target in [format!("{UPLOADS}?digest=sha256:bad"), "/v2/app/manifests/sha256:bad".to_owned()] {
        let method = if target.contains("uploads") { "POST" } else { "PUT" };
        assert_eq!(cachalot.write(method, &target, &[], "x").await.status, 400, "{target}");
    }
    let missing = cachalot.write("PUT", &open(&cachalot, UPLOADS, &[]).await, &[], "x").await;
    assert_eq!((missing.status, missing.error_code().as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(registry.requests().len(), before + 1, "the upload was opened, and nothing else asked");
    assert_eq!(cachalot.get(&format!("/v2/app/blobs/{digest}")).await.status, 404);
    cachalot.finish().await;
}

#[tokio::test]
async fn bytes_of_another_algorithm_are_verified_as_well() {
    let (registry, cachalot) = start().await;
    let digest = Digest::of(Algorithm::Sha512, b"long");
    let location = open(&cachalot, UPLOADS, &[]).await;
    assert_eq!(cachalot.write("PATCH", &location, &[], "long").await.status, 202);
    assert_eq!(cachalot.write("PUT", &format!("{location}?digest={digest}"), &[], "").await.status, 201);
    assert_eq!(cachalot.get(&format!("/v2/app/blobs/{digest}")).await.header("cache-status"), "cachalot; hit");
    assert_eq!(registry.gets("/blobs/sha512").len(), 0);
    cachalot.finish().await;
}

#[tokio::test]
async fn an_upload_is_its_callers_alone_and_ends_once() {
    let (registry, cachalot) = start().await;
    let (mine, others) = (("authorization", "Basic bWU6eA=="), ("authorization", "Basic eW91Ong="));
    let location = open(&cachalot, UPLOADS, &[mine]).await;
    let before = registry.requests().len();
    let elsewhere = location.replace("/v2/app/", "/v2/other/");
    for (name, path, headers) in [
        ("another caller", location.as_str(), &[others][..]),
        ("nobody", &location, &[]),
        ("another repository", &elsewhere, &[mine]),
        ("none", "/v2/app/blobs/uploads/0123", &[mine]),
    ] {
        for method in ["PATCH", "PUT", "GET", "DELETE"] {
            let path = format!("{path}?digest={EMPTY}");
            let answer = cachalot.write(method, &path, headers, "").await;
            assert_eq!(
                (answer.status, answer.error_code().as_str()),
                (404, "BLOB_UPLOAD_UNKNOWN"),
                "P-150: {name}, {method}"
            );
        }
    }
    assert_eq!(registry.requests().len(), before);
    assert_eq!(cachalot.write("DELETE", &location, &[mine], "").await.status, 204, "P-155");
    assert_eq!((registry.uploads(), cachalot.write("GET", &location, &[mine], "").await.status), (0, 404));
    cachalot.finish().await;
}

#[tokio::test]
async fn the_callers_credentials_are_used_and_never_our_own() {
    let registry = Registry::start().await;
    registry.require_basic("alice", "secret");
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "secret").unwrap();
    let lines = format!("{PUSH}\nusername = \"alice\"\npassword_file = \"{}\"", password.display());
    let cachalot = Cachalot::configured(&registry, More::upstream(&lines)).await;
    for headers in [&[][..], &[("authorization", "Basic bWFsbG9yeTp4")]] {
        for (method, path) in [("POST", UPLOADS), ("PUT", "/v2/app/manifests/1"), ("DELETE", "/v2/app/manifests/1")] {
            let refused = cachalot.write(method, path, headers, "{}").await;
            assert_eq!(refused.status, 401, "P-161: {method}");
            assert!(refused.header("www-authenticate").starts_with("Basic"), "the caller learns what is wanted");
        }
    }
    let alice = ("authorization", "Basic YWxpY2U6c2VjcmV0");
    let location = open(&cachalot, UPLOADS, &[alice]).await;
    assert_eq!(cachalot.write("PUT", &format!("{location}?digest={EMPTY}"), &[alice], "{}").await.status, 201);
    assert_eq!(cachalot.get(&format!("/v2/app/blobs/{EMPTY}")).await.status, 200);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_chunk_that_was_refused_may_be_sent_again() {
    let (registry, cachalot) = start().await;
    let location = open(&cachalot, UPLOADS, &[]).await;
    assert_eq!(cachalot.write("PATCH", &location, &[], "{").await.status, 202);
    registry.fault(Match::path(UPLOADS).patch(), Fault::StatusWithHeader(401, "www-authenticate", "Basic realm=\"x\""));
    let refused = cachalot.write("PATCH", &location, &[], "}").await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Basic realm=\"x\""));
    assert_eq!(cachalot.write("PATCH", &location, &[], "}").await.status, 202);
    assert_eq!(cachalot.write("PUT", &format!("{location}?digest={EMPTY}"), &[], "").await.status, 201);
    // Some bytes went by twice: the digest is checked, and what lies here is not taken.
    let blob = cachalot.get(&format!("/v2/app/blobs/{EMPTY}")).await;
    assert_eq!((blob.header("cache-status"), &blob.body[..]), ("cachalot; fwd=miss; stored", &b"{}"[..]));
    cachalot.finish().await;
}

#[tokio::test]
async fn a_token_that_is_renewed_goes_on_with_the_upload() {
    let (_registry, cachalot) = start().await;
    let location = open(&cachalot, UPLOADS, &[("authorization", "Bearer one")]).await;
    let last = format!("{location}?digest={EMPTY}");
    assert_eq!(cachalot.write("PUT", &last, &[("authorization", "bearer two")], "{}").await.status, 201);
    cachalot.finish().await;
}

#[tokio::test]
async fn what_somebody_may_push_is_not_everybodys_to_read() {
    let registry = Registry::start().await;
    registry.require_basic("alice", "secret");
    let cachalot = Cachalot::configured(&registry, More::upstream(PUSH)).await;
    let alice = ("authorization", "Basic YWxpY2U6c2VjcmV0");
    let pushed = cachalot.write("POST", &format!("{UPLOADS}?digest={EMPTY}"), &[alice], "{}").await;
    assert_eq!(pushed.status, 201);
    let (subject, bytes) = (Digest::sha256(b"subject"), manifest("secret", Some(&Digest::sha256(b"subject"))));
    let digest = Digest::sha256(bytes.as_bytes());
    let typed = [alice, ("content-type", MediaType::OCI_MANIFEST)];
    let pushed = cachalot.write("PUT", "/v2/app/manifests/1", &typed, bytes.clone()).await;
    assert_eq!((pushed.status, pushed.header("oci-subject")), (201, subject.to_string().as_str()));
    let tag = subject.to_string().replace(':', "-");
    let reads = registry.gets(&tag);
    assert!(!reads.is_empty() && reads.iter().all(|get| get.authorization.as_deref() == Some(alice.1)), "P-161");
    let paths = [
        format!("/v2/app/blobs/{EMPTY}"),
        "/v2/app/manifests/1".to_owned(),
        format!("/v2/app/manifests/{digest}"),
        format!("/v2/app/manifests/{tag}"),
        format!("/v2/app/referrers/{subject}"),
        "/v2/app/tags/list".to_owned(),
    ];
    for path in &paths {
        for answer in [cachalot.get(path).await, cachalot.head(path).await] {
            assert_eq!(answer.status, 403, "S-3: {path}");
        }
    }
    registry.stop().await;
    let referrers = cachalot.get(&format!("/v2/app/referrers/{subject}")).await;
    assert!(referrers.status >= 500, "S-4: {}", referrers.status);
    registry.restart().await;
    // The upstream lets everybody read from now on: what was pushed is here, and needs a word only.
    registry.open();
    let denied = registry.gets("/blobs/").len() + registry.gets(&digest.to_string()).len();
    let cachalot = cachalot.restart(&registry, More::upstream(PUSH)).await;
    for path in &paths {
        assert_eq!(cachalot.get(path).await.status, 200, "{path}");
    }
    assert_eq!(registry.gets("/blobs/").len() + registry.gets(&digest.to_string()).len(), denied);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_delete_counts_also_when_its_caller_leaves_or_the_upstream_does_not_say() {
    let (registry, cachalot) = start().await;
    let bytes = manifest("one", None);
    let path = format!("/v2/app/manifests/{}", Digest::sha256(bytes.as_bytes()));
    assert_eq!(put(&cachalot, "1", &bytes).await.status, 201);
    registry.fault(Match::path("/manifests/").delete(), Fault::Hangup);
    assert_eq!(cachalot.write("DELETE", &path, &[], "").await.status, 502);
    let asked = registry.requests().len();
    assert_eq!(cachalot.get(&path).await.status, 200);
    assert!(registry.requests().len() > asked, "nobody knows: it is asked for again");
    registry.fault(Match::path("/manifests/").delete(), Fault::Hold);
    {
        let leaving = cachalot.write("DELETE", &path, &[], "");
        tokio::select! {
            _ = leaving => panic!("it is held"),
            () = registry.wait_for(|log| log.held() == 1) => {}
        }
    }
    registry.release();
    while cachalot.get(&path).await.status != 404 {
        tokio::task::yield_now().await;
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn a_blob_on_its_way_is_not_granted_after_its_deletion() {
    let (registry, cachalot) = start().await;
    let digest = registry.with_blob_in("app", Content::generated(1, 1 << 20));
    let path = format!("/v2/app/blobs/{digest}");
    registry.fault(Match::blob(&digest).get(), Fault::StallAfter(1 << 16));
    let reading = cachalot.open("GET", &path, &[]);
    let (read, deleted) = tokio::join!(reading, async {
        registry.wait_for(|log| log.held() == 1).await;
        cachalot.write("DELETE", &path, &[], "").await
    });
    assert_eq!(deleted.status, 202);
    registry.release();
    assert!(read.finish().await.is_complete, "who was let in is let through");
    assert_eq!(cachalot.get(&path).await.status, 404, "P-162");
    cachalot.finish().await;
}

#[tokio::test]
async fn locations_are_right_whatever_the_repository_is_called() {
    let (_registry, cachalot) = start().await;
    for (path, expected) in [
        ("/v2/team/blobs/blobs/uploads/", "/v2/team/blobs/blobs/uploads/"),
        ("/v2/blobs/manifests/blobs/uploads/", "/v2/blobs/manifests/blobs/uploads/"),
        ("//v2/app/blobs/uploads/", "/v2/app/blobs/uploads/"),
        ("//registry.test/v2/app/blobs/uploads/", "/registry.test/v2/app/blobs/uploads/"),
        ("/v2/app/%62lobs/uploads/", "/v2/app/blobs/uploads/"),
    ] {
        let location = open(&cachalot, path, &[]).await;
        let id = location.strip_prefix(expected).unwrap_or_else(|| panic!("P-150: {path} → {location}"));
        assert!(!id.contains('/'), "P-150: {path} → {location}");
        assert_eq!(cachalot.write("GET", &location, &[], "").await.status, 204, "P-150: {path}");
    }
    let pushed = cachalot.write("PUT", "/v2/team/blobs/manifests/1", &[], manifest("x", None)).await;
    assert!(pushed.header("location").starts_with("/v2/team/blobs/manifests/sha256:"), "{}", pushed.header("location"));
    cachalot.finish().await;
}

#[tokio::test]
async fn a_list_that_could_not_be_written_again_as_it_is_stays() {
    let (registry, cachalot) = start().await;
    let subject = registry.image("app", "1", &Image::new()).digest;
    let tag = subject.to_string().replace(':', "-");
    let other = json!({ "mediaType": "a/b", "digest": "sha384:00", "size": 1 });
    for (list, entries) in [
        (json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [other] }), &["sha384:00"][..]),
        (
            json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [], "annotations": { "mine": "x" } }),
            &[],
        ),
    ] {
        registry.manifest("app", Some(&tag), list.to_string(), MediaType::OCI_INDEX);
        let pushed = put(&cachalot, "signature", &manifest("signature", Some(&subject))).await;
        assert_eq!((pushed.status, pushed.header("oci-subject")), (201, ""), "{list}");
        assert_eq!(registry.fallback_entries("app", &subject), entries);
    }
    let many: Vec<_> = (0..33).map(|n| format!("tag=t{n}")).collect();
    assert_eq!(put(&cachalot, &format!("1?{}", many.join("&")), &manifest("x", None)).await.status, 400, "P-160");
    cachalot.finish().await;
}

#[tokio::test]
async fn an_upload_ends_with_a_request_that_breaks() {
    let (registry, cachalot) = start().await;
    registry.fault(Match::path(UPLOADS).patch(), Fault::Status(500, ""));
    let location = open(&cachalot, UPLOADS, &[]).await;
    assert_eq!(cachalot.write("PATCH", &location, &[], "x").await.status, 502);
    assert_eq!(cachalot.write("PATCH", &location, &[], "x").await.status, 404);
    let location = open(&cachalot, UPLOADS, &[]).await;
    let mut broken = TcpStream::connect(cachalot.address()).await.unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf");
    broken.write_all(head.as_bytes()).await.unwrap();
    broken.shutdown().await.unwrap();
    let _whatever = broken.read_to_end(&mut Vec::new()).await;
    while cachalot.write("GET", &location, &[], "").await.status != 404 {
        tokio::task::yield_now().await;
    }
    registry.stop().await;
    assert_eq!(cachalot.write("POST", UPLOADS, &[], "").await.status, 502);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_mount_is_translated_and_stays_within_its_upstream() {
    let (registry, cachalot) = start().await;
    let digest = registry.with_blob("mounted");
    for (from, asked, status) in [
        ("base", "from=base", 201),
        ("registry.test%2Fbase", "from=base", 201),
        ("docker.io%2Flibrary%2Fbase", "", 202),
        ("unknown.test%2Fbase", "", 202),
    ] {
        let path = format!("/v2/registry.test/app/blobs/uploads/?mount={digest}&from={from}");
        let answer = cachalot.write("POST", &path, &[], "").await;
        assert_eq!(answer.status, status, "P-154: {from}");
        let log = registry.requests();
        let query = log.iter().last().unwrap().query.clone().unwrap_or_default();
        assert!(query.ends_with(asked) && query.is_empty() == asked.is_empty(), "P-154: {from}: {query}");
    }
    let blob = cachalot.get(&format!("/v2/app/blobs/{digest}")).await;
    assert_eq!((blob.status, registry.heads("/blobs/").len()), (200, 0), "it is the repository's");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_pushed_manifest_is_known_before_the_answer() {
    let (registry, cachalot) = start().await;
    push_blob(&cachalot, b"{}").await;
    let (one, two) = (manifest("one", None), manifest("two", None));
    assert_eq!(cachalot.get("/v2/app/manifests/1").await.status, 404);
    assert_eq!(cachalot.get("/v2/app/tags/list").await.status, 404);
    for bytes in [&one, &two] {
        let digest = Digest::sha256(bytes.as_bytes());
        let pushed = put(&cachalot, "1?tag=a&tag=b", bytes).await;
        assert_eq!(
            (pushed.status, pushed.header("docker-content-digest")),
            (201, digest.to_string().as_str()),
            "P-156"
        );
        assert_eq!(pushed.header("location"), format!("/v2/app/manifests/{digest}"), "P-156");
        let told: Vec<_> = pushed.headers.get_all("oci-tag").iter().collect();
        assert_eq!(told, ["a", "b"], "P-160");
        for tag in ["1", "a", "b"] {
            let answer = cachalot.get(&format!("/v2/app/manifests/{tag}")).await;
            assert_eq!(
                (answer.header("cache-status"), &answer.body[..]),
                ("cachalot; hit", bytes.as_bytes()),
                "P-157: {tag}"
            );
        }
        let tags: Value = serde_json::from_slice(&cachalot.get("/v2/app/tags/list").await.body).unwrap();
        assert_eq!(tags["tags"], json!(["1", "a", "b"]), "P-157");
    }
    assert_eq!(registry.gets("/manifests/").len(), 0, "only what was asked before there was anything, by HEAD");
    registry.fault(Match::path("/tags/list"), Fault::Status(500, "")).always();
    let stale = cachalot.get("/v2/app/tags/list").await;
    assert!(stale.status == 200 && stale.header("warning").starts_with("299"), "P-97");
    let large = "x".repeat(5_000_000);
    let answer = put(&cachalot, "large", &large).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (413, "SIZE_INVALID"), "P-156");
    cachalot.finish().await;
}

#[tokio::test]
async fn what_was_asked_before_a_push_is_not_remembered_after_it() {
    let (registry, cachalot) = start().await;
    registry.list_referrers(10);
    let subject = registry.image("app", "old", &Image::new()).digest;
    let (tags, referrers) = ("/v2/app/tags/list", format!("/v2/app/referrers/{subject}"));
    for path in [tags, &referrers] {
        registry.fault(Match::path(path).get(), Fault::StallAfter(5));
    }
    let bytes = manifest("signature", Some(&subject));
    let asked_before = join_all([cachalot.get(tags), cachalot.get(&referrers)]);
    let pushed_meanwhile = async {
        registry.wait_for(|log| log.held() == 2).await;
        assert_eq!(put(&cachalot, "new", &bytes).await.status, 201);
        let after = join_all([cachalot.get(tags), cachalot.get(&referrers)]).await;
        registry.release();
        after
    };
    let (before, after) = tokio::join!(asked_before, pushed_meanwhile);
    let again = join_all([cachalot.get(tags), cachalot.get(&referrers)]).await;
    assert_eq!(listed(&before[1]), [""; 0], "it was asked before");
    for answers in [after, again] {
        assert!(String::from_utf8_lossy(&answers[0].body).contains(r#"["new","old"]"#), "P-157");
        assert_eq!(listed(&answers[1]).len(), 1, "P-157");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn a_subject_is_told_of_when_it_is_known_to_whoever_lists_referrers() {
    for (name, has_api, lost, told) in [
        ("the API", true, 0, true),
        ("the fallback tag", false, 0, true),
        ("a lost write", false, 2, true),
        ("every write lost", false, 99, false),
    ] {
        let (registry, cachalot) = start().await;
        let subject = registry.image("app", "1", &Image::new()).digest;
        let tag = subject.to_string().replace(':', "-");
        if has_api {
            registry.list_referrers(10);
        }
        if lost > 0 {
            registry.fault(Match::manifest(&tag).put(), Fault::Status(201, "")).times(lost.min(6));
        }
        let bytes = manifest("signature", Some(&subject));
        let digest = Digest::sha256(bytes.as_bytes());
        let pushed = put(&cachalot, &digest.to_string(), &bytes).await;
        let expected = if told { subject.to_string() } else { String::new() };
        assert_eq!((pushed.status, pushed.header("oci-subject")), (201, expected.as_str()), "P-91: {name}");
        let is_kept = registry.fallback_entries("app", &subject) == [digest.to_string()];
        assert_eq!(is_kept, !has_api && told, "{name}");
        let list = cachalot.get(&format!("/v2/app/referrers/{subject}")).await;
        assert_eq!(listed(&list), [digest.to_string()], "{name}");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn fifty_attached_at_once_are_all_kept() {
    let (registry, cachalot) = start().await;
    let subject = registry.image("app", "1", &Image::new()).digest;
    let before = registry.attach("app", &subject, "sbom/example", "before");
    let tag = registry.fallback("app", &subject, &[before], true);
    let manifests: Vec<_> = (0..50).map(|n| manifest(&n.to_string(), Some(&subject))).collect();
    let digests: Vec<_> = manifests.iter().map(|bytes| Digest::sha256(bytes.as_bytes()).to_string()).collect();
    let pushes = manifests.iter().zip(&digests).map(|(bytes, digest)| put(&cachalot, digest, bytes));
    for pushed in join_all(pushes).await {
        assert_eq!((pushed.status, pushed.header("oci-subject")), (201, subject.to_string().as_str()));
    }
    let kept = registry.fallback_entries("app", &subject);
    assert_eq!((kept.len(), kept[0].as_str()), (51, before.to_string().as_str()));
    assert!(digests.iter().all(|digest| kept.contains(digest)), "no referrer is lost");
    let writes = registry.requests().iter().filter(|one| one.method == "PUT" && one.path.ends_with(&tag)).count();
    assert!(writes < 50, "what comes together is written together: {writes}");
    let mut list = listed(&cachalot.get(&format!("/v2/app/referrers/{subject}")).await);
    list.sort();
    let mut expected = kept;
    expected.sort();
    assert_eq!(list, expected);
    cachalot.finish().await;
}

#[tokio::test]
async fn an_image_under_the_fallback_tag_is_not_overwritten() {
    let (registry, cachalot) = start().await;
    let subject = registry.image("app", "1", &Image::new()).digest;
    let tag = subject.to_string().replace(':', "-");
    let image = registry.image("app", &tag, &Image::new().annotation("a", "b"));
    let bytes = manifest("signature", Some(&subject));
    let pushed = put(&cachalot, "signature", &bytes).await;
    assert_eq!(
        (pushed.status, pushed.header("oci-subject")),
        (201, ""),
        "P-91: the client keeps the tag itself, or says why not"
    );
    let answer = cachalot.get(&format!("/v2/app/manifests/{tag}")).await;
    assert_eq!(answer.body, image.bytes);
    cachalot.finish().await;
}

#[tokio::test]
async fn what_is_deleted_is_gone_at_once() {
    let (registry, cachalot) = start().await;
    let blob = push_blob(&cachalot, b"{}").await;
    let subject = Digest::sha256(put(&cachalot, "1", &manifest("subject", None)).await.header("location").as_bytes());
    let bytes = manifest("signature", Some(&subject));
    let digest = Digest::sha256(bytes.as_bytes());
    assert_eq!(put(&cachalot, "signature", &bytes).await.header("oci-subject"), subject.to_string());
    let referrers = format!("/v2/app/referrers/{subject}");
    assert_eq!(listed(&cachalot.get(&referrers).await).len(), 1);
    let deleted = cachalot.write("DELETE", &format!("/v2/app/manifests/{digest}"), &[], "").await;
    assert_eq!(deleted.status, 202, "P-162");
    for reference in [digest.to_string(), "signature".to_owned()] {
        assert_eq!(cachalot.get(&format!("/v2/app/manifests/{reference}")).await.status, 404, "P-162: {reference}");
    }
    assert_eq!(listed(&cachalot.get(&referrers).await), [""; 0]);
    assert_eq!(registry.fallback_entries("app", &subject), [""; 0]);
    assert_eq!(cachalot.write("DELETE", "/v2/app/manifests/1", &[], "").await.status, 202);
    assert_eq!(cachalot.get("/v2/app/manifests/1").await.status, 404, "P-162: a tag");
    assert_eq!(cachalot.get(&format!("/v2/app/blobs/{blob}")).await.status, 200);
    assert_eq!(cachalot.write("DELETE", &format!("/v2/app/blobs/{blob}"), &[], "").await.status, 202);
    assert_eq!(cachalot.get(&format!("/v2/app/blobs/{blob}")).await.status, 404, "P-162: a blob");
    let again = cachalot.write("DELETE", &format!("/v2/app/blobs/{blob}"), &[], "").await;
    assert_eq!((again.status, again.error_code().as_str()), (404, "NOT_FOUND"), "in the upstream's words");
    push_blob(&cachalot, b"{}").await;
    assert_eq!(cachalot.get(&format!("/v2/app/blobs/{blob}")).await.status, 200, "P-157: its absence is forgotten");
    cachalot.finish().await;
}

#[tokio::test]
async fn what_the_store_has_no_room_for_is_pushed_all_the_same() {
    let registry = Registry::start().await;
    let more = More { store: "capacity = \"2MiB\"\nmanifests = \"1MiB\"", upstream: PUSH, ..More::default() };
    let cachalot = Cachalot::configured(&registry, more).await;
    let content = Content::generated(7, 3 * 1024 * 1024);
    let digest = content.digest();
    let bytes = content.read(0, content.length());
    let pushed = cachalot.write("POST", &format!("{UPLOADS}?digest={digest}"), &[], bytes.clone()).await;
    assert_eq!(pushed.status, 201);
    let blob = cachalot.get(&format!("/v2/app/blobs/{digest}")).await;
    assert!(blob.is_complete && blob.body == bytes && registry.gets("/blobs/sha256").len() == 1);
    cachalot.finish().await;
}
