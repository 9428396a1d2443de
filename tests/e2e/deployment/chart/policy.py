"""Do the rendered objects keep the house rules: restricted pods, probes, resources, labels, references that lead somewhere?

policy.py HELM FILE: with the values of FILE, for every version of Kubernetes. A comment `# beyond restricted: …` in it
names what its pods may have nevertheless.
"""

import pathlib
import re
import sys

import helm

# The node agent and its clean-up write to the node as root; everything else that is restricted holds for them, too.
agents = ("node-config", "node-cleanup")
# What these may write to on the node, by the value files; and what they may read.
agent_writes = {
    "/etc/containerd/certs.d",
    "/etc/containerd/hosts",
    "/etc/containers/registries.conf.d",
    "/etc/crio/registries.conf.d",
    "/var/lib/cachalot-node",
    "/var/lib/images",
    "/var/snap/microk8s/current/args/certs.d",
}
agent_reads = {"/etc/containerd", "/etc/containers", "/etc/os-release", "/etc/ssl/images.pem", "/var/snap/microk8s/current/args"}
restricted_volumes = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
image = re.compile(r"^[^/:@]+(:\d+)?(/[^:@]+)+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})$")


def main(binary, file):
    text = pathlib.Path(file).read_text(encoding="utf-8")
    beyond = set(" ".join(re.findall(r"^# beyond restricted: (.*)$", text, re.MULTILINE)).split())
    asks_for_token = "automount: true" in text or "serviceAccounts:" in text
    problems, restricted = [], []
    for version in helm.versions:
        documents = helm.render_file(binary, file, version)
        for document in documents:
            problems += about_object(document)
            if helm.pod_of(document):
                violations = about_pod(document)
                restricted.append(not violations)
                allowed = {"agent"} if helm.component(document) in agents else beyond
                problems += [text for exemption, text in violations if exemption not in allowed]
                problems += about_containers(document, asks_for_token)
        problems += about_references(documents)
    print(f"{sum(restricted)} of {len(restricted)} pods are restricted")
    print("\n".join(problems))
    return 1 if problems else 0


