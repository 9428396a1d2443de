//! What kind of node this is, by the files that it has, and what may be written there.

use std::path::Path;

use super::root::Root;
use crate::snippets::{Client, containerd};

/// A distribution, as far as it matters to containerd's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    Generic,
    K3s,
    Rke2,
    K0s,
    Microk8s,
    Talos,
    Bottlerocket,
    Gke,
}

/// Places that only one flavour has.
const MARKS: [(Flavour, &[&str]); 5] = [
    (Flavour::Rke2, &["/etc/rancher/rke2", "/var/lib/rancher/rke2"]),
    (Flavour::K3s, &["/etc/rancher/k3s", "/var/lib/rancher/k3s"]),
    (Flavour::K0s, &["/etc/k0s", "/var/lib/k0s"]),
    (Flavour::Microk8s, &["/var/snap/microk8s"]),
    (Flavour::Gke, &["/home/kubernetes/bin"]),
];

/// Operating systems, by the `ID` of `os-release`.
const SYSTEMS: [(&str, Flavour); 3] =
    [("talos", Flavour::Talos), ("bottlerocket", Flavour::Bottlerocket), ("cos", Flavour::Gke)];

impl Flavour {
    /// Returns what the files of the node say.
    pub fn detect(root: &Root) -> Self {
        let release = ["/etc/os-release", "/usr/lib/os-release"].map(|path| root.read(Path::new(path)).ok().flatten());
        let id = release.iter().flatten().find_map(|text| os_id(text));
        let by_system = SYSTEMS.iter().find(|(system, _)| id == Some(system)).map(|(_, flavour)| *flavour);
        let by_mark = || MARKS.iter().find(|(_, marks)| marks.iter().any(|mark| root.exists(mark)));
        by_system.or_else(|| by_mark().map(|(flavour, _)| *flavour)).unwrap_or(Self::Generic)
    }

    /// Returns whose snippet is the way where the distribution writes containerd's configuration itself.
    pub fn advice(self) -> Option<Client> {
        match self {
            Self::Generic | Self::K0s | Self::Microk8s => None,
            Self::K3s => Some(Client::K3s),
            Self::Rke2 => Some(Client::Rke2),
            Self::Talos => Some(Client::Talos),
            Self::Bottlerocket => Some(Client::Bottlerocket),
            Self::Gke => Some(Client::Gke),
        }
    }

    /// Returns containerd's configuration.
    pub(super) fn config(self) -> &'static str {
        match self {
            Self::K0s => "/etc/k0s/containerd.toml",
            Self::Microk8s => "/var/snap/microk8s/current/args/containerd-template.toml",
            Self::Generic | Self::K3s | Self::Rke2 | Self::Talos | Self::Bottlerocket | Self::Gke => {
                "/etc/containerd/config.toml"
            }
        }
    }

    /// Returns a file that the operator may add to containerd's configuration, and that is read like its own.
    pub(super) fn drop_ins(self) -> Option<&'static str> {
        (self == Self::K0s).then_some("/etc/k0s/containerd.d")
    }

    /// Returns where containerd of this flavour looks for hosts, if the operator names no other place.
    pub(super) fn certs_dir(self) -> &'static str {
        match self {
            Self::Microk8s => "/var/snap/microk8s/current/args/certs.d",
            Self::Generic | Self::K3s | Self::Rke2 | Self::K0s | Self::Talos | Self::Bottlerocket | Self::Gke => {
                containerd::CERTS_DIR
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Generic => "a generic node",
            Self::K3s => "a k3s node",
            Self::Rke2 => "an RKE2 node",
            Self::K0s => "a k0s node",
            Self::Microk8s => "a MicroK8s node",
            Self::Talos => "a Talos node",
            Self::Bottlerocket => "a Bottlerocket node",
            Self::Gke => "a GKE node",
        }
    }
}

fn os_id(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("ID=")).map(|id| id.trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flavour_is_known_by_its_files() {
        let rows: &[(&[(&str, &str)], Flavour)] = &[
            (&[], Flavour::Generic),
            (&[("etc/os-release", "ID=debian\n")], Flavour::Generic),
            (&[("etc/os-release", "NAME=\"Talos\"\nID=talos\nVERSION_ID=v1.12.0\n")], Flavour::Talos),
            (&[("usr/lib/os-release", "ID=bottlerocket\n")], Flavour::Bottlerocket),
            (&[("etc/os-release", "ID=cos\nID_LIKE=x\n")], Flavour::Gke),
            (&[("etc/os-release", "ID=\"ubuntu\"\n"), ("home/kubernetes/bin/mounter", "")], Flavour::Gke),
            (&[("etc/rancher/k3s/k3s.yaml", "")], Flavour::K3s),
            (&[("var/lib/rancher/k3s/agent/x", "")], Flavour::K3s),
            (&[("etc/rancher/rke2/config.yaml", "")], Flavour::Rke2),
            (&[("etc/rancher/node/password", "")], Flavour::Generic),
            (&[("etc/k0s/k0s.yaml", "")], Flavour::K0s),
            (&[("var/snap/microk8s/1/args/x", "")], Flavour::Microk8s),
            (&[("etc/os-release", "ID=talos\n"), ("etc/rancher/k3s/k3s.yaml", "")], Flavour::Talos),
        ];
        for (files, flavour) in rows {
            let directory = tempfile::tempdir().unwrap();
            for (path, text) in *files {
                let path = directory.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            assert_eq!(Flavour::detect(&Root::new(directory.path())), *flavour, "{files:?}");
        }
    }
}
