//! One connection: HTTP/1.1, with every wait bounded.
//!
//! A body that fails ends the connection by FIN before its announced length: the one ending after which containerd resumes (P-126).

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::limits::{BUFFER_BYTES, HEADERS_MAX};
use super::peer::Peer;
use super::socket::{Outbox, Socket};
use super::{Server, dispatch};

/// Serves `stream` until either side ends it; after `stop` it finishes the request under way and closes.
pub(super) async fn serve(stream: TcpStream, peer: Arc<Peer>, server: Arc<Server>, stop: CancellationToken) {
    let outbox = Outbox::default();
    let service = {
        let (server, peer, outbox) = (Arc::clone(&server), Arc::clone(&peer), outbox.clone());
        service_fn(move |request| {
            let (server, peer, outbox) = (Arc::clone(&server), Arc::clone(&peer), outbox.clone());
            async move {
                let response = dispatch::handle(&server, request, &peer).await;
                Ok::<_, Infallible>(response.map(|body| body.through(outbox)))
            }
        })
    };
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(server.options.header_timeout)
            .max_buf_size(BUFFER_BYTES)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(Socket::new(stream, outbox)), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %peer.address, %error, "a connection ended early");
    }
}
