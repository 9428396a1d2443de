"""Do the pods restart for what takes a restart, and for nothing else?

restarts.py HELM: each value is changed alone, over the values of identity.yaml; the pods restart when their template changes.
"""

import sys

import helm

reloaded = [
    "--set=config.server.public_url=https://other.example",
    "--set=config.clients.connections=7",
    "--set=config.clients.rate=7",
    "--set=config.freshness.tag_ttl=1h",
    "--set=tls.http2=false",
    "--set=tls.clientCertificate=required",
    "--set=identity.anonymous=true",
    "--set=identity.tokenLife=20min",
    "--set=identity.certificates=dns",
    "--set=identity.serviceAccounts.audience=other.example",
    '--set-json=identity.principals=[{"match":["**"]}]',
    '--set-json=config.upstreams=[{"name":"a.example","access":"caller"}]',
]
restarting = [
    "--set=config.server.handshake_timeout=5s",
    "--set=config.server.connections=7",
    "--set=config.clients.fills=7",
    "--set=config.clients.unfinished=7GiB",
    "--set=config.store.memory=1GiB",
    "--set=config.log.access=false",
    # Other mounts.
    "--set=identity.htpasswd.existingSecret=other",
    "--set=tls.existingSecret=other",
    "--set=admin.tokens.key=other",
]


def main(binary):
    before = templates(binary)
    problems = [f"{change} restarts the pods" for change in reloaded if templates(binary, change)[0] != before[0]]
    problems += [f"{change} restarts no pod" for change in restarting if templates(binary, change)[0] == before[0]]
    problems += [f"{change} changes nothing" for change in reloaded + restarting if templates(binary, change) == before]
    print("\n".join(problems))
    return 1 if problems else 0


def templates(binary, *options):
    """Returns the template of the pods, and the configuration file."""
    documents = helm.render(binary, f"--values={helm.here / 'values' / 'identity.yaml'}", *options)
    file = helm.find(documents, "ConfigMap", "images-cachalot")["data"]["cachalot.toml"]
    return helm.pod_of(helm.find(documents, "StatefulSet")), file


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
