//! `cachalot check-config FILE`: tells everything that is wrong with a configuration, and starts nothing.

use std::path::PathBuf;
use std::time::SystemTime;

use super::serve::environment;
use super::{effective, refuse, say, tell};
use crate::settings::{Flags, Settings, Sources};

/// Check a configuration file, together with the environment, without starting anything.
///
/// Prints every problem with its line and exits with 2, or says that the file is fine and exits with 0.
#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:
  cachalot check-config /etc/cachalot.toml
  cachalot check-config /etc/cachalot.toml --print | grep ttl")]
pub(super) struct Args {
    /// The TOML file
    #[arg(env = "CACHALOT_CONFIG")]
    file: PathBuf,
    /// Print every key with the value that holds, defaults and variables included, passwords left out
    #[arg(long)]
    print: bool,
}

pub(super) fn run(args: Args) -> u8 {
    let shown = args.file.display().to_string();
    let sources = Sources { file: Some(args.file), environment: environment(), flags: Flags::default() };
    match Settings::load(&sources) {
        Ok(settings) => {
            for warning in settings.warnings(SystemTime::now()) {
                say(format_args!("warning: {warning}"));
            }
            if args.print { tell(effective::toml(&settings).trim_end()) } else { tell(format_args!("{shown}: ok")) }
        }
        Err(problems) => refuse(&problems),
    }
}
