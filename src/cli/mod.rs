//! The command line: one file per subcommand.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 6 server unreachable.

mod check_config;
mod describe;
mod effective;
mod healthcheck;
mod metrics;
mod node_config;
mod print_config;
mod serve;
mod version;
mod wish;

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::settings::Problems;

/// Done.
const OK: u8 = 0;
/// Failed.
const FAILURE: u8 = 1;
/// Wrong usage or configuration: nothing was started.
const USAGE: u8 = 2;
/// The server did not answer.
const UNREACHABLE: u8 = 6;

/// A pull-through caching proxy and mirror for OCI registries.
#[derive(Debug, Parser)]
#[command(
    name = "cachalot",
    version,
    before_help = "Examples:
  cachalot serve                                 cache the public registries, on 127.0.0.1:5000
  cachalot serve --config /etc/cachalot.toml
  cachalot check-config /etc/cachalot.toml"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    CheckConfig(check_config::Args),
    Healthcheck(healthcheck::Args),
    PrintConfig(Box<print_config::Args>),
    NodeConfig(Box<node_config::Args>),
    Metrics(metrics::Args),
    Man(describe::ManArgs),
    Completion(describe::CompletionArgs),
    Version(version::Args),
}

/// Runs the command line `args`, the program's name included.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; when their reader has gone there is nobody to tell.
            let _told = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { OK });
        }
    };
    ExitCode::from(match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::CheckConfig(args) => check_config::run(args),
        Command::Healthcheck(args) => healthcheck::run(&args),
        Command::PrintConfig(args) => print_config::run(&args),
        Command::NodeConfig(args) => node_config::run(*args),
        Command::Metrics(args) => metrics::run(&args),
        Command::Man(args) => describe::man(&args),
        Command::Completion(args) => describe::completion(&args),
        Command::Version(args) => version::run(&args),
    })
}

/// Writes a line of data to stdout.
fn tell(line: impl fmt::Display) -> u8 {
    write(format!("{line}\n").as_bytes())
}

/// Writes data to stdout as it stands.
fn write(data: &[u8]) -> u8 {
    match std::io::stdout().lock().write_all(data) {
        Ok(()) => OK,
        // The reader has what it wanted: `cachalot version | head -0`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => OK,
        Err(error) => {
            say(format_args!("cachalot: cannot write to stdout: {error}"));
            FAILURE
        }
    }
}

/// Writes a line for a person to stderr.
fn say(line: impl fmt::Display) {
    // Without a stderr the exit code has to do.
    let _written = writeln!(std::io::stderr().lock(), "{line}");
}

/// Tells all that is wrong with the configuration.
fn refuse(problems: &Problems) -> u8 {
    say(problems);
    USAGE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_told_apart_from_a_wish_for_help() {
        let code = |args: &[&str]| format!("{:?}", run(args.iter().map(OsString::from)));
        let is = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(&["cachalot", "--help"]), is(OK));
        assert_eq!(code(&["cachalot", "version"]), is(OK));
        assert_eq!(code(&["cachalot", "serv"]), is(USAGE));
        assert_eq!(code(&["cachalot", "check-config", "/nonexistent/cachalot.toml"]), is(USAGE));
    }
}
