//! Docker's daemon, `BuildKit`, and jobs of GitLab's runner that start a Docker daemon of their own.

use serde_json::json;

use super::proof::install_commands;
use super::{Certificate, Snippet, Wish, quoted};

/// Where dockerd looks for certificates, by the name of the host that asks for them.
const CERTS_DIR: &str = "/etc/docker/certs.d";

pub(super) fn daemon(wish: &Wish) -> Snippet {
    let mirrors = [wish.endpoint.to_string()];
    let config = if reaches_others_by_path(wish) && !wish.endpoint.is_https() {
        json!({ "registry-mirrors": mirrors, "insecure-registries": [wish.endpoint.authority()] })
    } else {
        json!({ "registry-mirrors": mirrors })
    };
    let mut notes = vec!["merge this into /etc/docker/daemon.json and restart docker; JSON has no comments".to_owned()];
    if reaches_others_by_path(wish) {
        notes.push(by_path(wish));
    }
    if let Some(certificate) = &wish.certificate {
        notes.extend(install_commands(certificate, CERTS_DIR, wish));
    }
    Snippet { text: format!("{config:#}\n"), notes }
}

fn reaches_others_by_path(wish: &Wish) -> bool {
    wish.registries.iter().any(|registry| registry.as_str() != "docker.io")
}

/// Docker asks its mirrors for Docker Hub's images only.
fn by_path(wish: &Wish) -> String {
    let authority = wish.endpoint.authority();
    format!(
        "docker mirrors docker.io only; name other registries in the path: docker pull {authority}/quay.io/REPOSITORY:TAG"
    )
}

pub(super) fn buildkit(wish: &Wish) -> Snippet {
    let authority = quoted(&wish.endpoint.authority());
    let mut text = String::from("# /etc/buildkit/buildkitd.toml; buildkitd reads it at its start\n");
    for registry in &wish.registries {
        text.extend([format!("[registry.{}]\n  mirrors = [{authority}]\n\n", quoted(registry.as_str()))]);
    }
    text.extend([format!("[registry.{authority}]\n  http = {}\n", !wish.endpoint.is_https())]);
    if let Some(ca) = &wish.ca {
        text.extend([format!("  ca = [{}]\n", quoted(ca))]);
    }
    if let Some(Certificate { cert, key }) = &wish.certificate {
        text.extend([format!(
            "\n  [[registry.{authority}.keypair]]\n    cert = {}\n    key = {}\n",
            quoted(cert),
            quoted(key)
        )]);
    }
    Snippet { text, notes: Vec::new() }
}

pub(super) fn gitlab_runner(wish: &Wish) -> Snippet {
    let mut command = vec![quoted("--registry-mirror"), quoted(&wish.endpoint.to_string())];
    let mut notes = vec![
        "the images of the jobs themselves are pulled by the runner's own docker or cluster: \
        see print-config docker, or node-config"
            .to_owned(),
    ];
    if reaches_others_by_path(wish) {
        if !wish.endpoint.is_https() {
            command.extend([quoted("--insecure-registry"), quoted(&wish.endpoint.authority())]);
        }
        notes.push(by_path(wish));
    }
    let text = format!(
        r#"# /etc/gitlab-runner/config.toml: the docker:dind service of jobs that build images
[[runners]]
  executor = "docker"

  [runners.docker]
    privileged = true

    [[runners.docker.services]]
      name = "docker:dind"
      command = [{}]
"#,
        command.join(", ")
    );
    Snippet { text, notes }
}
