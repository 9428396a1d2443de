//! A reference: what stands after `/manifests/`, a tag or a digest.
//!
//! Source: distribution-spec 1.1 "Pulling manifests" (P-5, P-9).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::digest::{Digest, DigestError};

/// Characters in a tag at the most.
const TAG_LENGTH_MAX: usize = 128;

/// A mutable name for a manifest: `3.20`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true for a tag that tools keep a manifest's signatures or other referrers under: `sha256-…`, `….sig` (P-88).
    pub fn tells_of_referrers(&self) -> bool {
        let is_of_a_digest = ["sha256-", "sha512-"].iter().any(|algorithm| {
            let encoded = self.0.strip_prefix(algorithm).map(|rest| rest.split('.').next().unwrap_or_default());
            encoded.is_some_and(|hex| hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
        });
        is_of_a_digest || [".sig", ".att", ".sbom"].iter().any(|suffix| self.0.ends_with(suffix))
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid = text.len() <= TAG_LENGTH_MAX
            && text.bytes().next().is_some_and(is_word)
            && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-');
        if valid { Ok(Self(text.into())) } else { Err(ReferenceError::Tag) }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Parses a digest when the text has a colon, else a tag (P-5).
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            text.parse().map(Self::Digest).map_err(ReferenceError::Digest)
        } else {
            text.parse().map(Self::Tag)
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

/// Why a text is not a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Answered as an absent manifest, not as a bad request: clients probe with over-long tags (P-5).
    #[error("tag is not valid: want a letter, digit or '_', then up to 127 of letters, digits, '_', '.' and '-'")]
    Tag,
    #[error(transparent)]
    Digest(DigestError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_follow_the_grammar_of_the_specification() {
        for good in ["latest", "3.20", "_x", "v1.0-rc.1", &"a".repeat(128)] {
            assert_eq!(good.parse::<Reference>().map(|reference| reference.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", ".a", "-a", "a/b", "a b", "é", "a\0", &"a".repeat(129)] {
            assert_eq!(bad.parse::<Reference>(), Err(ReferenceError::Tag), "{bad:?}");
        }
    }

    #[test]
    fn tags_of_signatures_are_known() {
        let hash = "0".repeat(64);
        for (tag, expected) in [
            (format!("sha256-{hash}"), true),
            (format!("sha256-{hash}.sig"), true),
            (format!("sha512-{hash}"), true),
            ("v1.sbom".to_owned(), true),
            ("sha256-1.2".to_owned(), false),
            (format!("git-{hash}"), false),
            ("latest".to_owned(), false),
        ] {
            assert_eq!(tag.parse::<Tag>().unwrap().tells_of_referrers(), expected, "P-88: {tag}");
        }
    }

    #[test]
    fn a_colon_makes_it_a_digest() {
        let text = format!("sha256:{}", "0".repeat(64));
        assert_eq!(text.parse::<Reference>().map(|reference| reference.to_string()), Ok(text));
        assert_eq!("sha256:x".parse::<Reference>(), Err(ReferenceError::Digest(DigestError::Malformed)));
    }
}
