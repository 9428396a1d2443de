"""Is what the chart renders what somebody has read and found good?

golden.py HELM: compares the objects of each file of golden/ with those of the value file of its name. golden.py HELM --write
writes them anew, to be read in the diff.
"""

import difflib
import sys

import yaml

import helm


def main(binary, *options):
    problems = []
    files = sorted((helm.here / "golden").glob("*.yaml"))
    for golden in files:
        values = ("--values", str(helm.here / "values" / golden.name))
        if "--write" in options:
            golden.write_text(helm.template(binary, *values)[1], encoding="utf-8")
        before = [d for d in yaml.safe_load_all(golden.read_text(encoding="utf-8")) if d]
        after = helm.render(binary, *values)
        problems += difflib.unified_diff(lines(before), lines(after), str(golden), "rendered", lineterm="", n=6)
    print("\n".join(problems))
    return 1 if problems or not files else 0


def lines(documents):
    return yaml.safe_dump_all(sorted(documents, key=helm.title)).splitlines()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
