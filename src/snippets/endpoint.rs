//! Where clients reach the cache: scheme, host and port, and nothing else.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// The address of a cache, as its clients see it: `http://10.0.0.7:30500`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// Returns host and port, as they stand in an image's name; a scheme's own port is left out.
    pub fn authority(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Returns the URL of a path of the cache: `/v2/`.
    pub fn join(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        // The text is not repeated: what stands before the @ is a secret, also when the rest does not parse.
        if text.contains('@') {
            return Err(EndpointError::Credentials);
        }
        let url = Url::parse(text).map_err(|_| EndpointError::Malformed)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(EndpointError::Malformed);
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointError::Path);
        }
        Ok(Self(url))
    }
}

/// Without a slash at the end: clients append `/v2/`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.authority())
    }
}

/// Why a text is not the address of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("not a URL with http or https and a host; write for example http://10.0.0.7:30500")]
    Malformed,
    #[error("the cache is at the root of its host; leave out the path and what follows it")]
    Path,
    #[error("the URL holds a user name or a password; clients of the cache need none")]
    Credentials,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_scheme_host_and_port() {
        let rows = [
            ("http://10.0.0.7:30500", "http://10.0.0.7:30500", "10.0.0.7:30500"),
            ("http://10.0.0.7:30500/", "http://10.0.0.7:30500", "10.0.0.7:30500"),
            ("https://Cache.Example", "https://cache.example", "cache.example"),
            ("https://cache.example:443", "https://cache.example", "cache.example"),
            ("http://[fd00::7]:5000", "http://[fd00::7]:5000", "[fd00::7]:5000"),
        ];
        for (text, url, authority) in rows {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.to_string(), endpoint.authority()), (url.to_owned(), authority.to_owned()));
        }
        let endpoint: Endpoint = "http://a:1".parse().unwrap();
        assert_eq!(endpoint.join("/v2/").as_str(), "http://a:1/v2/");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_its_reason() {
        let rows = [
            ("10.0.0.7:30500", EndpointError::Malformed),
            ("cache.example", EndpointError::Malformed),
            ("ftp://cache.example", EndpointError::Malformed),
            ("http://", EndpointError::Malformed),
            ("http://cache.example:99999", EndpointError::Malformed),
            ("http://cache.example/v2/", EndpointError::Path),
            ("http://cache.example?a", EndpointError::Path),
            ("http://me:secret@cache.example", EndpointError::Credentials),
        ];
        for (text, error) in rows {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }
}
