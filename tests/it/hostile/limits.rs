//! Clients that are slow, or take nothing: each is let go when its time is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::attack::{Arena, Row};

/// Between two bytes of those who are slow: less than any of the times that are allowed.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row::doing("S-32: a TLS handshake that is not begun", async |arena: Arc<Arena>| {
            let mut stream = TcpStream::connect(arena.secured).await.unwrap();
            assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        }),
        Row::doing("S-32: a TLS handshake byte by byte", async |arena: Arc<Arena>| {
            let stream = TcpStream::connect(arena.secured).await.unwrap();
            dribble(stream, &[&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc][..], &[3; 500]].concat()).await;
        }),
        Row::doing("P-129: plain HTTP where TLS is spoken, and the answer is not read", async |arena: Arc<Arena>| {
            let mut stream = TcpStream::connect(arena.secured).await.unwrap();
            while stream.write_all(&[b'G'; 1000]).await.is_ok() {
                tokio::time::sleep(PAUSE).await;
            }
        }),
    ];
    for (name, is_secured) in [("plain", false), ("TLS", true)] {
        rows.push(Row::doing(name_of("S-32: no head", name), async move |arena: Arc<Arena>| {
            let mut stream = connect(&arena, is_secured).await;
            assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        }));
        rows.push(Row::doing(name_of("S-32: a head byte by byte", name), async move |arena: Arc<Arena>| {
            let head = format!("GET /v2/ HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(1000));
            dribble(connect(&arena, is_secured).await, head.as_bytes()).await;
        }));
        rows.push(Row::doing(name_of("S-34: an answer that is not read", name), async move |arena: Arc<Arena>| {
            let mut stream = connect(&arena, is_secured).await;
            request(&mut stream, &arena.large).await;
            // The end shows in writing: reading would be what this client does not do.
            while stream.write_all(b"x").await.is_ok() && stream.flush().await.is_ok() {
                tokio::time::sleep(PAUSE).await;
            }
        }));
        rows.push(Row::doing(
            name_of("S-34: an answer that is read byte by byte", name),
            async move |arena: Arc<Arena>| {
                let mut stream = connect(&arena, is_secured).await;
                request(&mut stream, &arena.large).await;
                while matches!(stream.read(&mut [0]).await, Ok(1)) {
                    tokio::time::sleep(PAUSE).await;
                    if stream.write_all(b"x").await.is_err() {
                        break;
                    }
                }
            },
        ));
        rows.push(Row::doing(
            name_of("S-34: heads that are asked for and not read", name),
            async move |arena: Arc<Arena>| {
                let mut stream = connect(&arena, is_secured).await;
                let heads = "HEAD /v2/ HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
                while stream.write_all(heads.as_bytes()).await.is_ok() {}
            },
        ));
    }
    rows
}

fn name_of(what: &str, how: &str) -> &'static str {
    format!("{what}, {how}").leak()
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(arena: &Arena, is_secured: bool) -> Box<dyn Stream> {
    if is_secured {
        Box::new(arena.client.offering(&["http/1.1"]).connect(arena.secured).await.unwrap())
    } else {
        Box::new(TcpStream::connect(arena.plain).await.unwrap())
    }
}

async fn request(stream: &mut Box<dyn Stream>, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

/// Writes byte by byte until nobody takes them, or none is left, and waits for the end.
async fn dribble(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    for byte in bytes {
        if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("everything was taken");
}
