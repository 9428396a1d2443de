//! The options by which an operator says what clients are to do, for `print-config` and `node-config` alike.

use std::time::Duration;

use crate::oci::UpstreamName;
use crate::settings;
use crate::snippets::{Certificate, Endpoint, EndpointError, Fallback, Token, Wish};

#[derive(Debug, clap::Args)]
pub(super) struct WishArgs {
    /// Where the clients reach the cache, such as <http://10.0.0.7:30500>
    #[arg(long, value_name = "URL", env = "CACHALOT_NODE_ENDPOINT", value_parser = endpoint)]
    endpoint: Option<Endpoint>,
    /// A registry that is pulled from through the cache; may be repeated [default: the built-in registries]
    #[arg(long = "registry", value_name = "NAME", env = "CACHALOT_NODE_REGISTRY", value_delimiter = ',', value_parser = registry)]
    registries: Vec<UpstreamName>,
    /// Have all other registries go through the cache as well
    #[arg(long, env = "CACHALOT_NODE_DEFAULT")]
    default: bool,
    /// What the cache is asked for: without resolve, tags are left to the registry
    #[arg(
        long, value_name = "LIST", env = "CACHALOT_NODE_CAPABILITIES", value_delimiter = ',', default_value = "pull,resolve",
        value_parser = ["pull", "resolve"]
    )]
    capabilities: Vec<String>,
    /// How long a connection to the cache may take, for containerd 2.1 and later
    #[arg(long, value_name = "TIME", env = "CACHALOT_NODE_DIAL_TIMEOUT", default_value = "300ms", value_parser = duration)]
    dial_timeout: Duration,
    /// Leave no way around the cache: without it nothing can be pulled
    #[arg(long, env = "CACHALOT_NODE_NO_FALLBACK")]
    no_fallback: bool,
    /// A PEM file, on the client's machine, of the authority that signed the certificate of an https endpoint
    #[arg(long, value_name = "FILE", env = "CACHALOT_NODE_CA")]
    ca: Option<String>,
    /// A file with a bearer token that clients show the cache; it is read where this command runs, by a watch at each look
    #[arg(long, value_name = "FILE", env = "CACHALOT_NODE_TOKEN_FILE")]
    token_file: Option<String>,
    /// A PEM file, on the client's machine, of a certificate that clients show the cache
    #[arg(long, value_name = "FILE", env = "CACHALOT_NODE_CLIENT_CERT", requires = "client_key")]
    client_cert: Option<String>,
    /// A PEM file, on the client's machine, of that certificate's key
    #[arg(long, value_name = "FILE", env = "CACHALOT_NODE_CLIENT_KEY", requires = "client_cert")]
    client_key: Option<String>,
}

impl WishArgs {
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    pub(super) fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    pub(super) fn certificate(&self) -> Option<Certificate> {
        let (cert, key) = (self.client_cert.clone()?, self.client_key.clone()?);
        Some(Certificate { cert, key })
    }

    pub(super) fn token_file(&self) -> Option<&str> {
        self.token_file.as_deref()
    }

    /// Returns the wish, `excluded` registries left out.
    ///
    /// # Errors
    /// What is missing, or contradicts itself.
    pub(super) fn wish(&self, excluded: &[UpstreamName]) -> Result<Wish, String> {
        let endpoint = self.endpoint.clone().ok_or("--endpoint is missing: say where the clients reach the cache")?;
        if !self.capabilities.iter().any(|capability| capability == "pull") {
            return Err("--capabilities is without pull, so that there is nothing to ask the cache for".into());
        }
        if self.ca.is_some() && !endpoint.is_https() {
            return Err(format!("--ca is for an endpoint with https, and {endpoint} has http"));
        }
        if self.client_cert.is_some() && !endpoint.is_https() {
            return Err(format!("--client-cert is for an endpoint with https, and {endpoint} has http"));
        }
        let mut registries =
            if self.registries.is_empty() { settings::builtin_registries() } else { self.registries.clone() };
        registries.retain(|registry| !excluded.contains(registry));
        let mut seen = std::collections::HashSet::new();
        registries.retain(|registry| seen.insert(registry.clone()));
        if registries.is_empty() && !self.default {
            return Err("every registry is excluded; name one with --registry".into());
        }
        Ok(Wish {
            endpoint,
            registries,
            with_default: self.default,
            resolves: self.capabilities.iter().any(|capability| capability == "resolve"),
            dial_timeout: Some(self.dial_timeout),
            fallback: if self.no_fallback { Fallback::None } else { Fallback::Origin },
            ca: self.ca.clone(),
            token: self.token_file.clone().map(Token::In),
            certificate: self.certificate(),
        })
    }
}

fn endpoint(text: &str) -> Result<Endpoint, EndpointError> {
    text.parse()
}

pub(super) fn registry(text: &str) -> Result<UpstreamName, String> {
    text.parse().map_err(|_| "not a registry's host; write for example quay.io or registry.example:5000".into())
}

/// Reads `300ms`, `5s`, `1min`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration >= Duration::from_millis(1) => Ok(duration),
        Ok(_) => Err("too short; write at least 1ms".into()),
        Err(_) => Err("not a duration; write a number and a unit, such as 300ms or 5s".into()),
    }
}
