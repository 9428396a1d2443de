//! What the client tells those who count: how requests end, in closed words, without knowing any metrics library.

use std::time::Duration;

use super::error::UpstreamError;
use crate::oci::Reference;
use crate::wire::Quota;

/// Whoever counts what the client does. Calls are short and never wait.
pub trait Observer: Send + Sync {
    /// One attempt at a question got its final status, redirects and authentication included.
    ///
    /// `elapsed` is the time from sending to the headers. An attempt whose status is an error is told as `failed` as well.
    fn answered(&self, kind: RequestKind, status: u16, elapsed: Duration);

    /// One attempt, or the body of a transfer, ended in an error.
    fn failed(&self, error: &UpstreamError);

    /// A question is asked once more; `reason` is a word of [`UpstreamError::as_str`], or `stale_connection`.
    fn retried(&self, reason: &'static str);

    /// A token was asked for; `result` is `ok`, `refused` or `error`.
    fn token(&self, result: &'static str);

    /// Some endpoint is to be asked, or none is, because all fail.
    fn available(&self, is_available: bool);

    /// The upstream told how many requests are left to us.
    fn quota(&self, quota: Quota);
}

/// Nobody counts.
impl Observer for () {
    fn answered(&self, _: RequestKind, _: u16, _: Duration) {}
    fn failed(&self, _: &UpstreamError) {}
    fn retried(&self, _: &'static str) {}
    fn token(&self, _: &'static str) {}
    fn available(&self, _: bool) {}
    fn quota(&self, _: Quota) {}
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    ManifestTag,
    ManifestDigest,
    Blob,
    Tags,
    Referrers,
}

impl RequestKind {
    /// Returns the kind of a request for the manifest at `reference`.
    pub fn of_manifest(reference: &Reference) -> Self {
        match reference {
            Reference::Tag(_) => Self::ManifestTag,
            Reference::Digest(_) => Self::ManifestDigest,
        }
    }

    /// Returns the value of the metrics label `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ManifestTag => "manifest_tag",
            Self::ManifestDigest => "manifest_digest",
            Self::Blob => "blob",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
        }
    }
}
