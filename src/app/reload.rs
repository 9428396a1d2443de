//! A new configuration while the process runs: applied as a whole, or not at all.
//!
//! It is read again on SIGHUP, and every [`LOOK_PERIOD`]: a file that is replaced by a rename, as Kubernetes does it, or that lies on a
//! network, tells nobody. Files that it names count as its parts. What is seen twice in a row is applied: a file is not always written at
//! once.
//!
//! What takes effect: upstreams and how they are found, identities, certificates and rules of listeners, limits of clients, the log
//! level, `server.drain_timeout` and `server.public_url`. Connections that stand go on with the certificate that they began with,
//! unless others may connect, or are asked. Fills that run go on with the upstream that they began with. The rest is told to need a
//! restart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::Signal;
use tokio::time::{MissedTickBehavior, interval};

use super::{App, AppError, lock, options, supervisor};
use crate::identity::Identities;
use crate::server::{Directory, Door, Entrance, ListenerRules};
use crate::settings::{Listener, Problems, Settings, Sources};
use crate::telemetry::{Logs, sentence};

/// How often the configuration is read again: some milliseconds of work.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// A new door, and new identities of the admin listener, which may be none; `None` where nothing changes.
type NewIdentities = (Option<Door>, Option<Option<Arc<Identities>>>);

/// What reading the configuration brought: settings, or what is wrong, one line each.
type Read = Result<Settings, Vec<String>>;

/// Applies every new configuration; never returns.
pub(super) async fn follow(app: &App, sources: &Sources, logs: &Logs, hangup: &mut Signal) {
    let mut looks = interval(LOOK_PERIOD);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<Read> = None;
    loop {
        let is_asked_for = tokio::select! {
            asked = hangup.recv() => asked.is_some(),
            _ = looks.tick(), if sources.file.is_some() => false,
        };
        let read = read(sources.clone()).await;
        if is_asked_for || last.as_ref() == Some(&read) {
            app.take(&read, logs, is_asked_for);
        }
        last = Some(read);
    }
}

async fn read(sources: Sources) -> Read {
    let read = crate::store::blocking(move || {
        Ok::<_, std::io::Error>(Settings::load(&sources).map_err(|problems: Problems| lines(&problems)))
    });
    read.await.unwrap_or_else(|error| Err(vec![error.to_string()]))
}

fn lines(problems: &Problems) -> Vec<String> {
    problems.to_string().lines().map(str::to_owned).collect()
}

impl App {
    /// Makes new settings take effect, as far as that is possible now, and returns the keys that need a restart.
    ///
    /// # Errors
    /// When an upstream makes no client, a listener no TLS, or an authority cannot be used; then nothing has changed.
    pub fn apply(&self, settings: &Settings) -> Result<Vec<String>, AppError> {
        let mut current = lock(&self.settings);
        let (before, via) = (self.server.directory.load_full(), &self.server.options.via);
        let after = options::directory(settings, &self.metrics, &self.work, via, Some((&current, &before)))?;
        let (door, admin) = self.identities(&current, settings)?;
        let after = Arc::new(after);
        let rules = self.rules_of_listeners(&current, settings)?;
        for (entrance, rules) in rules {
            entrance.set(rules);
        }
        self.server.directory.store(Arc::clone(&after));
        self.leave(&before, &after);
        if settings.clients != current.clients {
            self.server.clients.store(Arc::new(options::clients(&settings.clients)));
        }
        if let Some(door) = door {
            self.server.door.store(Arc::new(door));
        }
        if let Some(identities) = admin {
            self.admin.identities.store(identities);
        }
        *current = settings.clone();
        options::note_certificates(settings, &self.metrics);
        self.metrics.config_applied(SystemTime::now());
        Ok(needs_restart(&self.started_with, settings))
    }

    /// Makes the door and the identities of the admin listener, where they change: what is remembered of passwords goes with the old ones.
    fn identities(&self, current: &Settings, settings: &Settings) -> Result<NewIdentities, AppError> {
        let of_door = |settings: &Settings| {
            (settings.identity.clone(), settings.principals.clone(), settings.server.public_url.clone())
        };
        let door = (of_door(current) != of_door(settings)).then(|| options::door(settings, &self.lasting));
        let of_admin = |settings: &Settings| (settings.admin.htpasswd.clone(), settings.admin.tokens.clone());
        let admin = (of_admin(current) != of_admin(settings))
            .then(|| options::admin_identities(&settings.admin, &self.lasting));
        Ok((door.transpose()?, admin.transpose()?))
    }

