//! Why the cache has no answer.

use std::sync::Arc;
use std::time::Duration;

use super::fill::FillError;
use crate::oci::{Digest, ManifestError, UpstreamName};
use crate::upstream::UpstreamError;
use crate::wire::Outcome;

/// Why a question could not be answered. Cheap to clone: one failure is told to all who asked together.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    #[error("{upstream}")]
    Upstream {
        upstream: UpstreamName,
        #[source]
        source: UpstreamError,
    },
    /// Remembered from a moment ago: absent, or denied.
    #[error("{upstream}, a moment ago")]
    Negative {
        upstream: UpstreamName,
        #[source]
        source: UpstreamError,
    },
    #[error(transparent)]
    DigestMismatch(Box<DigestMismatch>),
    #[error("{upstream} sent a manifest that is not valid")]
    InvalidManifest {
        upstream: UpstreamName,
        #[source]
        source: Arc<ManifestError>,
    },
    #[error("{upstream} is configured as offline, and this is not cached")]
    Offline { upstream: UpstreamName },
    #[error("too many fills are under way")]
    Overloaded { retry_after: Duration },
    #[error("the work was stopped")]
    Aborted,
}

/// When a client may try again after an overload: a fill ends within seconds more often than not.
const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(5);

/// An upstream sent bytes that are not what was asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{upstream} sent bytes with digest {actual} for {expected}")]
pub struct DigestMismatch {
    pub upstream: UpstreamName,
    pub expected: Digest,
    pub actual: Digest,
}

impl CacheError {
    pub(super) fn mismatch(upstream: UpstreamName, expected: Digest, actual: Digest) -> Self {
        Self::DigestMismatch(Box::new(DigestMismatch { upstream, expected, actual }))
    }

    /// Returns true when the upstream says, or said a moment ago, that it does not have it.
    pub(super) fn is_absence(&self) -> bool {
        let (Self::Upstream { source, .. } | Self::Negative { source, .. }) = self else { return false };
        matches!(source, UpstreamError::NotFound { .. })
    }

    /// Returns true when the upstream says, or said a moment ago, that it may not be read.
    pub(super) fn is_denial(&self) -> bool {
        let (Self::Upstream { source, .. } | Self::Negative { source, .. }) = self else { return false };
        matches!(source, UpstreamError::Denied { .. })
    }

    /// Returns true when somebody else might have been told otherwise: a no, a limit of the caller's, or trouble with what proves it.
    /// Many registries say 404 for what they hide.
    pub(super) fn may_be_about_the_caller(&self) -> bool {
        let Self::Upstream { source, .. } = self else { return false };
        source.may_be_about_the_caller()
    }

    /// Returns how the upstream failed, if it was asked: what it sends instead of a manifest, a page for people or other bytes, is no
    /// better than no answer (U-71).
    pub(super) fn of_upstream(&self) -> Option<UpstreamError> {
        match self {
            Self::Upstream { source, .. } => Some(source.clone()),
            Self::DigestMismatch(_) | Self::InvalidManifest { .. } => {
                Some(UpstreamError::Protocol { reason: self.to_string() })
            }
            Self::Negative { .. } | Self::Offline { .. } | Self::Overloaded { .. } | Self::Aborted => None,
        }
    }

    /// Returns how the question counts.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Negative { .. } => Outcome::Negative,
            // The upstream's answer is that there is no such thing.
            Self::Upstream { source: UpstreamError::NotFound { .. }, .. } => Outcome::Miss,
            Self::Upstream { .. }
            | Self::DigestMismatch(_)
            | Self::InvalidManifest { .. }
            | Self::Offline { .. }
            | Self::Overloaded { .. }
            | Self::Aborted => Outcome::Error,
        }
    }

    /// Maps the failure of a fill from `upstream`.
    pub(super) fn from_fill(upstream: &UpstreamName, why: &FillError) -> Self {
        let upstream = upstream.clone();
        match why {
            FillError::Upstream(source) => Self::Upstream { upstream, source: source.clone() },
            FillError::DigestMismatch { expected, actual } => Self::mismatch(upstream, *expected, *actual),
            FillError::Overloaded => Self::Overloaded { retry_after: OVERLOAD_RETRY_AFTER },
            FillError::Unreadable { .. } | FillError::Abandoned | FillError::Aborted => Self::Aborted,
        }
    }
}
