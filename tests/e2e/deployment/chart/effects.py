"""Does every value do something?

effects.py HELM: every leaf of values.yaml is set by some file of values/, and without it that file renders something else or is
refused.
"""

import copy
import sys
import tempfile

import yaml

import helm


def main(binary):
    defaults = yaml.safe_load((helm.chart / "values.yaml").read_text(encoding="utf-8"))
    files = {file: yaml.safe_load(file.read_text(encoding="utf-8")) for file in helm.value_files()}
    problems = []
    leaves = list(leaf_paths(defaults))
    for path in leaves:
        setting = [values for values in files.values() if has(values, path)]
        if not setting:
            problems.append(f"{'.'.join(path)}: no file of values/ sets it")
        elif not any(matters(binary, values, path) for values in setting):
            problems.append(f"{'.'.join(path)}: what is rendered is the same without it")
    print("\n".join(problems))
    print(f"{len(leaves)} values, {len(problems)} without effect")
    return 1 if problems else 0


def leaf_paths(values, above=()):
    """Returns the paths of what has no keys of its own by default; maps that Kubernetes defines count as one value each."""
    whole = ("podSecurityContext", "containerSecurityContext", "resources", "nodeSelector")
    for key, value in values.items():
        path = (*above, key)
        if isinstance(value, dict) and value and key not in whole:
            yield from leaf_paths(value, path)
        else:
            yield path


def has(values, path):
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def matters(binary, values, path):
    fewer = copy.deepcopy(values)
    place = fewer
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return rendered(binary, values) != rendered(binary, fewer)


def rendered(binary, values):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        code, out, _ = helm.template(binary, f"--values={file.name}")
        return code, out


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
