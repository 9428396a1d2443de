//! How long the upstream's word about a caller holds: while it is young, while the upstream is down, and never beyond a no.

use super::ground::{APP, PASSWORD, Shown, cachalot, decisions, get, registry, status};
use crate::harness::{Cachalot, More, settings};
use crate::registry::{Fault, Match};

#[tokio::test]
async fn the_upstream_is_asked_once_for_all_questions_of_a_caller_about_a_repository() {
    let (registry, image) = registry(true).await;
    registry.let_in("owner", PASSWORD, &[APP]);
    let cachalot = cachalot(&registry, "tag_ttl = \"1h\"").await;
    let owner = Shown::user("owner");
    let path = format!("/v2/{APP}/manifests/{}", image.digest);
    for _ in 0..20 {
        assert_eq!(status(&cachalot, &owner, &path).await, 200);
    }
    let log = registry.requests();
    assert_eq!(
        (log.heads("/manifests/").len(), log.gets("/manifests/").len()),
        (2, 1),
        "challenged once, asked once, fetched once"
    );
    assert_eq!(log.gets("/token").len(), 1);
    assert_eq!((decisions(&cachalot, "allowed"), decisions(&cachalot, "cached")), (1, 19));
    // Another caller is asked for by itself, and nothing is fetched for it.
    registry.let_in("second", PASSWORD, &[APP]);
    assert_eq!(status(&cachalot, &Shown::user("second"), &path).await, 200);
    let log = registry.requests();
    assert_eq!((log.heads("/manifests/").len(), log.gets("/manifests/").len()), (3, 1));
    // Whoever is refused is not asked for again at once.
    let stranger = Shown::account("owner", "guessed");
    let before = registry.requests().len();
    for _ in 0..5 {
        assert_eq!(status(&cachalot, &stranger, &path).await, 403);
        assert_eq!(status(&cachalot, &owner, &path).await, 200, "the same name with the right password");
    }
    let asked = registry.requests().len() - before;
    assert!(asked <= 4, "a no is remembered: {asked}");
    assert_eq!(decisions(&cachalot, "denied"), 5);
    cachalot.finish().await;
}

#[tokio::test]
async fn callers_that_come_together_are_asked_for_once() {
    let (registry, image) = registry(false).await;
    registry.let_in("owner", PASSWORD, &[APP]);
    let cachalot = cachalot(&registry, "").await;
    let (owner, path) = (Shown::user("owner"), format!("/v2/{APP}/blobs/{}", image.layer(0)));
    registry.fault(Match::blob(&image.layer(0)), Fault::Hold);
    let herd = futures_util::future::join_all((0..30).map(|_| get(&cachalot, &owner, &path)));
    let release = async {
        registry.wait_for(|log| log.held() == 1).await;
        registry.release();
    };
    let (answers, ()) = tokio::join!(herd, release);
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.is_complete));
    let heads: Vec<_> = registry.heads("/blobs/").into_iter().filter(|head| head.authorization.is_some()).collect();
    assert_eq!((heads.len(), registry.bytes_sent("/blobs/")), (1, super::ground::LAYER_BYTES));
    cachalot.finish().await;
}

