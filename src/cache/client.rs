//! Who asks, as far as the cache wants to know: whether it is somebody else, and how much is being downloaded for it.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use moka::sync::Cache as Memo;

use super::fill::{Bounds, FillLimits};
use crate::store::ClientPrint;

/// Clients whose downloads are counted at the most; of those beyond, who asked longest ago begins anew.
const CLIENTS_MAX: u64 = 10_000;

/// How long a client is remembered that starts no download.
const IDLE_LIMIT: Duration = Duration::from_mins(10);

/// One client among others, by a hash of whatever tells them apart: a principal, or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(u64);

/// Keys that nobody outside knows: who could choose its hash could be counted as another.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Client {
    pub fn of(identity: &impl Hash) -> Self {
        Self(KEYS.hash_one(identity))
    }

    pub(super) fn print(self) -> ClientPrint {
        ClientPrint::of(&self.0)
    }
}

/// What is downloaded for each client (S-35): one that asks for everything leaves places for the others.
#[derive(Debug)]
pub(super) struct ClientBounds {
    limits: FillLimits,
    known: Memo<Client, Bounds>,
}

impl ClientBounds {
    pub(super) fn new(limits: FillLimits) -> Self {
        Self { limits, known: Memo::builder().max_capacity(CLIENTS_MAX).time_to_idle(IDLE_LIMIT).build() }
    }

    /// Returns the bounds of a client.
    pub(super) fn of(&self, client: Client) -> Bounds {
        self.known.get_with(client, || Bounds::new(self.limits))
    }
}
