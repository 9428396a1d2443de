//! The scripted registry's certificate: an authority of its own and a leaf for loopback, made anew for each registry.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

pub(crate) struct Identity {
    ca: CertifiedIssuer<'static, KeyPair>,
    acceptor: TlsAcceptor,
}

impl Identity {
    /// Makes an identity for `127.0.0.1` and `localhost` that offers these protocols, the preferred one first.
    pub(crate) fn new(protocols: &[&[u8]]) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let ca = CertifiedIssuer::self_signed(authority, key).expect("the authority signs itself");

        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let leaf = CertificateParams::new(names).expect("both are names");
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = leaf.signed_by(&key, &ca).expect("the authority signs");
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .expect("key and certificate belong together");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Self { ca, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    pub(crate) fn ca(&self) -> CertificateDer<'static> {
        self.ca.der().clone()
    }

    pub(crate) fn ca_pem(&self) -> String {
        self.ca.pem()
    }
}
