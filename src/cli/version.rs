//! `cachalot version`.

use clap::ValueEnum;
use serde_json::json;

use super::tell;
use crate::telemetry::build;

/// Print the version.
#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:
  cachalot version
  cachalot version --output json")]
pub(super) struct Args {
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(super) fn run(args: &Args) -> u8 {
    let (version, revision, target) = (build::VERSION, build::REVISION, build::target());
    match args.output {
        Output::Text => tell(format_args!("cachalot {version} ({target}, revision {revision})")),
        Output::Json => tell(json!({ "version": version, "revision": revision, "target": target })),
    }
}
