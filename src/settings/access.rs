//! Who may read what an upstream has, and what that means for its other keys.

use super::reader::Section;
use super::units;
#[allow(clippy::wildcard_imports, reason = "the schema and its defaults are the vocabulary of this file")]
use super::{defaults::*, schema::*};

/// Reads the keys about access; the upstream's account and freshness have been read.
pub(super) fn read(section: &mut Section<'_>, upstream: &mut Upstream) {
    let timed: Vec<_> = ["access_ttl", "access_stale_if_error"].into_iter().filter(|key| section.has(key)).collect();
    upstream.access = section.text("access", units::access).unwrap_or(Access::Shared);
    upstream.access_except = section.list("access_except", units::pattern).unwrap_or_default();
    upstream.access_ttl = section.duration("access_ttl", &ACCESS_TTL_BOUNDS).unwrap_or(ACCESS_TTL);
    upstream.access_stale_if_error =
        section.duration("access_stale_if_error", &ACCESS_STALE_IF_ERROR_BOUNDS).unwrap_or(ACCESS_STALE_IF_ERROR);
    check(section, upstream, &timed);
}

/// Checks what was read; `timed` are the keys of lengths that are there.
fn check(section: &mut Section<'_>, upstream: &Upstream, timed: &[&str]) {
    if !upstream.has_callers() {
        for key in timed {
            let text = "has no effect where everything is shared; write access = \"caller\", or take it out";
            section.report(key, text.into());
        }
        return;
    }
    let key = if upstream.access == Access::Caller { "access" } else { "access_except" };
    if upstream.freshness.offline {
        let text = "lets nobody in: whether a caller may read is asked upstream, which offline = true rules out; \
                    share what is offline, or take offline out";
        section.report(key, text.into());
    }
    if upstream.credentials.is_some() && upstream.access_except.is_empty() {
        let text = "leaves no use for the account of this upstream: callers are asked for by their own; take the account out, or \
                    name the repositories that are shared in access_except";
        section.report(key, text.into());
    }
}

impl Upstream {
    /// Returns true when some repository is for callers.
    fn has_callers(&self) -> bool {
        self.access == Access::Caller || !self.access_except.is_empty()
    }
}
