//! Callers beside one another: what they share, bytes and fills, and what is never another's, a no.

use futures_util::future::join_all;

use super::ground::{APP, LAYER_BYTES, PASSWORD, Shown, blob_bytes, cachalot, get, open, registry, status};
use crate::harness::{Cachalot, More, Open};
use crate::registry::{Content, Fault, Image, KIB, MIB, Match};

#[tokio::test]
async fn a_hundred_owners_of_one_cold_blob_cost_one_get_and_fifty_others_get_nothing_of_it() {
    let (registry, image) = registry(true).await;
    let names = |kind: &str, count: usize| (0..count).map(|number| format!("{kind}-{number}")).collect::<Vec<_>>();
    let (owners, strangers) = (names("owner", 100), names("stranger", 50));
    for owner in &owners {
        registry.let_in(owner, PASSWORD, &[APP]);
    }
    for stranger in &strangers {
        registry.let_in(stranger, PASSWORD, &["team/other"]);
    }
    let blob = image.layer(0);
    registry.fault(Match::blob(&blob).get(), Fault::StallAfter(64 * KIB));
    let cachalot = cachalot(&registry, "").await;
    let path = format!("/v2/{APP}/blobs/{blob}");
    let first_bytes = image.layers[0].read(0, 1000);
    let reading = join_all(owners.iter().map(|name| {
        let (cachalot, path) = (&cachalot, &path);
        async move { open(cachalot, &Shown::user(name), path).await }
    }));
    let refused = join_all(strangers.iter().map(|name| {
        let (cachalot, path) = (&cachalot, &path);
        async move { get(cachalot, &Shown::user(name), path).await }
    }));
    let (mut readers, refused) = tokio::join!(reading, refused);
    for answer in &refused {
        assert_eq!((answer.status, answer.error_code().as_str()), (403, "DENIED"));
    }
    for reader in &mut readers {
        assert_eq!(reader.read(1000).await.unwrap(), first_bytes, "while the fill stands still");
    }
    registry.release();
    let rest = image.layers[0].read(1000, LAYER_BYTES - 1000);
    for answer in join_all(readers.into_iter().map(Open::finish)).await {
        assert!(answer.is_complete && answer.body == rest);
    }
    let gets: Vec<_> = registry.gets("/blobs/").into_iter().filter(|get| get.status == Some(200)).collect();
    let ranged: Vec<_> = registry.gets("/blobs/").into_iter().filter(|get| get.status == Some(206)).collect();
    assert_eq!((gets.len() + ranged.len(), blob_bytes(&registry)), (1, LAYER_BYTES));
    cachalot.finish().await;
}

