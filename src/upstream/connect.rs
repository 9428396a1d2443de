//! How a connection to an upstream is made: TCP, perhaps through a proxy, then TLS.
//!
//! ```text
//! http  target                     TCP
//! http  target, proxy              TCP to the proxy; requests in absolute form (RFC 9112 §3.2.2)
//! https target                     TCP, TLS
//! https target, proxy              TCP to the proxy, CONNECT (RFC 9110 §9.3.6), TLS
//! ```
//! A proxy that is itself `https` gets a TLS layer of its own first. SOCKS proxies are refused in words. What may be dialled is said by
//! [`super::egress`]; a proxy is the operator's own choice and may stand anywhere.
//! Dropping a connect future closes what was opened.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::egress::{Egress, Forbidden, LookupError, Resolver};
use super::tls::Tls;

/// Probes a silent connection after so long; a peer that vanished is noticed before its idle time-out.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("nothing answered in time")]
    TimedOut(Duration),
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// What the resolver says.
    #[error("{0}")]
    Lookup(String),
    #[error("no connection")]
    Tcp(#[source] Arc<dyn std::error::Error + Send + Sync>),
    #[error("the proxy made no tunnel")]
    Tunnel(#[source] Arc<dyn std::error::Error + Send + Sync>),
    #[error("proxies of this kind are not supported")]
    ProxyScheme,
    /// The certificate or the protocol, not the network.
    #[error("no agreement on TLS")]
    Tls(#[source] Arc<io::Error>),
    #[error("its certificate is signed by an authority that is not trusted; give that one with ca")]
    UnknownIssuer,
    #[error("no root certificates found, neither the system's nor configured ones")]
    NoRoots,
    #[error("the host cannot have a certificate")]
    ServerName,
}

/// Makes connections for one pool.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector<Resolver>,
    to_proxy: HttpConnector,
    egress: Egress,
    tls: Option<Tls>,
    proxy: Option<Arc<Matcher>>,
    limit: Duration,
}

impl Connector {
    /// `limit` is for lookup and TCP, and once more for tunnel and TLS.
    pub(super) fn new(tls: Option<Tls>, proxy: Option<Arc<Matcher>>, egress: Egress, limit: Duration) -> Self {
        let tcp = prepared(HttpConnector::new_with_resolver(Resolver::new(egress)), limit);
        let to_proxy = prepared(HttpConnector::new(), limit);
        Self { tcp, to_proxy, egress, tls, proxy, limit }
    }

    async fn connect(self, target: Uri) -> Result<Stream, ConnectError> {
        let proxy = self.proxy.as_ref().and_then(|proxy| proxy.intercept(&target));
        let is_tls = target.scheme_str() == Some("https");
        self.egress.check_host(target.host().unwrap_or_default())?;
        let base = match &proxy {
            Some(proxy) => self.dial_proxy(proxy).await?,
            None => self.dial(self.tcp.clone(), target.clone()).await?,
        };
        let secured = async {
            match proxy {
                Some(_) if !is_tls => Ok(Stream { is_proxied: true, ..base }),
                Some(proxy) => self.secure(&target, tunnel(&proxy, &target, base).await?).await,
                None if is_tls => self.secure(&target, base).await,
                None => Ok(base),
            }
        };
        timeout(self.limit, secured).await.map_err(|_| ConnectError::TimedOut(self.limit))?
    }

    /// Connects to a proxy, with TLS when it is `https` itself.
    async fn dial_proxy(&self, proxy: &Intercept) -> Result<Stream, ConnectError> {
        match proxy.uri().scheme_str() {
            Some("http") => self.dial(self.to_proxy.clone(), proxy.uri().clone()).await,
            Some("https") => {
                let base = self.dial(self.to_proxy.clone(), proxy.uri().clone()).await?;
                let secured = timeout(self.limit, self.secure(proxy.uri(), base)).await;
                secured.map_err(|_| ConnectError::TimedOut(self.limit))?
            }
            Some(_) | None => Err(ConnectError::ProxyScheme),
        }
    }

    /// Looks up and connects; the limit covers both, for a dead name server has none of its own.
    async fn dial<T>(&self, mut tcp: T, target: Uri) -> Result<Stream, ConnectError>
    where
        T: Service<Uri, Response = TokioIo<TcpStream>>,
        T::Error: std::error::Error + Send + Sync + 'static,
    {
        let dialled = timeout(self.limit, async {
            std::future::poll_fn(|cx| tcp.poll_ready(cx)).await?;
            tcp.call(target).await
        });
        match dialled.await {
            Ok(Ok(stream)) => Ok(Stream::new(Box::new(stream.into_inner()))),
            Ok(Err(error)) => Err(dial_error(error, self.limit)),
            Err(_) => Err(ConnectError::TimedOut(self.limit)),
        }
    }

    async fn secure(&self, target: &Uri, base: Stream) -> Result<Stream, ConnectError> {
        let host = target.host().unwrap_or_default();
        let config = self.tls.as_ref().ok_or(ConnectError::NoRoots)?.towards(host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::ServerName)?;
        let stream = TlsConnector::from(config).connect(name, base.io.into_inner()).await.map_err(handshake_error)?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream { is_h2, ..Stream::new(Box::new(stream)) })
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Stream, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        Box::pin(self.clone().connect(target))
    }
}

