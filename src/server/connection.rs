//! One connection: secured where its listener says so, then HTTP/1.1 or HTTP/2, with every wait bounded.
//!
//! A body that fails ends a connection of HTTP/1.1 by FIN before its announced length, over TLS without a `close_notify`: the one ending
//! after which containerd resumes (P-126). Over HTTP/2 it ends its stream by `RST_STREAM` (P-126a).
//!
//! The protocol is known before its first byte: by the listener, or by ALPN. Nothing is guessed from what a client sends, for which
//! hyper has no time-out.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::flow::{Activity, Patience, Watched};
use super::limits::{
    BUFFER_BYTES, H2_CONNECTION_WINDOW_BYTES, H2_HEADERS_BYTES_MAX, H2_LOCAL_RESETS_MAX, H2_PENDING_RESETS_MAX,
    H2_PING_INTERVAL, H2_PING_TIMEOUT, H2_SEND_BYTES, H2_STREAM_WINDOW_BYTES, H2_STREAMS_MAX, HEADERS_MAX,
    STALL_BYTES_MIN,
};
use super::listener::ListenerRules;
use super::peer::Peer;
use super::socket::{Outbox, Socket};
use super::tls::{self, Protocol};
use super::{Server, dispatch};
use crate::tasks::TaskGroup;
use crate::telemetry::{ConnectionShed, Handshake};

/// Serves `stream` until either side ends it; after `stop` it finishes the requests under way and closes. Streams of HTTP/2 are tasks of
/// `tasks`.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    rules: Arc<ListenerRules>,
    server: &Arc<Server>,
    tasks: TaskGroup,
    stop: CancellationToken,
) {
    let Some(tls) = &rules.tls else {
        let outbox = Outbox::default();
        let line = Line::new(server, Peer { address, certificate: None, rules }, Some(outbox.clone()));
        return http1(Socket::new(stream, outbox), Arc::new(line), stop).await;
    };
    let secured = tokio::select! {
        // Nothing was asked yet.
        () = stop.cancelled() => return,
        secured = tls::accept(stream, tls, server.options.handshake_timeout) => secured,
    };
    let secured = match secured {
        Ok(secured) => {
            server.metrics.http().handshake(Handshake::Ok);
            secured
        }
        Err(ending) => {
            tracing::debug!(peer = %address, result = ending.as_str(), "no TLS with a client");
            return server.metrics.http().handshake(ending);
        }
    };
    let line = Line::new(server, Peer { address, certificate: secured.certificate, rules: Arc::clone(&rules) }, None);
    match secured.protocol {
        Protocol::Http1 => http1(secured.stream, Arc::new(line), stop).await,
        Protocol::Http2 => http2(secured.stream, Arc::new(line), tasks, stop).await,
    }
}

/// What the requests of one connection have in common.
struct Line {
    server: Arc<Server>,
    peer: Peer,
    activity: Arc<Activity>,
    /// Where file content goes that the socket sends by itself.
    outbox: Option<Outbox>,
}

impl Line {
    fn new(server: &Arc<Server>, peer: Peer, outbox: Option<Outbox>) -> Self {
        Self { server: Arc::clone(server), peer, activity: Arc::default(), outbox }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let lease = self.activity.lease();
        let response = dispatch::handle(&self.server, request, &self.peer).await;
        Ok(response.map(|body| body.leased(lease, self.outbox.clone())))
    }
}

async fn http1<S>(stream: S, line: Arc<Line>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = {
        let line = Arc::clone(&line);
        service_fn(move |request| Arc::clone(&line).answer(request))
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(line.server.options.header_timeout)
        .max_buf_size(BUFFER_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Watched::new(stream, &line.activity)), service);
    // Idle connections end by the time-out for heads.
    drive(connection, Watch::new(&line, None), &line, stop).await;
}

async fn http2<S>(stream: S, line: Arc<Line>, tasks: TaskGroup, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = {
        let line = Arc::clone(&line);
        service_fn(move |request| Arc::clone(&line).answer(request))
    };
    let connection = http2::Builder::new(Streams(tasks))
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(H2_HEADERS_BYTES_MAX)
        .max_send_buf_size(H2_SEND_BYTES)
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(H2_LOCAL_RESETS_MAX)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT)
        .serve_connection(TokioIo::new(Watched::new(stream, &line.activity)), service);
    drive(connection, Watch::new(&line, Some(line.server.options.header_timeout)), &line, stop).await;
}

