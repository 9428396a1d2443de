//! `cachalot check-config FILE`: tells everything that is wrong with a configuration, and starts nothing.

use std::path::PathBuf;

use super::serve::environment;
use super::{refuse, tell};
use crate::settings::{Flags, Settings, Sources};

/// Check a configuration file, together with the environment, without starting anything.
///
/// Prints every problem with its line and exits with 2, or says that the file is fine and exits with 0.
#[derive(Debug, clap::Args)]
#[command(before_help = "Example:
  cachalot check-config /etc/cachalot.toml")]
pub(super) struct Args {
    /// The TOML file
    file: PathBuf,
}

pub(super) fn run(args: Args) -> u8 {
    let shown = args.file.display().to_string();
    let sources = Sources { file: Some(args.file), environment: environment(), flags: Flags::default() };
    match Settings::load(&sources) {
        Ok(_) => tell(format_args!("{shown}: ok")),
        Err(problems) => refuse(&problems),
    }
}
