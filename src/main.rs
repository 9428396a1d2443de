//! The binary: everything is in the library, so that everything can be tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    cachalot::cli::run(std::env::args_os())
}
