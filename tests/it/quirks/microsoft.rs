//! Microsoft: an open registry with layers that it may not give, and one in the cloud whose store minds every `Authorization`.

use cachalot::oci::{Digest, MediaType};

use super::site::{PASSWORD, Site, USER};
use crate::registry::{Image, Paging};

const CHALLENGE: &str =
    r#"Bearer realm="{url}/oauth2/token",service="registry.azurecr.io",scope="repository:{repository}:pull""#;

async fn mcr() -> Site {
    let site = Site::start("windows/app").await;
    site.sign_blobs(307);
    site
}

async fn acr() -> Site {
    let site = Site::start("app").await;
    site.ask_for_tokens(CHALLENGE, "/oauth2/token");
    site.registry.require_token_of(USER, PASSWORD);
    site.sign_blobs(307);
    site
}

#[tokio::test]
async fn everybody_pulls_and_no_token_is_asked_for() {
    let site = mcr().await;
    let cachalot = site.cachalot().await;
    let pulled = site.pull(&cachalot, "windows/app").await;
    assert_eq!(
        site.asked(),
        [
            "HEAD manifests/1 nobody 200",
            "GET manifests/{image} nobody 200",
            "GET blobs/{config} nobody bytes=0- 307",
            "GET blobs/{layer} nobody bytes=0- 307",
        ],
        "U-41"
    );
    assert_eq!(site.fetched().len(), 2, "U-41");
    site.check(&pulled, "U-41");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_foreign_layer_is_absent_and_nobody_is_asked_at_its_urls() {
    let site = mcr().await;
    site.registry.clear_faults();
    let foreign = Digest::sha256(b"the windows base layer");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"{}","size":2}},
        "layers":[{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{foreign}","size":9,"urls":["{}/layer"]}}]}}"#,
        MediaType::OCI_MANIFEST,
        site.image.config.digest(),
        site.storage.url(),
    );
    site.registry.manifest("windows/app", Some("ltsc"), manifest.clone(), MediaType::OCI_MANIFEST);
    let cachalot = site.cachalot().await;
    let answer = cachalot.get("/v2/windows/app/manifests/ltsc").await;
    let layer = cachalot.get(&format!("/v2/windows/app/blobs/{foreign}")).await;
    assert_eq!(site.registry.gets(&foreign.to_string()).len(), 1, "U-42: the registry says itself that it has none");
    assert_eq!(site.fetched(), Vec::<String>::new(), "U-42: the client goes there by itself");
    assert_eq!((answer.status, &answer.body[..]), (200, manifest.as_bytes()), "U-42: the client needs the URLs");
    assert_eq!((layer.status, layer.error_code().as_str()), (404, "BLOB_UNKNOWN"), "U-42");
    cachalot.finish().await;
}

#[tokio::test]
async fn the_account_is_for_the_token_service_and_neither_is_for_the_store() {
    let site = acr().await;
    let cachalot = site.cachalot_of_user(USER).await;
    let pulled = site.pull(&cachalot, "app").await;
    assert_eq!(
        site.asked()[..3],
        [
            "HEAD manifests/1 nobody 401",
            "GET /oauth2/token?service=registry.azurecr.io&scope=repository:app:pull password 200",
            "HEAD manifests/1 token 200",
        ],
        "U-45"
    );
    assert!(site.fetched().iter().all(|line| line.contains(" nobody ") && line.ends_with(" 206")), "U-44");
    site.check(&pulled, "U-44");
    cachalot.finish().await;
}

#[tokio::test]
async fn referrers_are_listed_and_pages_of_tags_have_relative_links() {
    let site = acr().await;
    site.registry.list_referrers(1);
    let digest = site.image.digest;
    let attached = ["a", "b"].map(|name| site.registry.attach("app", &digest, "signature/example", name));
    site.registry.image("app", "2", &Image::new());
    site.registry.page_tags(Paging { cap: 1, ..Paging::default() });
    let cachalot = site.cachalot_of_user(USER).await;
    let referrers = cachalot.get(&format!("/v2/app/referrers/{digest}")).await;
    let tags = cachalot.get("/v2/app/tags/list").await;
    let pages = site.asked().iter().filter(|line| line.contains("referrers/") && line.ends_with(" 200")).count();
    assert_eq!(pages, 2, "U-45: all pages, and each once");
    let text = String::from_utf8_lossy(&referrers.body).into_owned();
    assert!(attached.iter().all(|digest| text.contains(&digest.to_string())), "U-45: {text}");
    assert_eq!(tags.header("link"), "</v2/app/tags/list?n=1&last=1>; rel=\"next\"", "U-45");
    cachalot.finish().await;
}
