//! Reads a manifest: its media type, what it refers to, and whether every client will understand it in the same way.
//!
//! Manifests are read, never written: the bytes that are stored and served are those that were received (P-22).
//!
//! What the media type is (P-25, P-26, U-63). A header that says nothing (`text/plain`, `application/json`,
//! `application/octet-stream`) counts as absent:
//!
//! | `mediaType` in the body | `Content-Type` | media type |
//! |---|---|---|
//! | present | absent or the same | the body's |
//! | present | another | refused: type confusion (CVE-2021-41190) |
//! | absent | present | the header's |
//! | absent | absent | from the structure, or refused |
//!
//! The structure must then fit the type. A document that could be read as two things is refused whatever it calls
//! itself (S-11), and so is one with an interpreted key twice, also in another case: Go's decoder ignores case (S-12).
//!
//! Depth is no danger (S-13): `serde_json` refuses to recurse deeper than 128 levels in what is read, and skips the rest
//! without recursion. The caller bounds the bytes, [`DESCRIPTORS_MAX`] the descriptors.
//!
//! Source: image-spec 1.1 `manifest.md`, `image-index.md`.

mod document;

use std::collections::BTreeMap;

use bytes::Bytes;

use self::document::{ImageDocument, IndexDocument, OtherDocument, Skeleton};
use super::descriptor::Descriptor;
use super::digest::Digest;
use super::media_type::MediaType;

/// Descriptors in one manifest at the most: the largest indexes in use have hundreds, fallback tags some thousands.
pub const DESCRIPTORS_MAX: usize = 10_000;

/// Blobs in one manifest that are kept by themselves at the most: artifacts embed one or two.
const EMBEDDED_MAX: usize = 16;

/// What a manifest says, as far as the cache acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What to send as `Content-Type`, for ever the same for the same digest.
    pub media_type: MediaType,
    pub kind: ManifestKind,
    /// The manifest that this one refers to (P-90).
    pub subject: Option<Descriptor>,
    /// `artifactType`; where it is absent, the media type of an image manifest's config (P-74).
    pub artifact_type: Option<String>,
    /// The manifest's own annotations, for the descriptor in a referrers list (P-74).
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest refers to. Content that we could not verify is left out (P-8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestKind {
    Image {
        config: Descriptor,
        /// From the base upwards; empty for many artifacts (P-158).
        layers: Vec<Descriptor>,
    },
    Index {
        manifests: Vec<Descriptor>,
    },
    /// A type that we do not know, Docker schema 1 included: passed on untouched (P-39, P-40).
    Other,
}

impl Manifest {
    /// Reads a manifest of which `header` is the `Content-Type`.
    pub fn read(bytes: &[u8], header: Option<&MediaType>) -> Result<Self, ManifestError> {
        let skeleton: Skeleton = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        skeleton.check_keys()?;
        let media_type = media_type(&skeleton, header)?;
        check_structure(&skeleton, &media_type)?;
        if media_type.is_image_manifest() {
            image(bytes, media_type, &skeleton)
        } else if media_type.is_index() {
            index(bytes, media_type, &skeleton)
        } else {
            Ok(other(bytes, media_type, &skeleton))
        }
    }

    /// Returns the blobs that the manifest holds itself, [`EMBEDDED_MAX`] of them at the most (P-53).
    pub fn embedded(&self) -> impl Iterator<Item = (Digest, Bytes)> {
        let blobs = match &self.kind {
            ManifestKind::Image { .. } => Some(self.descriptors()),
            // What an index embeds is a manifest, which is read before it is kept.
            ManifestKind::Index { .. } | ManifestKind::Other => None,
        };
        let embedded = blobs.into_iter().flatten().filter_map(|blob| Some((blob.digest, blob.data.clone()?)));
        embedded.take(EMBEDDED_MAX)
    }

    /// Returns every descriptor in it, except the subject.
    pub fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, others) = match &self.kind {
            ManifestKind::Image { config, layers } => (Some(config), layers.as_slice()),
            ManifestKind::Index { manifests } => (None, manifests.as_slice()),
            ManifestKind::Other => (None, &[][..]),
        };
        config.into_iter().chain(others)
    }
}

