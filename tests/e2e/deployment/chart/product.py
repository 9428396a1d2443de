"""Does the chart know what the product knows: the keys of its configuration, the built-in registries, its version?

product.py HELM: CACHALOT names the binary. The keys are those of the tables in the product's README, which its own tests
hold to the code.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib

import yaml

import helm

# Keys that the chart sets itself, or for which it has names of Secrets.
owned = {"server.listen", "server.drain_timeout", "admin.listen", "store.path", "identity.service_accounts_token_file"}
of_identity = {
    "identity.token_key_file": "identity.tokenKey",
    "identity.token_life": "identity.tokenLife",
    "identity.service_accounts_issuer": "identity.serviceAccounts.issuer",
    "identity.service_accounts_audience": "identity.serviceAccounts.audience",
    "identity.service_accounts_jwks": "identity.serviceAccounts.jwks",
    "identity.service_accounts_ca": "identity.serviceAccounts.ca",
}
# Values of identity and admin that are no keys of these sections.
beside = {"identity.principals", "identity.serviceAccounts.enabled", "admin.scrape"}
# The one listener has its address from the chart, its certificate from one Secret, and asks as all do.
of_listener = {"cert": "existingSecret", "key": "existingSecret", "client_ca": "clientCA", "client_certificate": "clientCertificate"}
listener_owned = {"address", "identities"}
listener_beside = {"enabled", "certificate", "ca"}
files = {
    "username": "credentials",
    "password_file": "credentials",
    "docker_config": "credentials",
    "client_cert": "client_certificate",
    "client_key": "client_certificate",
}


def main(binary):
    problems = list(about_keys()) + list(about_registries(binary)) + list(about_version())
    print("\n".join(problems))
    return 1 if problems else 0


def about_keys():
    readme = (helm.chart.parent / "README.md").read_text(encoding="utf-8")
    _, configuration = readme.split("\n## Configuration\n")
    identities = readme.split("\n## Identities\n")[1].split("\n## Configuration\n")[0]
    sections, upstream = configuration.split("Each `[[upstream]]` has")
    sections, listener = sections.split("Each `[[listener]]` is")
    upstream = upstream.split("\n```")[0]
    schema = json.loads((helm.chart / "values.schema.json").read_text(encoding="utf-8"))
    of_sections = schema["properties"]["config"]["properties"]
    known = {f"{section}.{key}" for section, value in of_sections.items() for key in value.get("properties", {})}
    known |= values_of(schema, "identity") | values_of(schema, "admin")
    yield from differences(known - beside, {of_identity.get(key, key) for key in keys(sections)} - owned)
    known = set(schema["properties"]["tls"]["properties"]) - listener_beside
    yield from differences(known, {of_listener.get(key, key) for key in keys(listener)} - listener_owned, least=4)
    known = set(schema["$defs"]["principal"]["properties"])
    yield from differences(known, set(keys(identities.split("Each `[[principal]]` has")[1])), least=5)
    freshness = set(of_sections["freshness"]["properties"])
    known = set(schema["$defs"]["upstream"]["properties"])
    yield from differences(known, {files.get(key, key) for key in keys(upstream)} | freshness)


def values_of(schema, section):
    """Returns the paths of the values of a section; those that name a Secret are one value each."""
    found = set()
    for key, value in schema["properties"][section]["properties"].items():
        below = value.get("properties", {})
        found |= {f"{section}.{key}.{name}" for name in below} if below else {f"{section}.{key}"}
    return found


def keys(text):
    """Returns what stands in back quotes in the first column of a table."""
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return [key for row in rows for key in re.findall(r"`([^`]+)`", row) if key != "[freshness]"]


def differences(known, wanted, least=10):
    if len(wanted) < least:
        yield "the table of keys was not found"
    yield from (f"the schema does not know the key {key}" for key in sorted(wanted - known))
    yield from (f"the product does not know the key {key}" for key in sorted(known - wanted))


def about_registries(binary):
    with tempfile.NamedTemporaryFile(suffix=".toml") as empty:
        command = [os.environ["CACHALOT"], "check-config", empty.name, "--print"]
        printed = subprocess.run(command, env={}, capture_output=True, text=True, timeout=30, check=True).stdout
    builtin = {upstream["name"] for upstream in tomllib.loads(printed)["upstream"]}
    values = helm.here / "values" / "nodes-containerd.yaml"
    documents = helm.render(binary, f"--values={values}", "--set=nodeConfig.excludeOwnImage=false")
    agent = next(d for d in documents if d["kind"] == "DaemonSet" and helm.component(d) == "node-config")
    arguments = helm.pod_of(agent)[1]["containers"][0]["args"]
    mirrored = set(next(a for a in arguments if a.startswith("--registry=")).removeprefix("--registry=").split(","))
    if builtin != mirrored:
        yield f"nodes mirror {sorted(mirrored)}, the product has {sorted(builtin)}"


def about_version():
    about = yaml.safe_load((helm.chart / "Chart.yaml").read_text(encoding="utf-8"))
    version = tomllib.loads((helm.chart.parent / "Cargo.toml").read_text(encoding="utf-8"))["package"]["version"]
    if about["appVersion"] != version:
        yield f"appVersion is {about['appVersion']}, the product is {version}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
