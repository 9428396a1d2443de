//! A request that has been routed: what its handler works with.

use std::sync::Arc;

use http::HeaderValue;
use http::request::Parts;

use super::door::Visit;
use super::respond::{Asked, Problem};
use super::{Directory, Server, admission, heads};
use crate::cache::{CacheError, Client, Upstream};
use crate::identity::Principal;
use crate::oci::{Endpoint, Question};
use crate::telemetry::Shed;

/// A request and the question that it asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routed<'a> {
    pub(super) server: &'a Server,
    pub(super) visit: &'a Visit<'a>,
    pub(super) directory: &'a Directory,
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) request: &'a Parts,
    pub(super) question: &'a Question,
    /// What the caller shows the upstream, where the upstream is to see it.
    pub(super) authorization: Option<&'a HeaderValue>,
    pub(super) principal: &'a Principal,
    pub(super) client: Client,
    pub(super) is_head: bool,
}

impl Routed<'_> {
    /// Returns the problem that a failed question is.
    pub(super) fn failure(&self, error: &CacheError, asked: Asked) -> Problem {
        if matches!(error, CacheError::Overloaded { .. }) {
            self.server.metrics.http().shed(Shed::Overload);
        }
        if let Some(problem) = admission::denied(self, error, asked) {
            return problem;
        }
        Problem::of_failure(error, asked, self.upstream.tells_429())
    }

    /// Returns the path of the request, by which a client comes back here: a second slash at its beginning would name another host.
    ///
    /// Where the configuration says by which URL clients know us it is absolute (P-118), unless the host that was asked means an
    /// upstream: elsewhere the same path would mean another one.
    pub(super) fn path(&self) -> String {
        let means_upstream =
            heads::host(self.request).is_some_and(|host| self.directory.table.find_host(host).is_some());
        let base = self.directory.public_url().filter(|_| !means_upstream).unwrap_or_default();
        format!("{base}/{}", self.request.uri.path().trim_start_matches('/'))
    }

    /// Returns that of the repository, as the request names it.
    pub(super) fn repository_path(&self) -> String {
        let path = self.path();
        let after = match self.question.endpoint {
            Endpoint::Uploads | Endpoint::Upload(_) => 3,
            Endpoint::Manifest(_) | Endpoint::Blob(_) | Endpoint::Tags | Endpoint::Referrers(_) => 2,
        };
        path.rsplitn(after + 1, '/').last().unwrap_or_default().to_owned()
    }
}
