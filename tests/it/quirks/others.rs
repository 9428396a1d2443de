//! Registries that are run by many, and the smaller public ones: short tokens, odd bodies, missing headers, moving token services.

use cachalot::oci::MediaType;

use super::site::{PASSWORD, Site, USER};
use crate::harness::Cachalot;
use crate::registry::{Fault, Image, Match, Request};

/// What tells that a repository's own scope was asked for.
const SCOPE: &str = "scope=repository:group/app:pull";

/// Starts a site whose challenge names a token service at `path` and is `rest` otherwise.
async fn with_tokens_at(path: &'static str, rest: &str) -> Site {
    let site = Site::start("group/app").await;
    site.ask_for_tokens(&format!("Bearer realm=\"{{url}}{path}\"{rest}"), path);
    site
}

async fn gitlab() -> Site {
    let rest = r#",service="container_registry",scope="repository:{repository}:pull",error="invalid_token""#;
    let site = with_tokens_at("/jwt/auth", rest).await;
    site.registry.set_token_lifetime(300);
    site.sign_blobs(307);
    site
}

async fn harbor() -> Site {
    let rest = r#",service="harbor-registry",scope="repository:{repository}:pull""#;
    with_tokens_at("/service/token", rest).await
}

async fn nvcr() -> Site {
    let site = with_tokens_at("/proxy_auth", ",scope=repository:{repository}:pull").await;
    site.registry.require_token_of("$oauthtoken", PASSWORD);
    site.sign_blobs(307);
    site
}

/// Asks for a tag twice, with the tokens so far revoked in between, and returns what the registry was asked the second time.
async fn after_revocation(site: &Site, cachalot: &Cachalot) -> Vec<String> {
    site.check(&site.pull(cachalot, "group/app").await, "the tokens are good");
    site.registry.revoke_tokens();
    let before = site.asked().len();
    site.registry.image("group/app", "2", &Image::new().annotation("tag", "2"));
    assert_eq!(cachalot.get("/v2/group/app/manifests/2").await.status, 200);
    site.asked().split_off(before)
}

#[tokio::test]
async fn gitlab_has_short_tokens_got_by_get_and_no_referrers_api() {
    let site = gitlab().await;
    let digest = site.image.digest;
    let signature = site.registry.attach("group/app", &digest, "signature/example", "");
    site.registry.fallback("group/app", &digest, &[signature], true);
    let cachalot = site.cachalot().await;
    let asked = after_revocation(&site, &cachalot).await;
    let token = format!("GET /jwt/auth?service=container_registry&{SCOPE} nobody 200");
    assert_eq!(asked[..3], ["HEAD manifests/2 token 401", token.as_str(), "HEAD manifests/2 token 200"], "U-50");
    assert!(site.registry.requests().iter().all(|request| request.method != "POST"), "U-50: tokens are not POSTed for");
    let answer = cachalot.get(&format!("/v2/group/app/referrers/{digest}")).await;
    assert!(site.asked().contains(&"GET referrers/{image} token 404".to_owned()), "U-50: {:?}", site.asked());
    assert!(String::from_utf8_lossy(&answer.body).contains(&signature.to_string()), "U-50: the fallback tag tells");
    let head = cachalot.head(&format!("/v2/group/app/blobs/{}", site.image.layer(0))).await;
    assert_eq!(head.status, 200, "U-50: a signed URL that refuses HEAD");
    cachalot.finish().await;
}

#[tokio::test]
async fn harbor_is_never_asked_for_encoded_bodies_and_one_is_never_taken() {
    let site = harbor().await;
    let cachalot = site.cachalot().await;
    let layer = format!("/v2/group/app/blobs/{}", site.image.layer(0));
    for scope in [Match::manifest(site.image.digest).get(), Match::blob(&site.image.layer(0)).get()] {
        site.registry.fault(scope, Fault::Gzip);
    }
    let encoded = [cachalot.get("/v2/group/app/manifests/1").await.status, cachalot.get(&layer).await.status];
    let identity = |request: &Request| request.accept_encoding.as_deref() == Some("identity");
    assert!(site.registry.requests().iter().all(identity), "U-51: nobody asks for gzip");
    let pulled = site.pull(&cachalot, "group/app").await;
    assert_eq!(encoded, [502, 502], "U-51: gzip all the same");
    site.check(&pulled, "U-51: and nothing of it was kept");
    cachalot.finish().await;
}

#[tokio::test]
async fn harbor_announces_other_lengths_by_head_than_it_sends() {
    let site = harbor().await;
    let shorter = Fault::WrongLength(-3);
    site.registry.fault(Match::manifest("1").head(), shorter.clone()).always();
    let cachalot = site.cachalot().await;
    let pulled = site.pull(&cachalot, "group/app").await;
    assert!(site.asked().contains(&"HEAD manifests/1 token 200".to_owned()), "U-51: {:?}", site.asked());
    site.check(&pulled, "U-51");
    let head = cachalot.head("/v2/group/app/manifests/1").await;
    assert_eq!(head.header("content-length"), site.image.bytes.len().to_string(), "U-51: what is stored is known");
    cachalot.finish().await;
}

