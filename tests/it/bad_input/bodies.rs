//! Bodies that are something else, that do not end, that are encoded, or whose length is a lie.

use super::Ask::{Blob, Digest, Referrers, Tag, Tags};
use super::At::{All, Get, Token};
use super::{Error, Right, SENT_MAX, STORE, Short, World, meet, row};
use crate::harness::{Cachalot, More};
use crate::registry::{Fault, MIB, Match};

#[tokio::test]
async fn a_page_of_html_is_nothing_that_was_asked_for() {
    meet(vec![
        row("U-71", Tag, All, Fault::HtmlPage, Error(502)),
        row("U-71", Tag, Get, Fault::HtmlPage, Error(502)),
        row("U-71", Digest, All, Fault::HtmlPage, Error(502)),
        row("U-71", Blob, All, Fault::HtmlPage, Short),
        row("P-93", Tags, All, Fault::HtmlPage, Error(502)),
        row("P-76: as good as no API", Referrers, All, Fault::HtmlPage, Right),
        row("P-67: a part of nothing", Blob, All, Fault::Endless(206, None), Error(502)),
        row("P-166", Tag, Token, Fault::HtmlPage, Error(502)),
        row("P-166", Blob, Token, Fault::HtmlPage, Error(502)),
    ])
    .await;
}

#[tokio::test]
async fn what_does_not_end_is_ended() {
    let endless = |status, announced: Option<u64>| Fault::Endless(status, announced);
    let mut rows = Vec::new();
    for announced in [None, Some(1 << 50)] {
        rows.extend([
            row("P-92", Tag, Get, endless(200, announced), Error(502)),
            row("P-92", Digest, Get, endless(200, announced), Error(502)),
            row("P-100", Tags, All, endless(200, announced), Error(502)),
            row("P-92", Referrers, All, endless(200, announced), Error(502)),
            row("P-170", Tag, Token, endless(200, announced), Error(502)),
            row("P-103: an error's body", Tag, All, endless(418, announced), Error(502)),
            row("P-103: an error's body", Tags, All, endless(404, announced), Error(404)),
            row("P-103: a denial's body", Blob, All, endless(403, announced), Error(403)),
            row("P-103: a token error's body", Tag, Token, endless(400, announced), Error(502)),
            row("U-59: a redirect's body", Tag, All, endless(307, announced), Error(502)),
        ]);
    }
    meet(rows).await;
}

#[tokio::test]
async fn a_blob_that_does_not_end_ends_with_its_reader_and_leaves_nothing() {
    for (announced, read) in [(None, MIB), (None, 20 * MIB), (Some(1 << 50), MIB), (Some(1 << 50), 20 * MIB)] {
        let world = World::start().await;
        let World { registry, .. } = &world;
        let path = world.path(Blob);
        registry.fault(Match::path(&path), Fault::Endless(200, announced)).always();
        let more = More { store: STORE, ..More::default() };
        let cachalot = Cachalot::configured(registry, more).await;
        let mut answer = cachalot.open("GET", &path, &[]).await;
        let bytes = answer.read(usize::try_from(read).unwrap()).await;
        assert!(answer.status == 200 && bytes.is_some(), "P-44: what comes is passed on, {announced:?}");
        drop(answer);
        registry.wait_for(|log| log.running() == 0).await;
        assert!(registry.bytes_sent("/blobs/") < read + SENT_MAX, "P-131, {announced:?}, {read}");
        registry.clear_faults();
        let after = cachalot.get(&path).await;
        assert!(world.is_right(Blob, &after), "P-49, {announced:?}, {read}: {} {}", after.status, after.body.len());
        cachalot.finish().await;
    }
}
