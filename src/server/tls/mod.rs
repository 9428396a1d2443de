//! TLS towards clients: what a listener shows and whom it believes, and the handshake.
//!
//! A new certificate, key or authority is a new [`Tls`] in the place of the old: connections that stand go on with the one that they began
//! with. Sessions may be resumed across it as long as the question who may connect has not changed; when it has, tickets of before
//! are worth nothing, for a resumed session carries the verification of the handshake that it goes back to. What such a
//! session cannot see is time: whether the client's certificates are still valid is looked at again after every handshake.
//!
//! The cryptography is named here and does not depend on a default of the process.

mod handshake;
mod identity;

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};

pub(super) use handshake::{Protocol, accept};
pub(super) use identity::ClientCertificate;
pub use identity::{ServerIdentity, ServerIdentityError, expires_at};

/// How one listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    pub identity: ServerIdentity,
    /// `None`: everybody may connect.
    pub clients: Option<ClientTrust>,
    /// HTTP/2 is offered, beside HTTP/1.1.
    pub http2: bool,
}

/// Whose certificates a listener believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTrust {
    pub authorities: Vec<CertificateDer<'static>>,
    /// Who shows none does not get in.
    pub is_required: bool,
}

/// TLS as one listener speaks it at the moment.
#[derive(Debug)]
pub struct Tls {
    options: TlsOptions,
    config: Arc<ServerConfig>,
    /// What resumed sessions are sealed with, by a key that only this process has.
    tickets: Arc<dyn ProducesTickets>,
}

impl Tls {
    /// `before` is what the listener spoke so far: sessions that began there are resumed, if the same clients may connect.
    ///
    /// # Errors
    /// When the cryptography refuses the options.
    pub fn new(options: TlsOptions, before: Option<&Self>) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = match &options.clients {
            None => builder.with_no_client_auth(),
            Some(trust) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(trust.authorities.iter().cloned());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if trust.is_required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config =
            builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(options.identity.key()))));
        config.alpn_protocols = if options.http2 { vec![H2.to_vec(), H1.to_vec()] } else { vec![H1.to_vec()] };
        let tickets = match before.filter(|before| before.options.clients == options.clients) {
            Some(before) => Arc::clone(&before.tickets),
            None => aws_lc_rs::Ticketer::new()?,
        };
        config.ticketer = Arc::clone(&tickets);
        // Tickets are with the clients: sessions take no memory here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { options, config: Arc::new(config), tickets })
    }

    /// Returns what it was made of.
    pub fn options(&self) -> &TlsOptions {
        &self.options
    }
}

/// Why a listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the cryptography refuses it")]
    Rustls(#[from] rustls::Error),
    #[error("no authority of clients can be used")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

/// The names of protocols in ALPN (RFC 7301, RFC 9113 §3.2).
const H2: &[u8] = b"h2";
const H1: &[u8] = b"http/1.1";