fn prepared<R>(mut tcp: HttpConnector<R>, limit: Duration) -> HttpConnector<R> {
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_connect_timeout(Some(limit));
    tcp
}

fn dial_error(error: impl std::error::Error + Send + Sync + 'static, limit: Duration) -> ConnectError {
    if let Some(forbidden) = cause::<Forbidden>(&error) {
        return ConnectError::Forbidden(forbidden.clone());
    }
    if let Some(LookupError(said)) = cause::<LookupError>(&error) {
        ConnectError::Lookup(said.to_string())
    } else if cause::<io::Error>(&error).is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
        // The TCP connector has the same limit, and may be the first to find that it is over.
        ConnectError::TimedOut(limit)
    } else {
        ConnectError::Tcp(Arc::new(error))
    }
}

/// Finds an error of one type among the causes of another.
pub(super) fn cause<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Asks the proxy for a tunnel to `target`, over a connection to the proxy.
async fn tunnel(proxy: &Intercept, target: &Uri, base: Stream) -> Result<Stream, ConnectError> {
    let mut tunnel = Tunnel::new(proxy.uri().clone(), Ready(Some(base)));
    if let Some(authorization) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(authorization.clone());
    }
    tunnel.call(target.clone()).await.map_err(|error| ConnectError::Tunnel(Arc::new(error)))
}

/// Tells what rustls refused from what the network broke: only the latter is worth another try.
fn handshake_error(error: io::Error) -> ConnectError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => ConnectError::UnknownIssuer,
        Some(_) => ConnectError::Tls(Arc::new(error)),
        None => ConnectError::Tcp(Arc::new(error)),
    }
}

/// A connector that gives one connection that is there already.
struct Ready(Option<Stream>);

impl Service<Uri> for Ready {
    type Response = Stream;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Stream>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection, whatever lies beneath.
pub(super) struct Stream {
    io: TokioIo<Box<dyn Duplex>>,
    uses: Uses,
    is_h2: bool,
    is_proxied: bool,
}

impl Stream {
    fn new(io: Box<dyn Duplex>) -> Self {
        Self { io: TokioIo::new(io), uses: Uses::default(), is_h2: false, is_proxied: false }
    }
}

/// Counts the answers that came over one connection: the next failure on it may just be a keep-alive that ran out.
#[derive(Debug, Clone, Default)]
pub(super) struct Uses(Arc<AtomicUsize>);

impl Uses {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_reused(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.is_proxied).extra(self.uses.clone());
        if self.is_h2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
