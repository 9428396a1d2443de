//! Who is let in to what is for callers, and how others are sent away: before anything is looked up, so that an answer tells nothing of
//! what is cached (S-1…S-4).

use std::sync::Arc;

use super::respond::{Asked, Problem};
use super::routed::Routed;
use crate::cache::{CacheError, Unadmitted, Upstream, Wanted};
use crate::oci::{Digest, Endpoint, RepositoryName};

/// Returns the upstream in the caller's name where the repository is for callers; `None` where it is everybody's.
pub(super) async fn admitted(routed: &Routed<'_>) -> Result<Option<Arc<Upstream>>, Problem> {
    let question = routed.question;
    if !routed.upstream.is_for_callers(&question.repository) {
        return Ok(None);
    }
    let (wanted, asked) = match &question.endpoint {
        Endpoint::Manifest(reference) => (Wanted::Manifest(reference), Asked::Manifest),
        Endpoint::Blob(digest) => (Wanted::Blob(digest), Asked::Blob),
        Endpoint::Referrers(subject) => (Wanted::Referrers(subject), Asked::Referrers),
        // Uploads are writes: the upstream is asked with each.
        Endpoint::Tags | Endpoint::Uploads | Endpoint::Upload(_) => (Wanted::Tags, Asked::Tags),
    };
    let cache = &routed.server.cache;
    let admitted = cache.admit(routed.upstream, &question.repository, routed.authorization, wanted).await;
    admitted.map(Some).map_err(|unadmitted| problem(routed, &unadmitted, asked))
}

/// Returns the upstream as a write's caller may read it: what a write reads is read in the same name.
pub(super) fn as_writer(routed: &Routed<'_>) -> Result<Arc<Upstream>, Problem> {
    if !routed.upstream.is_for_callers(&routed.question.repository) {
        return Ok(Arc::clone(routed.upstream));
    }
    routed.upstream.seen_by(routed.authorization).ok_or_else(|| unreadable(routed))
}

/// Returns true when the caller may read a blob where it is to be mounted from: by the rules here, and by the upstream's word.
pub(super) async fn may_mount(routed: &Routed<'_>, from: &RepositoryName, digest: &Digest) -> bool {
    let (cache, upstream) = (&routed.server.cache, routed.upstream);
    routed.visit.may_read(routed.principal, &routed.question.upstream, from)
        && (!upstream.is_for_callers(from)
            || cache.admit(upstream, from, routed.authorization, Wanted::Blob(digest)).await.is_ok())
}

/// Returns the problem that a caller is who was let in and is denied something by the upstream all the same.
pub(super) fn denied(routed: &Routed<'_>, error: &CacheError, asked: Asked) -> Option<Problem> {
    routed.upstream.refusal(error).map(|unadmitted| problem(routed, &unadmitted, asked))
}

fn problem(routed: &Routed<'_>, unadmitted: &Unadmitted, asked: Asked) -> Problem {
    match unadmitted {
        Unadmitted::Unreadable => unreadable(routed),
        Unadmitted::Anonymous => routed.visit.unknown("log in with an account that the upstream lets read this"),
        Unadmitted::Denied => Problem::denied("the upstream does not let this account read this".to_owned()),
        Unadmitted::Failed(error) => routed.failure(error, asked),
    }
}

fn unreadable(routed: &Routed<'_>) -> Problem {
    routed.visit.unknown("the Authorization is neither an account (Basic) nor a token (Bearer)")
}
