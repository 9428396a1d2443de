//! What the scripted registry has: blobs, manifests and tags by repository.

use std::collections::HashMap;

use bytes::Bytes;
use cachalot::oci::Digest;

use super::content::Content;
use super::image::Published;

/// Everything that can be asked for.
#[derive(Default)]
pub(crate) struct Stock {
    /// Under `None`: in every repository.
    blobs: HashMap<(Option<String>, Digest), Content>,
    manifests: HashMap<(String, Digest), Manifest>,
    tags: HashMap<(String, String), Digest>,
}

#[derive(Clone)]
pub(crate) struct Manifest {
    pub(crate) bytes: Bytes,
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
}

impl Stock {
    pub(crate) fn add_blob(&mut self, repository: Option<&str>, content: Content) -> Digest {
        let digest = content.digest();
        self.blobs.insert((repository.map(str::to_owned), digest), content);
        digest
    }

    pub(crate) fn add_blob_as(&mut self, repository: &str, digest: Digest, bytes: Bytes) {
        self.blobs.insert((Some(repository.to_owned()), digest), bytes.into());
    }

    pub(crate) fn add_image(&mut self, repository: &str, image: &Published) {
        for blob in image.blobs() {
            self.add_blob(Some(repository), blob.clone());
        }
        self.add_manifest(repository, image.bytes.clone(), image.media_type);
    }

    pub(crate) fn add_manifest(&mut self, repository: &str, bytes: Bytes, media_type: &str) -> Digest {
        let digest = Digest::sha256(&bytes);
        let manifest = Manifest { bytes, media_type: media_type.to_owned(), digest };
        self.manifests.insert((repository.to_owned(), digest), manifest);
        digest
    }

    pub(crate) fn set_tag(&mut self, repository: &str, tag: &str, digest: Digest) {
        self.tags.insert((repository.to_owned(), tag.to_owned()), digest);
    }

    pub(crate) fn remove_tag(&mut self, repository: &str, tag: &str) {
        self.tags.remove(&(repository.to_owned(), tag.to_owned()));
    }

    pub(crate) fn remove_manifest(&mut self, repository: &str, digest: &Digest) {
        self.manifests.remove(&(repository.to_owned(), *digest));
    }

    pub(crate) fn remove_blob(&mut self, digest: &Digest) {
        self.blobs.retain(|(_, held), _| held != digest);
    }

    pub(crate) fn blob(&self, repository: &str, digest: &str) -> Option<(Digest, Content)> {
        let digest: Digest = digest.parse().ok()?;
        let own = self.blobs.get(&(Some(repository.to_owned()), digest));
        own.or_else(|| self.blobs.get(&(None, digest))).map(|content| (digest, content.clone()))
    }

    /// Returns the tags of a repository, in order; `None` when it has none, and so is not known.
    pub(crate) fn tags(&self, repository: &str) -> Option<Vec<String>> {
        let own = self.tags.keys().filter(|(name, _)| name == repository);
        let mut tags: Vec<_> = own.map(|(_, tag)| tag.clone()).collect();
        tags.sort();
        (!tags.is_empty()).then_some(tags)
    }

    pub(crate) fn manifest_digests(&self, repository: &str) -> Vec<Digest> {
        self.manifests.keys().filter(|(name, _)| name == repository).map(|(_, digest)| *digest).collect()
    }

    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Option<Manifest> {
        let digest = match reference.parse() {
            Ok(digest) => digest,
            Err(_) => *self.tags.get(&(repository.to_owned(), reference.to_owned()))?,
        };
        self.manifests.get(&(repository.to_owned(), digest)).cloned()
    }
}
