//! The limits of the data plane, in one place: name, unit, default, reason.

use std::time::Duration;

use http::HeaderValue;

/// Bytes that a connection may buffer in either direction, and so bytes of a request head at the most (S-33).
///
/// hyper holds at most this plus one chunk for a client that reads slowly: with [`crate::store::CHUNK_BYTES`] it bounds the memory
/// of a streaming connection at some 128 KiB. What is sent from a file takes none of it.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// How long a client waits for the head of its answer, everything behind it included: clients give up at 30 s (P-124). Work that
/// others may want goes on.
pub(super) const HEADER_BUDGET: Duration = Duration::from_secs(20);

/// Header lines in a request at the most: twice what the most talkative client sends.
pub(super) const HEADERS_MAX: usize = 100;

/// The configurable limits.
#[derive(Debug, Clone)]
pub struct Options {
    /// Client connections at once at the most; further ones wait to be accepted.
    pub connections: usize,
    /// How long a request head may take, and so how long a connection may idle between requests (hyper has one clock for both).
    pub header_timeout: Duration,
    /// How long a client may leave sent bytes unacknowledged before it is let go.
    pub write_stall_timeout: Duration,
    /// One line per request in the log.
    pub access_log: bool,
    /// What our own requests say in `Via`: one that comes in with it has gone round in a circle (P-119).
    pub via: HeaderValue,
}
