//! Who is at the other end of a connection.

use std::net::SocketAddr;

/// The other end of a connection, as far as it is known before the first request.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
}
