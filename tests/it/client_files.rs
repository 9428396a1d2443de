//! The clients' configurations under `deploy/clients` are what `cachalot print-config` prints.

use std::path::Path;
use std::process::Command;

/// Each client and its file; where several read the same file, it is there once.
const FILES: &[(&str, &str)] = &[
    ("containerd", "containerd/docker.io/hosts.toml"),
    ("crio", "50-cachalot.conf"),
    ("docker", "daemon.json"),
    ("buildkit", "buildkitd.toml"),
    ("k3s", "k3s-registries.yaml"),
    ("rke2", "rke2-registries.yaml"),
    ("talos", "talos.yaml"),
    ("bottlerocket", "bottlerocket.toml"),
    ("gke", "gke.yaml"),
    ("kind", "kind.yaml"),
    ("gitlab-runner", "gitlab-runner.toml"),
];

fn printed(client: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_cachalot"))
        .args(["print-config", client, "--endpoint", "http://cache.example:5000", "--registry", "docker.io"])
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{client}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_file_is_what_is_printed_and_there_is_no_other() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/clients");
    let update = std::env::var_os("CACHALOT_UPDATE_CLIENT_FILES").is_some();
    for (client, name) in FILES {
        let (path, text) = (directory.join(name), printed(client));
        if update {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let file = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(file, text, "{}: CACHALOT_UPDATE_CLIENT_FILES=1 writes it again", path.display());
    }
    let mut found = Vec::new();
    let mut open = vec![directory.clone()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    assert_eq!(found.len(), FILES.len(), "{found:?}");
}
