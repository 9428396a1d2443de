//! Bytes that are not HTTP, or that could be read in two ways; documents that are bombs or nonsense.

use cachalot::oci::MediaType;

use super::Ask::{Blob, Digest, Referrers, Tag, Tags};
use super::At::{All, Get, Head, Token};
use super::{Error, Right, Row, World, as_manifest, meet, meet_in, reply, row};
use crate::harness::Cachalot;
use crate::registry::Fault;

#[tokio::test]
async fn bytes_that_are_not_http_are_an_error() {
    let texts: &[&[u8]] = &[
        b"",
        b"HTTP/1.1 2",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 1000 High\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"{\"schemaVersion\":2}",
        b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : value\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: value\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ];
    let mut rows = Vec::new();
    for text in texts {
        let name = format!("S-22: {}", String::from_utf8_lossy(text).escape_debug());
        for ask in [Digest, Blob] {
            rows.push(row(name.clone(), ask, All, Fault::raw(*text), Error(502)));
        }
    }
    for (ask, at) in [(Tag, All), (Tags, All), (Referrers, All), (Tag, Token)] {
        rows.push(row("S-22: another protocol", ask, at, Fault::raw("SSH-2.0-OpenSSH_9.9\r\n"), Error(502)));
    }
    meet(rows).await;
}

#[tokio::test]
async fn odd_statuses_are_no_success() {
    let mut rows = Vec::new();
    for status in [201, 203, 204, 226, 300, 304, 451, 599, 999] {
        for ask in [Digest, Blob, Tags] {
            rows.push(row(format!("P-107: {status}"), ask, All, Fault::Status(status, ""), Error(502)));
        }
    }
    for ask in [Tag, Digest, Tags] {
        rows.push(row("P-107: 206 for a whole", ask, All, Fault::Status(206, "{}"), Error(502)));
    }
    meet(rows).await;
}

#[tokio::test]
async fn lengths_that_cannot_be_are_an_error() {
    let world = World::start().await;
    let body = String::from_utf8(world.image.bytes.to_vec()).unwrap();
    let (len, media_type) = (body.len(), world.image.media_type);
    let mut rows = Vec::new();
    for lines in [
        "Content-Length: -1".to_owned(),
        format!("Content-Length: +{len}"),
        "Content-Length: 0x190".to_owned(),
        "Content-Length: 18446744073709551616".to_owned(),
        format!("Content-Length: {len}\r\nContent-Length: {}", len - 1),
        format!("Content-Length: {len}, {}", len - 1),
        "Transfer-Encoding: gzip, chunked".to_owned(),
        "Transfer-Encoding: chunked".to_owned(),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n{lines}\r\n\r\n{body}");
        rows.push(row(format!("S-22: {lines}"), Digest, Get, Fault::raw(text), Error(502)));
    }
    for (name, chunks) in [
        ("a size that is no number", format!("zz\r\n{body}\r\n0\r\n\r\n")),
        ("a size beyond everything", format!("ffffffffffffffffff\r\n{body}\r\n0\r\n\r\n")),
        ("no last chunk", format!("{len:x}\r\n{body}\r\n")),
        ("a chunk without its end", format!("{len:x}\r\n{body}0\r\n\r\n")),
        ("an extension without end", format!("{len:x};{}\r\n{body}\r\n0\r\n\r\n", "x".repeat(1_000_000))),
        ("trailers without end", format!("{len:x}\r\n{body}\r\n0\r\n{}\r\n", "X-Line: x\r\n".repeat(100_000))),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n");
        rows.push(row(format!("S-22: {name}"), Digest, Get, Fault::raw(head + &chunks), Error(502)));
    }
    for difference in [-5, 5] {
        for ask in [Tag, Digest] {
            rows.push(row("P-49", ask, Get, Fault::WrongLength(difference), Error(502)));
        }
        rows.push(row("P-93", Tags, Get, Fault::WrongLength(difference), Error(502)));
    }
    rows.push(row("P-49: more than was announced", Digest, Get, Fault::ExtraBytes(5), Error(502)));
    // What is no range is asked for as a whole; what ends with its connection is believed for its digest.
    rows.push(row("P-67: another part", Blob, Get, Fault::WrongRange, Right));
    let text = format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: nonsense\r\n\r\n{body}");
    rows.push(row("U-62: no length at all", Digest, Get, Fault::raw(text), Right));
    meet(rows).await;
}

