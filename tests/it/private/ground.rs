//! What the tests of this directory share: a registry with accounts, and callers who show one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Answer, Cachalot, More, Open};
use crate::registry::{Content, Image, KIB, Published, Registry};

pub(super) const APP: &str = "team/app";
pub(super) const PASSWORD: &str = "correct horse";
pub(super) const LAYER_BYTES: u64 = 600 * KIB;

/// For callers, and nothing fetched ahead of them.
pub(super) const CALLER: &str = "access = \"caller\"\nprefetch = \"off\"";

/// What a caller shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown(pub(super) Option<String>);

impl Shown {
    pub(super) fn nothing() -> Self {
        Self(None)
    }

    pub(super) fn account(username: &str, password: &str) -> Self {
        Self(Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))))
    }

    pub(super) fn user(username: &str) -> Self {
        Self::account(username, PASSWORD)
    }

    pub(super) fn headers<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        self.0.iter().map(|value| ("authorization", value.as_str())).chain(more.iter().copied()).collect()
    }
}

/// A registry that asks for accounts, with an image that is nobody's yet.
pub(super) async fn registry(by_token: bool) -> (Registry, Published) {
    let registry = Registry::start().await;
    registry.require_account(by_token);
    let image = registry.image(APP, "1", &Image::new().layer(Content::generated(7, LAYER_BYTES)));
    (registry, image)
}

/// A Cachalot before it, for callers.
pub(super) async fn cachalot(registry: &Registry, lines: &str) -> Cachalot {
    Cachalot::configured(registry, More::upstream(&format!("{CALLER}\n{lines}"))).await
}

pub(super) async fn open(cachalot: &Cachalot, shown: &Shown, path: &str) -> Open {
    cachalot.open("GET", path, &shown.headers(&[])).await
}

pub(super) async fn get(cachalot: &Cachalot, shown: &Shown, path: &str) -> Answer {
    cachalot.send("GET", path, &shown.headers(&[])).await
}

pub(super) async fn status(cachalot: &Cachalot, shown: &Shown, path: &str) -> u16 {
    get(cachalot, shown, path).await.status
}

/// Returns the bytes of content that the registry has sent of blobs: refusals have bodies as well.
pub(super) fn blob_bytes(registry: &Registry) -> u64 {
    let gets = registry.gets("/blobs/").into_iter();
    gets.filter(|get| matches!(get.status, Some(200 | 206))).map(|get| get.bytes_sent).sum()
}

/// Returns how often callers were let in so, or not.
#[track_caller]
pub(super) fn decisions(cachalot: &Cachalot, result: &str) -> u64 {
    cachalot.metric(&format!(r#"cachalot_access_decisions_total{{result="{result}",upstream="registry.test"}}"#))
}
