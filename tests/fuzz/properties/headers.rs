//! Header values of other kinds, a line each: nothing is read from them that their text does not say.

use std::time::SystemTime;

use cachalot::oci::{Digest, MediaType};
use cachalot::wire::retry_after::{self, RETRY_AFTER_MAX};
use cachalot::wire::{Accept, Network, Quota, if_range_matches, is_not_modified, link};
use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) fn holds(input: &[u8]) {
    let lines = super::header_values(input);
    if let Some(next) = link::next(lines.iter().copied()) {
        assert!(
            !next.contains('>') && lines.iter().any(|line| line.contains(&format!("<{next}>"))),
            "it is the text's own"
        );
        assert_eq!(link::next([link::to_next(next).as_str()]), Some(next), "RFC 8288");
    }
    let digest = Digest::sha256(b"fuzz");
    let names_it = |line: &&str| line.contains(&digest.to_string()) || line.contains('*');
    assert!(!is_not_modified(lines.iter().copied(), &digest) || lines.iter().any(names_it), "P-38");
    for line in &lines {
        assert!(!if_range_matches(line, &digest) || line.contains(&digest.to_string()), "P-65");
        assert!(retry_after::parse(line, SystemTime::UNIX_EPOCH).is_none_or(|wait| wait <= RETRY_AFTER_MAX));
        if let Ok(digest) = line.parse::<Digest>() {
            assert_eq!(digest.to_string(), *line, "P-8: one text for one digest");
        }
        if let Ok(network) = line.parse::<Network>() {
            assert_eq!(network.to_string().parse::<Network>().as_ref(), Ok(&network));
        }
        if let Some(media_type) = MediaType::parse(line) {
            assert!(HeaderValue::from_str(media_type.as_str()).is_ok(), "it can be sent");
        }
    }
    let accept = Accept::from_lines(lines.iter().copied());
    assert!(HeaderValue::from_str(accept.as_str()).is_ok(), "it can be sent on: {:?}", accept.as_str());
    let mut headers = HeaderMap::new();
    for (name, line) in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].into_iter().zip(&lines) {
        headers.extend(HeaderValue::from_str(line).map(|value| (HeaderName::from_static(name), value)));
    }
    let _read = Quota::of(&headers);
}
