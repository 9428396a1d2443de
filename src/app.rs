//! The assembly: settings in, a running process out, and its orderly end.
//!
//! Everything is made here and handed down; nothing below knows the settings. The end comes in the order of the data's way:
//! listeners stop, connections finish, fills finish, the ledger is written.

mod options;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Readiness, State};
use crate::cache::{Cache, Parts};
use crate::oci::UpstreamName;
use crate::server::{self, Server};
use crate::settings::Settings;
use crate::store::{BlobStore, Disk, Ledger, Memory, StoreError, scrub};
use crate::tasks::TaskGroup;
use crate::telemetry::{self, LogError, Metrics};
use crate::upstream;

/// How often the store is checked against its budgets and the free space of its file system.
const SWEEP_PERIOD: Duration = Duration::from_secs(10);

/// How often old tags are dropped.
const PRUNE_PERIOD: Duration = Duration::from_hours(24);

/// Connections that may wait to be accepted, as far as `net.core.somaxconn` allows. The library's 128 is less than one herd: whom it
/// leaves out tries again after a second.
const ACCEPT_BACKLOG: u32 = 4096;

/// How long the ledger's last write may take.
const LEDGER_PATIENCE: Duration = Duration::from_secs(5);

/// Runs the server until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// When it cannot start; once it runs, only the signal ends it.
pub fn run(settings: &Settings) -> Result<(), AppError> {
    telemetry::init(&settings.log.level, options::log_format(settings.log.format))?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(AppError::Runtime)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Runtime)?;
        let app = App::start(settings).await?;
        app.announce(settings);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        app.drain(settings.server.drain_timeout).await;
        Ok(())
    })
}

/// A running server.
#[derive(Debug)]
pub struct App {
    /// Where the data plane listens.
    pub addresses: Vec<SocketAddr>,
    /// Where the control plane listens.
    pub admin_address: SocketAddr,
    pub metrics: Arc<Metrics>,
    cache: Cache,
    readiness: Arc<Readiness>,
    /// Ends accepting, and connections after the request under way.
    stop: CancellationToken,
    /// Ends the background work.
    stop_background: CancellationToken,
    connections: TaskGroup,
    work: TaskGroup,
    background: TaskGroup,
}

impl App {
    /// Binds, opens the store and serves.
    ///
    /// # Errors
    /// A busy port, an unusable store, an upstream that makes no client.
    #[expect(clippy::unused_async, reason = "it needs a runtime: sockets are registered with it, tasks spawned")]
    pub async fn start(settings: &Settings) -> Result<Self, AppError> {
        let listeners = bind_all(&settings.server.listen)?;
        let admin_listener = bind(settings.admin.listen)?;
        let names: Vec<_> = settings.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        let metrics = Arc::new(Metrics::new(&names)?);
        let (disk, ledger) = options::open_disk(&settings.store, &metrics)?;
        let store = Arc::new(Memory::over(disk.clone(), settings.store.memory, Arc::clone(&metrics)));
        let (connections, work, background) = (TaskGroup::new(), TaskGroup::new(), TaskGroup::new());
        let (stop, stop_background) = (CancellationToken::new(), CancellationToken::new());
        let cache = Cache::new(Parts {
            store: Arc::clone(&store) as Arc<dyn BlobStore>,
            ledger: Arc::clone(&ledger),
            upstreams: options::upstreams(settings, &metrics, &work)?,
            tasks: work.clone(),
            fills: options::fill_limits(settings.fills),
        });
        let readiness = Arc::new(Readiness::default());
        let app = Self {
            addresses: listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect(),
            admin_address: admin_listener.local_addr().unwrap_or(settings.admin.listen),
            metrics: Arc::clone(&metrics),
            cache: cache.clone(),
            readiness: Arc::clone(&readiness),
            stop: stop.clone(),
            stop_background: stop_background.clone(),
            connections: connections.clone(),
            work,
            background: background.clone(),
        };
        app.keep_house(disk, ledger, settings.store.scrub_rate);
        let refresh = Box::new(move || store.refresh_gauges());
        let admin = Arc::new(Admin { metrics: Arc::clone(&metrics), readiness: Arc::clone(&readiness), refresh });
        background.spawn("admin", admin::serve(admin_listener, admin, background.clone(), stop_background));
        let server = Arc::new(Server {
            table: settings.table.clone(),
            cache,
            metrics,
            options: options::limits(&settings.server, settings.log.access),
        });
        for listener in listeners {
            connections
                .spawn("listener", server::serve(listener, Arc::clone(&server), connections.clone(), stop.clone()));
        }
        readiness.set(State::Ready);
        Ok(app)
    }

