//! What outer caches may keep of our answers: the values of `Cache-Control` (P-41).
//!
//! None says `public`: an answer to a request with credentials must not become everybody's (RFC 9111 §3.5, S-1).

/// For content asked for by digest: it never changes.
pub const DIGEST: &str = "max-age=31536000, immutable";

/// For tags, lists of tags and referrers: outer caches ask us again each time, or a pushed tag would be seen late.
pub const MUTABLE: &str = "no-cache";

/// For errors, absence and the base endpoint: what is missing may be there in a second (P-142).
pub const ERROR: &str = "no-store";
