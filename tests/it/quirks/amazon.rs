//! Amazon's registries: the private one with a password and pages by a long seal, the public one with tokens and without HEAD of blobs.

use std::time::{Duration, Instant};

use super::site::{PASSWORD, Site};
use crate::harness::{Cachalot, More};
use crate::registry::{Fault, Image, Match, Paging};

const PUBLIC: &str = r#"Bearer realm="{url}/token/",service="public.ecr.aws",scope="aws""#;

async fn private() -> Site {
    let site = Site::start("team/app").await;
    site.registry.require_basic("AWS", PASSWORD);
    site.sign_blobs(307);
    site
}

async fn public() -> Site {
    let site = Site::start("alias/app").await;
    site.ask_for_tokens(PUBLIC, "/token/");
    site.sign_blobs(307);
    site
}

#[tokio::test]
async fn the_private_one_is_shown_the_password_and_its_store_is_not() {
    let site = private().await;
    let cachalot = site.cachalot_of_user("AWS").await;
    let pulled = site.pull(&cachalot, "team/app").await;
    assert_eq!(
        site.asked(),
        [
            "HEAD manifests/1 nobody 401",
            "HEAD manifests/1 password 200",
            "GET manifests/{image} password 200",
            "GET blobs/{config} password bytes=0- 307",
            "GET blobs/{layer} password bytes=0- 307",
        ],
        "U-22: one challenge, and from then on the password at once"
    );
    assert_eq!(
        site.fetched(),
        [
            "GET blobs/{config}?X-Signature=secret nobody bytes=0- 206",
            "GET blobs/{layer}?X-Signature=secret nobody bytes=0- 206",
        ],
        "U-23: with an Authorization it would be 400"
    );
    site.check(&pulled, "U-22, U-23");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_password_that_is_good_no_more_costs_one_question_and_what_is_stored_stays() {
    let site = private().await;
    let cachalot = site.cachalot_of_user("AWS").await;
    site.check(&site.pull(&cachalot, "team/app").await, "U-22");
    let before = site.asked().len();
    site.registry.require_basic("AWS", "the password of the next twelve hours");
    let refused = cachalot.get("/v2/team/app/manifests/2").await;
    let stored = cachalot.get(&format!("/v2/team/app/blobs/{}", site.image.layer(0))).await;
    assert_eq!(
        site.asked()[before..],
        ["HEAD manifests/2 password 401", "GET manifests/2 password 401"],
        "U-22: the same password is not tried again"
    );
    assert_eq!((refused.status, refused.error_code().as_str()), (403, "DENIED"), "U-22");
    assert_eq!((stored.status, stored.header("cache-status")), (200, "cachalot; hit"), "U-22");
    cachalot.finish().await;
}

#[tokio::test]
async fn its_pages_of_tags_are_plain_text_with_long_absolute_links() {
    let site = private().await;
    for tag in ["2", "3"] {
        site.registry.image("team/app", tag, &Image::new());
    }
    site.registry.page_tags(Paging { cap: 2, key: "last", seal: 1500, is_absolute: true });
    let cachalot = site.cachalot_of_user("AWS").await;
    let first = cachalot.get("/v2/team/app/tags/list?n=2").await;
    let link = first.header("link").to_owned();
    let next = link.split(['<', '>']).nth(1).unwrap_or_default();
    let second = cachalot.get(next).await;
    let seal = "x".repeat(1500);
    let asked: Vec<_> = site.asked().into_iter().filter(|line| line.ends_with(" 200")).collect();
    assert_eq!(
        asked,
        ["GET tags/list?n=2 password 200".to_owned(), format!("GET tags/list?n=2&last=2{seal} password 200")],
        "U-24: the seal goes back as it came"
    );
    assert!(next.starts_with("/v2/team/app/tags/list?"), "U-24, U-49: the client stays here: {next}");
    for (page, tags) in [(&first, r#""tags":["1","2"]"#), (&second, r#""3""#)] {
        assert_eq!((page.status, page.header("content-type")), (200, "application/json"), "U-24, U-49");
        assert!(String::from_utf8_lossy(&page.body).contains(tags), "U-24: {:?}", page.body);
    }
    cachalot.finish().await;
}

#[tokio::test]
async fn a_subject_header_does_not_mean_that_there_is_a_referrers_api() {
    let site = private().await;
    let digest = site.image.digest;
    let signature = site.registry.attach("team/app", &digest, "signature/example", "");
    site.registry.fallback("team/app", &digest, &[signature], true);
    site.registry.with_header("oci-subject", &digest.to_string());
    let cachalot = site.cachalot_of_user("AWS").await;
    let answer = cachalot.get(&format!("/v2/team/app/referrers/{digest}")).await;
    let asked = site.asked();
    assert!(asked.contains(&"GET referrers/{image} password 404".to_owned()), "U-25: {asked:?}");
    assert!(String::from_utf8_lossy(&answer.body).contains(&signature.to_string()), "U-25: the fallback tag tells");
    cachalot.finish().await;
}

#[tokio::test]
async fn repositories_that_are_not_there_and_those_that_are_not_ours_are_told_apart() {
    let unknown = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository does not exist"}]}"#;
    for (status, expected, code) in [(404, 404, "MANIFEST_UNKNOWN"), (403, 403, "DENIED")] {
        let site = private().await;
        site.registry.fault(Match::path("/v2/team/other/"), Fault::Status(status, unknown)).always();
        let cachalot = site.cachalot_of_user("AWS").await;
        let answer = cachalot.get("/v2/team/other/manifests/1").await;
        let asked = site.registry.requests().all("/v2/team/other/");
        assert!(asked.iter().filter(|request| request.status == Some(status)).count() <= 2, "U-26: {asked:?}");
        assert_eq!((answer.status, answer.error_code().as_str()), (expected, code), "U-26");
        let words = String::from_utf8_lossy(&answer.body).into_owned();
        // HEAD has settled the 404, and a HEAD has no words.
        assert_eq!(words.contains("The repository does not exist"), status == 403, "U-26: {words}");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_head_of_a_public_blob_is_a_short_get() {
    let site = public().await;
    site.registry.clear_faults();
    site.registry.fault(Match::blob(&site.image.layer(0)).head(), Fault::InsufficientScope).always();
    site.sign_blobs(307);
    let cachalot = site.cachalot().await;
    let head = cachalot.head(&format!("/v2/alias/app/blobs/{}", site.image.layer(0))).await;
    let asked: Vec<_> = site.asked().into_iter().filter(|line| !line.contains("/token/")).collect();
    assert_eq!(
        asked,
        [
            "HEAD blobs/{layer} nobody 401",
            "HEAD blobs/{layer} token 401",
            "GET blobs/{layer} nobody bytes=0-0 401",
            "GET blobs/{layer} token bytes=0-0 307",
        ],
        "U-28: 401 to HEAD, whatever the token"
    );
    assert_eq!((head.status, head.header("content-length")), (200, "28"), "U-28");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_page_after_a_tag_that_is_not_there_may_be_refused() {
    let site = public().await;
    site.registry.fault(Match::path("/tags/list"), Fault::Status(405, "")).always();
    let cachalot = site.cachalot().await;
    let answer = cachalot.get("/v2/alias/app/tags/list?n=2&last=nothing").await;
    assert_eq!(site.registry.gets("/tags/list").iter().filter(|get| get.status == Some(405)).count(), 1, "U-28");
    assert_eq!((answer.status, answer.error_code().as_str()), (502, "UNAVAILABLE"), "U-28: never an empty page");
    cachalot.finish().await;
}

#[tokio::test]
async fn no_more_is_asked_in_a_second_than_is_allowed() {
    let site = public().await;
    let cachalot = Cachalot::configured(&site.registry, More::upstream("rate = 1")).await;
    let began = Instant::now();
    let lists = [cachalot.get("/v2/alias/app/tags/list").await, cachalot.get("/v2/alias/app/tags/list?n=1").await];
    let asked: Vec<_> = site.asked().into_iter().filter(|line| line.contains("token 200")).collect();
    assert_eq!(asked, ["GET tags/list token 200", "GET tags/list?n=1 token 200"], "U-27");
    // A limiter counts from the first question, which was put a little after the clock began.
    assert!(began.elapsed() >= Duration::from_millis(900), "U-27: the second question waits for the next second");
    assert_eq!(lists.map(|list| list.status), [200, 200], "U-27");
    cachalot.finish().await;
}
