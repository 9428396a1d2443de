//! The data plane: HTTP in front of the cache, for container tools.
//!
//! One way through: `listener` accepts → `tls` secures → `connection` speaks HTTP → `heads` lets pass → `dispatch` routes, `door`
//! lets in, `dispatch` asks the cache → `manifests`, `blobs`, `tags`, `referrers` and `writes` shape the answer → `respond` is the
//! one place that turns errors into HTTP → `body` streams and accounts.
//!
//! `token` gives what `door` takes. On a plain connection `socket` sends what lies in files without copying it. `flow` knows what a client
//! leaves lying, `places` how many connections there may be, `inbox` how much of pushed manifests, and `limits` how much of
//! anything.
//!
//! What is deliberately absent: any decision about freshness or where bytes come from (that is `cache`), and any admin path.

mod access_log;
mod admission;
mod blobs;
mod body;
mod clients;
mod connection;
mod directory;
mod dispatch;
mod door;
mod flow;
mod headers;
mod heads;
mod inbox;
mod limits;
mod listener;
mod manifests;
mod peer;
mod places;
mod referrers;
mod respond;
mod routed;
mod socket;
mod tags;
mod tls;
mod token;
mod writes;

use std::sync::Arc;

use arc_swap::ArcSwap;
pub use clients::{ClientOptions, Clients};
pub use directory::Directory;
pub use door::Door;
pub use inbox::Inbox;
pub use limits::Options;
pub use listener::{Entrance, ListenerRules, serve};
pub use places::Places;
pub use tls::{ClientTrust, ServerIdentity, ServerIdentityError, Tls, TlsError, TlsOptions, expires_at};

use crate::cache::Cache;
use crate::telemetry::Metrics;

/// What every connection shares.
#[derive(Debug)]
pub struct Server {
    pub directory: ArcSwap<Directory>,
    pub clients: ArcSwap<Clients>,
    pub door: ArcSwap<Door>,
    pub places: Arc<Places>,
    pub inbox: Arc<Inbox>,
    pub cache: Cache,
    pub metrics: Arc<Metrics>,
    pub options: Options,
}
