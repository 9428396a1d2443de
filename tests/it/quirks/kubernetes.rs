//! registry.k8s.io: open to everybody, has nothing itself, redirects everything without its query to a registry that wants a token.

use super::site::{Site, USER};
use crate::registry::Image;

/// The site's own registry is where the redirects lead: the image is there. The one in front of it is returned beside it.
async fn kubernetes() -> (Site, Site) {
    let (front, regional) = (Site::start("pause").await, Site::start("pause").await);
    regional.registry.require_token();
    regional.sign_blobs(307);
    let target = format!("{}{{path}}", regional.registry.url());
    front.redirect("/v2/pause/", 307, &target);
    (front, regional)
}

#[tokio::test]
async fn everything_is_elsewhere_and_wants_a_token_of_its_own() {
    let (front, regional) = kubernetes().await;
    let cachalot = front.cachalot_of_user(USER).await;
    let pulled = front.pull(&cachalot, "pause").await;
    assert_eq!(
        front.asked(),
        [
            "HEAD manifests/1 nobody 307",
            "GET manifests/{image} nobody 307",
            "GET blobs/{config} nobody bytes=0- 307",
            "GET blobs/{layer} nobody bytes=0- 307",
        ],
        "U-35, U-36, U-38: it is asked each time, for where it leads to is not remembered; U-39"
    );
    assert_eq!(
        regional.asked(),
        [
            "HEAD manifests/1 nobody 401",
            "GET /token?service=scripted&scope=repository:pause:pull nobody 200",
            "HEAD manifests/1 token 200",
            "GET manifests/{image} token 200",
            "GET blobs/{config} token bytes=0- 307",
            "GET blobs/{layer} token bytes=0- 307",
        ],
        "U-39, U-40: a token for everybody, and never our password"
    );
    assert!(regional.fetched().iter().all(|line| line.contains(" nobody ")), "U-36: {:?}", regional.fetched());
    front.check(&pulled, "U-35, U-36, U-39, U-40");
    cachalot.finish().await;
}

#[tokio::test]
async fn what_a_lost_query_asked_for_is_done_here() {
    let (front, regional) = kubernetes().await;
    for tag in ["2", "3"] {
        regional.registry.image("pause", tag, &Image::new());
    }
    let digest = front.image.digest;
    let wanted = regional.registry.attach("pause", &digest, "signature/example", "");
    let other = regional.registry.attach("pause", &digest, "sbom/example", "");
    regional.registry.list_referrers(10);
    let cachalot = front.cachalot().await;
    let page = cachalot.get("/v2/pause/tags/list?n=2").await;
    let next = cachalot.get("/v2/pause/tags/list?n=2&last=2").await;
    let referrers = cachalot.get(&format!("/v2/pause/referrers/{digest}?artifactType=signature/example")).await;
    let lists: Vec<_> = regional.registry.requests().all("/tags/list");
    assert!(lists.iter().all(|request| request.query.is_none()), "U-37: the query is lost: {lists:?}");
    let asked = front.asked();
    assert!(asked.contains(&"GET tags/list?n=2 nobody 307".to_owned()), "U-37: {asked:?}");
    assert!(String::from_utf8_lossy(&page.body).contains(r#""tags":["1","2"]"#), "U-37: {:?}", page.body);
    assert_eq!(page.header("link"), "</v2/pause/tags/list?n=2&last=2>; rel=\"next\"", "U-37");
    assert!(String::from_utf8_lossy(&next.body).contains(r#""tags":["3"]"#), "U-37: {:?}", next.body);
    let text = String::from_utf8_lossy(&referrers.body).into_owned();
    assert!(text.contains(&wanted.to_string()) && !text.contains(&other.to_string()), "U-37: {text}");
    assert_eq!(referrers.header("oci-filters-applied"), "artifactType", "U-37");
    cachalot.finish().await;
}

#[tokio::test]
async fn signatures_may_be_at_a_third_place() {
    let (front, regional) = kubernetes().await;
    let tag = format!("{}.sig", front.image.digest.to_string().replace(':', "-"));
    let signature = front.storage.image("pause", &tag, &Image::new().annotation("signs", "pause"));
    front.storage.open();
    front.registry.clear_faults();
    front.redirect(&format!("/manifests/{tag}"), 307, "{storage}{path}");
    front.redirect(&signature.digest.to_string(), 307, "{storage}{path}");
    let cachalot = front.cachalot().await;
    let answer = cachalot.get(&format!("/v2/pause/manifests/{tag}")).await;
    assert_eq!(front.storage.heads("/manifests/").len(), 1, "U-36");
    assert_eq!(regional.asked(), Vec::<String>::new(), "U-36");
    assert_eq!((answer.status, answer.body), (200, signature.bytes.clone()), "U-36");
    cachalot.finish().await;
}

#[tokio::test]
async fn what_it_does_not_do_is_never_asked_of_it() {
    let (front, _regional) = kubernetes().await;
    let cachalot = front.cachalot().await;
    let catalog = cachalot.get("/v2/_catalog").await;
    let push = cachalot.send("PUT", "/v2/pause/manifests/1", &[]).await;
    assert_eq!(front.asked(), Vec::<String>::new(), "U-35: GET and HEAD of what it has, nothing else");
    assert_eq!((catalog.status, push.status), (404, 405), "U-35");
    cachalot.finish().await;
}
