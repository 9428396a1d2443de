//! containerd's `hosts.toml`, one per registry, which nerdctl reads as well, and kind's way to it.

use super::{Certificate, Fallback, Snippet, Token, Wish, quoted};
use crate::oci::UpstreamName;

/// Where containerd looks for hosts, unless its configuration names another place.
pub const CERTS_DIR: &str = "/etc/containerd/certs.d";

/// The directory for registries that have none of their own.
pub const DEFAULT_DIRECTORY: &str = "_default";

/// A `hosts.toml` in its two parts: TOML wants keys of the file before its first table.
///
/// Quirk(containerd 1.6.20): a file without any table of a host is refused as a whole, and the registry is asked itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsToml {
    /// What holds for the registry itself.
    pub server: String,
    /// The table of the host that is asked first.
    pub host: String,
}

impl HostsToml {
    /// For one registry, or for `_default`.
    pub fn new(registry: Option<&UpstreamName>, wish: &Wish) -> Self {
        let endpoint = wish.endpoint.to_string();
        let server = match (wish.fallback, registry) {
            // The cache in the place of the registry: containerd knows no other way.
            (Fallback::None, _) => format!("{}{}", server_key(&endpoint), properties(wish, "")),
            // Without `server` containerd asks the image's own registry last.
            (Fallback::Origin, None) => String::new(),
            (Fallback::Origin, Some(registry)) => server_key(&server_of(registry)),
        };
        Self { server, host: host_table(&endpoint, &properties(wish, "  ")) }
    }

    /// For a registry that is to be reached directly although `_default` leads to the cache.
    pub fn direct(registry: &UpstreamName) -> Self {
        let server = server_of(registry);
        let host = host_table(&server, "  capabilities = [\"pull\", \"resolve\", \"push\"]\n");
        Self { server: server_key(&server), host }
    }

    /// Returns the file.
    pub fn text(&self) -> String {
        let gap = if self.server.is_empty() { "" } else { "\n" };
        format!("{}{gap}{}", self.server, self.host)
    }
}

fn server_key(url: &str) -> String {
    format!("server = {}\n", quoted(url))
}

fn host_table(url: &str, properties: &str) -> String {
    format!("[host.{}]\n{properties}", quoted(url))
}

fn properties(wish: &Wish, indent: &str) -> String {
    let mut text =
        format!("{indent}capabilities = {}\n", if wish.resolves { r#"["pull", "resolve"]"# } else { r#"["pull"]"# });
    if let Some(limit) = wish.dial_timeout {
        text.extend([format!("{indent}dial_timeout = {}\n", quoted(&format!("{}ms", limit.as_millis())))]);
    }
    if let Some(ca) = &wish.ca {
        text.extend([format!("{indent}ca = {}\n", quoted(ca))]);
    }
    if let Some(Certificate { cert, key }) = &wish.certificate {
        text.extend([format!("{indent}client = [[{}, {}]]\n", quoted(cert), quoted(key))]);
    }
    if let Some(token) = &wish.token {
        text.extend([format!("{indent}header = {{ Authorization = {} }}\n", quoted(&token.authorization()))]);
    }
    text
}

/// Returns the URL of a registry's own server.
pub fn server_of(registry: &UpstreamName) -> String {
    // The website is at docker.io, the registry is not.
    let host = if registry.as_str() == "docker.io" { "registry-1.docker.io" } else { registry.as_str() };
    format!("https://{host}")
}

/// Returns the directory in which containerd looks first: `registry.example_5000_`, or the host where there is no port.
pub fn directory_of(registry: &UpstreamName) -> String {
    match registry.as_str().split_once(':') {
        Some((host, port)) => format!("{host}_{port}_"),
        None => registry.to_string(),
    }
}

/// Returns what to add to containerd's configuration so that it looks for hosts, for either version of that file.
pub fn config_path(directory: &str) -> String {
    let directory = quoted(directory);
    format!(
        r#"# containerd 1.x, in a file with version = 2
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = {directory}

# containerd 2.x, in a file with version = 3
[plugins."io.containerd.cri.v1.images".registry]
  config_path = {directory}
"#
    )
}

pub(super) fn files(wish: &Wish) -> Snippet {
    let mut files: Vec<(String, String)> = Vec::new();
    for registry in &wish.registries {
        files.push((directory_of(registry), HostsToml::new(Some(registry), wish).text()));
    }
    if wish.with_default {
        files.push((DEFAULT_DIRECTORY.into(), HostsToml::new(None, wish).text()));
    }
    let texts: Vec<String> =
        files.iter().map(|(directory, text)| format!("# {CERTS_DIR}/{directory}/hosts.toml\n{text}")).collect();
    let notes = match texts.len() {
        0 | 1 => Vec::new(),
        _ => vec!["each part belongs into the file that its first line names; name one --registry for one file".into()],
    };
    Snippet { text: texts.join("\n"), notes }
}

pub(super) fn kind(wish: &Wish) -> Snippet {
    let mut text = String::from("# kind create cluster --config FILE, after these commands:\n");
    let options = command_options(wish);
    let names = wish.registries.iter().map(|registry| (directory_of(registry), format!("--registry {registry}")));
    let default = wish.with_default.then(|| (DEFAULT_DIRECTORY.to_owned(), "--default".to_owned()));
    for (directory, name) in names.chain(default) {
        let command = format!("cachalot print-config containerd {options} {name}");
        text.extend([format!("#   mkdir -p certs.d/{directory} && {command} >certs.d/{directory}/hosts.toml\n")]);
    }
    text += r#"kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    extraMounts:
      - hostPath: ./certs.d
        containerPath: /etc/containerd/certs.d
containerdConfigPatches:
  - |-
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"
  - |-
    [plugins."io.containerd.cri.v1.images".registry]
      config_path = "/etc/containerd/certs.d"
"#;
    Snippet { text, notes: Vec::new() }
}

/// Returns the options that lead to the same wish, registries left out.
fn command_options(wish: &Wish) -> String {
    let mut options = format!("--endpoint {}", wish.endpoint);
    if !wish.resolves {
        options += " --capabilities pull";
    }
    if let Some(limit) = wish.dial_timeout {
        options.extend([format!(" --dial-timeout {}ms", limit.as_millis())]);
    }
    if wish.fallback == Fallback::None {
        options += " --no-fallback";
    }
    if let Some(ca) = &wish.ca {
        options.extend([format!(" --ca {ca}")]);
    }
    if let Some(Certificate { cert, key }) = &wish.certificate {
        options.extend([format!(" --client-cert {cert} --client-key {key}")]);
    }
    if let Some(Token::In(file)) = &wish.token {
        options.extend([format!(" --token-file {file}")]);
    }
    options
}
