//! What this build is.

use std::env::consts;

/// The version, as released.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that it was built from, when the builder told by `CACHALOT_REVISION`.
pub const REVISION: &str = match option_env!("CACHALOT_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Returns the kind of machine that it runs on: `x86_64-linux`.
pub fn target() -> String {
    format!("{}-{}", consts::ARCH, consts::OS)
}
