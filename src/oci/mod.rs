//! The words of the OCI specifications as types: digests, names, tags, media types, manifests, routes and error codes.
//!
//! Everything here is a pure value: no clock, no I/O, no runtime.
//! Text from a peer is parsed once, at the edge; inside, a digest is a [`Digest`] and a name is a [`RepositoryName`].

mod bounded;
mod descriptor;
mod digest;
mod error;
mod manifest;
mod media_type;
mod name;
mod pattern;
mod reference;
mod referrers;
mod route;
mod tag_list;

pub use descriptor::{Descriptor, Platform};
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use error::{ErrorCode, error_body};
pub use manifest::{DESCRIPTORS_MAX, Manifest, ManifestError, ManifestKind};
pub use media_type::MediaType;
pub use name::{NAME_LENGTH_MAX, NameError, RepositoryName, UpstreamName};
pub use pattern::{Pattern, PatternError};
pub use reference::{Reference, ReferenceError, Tag};
pub use referrers::{Referrer, Referrers, ReferrersError, ReferrersPage, fallback_tag, is_probe};
pub use route::{Endpoint, Entry, Question, Refusal, Route, TARGET_LENGTH_MAX, Table, TableError, mount_source, route};
pub use tag_list::{TagList, TagListError};