    /// Returns how many fills are under way.
    pub fn fills_under_way(&self) -> usize {
        self.cache.fills_under_way()
    }

    /// Stops accepting, lets connections and fills finish within `patience`, and writes the ledger.
    pub async fn drain(self, patience: Duration) {
        tracing::info!(patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), "draining");
        let deadline = Instant::now() + patience;
        self.readiness.set(State::Draining);
        self.stop.cancel();
        let cut = self.connections.drain(patience).await;
        let discarded = self.work.drain(deadline.saturating_duration_since(Instant::now())).await;
        self.stop_background.cancel();
        self.background.drain(LEDGER_PATIENCE).await;
        tracing::info!(connections.cut = cut, fills.discarded = discarded, "stopped");
    }

    /// Starts what runs beside serving: the scan of what is stored, the sweeper, the scrub, the ledger's writer.
    fn keep_house(&self, disk: Disk, ledger: Arc<Ledger>, scrub_rate: u64) {
        self.background.spawn("ledger", Arc::clone(&ledger).write_behind(self.stop_background.clone()));
        let (stop, cache) = (self.stop_background.clone(), self.cache.clone());
        self.background.spawn("housekeeper", async move {
            let scanned = disk.clone();
            let scan = async move {
                let began = Instant::now();
                match crate::store::blocking(move || scanned.scan()).await {
                    Ok(()) => tracing::debug!(
                        elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                        "the store is scanned"
                    ),
                    Err(error) => {
                        tracing::warn!(%error, "the store cannot be scanned; what it held before is not evicted");
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = async { scan.await; tokio::join!(sweep(disk.clone(), cache), prune(ledger), scrub(disk, scrub_rate)); } => {}
            }
        });
    }

    fn announce(&self, settings: &Settings) {
        for address in &self.addresses {
            tracing::info!(%address, "serving");
        }
        tracing::info!(address = %self.admin_address, "admin: /metrics, /livez, /readyz");
        tracing::info!(path = %settings.store.path.display(), "store");
        let names: Vec<_> = settings.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        tracing::info!(
            default = settings.server.default_upstream.as_ref().map_or("none", UpstreamName::as_str),
            "upstreams: {}",
            names.join(" ")
        );
    }
}

async fn prune(ledger: Arc<Ledger>) {
    let mut ticks = interval(PRUNE_PERIOD);
    loop {
        ticks.tick().await;
        let ledger = Arc::clone(&ledger);
        let pruned = crate::store::blocking(move || {
            ledger.prune(SystemTime::now());
            Ok::<_, std::io::Error>(())
        });
        if let Err(error) = pruned.await {
            tracing::warn!(%error, "the ledger cannot be pruned");
        }
    }
}

async fn sweep(disk: Disk, cache: Cache) {
    let mut ticks = interval(SWEEP_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        cache.expire_uploads();
        let disk = disk.clone();
        let swept = crate::store::blocking(move || {
            disk.sweep();
            Ok::<_, std::io::Error>(())
        });
        if let Err(error) = swept.await {
            tracing::warn!(%error, "the store cannot be swept");
        }
    }
}

fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, AppError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        listeners.push(bind(*address)?);
    }
    Ok(listeners)
}

fn bind(address: SocketAddr) -> Result<TcpListener, AppError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart takes the address over while connections of the process before linger.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(ACCEPT_BACKLOG)
    };
    listen().map_err(|source| AppError::Bind { address, source })
}

/// Raises the soft limit of open files to the hard one: each client and each upstream transfer holds a descriptor, and the usual soft
/// limit of 1,024 was made for `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Why the server cannot start, with what to do next.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot start logging")]
    Log(#[from] LogError),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot listen on {address}: choose another address with --listen or --admin, or stop what uses it")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("cannot use the store {path}: give a directory that this user can write, with --store or store.path")]
    Store { path: String, source: StoreError },
    #[error("cannot make the metrics")]
    Metrics(#[from] prometheus::Error),
    #[error("cannot use an upstream")]
    Upstream(#[from] upstream::OptionsError),
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_herd_that_comes_before_it_can_be_accepted_is_not_sent_away() {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let herd: Result<Vec<_>, _> =
            (0..500).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(500))).collect();
        assert_eq!(herd.map(|herd| herd.len()).ok(), Some(500));
    }
}
