//! What the scripted registry knows of referrers: artifacts with a subject, the API if it is switched on, and fallback tags.

use cachalot::oci::{Digest, MediaType};
use http::header;
use serde_json::{Value, json};

use super::log::Request;
use super::reply::Reply;
use super::stock::Stock;
use super::{Registry, World, error, lock};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The referrers API.
#[derive(Default)]
pub(crate) struct Api {
    /// Entries of one page; `None` while there is no such API.
    page: Option<usize>,
    /// Pushed before there was one.
    hidden: Vec<Digest>,
}

impl Registry {
    /// Answers requests for referrers from now on, in pages of so many.
    pub(crate) fn list_referrers(&self, page: usize) {
        lock(&self.world.referrers_api).page = Some(page);
    }

    /// Leaves a manifest out of the lists, as registries do with what was pushed before they had any.
    pub(crate) fn hide_from_lists(&self, digest: Digest) {
        lock(&self.world.referrers_api).hidden.push(digest);
    }

    /// Publishes an artifact that names `subject`; without the API nothing else tells of it.
    pub(crate) fn attach(&self, repository: &str, subject: &Digest, artifact_type: &str, name: &str) -> Digest {
        let empty = self.with_blob_in(repository, "{}");
        let config = json!({ "mediaType": EMPTY, "digest": empty.to_string(), "size": 2 });
        let subject = json!({ "mediaType": MediaType::OCI_MANIFEST, "digest": subject.to_string(), "size": 1 });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "artifactType": artifact_type, "config": config,
            "layers": [config], "subject": subject, "annotations": { "name": name },
        });
        self.manifest(repository, None, manifest.to_string(), MediaType::OCI_MANIFEST)
    }

    /// Puts an index of these under the fallback tag of `subject`, as a client does that found no API; `says_all` as a good client does.
    pub(crate) fn fallback(&self, repository: &str, subject: &Digest, referrers: &[Digest], says_all: bool) -> String {
        let entries: Vec<Value> = referrers
            .iter()
            .map(|digest| {
                let mut entry = lock(&self.world.stock).descriptor(repository, digest).unwrap_or_else(
                    || json!({ "mediaType": MediaType::OCI_MANIFEST, "digest": digest.to_string(), "size": 1 }),
                );
                if let (false, Some(members)) = (says_all, entry.as_object_mut()) {
                    members.retain(|key, _| ["mediaType", "digest", "size"].contains(&key.as_str()));
                }
                entry
            })
            .collect();
        let tag = subject.to_string().replace(':', "-");
        self.manifest(repository, Some(&tag), index(&entries), MediaType::OCI_INDEX);
        tag
    }
}

impl World {
    pub(crate) fn has_referrers_api(&self) -> bool {
        lock(&self.referrers_api).page.is_some()
    }

    pub(crate) fn referrers(&self, seen: &Request, repository: &str, subject: &str) -> Reply {
        let api = lock(&self.referrers_api);
        let Some(page) = api.page else { return error(404, "NOT_FOUND", "no such path") };
        let mut all = lock(&self.stock).referrers(repository, subject);
        all.retain(|entry| !api.hidden.iter().any(|digest| entry["digest"] == digest.to_string()));
        let start = seen.query.as_deref().and_then(|query| query.strip_prefix("page=")?.parse().ok()).unwrap_or(0);
        let end = all.len().min(start + page);
        let reply = Reply::new(200, index(&all[start..end])).with(header::CONTENT_TYPE, MediaType::OCI_INDEX);
        if end == all.len() {
            reply
        } else {
            reply.with(header::LINK, &format!("<{}?page={end}>; rel=\"next\"", seen.path))
        }
    }
}

impl Stock {
    /// Returns the descriptors of the manifests that name `subject`, by digest.
    fn referrers(&self, repository: &str, subject: &str) -> Vec<Value> {
        let named = |digest: &Digest| {
            let manifest = self.manifest(repository, &digest.to_string())?;
            let document: Value = serde_json::from_slice(&manifest.bytes).ok()?;
            (document["subject"]["digest"] == subject).then(|| self.descriptor(repository, digest))?
        };
        let mut digests = self.manifest_digests(repository);
        digests.sort_by_key(ToString::to_string);
        digests.iter().filter_map(named).collect()
    }

    fn descriptor(&self, repository: &str, digest: &Digest) -> Option<Value> {
        let manifest = self.manifest(repository, &digest.to_string())?;
        let document: Value = serde_json::from_slice(&manifest.bytes).ok()?;
        Some(json!({
            "mediaType": manifest.media_type, "digest": digest.to_string(), "size": manifest.bytes.len(),
            "artifactType": document["artifactType"], "annotations": document["annotations"],
        }))
    }
}

fn index(entries: &[Value]) -> String {
    json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": entries }).to_string()
}
