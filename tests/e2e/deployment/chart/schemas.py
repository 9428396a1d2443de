"""Are the rendered objects what the API servers of several Kubernetes versions, and the operators' types, admit?

schemas.py HELM FILE: with the values of FILE, for every version. Objects of other API groups are handed to models.mjs, which
knows their types; kinds that neither knows are a failure.
"""

import json
import os
import subprocess
import sys

import kubernetes_validate

import helm

# Kinds whose types models.mjs checks.
custom = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "Certificate", "HTTPRoute", "BackendTLSPolicy", "GrafanaDashboard"}


def main(binary, file):
    problems = []
    for version in helm.versions:
        documents = helm.render_file(binary, file, version)
        for document in documents:
            if document["kind"] not in custom:
                problems += builtin_problems(document, version)
    # Custom objects do not depend on the version.
    others = [document for document in documents if document["kind"] in custom]
    if others:
        problems += custom_problems(others)
    print("\n".join(problems))
    return 1 if problems else 0


def builtin_problems(document, version):
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"Kubernetes {version}: {helm.title(document)}: {'.'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError:
        return [f"Kubernetes {version}: {helm.title(document)}: not a kind that this version knows"]
    return []


def custom_problems(documents):
    command = ["node", str(helm.here / "models.mjs"), os.environ["MODELS"]]
    ended = subprocess.run(command, input=json.dumps(documents), capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode == 0:
        return []
    return (ended.stdout + ended.stderr).splitlines() or [f"models.mjs exits with {ended.returncode}"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
