//! A registry with an image, and a Cachalot in front of it that knows alice, bob and ci.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cachalot::settings::Settings;
use tempfile::TempDir;

use crate::harness::{Cachalot, More, settings};
use crate::registry::{Content, Image, Registry};

/// The password is `secret`; bob's is `correct-horse`.
pub(super) const ALICE: &str = "alice:$2y$05$P3QfFcPNDiuSMhSZh9edk.DRGWsW.SL3ElXF04l3vb57YWcnPbdae\n";
const BOB: &str = "bob:$2y$04$48v2ASLpwxr3Th4VlFqCheML.g560cCcBgmJDkRRxTcUezAR9EQSq\n";

/// The token of ci.
pub(super) const CI: &str = "0123456789abcdef";

/// Where tokens are, as a challenge begins.
pub(super) const REALM: &str = "Bearer realm=\"https://cache.test/token\",service=\"cache.test\"";

/// By which clients know the Cachalot.
pub(super) const PUBLIC_URL: &str = "public_url = \"https://cache.test/\"";

pub(super) struct Ground {
    pub(super) registry: Registry,
    /// A blob of `app`.
    pub(super) digest: String,
    files: TempDir,
}

impl Ground {
    pub(super) async fn new() -> Self {
        let registry = Registry::start().await;
        registry.image("app", "1", &Image::new());
        let digest = registry.with_blob(Content::generated(1, 100)).to_string();
        let ground = Self { registry, digest, files: tempfile::tempdir().unwrap() };
        ground.write("htpasswd", &format!("{ALICE}{BOB}"));
        ground.write("tokens", &format!("ci:{CI}\n"));
        ground
    }

    /// Starts, with lines for `[identity]`; with tokens, it has a public URL.
    pub(super) async fn start(&self, has_tokens: bool, identity: &str) -> Cachalot {
        self.start_with(if has_tokens { PUBLIC_URL } else { "" }, identity, "", "").await
    }

    /// Starts, with lines for `[server]`, `[identity]` and the upstream, and further sections.
    pub(super) async fn start_with(&self, server: &str, identity: &str, upstream: &str, rules: &str) -> Cachalot {
        let sections = self.sections(identity, rules);
        Cachalot::configured(&self.registry, More { server, upstream, sections: &sections, ..More::default() }).await
    }

    /// Returns the settings of a Cachalot that was started so.
    pub(super) fn settings(
        &self,
        cachalot: &Cachalot,
        server: &str,
        identity: &str,
        upstream: &str,
        rules: &str,
    ) -> Settings {
        let sections = self.sections(identity, rules);
        let more = More { server, upstream, sections: &sections, ..More::default() };
        settings(cachalot.store(), &self.registry.url(), more)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// Clients are told apart by what they say: all come from this machine.
    pub(super) fn sections(&self, identity: &str, rules: &str) -> String {
        format!(
            "[clients]\ntrusted_proxies = [\"127.0.0.1\"]\n[identity]\nhtpasswd = {:?}\ntokens = {:?}\n{identity}\n{rules}",
            self.path("htpasswd"),
            self.path("tokens"),
        )
    }
}

pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
