//! A list of referrers: the manifests that name one manifest as their subject, as an image index.
//!
//! Descriptors are passed on as they were listed, byte for byte; of each only what is needed to merge, filter and mend is read.
//!
//! Source: distribution-spec 1.1 "Listing Referrers", image-spec 1.1 `descriptor.md`.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::bounded::Bounded;
use super::digest::{Algorithm, Digest};
use super::manifest::{DESCRIPTORS_MAX, Manifest};
use super::media_type::MediaType;
use super::reference::Tag;

/// Bytes of annotations that are copied from a manifest into its descriptor at the most: one of 4 MiB must not make a list of that size.
const ANNOTATIONS_BYTES_MAX: usize = 32 * 1024;

/// Characters of the encoded hash in a fallback tag (P-78).
const FALLBACK_ENCODED_MAX: usize = 64;

/// One entry: the descriptor of a manifest that refers to the subject.
#[derive(Debug, Clone)]
pub struct Referrer {
    digest: Digest,
    artifact_type: Option<String>,
    is_annotated: bool,
    json: Box<RawValue>,
}

impl Referrer {
    /// Describes a manifest that refers to a subject (P-74).
    pub fn of(manifest: &Manifest, digest: &Digest, size_bytes: u64) -> Self {
        let mut members = Map::new();
        members.insert("mediaType".to_owned(), manifest.media_type.as_str().into());
        members.insert("digest".to_owned(), digest.to_string().into());
        members.insert("size".to_owned(), size_bytes.into());
        if let Some(artifact_type) = &manifest.artifact_type {
            members.insert("artifactType".to_owned(), artifact_type.as_str().into());
        }
        let len: usize = manifest.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        let is_annotated = len > 0 && len <= ANNOTATIONS_BYTES_MAX;
        if is_annotated {
            let annotations = manifest.annotations.iter().map(|(key, value)| (key.clone(), value.as_str().into()));
            members.insert("annotations".to_owned(), Value::Object(annotations.collect()));
        }
        let json = raw(&Value::Object(members));
        Self { digest: *digest, artifact_type: manifest.artifact_type.clone(), is_annotated, json }
    }

    /// Reads a descriptor; `None` when it has no digest that can be verified or no size (P-8, P-79).
    pub fn read(json: Box<RawValue>) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields {
            digest: String,
            #[expect(dead_code, reason = "it must be there")]
            size: u64,
            artifact_type: Option<String>,
            annotations: Option<IgnoredAny>,
        }
        let fields: Fields = serde_json::from_str(json.get()).ok()?;
        Some(Self {
            digest: fields.digest.parse().ok()?,
            artifact_type: fields.artifact_type.filter(|text| !text.is_empty()),
            is_annotated: fields.annotations.is_some(),
            json,
        })
    }

    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub fn artifact_type(&self) -> Option<&str> {
        self.artifact_type.as_deref()
    }

    /// Returns the descriptor.
    pub fn as_json(&self) -> &str {
        self.json.get()
    }

    /// Adds what `known`, of the same manifest, says and this one does not: the artifact type, the annotations (P-80).
    #[must_use]
    pub fn mended(self, known: &Self) -> Self {
        let lacks_type = self.artifact_type.is_none() && known.artifact_type.is_some();
        let lacks_annotations = !self.is_annotated && known.is_annotated;
        let both = (self.members(), known.members());
        let (true, (Some(mut members), Some(known_members))) = (lacks_type || lacks_annotations, both) else {
            return self;
        };
        for (is_lacking, key) in [(lacks_type, "artifactType"), (lacks_annotations, "annotations")] {
            if let (true, Some(value)) = (is_lacking, known_members.get(key)) {
                members.insert(key.to_owned(), value.clone());
            }
        }
        Self {
            artifact_type: self.artifact_type.or_else(|| known.artifact_type.clone()),
            is_annotated: self.is_annotated || known.is_annotated,
            json: raw(&Value::Object(members)),
            digest: self.digest,
        }
    }

    fn members(&self) -> Option<Map<String, Value>> {
        serde_json::from_str(self.json.get()).ok()
    }
}

/// The referrers of one subject, in order, each once.
#[derive(Debug, Clone, Default)]
pub struct Referrers(Vec<Referrer>);

