//! Turns the texts of a configuration into durations, sizes, addresses, names and URLs, or says in words what is wanted.
//!
//! Every function here is pure. Its error is the end of a sentence for the operator: what is wrong; what to write instead.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use tracing_subscriber::EnvFilter;
use url::{Host, Url};

use super::schema::{Access, LogFormat, Prefetch, Proxy};
use crate::identity::CertificateName;
use crate::oci::{Pattern, UpstreamName};
use crate::wire::Network;

/// An amount of disk: so many bytes, or a share of the file system that holds the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    Bytes(u64),
    /// Hundredths of the file system's size, 0 to 100.
    Percent(u8),
}

/// Reads a range of addresses: `10.0.0.0/8`.
pub(super) fn network(text: &str) -> Result<Network, String> {
    text.parse().map_err(|error| format!("{text:?} {error}; write for example \"10.0.0.0/8\" or \"10.0.0.7\""))
}

/// Reads a pattern of names: `library/*`, `v*`.
pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    text.parse().map_err(|error| {
        format!("{text:?} {error}; write a name in which * stands for any text without /, ** for any text, ? for one character")
    })
}

/// Reads `30s`, `1h 30min`, `7d`.
pub(super) fn duration(text: &str, bounds: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let value = humantime::parse_duration(text).map_err(|_| {
        format!("{text:?} is not a duration; write a number and a unit, such as \"30s\", \"5min\" or \"7d\"")
    })?;
    if bounds.contains(&value) {
        return Ok(value);
    }
    let [least, most] = [bounds.start(), bounds.end()].map(|bound| humantime::format_duration(*bound));
    Err(format!("{text} is out of bounds; write a duration from {least} to {most}"))
}

/// Reads `256MiB`, `5GB`, `0`; a bare number is refused, for `memory = 256` would be taken for MiB by people and for bytes
/// by us.
pub(super) fn bytes(text: &str, bounds: &RangeInclusive<u64>) -> Result<u64, String> {
    if text.trim().parse::<f64>().is_ok_and(|number| number != 0.0) {
        return Err(format!("{text:?} has no unit; write for example {SIZE_EXAMPLES}"));
    }
    let value = text
        .trim()
        .parse::<ByteSize>()
        .map_err(|_| format!("{text:?} is not a size; write a number and a unit, such as {SIZE_EXAMPLES}"))?;
    if bounds.contains(&value.0) {
        return Ok(value.0);
    }
    Err(format!(
        "{text} is out of bounds; write a size from {} to {}",
        ByteSize(*bounds.start()),
        ByteSize(*bounds.end())
    ))
}

/// Reads a size, or a share of the file system: `80%`.
pub(super) fn quantity(
    text: &str,
    bytes_bounds: &RangeInclusive<u64>,
    percent_bounds: &RangeInclusive<u8>,
) -> Result<Quantity, String> {
    let Some(number) = text.trim().strip_suffix('%') else {
        let advice = |message: String| message.replace(SIZE_EXAMPLES, "\"100GiB\", or a share such as \"80%\"");
        return bytes(text, bytes_bounds).map(Quantity::Bytes).map_err(advice);
    };
    let (least, most) = (percent_bounds.start(), percent_bounds.end());
    match number.trim().parse() {
        Ok(percent) if percent_bounds.contains(&percent) => Ok(Quantity::Percent(percent)),
        _ => Err(format!(
            "{text:?} is not a share of the file system; write whole percents from \"{least}%\" to \"{most}%\""
        )),
    }
}

/// Reads an IP address with a port.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| match text.trim().strip_prefix(':') {
        Some(port) => {
            format!("{text:?} has no address; write \"0.0.0.0:{port}\" for every IPv4 address, or \"[::]:{port}\"")
        }
        None => {
            format!("{text:?} is not an IP address with a port; write for example \"0.0.0.0:5000\" or \"[::1]:5000\"")
        }
    })
}

/// Reads the name of an upstream.
pub(super) fn upstream_name(text: &str) -> Result<UpstreamName, String> {
    if text.contains('/') {
        return Err(format!("{text:?} is not the name of a registry; write the host alone, such as \"quay.io\""));
    }
    text.parse().map_err(|_| {
        format!(
            "{text:?} is not the name of a registry; write a host, such as \"quay.io\" or \"registry.example:5000\""
        )
    })
}

/// Reads a virtual host: a host name or an address, perhaps with a port.
pub(super) fn host(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', '@', ' ']) {
        return Err(format!(
            "{text:?} is not a host; write the name that clients use, such as \"hub.example\", without a scheme"
        ));
    }
    Ok(text.to_owned())
}

/// Reads the host of a token service: a name or an address, whatever the port.
pub(super) fn token_host(text: &str) -> Result<String, String> {
    Host::parse(text).map(|host| host.to_string()).map_err(|_| {
        format!("{text:?} is not a host; write its name alone, such as \"sso.example\", without scheme, port and path")
    })
}

