//! Whether clients should come.
//!
//! A sick disk does not make the process unready: it streams through, and clients get their bytes.

use std::sync::atomic::{AtomicU8, Ordering};

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

/// The state, for all who set or show it.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    pub fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::Release);
    }

    pub fn is_ready(&self) -> bool {
        self.state() == State::Ready
    }

    /// Returns the state as a small JSON document.
    pub(super) fn to_json(&self) -> String {
        json!({ "state": self.state().as_str() }).to_string()
    }

    fn state(&self) -> State {
        match self.0.load(Ordering::Acquire) {
            1 => State::Ready,
            2 => State::Draining,
            _ => State::Starting,
        }
    }
}
