//! One GET over a connection of its own, to an address that the operator has named.
//!
//! It goes wherever it is told, also to private addresses and by plain HTTP: what an operator names may be internal. It is not for what
//! a client or an upstream names; that is looked up, checked and dialled by `upstream::egress`. No redirect is followed and no proxy
//! asked, so the answer is that of the address itself.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Position, Url};

use crate::telemetry::{Secret, sentence};

/// How an answer is got, and how much of it.
#[derive(Debug, Clone)]
pub struct Fetch {
    tls: Option<Arc<ClientConfig>>,
    /// From the lookup of the name to the last byte.
    pub time: Duration,
    /// Bytes of a body at the most; with 0 none is read.
    pub body_bytes: usize,
}

/// A certificate, with those that lead to its authority, and its key.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// What was answered.
#[derive(Debug)]
pub struct Fetched {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("there is no answer within {0:?}")]
    TimedOut(Duration),
    #[error("{0}")]
    Failed(String),
    /// What is there may be meant, and is not known to be.
    #[error("{0}")]
    Untrusted(String),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("TLS cannot be used: {0}")]
    Tls(String),
}

impl Fetch {
    /// Gets answers without TLS.
    pub fn plain(time: Duration, body_bytes: usize) -> Self {
        Self { tls: None, time, body_bytes }
    }

    /// Gets answers also with TLS, trusting the system's authorities and these, and showing `identity` to who asks for a certificate.
    ///
    /// # Errors
    /// [`FetchError::Tls`] when one of them cannot be used.
    pub fn secure(
        ca: &[CertificateDer<'static>],
        identity: Option<Identity>,
        time: Duration,
        body_bytes: usize,
    ) -> Result<Self, FetchError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for certificate in ca {
            roots.add(certificate.clone()).map_err(|error| FetchError::Tls(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| FetchError::Tls(error.to_string()))?;
        let builder = builder.with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => {
                builder.with_client_auth_cert(chain, key).map_err(|error| FetchError::Tls(error.to_string()))?
            }
        };
        Ok(Self { tls: Some(Arc::new(config)), time, body_bytes })
    }

    /// Asks `url`, showing `bearer` if there is one.
    ///
    /// # Errors
    /// When there is no whole answer in time; any status is an answer.
    pub async fn get(&self, url: &Url, bearer: Option<&Secret>) -> Result<Fetched, FetchError> {
        let answer = tokio::time::timeout(self.time, self.exchange(url, bearer)).await;
        answer.unwrap_or(Err(FetchError::TimedOut(self.time)))
    }

    async fn exchange(&self, url: &Url, bearer: Option<&Secret>) -> Result<Fetched, FetchError> {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let address = (host.to_owned(), url.port_or_known_default().unwrap_or_default());
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        if url.scheme() != "https" {
            return self.ask(url, bearer, stream).await;
        }
        let tls = self.tls.clone().ok_or_else(|| FetchError::Tls("it was not set up".to_owned()))?;
        let name = ServerName::try_from(host.to_owned()).map_err(failed)?;
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|error| not_connected(&error))?;
        self.ask(url, bearer, stream).await
    }

    async fn ask(
        &self,
        url: &Url,
        bearer: Option<&Secret>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Fetched, FetchError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let request = request(url, bearer)?;
        let answer = async move {
            let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
            let body = match self.body_bytes {
                0 => Bytes::new(),
                most => Limited::new(body, most).collect().await.map_err(|error| too_large(&*error, most))?.to_bytes(),
            };
            Ok(Fetched { status: head.status, headers: head.headers, body })
        };
        let (mut answer, mut connection) = (pin!(answer), pin!(connection));
        tokio::select! {
            answer = &mut answer => return answer,
            // It has ended before the answer was read from it, or has failed: the answer tells which.
            _ended = &mut connection => {}
        }
        answer.await
    }
}

fn request(url: &Url, bearer: Option<&Secret>) -> Result<Request<Empty<Bytes>>, FetchError> {
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let mut request = Request::get(target).header(HOST, host).header(CONNECTION, "close");
    if let Some(bearer) = bearer {
        let unusable = |_| FetchError::Failed("the token to show is no header value".to_owned());
        let mut value = HeaderValue::try_from(format!("Bearer {}", bearer.expose())).map_err(unusable)?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(Empty::new()).map_err(failed)
}

fn too_large(error: &(dyn std::error::Error + Send + Sync + 'static), most: usize) -> FetchError {
    if error.is::<LengthLimitError>() { FetchError::TooLarge(most) } else { FetchError::Failed(error.to_string()) }
}

fn failed(error: impl std::error::Error + 'static) -> FetchError {
    FetchError::Failed(sentence(&error))
}

fn not_connected(error: &std::io::Error) -> FetchError {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => FetchError::Untrusted(error.to_string()),
        _ => FetchError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn answer(listener: &TcpListener, text: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 2048];
        let length = stream.read(&mut head).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    }

    #[tokio::test]
    async fn an_answer_comes_whole_and_within_its_bound_or_not_at_all() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/a/b?c=d", listener.local_addr().unwrap()).parse().unwrap();
        let fetch = Fetch::plain(Duration::from_secs(20), 8);
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n12345678", "200 12345678"),
            ("HTTP/1.1 404 Not Found\r\n\r\ngone", "404 gone"),
            ("HTTP/1.1 302 Found\r\nLocation: http://x.test/\r\nContent-Length: 0\r\n\r\n", "302 "),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789", "the answer is larger than 8 bytes"),
            ("HTTP/1.1 200 OK\r\n\r\n123456789", "the answer is larger than 8 bytes"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n1234", "error reading a body"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "invalid HTTP"),
        ] {
            let secret = Secret::new("shown");
            let (answer, asked) = tokio::join!(fetch.get(&url, Some(&secret)), answer(&listener, text));
            let answer = match answer {
                Ok(answer) => format!("{} {}", answer.status.as_u16(), String::from_utf8_lossy(&answer.body)),
                Err(error) => error.to_string(),
            };
            assert!(answer.contains(expected), "{answer} is not {expected}");
            assert!(asked.starts_with("GET /a/b?c=d HTTP/1.1\r\n") && asked.contains("Bearer shown"), "{asked}");
        }
    }

    #[tokio::test]
    async fn who_does_not_answer_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let answer = Fetch::plain(Duration::from_millis(10), 8).get(&url, None).await;
        assert!(matches!(answer, Err(FetchError::TimedOut(_))), "{answer:?}");
    }
}
