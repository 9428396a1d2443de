//! What a client will ask for next: when an image's manifest is served to it, the image's config and layers may be fetched, too.
//!
//! An index is passed over: which of its images the client picks is told by the next manifest that it asks for.
//!
//! A manifest that is stored is looked at again every [`LOOK_AGAIN`]: what it names may never have been fetched, or be evicted since.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use moka::sync::Cache as Memo;

use super::fill::{Fill, FillKey, Joined};
use super::{Cache, ManifestAnswer, Place, Upstream};
use crate::oci::{Descriptor, Digest, Manifest, ManifestKind, RepositoryName};
use crate::telemetry::{Prefetched, Trigger};

/// What is fetched ahead of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefetch {
    Off,
    /// The image's config.
    Config,
    /// The image's config and its layers.
    Layers,
}

/// Blobs of one image at once: as many as common clients ask for.
const AT_ONCE: usize = 3;

/// How long a manifest that is served again and again makes nothing be looked for.
const LOOK_AGAIN: Duration = Duration::from_mins(5);

/// Manifests that this is remembered of.
const LOOKED_AT_MAX: u64 = 10_000;

/// The manifests whose blobs were looked for a moment ago.
pub(super) type LookedAt = Memo<Place<Digest>, ()>;

pub(super) fn looked_at() -> LookedAt {
    Memo::builder().max_capacity(LOOKED_AT_MAX).time_to_live(LOOK_AGAIN).build()
}

impl Cache {
    /// Starts fetching what the manifest makes a client ask for next, unless that was done a moment ago. Does not wait for it.
    pub(super) fn prefetch(&self, upstream: &Arc<Upstream>, repository: &RepositoryName, answer: &ManifestAnswer) {
        let prefetch = upstream.filling.prefetch;
        let is_in_vain = upstream.policy.offline || answer.stale.is_some();
        if prefetch == Prefetch::Off || is_in_vain || !answer.media_type.is_image_manifest() {
            return;
        }
        let place = Place::new(upstream, repository, answer.digest);
        let Some(bytes) = answer.bytes.clone().filter(|_| !self.0.looked_at.contains_key(&place)) else { return };
        self.0.looked_at.insert(place, ());
        let (cache, upstream, repository) = (self.clone(), Arc::clone(upstream), repository.clone());
        let media_type = answer.media_type.clone();
        self.0.tasks.spawn("prefetch", async move {
            // It was read before it was kept.
            let Ok(manifest) = Manifest::read(&bytes, Some(&media_type)) else { return };
            let blobs = stream::iter(wanted(prefetch, &manifest.kind));
            let fetched: Vec<Option<Prefetched>> = blobs
                .map(|digest| cache.prefetch_blob(&upstream, &repository, digest))
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            let mut fetched = fetched.into_iter().flatten();
            if let Some(first) = fetched.next() {
                let is_ok = std::iter::once(first).chain(fetched).all(|end| end == Prefetched::Ok);
                upstream.metrics().prefetched(if is_ok { Prefetched::Ok } else { Prefetched::Error });
            }
        });
    }

    /// Fills one blob and grants it to the repository: the upstream has said yes. `None` when it is stored or on its way.
    async fn prefetch_blob(
        &self,
        upstream: &Arc<Upstream>,
        repository: &RepositoryName,
        digest: Digest,
    ) -> Option<Prefetched> {
        if self.stored_blob(&digest).await.is_some() {
            return None;
        }
        let key = FillKey { upstream: upstream.origin.name().clone(), digest };
        let edition = self.edition(upstream, repository);
        let make = || Fill::new(key.clone(), repository.clone(), edition, self.0.buffers.clone());
        let Joined::Lead(interest, lead) = self.0.inflight.join(&key, make) else { return None };
        let fill = Arc::clone(interest.fill());
        self.start_fill(lead, upstream, (Trigger::Prefetch, None), 0);
        // A fill that fails has told why; nobody waits for this one.
        if fill.started().await.is_ok() && fill.was_given() && self.edition(upstream, repository) == edition {
            self.0.ledger.grant_blob(upstream.origin.name(), repository, &digest);
            drop(interest);
            fill.ended().await;
        }
        Some(if fill.is_verified() { Prefetched::Ok } else { Prefetched::Error })
    }
}

fn wanted(prefetch: Prefetch, kind: &ManifestKind) -> Vec<Digest> {
    let ManifestKind::Image { config, layers } = kind else { return Vec::new() };
    let digests = |layers: &[Descriptor]| {
        let blobs = std::iter::once(config).chain(layers);
        blobs.filter(|blob| !blob.is_foreign() && blob.data.is_none()).map(|blob| blob.digest).collect()
    };
    match prefetch {
        Prefetch::Off => Vec::new(),
        Prefetch::Config => digests(&[]),
        Prefetch::Layers => digests(layers),
    }
}