    /// Returns the rules of the listeners that have others now.
    fn rules_of_listeners(
        &self,
        current: &Settings,
        settings: &Settings,
    ) -> Result<Vec<(&Entrance, ListenerRules)>, AppError> {
        let changed = settings.listeners.iter().filter(|listener| !current.listeners.contains(listener));
        let known = changed.filter_map(|listener| {
            let (_, entrance) = self.entrances.iter().find(|(address, _)| *address == listener.address)?;
            Some((listener, &**entrance))
        });
        known
            .map(|(listener, entrance)| Ok((entrance, options::listener_rules(listener, Some(&entrance.rules()))?)))
            .collect()
    }

    /// Leaves the upstreams that are replaced or gone.
    fn leave(&self, before: &Directory, after: &Directory) {
        for upstream in before.upstreams() {
            let now = after.upstream(upstream.name());
            if now.is_some_and(|now| Arc::ptr_eq(now, upstream)) {
                continue;
            }
            self.server.cache.forget_questions(upstream.name());
            if now.is_none() {
                upstream.metrics().retire();
            }
        }
    }

    /// Takes what was read: applies it when it is new, and tells about it when there is anything to tell.
    fn take(&self, read: &Read, logs: &Logs, is_asked_for: bool) {
        let outcome = match read {
            Ok(settings) if *settings == *lock(&self.settings) && !is_asked_for => {
                if self.readiness.config_is_good() {
                    return;
                }
                // What was wrong was taken back.
                Ok(needs_restart(&self.started_with, settings))
            }
            Ok(settings) => self.apply(settings).map_err(|error| vec![sentence(&error)]).inspect(|_| {
                if let Err(error) = logs.set_filter(&settings.log.level) {
                    tracing::warn!(error = sentence(&error), "the log level stays as it is");
                }
            }),
            Err(problems) if self.readiness.has_config_problems(problems) && !is_asked_for => return,
            Err(problems) => Err(problems.clone()),
        };
        match outcome {
            Ok(needs_restart) => {
                tracing::info!("the configuration is applied");
                for warning in lock(&self.settings).warnings(SystemTime::now()) {
                    tracing::warn!("{warning}");
                }
                for key in &needs_restart {
                    tracing::warn!(key, "this key has changed and takes effect with the next start");
                }
                self.metrics.config_applied(SystemTime::now());
                self.readiness.config_applied(needs_restart);
                supervisor::status(&self.status());
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::error!("the configuration is refused, the one before it holds: {problem}");
                }
                self.metrics.config_refused();
                self.readiness.config_refused(problems);
                supervisor::status("a new configuration is refused, the one before it holds; the log says why");
            }
        }
    }
}

/// Returns where the `[[listener]]`s listen, in an order of its own.
fn addresses(settings: &Settings) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = settings.listeners.iter().map(|Listener { address, .. }| *address).collect();
    addresses.sort();
    addresses
}

/// Returns the keys whose change takes effect with the next start.
fn needs_restart(started_with: &Settings, settings: &Settings) -> Vec<String> {
    let (old, new) = (started_with, settings);
    let changed = [
        ("server.listen", old.server.listen != new.server.listen),
        ("listener.address", addresses(old) != addresses(new)),
        ("server.handshake_timeout", old.server.handshake_timeout != new.server.handshake_timeout),
        ("server.header_timeout", old.server.header_timeout != new.server.header_timeout),
        ("server.connections", old.server.connections != new.server.connections),
        ("server.write_stall_timeout", old.server.write_stall_timeout != new.server.write_stall_timeout),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("store.path", old.store.path != new.store.path),
        ("store.capacity", old.store.capacity != new.store.capacity),
        ("store.min_free", old.store.min_free != new.store.min_free),
        ("store.memory", old.store.memory != new.store.memory),
        ("store.manifests", old.store.manifests != new.store.manifests),
        ("store.scrub_rate", old.store.scrub_rate != new.store.scrub_rate),
        ("clients.fills", old.clients.fills != new.clients.fills),
        ("clients.unfinished", old.clients.unfinished != new.clients.unfinished),
        ("fills.max", old.fills.max != new.fills.max),
        ("fills.unfinished", old.fills.unfinished != new.fills.unfinished),
        ("fills.unattended", old.fills.unattended != new.fills.unattended),
        ("log.format", old.log.format != new.log.format),
        ("log.access", old.log.access != new.log.access),
        ("metrics.repositories", old.metrics != new.metrics),
    ];
    changed.into_iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| key.to_owned()).collect()
}
