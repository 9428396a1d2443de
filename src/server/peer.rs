//! Who is at the other end of a connection.

use std::net::SocketAddr;

use crate::identity::CertificateName;

/// The other end of a connection, as far as it is known before the first request.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// What it has proved by a certificate.
    pub(super) certificate: Option<ClientCertificate>,
    /// Whether this door asks who somebody is.
    pub(super) identities: bool,
}

/// The names in a verified certificate, those of each kind in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientCertificate {
    pub(super) common_name: Option<String>,
    pub(super) dns_names: Vec<String>,
    pub(super) uris: Vec<String>,
}

impl Peer {
    /// A peer of which nothing is known but its address.
    pub(super) fn plain(address: SocketAddr) -> Self {
        Self { address, certificate: None, identities: true }
    }

    /// Returns the name of that kind that it has proved.
    pub(super) fn proved(&self, kind: CertificateName) -> Option<&str> {
        let certificate = self.certificate.as_ref()?;
        let name = match kind {
            CertificateName::CommonName => certificate.common_name.as_ref(),
            CertificateName::Dns => certificate.dns_names.first(),
            CertificateName::Uri => certificate.uris.first(),
        };
        name.map(String::as_str).filter(|name| !name.is_empty())
    }
}
