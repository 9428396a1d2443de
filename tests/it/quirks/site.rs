//! A scripted registry dressed as a real one, the store that it redirects blobs to, and an image to pull.

use std::fmt::Write as _;

use crate::harness::{Answer, Cachalot, More};
use crate::registry::{Content, Fault, Image, Log, Match, Published, Registry, Request};

/// A user and a password, as `Authorization` carries them and as the configuration does.
pub(super) const USER: &str = "user";
pub(super) const PASSWORD: &str = "password";

/// A registry with one image, and a store of signed URLs that has its blobs, too.
pub(super) struct Site {
    pub(super) registry: Registry,
    pub(super) storage: Registry,
    pub(super) image: Published,
    /// What stands after `/v2/` at the registry.
    repository: &'static str,
}

/// What a container client gets that pulls the image.
pub(super) struct Pulled {
    manifest: Answer,
    config: Answer,
    layer: Answer,
    part: Answer,
}

impl Site {
    /// Starts a registry that has `repository:1` and lets everybody in.
    pub(super) async fn start(repository: &'static str) -> Self {
        let (registry, storage) = (Registry::start().await, Registry::start().await);
        let image = registry.image(repository, "1", &Image::new().layer("the bytes of the first layer"));
        for blob in image.blobs() {
            storage.with_blob(blob.clone());
        }
        storage.require_signature();
        Self { registry, storage, image, repository }
    }

    /// Asks for a token with this challenge, in which `{url}` and `{repository}` are what they should be, and gives one at `path`.
    pub(super) fn ask_for_tokens(&self, challenge: &str, path: &'static str) {
        self.registry.require_token();
        self.registry.challenge_with(challenge);
        self.registry.give_tokens_at(path);
    }

    /// Redirects what is asked at paths that contain `part`, always, with this status to this location; `{storage}` is the store.
    pub(super) fn redirect(&self, part: &str, status: u16, location: &str) {
        let location = location.replace("{storage}", &self.storage.url());
        self.registry.fault(Match::path(part), Fault::RedirectWith(status, location)).always().optional();
    }

    /// Redirects blobs to signed URLs of the store.
    pub(super) fn sign_blobs(&self, status: u16) {
        self.redirect("/blobs/", status, "{storage}{path}?X-Signature=secret");
    }

    /// Starts a Cachalot over the registry.
    pub(super) async fn cachalot(&self) -> Cachalot {
        Cachalot::over(&self.registry).await
    }

    /// Starts a Cachalot that has the user's credentials.
    pub(super) async fn cachalot_of_user(&self, username: &str) -> Cachalot {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), PASSWORD).unwrap();
        let lines = format!("username = \"{username}\"\npassword_file = \"{}\"", file.path().display());
        Cachalot::configured(&self.registry, More::upstream(&lines)).await
    }

    /// Pulls the image through `cachalot` as a container client does, and a part of its layer; `name` is the client's for it.
    pub(super) async fn pull(&self, cachalot: &Cachalot, name: &str) -> Pulled {
        let blob = |at: usize| format!("/v2/{name}/blobs/{}", self.image.blobs().nth(at).unwrap().digest());
        Pulled {
            manifest: cachalot.get(&format!("/v2/{name}/manifests/1")).await,
            config: cachalot.get(&blob(0)).await,
            layer: cachalot.get(&blob(1)).await,
            part: cachalot.get_range(&blob(1), "bytes=4-8").await,
        }
    }

    /// Checks that what was pulled is the image.
    #[track_caller]
    pub(super) fn check(&self, pulled: &Pulled, ids: &str) {
        let Pulled { manifest, config, layer, part } = pulled;
        assert_eq!((manifest.status, &manifest.body), (200, &self.image.bytes), "{ids}: the manifest");
        assert_eq!(manifest.header("docker-content-digest"), self.image.digest.to_string(), "{ids}: the manifest");
        assert_eq!(manifest.header("content-type"), self.image.media_type, "{ids}: the manifest");
        for (answer, blob) in [config, layer].into_iter().zip(self.image.blobs()) {
            assert_eq!((answer.status, &answer.body), (200, &blob.bytes()), "{ids}: a blob");
        }
        assert_eq!((part.status, &part.body[..]), (206, &b"bytes"[..]), "{ids}: a range");
        for answer in [manifest, config, layer, part] {
            for name in ["location", "www-authenticate"] {
                assert_eq!(answer.header(name), "", "{ids}: the client hears nothing of the upstream's {name}");
            }
        }
    }

    /// Returns every request so far at the registry, in words; see [`Site::words`].
    pub(super) fn asked(&self) -> Vec<String> {
        self.words(&self.registry.requests())
    }

    /// Returns the same of the store.
    pub(super) fn fetched(&self) -> Vec<String> {
        self.words(&self.storage.requests())
    }

    /// Puts each request into a line: method, path, who asks, the range if any, and the status of the answer. The image's digests have
    /// names, and `/v2/` and the repository are left out.
    pub(super) fn words(&self, log: &Log) -> Vec<String> {
        let names = ["{image}", "{config}", "{layer}"];
        let digests = std::iter::once(self.image.digest).chain(self.image.blobs().map(Content::digest));
        let names: Vec<_> = digests.map(|digest| digest.to_string()).zip(names).collect();
        let line = |request: &Request| {
            let mut target = request.path.clone();
            if let Some(query) = request.query.as_deref().filter(|query| !query.is_empty()) {
                let query = query.replace("%3A", ":").replace("%2F", "/").replace("%2B", "+");
                write!(target, "?{query}").unwrap();
            }
            for (digest, name) in &names {
                target = target.replace(digest, name);
            }
            let target = target.replace(&format!("/v2/{}/", self.repository), "");
            let who = match request.authorization.as_deref().and_then(|value| value.split(' ').next()) {
                None => "nobody",
                Some("Bearer") => "token",
                Some(_) => "password",
            };
            // Where the first part of a blob ends that may be larger is our own choice.
            let range = request.range.as_deref().map(|range| format!(" {}", range.trim_end_matches("4194303")));
            let range = range.unwrap_or_default();
            format!("{} {target} {who}{range} {}", request.method, request.status.unwrap_or_default())
        };
        log.iter().map(line).collect()
    }
}
