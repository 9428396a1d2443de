//! Connections of HTTP/2 that break its rules, or keep them and ask too much.

use std::sync::Arc;

use tokio::io::AsyncReadExt;

use super::attack::{Arena, Row, exchange};
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, await_end, await_frame, block, connect, frame, get, header, setting, write,
};

/// The settings of a client that wants none in particular.
fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// Sends these bytes after a proper beginning; the connection must end, and by an error that is told, not because it idles.
fn ends(name: &'static str, bytes: impl Into<Vec<u8>>) -> Row {
    let bytes = [hello(), bytes.into()].concat();
    Row::doing(name, async move |arena: Arc<Arena>| {
        let mut stream = connect(&arena).await;
        write(&mut stream, &bytes).await;
        let told = await_frame(&mut stream, |kind, _, _, payload| kind == GOAWAY && payload[4..8] != [0; 4]).await;
        assert!(told.is_some(), "{name}: the end is an error");
        await_end(&mut stream).await;
    })
}

/// Sends these bytes after a proper beginning; the connection is told to go when its time is over.
fn is_let_go(name: &'static str, bytes: impl Into<Vec<u8>>) -> Row {
    let bytes = [hello(), bytes.into()].concat();
    Row::doing(name, async move |arena: Arc<Arena>| {
        let mut stream = connect(&arena).await;
        assert!(write(&mut stream, &bytes).await, "{name}");
        assert!(await_frame(&mut stream, |kind, _, _, _| kind == GOAWAY).await.is_some(), "{name}: it is told to go");
        await_end(&mut stream).await;
    })
}

/// Sends these bytes after a proper beginning; a request afterwards must be answered with this status.
fn goes_on(name: &'static str, bytes: impl Into<Vec<u8>>) -> Row {
    let bytes = [hello(), bytes.into()].concat();
    Row::doing(name, async move |arena: Arc<Arena>| {
        let mut stream = connect(&arena).await;
        assert!(write(&mut stream, &bytes).await, "{name}");
        assert!(write(&mut stream, &get(2001, "/v2/")).await, "{name}");
        let answered = await_frame(&mut stream, |kind, _, id, _| (kind, id) == (HEADERS, 2001)).await;
        assert!(answered.is_some(), "{name}: the next request is answered");
    })
}

pub(super) fn rows() -> Vec<Row> {
    [broken(), windows(), floods()].into_iter().flatten().collect()
}