#[tokio::test]
async fn harbor_sends_pages_and_halves_in_place_of_blobs() {
    for fault in [Fault::HtmlPage, Fault::Status(200, ""), Fault::Status(200, "the bytes of")] {
        let site = harbor().await;
        let layer = site.image.layer(0);
        site.registry.fault(Match::blob(&layer), fault.clone());
        let cachalot = site.cachalot().await;
        let first = cachalot.get(&format!("/v2/group/app/blobs/{layer}")).await;
        let pulled = site.pull(&cachalot, "group/app").await;
        let asked: Vec<_> =
            site.asked().into_iter().filter(|line| line.starts_with("GET blobs/{layer} token")).collect();
        assert_eq!(asked.len(), 2, "U-51: {fault:?}: {asked:?}");
        assert!(first.status == 502 || !first.is_complete, "U-51: {fault:?}: {}", first.status);
        site.check(&pulled, "U-51: and nothing of it was kept");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn harbor_may_have_a_blob_that_it_denies_to_have_by_head() {
    let site = harbor().await;
    let layer = site.image.layer(0);
    site.registry.fault(Match::blob(&layer).head(), Fault::RefuseHead(404)).always();
    let cachalot = site.cachalot().await;
    let path = format!("/v2/group/app/blobs/{layer}");
    let (head, blob) = (cachalot.head(&path).await, cachalot.get(&path).await);
    let asked: Vec<_> = site.asked().into_iter().filter(|line| line.contains("blobs/{layer} token")).collect();
    assert_eq!(asked, ["HEAD blobs/{layer} token 404", "GET blobs/{layer} token bytes=0- 206"], "U-51");
    assert_eq!((head.status, blob.status), (404, 200), "U-51: what a proxy project has not fetched yet");
    cachalot.finish().await;
}

#[tokio::test]
async fn nvidia_names_no_service_and_another_token_service_for_an_old_token() {
    let site = nvcr().await;
    let cachalot = site.cachalot_of_user("$oauthtoken").await;
    site.check(&site.pull(&cachalot, "group/app").await, "U-52");
    let token = format!("GET /proxy_auth?{SCOPE} password 200");
    assert_eq!(
        site.asked()[..3],
        ["HEAD manifests/1 nobody 401", token.as_str(), "HEAD manifests/1 token 200"],
        "U-52"
    );

    site.registry.revoke_tokens();
    site.registry.challenge_with(
        r#"Bearer realm="{url}/token?account=none",service="ngc",scope="repository:{repository}:pull",error="invalid_token""#,
    );
    site.registry.image("group/app", "2", &Image::new().annotation("tag", "2"));
    let before = site.asked().len();
    let answer = cachalot.get("/v2/group/app/manifests/2").await;
    let asked = site.asked().split_off(before);
    assert_eq!(asked[..3], ["HEAD manifests/2 token 401", token.as_str(), "HEAD manifests/2 token 200"], "U-53");
    assert_eq!(answer.status, 200, "U-53");
    cachalot.finish().await;
}

#[tokio::test]
async fn nvidia_may_leave_the_scope_out_and_answer_in_html() {
    let site = with_tokens_at("/proxy_auth", "").await;
    site.registry.fault(Match::path("/v2/group/none/"), Fault::Status(404, "<html>404</html>")).always();
    let cachalot = site.cachalot().await;
    let pulled = site.pull(&cachalot, "group/app").await;
    let absent = cachalot.get("/v2/group/none/manifests/1").await;
    assert_eq!(site.asked()[1], format!("GET /proxy_auth?{SCOPE} nobody 200"), "U-52: the usual scope");
    site.check(&pulled, "U-52");
    assert_eq!((absent.status, absent.error_code().as_str()), (404, "MANIFEST_UNKNOWN"), "U-52");
    cachalot.finish().await;
}

#[tokio::test]
async fn red_hat_has_old_manifests_as_plain_text_and_its_own_words_for_absence() {
    let signed = r#"{"schemaVersion":1,"name":"app","tag":"old","fsLayers":[],"history":[],"signatures":[{}]}"#;
    for media_type in ["text/plain", MediaType::SCHEMA1_SIGNED] {
        let site = Site::start("group/app").await;
        site.registry.require_basic(USER, PASSWORD);
        site.registry.manifest("group/app", Some("old"), signed, media_type);
        site.registry.fault(Match::path("/manifests/"), Fault::NoDigestHeader).times(2);
        let unknown = r#"{"errors":[{"code":"UNKNOWN","message":"Not Found"}]}"#;
        site.registry.fault(Match::manifest("none"), Fault::Status(404, unknown)).always();
        let cachalot = site.cachalot_of_user(USER).await;
        let old = cachalot.get("/v2/group/app/manifests/old").await;
        let absent = cachalot.get("/v2/group/app/manifests/none").await;
        assert_eq!(
            site.asked(),
            [
                "HEAD manifests/old nobody 401",
                "HEAD manifests/old password 200",
                "GET manifests/old password 200",
                "HEAD manifests/none password 404",
            ],
            "U-54: what HEAD leaves out, GET tells"
        );
        assert_eq!((old.status, &old.body[..]), (200, signed.as_bytes()), "U-54: {media_type}");
        assert_eq!(old.header("content-type"), MediaType::SCHEMA1_SIGNED, "U-54: {media_type}");
        assert_eq!((absent.status, absent.error_code().as_str()), (404, "MANIFEST_UNKNOWN"), "U-54");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn artifactory_leaves_headers_out_and_takes_manifests_for_blobs() {
    let rest = r#",service="artifactory",scope="repository:{repository}:pull""#;
    for fault in [Fault::NoLength, Fault::NoDigestHeader, Fault::NoContentType] {
        let site = with_tokens_at("/artifactory/api/docker/group/v2/token", rest).await;
        site.registry.fault(Match::any().head(), fault.clone()).always();
        site.registry.fault(Match::path("/v2/group/"), fault.clone()).always();
        site.registry.with_blob(site.image.bytes.clone());
        let cachalot = site.cachalot().await;
        let pulled = site.pull(&cachalot, "group/app").await;
        let token = format!("GET /artifactory/api/docker/group/v2/token?service=artifactory&{SCOPE} nobody 200");
        assert_eq!(site.asked()[1], token, "U-55: {fault:?}");
        assert!(site.asked().contains(&"GET manifests/1 token 200".to_owned()), "U-55, {fault:?}: {:?}", site.asked());
        site.check(&pulled, "U-55");
        let as_manifest = cachalot.get(&format!("/v2/group/app/manifests/{}", site.image.layer(0))).await;
        assert_eq!((as_manifest.status, as_manifest.error_code().as_str()), (404, "MANIFEST_UNKNOWN"), "U-55, P-48");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_mangled_digest_is_as_good_as_none_and_what_was_asked_for_is_asked_as_it_is() {
    let site = Site::start("group/app").await;
    let mangled = site.image.digest.to_string().replace(':', "-");
    site.registry
        .fault(Match::path("/manifests/"), Fault::WithHeader("docker-content-digest", mangled.clone()))
        .always();
    let cachalot = site.cachalot().await;
    let pulled = site.pull(&cachalot, "group/app").await;
    let by_digest = cachalot.get(&format!("/v2/group/app/manifests/{}", site.image.digest)).await;
    let mangled = cachalot.get(&format!("/v2/group/app/manifests/{mangled}")).await;
    assert_eq!(
        site.asked()[..2],
        ["HEAD manifests/1 nobody 200", "GET manifests/1 nobody 200"],
        "U-56: nothing is asked for by such a digest"
    );
    site.check(&pulled, "U-56");
    assert_eq!((by_digest.status, by_digest.header("cache-status")), (200, "cachalot; hit"), "U-56");
    assert_eq!(mangled.status, 404, "U-56: with a dash, it is a tag that is not there");
    cachalot.finish().await;
}

#[tokio::test]
async fn plain_registries_are_pulled_from_with_and_without_a_referrers_api() {
    for has_api in [true, false] {
        let site = Site::start("group/app").await;
        let digest = site.image.digest;
        let signature = site.registry.attach("group/app", &digest, "signature/example", "");
        if has_api {
            site.registry.list_referrers(10);
        } else {
            site.registry.fallback("group/app", &digest, &[signature], true);
        }
        let cachalot = site.cachalot().await;
        let pulled = site.pull(&cachalot, "group/app").await;
        let referrers = cachalot.get(&format!("/v2/group/app/referrers/{digest}")).await;
        assert_eq!(
            site.asked()[..4],
            [
                "HEAD manifests/1 nobody 200",
                "GET manifests/{image} nobody 200",
                "GET blobs/{config} nobody bytes=0- 206",
                "GET blobs/{layer} nobody bytes=0- 206",
            ],
            "U-57"
        );
        site.check(&pulled, "U-57");
        assert!(String::from_utf8_lossy(&referrers.body).contains(&signature.to_string()), "U-57: {has_api}");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn chainguard_exchanges_tokens_and_redirects_to_a_store() {
    let site = with_tokens_at("/token", r#",service="cgr.dev",scope="repository:{repository}:pull""#).await;
    site.registry.require_token_of(USER, PASSWORD);
    site.sign_blobs(302);
    let cachalot = site.cachalot_of_user(USER).await;
    let pulled = site.pull(&cachalot, "group/app").await;
    assert_eq!(site.asked()[1], format!("GET /token?service=cgr.dev&{SCOPE} password 200"), "U-58");
    assert!(site.fetched().iter().all(|line| line.contains(" nobody ")), "U-58: {:?}", site.fetched());
    site.check(&pulled, "U-58");
    cachalot.finish().await;
}
