//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use super::listener::ListenerRules;
use super::tls::ClientCertificate;
use crate::identity::CertificateName;

/// The other end of a connection, as far as it is known before the first request.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// What an authority of the listener vouches for.
    pub(super) certificate: Option<ClientCertificate>,
    /// What the listener decides.
    pub(super) rules: Arc<ListenerRules>,
}

impl Peer {
    /// Returns the name of that kind that it has proved.
    pub(super) fn proved(&self, kind: CertificateName) -> Option<&str> {
        let certificate = self.certificate.as_ref()?;
        let name = match kind {
            CertificateName::CommonName => certificate.common_name.as_ref(),
            CertificateName::Dns => certificate.dns_name.as_ref(),
            CertificateName::Uri => certificate.uri.as_ref(),
        };
        name.map(String::as_str).filter(|name| !name.is_empty())
    }
}
