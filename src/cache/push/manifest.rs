//! Manifests: pushed, tagged and deleted; everything that they change here is changed before the answer (P-157, P-162).

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};
use url::form_urlencoded;

use super::fallback::Edit;
use super::{Cache, PushError, Writer};
use crate::cache::ManifestQuestion;
use crate::oci::{Digest, Manifest, MediaType, Reference, Referrer, Referrers, Tag, fallback_tag};
use crate::store::{Grant, GrantKind, TagEntry, blocking};
use crate::upstream::{Outgoing, RequestKind, Target, Written};
use crate::wire::Accept;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// A manifest to push.
#[derive(Debug)]
pub struct ManifestPush<'a> {
    pub reference: &'a Reference,
    /// `Content-Type` as it came.
    pub content_type: Option<HeaderValue>,
    pub bytes: Bytes,
    /// Tags beside the reference (P-160).
    pub tags: Vec<Tag>,
}

/// A manifest that was pushed.
#[derive(Debug)]
pub struct ManifestPushed {
    pub digest: Digest,
    /// Its subject, when whoever lists referrers knows of it now: the upstream, or the fallback tag (P-91).
    pub subject: Option<Digest>,
    /// The further tags that it has now.
    pub tags: Vec<Tag>,
}

impl Cache {
    /// Pushes a manifest.
    pub async fn push_manifest(
        &self,
        writer: &Writer<'_>,
        push: ManifestPush<'_>,
    ) -> Result<ManifestPushed, PushError> {
        if let Reference::Digest(expected) = push.reference
            && Digest::of(expected.algorithm(), &push.bytes) != *expected
        {
            return Err(PushError::WrongDigest { expected: *expected });
        }
        let Written { headers, digest: told, .. } = put(writer, push.reference, &push, &tags_query(&push.tags)).await?;
        let digest = match push.reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(_) => {
                told.map_or_else(|| Digest::sha256(&push.bytes), |told| Digest::of(told.algorithm(), &push.bytes))
            }
        };
        // An upstream that does not know the parameter has tagged nothing by it.
        let mut tagged: Vec<Tag> =
            headers.get_all(OCI_TAG).iter().filter_map(|tag| tag.to_str().ok()?.parse().ok()).collect();
        for tag in &push.tags {
            if !tagged.contains(tag) {
                put(writer, &Reference::Tag(tag.clone()), &push, "").await?;
                tagged.push(tag.clone());
            }
        }
        let own = match push.reference {
            Reference::Tag(tag) => Some(tag.clone()),
            Reference::Digest(_) => None,
        };
        let tags: Vec<Tag> = own.into_iter().chain(tagged.iter().cloned()).collect();
        let subject = self.manifest_is_there(writer, digest, &push, &tags).await;
        let is_listed = match subject {
            Some((subject, referrer)) if !headers.contains_key(OCI_SUBJECT) => {
                let tag = fallback_tag(&subject);
                let is_kept = self.edit_fallback(writer, subject, Edit::Add(referrer)).await;
                is_kept
                    .map_err(
                        |error| tracing::warn!(%subject, %tag, %error, "a fallback tag does not tell of a referrer"),
                    )
                    .ok()
                    .map(|()| subject)
            }
            other => other.map(|(subject, _)| subject),
        };
        Ok(ManifestPushed { digest, subject: is_listed, tags: tagged })
    }

    /// Deletes a manifest, or a tag.
    pub async fn delete_manifest(&self, writer: &Writer<'_>, reference: &Reference) -> Result<(), PushError> {
        // Afterwards nobody can tell.
        let subject = match reference {
            Reference::Digest(digest) => self.subject_of(writer, digest).await,
            Reference::Tag(_) => None,
        };
        let path = format!("manifests/{reference}");
        let kind = RequestKind::of_manifest(reference);
        let written = writer.ask(kind, Method::DELETE, Target::Path(&path, "")).await?;
        if written.is_gone() {
            self.is_listed_anew(writer);
            self.manifest_is_gone(writer, reference).await;
        }
        written.accepted(writer)?;
        if let (Some(subject), Reference::Digest(digest)) = (subject, reference) {
            self.forget_referrer(writer, &subject, digest);
            if let Err(error) = self.edit_fallback(writer, subject, Edit::Remove(*digest)).await {
                tracing::warn!(%subject, %digest, %error, "a fallback tag still tells of a deleted referrer");
            }
        }
        Ok(())
    }

    /// Forgets what is known of a manifest, or of a tag, that the repository has no more.
    async fn manifest_is_gone(&self, writer: &Writer<'_>, reference: &Reference) {
        let (upstream, repository) = (writer.upstream.origin.name(), writer.repository);
        match reference {
            Reference::Tag(tag) => self.0.ledger.drop_tag(upstream, repository, tag),
            Reference::Digest(digest) => {
                let kind = GrantKind::Manifest;
                self.0.ledger.revoke(&Grant { upstream, repository, kind, digest });
                let (ledger, upstream, repository, digest) =
                    (Arc::clone(&self.0.ledger), upstream.clone(), repository.clone(), *digest);
                let forget = move || {
                    ledger.drop_tags_of(&upstream, &repository, &digest);
                    ledger.drop_referrer(&upstream, &repository, &digest);
                    Ok::<_, std::io::Error>(())
                };
                if let Err(error) = blocking(forget).await {
                    tracing::warn!(%digest, %error, "what is known of a deleted manifest stays");
                }
            }
        }
    }

    /// Makes known here what was pushed; returns the subject and its referrer, when it has one.
    async fn manifest_is_there(
        &self,
        writer: &Writer<'_>,
        digest: Digest,
        push: &ManifestPush<'_>,
        tags: &[Tag],
    ) -> Option<(Digest, Referrer)> {
        self.is_listed_anew(writer);
        for tag in tags {
            self.0.ledger.drop_tag(writer.upstream.origin.name(), writer.repository, tag);
        }
        let media_type = push.content_type.as_ref().and_then(|value| MediaType::parse(value.to_str().ok()?));
        let manifest = match Manifest::read(&push.bytes, media_type.as_ref()) {
            Ok(manifest) if !manifest.media_type.is_schema1() => manifest,
            Ok(_) => return None,
            Err(error) => {
                tracing::warn!(%digest, %error, "the upstream took a manifest that would not be served from here");
                return None;
            }
        };
        self.keep_manifest(writer.upstream, writer.repository, digest, &manifest, push.bytes.clone()).await;
        let size_bytes = push.bytes.len() as u64;
        let entry =
            TagEntry { digest, media_type: manifest.media_type.clone(), size_bytes, checked_at: SystemTime::now() };
        for tag in tags {
            self.0.ledger.set_tag(writer.upstream.origin.name(), writer.repository, tag, &entry);
        }
        let subject = manifest.subject.as_ref()?.digest;
        Some((subject, Referrer::of(&manifest, &digest, size_bytes)))
    }

    /// Returns the subject of a manifest, as far as it can be told.
    async fn subject_of(&self, writer: &Writer<'_>, digest: &Digest) -> Option<Digest> {
        let upstream = writer.upstream;
        if let Some(subject) = self.0.ledger.recorded_subject(upstream.origin.name(), writer.repository, digest) {
            return Some(subject);
        }
        let question = ManifestQuestion {
            upstream,
            repository: writer.repository,
            reference: &Reference::Digest(*digest),
            accept: &Accept::default(),
            wants_bytes: true,
        };
        let answer = self.manifest_by_digest(&question, digest).await.ok()?;
        Manifest::read(&answer.bytes?, Some(&answer.media_type)).ok()?.subject.map(|subject| subject.digest)
    }

    /// Takes a deleted manifest off its subject's lists.
    fn forget_referrer(&self, writer: &Writer<'_>, subject: &Digest, digest: &Digest) {
        let (upstream, repository) = (writer.upstream.origin.name(), writer.repository);
        if let Some(entry) = self.0.ledger.referrers(upstream, repository, subject) {
            let left: Referrers = entry.list.into_iter().filter(|referrer| referrer.digest() != digest).collect();
            self.0.ledger.set_referrers(upstream, repository, subject, &left.to_json(), entry.checked_at);
        }
    }
}

/// Puts the manifest under a reference.
pub(super) async fn put(
    writer: &Writer<'_>,
    reference: &Reference,
    push: &ManifestPush<'_>,
    query: &str,
) -> Result<Written, PushError> {
    let headers = push.content_type.iter().map(|value| (CONTENT_TYPE, value.clone())).collect();
    let path = format!("manifests/{reference}");
    let (kind, body) = (RequestKind::of_manifest(reference), Outgoing::full(push.bytes.clone()));
    let written = writer.send(kind, Method::PUT, Target::Path(&path, query), headers, body).await?;
    written.accepted(writer)
}

fn tags_query(tags: &[Tag]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for tag in tags {
        query.append_pair("tag", tag.as_str());
    }
    query.finish()
}
