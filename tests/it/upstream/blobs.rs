//! Blobs: sizes, ranges, bodies that end where they should not, and the turns of transfers.

use std::sync::Arc;

use cachalot::upstream::{Capability, Client, Origin as _, UpstreamError};
use futures_util::future;

use super::{blob, client, client_with, options, read, repository};
use crate::registry::{Content, Fault, KIB, Match, Registry};

#[tokio::test]
async fn a_refused_head_is_asked_again_as_the_shortest_get() {
    let cdn = Registry::start().await;
    let registry = Registry::start().await;
    let content = Content::generated(3, 5 * KIB);
    let digest = registry.with_blob(content.clone());
    cdn.with_blob(content);
    let ask = async |client: &Client| client.blob_head(&repository(), &digest).await.map(|head| head.size_bytes);
    // Each time by one that has learnt nothing yet.
    let size = async || ask(&client(&registry)).await;

    assert_eq!(size().await.ok(), Some(Some(5 * KIB)));
    assert_eq!(registry.gets("/blobs/").len(), 0);
    for status in [401, 403, 405, 501] {
        registry.fault(Match::blob(&digest).head(), Fault::RefuseHead(status));
        assert_eq!(size().await.ok(), Some(Some(5 * KIB)), "{status}");
    }
    assert!(registry.gets("/blobs/").iter().all(|get| get.range.as_deref() == Some("bytes=0-0")));
    assert_eq!(registry.bytes_sent("/blobs/"), 4);

    // The target of a redirect that was signed for GET refuses the HEAD.
    registry.fault(Match::blob(&digest), Fault::redirect_to(&cdn)).times(2);
    cdn.fault(Match::blob(&digest).head(), Fault::RefuseHead(403));
    assert_eq!(size().await.ok(), Some(Some(5 * KIB)));
    assert_eq!(cdn.gets("/blobs/").len(), 1);

    registry.fault(Match::blob(&digest), Fault::Status(404, ""));
    assert!(matches!(size().await, Err(UpstreamError::NotFound { .. })));

    let client = client(&registry);
    let heads = registry.heads("/blobs/").len();
    registry.fault(Match::blob(&digest).head(), Fault::RefuseHead(401)).always();
    for _ in 0..3 {
        assert_eq!(ask(&client).await.ok(), Some(Some(5 * KIB)));
    }
    assert_eq!(registry.heads("/blobs/").len() - heads, 1, "U-28, U-70: it is not asked in vain again");
    assert_eq!(client.capability(Capability::BlobHead), Some(false));
}

#[tokio::test]
async fn ranges_are_what_was_asked_or_an_error() {
    let registry = Registry::start().await;
    let content = Content::generated(4, 10 * KIB);
    let digest = registry.with_blob(content.clone());
    let client = client(&registry);
    for (start, end, range) in
        [(0, None, None), (0, Some(9), Some("bytes=0-9")), (5, None, Some("bytes=5-")), (5, Some(5), Some("bytes=5-5"))]
    {
        let transfer = blob(&client, &digest, start, end).await.expect("it is there");
        assert_eq!((transfer.start, transfer.size_bytes), (start, Some(10 * KIB)));
        let length = end.map_or(10 * KIB, |end| end + 1) - start;
        assert_eq!(read(transfer).await.0, content.read(start, length));
        assert_eq!(registry.gets("/blobs/").last().and_then(|get| get.range.clone()).as_deref(), range);
    }

    registry.fault(Match::blob(&digest).ranged(), Fault::IgnoreRange);
    let transfer = blob(&client, &digest, 5, None).await.expect("everything, from 0");
    assert_eq!((transfer.start, transfer.size_bytes), (0, Some(10 * KIB)));
    assert_eq!(read(transfer).await.0, content.bytes());

    registry.fault(Match::blob(&digest).ranged(), Fault::WrongRange);
    for (start, reason) in [(5, "a range that starts elsewhere than asked"), (10 * KIB, "not satisfiable (status 416)")]
    {
        let error = blob(&client, &digest, start, None).await.expect_err("not what was asked");
        assert_eq!(error.to_string(), format!("range not honoured: {reason}"));
    }
}

#[tokio::test]
async fn a_body_that_ends_early_is_an_error_and_one_of_unknown_length_is_not() {
    let registry = Registry::start().await;
    let content = Content::generated(5, 300 * KIB);
    let digest = registry.with_blob(content.clone());
    let client = client(&registry);
    for (fault, whole_arrives) in
        [(Fault::CutAfter(100 * KIB), false), (Fault::ResetAfter(100 * KIB), false), (Fault::WrongLength(7), true)]
    {
        registry.fault(Match::blob(&digest), fault.clone());
        let transfer = blob(&client, &digest, 0, None).await.expect("the headers are good");
        let (bytes, error) = read(transfer).await;
        let expected = if whole_arrives { 300 * KIB } else { 100 * KIB };
        assert!(bytes.len() as u64 <= expected, "{fault:?}");
        assert_eq!(bytes, content.read(0, bytes.len() as u64), "{fault:?}");
        let Some(UpstreamError::Truncated { received_bytes, .. }) = error else { panic!("{fault:?}: {error:?}") };
        assert_eq!(received_bytes, bytes.len() as u64, "{fault:?}");
    }

    registry.fault(Match::blob(&digest), Fault::NoLength);
    let transfer = blob(&client, &digest, 0, None).await.expect("the headers are good");
    assert_eq!(transfer.size_bytes, None);
    let (bytes, error) = read(transfer).await;
    assert!(bytes == content.bytes() && error.is_none());
}

#[tokio::test]
async fn a_transfer_that_is_dropped_ends_at_the_upstream_too() {
    let registry = Registry::start().await;
    let digest = registry.with_blob(Content::generated(6, 200 * KIB));
    registry.fault(Match::blob(&digest), Fault::StallAfter(KIB));
    let transfer = blob(&client(&registry), &digest, 0, None).await.expect("the headers are good");
    registry.wait_for(|log| log.held() == 1).await;
    drop(transfer);
    registry.wait_for(|log| log.running() == 0).await;
}

#[tokio::test]
async fn never_more_transfers_at_once_than_allowed() {
    let registry = Registry::start().await;
    let digest = registry.with_blob(Content::generated(7, 4 * KIB));
    registry.fault(Match::blob(&digest), Fault::StallAfter(KIB)).times(3);
    let mut options = options(&registry);
    options.connections = 3;
    let client = Arc::new(client_with(&options));
    let transfers = future::join_all((0..10).map(|_| async {
        let transfer = blob(&client, &digest, 0, None).await.expect("a turn comes");
        read(transfer).await
    }));
    let (transfers, ()) = tokio::join!(transfers, async {
        registry.wait_for(|log| log.held() == 3).await;
        registry.release();
    });
    assert!(transfers.iter().all(|(bytes, error)| bytes.len() as u64 == 4 * KIB && error.is_none()));
    assert_eq!(registry.requests().peak("/blobs/"), 3);
    assert_eq!(registry.gets("/blobs/").len(), 10);

    // A dropped transfer gives its turn back.
    registry.fault(Match::blob(&digest), Fault::StallAfter(KIB)).times(3);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(blob(&client, &digest, 0, None).await.expect("a turn"));
    }
    drop(held);
    assert!(blob(&client, &digest, 0, None).await.is_ok());
}
