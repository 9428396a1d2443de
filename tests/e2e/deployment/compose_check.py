"""Looks for what a compose project mounts, and for what it lays open: compose_check.py PROJECT.yaml DIRECTORY."""

import pathlib
import sys

import yaml


def problems(project, directory):
    services = project["services"]
    if set(services) != {"cachalot", "prometheus", "grafana"}:
        yield f"there are other services: {sorted(services)}"
    for name, service in services.items():
        if service.get("cap_drop") != ["ALL"]:
            yield f"{name} keeps capabilities"
        for volume in service.get("volumes", []):
            source, target, *options = volume.split(":")
            if source.startswith("."):
                if not (directory / source).exists():
                    yield f"{name} mounts {source}, which is not there"
                if options != ["ro"]:
                    yield f"{name} may write to {source}"
            elif source not in project["volumes"]:
                yield f"{name} mounts the volume {source}, which is not declared"
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{name} listens on {port} for everybody"
        for key, value in (service.get("environment") or {}).items():
            if "PASSWORD" in key and value:
                yield f"{name} has a password by default: {key}"
    yield from dashboards(services["grafana"], directory)


def dashboards(grafana, directory):
    """The provider reads where the dashboards are mounted, and they ask a data source that is there."""
    mounts = dict(volume.split(":")[1::-1] for volume in grafana["volumes"])
    provider = yaml.safe_load((directory / "grafana/dashboards/cachalot.yml").read_text())["providers"][0]
    mounted = mounts.get(provider["options"]["path"])
    if mounted is None or not list((directory / mounted).glob("*.json")):
        yield f"no dashboard is mounted where the provider looks: {provider['options']['path']}"
    source = yaml.safe_load((directory / "grafana/datasources/prometheus.yml").read_text())["datasources"][0]
    if source["type"] != "prometheus" or source["url"] != "http://prometheus:9090":
        yield f"the data source is not the project's Prometheus: {source}"


found = list(problems(yaml.safe_load(open(sys.argv[1])), pathlib.Path(sys.argv[2])))
print("\n".join(found) or "nothing is wrong")
sys.exit(1 if found else 0)
