//! What we say about ourselves: and what we never say.

mod secret;

pub use secret::Secret;