fn broken() -> Vec<Row> {
    let bare = |name, bytes: Vec<u8>| {
        Row::doing(name, async move |arena: Arc<Arena>| {
            exchange(connect(&arena).await, &bytes).await;
        })
    };
    let headers = |flags, fields: &[(&str, &str)]| {
        let block: Vec<u8> = fields.iter().flat_map(|(name, value)| header(name, value)).collect();
        frame(HEADERS, flags, 1, &block)
    };
    vec![
        bare("HTTP/1.1 where HTTP/2 was agreed on", b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        bare("garbage where HTTP/2 was agreed on", vec![0xa5; 5000]),
        bare("S-33: half a preface, and no more", PREFACE[..10].to_vec()),
        bare("S-33: a preface, and no more", PREFACE.to_vec()),
        ends("a frame that is too large", frame(DATA, 0, 1, &vec![0; 20_000])),
        ends("data on stream 0", frame(DATA, 0, 0, b"x")),
        ends("a request on an even stream", get(2, "/v2/")),
        ends("a request on an older stream", [get(5, "/v2/"), get(3, "/v2/")].concat()),
        ends("a pushed stream", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ends("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &block("/v2/"))),
        ends(
            "headers that are interrupted",
            [frame(HEADERS, 0, 1, &block("/v2/")), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        ends("headers that are none", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 50])),
        ends("a ping of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ends("settings of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ends("a window beyond counting, by a setting", setting(4, u32::MAX)),
        ends("a frame size below the least", setting(5, 1)),
        is_let_go("S-33: half a request head, and no more", frame(HEADERS, 0, 1, &block("/v2/"))),
        goes_on("priorities that make no sense", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 255]).repeat(500)),
        goes_on("a stream that depends on itself", frame(PRIORITY, 0, 3, &[0, 0, 0, 3, 0])),
        goes_on("frames of an unknown kind", frame(0xee, 0xff, 1, &[0xee; 100]).repeat(50)),
        goes_on(
            "a request without a path",
            headers(END_HEADERS | END_STREAM, &[(":method", "GET"), (":scheme", "https")]),
        ),
        ends(
            "a header in capitals",
            headers(
                END_HEADERS | END_STREAM,
                &[(":method", "GET"), (":path", "/v2/"), (":scheme", "https"), ("X-A", "b")],
            ),
        ),
        goes_on("P-3: a path that leads up", get(1, "/v2/app/../../../etc/passwd/manifests/1")),
        goes_on(
            "S-22: TE in HTTP/2",
            headers(
                END_HEADERS | END_STREAM,
                &[(":method", "GET"), (":path", "/v2/"), (":scheme", "https"), ("transfer-encoding", "chunked")],
            ),
        ),
        goes_on(
            "a length that is not that of the body",
            [
                headers(
                    END_HEADERS,
                    &[(":method", "GET"), (":path", "/v2/"), (":scheme", "https"), ("content-length", "5")],
                ),
                frame(DATA, END_STREAM, 1, b"x"),
            ]
            .concat(),
        ),
    ]
}

fn windows() -> Vec<Row> {
    let update = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    vec![
        ends("a window update by nothing, of the connection", update(0, 0)),
        ends("a window beyond counting", [update(0, 0x7fff_ffff), update(0, 0x7fff_ffff)].concat()),
        Row::doing("S-34: 100 streams and no window", async move |arena: Arc<Arena>| {
            let mut stream = connect(&arena).await;
            let requests: Vec<u8> = (0..100).flat_map(|at| get(2 * at + 1, &arena.large)).collect();
            assert!(write(&mut stream, &[hello(), setting(4, 0), requests].concat()).await);
            await_end(&mut stream).await;
        }),
        Row::doing("S-34: windows of one byte", async move |arena: Arc<Arena>| {
            let mut stream = connect(&arena).await;
            let requests: Vec<u8> = (0..50).flat_map(|at| get(2 * at + 1, &arena.small)).collect();
            assert!(write(&mut stream, &[hello(), setting(4, 1), requests].concat()).await);
            // One byte more of each, now and then, and pings in between: all that the rules ask.
            for _ in 0..5 {
                let more: Vec<u8> = (0..50).flat_map(|at| update(2 * at + 1, 1)).collect();
                if !write(&mut stream, &[more, frame(PING, 0, 0, &[7; 8])].concat()).await {
                    return;
                }
                if await_frame(&mut stream, |kind, flags, _, _| (kind, flags) == (PING, 1)).await.is_none() {
                    return;
                }
            }
            await_end(&mut stream).await;
        }),
        Row::doing("S-34: a window, and nothing is read", async move |arena: Arc<Arena>| {
            let mut stream = connect(&arena).await;
            assert!(
                write(
                    &mut stream,
                    &[hello(), setting(4, 0x7fff_ffff), update(0, 0x7fff_0000), get(1, &arena.large)].concat()
                )
                .await
            );
            until_gone(&mut stream).await;
        }),
        is_let_go("S-33: a connection without a request", []),
    ]
}

/// Waits for a peer that gives up on us, without reading what it sent: then there is nobody who takes what is written.
async fn until_gone(stream: &mut tokio_rustls::client::TlsStream<tokio::net::TcpStream>) {
    while write(stream, &frame(PING, 0, 0, &[0; 8])).await {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn floods() -> Vec<Row> {
    let rapid = |name, count: u32, path: fn(&Arena) -> String| {
        Row::doing(name, async move |arena: Arc<Arena>| {
            let mut stream = connect(&arena).await;
            write(&mut stream, &hello()).await;
            for at in 0..count {
                let request =
                    [get(2 * at + 1, &path(&arena)), frame(RST_STREAM, 0, 2 * at + 1, &[0, 0, 0, 8])].concat();
                if !write(&mut stream, &request).await {
                    return;
                }
            }
            await_end(&mut stream).await;
        })
    };
    let endless = |name, start: Vec<u8>, one: Vec<u8>| {
        Row::doing(name, async move |arena: Arc<Arena>| {
            let mut stream = connect(&arena).await;
            write(&mut stream, &[hello(), start].concat()).await;
            // 64 MiB at the most.
            for _ in 0..(64 << 20) / one.len() {
                if !write(&mut stream, &one).await {
                    break;
                }
            }
            let mut rest = Vec::new();
            let _ended = stream.read_to_end(&mut rest).await;
        })
    };
    let large = header("x-large", &"a".repeat(15_000));
    vec![
        rapid("S-33: requests and resets (CVE-2023-44487)", 100_000, |_| "/v2/".to_owned()),
        rapid("S-33: blobs and resets", 100_000, |arena| arena.large.clone()),
        Row::doing("S-33: answers that are left once they have begun", async move |arena: Arc<Arena>| {
            let mut stream = connect(&arena).await;
            write(&mut stream, &hello()).await;
            for round in 0..5000 {
                // Twenty at once: each round waits for its answers to begin.
                let ids: Vec<u32> = (0..20).map(|at| 2 * (20 * round + at) + 1).collect();
                if !write(&mut stream, &ids.iter().flat_map(|id| get(*id, &arena.large)).collect::<Vec<_>>()).await {
                    return;
                }
                for _ in &ids {
                    if await_frame(&mut stream, |kind, _, _, _| kind == HEADERS).await.is_none() {
                        return;
                    }
                }
                let resets = ids.iter().flat_map(|id| frame(RST_STREAM, 0, *id, &[0, 0, 0, 8]));
                if !write(&mut stream, &resets.collect::<Vec<_>>()).await {
                    return;
                }
            }
            panic!("100,000 answers were left");
        }),
        endless(
            "S-33: continuations without end (CVE-2024-24549)",
            frame(HEADERS, 0, 1, &block("/v2/")),
            frame(CONTINUATION, 0, 1, &large),
        ),
        endless(
            "S-33: empty continuations without end",
            frame(HEADERS, 0, 1, &block("/v2/")),
            frame(CONTINUATION, 0, 1, &[]).repeat(100),
        ),
        Row::doing("S-33: a header list of 300 KiB", async move |arena: Arc<Arena>| {
            let mut stream = connect(&arena).await;
            let more: Vec<u8> = frame(CONTINUATION, 0, 1, &large).repeat(20);
            let request =
                [frame(HEADERS, END_STREAM, 1, &block("/v2/")), more, frame(CONTINUATION, END_HEADERS, 1, &[])];
            write(&mut stream, &[hello(), request.concat()].concat()).await;
            await_end(&mut stream).await;
        }),
        goes_on("S-33: 10,000 pings", frame(PING, 0, 0, &[0; 8]).repeat(10_000)),
        goes_on("S-33: 10,000 settings", setting(3, 100).repeat(10_000)),
        Row::doing("S-33: pings, and no answer is read", async move |arena: Arc<Arena>| {
            let mut stream = connect(&arena).await;
            write(&mut stream, &hello()).await;
            while write(&mut stream, &frame(PING, 0, 0, &[0; 8]).repeat(1000)).await {}
        }),
    ]
}
