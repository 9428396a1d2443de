//! The network side: what the cache may ask a remote registry, and how it is asked.
//!
//! The seam is [`Origin`]: the cache knows nothing else of the network, so the whole cache is tested without sockets.
//! Credentials, tokens, redirects, proxies, TLS, time-outs, connection limits and rates live below it.

mod error;
mod origin;

pub use error::UpstreamError;
pub use origin::{BlobHead, BlobTransfer, Chunks, ManifestAnswer, ManifestHead, Origin};
