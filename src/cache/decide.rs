//! When a tag may be answered from the cache: the whole freshness policy, as one pure function.
//!
//! | entry | policy | upstream | decision |
//! |---|---|---|---|
//! | younger than `tag_ttl`, or of an immutable tag | any | any | serve it |
//! | older | `offline` | – | serve it, stale |
//! | none | `offline` | – | refuse |
//! | within `stale_if_error` | online | not asked yet | ask, and wait for `stale_wait` at the most |
//! | older, or none | online | not asked yet | ask |
//! | within `stale_if_error` | online | still silent after `stale_wait` | serve it, stale; the answer is kept when it comes |
//! | within `stale_if_error` | online | network error, time-out, 5xx, or not to be asked for that | serve it, stale |
//! | within `stale_if_error` | online, `stale_if_limited` | 429, or the cool-down after one | serve it, stale |
//! | older, or none | online | the same | tell the client |
//! | any | online | 404 | drop it, tell the client |
//! | any | online | 401, 403 | take back the right to read it, tell the client (S-7) |
//!
//! A token service that does not take our account is our own trouble, and a failure like others (U-47). Digests never expire. What an
//! upstream says of a tag is understood so ([`Head`]):
//!
//! | the answer to HEAD | what follows |
//! |---|---|
//! | digest, length and the type of a manifest | that is what the tag means; if it moved, its manifest is fetched by digest (P-138) |
//! | some of them missing, or another type | GET (P-137) |
//! | 401 or 403 after our own authentication, 405, 501 | GET (P-137) |
//! | anything else | a failure |
//!
//! Source: P-136…P-142.

use std::time::{Duration, SystemTime};

use crate::oci::{Digest, MediaType, Tag};
use crate::telemetry::StaleReason;
use crate::upstream::{ManifestHead, UpstreamError};

/// The freshness policy of one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long a tag is served without asking.
    pub tag_ttl: Duration,
    /// How long after the upstream's last word a tag is served although the upstream fails.
    pub stale_if_error: Duration,
    /// The same holds while the upstream limits us.
    pub stale_if_limited: bool,
    /// How long a client waits for the upstream's word while a stale answer is at hand.
    pub stale_wait: Duration,
    /// How long an absence is remembered.
    pub negative_ttl: Duration,
    /// The upstream is never asked.
    pub offline: bool,
    /// The tag never moves: what is known of it is never asked again.
    pub is_immutable: bool,
}

/// How long a list of referrers, or a tag that stands for one, is served without asking: what is signed is verified a moment later (P-88).
pub(super) const REFERRERS_TTL: Duration = Duration::from_secs(2);

impl Policy {
    /// Returns the policy for what tells of a manifest's signatures, attestations and the like: it changes at any time, and that there
    /// is none is not remembered (P-88, P-142).
    #[must_use]
    pub(super) fn of_referrers(self) -> Self {
        Self { tag_ttl: self.tag_ttl.min(REFERRERS_TTL), negative_ttl: Duration::ZERO, is_immutable: false, ..self }
    }

    /// Returns the policy for `tag`.
    #[must_use]
    pub(super) fn of_tag(self, tag: &Tag) -> Self {
        if tag.tells_of_referrers() { self.of_referrers() } else { self }
    }
}

/// What is known of the upstream's readiness to answer this question.
#[derive(Debug, Clone, Copy)]
pub(super) enum Health<'a> {
    /// It has not been asked yet, and may be.
    Unasked,
    /// It was asked, and has said nothing within `stale_wait`.
    Silent,
    /// It was asked in vain, or would be.
    Failed(&'a UpstreamError),
}

/// What to do with a question about a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Serve,
    ServeStale(StaleReason),
    /// Ask the upstream; with a stale answer at hand, wait so long at the most.
    Ask(Option<Duration>),
    /// The tag is gone: drop the entry and tell the client.
    Drop,
    /// We may not read it any more: drop the entry and the grant of its manifest, and tell the client.
    Revoke,
    Tell,
    Refuse,
}

/// Decides about a tag that the upstream last spoke of at `checked_at`, if ever.
pub(super) fn decide(now: SystemTime, checked_at: Option<SystemTime>, policy: &Policy, health: Health<'_>) -> Decision {
    let age = checked_at.map(|then| age(now, then));
    let is_servable = age.is_some_and(|age| age < policy.stale_if_error);
    match (age, health) {
        (Some(age), _) if age < policy.tag_ttl || policy.is_immutable => Decision::Serve,
        (Some(_), _) if policy.offline => Decision::ServeStale(StaleReason::Offline),
        (None, _) if policy.offline => Decision::Refuse,
        (_, Health::Unasked) => Decision::Ask(is_servable.then_some(policy.stale_wait)),
        (_, Health::Silent) if is_servable => Decision::ServeStale(StaleReason::WhileRevalidate),
        (_, Health::Silent) => Decision::Ask(None),
        (_, Health::Failed(UpstreamError::NotFound { .. })) => Decision::Drop,
        (_, Health::Failed(UpstreamError::Denied { .. })) => Decision::Revoke,
        (_, Health::Failed(UpstreamError::RateLimited { .. })) if is_servable && policy.stale_if_limited => {
            Decision::ServeStale(StaleReason::RateLimited)
        }
        (_, Health::Failed(UpstreamError::RateLimited { .. })) => Decision::Tell,
        (_, Health::Failed(error)) if is_servable && error.allows_stale() => {
            Decision::ServeStale(StaleReason::UpstreamError)
        }
        (_, Health::Failed(_)) => Decision::Tell,
    }
}

/// Waits for `answer` as long as `patience` lasts, where it is bounded; `None` when it is over before.
pub(super) async fn within<T>(patience: Option<Duration>, answer: impl Future<Output = T>) -> Option<T> {
    match patience {
        Some(patience) => tokio::time::timeout(patience, answer).await.ok(),
        None => Some(answer.await),
    }
}

/// A clock that was set back makes an entry old, never eternally fresh.
fn age(now: SystemTime, then: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or(Duration::MAX)
}

/// What the answer to HEAD says of a tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    Means {
        digest: Digest,
        media_type: MediaType,
        size_bytes: u64,
    },
    /// Ask by GET.
    SaysTooLittle,
}

impl Head {
    /// # Errors
    /// A failure that GET would not mend.
    pub(super) fn read(told: Result<ManifestHead, UpstreamError>) -> Result<Self, UpstreamError> {
        match told {
            Ok(ManifestHead { digest: Some(digest), media_type: Some(media_type), size_bytes: Some(size_bytes) })
                if is_manifest_type(&media_type) =>
            {
                Ok(Self::Means { digest, media_type, size_bytes })
            }
            Ok(_) | Err(UpstreamError::Denied { .. } | UpstreamError::Status { status: 405 | 501, .. }) => {
                Ok(Self::SaysTooLittle)
            }
            Err(error) => Err(error),
        }
    }
}

/// An upstream's answer to HEAD is believed only when it names a type that manifests have: an HTML page is no manifest (U-71).
pub(super) fn is_manifest_type(media_type: &MediaType) -> bool {
    media_type.is_index() || media_type.is_image_manifest()
}

#[cfg(test)]
mod tests;
