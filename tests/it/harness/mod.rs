//! A whole Cachalot in this process, in front of a scripted registry, and a client that sees every byte of its answers.
//!
//! ```text
//! let registry = Registry::start().await;
//! let digest = registry.with_blob(Content::generated(1, MIB));
//! let cachalot = Cachalot::over(&registry).await;
//! let answer = cachalot.get(&format!("/v2/app/blobs/{digest}")).await;
//! …
//! cachalot.finish().await;
//! ```
//!
//! The registry is configured as `registry.test` (the default upstream) and as `docker.io`.
#![allow(dead_code)] // the vocabulary of all integration tests: no single test uses every word

mod client;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cachalot::app::App;
use cachalot::settings::{Flags, Settings, Sources};
use tempfile::TempDir;

pub(crate) use client::{Answer, Open};

use crate::registry::Registry;

/// A drain in a test ends by itself; past this it hangs.
const HANG_LIMIT: Duration = Duration::from_secs(30);

/// A running Cachalot with a store of its own.
pub(crate) struct Cachalot {
    /// Boxed: the futures of tests are large enough without it.
    app: Box<App>,
    directory: TempDir,
}

impl Cachalot {
    /// Starts in front of `registry`, with an empty store.
    pub(crate) async fn over(registry: &Registry) -> Self {
        Self::configured(registry, More::default()).await
    }

    /// Starts with further lines in the configuration.
    pub(crate) async fn configured(registry: &Registry, more: More<'_>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let app = start(settings(directory.path(), &registry.url(), more)).await;
        Self { app, directory }
    }

    /// Starts with this configuration, with its store in `directory`.
    pub(crate) async fn of_file(directory: TempDir, file: &str) -> Self {
        let path = directory.path().join("cachalot.toml");
        std::fs::write(&path, file).unwrap();
        let sources = Sources { file: Some(path), environment: Vec::new(), flags: Flags::default() };
        let settings = Settings::load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
        Self { app: Box::new(App::start(&settings).await.unwrap()), directory }
    }

    /// Starts in front of several endpoints of one upstream.
    pub(crate) async fn over_endpoints(urls: &[String], more: More<'_>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let app = start(settings(directory.path(), &urls.join("\", \""), more)).await;
        Self { app, directory }
    }

    /// Stops, and starts again over the same store.
    pub(crate) async fn restart(self, registry: &Registry, more: More<'_>) -> Self {
        self.stop().await.start(registry, more).await
    }

    /// Stops, and keeps the store.
    pub(crate) async fn stop(self) -> Stopped {
        self.app.drain(HANG_LIMIT).await;
        Stopped { directory: self.directory }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.app.addresses[0]
    }

    /// Returns where the first `[[listener]]` listens.
    pub(crate) fn listener_address(&self) -> SocketAddr {
        self.app.addresses[1]
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.app.admin_address
    }

    pub(crate) fn store(&self) -> &Path {
        self.directory.path()
    }

    /// Changes the configuration while it runs, and returns the keys that need a restart.
    pub(crate) fn apply(&self, settings: &Settings) -> Vec<String> {
        self.app.apply(settings).unwrap()
    }

    pub(crate) fn fills_under_way(&self) -> usize {
        self.app.fills_under_way()
    }

    /// Returns the value of one series, such as `cachalot_evictions_total{reason="capacity",tier="disk"}`.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let text = self.app.metrics.encode().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series} in\n{text}")).parse().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[]).await
    }

    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[]).await
    }

    pub(crate) async fn get_range(&self, path: &str, range: &str) -> Answer {
        self.send("GET", path, &[("range", range)]).await
    }

    /// Sends one request on a connection of its own and reads the whole answer.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.open(method, path, headers).await.finish().await
    }

    /// Sends one request and reads no more than the head of the answer.
    pub(crate) async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Open {
        Open::send(self.address(), method, path, headers, Bytes::new()).await
    }

    /// Sends one request with a body and reads the whole answer.
    pub(crate) async fn write(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        Open::send(self.address(), method, path, headers, body.into()).await.finish().await
    }

    /// Stops, and checks that nothing hangs and no partial is left behind.
    pub(crate) async fn finish(self) {
        let Self { app, directory } = self;
        tokio::time::timeout(HANG_LIMIT, app.drain(HANG_LIMIT)).await.expect("draining ends");
        let left: Vec<_> = std::fs::read_dir(directory.path().join("partial")).unwrap().collect();
        assert!(left.is_empty(), "partials are left behind: {left:?}");
    }
}

async fn start(settings: Settings) -> Box<App> {
    let settings = Box::new(settings);
    Box::new(App::start(&settings).await.unwrap())
}

/// A Cachalot that was stopped.
pub(crate) struct Stopped {
    directory: TempDir,
}

impl Stopped {
    pub(crate) fn store(&self) -> &Path {
        self.directory.path()
    }

    /// Starts again over the same store.
    pub(crate) async fn start(self, registry: &Registry, more: More<'_>) -> Cachalot {
        let app = start(settings(self.directory.path(), &registry.url(), more)).await;
        Cachalot { app, directory: self.directory }
    }
}

/// Further lines of the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct More<'a> {
    /// For `[server]`.
    pub(crate) server: &'a str,
    /// For `[store]`.
    pub(crate) store: &'a str,
    /// For `registry.test`.
    pub(crate) upstream: &'a str,
    /// Whole sections.
    pub(crate) sections: &'a str,
}

impl<'a> More<'a> {
    pub(crate) fn upstream(lines: &'a str) -> Self {
        Self { upstream: lines, ..Self::default() }
    }
}

/// Returns the settings of a Cachalot with its store in `directory`, in front of `upstream`.
pub(crate) fn settings(directory: &Path, upstream: &str, more: More<'_>) -> Settings {
    let file = directory.join("cachalot.toml");
    std::fs::write(&file, configuration(directory, upstream, more)).unwrap();
    let sources = Sources { file: Some(file), environment: Vec::new(), flags: Flags::default() };
    Settings::load(&sources).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Returns the text of the configuration that [`settings`] are read from.
pub(crate) fn configuration(store: &Path, upstream: &str, more: More<'_>) -> String {
    let More { server: server_lines, store: store_lines, upstream: upstream_lines, sections } = more;
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        builtin_upstreams = false
        default_upstream = "registry.test"
        {server_lines}
        [admin]
        listen = "127.0.0.1:0"
        [store]
        path = "{}"
        min_free = "0"
        {store_lines}
        [[upstream]]
        name = "docker.io"
        aliases = ["index.docker.io", "registry-1.docker.io"]
        endpoints = ["{upstream}"]
        proxy = "none"
        [[upstream]]
        name = "registry.test"
        endpoints = ["{upstream}"]
        hosts = ["mirror.test"]
        proxy = "none"
        {upstream_lines}
        {sections}
        "#,
        store.display()
    )
}
