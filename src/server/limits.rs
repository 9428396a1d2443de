//! The limits of the data plane, in one place: name, unit, default, reason.
//!
//! What one connection takes of memory at the most, beside the tasks themselves (some 10 KiB):
//!
//! | connection | buffers | at the most |
//! |---|---|---|
//! | plain | [`BUFFER_BYTES`] in either direction, one chunk of [`crate::store::CHUNK_BYTES`]; content of files takes none | 192 KiB |
//! | TLS, HTTP/1.1 | the same, 64 KiB of records that wait for the socket (what rustls allows by itself), and one record that comes in (16 KiB) | 272 KiB |
//! | TLS, HTTP/2 | [`H2_STREAMS_MAX`] streams with one chunk, [`H2_SEND_BYTES`] and [`H2_HEADERS_BYTES_MAX`] each; [`H2_CONNECTION_WINDOW_BYTES`] of request bodies; the records | 13 MiB |
//!
//! A manifest or a list that is answered counts besides, at most 4 MiB, which the memory tier shares where it has it. What the kernel keeps
//! of a connection is `net.ipv4.tcp_wmem`'s to say.
//!
//! So does a manifest that is pushed, at most as `inbox` says for one client and for all.
//!
//! An idle one has none of them. A client that fills them and leaves them so is let go after `server.write_stall_timeout` (`flow`), and
//! has no more than `clients.connections` of them.

use std::time::Duration;

use http::HeaderValue;

/// Bytes that a connection may buffer in either direction, and so bytes of a request head at the most (S-33).
///
/// hyper holds at most this plus one chunk for a client that reads slowly. What is sent from a file takes none of it.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// How long a client waits for the head of its answer, everything behind it included: clients give up at 30 s (P-124). Work that
/// others may want goes on.
pub(super) const HEADER_BUDGET: Duration = Duration::from_secs(20);

/// Header lines in a request at the most: twice what the most talkative client sends.
pub(super) const HEADERS_MAX: usize = 100;

/// Bytes of a body that a client takes within `server.write_stall_timeout` at the least, unless that is all there is: below it, an image
/// of 1 GiB would take more than a month.
pub(super) const STALL_BYTES_MIN: u64 = 16 * 1024;

/// Exchanges that a client may leave before their end over a connection's life: an interrupted pull leaves a dozen. Who leaves more is
/// asked to go on with another connection, for a proxy's many clients leave by and by; who leaves twice as many is cut off. It is what
/// a flood of requests and resets costs a client (CVE-2023-44487).
pub(super) const ABANDONED_MAX: u32 = 200;

/// Streams of one HTTP/2 connection at once: RFC 9113 §6.5.2 advises against fewer than 100.
pub(super) const H2_STREAMS_MAX: u32 = 100;

/// Bytes of a stream's body that are buffered before the next chunk is asked for: one frame.
pub(super) const H2_SEND_BYTES: usize = 16 * 1024;

/// Bytes of a request head in HTTP/2, by the count of RFC 9113 §6.5.2: several of the longest tokens.
pub(super) const H2_HEADERS_BYTES_MAX: u32 = 32 * 1024;

/// Bytes of request bodies that a client may send ahead on one stream, and on all streams of a connection together: what a fast line
/// holds, without letting uploads that nobody reads pile up.
pub(super) const H2_STREAM_WINDOW_BYTES: u32 = 512 * 1024;
pub(super) const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Streams that a client has opened and reset before we have looked at them: a browser's accident, not a habit.
pub(super) const H2_PENDING_RESETS_MAX: usize = 20;

/// Streams that we have reset for a client's mistakes, over a connection's life.
pub(super) const H2_LOCAL_RESETS_MAX: usize = 200;

/// How often a connection of HTTP/2 is asked whether somebody is still there, and how long that may take.
pub(super) const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
pub(super) const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The configurable limits.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a TLS handshake may take, beginning with the connection.
    pub handshake_timeout: Duration,
    /// How long a request head may take, and so how long a connection may idle between requests (hyper has one clock for both).
    pub header_timeout: Duration,
    /// How long a client may leave what it was given, in the kernel or here, before it is let go.
    pub write_stall_timeout: Duration,
    /// One line per request in the log.
    pub access_log: bool,
    /// What our own requests say in `Via`: one that comes in with it has gone round in a circle (P-119).
    pub via: HeaderValue,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::CHUNK_BYTES;

    #[test]
    fn a_connection_takes_no_more_memory_than_the_table_says() {
        const KIB: usize = 1024;
        let plain = 2 * BUFFER_BYTES + CHUNK_BYTES;
        assert_eq!(plain, 192 * KIB);
        let records = 64 * KIB + 16 * KIB;
        assert_eq!(plain + records, 272 * KIB);
        let stream = CHUNK_BYTES + H2_SEND_BYTES + H2_HEADERS_BYTES_MAX as usize;
        let streams = H2_STREAMS_MAX as usize * stream;
        assert!(streams + H2_CONNECTION_WINDOW_BYTES as usize + records <= 13 * KIB * KIB, "{streams}");
    }
}
