//! Whom we believe when an upstream shows a certificate.
//!
//! The system's roots and the configured authorities, or, where the configuration says `insecure`, everybody.
//! The cryptography is named here and does not depend on a default of the process.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::options::Options;

/// The application protocols of one pool, the preferred one first.
#[derive(Debug, Clone, Copy)]
pub(super) enum Protocols {
    /// One connection for many small requests where the upstream can.
    Http2OrHttp1,
    /// A connection for each transfer: HTTP/2 windows and one shared connection would slow blobs.
    Http1,
}

/// How to speak TLS to one upstream; `None` inside when nobody could be believed.
#[derive(Debug, Clone)]
pub(super) struct Trust(Option<ClientConfig>);

impl Trust {
    /// Reads the system's roots (some milliseconds of file I/O) and adds those of `options`.
    ///
    /// Files that cannot be read are left out; without any root the first use of TLS fails, not this.
    pub(super) fn new(options: &Options) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let Ok(builder) = builder.with_safe_default_protocol_versions() else { return Self(None) };
        if options.insecure {
            let verifier = Arc::new(BelieveEverybody(provider));
            return Self(Some(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()));
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(options.extra_ca.iter().cloned());
        if roots.is_empty() {
            return Self(None);
        }
        Self(Some(builder.with_root_certificates(roots).with_no_client_auth()))
    }

    /// Returns the configuration for one pool.
    pub(super) fn config(&self, protocols: Protocols) -> Option<Arc<ClientConfig>> {
        let mut config = self.0.clone()?;
        config.alpn_protocols = match protocols {
            Protocols::Http2OrHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Protocols::Http1 => vec![b"http/1.1".to_vec()],
        };
        Some(Arc::new(config))
    }
}

/// Accepts every certificate; the handshake itself is still checked.
#[derive(Debug)]
struct BelieveEverybody(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveEverybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
