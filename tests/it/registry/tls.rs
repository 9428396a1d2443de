//! The scripted registry's certificate: an authority of its own and a leaf for loopback, made anew for each registry.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::{WantsServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};

pub(crate) struct Identity {
    ca: CertifiedIssuer<'static, KeyPair>,
    acceptor: TlsAcceptor,
}

impl Identity {
    /// Makes an identity for `127.0.0.1` and `localhost` that offers these protocols, the preferred one first.
    pub(crate) fn new(protocols: &[&[u8]]) -> Self {
        let ca = authority();
        let acceptor = acceptor(&ca, protocols, builder().with_no_client_auth());
        Self { ca, acceptor }
    }

    /// Makes one that wants a certificate of its own authority.
    pub(crate) fn mutual(protocols: &[&[u8]]) -> Self {
        let ca = authority();
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).expect("a certificate");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let builder = builder().with_client_cert_verifier(verifier.expect("there is a root"));
        let acceptor = acceptor(&ca, protocols, builder);
        Self { ca, acceptor }
    }

    /// Makes a certificate for a client and its key, as PEM text.
    pub(crate) fn client_pem(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key can be made");
        let leaf = CertificateParams::new(["client.test".to_owned()]).expect("a name");
        (leaf.signed_by(&key, &self.ca).expect("the authority signs").pem(), key.serialize_pem())
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

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key can be made");
    CertifiedIssuer::self_signed(authority, key).expect("the authority signs itself")
}

fn builder() -> ConfigBuilder<ServerConfig, WantsVerifier> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
}

fn acceptor(
    ca: &CertifiedIssuer<'static, KeyPair>,
    protocols: &[&[u8]],
    builder: ConfigBuilder<ServerConfig, WantsServerCert>,
) -> TlsAcceptor {
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let leaf = CertificateParams::new(names).expect("both are names");
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = leaf.signed_by(&key, ca).expect("the authority signs");
    let mut config = builder
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .expect("key and certificate belong together");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}