#[tokio::test]
async fn what_comes_beside_an_answer_is_not_taken_for_the_next_one() {
    let smuggled =
        as_manifest(br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#);
    for at in [Head, Get] {
        for closes in [true, false] {
            let world = World::start().await;
            let right = world.manifest_with("");
            // To a HEAD the body is already too much.
            let bytes = [&right[..], &smuggled[..], &smuggled[..]].concat().into();
            meet_in(&world, &row("S-23", Tag, at, Fault::Raw { bytes, closes }, Right)).await;
        }
    }
}

#[tokio::test]
async fn a_header_that_comes_twice_settles_nothing_wrong() {
    let other = "Docker-Content-Digest: sha256:1111111111111111111111111111111111111111111111111111111111111111\r\n";
    for lines in [other, "Content-Type: text/html\r\n", "Content-Type: \r\n", "Date: x\r\nDate: y\r\n"] {
        for ask in [Tag, Digest] {
            let world = World::start().await;
            let fault = Fault::raw(world.manifest_with(lines));
            meet_in(&world, &row(format!("S-10: {lines}"), ask, Get, fault, Right)).await;
        }
    }
}

#[tokio::test]
async fn a_flood_of_early_hints_is_waited_out() {
    let world = World::start().await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(10_000);
    let bytes = [hints.as_bytes(), &world.manifest_with("")].concat();
    meet_in(&world, &row("S-22", Digest, Get, Fault::raw(bytes), Right)).await;
}

#[tokio::test]
async fn documents_that_are_bombs_or_nonsense_are_refused() {
    let deep = "[".repeat(100_000);
    let wide = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, vec!["{}"; 100_000].join(","));
    let documents = [
        deep.clone(),
        format!(r#"{{"schemaVersion":2,"config":{{}},"layers":[],"annotations":{}"#, "{\"a\":".repeat(100_000)),
        wide,
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "\u{feff}{}".to_owned(),
        r#"{"schemaVersion":1e400}"#.to_owned(),
        r#"{"schemaVersion":2,"schemaVersion":2,"manifests":[]}"#.to_owned(),
        r#"{"errors":[{"code":"UNKNOWN","message":"but the status is 200"}]}"#.to_owned(),
    ];
    let mut rows: Vec<Row> = Vec::new();
    for document in &documents {
        let fault = Fault::raw(as_manifest(document.as_bytes()));
        for ask in [Tag, Digest] {
            rows.push(row(format!("S-11, S-13: {document:.60}"), ask, Get, fault.clone(), Error(502)));
        }
    }
    rows.push(row("S-13: not UTF-8", Tag, Get, Fault::raw(as_manifest(b"{\"a\":\"\xff\"}")), Error(502)));
    let list = |text: &str| Fault::raw(reply("200 OK", "Content-Type: application/json\r\n", text.as_bytes()));
    for text in [deep.as_str(), "{}", r#"{"tags":{}}"#, r#"{"tags":[1]}"#, r#"{"tags":["#, r#"{"tags":"1"}"#, ""] {
        rows.push(row(format!("P-93: {text:.40}"), Tags, All, list(text), Error(502)));
    }
    let index = |text: &str| {
        let lines = format!("Content-Type: {}\r\n", MediaType::OCI_INDEX);
        Fault::raw(reply("200 OK", &lines, text.as_bytes()))
    };
    for text in [deep.as_str(), "{", r#"{"manifests":{}}"#] {
        rows.push(row(format!("P-87: {text:.40}"), Referrers, All, index(text), Error(502)));
    }
    // An entry that names nothing is left out, and the fallback tag has the one that does.
    let nonsense = index(r#"{"manifests":[{"digest":"sha256:1"}]}"#);
    rows.push(row("P-87: an entry that names nothing", Referrers, All, nonsense, Right));
    meet(rows).await;
}

#[tokio::test]
async fn answers_of_token_services_are_read_with_care() {
    let deep = format!(r#"{{"token":"t","x":{}"#, "[".repeat(100_000));
    let mut rows = Vec::new();
    for answer in [
        "",
        "{}",
        "[]",
        "\"t\"",
        r#"{"token":""}"#,
        r#"{"token":1}"#,
        r#"{"token":"a\r\nX-Evil: b"}"#,
        r#"{"token":"\u0000"}"#,
        &deep,
    ] {
        let fault = Fault::raw(reply("200 OK", "Content-Type: application/json\r\n", answer.as_bytes()));
        for ask in [Tag, Blob] {
            rows.push(row(format!("P-166: {answer:.40}"), ask, Token, fault.clone(), Error(502)));
        }
    }
    for status in [201, 204, 302, 404, 418, 500] {
        rows.push(row(format!("P-170: {status}"), Tag, Token, Fault::Status(status, ""), Error(502)));
    }
    meet(rows).await;
}

#[tokio::test]
async fn a_token_is_used_whatever_it_says_of_its_life() {
    for life in ["0", "-1", "1e400", "18446744073709551616", "\"soon\"", "null", "[]", "9223372036854775807"] {
        let world = World::start().await;
        // The registry takes no token but its own; this one is met by another 401, which ends the question.
        world.registry.require_token();
        world.registry.answer_tokens_with(&format!(r#"{{"token":"mine","expires_in":{life},"issued_at":"9999"}}"#));
        let cachalot = Cachalot::over(&world.registry).await;
        let answer = cachalot.get(&world.path(Tags)).await;
        let shown: Vec<_> = world.registry.gets("/tags/").into_iter().filter_map(|get| get.authorization).collect();
        let expected: &[&str] = if life == "1e400" { &[] } else { &["Bearer mine"] };
        assert_eq!(shown, expected, "P-166: {life}");
        assert_eq!(answer.status, if life == "1e400" { 502 } else { 403 }, "P-166: {life}");
        cachalot.finish().await;
    }
}
