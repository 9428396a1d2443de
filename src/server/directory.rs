//! The upstreams that clients can ask: how a request names one, and what it is.
//!
//! A directory never changes. A new configuration is a new one, put in the place of the old as a whole: a request that was routed by the
//! one is answered by it to its end.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::Upstream;
use crate::oci::{Table, UpstreamName};

/// All upstreams that there are.
#[derive(Debug)]
pub struct Directory {
    pub(super) table: Table,
    upstreams: HashMap<UpstreamName, Arc<Upstream>>,
    takes_callers: bool,
    public_url: Option<String>,
}

impl Directory {
    /// `table` names no others than `upstreams`.
    pub fn new(table: Table, upstreams: impl IntoIterator<Item = (UpstreamName, Arc<Upstream>)>) -> Self {
        let upstreams: HashMap<_, _> = upstreams.into_iter().collect();
        let takes_callers =
            table.entries().iter().any(|entry| entry.push) || upstreams.values().any(|upstream| upstream.has_callers());
        Self { table, upstreams, takes_callers, public_url: None }
    }

    /// Returns true when the caller's own credential counts for some upstream.
    pub(super) fn takes_callers(&self) -> bool {
        self.takes_callers
    }

    /// Returns true when it counts for this one: writes go on in their caller's name, and so do reads of what is for callers.
    pub(super) fn takes_callers_of(&self, name: &UpstreamName) -> bool {
        self.table.find(name.as_str()).is_some_and(|entry| entry.push)
            || self.upstream(name).is_some_and(|upstream| upstream.has_callers())
    }

    /// Makes it known to clients by `url`, an origin without a slash at its end.
    #[must_use]
    pub fn known_as(self, url: Option<String>) -> Self {
        Self { public_url: url, ..self }
    }

    /// Returns the URL by which clients know us, without a slash at its end.
    pub(super) fn public_url(&self) -> Option<&str> {
        self.public_url.as_deref()
    }

    /// Returns the upstream of that name.
    pub fn upstream(&self, name: &UpstreamName) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// Returns all of them, in no order.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }
}
