//! Accepting connections, up to the limits, until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::places::ClientPlace;
use super::tls::Tls;
use super::{Server, connection};
use crate::tasks::TaskGroup;
use crate::telemetry::ConnectionShed;

/// The pause after a failed accept (no file descriptors left, most of all): without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one listener decides for whoever connects there.
#[derive(Debug)]
pub struct ListenerRules {
    /// Who connects here is asked who they are.
    pub identities: bool,
    /// `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Cancelled once others hold, by which who has connected might not be let in.
    outdated: CancellationToken,
}

impl Default for ListenerRules {
    fn default() -> Self {
        Self::new(true, None)
    }
}

impl ListenerRules {
    pub fn new(identities: bool, tls: Option<Tls>) -> Self {
        Self { identities, tls, outdated: CancellationToken::new() }
    }

    /// Waits until these let in whom the listener does not let in any more, perhaps.
    pub(super) async fn outdated(&self) {
        self.outdated.cancelled().await;
    }

    fn lets_in_as(&self, other: &Self) -> bool {
        let clients = |rules: &Self| rules.tls.as_ref().and_then(|tls| tls.options().clients.clone());
        self.identities == other.identities && clients(self) == clients(other)
    }
}

/// The rules of one listener as they are at the moment. A connection keeps those that it began with; when who may connect has changed, or
/// who is asked, it is asked to go, and its client comes again.
#[derive(Debug, Default)]
pub struct Entrance(ArcSwap<ListenerRules>);

impl Entrance {
    pub fn new(rules: ListenerRules) -> Self {
        Self(ArcSwap::from_pointee(rules))
    }

    /// Returns the rules that a connection that comes now begins with.
    pub fn rules(&self) -> Arc<ListenerRules> {
        self.0.load_full()
    }

    /// Lets new connections begin with other rules.
    pub fn set(&self, rules: ListenerRules) {
        let rules = Arc::new(rules);
        let before = self.0.swap(Arc::clone(&rules));
        if !before.lets_in_as(&rules) {
            before.outdated.cancel();
        }
    }
}

/// Accepts connections on `listener` until `stop`; each is served by a task of `tasks` and drains by itself after `stop`.
pub async fn serve(
    listener: TcpListener,
    entrance: Arc<Entrance>,
    server: Arc<Server>,
    tasks: TaskGroup,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let Some(admitted) = admit(&stream, address, &server) else { continue };
                let place = tokio::select! {
                    () = stop.cancelled() => return,
                    place = server.places.one() => place,
                };
                let rules = entrance.rules();
                let (server, stop, streams) = (Arc::clone(&server), stop.clone(), tasks.clone());
                tasks.spawn("connection", async move {
                    let _counted = server.metrics.http().connected();
                    connection::serve(stream, address, rules, &server, streams, stop).await;
                    drop((admitted, place));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whose place a connection takes, for as long as it lasts.
enum Admitted {
    /// That of a proxy, behind which are many.
    Proxy,
    /// One of the client's own.
    Client { _place: ClientPlace },
}

/// Lets a connection in, or counts why not: `None` closes it.
fn admit(stream: &TcpStream, address: SocketAddr, server: &Server) -> Option<Admitted> {
    let admitted = match server.clients.load().connections_of(address) {
        None => Admitted::Proxy,
        Some((client, limit)) => {
            let Some(place) = server.places.of_client(client, limit) else {
                tracing::debug!(peer = %address, limit, "a client has all its connections: one more is closed");
                server.metrics.http().connection_shed(ConnectionShed::ClientLimit);
                return None;
            };
            Admitted::Client { _place: place }
        }
    };
    if let Err(error) = prepare(stream, server) {
        tracing::debug!(peer = %address, %error, "a connection was gone before it was served");
        return None;
    }
    Some(admitted)
}

fn prepare(stream: &TcpStream, server: &Server) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // What is sent and not acknowledged is the kernel's to notice; `flow` sees what is not taken from us.
    SockRef::from(stream).set_tcp_user_timeout(Some(server.options.write_stall_timeout))
}
