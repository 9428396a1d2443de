//! Images to publish: a config, some layers and the manifest over them, or an index of images for several platforms.

use bytes::Bytes;
use cachalot::oci::{Digest, MediaType};
use serde_json::json;

use super::content::Content;

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image before it is published. Without a layer of its own it gets one small layer.
#[derive(Clone)]
pub(crate) struct Image {
    architecture: &'static str,
    layers: Vec<Content>,
    annotations: serde_json::Map<String, serde_json::Value>,
}

impl Image {
    /// Begins an image for linux/amd64.
    pub(crate) fn new() -> Self {
        Self { architecture: "amd64", layers: Vec::new(), annotations: serde_json::Map::new() }
    }

    /// Adds a layer.
    pub(crate) fn layer(mut self, content: impl Into<Content>) -> Self {
        self.layers.push(content.into());
        self
    }

    /// Sets the architecture: `amd64`, `arm64` …
    pub(crate) fn architecture(mut self, architecture: &'static str) -> Self {
        self.architecture = architecture;
        self
    }

    /// Adds an annotation to the manifest: the cheapest way to another digest.
    pub(crate) fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    /// Builds config and manifest.
    pub(crate) fn build(&self) -> Published {
        let layers = if self.layers.is_empty() { vec![Content::from("the only layer")] } else { self.layers.clone() };
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.digest().to_string()).collect();
        let config: Content = json!({
            "architecture": self.architecture, "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
        .to_string()
        .into();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(OCI_LAYER, layer)).collect::<Vec<_>>(),
        });
        if let (false, Some(fields)) = (self.annotations.is_empty(), manifest.as_object_mut()) {
            fields.insert("annotations".to_owned(), self.annotations.clone().into());
        }
        let bytes = Bytes::from(manifest.to_string());
        Published {
            digest: Digest::sha256(&bytes),
            bytes,
            media_type: MediaType::OCI_MANIFEST,
            architecture: self.architecture,
            config,
            layers,
        }
    }
}

/// An image as it stands in a registry.
#[derive(Clone)]
pub(crate) struct Published {
    /// The digest of the manifest.
    pub(crate) digest: Digest,
    /// The manifest.
    pub(crate) bytes: Bytes,
    pub(crate) media_type: &'static str,
    pub(crate) architecture: &'static str,
    pub(crate) config: Content,
    pub(crate) layers: Vec<Content>,
}

impl Published {
    /// Returns the digest of the layer at `place`, from 0.
    pub(crate) fn layer(&self, place: usize) -> Digest {
        self.layers.get(place).expect("the image has that many layers").digest()
    }

    /// Returns config and layers, as a client pulls them.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Content> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// An index as it stands in a registry.
#[derive(Clone)]
pub(crate) struct PublishedIndex {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
    pub(crate) media_type: &'static str,
    pub(crate) images: Vec<Published>,
}

impl PublishedIndex {
    /// Builds the index of `images`.
    pub(crate) fn of(images: Vec<Published>) -> Self {
        let manifests: Vec<_> = images
            .iter()
            .map(|image| {
                json!({
                    "mediaType": image.media_type, "digest": image.digest.to_string(), "size": image.bytes.len(),
                    "platform": { "architecture": image.architecture, "os": "linux" },
                })
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": manifests });
        let bytes = Bytes::from(index.to_string());
        Self { digest: Digest::sha256(&bytes), bytes, media_type: MediaType::OCI_INDEX, images }
    }
}

fn descriptor(media_type: &str, content: &Content) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": content.digest().to_string(), "size": content.length() })
}
