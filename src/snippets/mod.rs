//! What a client needs to be told so that it pulls through the cache, in the format of that client.
//!
//! Pure text out of a [`Wish`]. What a client cannot do is refused in words, never left out in silence: [`ABILITIES`] is the table.
//!
//! | file | clients |
//! |---|---|
//! | `containerd` | containerd, nerdctl, kind |
//! | `containers` | podman, buildah, skopeo, CRI-O |
//! | `docker` | dockerd, `BuildKit`, GitLab's runner |
//! | `kubernetes` | k3s, RKE2, Talos, Bottlerocket, GKE |
//! | `prefix` | crane, ORAS, Helm |
//!
//! `proof` is what clients show, so that the cache knows them.

pub mod containerd;
pub mod containers;
mod docker;
mod endpoint;
mod kubernetes;
mod prefix;
mod proof;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::time::Duration;

pub use endpoint::{Endpoint, EndpointError};
pub use proof::{Certificate, TOKEN_PLACEHOLDER, Token};

use crate::oci::UpstreamName;

/// What clients are to do.
#[derive(Debug, Clone)]
pub struct Wish {
    pub endpoint: Endpoint,
    /// The registries that are pulled from through the cache; at least one, unless `with_default`.
    pub registries: Vec<UpstreamName>,
    /// Whether the cache serves registries that are not named as well.
    pub with_default: bool,
    /// Whether the cache says what a tag means; otherwise it is asked by digest only.
    pub resolves: bool,
    /// How long a connection to the cache may take. containerd 1.x and 2.0 know no such limit and leave it out of account.
    pub dial_timeout: Option<Duration>,
    pub fallback: Fallback,
    /// The PEM file, on the client's machine, of the authority that signed the cache's certificate.
    pub ca: Option<String>,
    /// What clients show the cache with each request.
    pub token: Option<Token>,
    /// What they show it in the handshake.
    pub certificate: Option<Certificate>,
}

/// Who is asked when the cache fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The registry itself.
    Origin,
    None,
}

/// Text for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    pub text: String,
    /// What to do with it, where the text's format has no comments, and what it cannot do.
    pub notes: Vec<String>,
}

/// Who pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Containerd,
    Nerdctl,
    Kind,
    Crio,
    Podman,
    Buildah,
    Skopeo,
    Docker,
    Buildkit,
    GitlabRunner,
    K3s,
    Rke2,
    Talos,
    Bottlerocket,
    Gke,
    Crane,
    Oras,
    Helm,
}

/// What some clients can be told beyond the address of the cache, and others cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ability {
    /// A mirror for registries that are not named.
    Default,
    /// To keep away from the registry itself.
    NoFallback,
    /// To leave tags to the registry.
    DigestsOnly,
    /// A certificate authority in the same text.
    Ca,
    /// A header with a token.
    Token,
    /// A certificate of its own, here or where it looks for it.
    Certificate,
}

/// Each client, its name, and what it can be told.
const ABILITIES: [(Client, &str, &[Ability]); 18] = {
    use Ability::{Ca, Certificate, Default, DigestsOnly, NoFallback, Token};
    [
        (Client::Containerd, "containerd", &[Default, NoFallback, DigestsOnly, Ca, Token, Certificate]),
        (Client::Nerdctl, "nerdctl", &[Default, NoFallback, DigestsOnly, Ca, Token, Certificate]),
        (Client::Kind, "kind", &[Default, NoFallback, DigestsOnly, Ca, Token, Certificate]),
        (Client::Crio, "crio", &[NoFallback, DigestsOnly, Certificate]),
        (Client::Podman, "podman", &[NoFallback, DigestsOnly, Certificate]),
        (Client::Buildah, "buildah", &[NoFallback, DigestsOnly, Certificate]),
        (Client::Skopeo, "skopeo", &[NoFallback, DigestsOnly, Certificate]),
        (Client::Docker, "docker", &[Certificate]),
        (Client::Buildkit, "buildkit", &[Ca, Certificate]),
        (Client::GitlabRunner, "gitlab-runner", &[]),
        (Client::K3s, "k3s", &[Default, NoFallback, Ca, Certificate]),
        (Client::Rke2, "rke2", &[Default, NoFallback, Ca, Certificate]),
        (Client::Talos, "talos", &[Default, NoFallback]),
        (Client::Bottlerocket, "bottlerocket", &[Default]),
        (Client::Gke, "gke", &[DigestsOnly]),
        (Client::Crane, "crane", &[NoFallback]),
        (Client::Oras, "oras", &[NoFallback, Certificate]),
        (Client::Helm, "helm", &[NoFallback, Certificate]),
    ]
};

