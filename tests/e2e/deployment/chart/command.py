"""Prints the command line of a container, one argument a line, as it is to run on this machine.

command.py HELM FILE COMPONENT CONTAINER [FROM=>TO…]: with the values of FILE. Each FROM in
the arguments becomes TO, and must be there.
"""

import sys

import helm


def main(binary, file, component, name, *replacements):
    documents = [d for d in helm.render_file(binary, file) if helm.pod_of(d) and helm.component(d) == component]
    specs = [helm.pod_of(document)[1] for document in documents]
    containers = [c for spec in specs for c in spec.get("initContainers", []) + spec["containers"] if c["name"] == name]
    if len(containers) != 1:
        raise SystemExit(f"{len(containers)} containers are called {name}")
    text = "\n".join(containers[0]["args"])
    for replacement in replacements:
        before, _, after = replacement.partition("=>")
        if before not in text:
            raise SystemExit(f"{before} is not in the command line: {text}")
        text = text.replace(before, after)
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
