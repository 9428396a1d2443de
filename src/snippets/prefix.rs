//! Tools without mirrors: they reach the cache by its own name, with the registry's name as the first part of the path.

use super::{Certificate, Snippet, Wish};

pub(super) fn crane(wish: &Wish) -> Snippet {
    lines(wish, "crane pull", "", " image.tar", if wish.endpoint.is_https() { "" } else { " --insecure" })
}

pub(super) fn oras(wish: &Wish) -> Snippet {
    lines(wish, "oras pull", "", "", &options(wish))
}

pub(super) fn helm(wish: &Wish) -> Snippet {
    let mut snippet = lines(wish, "helm pull", "oci://", "", &options(wish));
    snippet.text = snippet.text.replace("REPOSITORY:TAG", "CHART --version VERSION");
    snippet
}

fn options(wish: &Wish) -> String {
    let plain = if wish.endpoint.is_https() { "" } else { " --plain-http" };
    let certificate = wish.certificate.as_ref();
    let shown = certificate.map(|Certificate { cert, key }| format!(" --cert-file {cert} --key-file {key}"));
    format!("{plain}{}", shown.unwrap_or_default())
}

fn lines(wish: &Wish, command: &str, scheme: &str, target: &str, option: &str) -> Snippet {
    let authority = wish.endpoint.authority();
    let mut text = String::from("# It has no mirrors: put the cache before the registry's name.\n");
    for registry in &wish.registries {
        text.extend([format!("{command}{option} {scheme}{authority}/{registry}/REPOSITORY:TAG{target}\n")]);
    }
    Snippet { text, notes: Vec::new() }
}
