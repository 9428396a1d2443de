//! Distributions of Kubernetes that write containerd's configuration themselves, and have one of their own for mirrors.

use super::{Certificate, Fallback, Snippet, Wish, quoted};

/// Registries in GKE's runtime configuration at the most.
pub(super) const GKE_REGISTRIES_MAX: usize = 25;

pub(super) fn rancher(wish: &Wish, distribution: &str) -> Snippet {
    let unit = if distribution == "k3s" { "k3s or k3s-agent" } else { "rke2-server or rke2-agent" };
    let mut text = format!(
        "# /etc/rancher/{distribution}/registries.yaml on each node; it is read at the start: restart {unit}\n"
    );
    if wish.fallback == Fallback::None {
        text +=
            "# The registries stay the last resort unless the node runs with --disable-default-registry-endpoint.\n";
    }
    text += "mirrors:\n";
    for name in names(wish) {
        text.extend([format!("  {name}:\n    endpoint:\n      - {}\n", quoted(&wish.endpoint.to_string()))]);
    }
    if wish.ca.is_some() || wish.certificate.is_some() {
        text.extend([format!("configs:\n  {}:\n    tls:\n", quoted(&wish.endpoint.authority()))]);
    }
    if let Some(ca) = &wish.ca {
        text.extend([format!("      ca_file: {}\n", quoted(ca))]);
    }
    if let Some(Certificate { cert, key }) = &wish.certificate {
        text.extend([format!("      cert_file: {}\n      key_file: {}\n", quoted(cert), quoted(key))]);
    }
    Snippet { text, notes: Vec::new() }
}

pub(super) fn talos(wish: &Wish) -> Snippet {
    let endpoint = quoted(&wish.endpoint.to_string());
    let skip = if wish.fallback == Fallback::None { "skipFallback: true\n" } else { "" };
    let documents: Vec<String> = names(wish)
        .map(|name| {
            format!("apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: {name}\nendpoints:\n  - url: {endpoint}\n{skip}")
        })
        .collect();
    let text =
        format!("# Talos 1.12 and later: talosctl patch machineconfig --patch @FILE\n{}", documents.join("---\n"));
    Snippet { text, notes: Vec::new() }
}

pub(super) fn bottlerocket(wish: &Wish) -> Snippet {
    let endpoint = quoted(&wish.endpoint.to_string());
    let mut text = String::from("# User data of the node, or: apiclient apply <FILE\n");
    for name in names(wish) {
        text.extend([format!(
            "[[settings.container-registry.mirrors]]\nregistry = {name}\nendpoint = [{endpoint}]\n\n"
        )]);
    }
    text.truncate(text.trim_end().len());
    Snippet { text: text + "\n", notes: Vec::new() }
}

pub(super) fn gke(wish: &Wish) -> Snippet {
    let endpoint = quoted(&wish.endpoint.to_string());
    let mut text = String::from(
        "# gcloud container node-pools update POOL --cluster CLUSTER --containerd-config-from-file FILE: nodes are re-created\n\
         registryHosts:\n",
    );
    for registry in &wish.registries {
        text.extend([format!("  - server: {}\n    hosts:\n      - host: {endpoint}\n", quoted(registry.as_str()))]);
        text += "        capabilities:\n          - \"HOST_CAPABILITY_PULL\"\n";
        if wish.resolves {
            text += "          - \"HOST_CAPABILITY_RESOLVE\"\n";
        }
        if let Some(limit) = wish.dial_timeout {
            text.extend([format!("        dialTimeout: {}\n", quoted(&format!("{}s", limit.as_secs_f64())))]);
        }
    }
    Snippet { text, notes: Vec::new() }
}

/// Returns the quoted names; a star stands for the registries that have none of their own.
fn names(wish: &Wish) -> impl Iterator<Item = String> {
    let star = wish.with_default.then(|| quoted("*"));
    wish.registries.iter().map(|registry| quoted(registry.as_str())).chain(star)
}
