//! Writes, as the scripted registry takes them: uploads in any number of chunks, manifests and deletes. It does not look at the order of
//! chunks, and has no referrers of its own unless it lists them. An identity token is posted here too.

use std::collections::HashMap;

use bytes::Bytes;
use cachalot::oci::Digest;
use http::header;

use super::log::Request;
use super::reply::{Ranges, Reply, error};
use super::{Registry, World, lock};

/// The uploads under way.
#[derive(Default)]
pub(crate) struct Uploads {
    begun: u64,
    bytes: HashMap<String, Vec<u8>>,
}

impl Registry {
    /// Returns how many uploads are under way.
    pub(crate) fn uploads(&self) -> usize {
        lock(&self.world.uploads).bytes.len()
    }

    /// Returns the entries of the list under the fallback tag of `subject`.
    pub(crate) fn fallback_entries(&self, repository: &str, subject: &Digest) -> Vec<String> {
        let tag = subject.to_string().replace(':', "-");
        let Some(manifest) = lock(&self.world.stock).manifest(repository, &tag) else { return Vec::new() };
        let index: serde_json::Value = serde_json::from_slice(&manifest.bytes).expect("an index");
        let entries = index["manifests"].as_array().expect("a list");
        entries.iter().map(|entry| entry["digest"].as_str().expect("a digest").to_owned()).collect()
    }
}

impl World {
    /// Returns the answer to a request when nothing goes wrong.
    pub(crate) fn answer(&self, seen: &Request, content_type: Option<&str>, body: &Bytes) -> Reply {
        if ["GET", "HEAD"].contains(&seen.method.as_str()) {
            self.find(seen, Ranges::Honoured)
        } else {
            self.write(seen, content_type, body)
        }
    }

    fn write(&self, seen: &Request, content_type: Option<&str>, body: &Bytes) -> Reply {
        if seen.path == "/token" {
            return match lock(&self.auth).exchange(&String::from_utf8_lossy(body)) {
                Ok(json) => Reply::new(200, json).with(header::CONTENT_TYPE, "application/json"),
                Err(status) => error(status, "UNAUTHORIZED", "no token for this"),
            };
        }
        let Some((_, rest)) = seen.path.split_once("/v2/") else { return error(404, "NOT_FOUND", "no such path") };
        match rest.rsplit_once("/blobs/uploads/") {
            Some((repository, id)) => self.upload(seen, repository, id, body),
            None => self.write_content(seen, rest, content_type, body),
        }
    }

    fn upload(&self, seen: &Request, repository: &str, id: &str, body: &Bytes) -> Reply {
        let query = seen.query.as_deref().unwrap_or_default();
        let parameter = |name: &str| {
            let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
            Some(value.replace("%3A", ":"))
        };
        if let (Some(mount), Some(_)) = (parameter("mount"), parameter("from")) {
            let held = lock(&self.stock).blob(repository, &mount);
            if let Some((digest, content)) = held {
                lock(&self.stock).add_blob(Some(repository), content);
                return created(repository, "blobs", &digest);
            }
        }
        let mut uploads = lock(&self.uploads);
        let id = if id.is_empty() {
            uploads.begun += 1;
            let id = format!("session-{}", uploads.begun);
            uploads.bytes.insert(id.clone(), Vec::new());
            id
        } else {
            id.to_owned()
        };
        let Some(bytes) = uploads.bytes.get_mut(&id) else {
            return error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
        };
        bytes.extend_from_slice(body);
        match seen.method.as_str() {
            "DELETE" => {
                uploads.bytes.remove(&id);
                Reply::new(204, "")
            }
            "PUT" => {
                let bytes = Bytes::from(uploads.bytes.remove(&id).unwrap_or_default());
                let expected: Option<Digest> = parameter("digest").and_then(|digest| digest.parse().ok());
                match expected.filter(|digest| Digest::of(digest.algorithm(), &bytes) == *digest) {
                    Some(digest) => {
                        lock(&self.stock).add_blob_as(repository, digest, bytes);
                        created(repository, "blobs", &digest)
                    }
                    None => error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
                }
            }
            _ => Reply::new(202, "")
                .with(header::LOCATION, &format!("/v2/{repository}/blobs/uploads/{id}?_state=a%2Fb%3D"))
                .with(header::RANGE, &format!("0-{}", bytes.len().saturating_sub(1))),
        }
    }

    fn write_content(&self, seen: &Request, rest: &str, content_type: Option<&str>, body: &Bytes) -> Reply {
        let parts = rest.rsplit_once('/').and_then(|(rest, last)| Some((rest.rsplit_once('/')?, last)));
        let Some(((repository, kind), reference)) = parts else { return error(404, "NOT_FOUND", "no such path") };
        let mut stock = lock(&self.stock);
        match (seen.method.as_str(), kind, reference.parse::<Digest>()) {
            ("PUT", "manifests", digest) => {
                let stored = stock.add_manifest(repository, body.clone(), content_type.unwrap_or_default());
                if digest.is_err() {
                    stock.set_tag(repository, reference, stored);
                }
                let reply = created(repository, "manifests", &stored);
                let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
                match (document["subject"]["digest"].as_str(), self.has_referrers_api()) {
                    (Some(subject), true) => reply.with(http::HeaderName::from_static("oci-subject"), subject),
                    _ => reply,
                }
            }
            ("DELETE", "manifests", Ok(digest)) if stock.manifest(repository, reference).is_some() => {
                stock.remove_manifest(repository, &digest);
                Reply::new(202, "")
            }
            ("DELETE", "manifests", Err(_)) if stock.manifest(repository, reference).is_some() => {
                stock.remove_tag(repository, reference);
                Reply::new(202, "")
            }
            ("DELETE", "blobs", Ok(digest)) if stock.blob(repository, reference).is_some() => {
                stock.remove_blob(&digest);
                Reply::new(202, "")
            }
            _ => error(404, "NOT_FOUND", "it is not here"),
        }
    }
}

fn created(repository: &str, kind: &str, digest: &Digest) -> Reply {
    Reply::new(201, "")
        .with(header::LOCATION, &format!("/v2/{repository}/{kind}/{digest}"))
        .with(http::HeaderName::from_static("docker-content-digest"), &digest.to_string())
}
