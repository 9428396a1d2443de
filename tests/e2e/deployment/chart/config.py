"""Does Cachalot take the configuration that the chart renders, with the files that the pod mounts?

config.py HELM FILE [DIRECTORY]: with the values of FILE; in DIRECTORY the files stay. CACHALOT names the binary, CERTIFICATES a
directory with tls.crt, tls.key and ca.crt.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

import helm


def main(binary, file, directory=None):
    if directory:
        return check(binary, file, pathlib.Path(directory))
    with tempfile.TemporaryDirectory(prefix="cachalot-config.") as directory:
        return check(binary, file, pathlib.Path(directory))


def check(binary, file, directory):
    documents = helm.render_file(binary, file)
    spec = next(helm.pod_of(d)[1] for d in documents if helm.pod_of(d) and helm.component(d) == "cache")
    if not mount(spec, documents, directory):
        print("the file is one's own: the chart has none to check")
        return 0
    config = directory / "cachalot.toml"
    text = config.read_text(encoding="utf-8")
    print(text)
    secret = re.search(r"^(password|token|token_key) *=", text, re.MULTILINE)
    if secret:
        print(f"a secret is written out: {secret[0]}")
        return 1
    missing = [path for path in paths(tomllib.loads(text)) if not mounted(path, directory).exists()]
    if missing:
        print(f"the pod does not have {', '.join(missing)}")
        return 1
    config.chmod(0o600)
    config.write_text(text.replace("/etc/cachalot/", f"{directory}/"), encoding="utf-8")
    container = next(c for c in spec["containers"] if c["name"] == "cachalot")
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    command = [os.environ["CACHALOT"], "check-config", str(config)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    print(ended.stdout + ended.stderr)
    # Files that everybody can read are warned of: the modes are those of the pod.
    return ended.returncode or int("can be read by everybody" in ended.stdout + ended.stderr)


def mount(spec, documents, directory):
    """Lays out the pod's volume `config`; false when the configuration is not the chart's."""
    volume = next(volume for volume in spec["volumes"] if volume["name"] == "config")
    for source in volume["projected"]["sources"]:
        (kind, what), = source.items()
        for item in what["items"]:
            path = directory / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = item.get("mode", volume["projected"]["defaultMode"])
            if item["path"] == "cachalot.toml":
                maps = [d for d in documents if d["kind"] == "ConfigMap" and d["metadata"]["name"] == what["name"]]
                if not maps:
                    return False
                path.write_text(maps[0]["data"]["cachalot.toml"], encoding="utf-8")
            else:
                stand_in(path)
            path.chmod(mode)
    return True


def stand_in(path):
    """Writes what a Secret or ConfigMap of the user would hold."""
    certificates = pathlib.Path(os.environ["CERTIFICATES"])
    if path.name in ("tls.crt", "tls.key", "ca.crt"):
        shutil.copy(certificates / path.name, path)
    elif path.name == "docker.json":
        path.write_text(json.dumps({"auths": {"a.registry.example:5000": {"auth": "dXNlcjpwYXNz"}}}), encoding="utf-8")
    elif path.name == "htpasswd":
        path.write_text("alice:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\n", encoding="utf-8")
    elif path.name == "tokens":
        path.write_text("ci:0123456789abcdef0123456789abcdef\n", encoding="utf-8")
    elif path.name == "token-key":
        path.write_text("0123456789abcdef0123456789abcdef\n", encoding="utf-8")
    else:
        path.write_text("stand-in", encoding="utf-8")


def paths(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [path for part in value for path in paths(part)]
    return [value] if isinstance(value, str) and value.startswith("/etc/cachalot/") else []


def mounted(path, directory):
    return directory / path.removeprefix("/etc/cachalot/")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
