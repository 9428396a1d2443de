//! What an operator can choose: read from file, environment and flags, checked as a whole, and handed on as plain values.
//!
//! Flags beat the environment, the environment beats the file, the file beats the defaults, key by key.
//! Everything that is wrong is told at once, each [`Problem`] with its line and what to write instead. Loading reads the
//! file and the files that it names (passwords, certificates); it touches no socket and no store.
//!
//! | file | idea |
//! |---|---|
//! | `schema` | the values: the reference of every key |
//! | `defaults`, `keys` | what holds where nothing is said, with bounds and reasons; the names that there are |
//! | `layers` | the sources laid over one another, and where each value is written |
//! | `reader` | typed values out of a section |
//! | `check`, `listeners`, `upstreams`, `account`, `access`, `identity` | the schema filled, key by key, and what the keys mean together |
//! | `units`, `suggest` | texts into values; what to say when that fails |

mod access;
mod account;
mod check;
mod defaults;
mod identity;
mod keys;
mod layers;
mod listeners;
mod problem;
mod reader;
mod schema;
mod suggest;
mod units;
mod upstreams;

use std::path::PathBuf;
use std::time::SystemTime;

pub use defaults::*;
use layers::Layers;
pub use problem::{Place, Problem, Problems};
pub use schema::*;
pub use units::Quantity;

use crate::oci::UpstreamName;

/// Where the settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file; without one, the defaults hold.
    pub file: Option<PathBuf>,
    /// All variables of the process: `CACHALOT_SERVER__LISTEN` is ours, `CACHALOT_PORT` is Kubernetes', and the place
    /// of the store follows from `XDG_CACHE_HOME` and `HOME`.
    pub environment: Vec<(String, String)>,
    pub flags: Flags,
}

/// What the command line sets.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--listen`: replaces `server.listen` when not empty.
    pub listen: Vec<String>,
    /// `--admin`: replaces `admin.listen`.
    pub admin: Option<String>,
    /// `--store`: replaces `store.path`.
    pub store: Option<PathBuf>,
    /// `--upstream`, each `NAME=URL`: replaces the endpoints of the upstream of that name, or adds one.
    pub upstreams: Vec<String>,
}

/// Returns the names of the registries that are there without a configuration.
pub fn builtin_registries() -> Vec<UpstreamName> {
    keys::BUILTIN_UPSTREAMS.iter().filter_map(|(name, ..)| name.parse().ok()).collect()
}

impl Settings {
    /// Reads, merges and checks.
    ///
    /// # Errors
    ///
    /// Everything that is wrong. Only a file that cannot be read or is no TOML hides what else may be wrong in it.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let layers = Layers::new(sources);
        if layers.is_broken {
            return Err(Problems::new(layers.problems));
        }
        check::check(layers, sources).map_err(Problems::new)
    }

    /// Returns what is not wrong and should be told nevertheless: certificates that are not valid at `now`, secrets that others can read,
    /// metrics that anybody can. Looks at the files that hold them.
    pub fn warnings(&self, now: SystemTime) -> Vec<String> {
        let mut warnings = listeners::warnings(self, now);
        warnings.extend(identity::warnings(self));
        warnings
    }
}

#[cfg(test)]
mod tests;
