//! Logs to stderr, as text or as JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Starts logging for the whole process; `filter` is a level such as `info`, or directives such as `info,cachalot::cache=debug`.
///
/// # Errors
/// When the filter cannot be read, or logging was started before.
pub fn init(filter: &str, format: Format) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(filter).map_err(|error| LogError::Filter(error.to_string()))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        Format::Text => builder.with_ansi(colours).finish().try_init(),
        Format::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(|_| LogError::Started)
}

/// Why logging cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log level is not one: {0}")]
    Filter(String),
    #[error("logging was started before")]
    Started,
}
