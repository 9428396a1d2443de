//! Which documents are manifests, what they are, and which are refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const E: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn descriptor(media_type: &str, digest: &str) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": 2 })
}

fn image_document() -> Value {
    json!({
        "schemaVersion": 2,
        "config": descriptor("application/vnd.oci.image.config.v1+json", D),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", E)],
    })
}

fn index_document() -> Value {
    json!({ "schemaVersion": 2, "manifests": [descriptor(MediaType::OCI_MANIFEST, D)] })
}

fn schema1_document() -> Value {
    json!({ "schemaVersion": 1, "name": "a", "fsLayers": [{ "blobSum": D }], "history": [] })
}

fn with(mut document: Value, key: &str, value: Value) -> Value {
    document.as_object_mut().expect("an object").insert(key.to_owned(), value);
    document
}

fn without(mut document: Value, key: &str) -> Value {
    document.as_object_mut().expect("an object").remove(key);
    document
}

fn header(text: &str) -> Option<MediaType> {
    (!text.is_empty()).then(|| MediaType::parse(text).expect("a media type"))
}

fn outcome(read: Result<Manifest, ManifestError>) -> String {
    match read {
        Ok(manifest) => {
            let kind = match &manifest.kind {
                ManifestKind::Image { layers, .. } => format!("image of {}", layers.len()),
                ManifestKind::Index { manifests } => format!("index of {}", manifests.len()),
                ManifestKind::Other => "other".to_owned(),
            };
            format!("{kind}, {}", manifest.media_type)
        }
        Err(error) => {
            let text = format!("{error:?}");
            text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
        }
    }
}

#[track_caller]
fn check(spec: &str, document: &str, content_type: &str, expected: &str) {
    let read = Manifest::read(document.as_bytes(), header(content_type).as_ref());
    assert_eq!(outcome(read), expected, "{spec}: {content_type:?} {document}");
}

