//! Heads that lie, that are too large, that lead elsewhere, or that ask for the impossible.

use super::Ask::{Blob, Digest, Referrers, Tag, Tags};
use super::At::{All, Get, Head, Token};
use super::{Error, Right, Row, World, meet, meet_in, reply, row};
use crate::harness::{Cachalot, More};
use crate::registry::{Fault, Match, Registry};

/// A digest of nothing that is there.
const OTHER: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

fn with(name: &'static str, value: impl Into<String>) -> Fault {
    Fault::WithHeader(name, value.into())
}

fn digest_header(value: impl Into<String>) -> Fault {
    with("docker-content-digest", value)
}

#[tokio::test]
async fn a_digest_in_a_header_is_never_believed() {
    let mut rows = vec![
        // The registry itself says then that there is no such manifest.
        row("S-10: wrong", Tag, All, digest_header(OTHER), Error(404)),
        row("S-10: wrong", Tag, Head, digest_header(OTHER), Error(404)),
        row("S-10: wrong", Tag, Get, digest_header(OTHER), Right),
        row("S-10: wrong", Digest, All, digest_header(OTHER), Right),
        row("S-10: wrong", Blob, All, digest_header(OTHER), Right),
    ];
    let malformed = ["", "sha256:", "sha256:xyz", "md5:d41d8cd98f00b204e9800998ecf8427e", "a:b:c"];
    let malformed = malformed.map(str::to_owned).into_iter().chain([OTHER.replace('1', "A"), "sha256:1".repeat(2000)]);
    for value in malformed {
        for ask in [Tag, Digest, Blob] {
            rows.push(row(format!("U-56, S-10: malformed {value:.70}"), ask, All, digest_header(value.clone()), Right));
        }
    }
    meet(rows).await;
}

#[tokio::test]
async fn an_encoded_body_is_not_taken_whatever_the_encoding() {
    let mut rows = vec![row("P-123", Tag, Token, Fault::Gzip, Error(502))];
    for ask in [Tag, Digest, Blob, Tags, Referrers] {
        for encoding in ["gzip", "identity, gzip", "nonsense"] {
            rows.push(row(format!("P-123: {encoding}"), ask, Get, with("content-encoding", encoding), Error(502)));
        }
        for encoding in ["IDENTITY", ""] {
            rows.push(row(format!("P-123: {encoding}"), ask, Get, with("content-encoding", encoding), Right));
        }
    }
    meet(rows).await;
}

