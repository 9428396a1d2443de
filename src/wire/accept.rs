//! The `Accept` header: which manifests a client understands, and which we ask an upstream for.
//!
//! Only tags need it: a digest has one representation, whatever the client accepts (P-35).

use crate::oci::MediaType;

/// What one client accepts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accept {
    /// Ranges without parameters, in lower case; those with `q=0` are left out. Empty means anything.
    ranges: Vec<String>,
    /// The lines as received, joined by commas.
    text: String,
}

impl Accept {
    /// What an upstream is asked for, whoever asks us: without the full list, some registries convert an index to the
    /// manifest of one platform, or to schema 1 (P-33, U-20).
    pub const MANIFESTS: &'static str = "application/vnd.oci.image.index.v1+json, \
        application/vnd.oci.image.manifest.v1+json, \
        application/vnd.docker.distribution.manifest.list.v2+json, \
        application/vnd.docker.distribution.manifest.v2+json, \
        */*";

    /// Parses the header's lines; several lines and one joined line are the same (P-34).
    pub fn from_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let text = lines.into_iter().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ");
        let ranges = text.split(',').filter_map(acceptable).collect();
        Self { ranges, text }
    }

    /// Returns true when a client that sent this understands `media_type`.
    ///
    /// `application/json` counts as "anything": clients that send only that still expect their manifest (P-36).
    pub fn covers(&self, media_type: &MediaType) -> bool {
        let (kind, _) = media_type.as_str().split_once('/').unwrap_or_default();
        self.ranges.is_empty()
            || self.ranges.iter().any(|range| match range.as_str() {
                "*/*" | "*" | "application/json" => true,
                range => range == media_type.as_str() || range.strip_suffix("/*") == Some(kind),
            })
    }

    /// Returns the header to send upstream in the client's place, when the cached type is none of its types (P-35).
    pub fn as_str(&self) -> &str {
        if self.text.is_empty() { Self::MANIFESTS } else { &self.text }
    }
}

/// Returns the media range of one element, unless it is empty or refused by `q=0`; other weights say nothing here (P-34).
fn acceptable(element: &str) -> Option<String> {
    let mut parts = element.split(';').map(str::trim);
    let range = parts.next().filter(|range| !range.is_empty())?;
    let is_refused = parts.any(|parameter| {
        parameter
            .split_once('=')
            .is_some_and(|(key, weight)| key.trim().eq_ignore_ascii_case("q") && weight.trim().parse() == Ok(0.0_f32))
    });
    (!is_refused).then(|| range.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OCI: &str = MediaType::OCI_MANIFEST;
    const INDEX: &str = MediaType::OCI_INDEX;
    const LIST: &str = MediaType::DOCKER_LIST;

    #[test]
    fn a_type_is_covered_as_the_rows_say() {
        let rows: &[(&str, &[&str], bool)] = &[
            ("P-34 missing", &[], true),
            ("P-36 empty", &[""], true),
            ("P-36 empty elements", &[" , ,", ""], true),
            ("P-36", &["*/*"], true),
            ("P-36", &["application/*"], true),
            ("P-36", &["application/json"], true),
            ("RFC 9110 §12.5.1", &["*"], true),
            (
                "P-34 one line",
                &["application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"],
                true,
            ),
            ("P-34 several lines", &[OCI, INDEX], true),
            ("P-34 weights", &["application/vnd.oci.image.index.v1+json;q=0.1"], true),
            ("P-34 odd weights", &["application/vnd.oci.image.index.v1+json;q=high;x"], true),
            ("P-34 case", &["Application/VND.OCI.image.index.v1+JSON"], true),
            ("P-35", &[OCI], false),
            ("P-35", &[OCI, LIST], false),
            ("P-35", &["text/*"], false),
            ("RFC 9110 §12.4.2", &["application/vnd.oci.image.index.v1+json; Q=0.000, text/plain"], false),
            ("C-5 containerd", &["application/vnd.docker.distribution.manifest.v2+json, */*"], true),
        ];
        let index = MediaType::parse(INDEX).expect("a media type");
        for (spec, lines, expected) in rows {
            assert_eq!(Accept::from_lines(lines.iter().copied()).covers(&index), *expected, "{spec}: {lines:?}");
        }
    }

    #[test]
    fn upstreams_are_asked_for_every_kind_of_manifest() {
        let accept = Accept::from_lines([Accept::MANIFESTS]);
        for media_type in [OCI, INDEX, LIST, MediaType::DOCKER_MANIFEST] {
            assert!(accept.ranges.iter().any(|range| range == media_type), "P-33: {media_type}");
        }
        assert!(!Accept::MANIFESTS.contains("  "), "P-33: {}", Accept::MANIFESTS);
    }

    #[test]
    fn the_clients_own_words_can_be_sent_on() {
        assert_eq!(Accept::from_lines(["a/b;q=1", "", "c/d"]).as_str(), "a/b;q=1, c/d", "P-35");
        assert_eq!(Accept::from_lines([]).as_str(), Accept::MANIFESTS, "P-33");
    }

    proptest! {
        #[test]
        fn lines_split_anywhere_mean_the_same(types in prop::collection::vec("[a-z]{1,3}/[a-z*]{1,3}(;q=[01])?", 1..6), cut in 0..6_usize) {
            let (left, right) = types.split_at(cut.min(types.len()));
            let split = Accept::from_lines([left.join(","), right.join(", ")].iter().map(String::as_str));
            let joined = Accept::from_lines([types.join(",").as_str()]);
            prop_assert_eq!(split.ranges, joined.ranges, "P-34");
        }
    }
}
