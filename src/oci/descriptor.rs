//! A descriptor: what a manifest says about another piece of content, its digest, its size and its type.
//!
//! Source: image-spec 1.1 `descriptor.md`, `image-index.md` for `platform`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use super::digest::{Digest, DigestError};
use super::media_type::MediaType;

/// Some content that can be asked for by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// `None` when it is missing or no media type at all: clients then treat the content as bytes (P-39).
    pub media_type: Option<MediaType>,
    pub digest: Digest,
    /// The manifest's claim; proof is the digest only (S-10).
    pub size_bytes: u64,
    /// Only on the manifests of an index.
    pub platform: Option<Platform>,
    /// The content itself, where the manifest holds it and it is what the digest names (P-53).
    pub data: Option<Bytes>,
}

impl Descriptor {
    /// Returns true for content that registries do not hand out, and clients fetch from elsewhere (U-42). It is never fetched from there
    /// by us (S-29).
    pub fn is_foreign(&self) -> bool {
        let is_foreign = |text: &str| text.contains(".nondistributable.") || text.contains(".foreign.");
        self.media_type.as_ref().is_some_and(|media_type| is_foreign(media_type.as_str()))
    }
}

/// The machine that an image is made for; `unknown/unknown` marks attestations.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub variant: Option<String>,
}

/// A descriptor as it stands in a document.
///
/// Its digest is an error when it is malformed, and `None` when its algorithm is one that we cannot verify: such content
/// can neither be asked for through us nor be stored, so nobody below needs to hear of it (P-8, S-16).
#[derive(Debug, Deserialize)]
#[serde(try_from = "Fields")]
pub(super) struct Listed {
    pub(super) descriptor: Option<Descriptor>,
    /// The media type as written, for the `artifactType` of a referrer (P-74).
    pub(super) media_type_text: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    media_type: Option<String>,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    data: Option<String>,
}

impl TryFrom<Fields> for Listed {
    type Error = DigestError;

    fn try_from(fields: Fields) -> Result<Self, DigestError> {
        let digest = match fields.digest.parse() {
            Ok(digest) => Some(digest),
            Err(DigestError::UnsupportedAlgorithm) => None,
            Err(error @ DigestError::Malformed) => return Err(error),
        };
        let descriptor = digest.map(|digest| Descriptor {
            media_type: fields.media_type.as_deref().and_then(MediaType::parse),
            digest,
            size_bytes: fields.size,
            platform: fields.platform,
            data: fields.data.as_deref().and_then(|data| embedded(data, &digest, fields.size)),
        });
        Ok(Self { descriptor, media_type_text: fields.media_type.filter(|text| !text.is_empty()) })
    }
}

/// Decodes embedded content; what is not the content that it stands for is passed over, for the content can still be asked for.
fn embedded(data: &str, digest: &Digest, size_bytes: u64) -> Option<Bytes> {
    let bytes = STANDARD.decode(data).ok()?;
    let is_it = bytes.len() as u64 == size_bytes && Digest::of(digest.algorithm(), &bytes) == *digest;
    is_it.then(|| bytes.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn read(document: serde_json::Value) -> Result<Option<Descriptor>, String> {
        serde_json::from_value::<Listed>(document).map(|listed| listed.descriptor).map_err(|error| error.to_string())
    }

    #[test]
    fn descriptors_are_read_with_what_we_use() {
        let platform = json!({ "os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["x"] });
        let document = json!({ "mediaType": "a/b", "digest": D, "size": 7, "platform": platform, "urls": [1] });
        let expected = Descriptor {
            media_type: MediaType::parse("a/b"),
            digest: D.parse().expect("a digest"),
            size_bytes: 7,
            platform: Some(Platform { os: "linux".into(), architecture: "arm".into(), variant: Some("v7".into()) }),
            data: None,
        };
        assert_eq!(read(document), Ok(Some(expected)));
    }

    #[test]
    fn embedded_content_counts_when_it_is_what_the_digest_names() {
        let digest = Digest::sha256(b"{}").to_string();
        for (name, data, size, expected) in [
            ("right", json!("e30="), 2, Some(&b"{}"[..])),
            ("other bytes", json!("e31="), 2, None),
            ("another size", json!("e30="), 3, None),
            ("not base64", json!("{}"), 2, None),
            ("none", json!(null), 2, None),
        ] {
            let read = read(json!({ "digest": digest, "size": size, "data": data })).unwrap().unwrap();
            assert_eq!(read.data.as_deref(), expected, "P-53: {name}");
        }
    }

    #[test]
    fn foreign_layers_are_known_by_their_type() {
        for (media_type, expected) in [
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", true),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", true),
            ("application/vnd.oci.image.layer.v1.tar+gzip", false),
            ("", false),
        ] {
            let read = read(json!({ "mediaType": media_type, "digest": D, "size": 1 })).unwrap().unwrap();
            assert_eq!(read.is_foreign(), expected, "U-42: {media_type}");
        }
    }

    #[test]
    fn what_cannot_be_verified_is_not_listed() {
        assert_eq!(read(json!({ "digest": "blake3:00ff", "size": 7 })), Ok(None), "P-8");
    }

    #[test]
    fn a_descriptor_without_a_sound_digest_and_size_is_refused() {
        for document in [
            json!({ "size": 1 }),
            json!({ "digest": D }),
            json!({ "digest": D, "size": -1 }),
            json!({ "digest": D, "size": 1.5 }),
            json!({ "digest": "sha256:../../x", "size": 1 }),
            json!([]),
            json!(null),
        ] {
            assert!(read(document.clone()).is_err(), "P-6: {document}");
        }
        let twice = format!(r#"{{"digest":"{D}","digest":"{D}","size":1}}"#);
        assert!(serde_json::from_str::<Listed>(&twice).is_err(), "S-12");
    }

    #[test]
    fn a_missing_media_type_is_no_error() {
        for media_type in [json!(null), json!(""), json!("no type")] {
            let read = read(json!({ "mediaType": media_type, "digest": D, "size": 1 }));
            assert!(matches!(read, Ok(Some(Descriptor { media_type: None, .. }))), "P-39: {media_type}");
        }
    }
}