#[tokio::test]
async fn absurd_dates_and_ages_change_nothing() {
    let mut rows = Vec::new();
    for value in
        ["Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "yesterday", "-1", "99999999999999999999999"]
    {
        for name in ["date", "last-modified", "age"] {
            for ask in [Tag, Blob] {
                rows.push(row(format!("P-136: {name}: {value}"), ask, All, with(name, value), Right));
            }
        }
    }
    for value in ["no-store", "max-age=99999999999999999999", "max-age=-1", "public, immutable, s-maxage=\"\""] {
        rows.push(row(format!("P-136: cache-control: {value}"), Tag, All, with("cache-control", value), Right));
    }
    meet(rows).await;
}

#[tokio::test]
async fn an_absurd_wait_is_told_within_reason() {
    for (value, expected) in [
        ("Fri, 31 Dec 9999 23:59:59 GMT", "3600"),
        ("Thu, 01 Jan 1970 00:00:00 GMT", "1"),
        ("99999999999999999999999", "3600"),
        ("-1", "60"),
        ("soon", "60"),
        ("", "60"),
    ] {
        let world = World::start().await;
        world.registry.fault(Match::manifest("1"), Fault::RateLimited { retry_after: Some(value) }).always();
        let cachalot = Cachalot::over(&world.registry).await;
        let answer = cachalot.get(&world.path(Tag)).await;
        assert_eq!(world.registry.requests().len(), 1, "P-106: {value}");
        assert_eq!((answer.status, answer.header("retry-after")), (503, expected), "P-106: {value}");
        cachalot.finish().await;
    }
}

#[tokio::test]
async fn heads_without_measure_are_refused() {
    let lines = |count: usize, len: usize| format!("X-Line: {}\r\n", "x".repeat(len)).repeat(count);
    let mut rows = Vec::new();
    for (name, lines) in [
        ("one line of 10 MB", lines(1, 10_000_000)),
        ("10 MB of lines", lines(10_000, 1000)),
        ("10,000 lines", lines(10_000, 1)),
    ] {
        let fault = Fault::raw(reply("200 OK", &lines, b"{}"));
        for (ask, at) in
            [(Tag, Head), (Tag, Get), (Digest, All), (Blob, All), (Tags, All), (Referrers, All), (Tag, Token)]
        {
            rows.push(row(format!("S-22: {name}"), ask, at, fault.clone(), Error(502)));
        }
    }
    meet(rows).await;
}

#[tokio::test]
async fn redirects_lead_to_no_place_that_is_not_a_registrys() {
    let mut rows = vec![row("U-59: a loop, for a token", Tag, Token, Fault::RedirectLoop, Error(502))];
    for ask in [Tag, Digest, Blob, Tags, Referrers] {
        rows.push(row("U-59: a loop", ask, All, Fault::RedirectLoop, Error(502)));
        for location in [
            "http://user:password@127.0.0.1/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "javascript:1",
            "http://",
            "http://[::1",
        ] {
            let fault = Fault::RedirectExactly(location.to_owned());
            rows.push(row(format!("U-59: {location}"), ask, All, fault, Error(502)));
        }
        let nowhere = Fault::raw(reply("307 Temporary Redirect", "", b""));
        rows.push(row("U-59: to nowhere", ask, All, nowhere, Error(502)));
        let twice = Fault::raw(reply("307 Temporary Redirect", "Location: ftp://a/\r\nLocation: /v2/\r\n", b""));
        rows.push(row("U-59: to two places", ask, All, twice, Error(502)));
    }
    meet(rows).await;
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_not_followed() {
    let plain = World::start().await;
    for ask in [Tag, Digest, Blob, Tags] {
        let world = World::over(Registry::start_tls().await);
        meet_in(&world, &row("S-30", ask, All, Fault::redirect_to(&plain.registry), Error(502))).await;
    }
    assert_eq!(plain.registry.requests().len(), 0, "S-30");
}

#[tokio::test]
async fn challenges_that_cannot_be_met_are_denials() {
    let unknown = [
        "Negotiate",
        "Negotiate YII/abc+def==",
        "Digest realm=\"a\", nonce=\"b\"",
        "",
        ",,,",
        "Bearer",
        "Bearer realm=\"\"",
        "=\"\\",
    ];
    let many = ["Negotiate, ".repeat(100), "Bearer realm=\"".to_owned() + &"r".repeat(100_000)];
    let mut rows = Vec::new();
    let told =
        |challenge: &str| Fault::raw(reply("401 Unauthorized", &format!("WWW-Authenticate: {challenge}\r\n"), b"no"));
    for challenge in unknown.map(str::to_owned).into_iter().chain(many) {
        for ask in [Tag, Blob] {
            rows.push(row(format!("P-163, P-104: {challenge:.40}"), ask, All, told(&challenge), Error(403)));
        }
    }
    for realm in ["ftp://127.0.0.1/token", "http://user@127.0.0.1/", "/token", "nonsense"] {
        let fault = told(&format!("Bearer realm=\"{realm}\""));
        rows.push(row(format!("S-26: {realm}"), Tag, All, fault, Error(502)));
    }
    let lines = "WWW-Authenticate: Digest realm=\"d\"\r\n".repeat(90);
    rows.push(row("P-163: 90 of them", Tag, All, Fault::raw(reply("401 Unauthorized", &lines, b"")), Error(403)));
    rows.push(row("P-163: one of a megabyte", Tag, All, told(&"x".repeat(1 << 20)), Error(502)));
    rows.push(row("P-168: whatever token", Tag, All, Fault::InsufficientScope, Error(403)));
    meet(rows).await;
}

#[tokio::test]
async fn links_lead_nowhere_else() {
    let other = World::start().await;
    for value in [
        "<http://other/v2/app/tags/list?last=1>; rel=\"next\"".to_owned(),
        format!("<{}/v2/app/tags/list?x>; rel=next", other.registry.url().replace("127.0.0.1", "localhost")),
        "<".repeat(5000),
        "<>; rel=next".to_owned(),
    ] {
        let rows: Vec<Row> = [Tags, Referrers]
            .map(|ask| row(format!("S-28: {value:.60}"), ask, All, with("link", value.clone()), Right))
            .into();
        meet(rows).await;
        let world = World::start().await;
        world.registry.fault(Match::path("/tags/list"), with("link", value.clone()));
        let cachalot = Cachalot::configured(&world.registry, More::default()).await;
        let answer = cachalot.get(&world.path(Tags)).await;
        assert_eq!(answer.header("link"), "", "S-28: {value:.60}");
        cachalot.finish().await;
    }
    assert_eq!(other.registry.requests().len(), 0, "S-28");
}
