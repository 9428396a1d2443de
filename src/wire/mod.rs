//! The HTTP header values that a registry cache reads and writes, as pure values: ranges, conditions, negotiation, caching.
//!
//! Nothing here knows of connections, bodies or the clock.

mod accept;
pub mod cache_control;
mod cache_status;
pub mod challenge;
pub mod chunk_range;
mod conditional;
mod content_headers;
pub mod link;
mod multipart;
pub mod names;
mod network;
mod quota;
mod range;
pub mod retry_after;
mod scope;

pub use accept::Accept;
pub use cache_status::{Outcome, header as cache_status_header, header_with_ttl as cache_status_header_with_ttl};
pub use conditional::{if_range_matches, is_not_modified};
pub use content_headers::ContentHeaders;
pub use multipart::Multipart;
pub use network::{Network, NetworkError};
pub use quota::Quota;
pub use range::{ByteRange, RANGES_MAX, RangeHeader, RangeSpec, Resolved};
pub use scope::Scope;
