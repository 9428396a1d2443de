//! Whether the cache answers this node: one question over a connection of its own, as a runtime would ask it.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;

use super::credentials::{Credentials, Pem};
use crate::fetch::{Fetch, FetchError, Identity};
use crate::telemetry::Secret;

/// How long an answer may take, from the lookup on: who is slower than this on a node's own network is as good as gone.
const LIMIT: Duration = Duration::from_secs(2);

/// The status and the headers tell all.
const NO_BODY: usize = 0;

/// What a registry says at [`REGISTRY_PATH`], and hardly anybody else.
const REGISTRY_HEADER: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Where a registry says that it is one.
const REGISTRY_PATH: &str = "/v2/";

/// What is asked.
#[derive(Debug, Clone)]
pub struct Probe {
    urls: Vec<Url>,
    fetch: Fetch,
    token: Option<Secret>,
    shows_certificate: bool,
    may_ask_who: bool,
}

/// How the cache is asked: as the runtimes of this node will ask it.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'c> {
    /// The token is shown to the cache, and to nobody else.
    pub credentials: &'c Credentials,
    /// Whether a cache that asks who one is has answered: it serves who shows nothing as well.
    pub may_ask_who: bool,
}

/// Why the cache is not to be relied upon.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("{0} has not answered within {limit} s", limit = LIMIT.as_secs())]
    TimedOut(Url),
    #[error("{0} does not answer: {1}")]
    Unreachable(Url, String),
    #[error("{0} answers {1}, not 200")]
    Status(Url, StatusCode),
    #[error("{0} answers 200, but not as a registry; is this the address of something else?")]
    NoRegistry(Url),
    #[error(
        "{0} wants to know who asks, and is shown nothing: give the node a --token-file or a --client-cert, \
         or say --allow-unauthorized if the cache serves who shows nothing as well"
    )]
    AsksWho(Url),
    #[error("{0} does not know us by what we show; is the token, or the certificate, one of this cache?")]
    Unknown(Url),
    #[error("{0} shows a certificate that is not trusted: {1}; name the file with its authority by --ca")]
    Untrusted(Url, String),
    #[error("the certificates in {0} cannot be read: {1}")]
    Certificates(String, String),
    #[error("the key in {0} cannot be read: {1}")]
    Key(String, String),
    #[error(transparent)]
    Tls(FetchError),
}

impl Probe {
    /// Asks each of the URLs.
    ///
    /// # Errors
    /// When one of the certificates, or the key, cannot be used.
    pub fn new(urls: Vec<Url>, asking: Asking<'_>) -> Result<Self, ProbeError> {
        let Asking { credentials, may_ask_who } = asking;
        let needs_tls = urls.iter().any(|url| url.scheme() == "https");
        let fetch = if needs_tls { secure(credentials)? } else { Fetch::plain(LIMIT, NO_BODY) };
        let (token, shows_certificate) = (credentials.token.clone(), credentials.certificate.is_some());
        Ok(Self { urls, fetch, token, shows_certificate, may_ask_who })
    }

    /// Returns a probe that asks the same with other credentials.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn renewed(&self, credentials: &Credentials) -> Result<Self, ProbeError> {
        Self::new(self.urls.clone(), Asking { credentials, may_ask_who: self.may_ask_who })
    }

    /// Returns when all have answered 200: from something else that says 200 to everything, runtimes would take it for images.
    ///
    /// # Errors
    /// The first that did not.
    pub async fn ask(&self) -> Result<(), ProbeError> {
        for url in &self.urls {
            let is_cache = url.path() == REGISTRY_PATH;
            let answer = match self.fetch.get(url, self.token.as_ref().filter(|_| is_cache)).await {
                Ok(answer) => answer,
                Err(FetchError::TimedOut(_)) => return Err(ProbeError::TimedOut(url.clone())),
                Err(FetchError::Untrusted(why)) => return Err(ProbeError::Untrusted(url.clone(), why)),
                Err(error) => return Err(ProbeError::Unreachable(url.clone(), error.to_string())),
            };
            let is_registry = answer.headers.contains_key(REGISTRY_HEADER);
            match answer.status {
                StatusCode::OK if is_cache && !is_registry => return Err(ProbeError::NoRegistry(url.clone())),
                StatusCode::OK => {}
                // It is the cache, and would say the same to the runtimes.
                StatusCode::UNAUTHORIZED if is_cache && is_registry => self.asked_who(url)?,
                status => return Err(ProbeError::Status(url.clone(), status)),
            }
        }
        Ok(())
    }

    /// Decides about a cache that wants to know who asks.
    fn asked_who(&self, url: &Url) -> Result<(), ProbeError> {
        match &self.token {
            Some(_) => Err(ProbeError::Unknown(url.clone())),
            None if self.may_ask_who => Ok(()),
            None if self.shows_certificate => Err(ProbeError::Unknown(url.clone())),
            None => Err(ProbeError::AsksWho(url.clone())),
        }
    }
}

fn secure(credentials: &Credentials) -> Result<Fetch, ProbeError> {
    let authorities = credentials.ca.as_ref().map(certificates).transpose()?.unwrap_or_default();
    let identity = credentials.certificate.as_ref().map(|(cert, key)| identity(cert, key)).transpose()?;
    Fetch::secure(&authorities, identity, LIMIT, NO_BODY).map_err(ProbeError::Tls)
}

