//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use super::listener::ListenerRules;
use super::tls::ClientCertificate;

/// The other end of a connection, as far as it is known before the first request.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// What an authority of the listener vouches for.
    #[allow(dead_code, reason = "read by the part that says who a caller is")]
    pub(super) certificate: Option<ClientCertificate>,
    /// What the listener decides.
    #[allow(dead_code, reason = "read by the part that says who a caller is")]
    pub(super) rules: Arc<ListenerRules>,
}
