//! What a supervisor such as systemd is told: that we serve, that we live, that we stop (`sd_notify(3)`).
//!
//! Without a supervisor, which is one that sets `NOTIFY_SOCKET`, nothing is told to anybody.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

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
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the supervisor cannot be told how we are; is NOTIFY_SOCKET its socket?");
    }
}