/// Why a document is no list of referrers.
#[derive(Debug, thiserror::Error)]
pub enum ReferrersError {
    #[error("not an index with a list of manifests")]
    Json(#[source] serde_json::Error),
    #[error("mediaType is {0}, not that of an index")]
    MediaType(String),
    /// P-92.
    #[error("more than {DESCRIPTORS_MAX} descriptors")]
    TooMany,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferrersPage {
    /// An image index.
    pub json: Bytes,
    /// The last one listed, when more follow.
    pub last: Option<Digest>,
}

impl Referrers {
    /// Reads an index. Entries without a digest that can be verified, or without a size, are left out.
    ///
    /// # Errors
    /// When it is no index, or has more than [`DESCRIPTORS_MAX`] entries.
    pub fn read(bytes: &[u8]) -> Result<Self, ReferrersError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Document {
            media_type: Option<String>,
            manifests: Bounded<Box<RawValue>, DESCRIPTORS_MAX>,
        }
        let document: Document = serde_json::from_slice(bytes).map_err(ReferrersError::Json)?;
        match document.media_type {
            Some(other) if !other.is_empty() && other != MediaType::OCI_INDEX => Err(ReferrersError::MediaType(other)),
            _ if document.manifests.is_too_long => Err(ReferrersError::TooMany),
            _ => Ok(document.manifests.items.into_iter().filter_map(Referrer::read).collect()),
        }
    }

    /// Merges lists of one subject: those that `self` lacks come before its own, whose order and words stay (P-77, P-91a).
    #[must_use]
    pub fn merged(self, others: Self) -> Self {
        let own: HashSet<Digest> = self.0.iter().map(|referrer| referrer.digest).collect();
        let others = others.0.into_iter().filter(|referrer| !own.contains(&referrer.digest));
        others.chain(self.0).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Referrer> {
        self.0.iter()
    }

    /// Returns true when nothing of the document that it was read from would be lost if it was written again.
    pub fn is_all_of(&self, document: &[u8]) -> bool {
        let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).ok();
        parse(document).is_some_and(|document| parse(&self.to_json()) == Some(document))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, digest: &Digest) -> bool {
        self.0.iter().any(|referrer| referrer.digest == *digest)
    }

    /// Returns the whole list as an image index.
    pub fn to_json(&self) -> Bytes {
        index(self.0.iter().map(Referrer::as_json))
    }

    /// Returns a page of those whose artifact type is one of `types`, or of all where there are none (P-81, P-82); the first one after
    /// `after`, at most `limit_bytes` of them, and one at the least (P-85).
    pub fn page(&self, types: &[String], after: Option<&Digest>, limit_bytes: usize) -> ReferrersPage {
        let is_wanted = |referrer: &&Referrer| {
            types.is_empty() || referrer.artifact_type().is_some_and(|is| types.iter().any(|wanted| wanted == is))
        };
        let start = after.and_then(|after| self.0.iter().position(|referrer| referrer.digest == *after));
        let mut rest = self.0.iter().skip(start.map_or(0, |last| last + 1)).filter(is_wanted).peekable();
        let (mut listed, mut len) = (Vec::new(), 0);
        while let Some(referrer) = rest.next_if(|next| listed.is_empty() || len + next.as_json().len() <= limit_bytes) {
            len += referrer.as_json().len() + 1;
            listed.push(referrer);
        }
        let last = rest.peek().and(listed.last()).map(|last| last.digest);
        ReferrersPage { json: index(listed.into_iter().map(Referrer::as_json)), last }
    }
}

impl FromIterator<Referrer> for Referrers {
    /// Of two with the same digest the first counts.
    fn from_iter<I: IntoIterator<Item = Referrer>>(referrers: I) -> Self {
        let mut seen = HashSet::new();
        Self(referrers.into_iter().filter(|referrer| seen.insert(referrer.digest)).collect())
    }
}

impl IntoIterator for Referrers {
    type Item = Referrer;
    type IntoIter = std::vec::IntoIter<Referrer>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Returns the tag under which clients keep a subject's referrers where the registry does not (P-78).
#[expect(clippy::missing_panics_doc, reason = "it cannot: an algorithm, a dash and digits are a tag")]
pub fn fallback_tag(subject: &Digest) -> Tag {
    let mut text = format!("{}-{}", subject.algorithm().as_str(), subject.encoded());
    text.truncate(subject.algorithm().as_str().len() + 1 + FALLBACK_ENCODED_MAX);
    text.parse().expect("it is letters, digits and a dash")
}

/// Returns true for the digest that clients ask for to learn whether there is a referrers API (P-73).
pub fn is_probe(subject: &Digest) -> bool {
    subject.algorithm() == Algorithm::Sha256 && subject.as_bytes().iter().all(|byte| *byte == 0)
}

fn index<'a>(entries: impl Iterator<Item = &'a str>) -> Bytes {
    let mut text = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":["#, MediaType::OCI_INDEX);
    for (at, entry) in entries.enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(entry);
    }
    text.push_str("]}");
    text.into()
}

