//! What is fetched ahead of the client, once an image's manifest was served to it.

use crate::harness::{Cachalot, More};
use crate::registry::{Content, Image, MIB, Registry};

const PATH: &str = "/v2/app/manifests/1";

#[tokio::test]
async fn config_and_layers_are_fetched_with_the_manifest_as_far_as_is_configured() {
    for (prefetch, config, layers) in [("off", 0, 0), ("config", 1, 0), ("layers", 1, 2)] {
        let registry = Registry::start().await;
        let image = Image::new().layer(Content::generated(1, MIB)).layer(Content::generated(2, 6 * MIB));
        let image = registry.image("app", "1", &image);
        let cachalot = Cachalot::configured(&registry, More::upstream(&format!("prefetch = \"{prefetch}\""))).await;
        assert_eq!(cachalot.get(PATH).await.status, 200, "{prefetch}");
        // Everything that was begun is done with when it has stopped.
        let stopped = cachalot.stop().await;
        let fetched = |digest| registry.bytes_sent(&format!("/blobs/{digest}")) > 0;
        assert_eq!(usize::from(fetched(image.config.digest())), config, "{prefetch}");
        assert_eq!((0..2).filter(|layer| fetched(image.layer(*layer))).count(), layers, "{prefetch}");
        // What was fetched ahead is the repository's, without another question.
        let asked = registry.requests().len();
        let cachalot = stopped.start(&registry, More::upstream("prefetch = \"off\"")).await;
        if layers > 0 {
            let layer = cachalot.get(&format!("/v2/app/blobs/{}", image.layer(1))).await;
            assert!(layer.is_complete && layer.header("cache-status") == "cachalot; hit", "{prefetch}");
            assert_eq!(registry.requests().len(), asked, "{prefetch}");
        }
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn a_stored_manifest_makes_what_is_missing_be_fetched() {
    let registry = Registry::start().await;
    let image = registry.image("app", "1", &Image::new().layer(Content::generated(1, MIB)));
    let cachalot = Cachalot::configured(&registry, More::upstream("prefetch = \"off\"")).await;
    assert_eq!(cachalot.get(PATH).await.status, 200);
    let stopped = cachalot.stop().await;
    let cachalot = stopped.start(&registry, More::upstream("prefetch = \"layers\"")).await;
    let path = format!("/v2/app/manifests/{}", image.digest);
    assert_eq!(cachalot.head(&path).await.header("cache-status"), "cachalot; hit");
    assert_eq!(registry.gets("/blobs/").len(), 0, "who asks by HEAD does not pull");
    for _ in 0..3 {
        assert_eq!(cachalot.get(&path).await.header("cache-status"), "cachalot; hit");
    }
    let _stopped = cachalot.stop().await;
    assert_eq!(registry.gets("/manifests/").len(), 1);
    for digest in [image.config.digest(), image.layer(0)] {
        assert_eq!(registry.gets(&format!("/blobs/{digest}")).len(), 1, "{digest}");
    }
}

#[tokio::test]
async fn of_an_index_only_the_image_that_the_client_picks_is_fetched() {
    let registry = Registry::start().await;
    let images = [3, 4].map(|seed| Image::new().layer(Content::generated(seed, MIB)));
    let index = registry.index("app", "1", &images);
    let cachalot = Cachalot::configured(&registry, More::upstream("prefetch = \"layers\"")).await;
    assert_eq!(cachalot.get(PATH).await.status, 200);
    let picked = &index.images[1];
    assert_eq!(cachalot.get(&format!("/v2/app/manifests/{}", picked.digest)).await.status, 200);
    let _stopped = cachalot.stop().await;
    let asked = registry.gets("/blobs/");
    assert!(asked.iter().any(|get| get.path.contains(&picked.layer(0).to_string())));
    assert!(!asked.iter().any(|get| get.path.contains(&index.images[0].layer(0).to_string())), "{asked:?}");
}
