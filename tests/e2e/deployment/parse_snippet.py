#!/usr/bin/env python3
"""Reads what `cachalot print-config` prints for a client that cannot run here, and says what is not in it.

    parse_snippet.py CLIENT FILE ENDPOINT

The snippet is for the registry docker.io and the cache at ENDPOINT.
"""

import sys
import tomllib
from pathlib import Path

import yaml

CONFIG_PATH = "/etc/containerd/certs.d"


def rancher(text: str) -> object:
    return yaml.safe_load(text)["mirrors"]["docker.io"]["endpoint"]


def talos(text: str) -> object:
    (document,) = yaml.safe_load_all(text)
    assert (document["apiVersion"], document["kind"]) == ("v1alpha1", "RegistryMirrorConfig"), document
    assert document["name"] == "docker.io", document
    return [endpoint["url"] for endpoint in document["endpoints"]]


def bottlerocket(text: str) -> object:
    (mirror,) = tomllib.loads(text)["settings"]["container-registry"]["mirrors"]
    assert mirror["registry"] == "docker.io", mirror
    return mirror["endpoint"]


def gke(text: str) -> object:
    (entry,) = yaml.safe_load(text)["registryHosts"]
    assert entry["server"] == "docker.io", entry
    (host,) = entry["hosts"]
    assert host["capabilities"] == ["HOST_CAPABILITY_PULL", "HOST_CAPABILITY_RESOLVE"], host
    assert host["dialTimeout"].endswith("s") and float(host["dialTimeout"][:-1]) < 1, host
    return [host["host"]]


def kind(text: str) -> object:
    cluster = yaml.safe_load(text)
    assert (cluster["kind"], cluster["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4"), cluster
    (mount,) = cluster["nodes"][0]["extraMounts"]
    assert mount["containerPath"] == CONFIG_PATH, mount
    for patch in cluster["containerdConfigPatches"]:
        ((_, plugin),) = tomllib.loads(patch)["plugins"].items()
        assert plugin["registry"]["config_path"] == CONFIG_PATH, patch
    return [word for word in text.split() if word.startswith("http")]


def gitlab_runner(text: str) -> object:
    (runner,) = tomllib.loads(text)["runners"]
    (service,) = runner["docker"]["services"]
    assert service["name"] == "docker:dind" and service["command"][0] == "--registry-mirror", service
    return service["command"][1:]


def nerdctl(text: str) -> object:
    hosts = tomllib.loads(text)
    assert hosts["server"] == "https://registry-1.docker.io", hosts
    return list(hosts["host"])


PARSERS = {
    "k3s": rancher,
    "rke2": rancher,
    "talos": talos,
    "bottlerocket": bottlerocket,
    "gke": gke,
    "kind": kind,
    "gitlab-runner": gitlab_runner,
    "nerdctl": nerdctl,
}


def main() -> None:
    client, file, endpoint = sys.argv[1:]
    found = PARSERS[client](Path(file).read_text())
    if found != [endpoint]:
        sys.exit(f"{client} is told {found}, not {endpoint}")


if __name__ == "__main__":
    main()
