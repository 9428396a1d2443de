//! GitHub: signed URLs that are good for GET alone, and a referrers API that leads to a web page.

use super::site::{PASSWORD, Site, USER};
use crate::registry::{Fault, Match};

const CHALLENGE: &str = r#"Bearer realm="{url}/token",service="ghcr.io",scope="repository:{repository}:pull""#;

async fn ghcr() -> Site {
    let site = Site::start("owner/package").await;
    site.ask_for_tokens(CHALLENGE, "/token");
    site.sign_blobs(307);
    site
}

#[tokio::test]
async fn a_head_of_a_blob_is_a_short_get_and_several_ranges_are_asked_for_one_by_one() {
    let site = ghcr().await;
    let cachalot = site.cachalot().await;
    let path = format!("/v2/owner/package/blobs/{}", site.image.layer(0));
    let head = cachalot.head(&path).await;
    assert_eq!(
        site.asked(),
        [
            "HEAD blobs/{layer} nobody 401",
            "GET /token?service=ghcr.io&scope=repository:owner/package:pull nobody 200",
            "HEAD blobs/{layer} token 307",
            "GET blobs/{layer} token bytes=0-0 307",
        ],
        "U-11, U-12, U-46"
    );
    assert_eq!(
        site.fetched(),
        [
            "HEAD blobs/{layer}?X-Signature=secret nobody 403",
            "GET blobs/{layer}?X-Signature=secret nobody bytes=0-0 206",
        ],
        "U-12, U-46: a signature for GET is none for HEAD"
    );
    assert_eq!((head.status, head.header("content-length")), (200, "28"), "U-12");

    let parts = cachalot.get_range(&path, "bytes=0-2,4-8").await;
    let ranges: Vec<_> = site.storage.requests().iter().filter_map(|request| request.range.clone()).collect();
    assert!(ranges.iter().all(|range| !range.contains(',')), "U-12: multi-range is 501 there: {ranges:?}");
    assert_eq!(parts.status, 206, "U-12: and 206 here");
    let text = String::from_utf8_lossy(&parts.body).into_owned();
    assert!(text.contains("\r\n\r\nthe\r\n") && text.contains("\r\n\r\nbytes\r\n"), "U-12: {text}");
    cachalot.finish().await;
}

#[tokio::test]
async fn an_account_is_shown_to_the_token_service_alone() {
    let site = ghcr().await;
    site.registry.require_token_of(USER, PASSWORD);
    let cachalot = site.cachalot_of_user(USER).await;
    let pulled = site.pull(&cachalot, "owner/package").await;
    let asked = site.asked();
    let by_password: Vec<_> = asked.iter().filter(|line| line.contains(" password ")).collect();
    assert_eq!(
        by_password,
        ["GET /token?service=ghcr.io&scope=repository:owner/package:pull password 200"],
        "U-11: {asked:?}"
    );
    assert!(site.fetched().iter().all(|line| line.contains(" nobody ")), "U-11, U-12: {:?}", site.fetched());
    site.check(&pulled, "U-11, U-12");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_list_of_referrers_that_is_elsewhere_is_none_whatever_is_there() {
    let rows = [
        ("a page", Fault::HtmlPage),
        ("no page", Fault::Status(404, "<html>Not Found</html>")),
        ("a page that is asked for too often", Fault::Status(429, "<html>Too many requests</html>")),
    ];
    for (name, fault) in rows {
        let site = ghcr().await;
        let digest = site.image.digest;
        let signature = site.registry.attach("owner/package", &digest, "signature/example", "");
        site.registry.fallback("owner/package", &digest, &[signature], true);
        site.redirect("/referrers/", 303, "{storage}/-/v2/packages/container/package/referrers");
        site.storage.open();
        site.storage.fault(Match::path("/-/v2/packages/"), fault).always().optional();
        let cachalot = site.cachalot().await;
        let answer = cachalot.get(&format!("/v2/owner/package/referrers/{digest}")).await;
        let asked = site.registry.gets("/referrers/");
        let statuses: Vec<_> = asked.iter().filter_map(|request| request.status).collect();
        assert!(statuses.contains(&303), "U-13, {name}: {statuses:?}");
        assert_eq!(site.fetched(), Vec::<String>::new(), "U-13, {name}: see other is not the list that was asked for");
        assert_eq!(answer.status, 200, "U-13, {name}: the fallback tag tells");
        assert!(String::from_utf8_lossy(&answer.body).contains(&signature.to_string()), "U-13, {name}");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_private_package_is_denied() {
    for status in [403, 404] {
        let site = ghcr().await;
        let body = r#"{"errors":[{"code":"DENIED","message":"denied"}]}"#;
        site.registry.fault(Match::path("/v2/owner/private/"), Fault::Status(status, body)).always();
        let cachalot = site.cachalot().await;
        let answer = cachalot.get("/v2/owner/private/manifests/1").await;
        let asked = site.registry.requests().all("/v2/owner/private/");
        assert!(asked.len() <= 3, "U-14: {asked:?}");
        let code = if status == 403 { "DENIED" } else { "MANIFEST_UNKNOWN" };
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "U-14");
        cachalot.finish().await;
    }
}
