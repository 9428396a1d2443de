//! Whom we believe when an upstream shows a certificate, and the certificate that we show when it asks for one.
//!
//! We believe the system's roots and the configured authorities, or, where the configuration says `insecure`, whoever answers for
//! the registry's own hosts: its endpoints, those of its domain or as internal as it is, and configured token services. A public
//! content network that it leads to must prove itself as ever: what is insecure is the registry, not the rest of the world. Our own
//! certificate is shown to the upstream's endpoints and configured token services, and to nobody else that they lead to: it says
//! who we are. The cryptography is named here and does not depend on a default of the process.

use std::fmt;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, InconsistentKeys, RootCertStore, SignatureScheme};
use url::Url;

use super::options::Options;
use super::realm;

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
pub(super) struct Trust(Option<Configs>);

#[derive(Debug, Clone)]
struct Configs {
    /// For the upstream's own endpoints, and token services that its account may be shown to.
    own: ClientConfig,
    /// For others that belong to the registry.
    related: ClientConfig,
    /// For the hosts that they lead to.
    others: ClientConfig,
}

/// How to speak TLS over the connections of one pool.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    own: Arc<ClientConfig>,
    related: Arc<ClientConfig>,
    others: Arc<ClientConfig>,
    own_hosts: Arc<[String]>,
    endpoints: Arc<[Url]>,
}

impl Tls {
    /// Returns the configuration for a host, as it stands in a URL.
    pub(super) fn towards(&self, host: &str) -> Arc<ClientConfig> {
        if self.own_hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) {
            return Arc::clone(&self.own);
        }
        let url = Url::parse(&format!("https://{host}")).ok();
        let is_related = url.is_some_and(|url| self.endpoints.iter().any(|own| realm::belongs_to(own, &url, &[])));
        Arc::clone(if is_related { &self.related } else { &self.others })
    }
}

impl Trust {
    /// Reads the system's roots (some milliseconds of file I/O) and adds those of `options`.
    ///
    /// Files that cannot be read are left out; without any root the first use of TLS fails, not this.
    pub(super) fn new(options: &Options) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let Ok(builder) = builder.with_safe_default_protocol_versions() else { return Self(None) };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(options.extra_ca.iter().cloned());
        if options.insecure {
            let believing = builder.clone().dangerous();
            let believing = believing.with_custom_certificate_verifier(Arc::new(BelieveEverybody(provider)));
            let others = builder.with_root_certificates(roots).with_no_client_auth();
            return Self(Some(Configs { others, ..Configs::new(believing, options) }));
        }
        if roots.is_empty() {
            return Self(None);
        }
        Self(Some(Configs::new(builder.with_root_certificates(roots), options)))
    }

    /// Returns how one pool speaks TLS; `options` are those that this was made of.
    pub(super) fn tls(&self, protocols: Protocols, options: &Options) -> Option<Tls> {
        let Configs { own, related, others } = self.0.clone()?;
        let with_protocols = |mut config: ClientConfig| {
            config.alpn_protocols = match protocols {
                Protocols::Http2OrHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
                Protocols::Http1 => vec![b"http/1.1".to_vec()],
            };
            Arc::new(config)
        };
        let endpoints = options.endpoints.iter().filter_map(|url| url.host_str());
        let own_hosts = endpoints.chain(options.realm_hosts.iter().map(String::as_str)).map(str::to_owned).collect();
        let [own, related, others] = [own, related, others].map(with_protocols);
        Some(Tls { own, related, others, own_hosts, endpoints: options.endpoints.clone().into() })
    }
}

impl Configs {
    fn new(builder: ConfigBuilder<ClientConfig, WantsClientCert>, options: &Options) -> Self {
        let others = builder.clone().with_no_client_auth();
        let own = match &options.client_identity {
            Some(ClientIdentity(key)) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key))))
            }
            None => others.clone(),
        };
        Self { own, related: others.clone(), others }
    }
}

/// A certificate of ours and its key; cheap to clone, and never printed.
#[derive(Clone)]
pub struct ClientIdentity(Arc<CertifiedKey>);

impl ClientIdentity {
    /// `chain` begins with our own certificate.
    ///
    /// # Errors
    /// A key that the cryptography does not know, or another certificate's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, ClientIdentityError> {
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => ClientIdentityError::Mismatch,
            error => ClientIdentityError::Unusable(error),
        })?;
        Ok(Self(Arc::new(key)))
    }

    /// Returns when the first certificate of the chain expires, in seconds since the epoch.
    pub fn expires_at(&self) -> Option<i64> {
        let expiry = |der: &CertificateDer<'_>| {
            let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
            Some(certificate.validity().not_after.timestamp())
        };
        self.0.cert.iter().filter_map(expiry).min()
    }
}

impl PartialEq for ClientIdentity {
    fn eq(&self, other: &Self) -> bool {
        // There is one key to a certificate.
        self.0.cert == other.0.cert
    }
}

impl Eq for ClientIdentity {}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(…)")
    }
}

/// Why a certificate and a key are no identity.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientIdentityError {
    #[error("the key is not that of the certificate")]
    Mismatch,
    #[error("the key or the certificate cannot be used: {0}")]
    Unusable(rustls::Error),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insecure_is_the_registry_and_nobody_else_that_it_leads_to() {
        for (endpoint, host, expected) in [
            ("https://registry.example.com:5000", "registry.example.com", "own"),
            ("https://registry.example.com", "sso.example.net", "own"),
            ("https://registry.example.com", "cdn.example.com", "related"),
            ("https://registry.example.com", "cdn.example.org", "others"),
            ("https://registry.example.com", "10.0.0.1", "others"),
            ("https://10.0.0.1", "minio.corp", "related"),
            ("https://10.0.0.1", "[fd00::1]", "related"),
            ("https://10.0.0.1", "bucket.s3.amazonaws.com", "others"),
        ] {
            let mut options = Options::new("registry.test".parse().unwrap(), Url::parse(endpoint).unwrap());
            options.insecure = true;
            options.realm_hosts = vec!["sso.example.net".to_owned()];
            let tls = Trust::new(&options).tls(Protocols::Http1, &options).unwrap();
            let towards = tls.towards(host);
            let known = [("own", &tls.own), ("related", &tls.related), ("others", &tls.others)];
            let chosen = known.iter().find(|(_, config)| Arc::ptr_eq(config, &towards)).map(|(name, _)| *name);
            assert_eq!(chosen, Some(expected), "S-26: {endpoint} → {host}");
        }
    }
}