#[tokio::test]
async fn a_fill_whose_leader_is_denied_in_the_middle_goes_on_in_the_name_of_another() {
    let (registry, image) = registry(true).await;
    for name in ["first", "second", "third"] {
        registry.let_in(name, PASSWORD, &[APP]);
    }
    let blob = image.layer(0);
    registry.fault(Match::blob(&blob).get(), Fault::StallAfter(64 * KIB));
    let cachalot = cachalot(&registry, "access_ttl = \"0s\"").await;
    let path = format!("/v2/{APP}/blobs/{blob}");
    let mut readers = Vec::new();
    for name in ["first", "second", "third"] {
        let mut reader = open(&cachalot, &Shown::user(name), &path).await;
        assert_eq!(reader.read(1000).await.unwrap(), image.layers[0].read(0, 1000));
        readers.push(reader);
    }
    // Both who came first lose their right, and then the connection breaks.
    registry.let_in("first", PASSWORD, &[]);
    registry.let_in("second", PASSWORD, &[]);
    registry.stop().await;
    registry.restart().await;
    let third = readers.pop().unwrap().finish().await;
    assert!(third.is_complete && third.body == image.layers[0].read(1000, LAYER_BYTES - 1000));
    let gets = registry.gets("/blobs/");
    let last = gets.last().unwrap();
    assert_eq!(registry.account_of(last), Shown::user("third").0, "{gets:#?}");
    assert!(last.range.as_deref().is_some_and(|range| range.starts_with("bytes=65536-")), "{last:?}");
    assert_eq!(blob_bytes(&registry), LAYER_BYTES, "one byte, one fetch");
    for (name, expected) in [("first", 403), ("second", 403), ("third", 200)] {
        assert_eq!(status(&cachalot, &Shown::user(name), &path).await, expected, "{name}");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn a_fill_that_nobody_may_read_any_more_ends_short_and_the_next_owner_goes_on_from_there() {
    let (registry, _image) = registry(true).await;
    registry.let_in("first", PASSWORD, &[APP]);
    registry.let_in("second", PASSWORD, &[APP]);
    let content = Content::generated(5, 4 * MIB);
    let blob = registry.with_blob_in(APP, content.clone());
    registry.fault(Match::blob(&blob).get(), Fault::StallAfter(3 * MIB));
    let cachalot = cachalot(&registry, "access_ttl = \"0s\"").await;
    let path = format!("/v2/{APP}/blobs/{blob}");
    let mut reader = open(&cachalot, &Shown::user("first"), &path).await;
    assert!(reader.read(3 * 1024 * 1024).await.is_some());
    registry.let_in("first", PASSWORD, &[]);
    registry.stop().await;
    registry.restart().await;
    assert!(!reader.finish().await.is_complete);
    assert_eq!(status(&cachalot, &Shown::user("first"), &path).await, 403);
    let answer = get(&cachalot, &Shown::user("second"), &path).await;
    assert!(answer.status == 200 && answer.body == content.bytes());
    assert_eq!(blob_bytes(&registry), 4 * MIB, "what the first one fetched is not fetched again");
    cachalot.finish().await;
}

/// Waits until so many questions about manifests or blobs are being answered here.
async fn in_flight(cachalot: &Cachalot, handler: &str, count: u64) {
    while cachalot.metric(&format!(r#"cachalot_http_requests_in_flight{{handler="{handler}"}}"#)) < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_joined_a_question_of_somebody_who_is_denied_is_told_the_truth() {
    let (registry, image) = registry(true).await;
    let paths = [format!("/v2/{APP}/manifests/1"), format!("/v2/{APP}/blobs/{}", image.layer(0))];
    for (round, (path, handler)) in paths.iter().zip(["manifests", "blobs"]).enumerate() {
        let names = ["leader", "follower"].map(|name| format!("{name}-{round}"));
        for name in &names {
            registry.let_in(name, PASSWORD, &[APP]);
        }
        let lines = "access_ttl = \"1h\"\ntag_ttl = \"0s\"\nstale_wait = \"10s\"";
        let cachalot = cachalot(&registry, lines).await;
        let [leader, follower] = names.clone().map(|name| Shown::user(&name));
        for shown in [&leader, &follower] {
            assert_eq!(status(&cachalot, shown, &format!("/v2/{APP}/tags/list")).await, 200);
        }
        registry.fault(Match::path(path), Fault::Hold);
        let leads = get(&cachalot, &leader, path);
        let follows = async {
            registry.wait_for(|log| log.held() == 1).await;
            get(&cachalot, &follower, path).await
        };
        let driver = async {
            in_flight(&cachalot, handler, 2).await;
            // The leader loses its right while it is asked in its name, and the connection breaks: it is asked again in vain.
            registry.let_in(&names[0], PASSWORD, &[]);
            registry.stop().await;
            registry.restart().await;
        };
        let (led, followed, ()) = tokio::join!(leads, follows, driver);
        assert_eq!((led.status, followed.status), (403, 200), "{path}: {led:?}");
        assert!(followed.is_complete);
        assert_eq!(status(&cachalot, &leader, path).await, 403);
        assert_eq!(status(&cachalot, &follower, path).await, 200);
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn what_is_hidden_from_one_is_not_absent_for_another() {
    for (path_of, part) in [("manifests/1", "/manifests/1"), ("tags/list", "/tags/list")] {
        let (registry, image) = registry(false).await;
        registry.let_in("owner", PASSWORD, &[APP]);
        registry.let_in("stranger", PASSWORD, &[APP]);
        let cachalot = cachalot(&registry, "tag_ttl = \"0s\"\naccess_ttl = \"0s\"").await;
        let path = format!("/v2/{APP}/{path_of}");
        let owner = Shown::user("owner");
        assert_eq!(status(&cachalot, &owner, &path).await, 200);
        // Many registries say 404 to whom they hide a repository from.
        registry.fault(Match::path(part), Fault::Status(404, "{}"));
        assert_eq!(status(&cachalot, &Shown::user("stranger"), &path).await, 404);
        let answer = get(&cachalot, &owner, &path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        if path_of == "manifests/1" {
            assert_eq!(answer.body, image.bytes);
        }
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_yes_to_a_repository_is_none_to_what_another_one_has() {
    let (registry, image) = registry(false).await;
    registry.image("team/other", "2", &Image::new());
    registry.let_in("owner", PASSWORD, &[APP]);
    registry.let_in("both", PASSWORD, &[APP, "team/other"]);
    let cachalot = cachalot(&registry, "access_ttl = \"1h\"").await;
    let (manifest, blob) = (image.digest, image.layer(0));
    for path in [format!("/v2/{APP}/manifests/{manifest}"), format!("/v2/{APP}/blobs/{blob}")] {
        assert_eq!(status(&cachalot, &Shown::user("owner"), &path).await, 200);
    }
    let both = Shown::user("both");
    for repository in ["team/other", APP] {
        assert_eq!(status(&cachalot, &both, &format!("/v2/{repository}/tags/list")).await, 200);
    }
    for path in [format!("/v2/team/other/manifests/{manifest}"), format!("/v2/team/other/blobs/{blob}")] {
        assert_eq!(status(&cachalot, &both, &path).await, 404, "S-3: {path}");
    }
    assert_eq!(status(&cachalot, &both, &format!("/v2/{APP}/blobs/{blob}")).await, 200);
    assert_eq!(blob_bytes(&registry), LAYER_BYTES);
    cachalot.finish().await;
}

#[tokio::test]
async fn what_a_caller_may_not_read_it_cannot_mount() {
    let (registry, _image) = registry(false).await;
    registry.let_in("owner", PASSWORD, &[APP, "team/target"]);
    registry.let_in("stranger", PASSWORD, &["team/target"]);
    let lines = format!("{}\npush = true", super::ground::CALLER);
    let cachalot = Cachalot::configured(&registry, More::upstream(&lines)).await;
    let blob = registry.with_blob("in every repository");
    let mount = format!("/v2/team/target/blobs/uploads/?mount={blob}&from={APP}");
    let begin =
        async |shown: &Shown| cachalot.write("POST", &mount, &shown.headers(&[("content-length", "0")]), "").await;
    let stranger = Shown::user("stranger");
    assert_eq!(begin(&stranger).await.status, 202, "S-4: it is to be uploaded");
    let posts = registry.requests().all("/team/target/blobs/uploads/");
    assert!(posts.iter().all(|post| !post.query.clone().unwrap_or_default().contains("mount")), "{posts:#?}");
    assert_eq!(begin(&Shown::user("owner")).await.status, 201);
    assert_eq!(begin(&Shown::nothing()).await.status, 401);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_delete_reads_nothing_in_our_name() {
    let (registry, image) = registry(false).await;
    registry.let_in("stranger", PASSWORD, &["team/other"]);
    let lines = format!("{}\npush = true", super::ground::CALLER);
    let cachalot = Cachalot::configured(&registry, More::upstream(&lines)).await;
    let path = format!("/v2/{APP}/manifests/{}", image.digest);
    for shown in [Shown::nothing(), Shown::user("stranger")] {
        let answer = cachalot.write("DELETE", &path, &shown.headers(&[]), "").await;
        assert!(matches!(answer.status, 401 | 403), "{answer:?}");
    }
    assert!(registry.requests().iter().all(|request| request.status != Some(200)));
    cachalot.finish().await;
}

#[tokio::test]
async fn who_is_told_of_referrers_is_who_may_read_their_subject() {
    let (registry, image) = registry(false).await;
    registry.let_in("owner", PASSWORD, &[APP]);
    let cachalot = cachalot(&registry, "access_ttl = \"1h\"").await;
    let signature = Image::new().annotation("signed", "yes").build();
    let mut json: serde_json::Value = serde_json::from_slice(&signature.bytes).unwrap();
    json["subject"] = serde_json::json!({
        "mediaType": image.media_type, "digest": image.digest.to_string(), "size": image.bytes.len()
    });
    let referrer = registry.manifest(APP, None, json.to_string(), signature.media_type);
    let owner = Shown::user("owner");
    assert_eq!(status(&cachalot, &owner, &format!("/v2/{APP}/manifests/{referrer}")).await, 200);
    let path = format!("/v2/{APP}/referrers/{}", image.digest);
    let told = get(&cachalot, &owner, &path).await;
    assert!(String::from_utf8_lossy(&told.body).contains(&referrer.to_string()), "{told:?}");
    for (shown, expected) in [(Shown::nothing(), 401), (Shown::user("stranger"), 403)] {
        let told = get(&cachalot, &shown, &path).await;
        assert_eq!(told.status, expected);
        assert!(!String::from_utf8_lossy(&told.body).contains("sha256"), "{told:?}");
    }
    // Nor when all that is known is what passed through.
    registry.stop().await;
    assert_eq!(status(&cachalot, &owner, &path).await, 200);
    for shown in [Shown::nothing(), Shown::user("stranger"), Shown::user("new")] {
        let told = get(&cachalot, &shown, &path).await;
        assert!(told.status >= 400 && !String::from_utf8_lossy(&told.body).contains("sha256"), "{told:?}");
    }
    registry.restart().await;
    cachalot.finish().await;
}
