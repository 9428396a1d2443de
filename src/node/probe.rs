//! Whether the cache answers this node: one question over a connection of its own, as a runtime would ask it.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

use crate::fetch::{Fetch, FetchError};

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
    #[error("the certificates in {0} cannot be read: {1}")]
    Ca(String, String),
    #[error(transparent)]
    Tls(FetchError),
}

impl Probe {
    /// Asks each of the URLs. `ca` is a PEM file with further authorities to trust.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(urls: Vec<Url>, ca: Option<&std::path::Path>) -> Result<Self, ProbeError> {
        let needs_tls = urls.iter().any(|url| url.scheme() == "https");
        let fetch = if needs_tls { secure(ca)? } else { Fetch::plain(LIMIT, NO_BODY) };
        Ok(Self { urls, fetch })
    }

    /// Returns when all have answered 200: from something else that says 200 to everything, runtimes would take it for images.
    ///
    /// # Errors
    /// The first that did not.
    pub async fn ask(&self) -> Result<(), ProbeError> {
        for url in &self.urls {
            match self.fetch.get(url, None).await {
                Err(FetchError::TimedOut(_)) => return Err(ProbeError::TimedOut(url.clone())),
                Err(error) => return Err(ProbeError::Unreachable(url.clone(), error.to_string())),
                Ok(answer) if answer.status != StatusCode::OK => {
                    return Err(ProbeError::Status(url.clone(), answer.status));
                }
                Ok(answer) => {
                    if url.path() == REGISTRY_PATH && !answer.headers.contains_key(REGISTRY_HEADER) {
                        return Err(ProbeError::NoRegistry(url.clone()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn secure(ca: Option<&std::path::Path>) -> Result<Fetch, ProbeError> {
    let mut certificates = Vec::new();
    if let Some(path) = ca {
        let unusable = |error: String| ProbeError::Ca(path.display().to_string(), error);
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
            certificates.push(certificate.map_err(|error| unusable(error.to_string()))?);
        }
    }
    Fetch::secure(&certificates, LIMIT, NO_BODY).map_err(ProbeError::Tls)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// How a registry begins its answer.
    const OK: &str = "HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\n";

    #[tokio::test]
    async fn only_200_of_a_registry_is_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/v2/", listener.local_addr().unwrap()).parse().unwrap();
        let probe = Probe::new(vec![url.clone()], None).unwrap();
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
        let probe = Probe::new(urls.to_vec(), None).unwrap();
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
        for (ca, is_trusted) in [(Some(ca.as_path()), true), (None, false)] {
            let probe = Probe::new(vec![url.clone()], ca).unwrap();
            let serve = async {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = [0; 1024];
                assert!(stream.read(&mut head).await.unwrap() > 0);
                stream.write_all(format!("{OK}Content-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
            };
            let (answer, ()) = tokio::join!(probe.ask(), serve);
            assert_eq!(answer.is_ok(), is_trusted, "{answer:?}");
        }
        let missing = Probe::new(vec![url], Some(&directory.path().join("none.pem")));
        assert!(matches!(missing, Err(ProbeError::Ca(..))));
    }
}
