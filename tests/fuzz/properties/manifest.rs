//! A media type, a line break, and a manifest: what is accepted can be read in one way only (S-11, S-12), is bounded (S-13), and is the
//! same for a decoder that ignores case, as Go's does.

use cachalot::oci::{DESCRIPTORS_MAX, Digest, Manifest, ManifestKind, MediaType, Referrer};
use serde_json::Value;

pub(super) fn holds(input: &[u8]) {
    let Some(at) = input.iter().position(|byte| *byte == b'\n') else { return };
    let (header, document) = (&input[..at], &input[at + 1..]);
    let header = std::str::from_utf8(header).ok().and_then(MediaType::parse);
    let Ok(manifest) = Manifest::read(document, header.as_ref()) else { return };
    // In what is not interpreted, bytes may be no text; Go's decoder reads them as U+FFFD.
    let value: Value = match serde_json::from_str(&String::from_utf8_lossy(document)) {
        Ok(value) => value,
        // What is skipped may be nested deeper than this decoder goes, or be a number that it has no room for.
        Err(error) if ["recursion limit", "number out of range"].iter().any(|why| error.to_string().contains(why)) => {
            return;
        }
        Err(error) => panic!("what is accepted is JSON: {error}"),
    };
    let object = value.as_object().expect("and an object");
    let has = |name: &str| object.keys().any(|key| key.eq_ignore_ascii_case(name) && !object[key].is_null());
    assert!(!(has("manifests") && (has("layers") || has("config"))), "S-11: both an index and an image");
    let said =
        object.iter().filter(|(key, _)| key.eq_ignore_ascii_case("mediaType")).filter_map(|(_, value)| value.as_str());
    // Parameters say nothing of the kind (P-27).
    for said in said.filter_map(MediaType::parse) {
        assert!(
            said.as_str().eq_ignore_ascii_case(manifest.media_type.as_str()),
            "P-25: {said:?} is not {:?}",
            manifest.media_type
        );
    }
    assert!(manifest.descriptors().count() <= DESCRIPTORS_MAX, "S-13");
    for (digest, bytes) in manifest.embedded() {
        assert!(!bytes.is_empty() || digest == Digest::sha256(b""), "P-53");
    }
    if let ManifestKind::Image { config, .. } = &manifest.kind {
        assert!(config.digest.to_string().parse::<Digest>().is_ok());
    }
    let digest = Digest::sha256(document);
    let referrer = Referrer::of(&manifest, &digest, document.len() as u64);
    let said: Value = serde_json::from_str(referrer.as_json()).expect("a descriptor is JSON");
    assert_eq!(
        (said["digest"].as_str(), said["size"].as_u64()),
        (Some(digest.to_string().as_str()), Some(document.len() as u64))
    );
}
