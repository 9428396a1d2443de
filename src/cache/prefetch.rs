//! What a client will ask for next: when an image's manifest was fetched for it, the image's config and layers may be, too.
//!
//! An index is passed over: which of its images the client picks is told by the next manifest that it asks for.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::fill::{Fill, FillKey, Joined};
use super::{Cache, Upstream};
use crate::oci::{Descriptor, Digest, Manifest, ManifestKind, RepositoryName};
use crate::telemetry::Trigger;

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

impl Cache {
    /// Starts fetching what `manifest`, just fetched for a client, makes it ask for next. Does not wait for it.
    pub(super) fn prefetch(&self, upstream: &Arc<Upstream>, repository: &RepositoryName, manifest: &Manifest) {
        let wanted = wanted(upstream.filling.prefetch, &manifest.kind);
        if wanted.is_empty() || upstream.policy.offline {
            return;
        }
        let (cache, upstream, repository) = (self.clone(), Arc::clone(upstream), repository.clone());
        self.0.tasks.spawn("prefetch", async move {
            let blobs = stream::iter(wanted);
            blobs.for_each_concurrent(AT_ONCE, |digest| cache.prefetch_blob(&upstream, &repository, digest)).await;
        });
    }

    /// Fills one blob, unless it is stored or on its way, and grants it to the repository: the upstream has said yes.
    async fn prefetch_blob(&self, upstream: &Arc<Upstream>, repository: &RepositoryName, digest: Digest) {
        if self.stored_blob(&digest).await.is_some() {
            return;
        }
        let key = FillKey { upstream: upstream.origin.name().clone(), digest };
        let make = || Fill::new(key.clone(), repository.clone(), self.0.buffers.clone());
        let Joined::Lead(interest, lead) = self.0.inflight.join(&key, make) else { return };
        let fill = Arc::clone(interest.fill());
        self.start_fill(lead, upstream, Trigger::Prefetch, 0);
        // A fill that fails has told why; nobody waits for this one.
        if fill.started().await.is_ok() {
            self.0.ledger.grant_blob(upstream.origin.name(), repository, &digest);
            drop(interest);
            fill.ended().await;
        }
    }
}

fn wanted(prefetch: Prefetch, kind: &ManifestKind) -> Vec<Digest> {
    let ManifestKind::Image { config, layers } = kind else { return Vec::new() };
    let digests = |layers: &[Descriptor]| std::iter::once(config).chain(layers).map(|blob| blob.digest).collect();
    match prefetch {
        Prefetch::Off => Vec::new(),
        Prefetch::Config => digests(&[]),
        Prefetch::Layers => digests(layers),
    }
}
