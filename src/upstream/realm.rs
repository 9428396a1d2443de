//! Which hosts may see our credentials: endpoints that belong to the registry, and which of the token services that it sends us to.
//!
//! A registry names its token service itself, so a hostile or broken one could name a thief's (CVE-2026-33540). The rules (S-26):
//!
//! | | without credentials | with credentials |
//! |---|---|---|
//! | scheme | `https`; `http` when the registry itself is `http` | `https`; `http` when the registry is `http` and on the same host |
//! | userinfo in the realm | refused | refused |
//! | host | any | the registry's own, one on the configured list, or one of the same registrable domain |
//!
//! The registrable domain is what the Public Suffix List says, with its private section: `auth.docker.io` and
//! `registry-1.docker.io` belong together, `me.github.io` and `you.github.io` do not. Addresses, `localhost` and names
//! under a suffix that the list does not know match exactly or not at all.

use url::{Host, Url};

use super::egress::is_plainly_internal;

/// Why a token service is not asked. Never with the realm's query (S-40).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("token realm is not a URL")]
    NotAUrl,
    #[error("token realm is not https")]
    Scheme,
    #[error("token realm has userinfo")]
    Userinfo,
    #[error("token realm is on a foreign host, which must not see the credentials")]
    Foreign,
}

/// Parses a realm that a registry at `registry` named, and checks that it may be asked without credentials.
pub(super) fn parse(registry: &Url, realm: &str) -> Result<Url, Refusal> {
    let mut url = Url::parse(realm).map_err(|_| Refusal::NotAUrl)?;
    url.set_fragment(None);
    if url.scheme() != "https" && (url.scheme(), registry.scheme()) != ("http", "http") {
        return Err(Refusal::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::Userinfo);
    }
    Ok(url)
}

/// Checks that a parsed realm may see the credentials for `registry`; `allowed` are hosts from the configuration.
pub(super) fn check_credentials(registry: &Url, realm: &Url, allowed: &[String]) -> Result<(), Refusal> {
    let (Some(registry_host), Some(realm_host)) = (registry.host(), realm.host()) else { return Err(Refusal::NotAUrl) };
    if registry_host == realm_host {
        return Ok(());
    }
    if realm.scheme() != "https" {
        return Err(Refusal::Scheme);
    }
    let is_allowed = allowed.iter().any(|host| realm.host_str().is_some_and(|realm| realm.eq_ignore_ascii_case(host)));
    if is_allowed || is_same_domain(&registry_host, &realm_host) { Ok(()) } else { Err(Refusal::Foreign) }
}

/// Returns true when an endpoint may see the account of another, `home`: it is on the same host or of the same registrable domain, is on
/// the list, or neither of them is a public registry.
pub(super) fn belongs_to(home: &Url, endpoint: &Url, allowed: &[String]) -> bool {
    let (Some(home_host), Some(host)) = (home.host(), endpoint.host()) else { return false };
    home_host == host
        || is_same_domain(&home_host, &host)
        || is_plainly_internal(&home_host) && is_plainly_internal(&host)
        || allowed.iter().any(|allowed| endpoint.host_str().is_some_and(|host| host.eq_ignore_ascii_case(allowed)))
}

fn is_same_domain(one: &Host<&str>, other: &Host<&str>) -> bool {
    match (one, other) {
        (Host::Domain(one), Host::Domain(other)) => {
            registrable(one).is_some_and(|domain| registrable(other) == Some(domain))
        }
        _ => false,
    }
}

/// Returns the part of a name that somebody registered, when its suffix is on the list.
fn registrable(name: &str) -> Option<&str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let domain = psl::domain(name.as_bytes()).filter(|domain| domain.suffix().is_known())?;
    std::str::from_utf8(domain.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    #[test]
    fn realms_are_https_unless_the_registry_is_not() {
        for (registry, realm, expected) in [
            ("https://a.io", "https://b.io/token", Ok(())),
            ("http://a.io", "https://b.io/token", Ok(())),
            ("http://a.io", "http://b.io/token", Ok(())),
            ("https://a.io", "http://a.io/token", Err(Refusal::Scheme)),
            ("http://a.io", "ftp://a.io/token", Err(Refusal::Scheme)),
            ("https://a.io", "https://u:p@a.io/token", Err(Refusal::Userinfo)),
            ("https://a.io", "/token", Err(Refusal::NotAUrl)),
            ("https://a.io", "registry", Err(Refusal::NotAUrl)),
        ] {
            assert_eq!(parse(&url(registry), realm).map(|_| ()), expected, "{registry} → {realm}");
        }
    }

    #[test]
    fn an_account_is_for_the_endpoints_of_its_registry() {
        for (home, endpoint, expected) in [
            ("https://registry-1.docker.io", "https://registry-1.docker.io", true),
            ("https://registry-1.docker.io", "https://mirror.docker.io", true),
            ("https://registry-1.docker.io", "https://mirror.gcr.io", false),
            ("https://registry-1.docker.io", "http://10.0.0.1:5000", false),
            ("https://registry-1.docker.io", "https://mine.example.net", true),
            ("http://10.0.0.1:5000", "http://10.0.0.2:5000", true),
            ("https://harbor-a.corp", "https://harbor-b.corp", true),
            ("https://harbor.corp", "https://ghcr.io", false),
        ] {
            let allowed = ["Mine.example.net".to_owned()];
            assert_eq!(belongs_to(&url(home), &url(endpoint), &allowed), expected, "{home} → {endpoint}");
        }
    }

    #[test]
    fn credentials_stay_with_their_domain() {
        let allowed = ["sso.example.net".to_owned()];
        for (registry, realm, expected) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token", Ok(())),
            ("https://ghcr.io", "https://ghcr.io/token", Ok(())),
            ("https://a.company.co.uk", "https://b.company.co.uk/token", Ok(())),
            ("https://company.co.uk", "https://thief.co.uk/token", Err(Refusal::Foreign)),
            ("https://a.s3.amazonaws.com", "https://thief.s3.amazonaws.com/token", Err(Refusal::Foreign)),
            ("https://me.github.io", "https://thief.github.io/token", Err(Refusal::Foreign)),
            ("https://docker.io.thief.net", "https://auth.docker.io/token", Err(Refusal::Foreign)),
            ("https://auth.docker.io", "https://docker.io.thief.net/token", Err(Refusal::Foreign)),
            ("https://reg.io", "https://SSO.example.net/token", Ok(())),
            ("http://reg.io", "http://sso.example.net/token", Err(Refusal::Scheme)),
            ("https://10.0.0.1", "https://10.0.0.1:5001/token", Ok(())),
            ("https://10.0.0.1", "https://10.0.0.2/token", Err(Refusal::Foreign)),
            ("https://localhost", "https://127.0.0.1/token", Err(Refusal::Foreign)),
            ("https://registry.corp.internal", "https://auth.corp.internal/token", Err(Refusal::Foreign)),
            ("https://registry.corp.internal", "https://registry.corp.internal/token", Ok(())),
            ("http://localhost:5000", "http://localhost:5001/token", Ok(())),
            ("http://reg.docker.io", "http://auth.docker.io/token", Err(Refusal::Scheme)),
            ("https://reg.docker.io.", "https://auth.docker.io/token", Ok(())),
        ] {
            assert_eq!(check_credentials(&url(registry), &url(realm), &allowed), expected, "{registry} → {realm}");
        }
    }
}
