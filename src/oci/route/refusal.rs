//! Why a request is no question, in words for the client.

use crate::oci::digest::DigestError;
use crate::oci::name::{NAME_LENGTH_MAX, NameError, RepositoryName, UpstreamName};

/// Why a request is not answered; each variant names the status that fits the client's next step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 404 (P-12, P-14).
    #[error("no such endpoint: want /v2/<name>/manifests/…, /blobs/…, /tags/list or /referrers/…")]
    UnknownPath,
    /// 404 `NAME_UNKNOWN`: containerd tries its next host, and the default upstream is never asked instead (P-114, S-20).
    #[error("registry {name:?} is not one that this cache serves")]
    UnknownUpstream {
        /// As received, cut to the length of a name.
        name: String,
    },
    /// 404 `NAME_UNKNOWN`: nothing names an upstream and there is no default (P-116).
    #[error("the request names no registry and there is no default: put it before the repository's name or into ns=")]
    NoUpstream,
    /// 400 `NAME_INVALID` (P-115).
    #[error("the request names two registries, {first} and {second}")]
    ConflictingSelectors { first: UpstreamName, second: UpstreamName },
    /// 400 `NAME_INVALID` (S-21).
    #[error("the request has more than one ns parameter")]
    DuplicateNamespace,
    /// 400 `NAME_INVALID` (P-3).
    #[error("repository {0}")]
    NameInvalid(NameError),
    /// 404 `MANIFEST_UNKNOWN`, not 400: clients probe with over-long tags, and only a 404 means "absent" (P-5).
    #[error("no such manifest: the tag is not valid, and therefore does not exist")]
    TagInvalid,
    /// 400 `DIGEST_INVALID` (P-9).
    #[error(transparent)]
    DigestInvalid(DigestError),
    /// 403 `DENIED`: the operator keeps this repository out.
    #[error(
        "repository {repository} of {upstream} is not served here: allow or deny in the configuration keeps it out"
    )]
    NotAllowed { upstream: UpstreamName, repository: RepositoryName },
    /// 405 `UNSUPPORTED` with `Allow: GET, HEAD` (P-12, P-148).
    #[error("only GET and HEAD are served here")]
    MethodNotAllowed,
    /// 414 (S-33).
    #[error("the request target is too long")]
    UriTooLong,
    /// 404 with a hint: the mirror's URL on the client is wrong (C-23).
    #[error(
        "/v2/ stands twice in the path: leave /v2/<registry> out of the mirror's URL, or set override_path = true beside it"
    )]
    DoubledVersion,
}

impl Refusal {
    /// Builds [`Refusal::UnknownUpstream`] from text of any length.
    pub(super) fn unknown_upstream(name: &str) -> Self {
        Self::UnknownUpstream { name: name.chars().take(NAME_LENGTH_MAX).collect() }
    }
}