impl Client {
    /// Returns all clients with their names.
    pub fn all() -> impl Iterator<Item = (Self, &'static str)> {
        ABILITIES.iter().map(|(client, name, _)| (*client, *name))
    }

    fn name(self) -> &'static str {
        Self::all().find(|(client, _)| *client == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns what the client is to be told.
///
/// # Errors
/// When the client cannot be told so.
pub fn render(client: Client, wish: &Wish) -> Result<Snippet, SnippetError> {
    check(client, wish)?;
    let snippet = match client {
        Client::Containerd | Client::Nerdctl => containerd::files(wish),
        Client::Kind => containerd::kind(wish),
        Client::Crio => containers::file(wish, "CRI-O reads it when it is reloaded: systemctl reload crio"),
        Client::Podman | Client::Buildah | Client::Skopeo => containers::file(wish, "it is read for each command"),
        Client::Docker => docker::daemon(wish),
        Client::Buildkit => docker::buildkit(wish),
        Client::GitlabRunner => docker::gitlab_runner(wish),
        Client::K3s | Client::Rke2 => kubernetes::rancher(wish, client.name()),
        Client::Talos => kubernetes::talos(wish),
        Client::Bottlerocket => kubernetes::bottlerocket(wish),
        Client::Gke => kubernetes::gke(wish),
        Client::Crane => prefix::crane(wish),
        Client::Oras => prefix::oras(wish),
        Client::Helm => prefix::helm(wish),
    };
    Ok(proof::with_advice(snippet, wish))
}

fn check(client: Client, wish: &Wish) -> Result<(), SnippetError> {
    let able = ABILITIES.iter().find(|(known, ..)| *known == client).map_or(&[][..], |(_, _, able)| able);
    let cannot = |ability: Ability| !able.contains(&ability);
    if wish.with_default && cannot(Ability::Default) {
        return Err(SnippetError::Default(client));
    }
    if wish.fallback == Fallback::None && cannot(Ability::NoFallback) {
        return Err(SnippetError::Fallback(client));
    }
    if !wish.resolves && cannot(Ability::DigestsOnly) {
        return Err(SnippetError::Tags(client));
    }
    if wish.ca.is_some() && !wish.endpoint.is_https() {
        return Err(SnippetError::CaWithoutTls);
    }
    if wish.ca.is_some() && cannot(Ability::Ca) {
        return Err(SnippetError::Ca(client));
    }
    if wish.token.is_some() && cannot(Ability::Token) {
        return Err(SnippetError::Token(client));
    }
    if wish.certificate.is_some() && !wish.endpoint.is_https() {
        return Err(SnippetError::CertificateWithoutTls);
    }
    if wish.certificate.is_some() && cannot(Ability::Certificate) {
        return Err(SnippetError::Certificate(client));
    }
    let is_docker = matches!(client, Client::Docker | Client::GitlabRunner);
    if is_docker && !wish.registries.iter().any(|registry| registry.as_str() == "docker.io") {
        return Err(SnippetError::DockerHubOnly(client));
    }
    if client == Client::Gke && wish.registries.len() > kubernetes::GKE_REGISTRIES_MAX {
        return Err(SnippetError::TooMany(client, kubernetes::GKE_REGISTRIES_MAX));
    }
    Ok(())
}

/// Why a client cannot be told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnippetError {
    #[error("{0} has no setting for registries that are not named; leave out --default and name them with --registry")]
    Default(Client),
    #[error("{0} asks the registry itself when the cache fails, and cannot be told not to; leave out --no-fallback")]
    Fallback(Client),
    #[error("{0} asks the cache for tags as well, and cannot be told not to; leave out --capabilities, or add resolve")]
    Tags(Client),
    #[error("{0} takes no certificate authority in this file; leave out --ca and add it to the machine's own")]
    Ca(Client),
    #[error("--ca is for an endpoint with https; this one has http")]
    CaWithoutTls,
    #[error(
        "{0} shows a mirror no header; leave out --token-file, and log in to the cache with the token's name and the token"
    )]
    Token(Client),
    #[error("{0} cannot be told of a client certificate by its path; leave out --client-cert and --client-key")]
    Certificate(Client),
    #[error("--client-cert is for an endpoint with https; this one has http")]
    CertificateWithoutTls,
    #[error("{0} uses mirrors for docker.io only, which is not among the registries; name others in the image's path")]
    DockerHubOnly(Client),
    #[error("{0} takes {1} registries at the most; name fewer with --registry")]
    TooMany(Client, usize),
}

/// Returns the text as a string of TOML, YAML and JSON alike; names and URLs need no more than their escapes in common.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