fn identity(cert: &Pem, key: &Pem) -> Result<Identity, ProbeError> {
    let unusable = |error: pem::Error| ProbeError::Key(key.path.display().to_string(), error.to_string());
    let private = PrivateKeyDer::from_pem_slice(key.text.expose().as_bytes()).map_err(unusable)?;
    Ok(Identity { chain: certificates(cert)?, key: private })
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, ProbeError> {
    let unusable = |error: pem::Error| ProbeError::Certificates(pem.path.display().to_string(), error.to_string());
    CertificateDer::pem_slice_iter(pem.text.expose().as_bytes())
        .map(|certificate| certificate.map_err(unusable))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::node::credentials::Files;

    fn asks(urls: Vec<Url>, credentials: &Credentials) -> Probe {
        Probe::new(urls, Asking { credentials, may_ask_who: false }).unwrap()
    }

    /// How a registry begins its answer.
    const OK: &str = "HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\n";

    #[tokio::test]
    async fn only_200_of_a_registry_is_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/v2/", listener.local_addr().unwrap()).parse().unwrap();
        let probe = asks(vec![url.clone()], &Credentials::default());
        let rows: [(&str, &str); 7] = [
            (&format!("{OK}Content-Length: 2\r\n\r\n{{}}"), "ok"),
            (&OK.replace("/1.1", "/1.0").replace("2.0\r\n", "2.0\r\n\r\n"), "ok"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nWelcome", "answers 200, but not as a registry"),
            ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "answers 401 Unauthorized, not 200"),
            (
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
                "answers 503 Service Unavailable, not 200",
            ),
            ("SSH-2.0-OpenSSH_9.2\r\n", "does not answer: invalid HTTP"),
            ("", "does not answer: connection closed"),
        ];
        for (text, expected) in rows {
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                assert!(stream.read(&mut head).await.unwrap() > 0);
                stream.write_all(text.as_bytes()).await.unwrap();
            };
            let (answer, ()) = tokio::join!(probe.ask(), serve);
            let answer = answer.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
            assert!(answer.contains(expected), "{answer} is not {expected}");
        }
        drop(listener);
        assert!(matches!(probe.ask().await, Err(ProbeError::Unreachable(..))));
    }

    #[tokio::test]
    async fn every_url_has_to_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let urls = ["/v2/", "/readyz"].map(|path| format!("http://{address}{path}").parse().unwrap());
        let probe = asks(urls.to_vec(), &Credentials::default());
        let serve = async {
            for answer in [OK, "HTTP/1.1 503 Service Unavailable\r\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                assert!(stream.read(&mut head).await.unwrap() > 0);
                stream.write_all(format!("{answer}Content-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
            }
        };
        let (answer, ()) = tokio::join!(probe.ask(), serve);
        assert!(matches!(answer, Err(ProbeError::Status(url, _)) if url.path() == "/readyz"));
    }

    #[tokio::test]
    async fn an_authority_that_is_given_is_trusted_and_no_other() {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, key.cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("https://localhost:{}/v2/", listener.local_addr().unwrap().port()).parse().unwrap();
        for (ca, is_trusted) in [(Some(ca), true), (None, false)] {
            let probe = asks(vec![url.clone()], &Files { ca, ..Files::default() }.read().unwrap());
            let serve = async {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = [0; 1024];
                assert!(stream.read(&mut head).await.unwrap() > 0);
                stream.write_all(format!("{OK}Content-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
            };
            let (answer, ()) = tokio::join!(probe.ask(), serve);
            assert_eq!(answer.is_ok(), is_trusted, "{answer:?}");
            assert!(is_trusted || matches!(answer, Err(ProbeError::Untrusted(..))), "{answer:?}");
        }
        std::fs::write(directory.path().join("bad.pem"), "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
            .unwrap();
        let bad = Files { ca: Some(directory.path().join("bad.pem")), ..Files::default() }.read().unwrap();
        let unusable = Probe::new(vec![url], Asking { credentials: &bad, may_ask_who: false });
        assert!(matches!(unusable, Err(ProbeError::Certificates(..))));
    }

    #[tokio::test]
    async fn the_cache_is_shown_the_token_and_a_401_of_it_is_told_apart_from_one_of_somebody_else() {
        const WHO: &str =
            "HTTP/1.1 401 Unauthorized\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Length: 0\r\n\r\n";
        const PROXY: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (path, token, may_ask_who, answer, expected) in [
            ("/v2/", None, false, WHO, "wants to know who asks, and is shown nothing"),
            ("/v2/", None, true, WHO, "ok"),
            ("/v2/", Some("s3cret"), false, WHO, "does not know us"),
            ("/v2/", Some("s3cret"), true, WHO, "does not know us"),
            ("/v2/", None, true, PROXY, "answers 401 Unauthorized, not 200"),
            ("/v2/", Some("s3cret"), false, &format!("{OK}Content-Length: 0\r\n\r\n"), "ok"),
            ("/readyz", Some("s3cret"), true, WHO, "answers 401 Unauthorized, not 200"),
        ] {
            let url = format!("http://{address}{path}").parse().unwrap();
            let credentials = Credentials { token: token.map(Secret::new), ..Credentials::default() };
            let probe = Probe::new(vec![url], Asking { credentials: &credentials, may_ask_who }).unwrap();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 1024];
                let length = stream.read(&mut head).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                String::from_utf8_lossy(&head[..length]).into_owned()
            };
            let (answer, head) = tokio::join!(probe.ask(), serve);
            let answer = answer.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
            assert!(answer.contains(expected) && !answer.contains("s3cret"), "{answer} is not {expected}");
            let is_shown = head.contains("Bearer s3cret");
            assert_eq!(is_shown, token.is_some() && path == "/v2/", "a token is for the cache alone: {head}");
        }
    }
}
