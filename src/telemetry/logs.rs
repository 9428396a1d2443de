//! Logs to stderr, as text or as JSON lines.

use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::fmt::layer as fmt_layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// What may be changed of the logs that were started.
pub struct Logs(Handle<EnvFilter, Registry>);

impl Logs {
    /// Puts another filter in the place of the one that holds.
    ///
    /// # Errors
    /// When the filter cannot be read.
    pub fn set_filter(&self, filter: &str) -> Result<(), LogError> {
        let wrong = |error: String| LogError::Filter(error);
        let filter = EnvFilter::try_new(filter).map_err(|error| wrong(error.to_string()))?;
        self.0.reload(filter).map_err(|error| wrong(error.to_string()))
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logs")
    }
}

/// Starts logging for the whole process; `filter` is a level such as `info`, or directives such as `info,cachalot::cache=debug`.
///
/// # Errors
/// When the filter cannot be read, or logging was started before.
pub fn init(filter: &str, format: Format) -> Result<Logs, LogError> {
    let filter = EnvFilter::try_new(filter).map_err(|error| LogError::Filter(error.to_string()))?;
    let (filter, handle) = reload::Layer::new(filter);
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt_layer().with_writer(std::io::stderr);
    let filtered = tracing_subscriber::registry().with(filter);
    let started = match format {
        Format::Text => filtered.with(lines.with_ansi(colours)).try_init(),
        Format::Json => filtered.with(lines.json().flatten_event(true)).try_init(),
    };
    started.map(|()| Logs(handle)).map_err(|_| LogError::Started)
}

/// Why logging cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log level is not one: {0}")]
    Filter(String),
    #[error("logging was started before")]
    Started,
}
