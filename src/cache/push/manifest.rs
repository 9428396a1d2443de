//! Manifests: pushed, tagged and deleted; everything that they change here is changed before the answer (P-157, P-162).

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use url::form_urlencoded;

use super::fallback::Edit;
use super::{Cache, PushError, Writer, may_have_changed};
use crate::cache::ManifestQuestion;
use crate::oci::{Digest, Manifest, MediaType, Reference, Referrer, Referrers, Tag, fallback_tag};
use crate::store::{Class, Grant, GrantKind, TagEntry, blocking};
use crate::telemetry::sentence;
use crate::upstream::{Outgoing, RequestKind, Target, Written};
use crate::wire::Accept;
use crate::wire::names::{OCI_SUBJECT, OCI_TAG};

/// A manifest to push. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ManifestPush {
    pub reference: Reference,
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
    pub async fn push_manifest(&self, writer: &Writer, push: ManifestPush) -> Result<ManifestPushed, PushError> {
        if let Reference::Digest(expected) = push.reference
            && Digest::of(expected.algorithm(), &push.bytes) != expected
        {
            return Err(PushError::WrongDigest { expected });
        }
        let (cache, writer) = (self.clone(), writer.clone());
        let work = async move { cache.relay_manifest(&writer, &push).await };
        self.to_its_end("push a manifest", work).await
    }

    async fn relay_manifest(&self, writer: &Writer, push: &ManifestPush) -> Result<ManifestPushed, PushError> {
        let Written { headers, digest: told, .. } =
            self.put_manifest(writer, &push.reference, push, &tags_query(&push.tags)).await?;
        let digest = match (push.reference.clone(), told) {
            (Reference::Digest(digest), _) => digest,
            (Reference::Tag(_), Some(told)) => told,
            (Reference::Tag(_), None) => Digest::sha256(&push.bytes),
        };
        // An upstream that does not know the parameter has tagged nothing by it.
        let mut tags: Vec<Tag> =
            headers.get_all(OCI_TAG).iter().filter_map(|tag| tag.to_str().ok()?.parse().ok()).collect();
        for tag in &push.tags {
            if !tags.contains(tag) {
                self.put_manifest(writer, &Reference::Tag(tag.clone()), push, "").await?;
                tags.push(tag.clone());
            }
        }
        let subject = self.keep_pushed(writer, digest, push, &tags).await;
        let is_listed = headers.contains_key(OCI_SUBJECT);
        let subject = match subject {
            Some((subject, referrer)) if !is_listed => self.list_referrer(writer, subject, referrer).await,
            other => other.map(|(subject, _)| subject),
        };
        Ok(ManifestPushed { digest, subject, tags })
    }

    /// Has the fallback tag of the subject tell of a referrer; returns the subject when it does.
    async fn list_referrer(&self, writer: &Writer, subject: Digest, referrer: Referrer) -> Option<Digest> {
        let kept = self.edit_fallback(writer, subject, Edit::Add(referrer)).await;
        if let Err(error) = &kept {
            let tag = fallback_tag(&subject);
            tracing::warn!(%subject, %tag, %error, "a fallback tag does not tell of a referrer");
        }
        kept.ok().map(|()| subject)
    }

    /// Deletes a manifest, or a tag.
    pub async fn delete_manifest(&self, writer: &Writer, reference: &Reference) -> Result<(), PushError> {
        let (cache, writer, reference) = (self.clone(), writer.clone(), reference.clone());
        let work = async move { cache.relay_delete(&writer, &reference).await };
        self.to_its_end("delete a manifest", work).await
    }

    async fn relay_delete(&self, writer: &Writer, reference: &Reference) -> Result<(), PushError> {
        // Afterwards nobody can tell.
        let subject = match reference {
            Reference::Digest(digest) => self.subject_of(writer, digest).await,
            Reference::Tag(_) => None,
        };
        let path = format!("manifests/{reference}");
        let kind = RequestKind::of_manifest(reference);
        let written = writer.ask(kind, Method::DELETE, Target::Path(&path, "")).await;
        if may_have_changed(&written) {
            self.is_listed_anew(writer);
            self.forget_manifest(writer, reference, subject.as_ref()).await;
        }
        written?.accepted(writer)?;
        if let (Some(subject), Reference::Digest(digest)) = (subject, reference)
            && let Err(error) = self.edit_fallback(writer, subject, Edit::Remove(*digest)).await
        {
            tracing::warn!(%subject, %digest, %error, "a fallback tag still tells of a deleted referrer");
        }
        Ok(())
    }

    /// Forgets what is known of a manifest, or of a tag, that the repository has no more.
    async fn forget_manifest(&self, writer: &Writer, reference: &Reference, subject: Option<&Digest>) {
        let (upstream, repository) = (writer.upstream.origin.name(), &writer.repository);
        let digest = match reference {
            Reference::Tag(tag) => return self.0.ledger.drop_tag(upstream, repository, tag),
            Reference::Digest(digest) => *digest,
        };
        self.0.ledger.revoke(&Grant { upstream, repository, kind: GrantKind::Manifest, digest: &digest });
        if let Some((subject, entry)) =
            subject.and_then(|subject| Some((subject, self.0.ledger.referrers(upstream, repository, subject)?)))
        {
            let left: Referrers = entry.list.into_iter().filter(|referrer| *referrer.digest() != digest).collect();
            self.0.ledger.set_referrers(upstream, repository, subject, &left.to_json(), entry.checked_at);
        }
        let (ledger, upstream, repository) = (Arc::clone(&self.0.ledger), upstream.clone(), repository.clone());
        let forget = move || {
            ledger.drop_tags_of(&upstream, &repository, &digest);
            ledger.drop_referrer(&upstream, &repository, &digest);
            Ok::<_, std::io::Error>(())
        };
        if let Err(error) = blocking(forget).await {
            tracing::warn!(%digest, %error, "what is known of a deleted manifest stays");
        }
    }

    /// Puts a manifest under a reference, which means here from then on what the upstream says.
    pub(super) async fn put_manifest(
        &self,
        writer: &Writer,
        reference: &Reference,
        push: &ManifestPush,
        query: &str,
    ) -> Result<Written, PushError> {
        let headers: HeaderMap = push.content_type.iter().map(|value| (CONTENT_TYPE, value.clone())).collect();
        let path = format!("manifests/{reference}");
        let (kind, body) = (RequestKind::of_manifest(reference), Outgoing::full(push.bytes.clone()));
        let written = writer.send(kind, Method::PUT, Target::Path(&path, query), headers, body).await;
        if may_have_changed(&written) {
            self.is_listed_anew(writer);
            if let Reference::Tag(tag) = reference {
                self.0.ledger.drop_tag(writer.upstream.origin.name(), &writer.repository, tag);
            }
        }
        written?.accepted(writer)
    }

    /// Keeps what was pushed; returns its subject and itself as a referrer, when it has one.
    pub(super) async fn keep_pushed(
        &self,
        writer: &Writer,
        digest: Digest,
        push: &ManifestPush,
        tags: &[Tag],
    ) -> Option<(Digest, Referrer)> {
        if Digest::of(digest.algorithm(), &push.bytes) != digest {
            tracing::warn!(%digest, "the upstream calls a pushed manifest by a digest that it does not have; it is not cached");
            return None;
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
        let size_bytes = push.bytes.len() as u64;
        if writer.is_anybody() {
            self.keep_manifest(&writer.upstream, &writer.repository, digest, &manifest, push.bytes.clone()).await;
            let media_type = manifest.media_type.clone();
            let entry = TagEntry { digest, media_type, size_bytes, checked_at: SystemTime::now() };
            let own = match &push.reference {
                Reference::Tag(tag) => Some(tag),
                Reference::Digest(_) => None,
            };
            for tag in own.into_iter().chain(tags) {
                self.0.ledger.set_tag(writer.upstream.origin.name(), &writer.repository, tag, &entry);
            }
        } else {
            self.keep_bytes(digest, push.bytes.clone()).await;
        }
        let subject = manifest.subject.as_ref()?.digest;
        let referrer = Referrer::of(&manifest, &digest, size_bytes);
        self.0.ledger.record_referrer(writer.upstream.origin.name(), &writer.repository, &subject, &referrer);
        Some((subject, referrer))
    }

    /// Stores a manifest that nobody may read from here yet: whoever comes is asked for.
    async fn keep_bytes(&self, digest: Digest, bytes: Bytes) {
        let store = self.store();
        if let Err(error) = blocking(move || store.put(&digest, Class::Metadata, &bytes)).await {
            tracing::warn!(%digest, error = sentence(&error), "a pushed manifest is not cached");
        }
    }

    /// Returns the subject of a manifest, as far as it can be told.
    async fn subject_of(&self, writer: &Writer, digest: &Digest) -> Option<Digest> {
        let Writer { upstream, repository, .. } = writer;
        if let Some(subject) = self.0.ledger.recorded_subject(upstream.origin.name(), repository, digest) {
            return Some(subject);
        }
        let reference = Reference::Digest(*digest);
        let accept = Accept::default();
        let question = ManifestQuestion {
            upstream,
            repository,
            reference: &reference,
            accept: &accept,
            wants_bytes: true,
            client: None,
        };
        let answer = self.manifest_by_digest(&question, digest).await.ok()?;
        Manifest::read(&answer.bytes?, Some(&answer.media_type)).ok()?.subject.map(|subject| subject.digest)
    }
}

fn tags_query(tags: &[Tag]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for tag in tags {
        query.append_pair("tag", tag.as_str());
    }
    query.finish()
}
