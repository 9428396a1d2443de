//! `cachalot serve`: runs the server until SIGTERM.

use std::path::PathBuf;

use super::{FAILURE, OK, refuse, say};
use crate::app;
use crate::settings::{Flags, Settings, Sources};
use crate::telemetry::sentence;

/// Serve clients until SIGTERM or SIGINT, then drain.
///
/// Flags beat environment variables (`CACHALOT_SERVER__LISTEN` and so on), those beat the file, and the file beats the defaults.
#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:
  cachalot serve
  cachalot serve --listen 0.0.0.0:5000 --store /var/cache/cachalot
  cachalot serve --upstream registry.example:5000=http://10.0.0.7:5000")]
pub(super) struct Args {
    /// A TOML file
    #[arg(long, value_name = "FILE", env = "CACHALOT_CONFIG")]
    config: Option<PathBuf>,
    /// An address for clients; may be repeated [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// The address of /metrics, /livez and /readyz [default: 127.0.0.1:5001]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// The directory of the store [default: the user's cache directory]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// An upstream by the name that clients use, and its URL; may be repeated
    #[arg(long = "upstream", value_name = "NAME=URL")]
    upstreams: Vec<String>,
}

pub(super) fn run(args: Args) -> u8 {
    let Args { config, listen, admin, store, upstreams } = args;
    let sources =
        Sources { file: config, environment: environment(), flags: Flags { listen, admin, store, upstreams } };
    match Settings::load(&sources) {
        Err(problems) => refuse(&problems),
        Ok(settings) => match app::run(&settings, &sources) {
            Ok(()) => OK,
            Err(error) => {
                say(format_args!("cachalot: {}", sentence(&error)));
                FAILURE
            }
        },
    }
}

/// Returns the variables that are text; the others are nobody's setting.
pub(super) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
