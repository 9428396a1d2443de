//! The scripted registry's server: takes connections, answers requests, and lets the scheduled faults happen.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf as _;
use http::{HeaderName, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::body::{Body, Broken, Wire};
use super::fault::Fault;
use super::log::Request;
use super::reply::{Reply, error};
use super::{World, lock};

/// Takes connections until it is dropped; dropping it closes them.
pub(crate) async fn accept(world: Arc<World>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let number = world.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(connection(Arc::clone(&world), number, tcp, tls.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(world: Arc<World>, number: usize, tcp: TcpStream, tls: Option<TlsAcceptor>) {
    let _guard = PanicGuard(Arc::clone(&world));
    let _ = tcp.set_nodelay(true);
    let transport = match tls {
        None => Transport::Plain(tcp),
        Some(acceptor) => match acceptor.accept(tcp).await {
            Ok(stream) => Transport::Tls(Box::new(stream)),
            Err(_) => return, // the client did not like the certificate: its test says so
        },
    };
    let is_h2 = transport.is_h2();
    let wire = Arc::new(Wire::default());
    wire.is_shared.store(is_h2, Ordering::SeqCst);
    let io = TokioIo::new(Watched { transport, wire: Arc::clone(&wire) });
    let service = service_fn(move |request| answer(Arc::clone(&world), Arc::clone(&wire), number, request));
    // How a connection ends is seen in the log and by the client.
    if is_h2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

/// Answers one request.
async fn answer(
    world: Arc<World>,
    wire: Arc<Wire>,
    connection: usize,
    request: http::Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    let seen = describe(&request, connection);
    let line = world.book.begin(seen.clone());
    let content_type =
        request.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default().to_owned());
    let body = request.into_body().collect().await.map_err(|_gone| Broken)?.to_bytes();
    *lock(&wire.raw) = None;
    let refusal = world.refusal(&seen);
    let mut reply = if let Some(refusal) = refusal {
        refusal
    } else if let Some(challenge) = world.challenge(&seen) {
        error(401, "UNAUTHORIZED", "authentication required").with(header::WWW_AUTHENTICATE, &challenge)
    } else {
        let fault = lock(&world.faults).take(&seen.method, &seen.path, seen.range.is_some());
        match fault {
            Some(Fault::Hangup) => return Err(Broken),
            Some(Fault::Raw { bytes, closes }) => {
                *lock(&wire.raw) = Some(bytes);
                Reply::new(200, "").with(header::CONNECTION, if closes { "close" } else { "keep-alive" })
            }
            Some(Fault::Hold) => {
                world.hold(&line).await;
                world.answer(&seen, content_type.as_deref(), &body)
            }
            Some(fault) => world.suffer(&seen, fault),
            None => world.answer(&seen, content_type.as_deref(), &body),
        }
    };
    if reply.plan.pace.is_none() {
        reply.plan.pace = *lock(&world.pace);
    }
    for (name, value) in lock(&world.headers).iter() {
        reply = reply.with(HeaderName::from_static(name), value);
    }
    line.set_status(reply.status);
    Ok(reply.send(&seen, world, wire, line))
}

/// Returns what the log keeps of a request.
fn describe(request: &http::Request<Incoming>, connection: usize) -> Request {
    let text = |name: HeaderName| {
        let value = request.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Request {
        connection,
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().map(str::to_owned),
        host: text(header::HOST).or_else(|| request.uri().authority().map(ToString::to_string)),
        range: text(header::RANGE),
        accept: text(header::ACCEPT),
        accept_encoding: text(header::ACCEPT_ENCODING),
        authorization: text(header::AUTHORIZATION),
        user_agent: text(header::USER_AGENT),
        via: text(header::VIA),
        ..Request::default()
    }
}

/// Notes a panic of the task that holds it.
struct PanicGuard(Arc<World>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.has_panicked.store(true, Ordering::SeqCst);
        }
    }
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    fn is_h2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// A connection that tells when it was flushed, and that can end with RST.
struct Watched {
    transport: Transport,
    wire: Arc<Wire>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.wire.resets.load(Ordering::SeqCst) {
            // A close with a linger of zero sends RST in place of FIN.
            let _ = SockRef::from(self.transport.tcp()).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { transport, wire } = self.get_mut();
        if let Some(raw) = lock(&wire.raw).as_mut() {
            while !raw.is_empty() {
                let sent = ready!(transport.poll_write(cx, raw))?;
                raw.advance(sent);
            }
            return Poll::Ready(Ok(bytes.len())); // swallowed
        }
        transport.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match &mut this.transport {
            Transport::Plain(tcp) => ready!(Pin::new(tcp).poll_flush(cx)),
            Transport::Tls(stream) => ready!(Pin::new(stream).poll_flush(cx)),
        };
        this.wire.flushed.notify_waiters();
        Poll::Ready(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