def about_object(document):
    name, metadata = helm.title(document), document["metadata"]
    labels = metadata.get("labels", {})
    if "namespace" not in metadata:
        yield f"{name}: no namespace"
    if document["kind"] in ("Secret", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        yield f"{name}: the chart makes no secret, and needs no rights"
    if labels or not document["kind"] == "ConfigMap":
        for label in ("name", "instance", "version", "component", "managed-by"):
            if f"app.kubernetes.io/{label}" not in labels:
                yield f"{name}: no label app.kubernetes.io/{label}"
    selector = document.get("spec", {}).get("selector", {})
    fixed = list(selector.get("matchLabels", selector)) + [
        label for claim in document.get("spec", {}).get("volumeClaimTemplates", []) for label in claim["metadata"]["labels"]
    ]
    if any(label in ("helm.sh/chart", "app.kubernetes.io/version") for label in fixed):
        yield f"{name}: a label that changes with each release is where nothing can be changed"


def about_pod(document):
    """Returns what exceeds the restricted Pod Security Standard, each with the word that allows it."""
    name, (_, spec) = helm.title(document), helm.pod_of(document)
    found = []
    for field in ("hostPID", "hostIPC", "hostNetwork"):
        if spec.get(field):
            # An agent tries the endpoint from the node's network.
            word = "agent" if field == "hostNetwork" and helm.component(document) == "node-config" else field
            found.append((word, f"{name}: {field}"))
    for volume in spec.get("volumes", []):
        kind = next(key for key in volume if key != "name")
        if kind not in restricted_volumes:
            is_agents = helm.component(document) in agents and kind == "hostPath" and is_fit_for_agent(volume, spec)
            found.append(("agent" if is_agents else kind, f"{name}: volume {volume['name']} is a {kind}"))
    for container in containers(spec):
        own = container.get("securityContext", {})
        effective = {**spec.get("securityContext", {}), **own}
        where = f"{name}, {container['name']}"
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            found.append(("", f"{where}: may have more privileges"))
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own.get("capabilities", {}).get("add"):
            found.append(("", f"{where}: has capabilities"))
        if effective.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            found.append(("", f"{where}: no seccomp profile"))
        if effective.get("runAsNonRoot") is not True or effective.get("runAsUser") == 0:
            is_agent = any(mount["mountPath"].startswith("/host/") for mount in container.get("volumeMounts", []))
            found.append(("agent" if is_agent else "", f"{where}: may be root"))
        if any("hostPort" in port for port in container.get("ports", [])):
            found.append(("hostPort", f"{where}: hostPort"))
        # With the node's network, each port is one of the node.
        if spec.get("hostNetwork") and container.get("ports"):
            found.append(("hostPort", f"{where}: ports in the node's network"))
    return found


def is_fit_for_agent(volume, spec):
    mounts = [m for c in containers(spec) for m in c.get("volumeMounts", []) if m["name"] == volume["name"]]
    path = volume["hostPath"]["path"]
    return path in agent_writes or (path in agent_reads and all(mount.get("readOnly") for mount in mounts))


def about_containers(document, asks_for_token):
    name, (metadata, spec) = helm.title(document), helm.pod_of(document)
    if spec.get("automountServiceAccountToken") is not False and not (asks_for_token and helm.component(document) == "cache"):
        yield f"{name}: has a token of the API server"
    for container in containers(spec):
        where = f"{name}, {container['name']}"
        if not image.match(container["image"]):
            yield f"{where}: the image {container['image']} is not fixed"
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield f"{where}: writes to its image"
        resources = container.get("resources", {})
        if set(resources.get("requests", {})) != {"cpu", "memory"} or set(resources.get("limits", {})) != {"memory"}:
            yield f"{where}: resources are not requests for CPU and memory and a limit of memory"
        for variable in container.get("env", []):
            if re.search("PASSWORD|TOKEN|SECRET", variable["name"]) and "value" in variable:
                yield f"{where}: {variable['name']} is written out"
    if helm.component(document) == "node-config" and (spec.get("hostNetwork"), spec.get("dnsPolicy")) != (True, "Default"):
        yield f"{name}: tries the endpoint by another network or other names than those of the node"
    if helm.component(document) == "cache" and document["kind"] != "Pod":
        main_container = next(c for c in spec["containers"] if c["name"] == "cachalot")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in main_container:
                yield f"{name}: no {probe}"
        startup = main_container["startupProbe"]
        if startup["periodSeconds"] * startup["failureThreshold"] < 120:
            yield f"{name}: a large store has less than two minutes to start"
        drain = next(v["value"] for v in main_container["env"] if v["name"] == "CACHALOT_SERVER__DRAIN_TIMEOUT")
        delay = main_container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if int(drain.removesuffix("s")) + delay + 10 != spec["terminationGracePeriodSeconds"]:
            yield f"{name}: drain ({drain}), delay ({delay}) and the time to stop do not fit"
    if "{{" in str(metadata):
        yield f"{name}: a template that was not rendered"


def about_references(documents):
    """Finds selectors that select nothing, and names of objects of ours that do not exist."""
    ours = {(d["kind"], d["metadata"]["namespace"], d["metadata"]["name"]) for d in documents}
    pods = [(d["metadata"]["namespace"], helm.pod_of(d)[0]["labels"]) for d in documents if helm.pod_of(d) and d["kind"] != "Pod"]
    services = [(d["metadata"]["namespace"], d["metadata"]["labels"]) for d in documents if d["kind"] == "Service"]
    for document in documents:
        kind, spec, namespace = document["kind"], document.get("spec", {}), document["metadata"]["namespace"]
        name = helm.title(document)
        selector = {"NetworkPolicy": spec.get("podSelector", {})}.get(kind, spec.get("selector", {}))
        if "Monitor" in kind:
            namespace = spec["namespaceSelector"]["matchNames"][0]
        if selector:
            wanted = selector.get("matchLabels", selector).items()
            among = services if kind == "ServiceMonitor" else pods
            found = [labels for place, labels in among if place == namespace and wanted <= labels.items()]
            if len(found) != 1:
                yield f"{name}: its selector selects {len(found)} kinds of pods"
        for wanted in references(document):
            if (wanted[0], namespace, wanted[1]) not in ours:
                yield f"{name}: there is no {wanted[0]} {wanted[1]}"
        if helm.pod_of(document):
            pod = helm.pod_of(document)[1]
            mounts = {mount["name"] for c in containers(pod) for mount in c.get("volumeMounts", [])}
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            volumes |= {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
            if mounts ^ volumes:
                yield f"{name}: volumes and mounts do not fit: {sorted(mounts ^ volumes)}"


def references(document):
    kind, spec = document["kind"], document.get("spec", {})
    if kind == "StatefulSet":
        yield "Service", spec["serviceName"]
    elif kind == "HorizontalPodAutoscaler":
        yield spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]
    elif kind == "Ingress":
        yield from (("Service", p["backend"]["service"]["name"]) for rule in spec["rules"] for p in rule["http"]["paths"])
    elif kind == "HTTPRoute":
        yield from (("Service", backend["name"]) for rule in spec["rules"] for backend in rule["backendRefs"])
    elif kind == "BackendTLSPolicy":
        yield from (("Service", target["name"]) for target in spec["targetRefs"])
    elif kind == "GrafanaDashboard":
        yield "ConfigMap", spec["configMapRef"]["name"]
    if helm.pod_of(document):
        pod = helm.pod_of(document)[1]
        own = f"{helm.release}-cachalot"
        if pod.get("serviceAccountName", "").startswith(own):
            yield "ServiceAccount", pod["serviceAccountName"]
        for volume in pod.get("volumes", []):
            for source in volume.get("projected", {}).get("sources", []):
                if source.get("configMap", {}).get("name", "").startswith(own):
                    yield "ConfigMap", source["configMap"]["name"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
