//! A request that has been routed: what its handler works with.

use http::request::Parts;

use super::Server;
use crate::oci::Question;

/// A request and the question that it asks.
#[derive(Debug)]
pub(super) struct Routed<'a> {
    pub(super) server: &'a Server,
    pub(super) request: &'a Parts,
    pub(super) question: &'a Question,
    pub(super) is_head: bool,
}