/// Drives a connection to its end: by the client, by `stop`, or by its limits.
async fn drive<C>(connection: C, mut watch: Watch, line: &Line, stop: CancellationToken)
where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let mut connection = pin!(connection);
    let (mut is_stopping, mut is_leaving) = (false, false);
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = is_to_end(&stop, &line.peer), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            verdict = watch.next() => {
                let reason = match verdict {
                    Verdict::Stalled => ConnectionShed::WriteStall,
                    // It is asked to go, and has as long again to do so.
                    Verdict::Idle if !is_leaving => {
                        is_leaving = true;
                        connection.as_mut().graceful_shutdown();
                        continue;
                    }
                    Verdict::Idle => return,
                    Verdict::Leaves => {
                        connection.as_mut().graceful_shutdown();
                        continue;
                    }
                    Verdict::Abandons => ConnectionShed::AbandonedRequests,
                };
                line.server.metrics.http().connection_shed(reason);
                tracing::debug!(peer = %line.peer.address, reason = reason.as_str(), "a connection is cut");
                return;
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %line.peer.address, %error, "a connection ended early");
    }
}

/// Waits until no more requests are taken: the process stops, or others are let in than when the connection came.
async fn is_to_end(stop: &CancellationToken, peer: &Peer) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = peer.rules.outdated() => {}
    }
}

/// Looks now and then at what a connection's client does.
struct Watch {
    activity: Arc<Activity>,
    stall_timeout: Duration,
    /// `None`: somebody else watches for idleness.
    idle_timeout: Option<Duration>,
    /// The time between two looks: what happens in between may be that much younger than it seems.
    period: Duration,
    bodies: Patience,
    socket: Patience,
    requests: Patience,
    /// It has left many answers, and was told.
    is_asked_to_go: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// What it was given lies here.
    Stalled,
    /// It asks nothing.
    Idle,
    /// It has left many answers.
    Leaves,
    /// It asks, and does not want the answers.
    Abandons,
}

impl Watch {
    fn new(line: &Line, idle_timeout: Option<Duration>) -> Self {
        let (activity, now) = (&line.activity, Instant::now());
        let stall_timeout = line.server.options.write_stall_timeout;
        Self {
            activity: Arc::clone(activity),
            stall_timeout,
            idle_timeout,
            period: stall_timeout.min(idle_timeout.unwrap_or(stall_timeout)) / 2,
            bodies: Patience::new(&activity.bodies, STALL_BYTES_MIN, now),
            socket: Patience::new(&activity.socket, u64::MAX, now),
            requests: Patience::new(&activity.requests, u64::MAX, now),
            is_asked_to_go: false,
        }
    }

    /// Waits until there is something to be done.
    ///
    /// # Cancel safety
    /// What was seen is kept.
    async fn next(&mut self) -> Verdict {
        loop {
            tokio::select! {
                () = sleep(self.period) => {}
                () = self.activity.alarm.notified() => {}
            }
            if let Some(verdict) = self.look(Instant::now()) {
                return verdict;
            }
        }
    }

    fn look(&mut self, now: Instant) -> Option<Verdict> {
        match self.activity.excesses() {
            0 => {}
            1 if self.is_asked_to_go => {}
            1 => {
                self.is_asked_to_go = true;
                return Some(Verdict::Leaves);
            }
            _ => return Some(Verdict::Abandons),
        }
        let stalled = self.bodies.stalled_since(now).min(self.socket.stalled_since(now));
        if now - stalled >= self.stall_timeout + self.period {
            return Some(Verdict::Stalled);
        }
        let idle = self.requests.idle_since(now);
        self.idle_timeout.filter(|timeout| now - idle >= *timeout).map(|_| Verdict::Idle)
    }
}

/// Runs the streams of a connection as tasks of the group.
#[derive(Clone)]
struct Streams(TaskGroup);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn("stream", stream);
    }
}
