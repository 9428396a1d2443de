//! Tools without mirrors: they reach the cache by its own name, with the registry's name as the first part of the path.

use super::{Snippet, Wish};

pub(super) fn crane(wish: &Wish) -> Snippet {
    lines(wish, "crane pull", "", " image.tar", if wish.endpoint.is_https() { "" } else { " --insecure" })
}

pub(super) fn oras(wish: &Wish) -> Snippet {
    lines(wish, "oras pull", "", "", plain(wish))
}

pub(super) fn helm(wish: &Wish) -> Snippet {
    let mut snippet = lines(wish, "helm pull", "oci://", "", plain(wish));
    snippet.text = snippet.text.replace("REPOSITORY:TAG", "CHART --version VERSION");
    snippet
}

fn plain(wish: &Wish) -> &'static str {
    if wish.endpoint.is_https() { "" } else { " --plain-http" }
}

fn lines(wish: &Wish, command: &str, scheme: &str, target: &str, option: &str) -> Snippet {
    let authority = wish.endpoint.authority();
    let mut text = String::from("# It has no mirrors: put the cache before the registry's name.\n");
    for registry in &wish.registries {
        text.extend([format!("{command}{option} {scheme}{authority}/{registry}/REPOSITORY:TAG{target}\n")]);
    }
    Snippet { text, notes: Vec::new() }
}
