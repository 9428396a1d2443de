//! The assembly: settings in, a running process out, and its orderly end.
//!
//! Everything is made here and handed down; nothing below knows the settings. The end comes in the order of the data's way:
//! listeners stop, connections finish, fills finish, the ledger is written.

mod options;
mod reload;
mod supervisor;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Readiness, State};
use crate::cache::{Cache, Parts};
use crate::fetch::FetchError;
use crate::identity::{KeysError, Lasting};
use crate::oci::UpstreamName;
use crate::server::{self, Entrance, Places, Server, TlsError};
use crate::settings::{Listener, Settings, Sources};
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

/// Runs the server until SIGTERM or SIGINT, then drains. Meanwhile it follows what becomes of `sources`.
///
/// # Errors
/// When it cannot start; once it runs, only the signal ends it.
pub fn run(settings: &Settings, sources: &Sources) -> Result<(), AppError> {
    let logs = telemetry::init(&settings.log.level, options::log_format(settings.log.format))?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(AppError::Runtime)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Runtime)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(AppError::Runtime)?;
        let app = App::start(settings).await?;
        app.announce(settings);
        app.background.spawn("watchdog", supervisor::watchdog(app.stop_background.clone()));
        supervisor::ready(&app.status());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = reload::follow(&app, sources, &logs, &mut hangup) => {}
        }
        let patience = lock(&app.settings).server.drain_timeout;
        supervisor::stopping(patience + LEDGER_PATIENCE);
        app.drain(patience).await;
        Ok(())
    })
}

