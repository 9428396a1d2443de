//! A client that speaks TLS, and then HTTP/1.1 or HTTP/2 as was agreed on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::pki::{Authority, Shown};
use crate::harness::Open;

pub(crate) const H1: &str = "http/1.1";
pub(crate) const H2: &str = "h2";

/// What a client believes, shows and offers; it resumes sessions.
#[derive(Clone)]
pub(crate) struct Client(ClientConfig);

impl Client {
    pub(crate) fn new(believed: &Authority, shown: Option<Shown>) -> Self {
        Self::of_version(&[&TLS13, &TLS12], believed, shown)
    }

    /// Returns one that knows one version of TLS.
    pub(crate) fn of_version(
        versions: &[&'static SupportedProtocolVersion],
        believed: &Authority,
        shown: Option<Shown>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(believed.der()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Self(match shown {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        })
    }

    /// Makes it offer these protocols.
    pub(crate) fn offering(&self, protocols: &[&str]) -> Self {
        let mut config = self.0.clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self(config)
    }

    /// Connects. In TLS 1.3 whom the server refuses hears of it with the first bytes that it reads.
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(self.0.clone())).connect("localhost".try_into().unwrap(), stream).await
    }

    /// Sends a request of HTTP/1.1 on a connection of its own.
    pub(crate) async fn open(&self, address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Open {
        let stream = self.offering(&[H1]).connect(address).await.unwrap();
        Open::over(stream, "localhost", method, path, headers, Bytes::new()).await
    }

    /// Connects and agrees on HTTP/2.
    pub(crate) async fn http2(&self, address: SocketAddr) -> Http2 {
        let stream = self.offering(&[H2]).connect(address).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(H2.as_bytes()));
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let ended = tokio::spawn(async move {
            let _ended = connection.await;
        });
        Http2 { sender, ended }
    }
}

/// A connection of HTTP/2.
pub(crate) struct Http2 {
    sender: SendRequest<Full<Bytes>>,
    /// Ends with the connection.
    pub(crate) ended: JoinHandle<()>,
}

impl Http2 {
    pub(crate) async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Open, hyper::Error> {
        let mut request = Request::builder().method(method).uri(format!("https://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.sender.clone().send_request(request.body(Full::default()).unwrap()).await?;
        // The connection outlives its streams.
        Ok(Open::of(response, tokio::spawn(async {})))
    }
}