fn raw(value: &Value) -> Box<RawValue> {
    // A value's text is JSON.
    RawValue::from_string(value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    fn entry(name: &str, more: &str) -> String {
        format!(r#"{{"mediaType":"a/b","digest":"{}","size":1{more}}}"#, digest(name))
    }

    fn list(entries: &[String]) -> Referrers {
        Referrers::read(&index(entries.iter().map(String::as_str))).unwrap()
    }

    fn names(list: &Referrers, among: &[&'static str]) -> Vec<&'static str> {
        let name = |referrer: &Referrer| *among.iter().find(|name| digest(name) == referrer.digest).unwrap();
        list.iter().map(name).collect()
    }

    #[test]
    fn what_is_listed_is_passed_on_as_it_stands() {
        let odd = entry("a", r#", "annotations" : {"x":"y"},  "platform":{"os":"é"},"data":"aGk=""#);
        let json = list(std::slice::from_ref(&odd)).to_json();
        let expected = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{odd}]}}"#, MediaType::OCI_INDEX);
        assert_eq!(json, expected, "P-70");
        assert_eq!(list(&[]).to_json(), expected.replace(&odd, ""), "P-68");
    }

    #[test]
    fn what_is_no_list_is_refused_and_what_is_no_entry_left_out() {
        for (name, document, expected) in [
            ("null", r#"{"manifests":null}"#, Some(0)),
            ("a digest twice", &format!(r#"{{"manifests":[{},{}]}}"#, entry("a", ""), entry("a", "")), Some(1)),
            ("no digest, no size, no object", r#"{"manifests":[{"size":1},{"digest":"x","size":1},7]}"#, Some(0)),
            ("another algorithm", r#"{"manifests":[{"digest":"blake3:00","size":1}]}"#, Some(0)),
            ("two digests", &format!(r#"{{"manifests":[{}]}}"#, entry("a", r#","digest":"x""#)), Some(0)),
            ("an image", r#"{"config":{},"layers":[]}"#, None),
            ("another type", r#"{"mediaType":"a/b","manifests":[]}"#, None),
            ("not a list", r#"{"manifests":{}}"#, None),
            ("errors", r#"{"errors":[]}"#, None),
            ("a page", "<html>", None),
        ] {
            let read = Referrers::read(document.as_bytes());
            assert_eq!(read.ok().map(|list| list.len()), expected, "P-79: {name}");
        }
        let many = format!(r#"{{"manifests":[{}]}}"#, vec!["0"; DESCRIPTORS_MAX + 1].join(","));
        assert!(matches!(Referrers::read(many.as_bytes()), Err(ReferrersError::TooMany)), "P-92");
    }

    #[test]
    fn merging_keeps_the_order_and_puts_the_others_before() {
        let own = list(&[entry("a", ""), entry("b", r#","artifactType":"own""#)]);
        let others = list(&[entry("c", ""), entry("b", r#","artifactType":"other""#), entry("d", "")]);
        let merged = own.merged(others);
        assert_eq!(names(&merged, &["a", "b", "c", "d"]), ["c", "d", "a", "b"], "P-91a");
        assert_eq!(merged.iter().last().unwrap().artifact_type(), Some("own"), "P-77");
    }

    #[test]
    fn types_filter_as_a_union_and_pages_follow_each_other() {
        let kinds = [("a", "x"), ("b", "y"), ("c", "x"), ("d", "z")];
        let all = list(&kinds.map(|(name, kind)| entry(name, &format!(r#","artifactType":"{kind}""#))));
        let page = |types: &[&str], after: Option<&str>, limit| {
            let types: Vec<String> = types.iter().map(|&text| text.to_owned()).collect();
            let page = all.page(&types, after.map(digest).as_ref(), limit);
            let listed = Referrers::read(&page.json).unwrap();
            (names(&listed, &["a", "b", "c", "d"]), page.last)
        };
        assert_eq!(page(&[], None, usize::MAX), (vec!["a", "b", "c", "d"], None));
        assert_eq!(page(&["x"], None, usize::MAX), (vec!["a", "c"], None), "P-81");
        assert_eq!(page(&["z", "x"], None, usize::MAX), (vec!["a", "c", "d"], None), "P-82");
        assert_eq!(page(&["none"], None, usize::MAX), (vec![], None));
        let two = 2 * entry("a", r#","artifactType":"x""#).len() + 1;
        assert_eq!(page(&[], None, two), (vec!["a", "b"], Some(digest("b"))), "P-85");
        assert_eq!(page(&[], Some("b"), two), (vec!["c", "d"], None));
        assert_eq!(page(&["x", "z"], Some("a"), 1), (vec!["c"], Some(digest("c"))), "one at the least");
        assert_eq!(page(&[], Some("unknown"), two).0, ["a", "b"]);
    }

    #[test]
    fn a_manifest_is_described_by_its_own_words() {
        let subject = format!(r#""subject":{}"#, entry("s", ""));
        let config = r#""config":{"mediaType":"c/d","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;
        let image = format!(r#"{{"mediaType":"{}",{config},"layers":[],{subject}"#, MediaType::OCI_MANIFEST);
        let index = format!(r#"{{"mediaType":"{}","manifests":[],{subject}"#, MediaType::OCI_INDEX);
        for (name, document, artifact_type, annotations) in [
            (
                "its type",
                format!(r#"{image},"artifactType":"t/u","annotations":{{"k":"v"}}}}"#),
                json!("t/u"),
                json!({"k": "v"}),
            ),
            ("the config's", format!("{image}}}"), json!("c/d"), Value::Null),
            ("an index has none", format!("{index}}}"), Value::Null, Value::Null),
            (
                "too many words",
                format!(r#"{index},"annotations":{{"k":"{}"}}}}"#, "v".repeat(40_000)),
                Value::Null,
                Value::Null,
            ),
        ] {
            let manifest = Manifest::read(document.as_bytes(), None).unwrap();
            let referrer = Referrer::of(&manifest, &digest("m"), 9);
            let read: Value = serde_json::from_str(referrer.as_json()).unwrap();
            assert_eq!((&read["artifactType"], &read["annotations"]), (&artifact_type, &annotations), "P-74: {name}");
            assert_eq!((&read["digest"], &read["size"]), (&json!(digest("m").to_string()), &json!(9)), "{name}");
            let again = Referrer::read(RawValue::from_string(referrer.as_json().to_owned()).unwrap()).unwrap();
            assert_eq!((again.artifact_type(), again.is_annotated), (referrer.artifact_type(), !annotations.is_null()));
        }
    }

    #[test]
    fn what_an_entry_lacks_is_mended_and_what_it_says_stays() {
        let read = |more: &str| Referrer::read(RawValue::from_string(entry("a", more)).unwrap()).unwrap();
        let known = read(r#","artifactType":"known","annotations":{"k":"known"}"#);
        for (more, artifact_type, annotation) in [
            ("", "known", "known"),
            (r#","artifactType":"own""#, "own", "known"),
            (r#","annotations":{"k":"own"}"#, "known", "own"),
            (r#","artifactType":"own","annotations":{"k":"own"}"#, "own", "own"),
        ] {
            let mended = read(more).mended(&known);
            let value: Value = serde_json::from_str(mended.as_json()).unwrap();
            assert_eq!(
                (mended.artifact_type(), &value["annotations"]["k"]),
                (Some(artifact_type), &json!(annotation)),
                "P-80"
            );
            assert_eq!(value["size"], 1);
        }
    }

    #[test]
    fn the_fallback_tag_is_cut_and_the_probe_is_known() {
        let long = Digest::of(Algorithm::Sha512, b"x");
        assert_eq!(fallback_tag(&long).as_str(), format!("sha512-{}", &long.encoded()[..64]), "P-78");
        assert_eq!(fallback_tag(&digest("x")).as_str(), format!("sha256-{}", digest("x").encoded()));
        assert!(is_probe(&Digest::Sha256([0; 32])) && !is_probe(&digest("x")), "P-73");
    }
}
