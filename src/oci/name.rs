//! The names of repositories and of upstreams.
//!
//! Source: distribution-spec 1.1 "Pulling manifests" (P-3, P-4); normalisation of registry hosts: P-112.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Characters in a repository name at the most, without the upstream's host (P-4).
pub const NAME_LENGTH_MAX: usize = 255;

/// The scope of some content in one upstream: `library/alpine`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true when the name has one component only, as Docker Hub's official images are typed.
    pub fn is_single_component(&self) -> bool {
        !self.0.contains('/')
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_LENGTH_MAX {
            return Err(NameError::TooLong);
        }
        if text.split('/').all(is_component) { Ok(Self(text.into())) } else { Err(NameError::Malformed) }
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an upstream, as the configuration and `ns` give it: a host, perhaps with a port, in lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamName(Arc<str>);

impl UpstreamName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UpstreamName {
    type Err = NameError;

    /// Parses and normalises: lower case, without the default port 443 and without a trailing dot (P-112).
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_LENGTH_MAX {
            return Err(NameError::TooLong);
        }
        let lower = text.to_ascii_lowercase();
        let (host, port) = match lower.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (lower.as_str(), None),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let valid_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number > 0));
        if !host.split('.').all(is_host_label) || !valid_port {
            return Err(NameError::Malformed);
        }
        Ok(match port {
            None | Some("443") => Self(host.into()),
            Some(port) => Self(format!("{host}:{port}").into()),
        })
    }
}

impl fmt::Display for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("name is not valid: want lower-case letters and digits, separated by single '.', '_', '__', '-' or '/'")]
    Malformed,
    #[error("name is longer than {NAME_LENGTH_MAX} characters")]
    TooLong,
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    is_word(*first)
        && is_word(*last)
        && bytes.split(|byte| is_word(*byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
        })
}

fn is_host_label(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_')
        && !text.starts_with('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_follow_the_grammar_of_the_specification() {
        for good in ["a", "library/alpine", "a.b_c__d-e---f/0", "a/manifests/b", &"a".repeat(255)] {
            assert_eq!(good.parse::<RepositoryName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", "a b", "a\0", "..", "é", "a\\b",
            "a%2fb",
        ] {
            assert_eq!(bad.parse::<RepositoryName>(), Err(NameError::Malformed), "{bad:?}");
        }
        assert_eq!("a".repeat(256).parse::<RepositoryName>(), Err(NameError::TooLong));
    }

    #[test]
    fn upstream_names_are_normalised() {
        for (text, name) in [
            ("Docker.IO", "docker.io"),
            ("ghcr.io:443", "ghcr.io"),
            ("ghcr.io.", "ghcr.io"),
            ("my-reg:5000", "my-reg:5000"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(text.parse::<UpstreamName>().map(|name| name.to_string()), Ok(name.to_owned()));
        }
        for bad in ["", ".", "a..b", "a/b", "a:0", "a:65536", "a:b", "a:1:2", "_catalog", "a b", "[::1]", "user@host"] {
            assert!(bad.parse::<UpstreamName>().is_err(), "{bad:?}");
        }
    }
}
