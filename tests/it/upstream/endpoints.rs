//! Several endpoints of one upstream: who is asked, who is asked next, and who is passed over.

use std::time::Duration;

use cachalot::upstream::{Client, Origin as _, UpstreamError};
use url::Url;

use super::{blob, client_with, options, pull, read, tag, wait_as_told};
use crate::registry::{Content, Fault, Image, KIB, Match, Registry};

/// Two registries with the same image, and a client of both.
async fn pair() -> (Registry, Registry, Client) {
    let (first, second) = (Registry::start().await, Registry::start().await);
    for registry in [&first, &second] {
        registry.image("library/alpine", "3.20", &Image::new());
    }
    let mut options = options(&first);
    options.endpoints.push(Url::parse(&second.url()).unwrap());
    options.timeouts.header = Duration::from_secs(4);
    (first, second, client_with(&options))
}

#[tokio::test]
async fn the_next_endpoint_mends_what_it_can() {
    for fault in [
        Fault::Hangup,
        Fault::Status(503, ""),
        Fault::Status(404, ""),
        Fault::Status(403, ""),
        Fault::RateLimited { retry_after: Some("7") },
        Fault::RedirectLoop,
        Fault::Gzip,
        // Half of the time is for the other one.
        Fault::Hold,
    ] {
        let (first, second, client) = pair().await;
        first.fault(Match::manifest("3.20"), fault.clone()).always();
        assert!(pull(&client, &tag("3.20")).await.is_ok(), "{fault:?}");
        assert_eq!(second.gets("/manifests/").len(), 1, "{fault:?}");
        let asked = first.gets("/manifests/").len();
        assert!(pull(&client, &tag("3.20")).await.is_ok(), "{fault:?}");
        let is_passed_over = first.gets("/manifests/").len() == asked;
        assert_eq!(is_passed_over, !matches!(fault, Fault::Status(403 | 404, _)), "{fault:?}");
        first.release();
        first.clear_faults();
    }
}

#[tokio::test]
async fn who_refuses_connections_is_passed_over_and_absence_needs_them_all() {
    let (first, _second, client) = pair().await;
    first.stop().await;
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    // Only one of them says so.
    let error = pull(&client, &tag("absent")).await.expect_err("the first one cannot be asked");
    let UpstreamError::CircuitOpen { cause, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(**cause, UpstreamError::Connect { .. }), "{error:?}");
    first.restart().await;
    wait_as_told(&error).await;
    // Nobody waits for the one that was away: it is probed beside this.
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    assert_eq!(first.gets("/manifests/").len(), 0);
    first.wait_for(|log| log.iter().any(|request| request.path == "/v2/" && request.is_over)).await;
    // The client learns of it a moment after the log.
    let absence = async {
        while !matches!(pull(&client, &tag("absent")).await, Err(UpstreamError::NotFound { .. })) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), absence).await.expect("nobody has it, and both say so");
    assert_eq!(first.gets("/manifests/absent").len(), 1);
}

#[tokio::test]
async fn after_a_broken_transfer_and_after_wrong_bytes_another_endpoint_is_asked() {
    let (first, second, client) = pair().await;
    let content = Content::generated(3, 100 * KIB);
    let digest = first.with_blob(content.clone());
    second.with_blob(content.clone());
    first.fault(Match::blob(&digest), Fault::CutAfter(10 * KIB));
    let broken = blob(&client, &digest, 0, None).await.unwrap();
    let sender = broken.endpoint;
    assert!(read(broken).await.1.is_some());
    let rest = blob(&client, &digest, 10 * KIB, None).await.unwrap();
    assert_ne!(rest.endpoint, sender);
    assert_eq!(read(rest).await.0, content.read(10 * KIB, 90 * KIB));
    assert_eq!(second.gets("/blobs/")[0].range.as_deref(), Some("bytes=10240-"));

    let (first, second, client) = pair().await;
    client.distrust(sender);
    assert!(pull(&client, &tag("3.20")).await.is_ok());
    assert_eq!((first.gets("/manifests/").len(), second.gets("/manifests/").len()), (0, 1));
}