#[tokio::test]
async fn a_yes_holds_while_the_upstream_is_down_as_long_as_it_is_told_to_and_for_nobody_else() {
    for (lines, expected) in [
        ("access_ttl = \"0s\"\naccess_stale_if_error = \"10m\"", 200),
        ("access_ttl = \"0s\"\naccess_stale_if_error = \"0s\"", 502),
        ("access_ttl = \"1h\"\naccess_stale_if_error = \"0s\"", 200),
    ] {
        let (registry, image) = registry(true).await;
        registry.let_in("owner", PASSWORD, &[APP]);
        registry.let_in("second", PASSWORD, &[APP]);
        let cachalot = cachalot(&registry, &format!("{lines}\nstale_wait = \"0s\"")).await;
        let owner = Shown::user("owner");
        let paths = [
            format!("/v2/{APP}/manifests/1"),
            format!("/v2/{APP}/manifests/{}", image.digest),
            format!("/v2/{APP}/blobs/{}", image.layer(0)),
            format!("/v2/{APP}/tags/list"),
        ];
        for path in &paths {
            assert_eq!(status(&cachalot, &owner, path).await, 200, "{lines}: {path}");
        }
        registry.stop().await;
        for path in &paths {
            let told = status(&cachalot, &owner, path).await;
            assert!(told == expected || expected == 502 && told == 503, "{lines}: {path}: {told}");
            // Whom the upstream has not spoken of is let in by nobody, whoever he is.
            for stranger in [Shown::user("second"), Shown::nothing(), Shown::account("owner", "guessed")] {
                let told = get(&cachalot, &stranger, path).await;
                assert!(told.status >= 500, "{lines}: {path}: {told:?}");
                assert!(told.headers.get("etag").is_none() && told.headers.get("docker-content-digest").is_none());
            }
        }
        registry.restart().await;
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_no_ends_a_yes_at_once_also_for_when_the_upstream_is_down() {
    let (registry, image) = registry(true).await;
    registry.let_in("owner", PASSWORD, &[APP]);
    registry.let_in("second", PASSWORD, &[APP]);
    let lines = "access_ttl = \"1h\"\naccess_stale_if_error = \"10m\"\ntag_ttl = \"0s\"\nstale_wait = \"10s\"";
    let cachalot = cachalot(&registry, lines).await;
    let (owner, second) = (Shown::user("owner"), Shown::user("second"));
    let by_tag = format!("/v2/{APP}/manifests/1");
    let by_digest = format!("/v2/{APP}/manifests/{}", image.digest);
    for path in [&by_tag, &by_digest] {
        assert_eq!((status(&cachalot, &owner, path).await, status(&cachalot, &second, path).await), (200, 200));
    }
    registry.let_in("owner", PASSWORD, &[]);
    // What is served without asking is served by the yes of before; asking ends it.
    assert_eq!(status(&cachalot, &owner, &by_digest).await, 200, "within access_ttl");
    assert_eq!(status(&cachalot, &owner, &by_tag).await, 403);
    assert_eq!(status(&cachalot, &owner, &by_digest).await, 403, "S-7");
    assert_eq!(status(&cachalot, &second, &by_tag).await, 200, "one caller's no is no other's");
    registry.stop().await;
    assert!(status(&cachalot, &owner, &by_digest).await >= 403);
    assert_eq!(status(&cachalot, &second, &by_tag).await, 200, "the tag is the others' still");
    assert_eq!(status(&cachalot, &second, &by_digest).await, 200);
    registry.restart().await;
    cachalot.finish().await;
}

#[tokio::test]
async fn what_is_excepted_is_the_other_way_round() {
    for (access, except, is_private) in [
        ("caller", "team/app", false),
        ("caller", "team/other", true),
        ("shared", "team/*", true),
        ("shared", "x/*", false),
    ] {
        let registry = crate::registry::Registry::start().await;
        let image = registry.image(APP, "1", &crate::registry::Image::new());
        let lines = format!("access = \"{access}\"\naccess_except = [\"{except}\"]\nprefetch = \"off\"");
        let cachalot = Cachalot::configured(&registry, More::upstream(&lines)).await;
        // Everybody may read it, so that who was asked for is seen in the log.
        let owner = Shown::user("owner");
        assert_eq!(status(&cachalot, &owner, &format!("/v2/{APP}/manifests/{}", image.digest)).await, 200);
        registry.require_account(false);
        registry.let_in("owner", PASSWORD, &[APP]);
        let told = status(&cachalot, &Shown::nothing(), &format!("/v2/{APP}/manifests/{}", image.digest)).await;
        assert_eq!(told, if is_private { 401 } else { 200 }, "{access} except {except}");
        let shown = registry.requests().iter().filter(|request| request.authorization.is_some()).count();
        assert_eq!(shown, 0, "{access} except {except}: the upstream asked for nothing");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn decisions_end_with_the_process_and_with_the_configuration_and_grants_do_not() {
    let (registry, image) = registry(false).await;
    registry.let_in("owner", PASSWORD, &[APP]);
    let lines = format!("{}\naccess_ttl = \"1h\"\naccess_stale_if_error = \"24h\"", super::ground::CALLER);
    let more = More::upstream(&lines);
    let cachalot = Cachalot::configured(&registry, more).await;
    let (owner, path) = (Shown::user("owner"), format!("/v2/{APP}/blobs/{}", image.layer(0)));
    assert_eq!(status(&cachalot, &owner, &path).await, 200);
    let cachalot = cachalot.restart(&registry, more).await;
    let heads = || registry.heads("/blobs/").iter().filter(|head| head.status == Some(200)).count();
    assert_eq!(heads(), 1);
    assert_eq!(status(&cachalot, &owner, &path).await, 200);
    assert_eq!(
        (heads(), registry.bytes_sent("/blobs/")),
        (2, super::ground::LAYER_BYTES),
        "asked again, not fetched again"
    );
    registry.let_in("owner", PASSWORD, &[]);
    assert_eq!(status(&cachalot, &owner, &path).await, 200, "within access_ttl");
    let lines = format!("{lines}\nrate = 1000");
    cachalot.apply(&settings(cachalot.store(), &registry.url(), More::upstream(&lines)));
    assert_eq!(status(&cachalot, &owner, &path).await, 403, "what replaces an upstream knows nothing of its callers");
    let cachalot = cachalot.restart(&registry, more).await;
    assert_eq!(status(&cachalot, &owner, &path).await, 403);
    cachalot.finish().await;
}

#[tokio::test]
async fn a_head_that_is_refused_where_get_is_not_is_no_no() {
    for refused in [401, 403, 405, 501] {
        let (registry, image) = registry(false).await;
        registry.let_in("owner", PASSWORD, &[APP]);
        registry.fault(Match::any(), Fault::RefuseHead(refused)).always();
        let cachalot = cachalot(&registry, "access_ttl = \"0s\"").await;
        let owner = Shown::user("owner");
        for path in [format!("/v2/{APP}/manifests/1"), format!("/v2/{APP}/blobs/{}", image.layer(0))] {
            assert_eq!(status(&cachalot, &owner, &path).await, 200, "P-51, P-137: {refused} {path}");
            assert_eq!(status(&cachalot, &Shown::user("x"), &path).await, 403, "{refused} {path}");
        }
        registry.clear_faults();
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_page_for_people_is_no_yes() {
    let (registry, image) = registry(false).await;
    registry.let_in("owner", PASSWORD, &[APP]);
    let cachalot = cachalot(&registry, "access_ttl = \"0s\"\naccess_stale_if_error = \"0s\"").await;
    let owner = Shown::user("owner");
    let paths = [
        format!("/v2/{APP}/manifests/{}", image.digest),
        format!("/v2/{APP}/blobs/{}", image.layer(0)),
        format!("/v2/{APP}/tags/list"),
    ];
    for path in &paths {
        assert_eq!(status(&cachalot, &owner, path).await, 200, "{path}");
    }
    registry.open();
    registry.fault(Match::any(), Fault::HtmlPage).always();
    for path in &paths {
        let told = status(&cachalot, &Shown::nothing(), path).await;
        assert_eq!(told, 502, "U-71: {path}");
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn a_right_to_list_is_none_to_pull_and_the_other_way_round() {
    let (registry, _) = registry(false).await;
    let [owner, lister, puller] = ["owner", "lister", "puller"].map(Shown::user);
    for name in ["owner", "lister", "puller"] {
        registry.let_in(name, PASSWORD, &[APP]);
    }
    let cachalot = cachalot(&registry, "tag_ttl = \"10m\"").await;
    let [manifest, tags] = ["manifests/1", "tags/list"].map(|rest| format!("/v2/{APP}/{rest}"));
    for path in [&manifest, &tags] {
        assert_eq!(status(&cachalot, &owner, path).await, 200);
    }
    registry.fault(Match::path("/manifests/"), Fault::Status(403, "")).always();
    assert_eq!(status(&cachalot, &lister, &tags).await, 200);
    assert_eq!(status(&cachalot, &lister, &manifest).await, 403, "S-2: what is cached is not for who may only list");
    registry.clear_faults();
    registry.fault(Match::path("/tags/list"), Fault::Status(403, "")).always();
    assert_eq!(status(&cachalot, &puller, &manifest).await, 200);
    assert_eq!(status(&cachalot, &puller, &tags).await, 403, "S-4: nor is a list for who may only pull");
    assert_eq!(status(&cachalot, &puller, &manifest).await, 200, "a no to lists is none to content");
    cachalot.finish().await;
}
