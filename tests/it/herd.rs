//! Many clients at once: one transfer, everybody served, nobody waits for another (P-131, P-132).

use futures_util::future::join_all;

use crate::harness::Cachalot;
use crate::registry::{Content, Fault, Image, KIB, MIB, Match, Registry};

#[tokio::test]
async fn a_hundred_clients_of_one_cold_blob_cost_one_get() {
    let registry = Registry::start().await;
    let content = Content::generated(1, 4 * MIB);
    let digest = registry.with_blob(content.clone());
    registry.fault(Match::blob(&digest), Fault::StallAfter(64 * KIB));
    let cachalot = Cachalot::over(&registry).await;
    let path = format!("/v2/app/blobs/{digest}");
    // Everybody has the first bytes while the upstream has sent no more than those.
    let mut clients = join_all((0..100).map(|_| cachalot.open("GET", &path, &[]))).await;
    for client in &mut clients {
        assert_eq!(client.read(1000).await.unwrap(), content.read(0, 1000));
    }
    registry.release();
    let rest = content.read(1000, 4 * MIB - 1000);
    for answer in join_all(clients.into_iter().map(crate::harness::Open::finish)).await {
        assert!(answer.is_complete && answer.body == rest);
    }
    assert_eq!((registry.gets("/blobs/").len(), registry.bytes_sent("/blobs/")), (1, 4 * MIB));
    let asked = |result| {
        cachalot.metric(&format!(
            r#"cachalot_cache_requests_total{{kind="blob",result="{result}",upstream="registry.test"}}"#
        ))
    };
    assert_eq!((asked("miss"), asked("coalesced"), asked("error")), (1, 99, 0));
    cachalot.finish().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody() {
    let registry = Registry::start().await;
    let content = Content::generated(2, 32 * MIB);
    let digest = registry.with_blob(content.clone());
    let cachalot = Cachalot::over(&registry).await;
    let path = format!("/v2/app/blobs/{digest}");
    let idle = cachalot.open("GET", &path, &[]).await;
    assert!(cachalot.get(&path).await.body == content.bytes());
    assert!(idle.finish().await.body == content.bytes());
    assert_eq!(registry.gets("/blobs/").len(), 1);
    cachalot.finish().await;
}

#[tokio::test]
async fn the_fill_outlives_its_clients() {
    let registry = Registry::start().await;
    let content = Content::generated(3, MIB);
    let digest = registry.with_blob(content.clone());
    registry.fault(Match::blob(&digest), Fault::StallAfter(64 * KIB));
    let cachalot = Cachalot::over(&registry).await;
    let path = format!("/v2/app/blobs/{digest}");
    drop(cachalot.open("GET", &path, &[]).await);
    registry.release();
    registry.wait_for(|log| log.running() == 0).await;
    assert!(cachalot.get(&path).await.body == content.bytes());
    assert_eq!(registry.gets("/blobs/").len(), 1, "P-131");
    cachalot.finish().await;
}

#[tokio::test]
async fn a_manifest_is_fetched_once_for_all_who_ask_together() {
    let registry = Registry::start().await;
    let image = registry.image("app", "1", &Image::new());
    registry.fault(Match::manifest(image.digest), Fault::Hold);
    let cachalot = Cachalot::over(&registry).await;
    let path = format!("/v2/app/manifests/{}", image.digest);
    let clients = join_all((0..50).map(|_| cachalot.get(&path)));
    let release = async {
        registry.wait_for(|log| log.held() == 1).await;
        registry.release();
    };
    let (answers, ()) = tokio::join!(clients, release);
    assert!(answers.iter().all(|answer| answer.body == image.bytes));
    assert_eq!(registry.gets("/manifests/").len(), 1);
    cachalot.finish().await;
}

#[tokio::test]
async fn another_repository_is_asked_about_before_it_may_read() {
    let registry = Registry::start().await;
    let content = Content::generated(4, MIB);
    let digest = registry.with_blob_in("private/app", content.clone());
    let cachalot = Cachalot::over(&registry).await;
    assert_eq!(cachalot.get(&format!("/v2/private/app/blobs/{digest}")).await.status, 200);
    let other = cachalot.get(&format!("/v2/other/app/blobs/{digest}")).await;
    assert_eq!((other.status, other.error_code().as_str()), (404, "BLOB_UNKNOWN"), "S-3");
    assert_eq!(cachalot.head(&format!("/v2/other/app/blobs/{digest}")).await.status, 404, "S-4");
    cachalot.finish().await;
}