/// Reads the URL of a registry; what stands in it besides scheme, host, port and path would never be sent.
pub(super) fn endpoint(text: &str) -> Result<Url, String> {
    let url = plain_url(text, "https://registry.example", "set username and password_file instead")?;
    if url.path().trim_end_matches('/').ends_with("/v2") {
        return Err(format!("{text:?} ends with /v2; leave that out, it is added to every request"));
    }
    Ok(url)
}

/// Reads the URL by which clients know us; what stands in it besides scheme, host and port would be in every link.
pub(super) fn public_url(text: &str) -> Result<Url, String> {
    let url = plain_url(text, "https://cache.example", "leave out what stands before the @")?;
    match url.path() {
        "" | "/" => Ok(url),
        path => Err(format!("{text:?} has a path; leave out {path:?}, clients ask for /v2/ at the root of a host")),
    }
}

/// Reads a pattern of principals, or of repositories with their upstream in front: `user:*`, `docker.io/library/*`.
pub(super) fn wide_pattern(text: &str) -> Result<Pattern, String> {
    Pattern::of_principals(text).map_err(|error| {
        format!("{text:?} {error}; write a name in which * stands for any text without /, ** for any text, ? for one character")
    })
}

/// Reads which name of a client certificate counts; `None` is none.
pub(super) fn certificate_name(text: &str) -> Result<Option<CertificateName>, String> {
    match text {
        "off" => Ok(None),
        "cn" => Ok(Some(CertificateName::CommonName)),
        "dns" => Ok(Some(CertificateName::Dns)),
        "uri" => Ok(Some(CertificateName::Uri)),
        _ => Err(format!("{text:?} is not known; write \"off\", \"cn\", \"dns\" or \"uri\"")),
    }
}

/// Reads `environment`, `none`, or the URL of a proxy.
pub(super) fn proxy(text: &str) -> Result<Proxy, String> {
    match text {
        "environment" => Ok(Proxy::Environment),
        "none" => Ok(Proxy::None),
        _ if !text.contains("://") && !text.contains('@') => Err(format!(
            "{text:?} is not a proxy; write \"environment\", \"none\", or a URL such as \"http://proxy.example:3128\""
        )),
        _ => {
            let advice = "set HTTPS_PROXY in the environment and proxy = \"environment\" instead";
            plain_url(text, "http://proxy.example:3128", advice).map(Proxy::Url)
        }
    }
}

/// Reads a filter of log lines, and finds the misspelt level that `EnvFilter` would take for the name of a module.
pub(super) fn log_level(text: &str) -> Result<String, String> {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text));
    if is_word && !is_level {
        return Err(format!("{text:?} is not a level; write one of {}", LEVELS.join(", ")));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!(
            "{text:?} is not a filter; write a level, or levels per module such as \"info,cachalot::upstream=debug\""
        )),
    }
}

/// Reads the form of log lines.
pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is not a format; write \"text\" or \"json\"")),
    }
}

/// Reads what is downloaded before it is asked for.
pub(super) fn access(text: &str) -> Result<Access, String> {
    match text {
        "shared" => Ok(Access::Shared),
        "caller" => Ok(Access::Caller),
        _ => Err(format!("{text:?} is not one of shared, caller")),
    }
}

pub(super) fn prefetch(text: &str) -> Result<Prefetch, String> {
    match text {
        "off" => Ok(Prefetch::Off),
        "config" => Ok(Prefetch::Config),
        "layers" => Ok(Prefetch::Layers),
        _ => Err(format!("{text:?} is not known; write \"off\", \"config\" or \"layers\"")),
    }
}

/// Returns the known word that was probably meant.
pub(super) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(word, candidate);
    let nearest = known.into_iter().min_by_key(|candidate| distance(candidate))?;
    // A third of the letters may be wrong: more would suggest words that nobody meant.
    (distance(nearest) <= (word.len().max(nearest.len()) / 3).max(1)).then_some(nearest)
}

fn plain_url(text: &str, example: &str, credentials_advice: &str) -> Result<Url, String> {
    // The text is not repeated: what stands before the @ is a secret, also when the rest does not parse.
    if text.contains('@') {
        return Err(format!("the URL holds a user name or a password; {credentials_advice}"));
    }
    let wanted = || format!("{text:?} is not a URL with http or https; write for example \"{example}\"");
    let url = Url::parse(text).map_err(|_| wanted())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wanted());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{text:?} has a query or a fragment; leave out what follows ? or #"));
    }
    Ok(url)
}

/// The levels of logs, least first.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Examples in the advice about sizes.
const SIZE_EXAMPLES: &str = "\"256MiB\" or \"100GiB\"";
