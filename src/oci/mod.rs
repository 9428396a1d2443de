//! The words of the OCI specifications as types: digests, names, tags, media types, manifests, routes and error codes.
//!
//! Everything here is a pure value: no clock, no I/O, no runtime.
//! Text from a peer is parsed once, at the edge; inside, a digest is a [`Digest`] and a name is a [`RepositoryName`].

mod digest;
mod media_type;
mod name;
mod reference;

pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use media_type::MediaType;
pub use name::{NameError, RepositoryName, UpstreamName};
pub use reference::{Reference, ReferenceError, Tag};
