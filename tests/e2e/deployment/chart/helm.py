"""Renders the chart: what the checks beside this file share."""

import functools
import pathlib
import subprocess

import yaml

here = pathlib.Path(__file__).resolve().parent
chart = here.parents[3] / "helm"
helms = ("helm3", "helm4")
# The oldest that the chart admits, two between, and the newest that kubernetes-validate knows.
versions = ("1.27.0", "1.29.0", "1.33.0", "1.37.0")
release = "images"
namespace = "registries"


def value_files():
    return sorted((here / "values").glob("*.yaml"))


def template(helm, *arguments, version=versions[-1], directory=chart, name=release):
    """Runs `helm template`, and returns its exit code and what it wrote."""
    command = [helm, "template", name, str(directory), "--namespace", namespace, "--kube-version", version, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@functools.cache
def render(helm, *arguments, version=versions[-1], directory=chart, name=release):
    """Returns the objects that the chart renders."""
    code, out, err = template(helm, *arguments, version=version, directory=directory, name=name)
    if code:
        raise SystemExit(f"{helm} template {' '.join(arguments)} for Kubernetes {version} fails: {err}")
    return [document for document in yaml.load_all(out, StrictLoader) if document]


def render_file(helm, file, version=versions[-1]):
    return render(helm, "--values", str(file), version=version)


class StrictLoader(yaml.SafeLoader):
    """A key that stands twice in a map is an error: server-side apply refuses it, and parsers disagree about it."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice in one map: {sorted(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


def title(document):
    return f"{document['kind']} {document['metadata']['name']}"


def pod_of(document):
    """Returns metadata and spec of the pods that an object makes, or nothing."""
    if document["kind"] == "Pod":
        return document["metadata"], document["spec"]
    if document["kind"] in ("StatefulSet", "DaemonSet", "Deployment", "Job"):
        template_of_pod = document["spec"]["template"]
        return template_of_pod["metadata"], template_of_pod["spec"]
    return None


def component(document):
    return document["metadata"].get("labels", {}).get("app.kubernetes.io/component")


def find(documents, kind, name=None):
    found = [d for d in documents if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    if len(found) != 1:
        raise SystemExit(f"{len(found)} objects of kind {kind} instead of one")
    return found[0]