#[test]
fn the_media_type_comes_from_the_body_then_the_header_then_the_structure() {
    const OCI: &str = MediaType::OCI_MANIFEST;
    const INDEX: &str = MediaType::OCI_INDEX;
    const DOCKER: &str = MediaType::DOCKER_MANIFEST;
    const LIST: &str = MediaType::DOCKER_LIST;
    let typed = |document: Value, media_type: &str| with(document, "mediaType", json!(media_type));
    let docker_config = descriptor("application/vnd.docker.container.image.v1+json", D);
    let image = |media_type: &str| format!("image of 1, {media_type}");
    let index = |media_type: &str| format!("index of 1, {media_type}");
    let other = |media_type: &str| format!("other, {media_type}");
    let artifact = "application/vnd.oci.artifact.manifest.v1+json";
    let signed = with(schema1_document(), "signatures", json!([{}]));
    let rows = [
        ("P-25", typed(image_document(), OCI), OCI, image(OCI)),
        ("P-25", typed(image_document(), OCI), "", image(OCI)),
        ("P-27", typed(image_document(), OCI), &format!("{OCI}; charset=utf-8"), image(OCI)),
        ("P-25", typed(image_document(), DOCKER), DOCKER, image(DOCKER)),
        ("P-25", typed(index_document(), INDEX), INDEX, index(INDEX)),
        ("P-25", typed(index_document(), LIST), LIST, index(LIST)),
        ("P-25", typed(image_document(), OCI), DOCKER, "TypeMismatch".to_owned()),
        ("P-25", typed(index_document(), INDEX), LIST, "TypeMismatch".to_owned()),
        ("P-25", typed(image_document(), OCI), "text/html", "TypeMismatch".to_owned()),
        ("P-26", image_document(), OCI, image(OCI)),
        ("P-26", image_document(), DOCKER, image(DOCKER)),
        ("P-26", index_document(), INDEX, index(INDEX)),
        ("P-26", typed(image_document(), ""), OCI, image(OCI)),
        ("P-26", with(image_document(), "mediaType", json!(null)), OCI, image(OCI)),
        ("U-54", typed(image_document(), OCI), "text/plain", image(OCI)),
        ("U-55", typed(image_document(), OCI), "application/octet-stream", image(OCI)),
        ("U-63", typed(image_document(), OCI), "application/json", image(OCI)),
        ("U-63", image_document(), "", image(OCI)),
        ("U-63", image_document(), "application/json", image(OCI)),
        ("U-63", with(image_document(), "config", docker_config), "", image(DOCKER)),
        ("U-63", index_document(), "text/plain", index(INDEX)),
        ("U-63", schema1_document(), "text/plain", other(MediaType::SCHEMA1)),
        ("U-63", signed.clone(), "", other(MediaType::SCHEMA1_SIGNED)),
        ("P-40", signed, MediaType::SCHEMA1_SIGNED, other(MediaType::SCHEMA1_SIGNED)),
        ("P-39", json!({ "blobs": [1], "subject": 7 }), artifact, other(artifact)),
        (
            "P-39",
            typed(json!({ "config": "x", "layers": {} }), "application/vnd.ai+json"),
            "",
            other("application/vnd.ai+json"),
        ),
        ("P-39", typed(json!({}), "no type"), "", "InvalidMediaType".to_owned()),
        ("U-71", json!({ "errors": [] }), "application/json", "Unrecognised".to_owned()),
        ("U-71", json!({}), "", "Unrecognised".to_owned()),
        ("U-71", json!({}), "text/html", "Unrecognised".to_owned()),
        ("U-71", json!({ "errors": [] }), OCI, "Contradiction".to_owned()),
    ];
    for (spec, document, content_type, expected) in rows {
        check(spec, &document.to_string(), content_type, &expected);
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    const OCI: &str = MediaType::OCI_MANIFEST;
    const INDEX: &str = MediaType::OCI_INDEX;
    let both = with(image_document(), "manifests", json!([]));
    let rows = [
        ("S-11", both.clone(), OCI, "Ambiguous"),
        ("S-11", both.clone(), INDEX, "Ambiguous"),
        ("S-11", both, "application/vnd.unknown+json", "Ambiguous"),
        ("S-11", with(index_document(), "config", json!(null)), INDEX, "Ambiguous"),
        ("S-11", with(index_document(), "layers", json!([])), INDEX, "Ambiguous"),
        ("S-11", image_document(), INDEX, "Contradiction"),
        ("S-11", index_document(), OCI, "Contradiction"),
        ("S-11", image_document(), MediaType::SCHEMA1, "Contradiction"),
        ("S-11", schema1_document(), OCI, "Contradiction"),
        ("S-11", with(image_document(), "fsLayers", json!([])), OCI, "Contradiction"),
        ("S-11", without(image_document(), "config"), OCI, "Contradiction"),
        ("S-11", with(image_document(), "config", json!(null)), OCI, "Malformed"),
        ("P-6", with(image_document(), "config", descriptor("a/b", "sha256:../..")), OCI, "Malformed"),
        ("IS", with(image_document(), "layers", json!([1])), OCI, "Malformed"),
        ("IS", with(image_document(), "layers", json!("x")), OCI, "Malformed"),
        ("IS", with(image_document(), "mediaType", json!(7)), OCI, "Json"),
        ("S-12", with(image_document(), "Manifests", json!([])), OCI, "DuplicateKey"),
        ("S-12", with(image_document(), "MEDIATYPE", json!("a/b")), OCI, "DuplicateKey"),
        ("S-12", with(image_document(), "layer\u{17f}", json!([])), OCI, "DuplicateKey"),
    ];
    for (spec, document, content_type, expected) in rows {
        check(spec, &document.to_string(), content_type, expected);
    }
    for key in ["mediaType", "artifactType", "manifests", "layers", "config", "subject", "annotations"] {
        check("S-12", &format!(r#"{{"{key}":null,"x":[],"{key}":null}}"#), OCI, "DuplicateKey");
    }
}

#[test]
fn what_is_no_json_object_is_refused() {
    for document in ["", "<!DOCTYPE html><html></html>", "[]", "\"x\"", "null", "{", "{}{}", "{} x", "\u{feff}{}"] {
        check("U-71", document, MediaType::OCI_MANIFEST, "Json");
    }
    check("S-13", &format!(r#"{{"config":{}"#, "[".repeat(100_000)), "", "Json");
    check("S-13", &format!(r#"{{"x":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000)), "", "Unrecognised");
}

#[test]
fn lists_may_be_empty_or_missing_but_not_endless() {
    const OCI: &str = MediaType::OCI_MANIFEST;
    let image = format!("image of 0, {OCI}");
    check("P-158", &with(image_document(), "layers", json!([])).to_string(), OCI, &image);
    check("P-158", &with(image_document(), "layers", json!(null)).to_string(), OCI, &image);
    check("P-158", &without(image_document(), "layers").to_string(), OCI, &image);
    let nothing = json!({ "manifests": null }).to_string();
    check("P-158", &nothing, MediaType::OCI_INDEX, &format!("index of 0, {}", MediaType::OCI_INDEX));
    for (count, expected) in [
        (DESCRIPTORS_MAX, format!("image of {DESCRIPTORS_MAX}, {OCI}")),
        (DESCRIPTORS_MAX + 1, "TooManyDescriptors".into()),
    ] {
        let layers = vec![descriptor("a/b", D); count];
        let read = Manifest::read(with(image_document(), "layers", json!(layers)).to_string().as_bytes(), None);
        assert_eq!(outcome(read), expected, "S-13: {count}");
    }
}

#[test]
fn a_referrer_says_what_it_refers_to_and_what_it_is() {
    let subject = descriptor(MediaType::OCI_MANIFEST, E);
    let referrer = with(image_document(), "subject", subject.clone());
    let annotated = with(referrer.clone(), "annotations", json!({ "org.example": "x" }));
    let artifact = with(referrer.clone(), "artifactType", json!("application/vnd.Example"));
    let rows = [
        ("P-74", referrer, Some("application/vnd.oci.image.config.v1+json")),
        ("P-74", annotated.clone(), Some("application/vnd.oci.image.config.v1+json")),
        ("P-74", artifact, Some("application/vnd.Example")),
        ("P-75", with(index_document(), "subject", subject.clone()), None),
        (
            "P-39",
            json!({ "mediaType": "application/vnd.x+json", "subject": subject, "artifactType": "a/b" }),
            Some("a/b"),
        ),
    ];
    for (spec, document, artifact_type) in rows {
        let manifest = Manifest::read(document.to_string().as_bytes(), None).expect("a manifest");
        assert_eq!(
            manifest.subject.map(|subject| subject.digest.to_string()),
            Some(E.to_owned()),
            "{spec}: {document}"
        );
        assert_eq!(manifest.artifact_type.as_deref(), artifact_type, "{spec}: {document}");
    }
    let manifest = Manifest::read(annotated.to_string().as_bytes(), None).expect("a manifest");
    assert_eq!(manifest.annotations.get("org.example").map(String::as_str), Some("x"), "P-74");
}

#[test]
fn content_that_cannot_be_verified_is_not_listed() {
    let blake3 = descriptor("a/b", "blake3:00ff");
    let layers = json!([blake3, descriptor("a/b", D)]);
    let document = with(image_document(), "layers", layers).to_string();
    let manifest = Manifest::read(document.as_bytes(), None).expect("a manifest");
    let digests: Vec<_> = manifest.descriptors().map(|descriptor| descriptor.digest.to_string()).collect();
    assert_eq!(digests, [D, D], "P-8");
    let config = with(image_document(), "config", blake3.clone()).to_string();
    check("P-8", &config, MediaType::OCI_MANIFEST, &format!("other, {}", MediaType::OCI_MANIFEST));
    let subject = with(image_document(), "subject", blake3).to_string();
    assert_eq!(Manifest::read(subject.as_bytes(), None).map(|manifest| manifest.subject).ok(), Some(None), "P-8");
}

#[test]
fn an_index_tells_the_platforms() {
    let platform = json!({ "os": "linux", "architecture": "arm64" });
    let arm = with(descriptor(MediaType::OCI_MANIFEST, D), "platform", platform);
    let document = json!({ "manifests": [arm, descriptor("a/b", E)] }).to_string();
    let manifest = Manifest::read(document.as_bytes(), None).expect("a manifest");
    let platforms: Vec<_> = manifest
        .descriptors()
        .map(|descriptor| descriptor.platform.as_ref().map(|platform| platform.architecture.as_str()))
        .collect();
    assert_eq!(platforms, [Some("arm64"), None]);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), json in "[\\[\\]{}\":,a1mediaTypconfg ]{0,60}") {
        let _ = Manifest::read(&bytes, None);
        let _ = Manifest::read(json.as_bytes(), None);
    }

    /// S-11: whatever the keys, a document is never an image to one reader and an index to another.
    #[test]
    fn no_document_is_both(keys in prop::collection::vec(prop::sample::select(vec!["manifests", "layers", "config", "Config"]), 0..5)) {
        let pairs: Vec<_> = keys.iter().map(|key| match *key {
            "config" | "Config" => format!(r#""{key}":{}"#, descriptor("a/b", D)),
            key => format!(r#""{key}":[]"#),
        }).collect();
        let document = format!("{{{}}}", pairs.join(","));
        if Manifest::read(document.as_bytes(), None).is_ok() {
            let is_index = document.contains("manifests");
            let is_image = document.contains("onfig") || document.contains("layers");
            prop_assert!(is_index != is_image, "{}", document);
        }
    }
}
