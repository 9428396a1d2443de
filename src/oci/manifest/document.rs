//! The JSON of manifests: first its outline, which tells what it is, then the parts that belong to that.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{DESCRIPTORS_MAX, ManifestError};
use crate::oci::bounded::Bounded;
use crate::oci::descriptor::{Descriptor, Listed};
use crate::oci::media_type::MediaType;

/// The keys that decide what a manifest is. One of them twice is two manifests in one (S-12).
const KEYS: [&str; 9] =
    ["mediaType", "artifactType", "manifests", "layers", "config", "fsLayers", "signatures", "subject", "annotations"];

/// The config type that only images of Docker's own format have.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Which of the interpreted keys an object has.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one presence per key is what an outline is")]
pub(super) struct Skeleton {
    pub(super) media_type: Option<String>,
    artifact_type: Option<String>,
    pub(super) manifests: bool,
    pub(super) layers: bool,
    pub(super) config: bool,
    pub(super) fs_layers: bool,
    signatures: bool,
    /// The config's media type is Docker's.
    has_docker_config: bool,
    /// The first key that came twice.
    repeated: Option<&'static str>,
}

impl Skeleton {
    pub(super) fn check_keys(&self) -> Result<(), ManifestError> {
        self.repeated.map_or(Ok(()), |key| Err(ManifestError::DuplicateKey { key }))
    }

    /// Guesses the type from the structure (U-63).
    pub(super) fn derived_type(&self) -> Option<&'static str> {
        if self.manifests {
            Some(MediaType::OCI_INDEX)
        } else if self.config && self.has_docker_config {
            Some(MediaType::DOCKER_MANIFEST)
        } else if self.config {
            Some(MediaType::OCI_MANIFEST)
        } else if self.fs_layers && self.signatures {
            Some(MediaType::SCHEMA1_SIGNED)
        } else if self.fs_layers {
            Some(MediaType::SCHEMA1)
        } else {
            None
        }
    }

    /// Returns `artifactType`, where it says something.
    pub(super) fn artifact_type(&self) -> Option<String> {
        self.artifact_type.clone().filter(|text| !text.is_empty())
    }
}

impl<'de> Deserialize<'de> for Skeleton {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SkeletonVisitor)
    }
}

struct SkeletonVisitor;

impl<'de> Visitor<'de> for SkeletonVisitor {
    type Value = Skeleton;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Skeleton, A::Error> {
        let mut skeleton = Skeleton::default();
        let mut seen: Vec<&'static str> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let Some(key) = interpreted(&name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            // A disguised key counts as a repeated one even when it stands alone: some clients read it, others do not.
            if seen.contains(&key) || name != key {
                skeleton.repeated.get_or_insert(key);
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            seen.push(key);
            skeleton.take(key, &mut map)?;
        }
        Ok(skeleton)
    }
}

impl Skeleton {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "mediaType" => self.media_type = map.next_value()?,
            "artifactType" => self.artifact_type = map.next_value()?,
            "config" => {
                self.config = true;
                self.has_docker_config = map.next_value::<ConfigType>()?.is_docker();
            }
            key => {
                map.next_value::<IgnoredAny>()?;
                match key {
                    "manifests" => self.manifests = true,
                    "layers" => self.layers = true,
                    "fsLayers" => self.fs_layers = true,
                    "signatures" => self.signatures = true,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Returns the interpreted key that some decoder takes `name` for: Go compares with Unicode's simple case folding.
fn interpreted(name: &str) -> Option<&'static str> {
    let folded = fold(name);
    KEYS.into_iter().find(|key| fold(key) == folded)
}

/// Upper case first: `ſ` has no other lower case than itself, but its upper case is `S`.
fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// The media type of a config, if the config is an object that has one; in unknown manifests it may be anything.
#[derive(Deserialize)]
#[serde(untagged)]
enum ConfigType {
    Descriptor {
        #[serde(rename = "mediaType")]
        media_type: String,
    },
    Anything(IgnoredAny),
}

impl ConfigType {
    fn is_docker(&self) -> bool {
        matches!(self, Self::Descriptor { media_type } if media_type == DOCKER_CONFIG)
    }
}

/// What is read of an image manifest.
#[derive(Deserialize)]
pub(super) struct ImageDocument {
    pub(super) config: Listed,
    #[serde(default)]
    pub(super) layers: List,
    pub(super) subject: Option<Listed>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// What is read of an index.
#[derive(Deserialize)]
pub(super) struct IndexDocument {
    #[serde(default)]
    pub(super) manifests: List,
    pub(super) subject: Option<Listed>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// What is read of anything else.
#[derive(Default, Deserialize)]
pub(super) struct OtherDocument {
    pub(super) subject: Option<Listed>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// A list of descriptors.
pub(super) type List = Bounded<Listed, DESCRIPTORS_MAX>;

impl List {
    pub(super) fn into_descriptors(self) -> Result<Vec<Descriptor>, ManifestError> {
        if self.is_too_long {
            return Err(ManifestError::TooManyDescriptors);
        }
        Ok(self.items.into_iter().filter_map(|listed| listed.descriptor).collect())
    }
}