/// Why bytes are not a manifest that may be passed on. All of them are the upstream's fault: a 502 (P-105).
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Also for pages of HTML that came with status 200 (U-71).
    #[error("not a JSON object")]
    Json(#[source] serde_json::Error),
    /// A part that we read is not as the image specification has it.
    #[error("malformed {media_type}")]
    Malformed {
        media_type: MediaType,
        #[source]
        source: serde_json::Error,
    },
    /// S-12.
    #[error("key {key} is given twice, or once more in another case")]
    DuplicateKey { key: &'static str },
    /// S-11.
    #[error("ambiguous: an index and an image at once")]
    Ambiguous,
    /// P-25.
    #[error("content type is {header}, but mediaType is {body}")]
    TypeMismatch { header: MediaType, body: MediaType },
    #[error("mediaType is not a media type")]
    InvalidMediaType,
    /// S-11.
    #[error("structure does not fit the type {media_type}")]
    Contradiction { media_type: MediaType },
    /// A JSON object that is no manifest, such as an error page (U-71).
    #[error("neither type nor structure is that of a manifest")]
    Unrecognised,
    /// S-13.
    #[error("more than {DESCRIPTORS_MAX} descriptors")]
    TooManyDescriptors,
}

fn media_type(skeleton: &Skeleton, header: Option<&MediaType>) -> Result<MediaType, ManifestError> {
    let header = header.filter(|header| !is_generic(header));
    // Go's encoders write a missing field as "".
    let body = match skeleton.media_type.as_deref() {
        None | Some("") => None,
        Some(text) => Some(MediaType::parse(text).ok_or(ManifestError::InvalidMediaType)?),
    };
    match (body, header) {
        (Some(body), Some(header)) if body != *header => {
            Err(ManifestError::TypeMismatch { header: header.clone(), body })
        }
        (Some(body), _) => Ok(body),
        (None, Some(header)) => Ok(header.clone()),
        (None, None) => skeleton.derived_type().and_then(MediaType::parse).ok_or(ManifestError::Unrecognised),
    }
}

/// Returns true for what registries send when they do not know better (U-54, U-55, U-63).
fn is_generic(header: &MediaType) -> bool {
    matches!(header.as_str(), "text/plain" | "application/json" | "application/octet-stream" | "binary/octet-stream")
}

fn check_structure(skeleton: &Skeleton, media_type: &MediaType) -> Result<(), ManifestError> {
    let has_image = skeleton.config || skeleton.layers;
    if skeleton.manifests && has_image {
        return Err(ManifestError::Ambiguous);
    }
    let fits = if media_type.is_image_manifest() {
        skeleton.config && !skeleton.manifests && !skeleton.fs_layers
    } else if media_type.is_index() {
        skeleton.manifests && !has_image && !skeleton.fs_layers
    } else if media_type.is_schema1() {
        skeleton.fs_layers && !has_image && !skeleton.manifests
    } else {
        // U-71: `text/html` and its like are types, but no manifest's.
        return if media_type.as_str().starts_with("application/") { Ok(()) } else { Err(ManifestError::Unrecognised) };
    };
    if fits { Ok(()) } else { Err(ManifestError::Contradiction { media_type: media_type.clone() }) }
}

fn image(bytes: &[u8], media_type: MediaType, skeleton: &Skeleton) -> Result<Manifest, ManifestError> {
    let document: ImageDocument = read(bytes, &media_type)?;
    let layers = document.layers.into_descriptors()?;
    let artifact_type = skeleton.artifact_type().or(document.config.media_type_text);
    let kind = match document.config.descriptor {
        Some(config) => ManifestKind::Image { config, layers },
        // An image whose config cannot be verified cannot be fetched through us; its bytes are still passed on (P-8).
        None => ManifestKind::Other,
    };
    let subject = document.subject.and_then(|listed| listed.descriptor);
    Ok(Manifest { media_type, kind, subject, artifact_type, annotations: document.annotations.unwrap_or_default() })
}

fn index(bytes: &[u8], media_type: MediaType, skeleton: &Skeleton) -> Result<Manifest, ManifestError> {
    let document: IndexDocument = read(bytes, &media_type)?;
    let kind = ManifestKind::Index { manifests: document.manifests.into_descriptors()? };
    let artifact_type = skeleton.artifact_type();
    let subject = document.subject.and_then(|listed| listed.descriptor);
    Ok(Manifest { media_type, kind, subject, artifact_type, annotations: document.annotations.unwrap_or_default() })
}

/// Reads an unknown manifest: a subject where there is a sound one, and no complaint where there is not (P-39).
fn other(bytes: &[u8], media_type: MediaType, skeleton: &Skeleton) -> Manifest {
    let document: OtherDocument = serde_json::from_slice(bytes).unwrap_or_default();
    Manifest {
        media_type,
        kind: ManifestKind::Other,
        subject: document.subject.and_then(|listed| listed.descriptor),
        artifact_type: skeleton.artifact_type(),
        annotations: document.annotations.unwrap_or_default(),
    }
}

fn read<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8], media_type: &MediaType) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes).map_err(|source| ManifestError::Malformed { media_type: media_type.clone(), source })
}

#[cfg(test)]
mod tests;
