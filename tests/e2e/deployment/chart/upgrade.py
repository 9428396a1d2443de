"""Do values, the chart's version or the release's appVersion change a field that the API server lets nobody change?

upgrade.py HELM DIRECTORY: DIRECTORY is for a copy of the chart with other versions.
"""

import pathlib
import re
import shutil
import sys

import helm

# What an operator may change of a release that runs; what makes another kind of workload or volume needs another release.
changes = [
    [],
    ["--set=workload.replicas=3", "--set=image.tag=9.9.9", "--set=podLabels.a=b", "--set=commonLabels.a=b"],
    ["--set=commonAnnotations.a=b", "--set=persistence.retentionPolicy.whenDeleted=Delete", "--set=service.type=NodePort"],
    ["--set=config.log.format=text", "--set=workload.revisionHistoryLimit=1"],
    ["--set=ports.registry=5555", "--set=service.port=80"],
    ["--set=service.nodePort=30500", "--set=service.type=NodePort", "--set=nodeConfig.enabled=true"],
]
shapes = {
    "StatefulSet": [],
    "DaemonSet": ["--set=workload.kind=DaemonSet", "--set=persistence.type=emptyDir"],
    "Deployment": ["--set=workload.kind=Deployment", "--set=persistence.type=emptyDir"],
}


def main(binary, directory):
    other = pathlib.Path(directory) / "other-version"
    shutil.copytree(helm.chart, other)
    chart = other / "Chart.yaml"
    text = chart.read_text(encoding="utf-8")
    text = re.sub(r"^version: .*$", "version: 99.9.9", text, flags=re.MULTILINE)
    text = re.sub(r"^appVersion: .*$", 'appVersion: "99.9.9"', text, flags=re.MULTILINE)
    chart.write_text(text, encoding="utf-8")
    problems = []
    for shape, arguments in shapes.items():
        before = immutable(helm.render(binary, *arguments))
        for change in changes:
            if shape == "DaemonSet" and "--set=workload.replicas=3" in change:
                change = change[1:]
            for version in helm.versions:
                after = immutable(helm.render(binary, *arguments, *change, version=version, directory=other))
                problems += differences(shape, change, before, after)
        if shape not in str(before):
            problems.append(f"{shape} was not rendered")
    print("\n".join(problems))
    return 1 if problems else 0


def immutable(documents):
    """Returns the fields that cannot change, by object."""
    fields = {}
    for document in documents:
        spec = document.get("spec", {})
        key = helm.title(document)
        if document["kind"] in ("StatefulSet", "DaemonSet", "Deployment"):
            fields[key] = {"selector": spec["selector"]}
        if document["kind"] == "StatefulSet":
            for name in ("serviceName", "podManagementPolicy", "volumeClaimTemplates"):
                fields[key][name] = spec[name]
        if document["kind"] == "Service":
            fields[key] = {"headless": spec.get("clusterIP") == "None"}
    return fields


def differences(shape, change, before, after):
    for key, fields in before.items():
        if key not in after:
            yield f"{shape}, {change}: {key} is gone"
        for name, value in fields.items():
            if after.get(key, {}).get(name) != value:
                yield f"{shape}, {change}: {key}: {name} was {value}, would be {after[key].get(name)}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
