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
    assert_eq!(registry.bytes_sent("/blobs/"), 32 * MIB);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_ranges_over_a_breaking_upstream_gets_the_right_bytes() {
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..3 {
        let registry = Registry::start().await;
        let size = 24 * MIB + round;
        let content = Content::generated(round, size);
        let digest = registry.with_blob(content.clone());
        for _ in 0..8 {
            registry.fault(Match::blob(&digest), Fault::CutAfter(random.u64(0..4 * MIB))).optional();
        }
        let cachalot = Cachalot::over(&registry).await;
        let path = format!("/v2/app/blobs/{digest}");
        let clients = (0..60).map(|client| {
            let start = random.u64(0..size);
            let end = random.u64(start..size);
            let (cachalot, content, path) = (&cachalot, &content, &path);
            async move {
                let range = if client % 3 == 0 { format!("bytes={start}-") } else { format!("bytes={start}-{end}") };
                let end = if client % 3 == 0 { size - 1 } else { end };
                let answer = cachalot.get_range(path, &range).await;
                assert_eq!(answer.status, 206, "{range}");
                assert!(answer.is_complete && answer.body == content.read(start, end - start + 1), "{range}");
            }
        });
        join_all(clients).await;
        assert!(cachalot.get(&path).await.body == content.bytes());
        assert_eq!(cachalot.get(&path).await.header("cache-status"), "cachalot; hit");
        let sent = registry.bytes_sent("/blobs/");
        assert!(sent <= size + size / 4, "{sent} bytes for a blob of {size}");
        cachalot.finish().await;
    }
}
