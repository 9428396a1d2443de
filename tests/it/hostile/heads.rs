//! Requests of HTTP/1.1 that hide another one, lead elsewhere, or are none.

use super::attack::Expect::{Closed, RefusedWith, Statuses};
use super::attack::{Row, both, raw};

/// The end of a row's connection, so that what came before it counts alone.
const LAST: &str = "GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A request that must not be found in the body of another one: it would be answered with 404.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

fn get(lines: &str) -> String {
    format!("GET /v2/ HTTP/1.1\r\nHost: a\r\n{lines}Connection: close\r\n\r\n")
}

fn target(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

pub(super) fn rows() -> Vec<Row> {
    [framing(), lines(), targets(), hosts(), others()].into_iter().flatten().collect()
}

fn framing() -> Vec<Row> {
    let refused = || Statuses(vec![400]);
    let chunked = |lines: &str, body: &str| {
        format!("PATCH /v2/app/blobs/uploads/x HTTP/1.1\r\nHost: a\r\n{lines}Transfer-Encoding: chunked\r\n\r\n{body}")
    };
    vec![
        both(
            "S-22: TE and CL",
            format!("{}0\r\n\r\n{HIDDEN}", get("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
            refused(),
        ),
        both(
            "S-22: CL and TE",
            format!("{}0\r\n\r\n{HIDDEN}", get("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")),
            refused(),
        ),
        both("S-22: two CL that differ", get("Content-Length: 0\r\nContent-Length: 5\r\n") + HIDDEN, refused()),
        both("S-22: two CL that agree", get("Content-Length: 3\r\nContent-Length: 3\r\n") + "abc", Statuses(vec![200])),
        both("S-22: a list of CL", get("Content-Length: 3, 4\r\n") + "abc", refused()),
        both("S-22: CL with a sign", get("Content-Length: +3\r\n") + "abc", refused()),
        both("S-22: CL below nothing", get("Content-Length: -1\r\n"), refused()),
        both("S-22: CL beyond counting", get("Content-Length: 99999999999999999999999\r\n"), refused()),
        both("S-22: TE that is not chunked", get("Transfer-Encoding: gzip\r\n"), refused()),
        both("S-22: TE that is chunked first", get("Transfer-Encoding: chunked, gzip\r\n"), refused()),
        both("S-22: TE in HTTP/1.0", "GET /v2/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", refused()),
        both("S-22: TE of a GET", get("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", refused()),
        both("S-22: a bad chunk size", chunked("", &format!("xyz\r\n{HIDDEN}")), RefusedWith(&[400, 404, 405])),
        both("S-22: a chunk size beyond counting", chunked("", "fffffffffffffffff\r\n"), RefusedWith(&[400, 404, 405])),
        both("S-22: a negative chunk size", chunked("", "-1\r\n"), RefusedWith(&[400, 404, 405])),
        both(
            "S-22: a chunk extension of 1 MiB",
            chunked("", &format!("1;{}\r\na\r\n0\r\n\r\n{HIDDEN}", "x".repeat(1 << 20))),
            RefusedWith(&[400, 404, 405]),
        ),
    ]
}

fn lines() -> Vec<Row> {
    let refused = || Statuses(vec![400]);
    vec![
        both("S-22: a folded line", get("X: a\r\n b\r\n"), refused()),
        both("S-22: a bare CR in a value", get("X: a\rb\r\n"), refused()),
        both("S-22: a space before the colon", get("X : a\r\n"), refused()),
        both("S-22: a line without a colon", get("X\r\n"), refused()),
        both("S-22: a NUL in a value", get("X: a\0b\r\n"), refused()),
        both("S-22: a NUL in a name", get("X\0: a\r\n"), refused()),
        both("S-22: a space before the first line's end", "GET /v2/ HTTP/1.1 \r\nHost: a\r\n\r\n", refused()),
        both("S-22: a line before the request that is one", format!("X: a\r\n{LAST}"), refused()),
        both(
            "bare LF ends lines, as RFC 9112 §2.2 allows",
            "GET /v2/ HTTP/1.1\nHost: a\nConnection: close\n\n",
            Statuses(vec![200]),
        ),
        both("S-33: 10,000 headers", get(&"X: a\r\n".repeat(10_000)), RefusedWith(&[431])),
        both("S-33: 101 headers", get(&"X: a\r\n".repeat(101)), Statuses(vec![431])),
        both("S-33: a header of 1 MiB", get(&format!("X: {}\r\n", "a".repeat(1 << 20))), RefusedWith(&[431])),
        both("S-33: headers of 1 MiB", get(&format!("X: {}\r\n", "a".repeat(20_000)).repeat(52)), RefusedWith(&[431])),
        both("S-33: a URI of 1 MiB", target(&format!("/v2/{}", "a".repeat(1 << 20))), RefusedWith(&[414, 431])),
        both("S-33: a URI of 20,000 bytes", target(&format!("/v2/{}", "a".repeat(20_000))), Statuses(vec![414])),
        both(
            "S-33: a method of 1 MiB",
            format!("{} /v2/ HTTP/1.1\r\n\r\n", "A".repeat(1 << 20)),
            RefusedWith(&[400, 431]),
        ),
    ]
}

fn targets() -> Vec<Row> {
    let row = |name, path: &str, status| both(name, target(path), Statuses(vec![status]));
    vec![
        row("P-3: up", "/v2/../etc/passwd", 404),
        row("P-3: up from a name", "/v2/app/../../etc/passwd/manifests/1", 400),
        row("P-3: up, encoded", "/v2/app/%2e%2e/%2e%2e/manifests/1", 400),
        row("P-3: up, encoded twice", "/v2/app/%252e%252e/manifests/1", 400),
        row("P-3: a slash, encoded", "/v2/app%2f..%2fx/manifests/1", 400),
        row("P-3: a NUL, encoded", "/v2/app/manifests/a%00b", 404),
        row("P-3: a backslash", "/v2/app\\..\\x/manifests/1", 400),
        row("P-3: a digest that leads up", "/v2/app/blobs/sha256:../../../etc/passwd", 404),
        row("P-3: the store's own files", "/v2/app/blobs/../../ledger", 404),
        row("another host in the path", "//evil.test/v2/", 404),
        both("a NUL in the target", target("/v2/\0"), Statuses(vec![400])),
        both("a space in the target", target("/v2/ /x"), Statuses(vec![400])),
        both("absolute form", target("http://evil.test/v2/"), Statuses(vec![200])),
        both("absolute form with a user", target("http://user:secret@a/v2/"), Statuses(vec![200])),
        both(
            "authority form",
            "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\nConnection: close\r\n\r\n",
            RefusedWith(&[400, 404, 405]),
        ),
        both(
            "asterisk form",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            RefusedWith(&[400, 404, 405]),
        ),
        both(
            "an unknown method",
            "BREW /v2/app/manifests/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            Statuses(vec![405]),
        ),
        both("a target that is no path", target("v2/"), Statuses(vec![400])),
    ]
}

fn hosts() -> Vec<Row> {
    let with = |host: &str| format!("GET /v2/ HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    vec![
        both("no Host", with(""), Statuses(vec![400])),
        both("no Host in HTTP/1.0", "GET /v2/ HTTP/1.0\r\n\r\n", Statuses(vec![200])),
        both("two Hosts", with("Host: a\r\nHost: b\r\n"), Statuses(vec![400])),
        both("two Hosts that agree", with("Host: a\r\nHost: a\r\n"), Statuses(vec![400])),
        both("an odd Host", with("Host: ../../x\r\n"), Statuses(vec![200])),
        both("an empty Host", with("Host: \r\n"), Statuses(vec![200])),
    ]
}

fn others() -> Vec<Row> {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let pipelined = "GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n".repeat(999) + LAST;
    let garbage: Vec<u8> = (0..5000_u32).map(|at| u8::try_from(at * 7919 % 251).unwrap() | 0x80).collect();
    vec![
        both("P-122: 1,000 requests at once", pipelined, Statuses(vec![200; 1000])),
        both("HTTP/2 without having agreed on it", preface, RefusedWith(&[400, 505])),
        both("HTTP/9.9", "GET /v2/ HTTP/9.9\r\nHost: a\r\n\r\n", RefusedWith(&[400, 505])),
        both("HTTP/0.9", "GET /v2/\r\n", Statuses(vec![400])),
        both("garbage", garbage.clone(), Statuses(vec![400])),
        raw("garbage where TLS is spoken", true, garbage, Closed),
        raw("a record of TLS that is none", true, [&[0x16, 3, 1, 0x40, 0][..], &[0xff; 0x4000]].concat(), Closed),
        raw("P-129: plain HTTP where TLS is spoken", true, LAST, Statuses(vec![400])),
        raw("P-129: HTTP/2 where TLS is spoken", true, preface, Statuses(vec![400])),
        raw(
            "P-128: TLS where none is spoken",
            false,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            Statuses(vec![400]),
        ),
    ]
}