/// A running server.
#[derive(Debug)]
pub struct App {
    /// Where the data plane listens: those of `server.listen`, then those of every `[[listener]]`.
    pub addresses: Vec<SocketAddr>,
    /// Where the control plane listens.
    pub admin_address: SocketAddr,
    pub metrics: Arc<Metrics>,
    server: Arc<Server>,
    /// Those of every `[[listener]]`, by the address that the settings have.
    entrances: Vec<(SocketAddr, Arc<Entrance>)>,
    readiness: Arc<Readiness>,
    admin: Arc<Admin>,
    lasting: Arc<Lasting>,
    /// What holds.
    // A plain mutex: held while a configuration is put in the place of another.
    settings: Mutex<Settings>,
    /// What holds where only a start changes it.
    started_with: Settings,
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
        let mut listeners = bind_plain(&settings.server.listen)?;
        let own = bind_own(&settings.listeners)?;
        let entrances = settings.listeners.iter().zip(&own);
        let entrances = entrances.map(|(settings, (_, entrance))| (settings.address, Arc::clone(entrance))).collect();
        listeners.extend(own);
        let admin_listener = bind(settings.admin.listen)?;
        let names: Vec<_> = settings.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        let metrics = Arc::new(Metrics::new(&names, settings.metrics.repositories as usize)?);
        let (disk, ledger) = options::open_disk(&settings.store, &metrics)?;
        let store = Arc::new(Memory::over(disk.clone(), settings.store.memory, Arc::clone(&metrics)));
        let (connections, work, background) = (TaskGroup::new(), TaskGroup::new(), TaskGroup::new());
        let (stop, stop_background) = (CancellationToken::new(), CancellationToken::new());
        let cache = Cache::new(Parts {
            store: Arc::clone(&store) as Arc<dyn BlobStore>,
            ledger: Arc::clone(&ledger),
            tasks: work.clone(),
            fills: options::fill_limits(settings.fills),
            client_fills: options::client_fill_limits(settings),
        });
        let readiness = Arc::new(Readiness::default());
        let lasting = Arc::new(Lasting::new(Arc::clone(&metrics), work.clone()));
        let via = options::via();
        let server = Arc::new(Server {
            directory: ArcSwap::from_pointee(options::directory(settings, &metrics, &work, &via, None)?),
            clients: ArcSwap::from_pointee(options::clients(&settings.clients)),
            door: ArcSwap::from_pointee(options::door(settings, &lasting)?),
            places: Arc::new(Places::new(settings.server.connections as usize)),
            inbox: Arc::default(),
            cache,
            metrics: Arc::clone(&metrics),
            options: options::limits(&settings.server, settings.log.access, via),
        });
        options::note_certificates(settings, &metrics);
        metrics.config_applied(SystemTime::now());
        let of_upstreams = Arc::clone(&server);
        let refresh = Box::new(move || {
            store.refresh_gauges();
            of_upstreams.directory.load().upstreams().for_each(|upstream| upstream.refresh_gauges());
        });
        let admin = Arc::new(Admin {
            metrics: Arc::clone(&metrics),
            readiness: Arc::clone(&readiness),
            identities: ArcSwapOption::from(options::admin_identities(&settings.admin, &lasting)?),
            refresh,
        });
        let app = Self {
            addresses: listeners.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect(),
            admin_address: admin_listener.local_addr().unwrap_or(settings.admin.listen),
            metrics: Arc::clone(&metrics),
            server: Arc::clone(&server),
            entrances,
            readiness: Arc::clone(&readiness),
            admin: Arc::clone(&admin),
            lasting,
            settings: Mutex::new(settings.clone()),
            started_with: settings.clone(),
            stop: stop.clone(),
            stop_background: stop_background.clone(),
            connections: connections.clone(),
            work,
            background: background.clone(),
        };
        app.keep_house(disk, ledger, settings.store.scrub_rate);
        background.spawn("admin", admin::serve(admin_listener, admin, background.clone(), stop_background));
        for (listener, entrance) in listeners {
            let serving = server::serve(listener, entrance, Arc::clone(&server), connections.clone(), stop.clone());
            connections.spawn("listener", serving);
        }
        readiness.set(State::Ready);
        Ok(app)
    }

    /// Returns how many fills are under way.
    pub fn fills_under_way(&self) -> usize {
        self.server.cache.fills_under_way()
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
        let (stop, server) = (self.stop_background.clone(), Arc::clone(&self.server));
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
                () = async { scan.await; tokio::join!(sweep(disk.clone(), server), prune(ledger), scrub(disk, scrub_rate)); } => {}
            }
        });
    }

    /// Returns one line on what is served where.
    fn status(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        format!("serving on {}, admin on {}", addresses.join(", "), self.admin_address)
    }

    fn announce(&self, settings: &Settings) {
        for address in &self.addresses {
            tracing::info!(%address, "serving");
        }
        for warning in settings.warnings(SystemTime::now()) {
            tracing::warn!("{warning}");
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

async fn sweep(disk: Disk, server: Arc<Server>) {
    let mut ticks = interval(SWEEP_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        server.cache.expire_uploads();
        let (disk, clients, door) = (disk.clone(), server.clients.load_full(), server.door.load_full());
        let swept = crate::store::blocking(move || {
            clients.forget_idle();
            door.forget_idle();
            disk.sweep();
            Ok::<_, std::io::Error>(())
        });
        if let Err(error) = swept.await {
            tracing::warn!(%error, "the store cannot be swept");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A listener, and how it treats whoever connects.
type Bound = (TcpListener, Arc<Entrance>);

fn bind_plain(addresses: &[SocketAddr]) -> Result<Vec<Bound>, AppError> {
    addresses.iter().map(|address| Ok((bind(*address)?, Arc::default()))).collect()
}

fn bind_own(listeners: &[Listener]) -> Result<Vec<Bound>, AppError> {
    let bound = listeners.iter().map(|listener| {
        let rules = options::listener_rules(listener, None)?;
        Ok((bind(listener.address)?, Arc::new(Entrance::new(rules))))
    });
    bound.collect()
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
    #[error("cannot speak TLS on {address}")]
    Tls { address: SocketAddr, source: TlsError },
    #[error("cannot use the store {path}: give a directory that this user can write, with --store or store.path")]
    Store { path: String, source: StoreError },
    #[error("cannot make the metrics")]
    Metrics(#[from] prometheus::Error),
    #[error("cannot use an authority of identity.service_accounts_ca")]
    Identities(#[source] FetchError),
    #[error("cannot use identity.service_accounts_jwks")]
    Keys(#[source] KeysError),
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
