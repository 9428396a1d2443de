//! What a supervisor such as systemd is told: that we serve, that we live, that we stop (`sd_notify(3)`).
//!
//! Without a supervisor, which is one that sets `NOTIFY_SOCKET`, nothing is told to anybody. One that does not listen holds nothing up
//! for longer than [`SEND_PATIENCE`]: serving and stopping do not depend on it.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use std::{env, io};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How long a word may wait for room in the supervisor's queue.
const SEND_PATIENCE: Duration = Duration::from_millis(500);

/// Tells that clients are served.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells people who ask the supervisor how we are.
pub(super) fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Tells that the end has begun, and how long it may take.
pub(super) fn stopping(patience: Duration) {
    let patience_usec = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::Status("draining"), NotifyState::ExtendTimeoutUsec(patience_usec)]);
}

/// Tells that we live, twice in the time after which the supervisor restarts us, if it watches at all. What is told comes from the runtime
/// that serves: when that hangs, nothing is told.
pub(super) async fn watchdog(stop: CancellationToken) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = interval((patience / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => tell(&[NotifyState::Watchdog]),
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    let words = states.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    if let Err(error) = send(&socket, words.as_bytes()) {
        tracing::warn!(%error, "the supervisor cannot be told how we are; is NOTIFY_SOCKET its socket, and does it read?");
    }
}

/// Sends one datagram to a socket in the file system, or, where the name begins with `@`, in the abstract namespace. `sd_notify` itself
/// knows only the former, and waits for ever.
fn send(socket: &OsStr, words: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    }?;
    let sender = UnixDatagram::unbound()?;
    sender.set_write_timeout(Some(SEND_PATIENCE))?;
    sender.connect_addr(&address)?;
    sender.send(words).map(drop)
}
