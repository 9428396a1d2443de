//! Frames of HTTP/2 (RFC 9113), written by hand.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::attack::Arena;

/// What a client of HTTP/2 sends first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// Returns one frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns one setting as a frame.
pub(super) fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// Returns a header in literals without Huffman coding (RFC 7541 §6.2.2).
pub(super) fn header(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &length(name.len()), name.as_bytes(), &length(value.len()), value.as_bytes()].concat()
}

/// Writes an integer of seven bits and more (RFC 7541 §5.1).
fn length(mut value: usize) -> Vec<u8> {
    if value < 127 {
        return vec![u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![127];
    value -= 127;
    while value >= 128 {
        bytes.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

/// Returns the header block of a GET.
pub(super) fn block(path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)];
    fields.iter().flat_map(|(name, value)| header(name, value)).collect()
}

/// Returns a GET on this stream.
pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(path))
}

/// A connection over TLS on which HTTP/2 was agreed on, of which nothing was sent yet.
pub(super) async fn connect(arena: &Arc<Arena>) -> TlsStream<TcpStream> {
    arena.client.offering(&["h2"]).connect(arena.secured).await.unwrap()
}

/// Reads frames until one fits; `None` when the connection ends before.
pub(super) async fn await_frame(
    stream: &mut (impl AsyncReadExt + Unpin),
    fits: impl Fn(u8, u8, u32, &[u8]) -> bool,
) -> Option<Vec<u8>> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.ok()?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if fits(head[3], head[4], id, &payload) {
            return Some(payload);
        }
    }
}

/// Reads until the connection ends; it may end by a reset.
pub(super) async fn await_end(stream: &mut (impl AsyncReadExt + Unpin)) {
    while await_frame(stream, |_, _, _, _| false).await.is_some() {}
}

/// Writes what the peer may not want to read to its end any more.
pub(super) async fn write(stream: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> bool {
    stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok()
}
