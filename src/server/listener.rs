//! Accepting connections, up to the limit, until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::peer::Peer;
use super::{Server, connection};
use crate::tasks::TaskGroup;

/// The pause after a failed accept (no file descriptors left, most of all): without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections on `listener` until `stop`; each is served by a task of `tasks` and drains by itself after `stop`.
pub async fn serve(listener: TcpListener, server: Arc<Server>, tasks: TaskGroup, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(server.options.connections));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, address, place)) => {
                if let Err(error) = prepare(&stream, &server) {
                    tracing::debug!(peer = %address, %error, "a connection was gone before it was served");
                    continue;
                }
                let (server, stop) = (Arc::clone(&server), stop.clone());
                tasks.spawn("connection", async move {
                    connection::serve(stream, Arc::new(Peer::plain(address)), server, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<Accepted> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

fn prepare(stream: &TcpStream, server: &Server) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // hyper has no write time-out, and stops polling the body while a client does not read.
    SockRef::from(stream).set_tcp_user_timeout(Some(server.options.write_stall_timeout))
}
