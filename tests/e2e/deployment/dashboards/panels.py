#!/usr/bin/env python3
"""Asks a Prometheus what each panel of a dashboard asks it, and fails where there is nothing to see.

    panels.py DASHBOARD PROMETHEUS BEGAN

PROMETHEUS is a URL, and BEGAN the second at which it began to look. Each query must have a finite value, for everything and for
one upstream that was asked; each panel must have another value than 0, unless it is one of QUIET. The annotations must show a
second reload and a second start, and the variables must have choices.
"""

import json
import math
import sys
import time
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

# Panels that may show nothing but 0, and why.
QUIET = {
    "Disk errors": "the disk of the test is well",
}
# What the upstream that is chosen alone has nothing to show for, and why.
NOT_OF_ONE = {
    "Rate limit left": "it tells of no limit",
    "Rate limits": "it tells of no limit",
    "Windows of rate limits": "it tells of no limit",
}
STEP_SECONDS = 2

prometheus, began, now = sys.argv[2], int(sys.argv[3]), int(time.time())
everything = {"namespace": ".*", "job": ".+", "instance": ".+", "upstream": ".+"}


def main() -> int:
    dashboard = json.loads(Path(sys.argv[1]).read_text())
    nested = [panel for row in dashboard["panels"] for panel in row.get("panels", [])]
    panels = [panel for panel in dashboard["panels"] + nested if panel["type"] != "row"]
    faults, queries, quiet = [], 0, []
    for panel in panels:
        found = [(target, values(target["expr"], everything)) for target in panel["targets"]]
        queries += len(found)
        faults += [f"{panel['title']}: nothing for {target['expr']}" for target, numbers in found if not numbers]
        if not any(number for _, numbers in found for number in numbers):
            quiet.append(panel["title"])
        faults += of_one_upstream(panel)
    faults += [f"{title}: nothing but 0" for title in quiet if title not in QUIET]
    faults += of_annotations(dashboard["annotations"]["list"])
    faults += of_variables(dashboard["templating"]["list"])
    for fault in faults:
        print(fault)
    print(f"{len(panels) - len(quiet)} of {len(panels)} panels show something, by {queries} queries")
    for title in quiet:
        print(f"only 0: {title}, for {QUIET.get(title, 'no reason')}")
    return 1 if faults else 0


def of_one_upstream(panel: dict) -> list:
    chosen = everything | {"job": "cachalot", "upstream": "good.test"}
    asked = [target["expr"] for target in panel["targets"] if "$upstream" in target["expr"]]
    return [f"{panel['title']}: nothing of one upstream for {expression}" for expression in asked
            if panel["title"] not in NOT_OF_ONE and not values(expression, chosen)]


def of_annotations(annotations: list) -> list:
    counts = {one["name"]: len(set(values(one["expr"], everything))) for one in annotations}
    return [f"annotation {name}: {count} times, where there was a second one" for name, count in counts.items() if count < 2]


def of_variables(variables: list) -> list:
    faults = []
    for variable in variables:
        if variable["type"] != "query":
            continue
        series, label = variable["query"]["query"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
        choices = ask(f"label/{label}/values", {"match[]": substituted(series, everything)})
        # There are namespaces only where Kubernetes is.
        if not choices and label != "namespace":
            faults.append(f"variable {variable['name']}: no choice")
    return faults


def values(expression: str, chosen: dict) -> list:
    """Returns all finite values in the time that was looked at."""
    series = ask("query_range", {"query": substituted(expression, chosen), "start": began, "end": now, "step": STEP_SECONDS})
    numbers = [float(value) for one in series["result"] for _, value in one["values"]]
    return [number for number in numbers if math.isfinite(number)]


def substituted(text: str, chosen: dict) -> str:
    """Returns the text with the variables replaced as Grafana does it for scrapes every second."""
    names = {"__rate_interval": "10s", "__range": f"{now - began}s"} | chosen
    for name, value in names.items():
        text = text.replace(f"${name}", value)
    return text


def ask(what: str, parameters: dict) -> dict:
    with urlopen(f"{prometheus}/api/v1/{what}?{urlencode(parameters)}", timeout=30) as answer:
        return json.load(answer)["data"]


sys.exit(main())
