//! Certificates: ours with its key, and what is known of a client's.

use std::fmt;
use std::sync::Arc;

use rustls::InconsistentKeys;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

/// The certificate that a listener shows, with its key; cheap to clone, and never printed.
#[derive(Clone)]
pub struct ServerIdentity(Arc<CertifiedKey>);

impl ServerIdentity {
    /// `chain` begins with the listener's own certificate.
    ///
    /// # Errors
    /// A key that the cryptography does not know, or another certificate's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, ServerIdentityError> {
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => ServerIdentityError::Mismatch,
            error => ServerIdentityError::Unusable(error),
        })?;
        Ok(Self(Arc::new(key)))
    }

    /// Returns when the first certificate of the chain expires, in seconds since the epoch.
    pub fn expires_at(&self) -> Option<i64> {
        expires_at(&self.0.cert)
    }

    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.0
    }
}

impl PartialEq for ServerIdentity {
    fn eq(&self, other: &Self) -> bool {
        // There is one key to a certificate.
        self.0.cert == other.0.cert
    }
}

impl Eq for ServerIdentity {}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerIdentity(…)")
    }
}

/// Why a certificate and a key are no identity.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServerIdentityError {
    #[error("the key is not that of the certificate")]
    Mismatch,
    #[error("the key or the certificate cannot be used: {0}")]
    Unusable(rustls::Error),
}

/// Returns when the first of these certificates expires, in seconds since the epoch.
pub fn expires_at(certificates: &[CertificateDer<'_>]) -> Option<i64> {
    let expiry = |der: &CertificateDer<'_>| {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        Some(certificate.validity().not_after.timestamp())
    };
    certificates.iter().filter_map(expiry).min()
}

/// What a client's certificate says of the client, after an authority of the listener has vouched for it: the first name of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    pub(crate) common_name: Option<String>,
    pub(crate) dns_name: Option<String>,
    pub(crate) uri: Option<String>,
}

impl ClientCertificate {
    /// Reads the names of `leaf`; `None` when it is no certificate, which the handshake has ruled out.
    pub(super) fn of(leaf: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
        let common_name = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let alternative = alternative.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let first = |read: fn(&GeneralName<'_>) -> Option<String>| alternative.iter().find_map(read);
        Some(Self {
            common_name: common_name.map(str::to_owned),
            dns_name: first(|name| if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None }),
            uri: first(|name| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None }),
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_certificate_is_known_by_its_common_name_its_dns_names_and_its_uris() {
        let mut params =
            CertificateParams::new(["10.0.0.1".to_owned(), "node-1.test".to_owned(), "other.test".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "common");
        params.subject_alt_names.push(SanType::URI("spiffe://cluster/ns/a".try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let known = ClientCertificate::of(certificate.der()).unwrap();
        let ClientCertificate { common_name, dns_name, uri } = known;
        assert_eq!(
            [common_name, dns_name, uri].map(Option::unwrap),
            ["common", "node-1.test", "spiffe://cluster/ns/a"]
        );
        assert_eq!(ClientCertificate::of(&CertificateDer::from(b"no certificate".to_vec())), None);
    }
}
