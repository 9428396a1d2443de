//! Whether clients should come, and what an operator should know beside that.
//!
//! A sick disk does not make the process unready: it streams through, and clients get their bytes. Nor does a configuration file that
//! was refused: the one before it holds.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

/// Where the process stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Starting = 0,
    Ready = 1,
    Draining = 2,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// What became of the configuration when it was last read.
#[derive(Debug, Clone, Default)]
struct Config {
    /// Why it was refused, while an older one holds: one line each.
    problems: Vec<String>,
    /// Keys that have another value in the one that holds than the one that takes effect, until a restart.
    needs_restart: Vec<String>,
}

/// The state, for all who set or show it.
#[derive(Debug, Default)]
pub struct Readiness {
    state: AtomicU8,
    // A plain mutex: held to copy some lines.
    config: Mutex<Config>,
}

impl Readiness {
    pub fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Notes that a configuration holds, but for the keys that need a restart.
    pub fn config_applied(&self, needs_restart: Vec<String>) {
        *self.config() = Config { problems: Vec::new(), needs_restart };
    }

    /// Notes that a configuration was refused.
    pub fn config_refused(&self, problems: Vec<String>) {
        self.config().problems = problems;
    }

    /// Returns true when the configuration was good when it was last read.
    pub fn config_is_good(&self) -> bool {
        self.config().problems.is_empty()
    }

    /// Returns true when these are the problems that are told of already.
    pub fn has_config_problems(&self, problems: &[String]) -> bool {
        self.config().problems == problems
    }

    pub fn is_ready(&self) -> bool {
        self.state() == State::Ready
    }

    /// Returns the state as a small JSON document.
    pub(super) fn to_json(&self) -> String {
        let Config { problems, needs_restart } = self.config().clone();
        json!({
            "state": self.state().as_str(),
            "config": { "ok": problems.is_empty(), "problems": problems, "needs_restart": needs_restart },
        })
        .to_string()
    }

    fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            1 => State::Ready,
            2 => State::Draining,
            _ => State::Starting,
        }
    }

    fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
