//! Hostile bytes, as a table: what each connection sends, and what it gets. Meanwhile good clients are served, and afterwards nothing is
//! left.
//!
//! Each row is one connection of its own, or several. An answer is the statuses that come, in their order; the connection's end comes
//! after it where the row says so. Nothing here is a client: bytes and frames are written as they are.

mod attack;
mod frames;
mod heads;
mod http2;
mod limits;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::{StreamExt as _, stream};

use crate::harness::{Cachalot, More};
use crate::registry::{Content, KIB, MIB, Registry};
use crate::secure::Ground;
use attack::{Arena, Row};

/// Good clients that are served while the table runs.
const GOOD_CLIENTS: usize = 200;

/// Connections of them at once.
const GOOD_AT_ONCE: usize = 10;

/// Rows at once.
const ROWS_AT_ONCE: usize = 16;

/// Short waits: the rows that are about them take as long.
const SERVER: &str = "header_timeout = \"2s\"\nhandshake_timeout = \"2s\"\nwrite_stall_timeout = \"2s\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_sent_harms_others() {
    let (registry, ground) = (Registry::start().await, Ground::new());
    let content = Content::generated(7, 100 * KIB);
    let small = registry.with_blob(content.clone());
    let large = registry.with_blob(Content::generated(8, 32 * MIB));
    let cachalot = start(&registry, &ground).await;
    assert!(cachalot.get(&format!("/v2/app/blobs/{large}")).await.is_complete);
    let arena = Arc::new(Arena {
        plain: cachalot.address(),
        secured: cachalot.listener_address(),
        client: ground.client(),
        large: format!("/v2/app/blobs/{large}"),
        small: format!("/v2/app/blobs/{small}"),
    });

    let is_over = Arc::new(AtomicBool::new(false));
    let good = tokio::spawn(be_good(Arc::clone(&arena), content, Arc::clone(&is_over)));
    let rows: Vec<Row> = [heads::rows(), http2::rows(), limits::rows()].into_iter().flatten().collect();
    let count = rows.len();
    let meetings = rows.into_iter().map(|row| tokio::spawn(row.meet(Arc::clone(&arena))));
    let failed = stream::iter(meetings).buffer_unordered(ROWS_AT_ONCE).filter_map(async |met| met.err()).count().await;
    is_over.store(true, Ordering::SeqCst);
    let served = good.await.unwrap();
    assert_eq!(failed, 0, "rows that failed, of {count}");
    assert!(served >= GOOD_CLIENTS, "{served} good clients");

    // What is left of them goes when its time is over.
    while cachalot.metric("cachalot_http_connections_in_flight") > 0 {
        tokio::task::yield_now().await;
    }
    for handler in ["blobs", "ping", "manifests", "tags", "referrers", "other"] {
        let series = format!(r#"cachalot_http_requests_in_flight{{handler="{handler}"}}"#);
        assert_eq!(cachalot.metric(&series), 0, "{handler}");
    }
    assert!(cachalot.metric(r#"cachalot_http_connections_shed_total{reason="write_stall"}"#) > 0);
    assert!(cachalot.metric(r#"cachalot_http_connections_shed_total{reason="abandoned_requests"}"#) > 0);
    assert_eq!(registry.gets(&small.to_string()).len(), 1);
    cachalot.finish().await;
}

async fn start(registry: &Registry, ground: &Ground) -> Cachalot {
    let (directory, url) = (tempfile::tempdir().unwrap(), registry.url());
    let sections = ground.listener("");
    let more = More { sections: &sections, ..More::default() };
    let file = crate::harness::configuration(directory.path(), &url, more).replacen(
        "[server]",
        &format!("[server]\n{SERVER}"),
        1,
    );
    Cachalot::of_file(directory, &file).await
}

/// Asks again and again, over both ports and both protocols, until the table is over; returns how many clients there were.
async fn be_good(arena: Arc<Arena>, content: Content, is_over: Arc<AtomicBool>) -> usize {
    let begun = AtomicUsize::new(0);
    let clients = stream::repeat_with(|| begun.fetch_add(1, Ordering::SeqCst))
        .take_while(|number| {
            let goes_on = *number < GOOD_CLIENTS || !is_over.load(Ordering::SeqCst);
            async move { goes_on }
        })
        .map(|number| {
            let (arena, content) = (&arena, &content);
            async move {
                let answer = match number % 3 {
                    0 => crate::harness::Open::send(arena.plain, "GET", &arena.small, &[], bytes::Bytes::new()).await,
                    1 => arena.client.open(arena.secured, "GET", &arena.small, &[]).await,
                    _ => arena.client.http2(arena.secured).await.open("GET", &arena.small, &[]).await.unwrap(),
                };
                let answer = answer.finish().await;
                assert!(
                    answer.status == 200 && answer.is_complete && answer.body == content.bytes(),
                    "client {number}"
                );
            }
        });
    clients.buffer_unordered(GOOD_AT_ONCE).count().await
}
