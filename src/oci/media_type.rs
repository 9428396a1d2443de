//! A media type without parameters, and the manifest types that we know.
//!
//! Source: image-spec 1.1 `media-types.md` (P-25, P-26, P-27).

use std::fmt;
use std::sync::Arc;

/// Bytes in a media type at the most: RFC 6838 §4.2 allows 127 on either side of the slash.
const LENGTH_MAX: usize = 255;

/// A media type such as `application/vnd.oci.image.manifest.v1+json`; never with parameters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MediaType(Arc<str>);

impl MediaType {
    pub const OCI_MANIFEST: &'static str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_INDEX: &'static str = "application/vnd.oci.image.index.v1+json";
    pub const DOCKER_MANIFEST: &'static str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_LIST: &'static str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const SCHEMA1: &'static str = "application/vnd.docker.distribution.manifest.v1+json";
    pub const SCHEMA1_SIGNED: &'static str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

    /// Parses the value of a `Content-Type` header, dropping parameters (P-27); `None` when it is not `type/subtype`.
    pub fn parse(text: &str) -> Option<Self> {
        let essence = text.split(';').next()?.trim().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        let valid = essence.len() <= LENGTH_MAX && is_token(kind) && is_token(subtype);
        valid.then(|| Self(essence.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true for an index or a manifest list.
    pub fn is_index(&self) -> bool {
        matches!(self.as_str(), Self::OCI_INDEX | Self::DOCKER_LIST)
    }

    /// Returns true for an image manifest, OCI or Docker schema 2.
    pub fn is_image_manifest(&self) -> bool {
        matches!(self.as_str(), Self::OCI_MANIFEST | Self::DOCKER_MANIFEST)
    }

    /// Returns true for Docker schema 1, whose digest does not cover the bytes as sent (P-40).
    pub fn is_schema1(&self) -> bool {
        matches!(self.as_str(), Self::SCHEMA1 | Self::SCHEMA1_SIGNED)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 9110 §5.6.2: a token.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_are_dropped() {
        let parsed = MediaType::parse("Application/VND.oci.image.index.v1+json; charset=utf-8");
        assert_eq!(parsed.map(|media_type| media_type.to_string()), Some(MediaType::OCI_INDEX.to_owned()));
    }

    #[test]
    fn what_is_not_a_type_and_a_subtype_is_refused() {
        for bad in ["", "/", "a/", "/b", "text", "a b/c", "a/b/c", "text/\r\nx", &format!("a/{}", "b".repeat(300))] {
            assert_eq!(MediaType::parse(bad), None, "{bad:?}");
        }
    }
}
