#!/usr/bin/env python3
"""Finds what is wrong with the dashboard and the rules as they are written, without a Grafana.

    lint.py DASHBOARD RULES_DIRECTORY METRICS

METRICS is what `cachalot metrics --list` prints. Each fault is a line; the exit code is 1 when there is one.

A panel has a title, a description, a unit, targets and the data source that was chosen; every series is selected by the
variables; what counts over time does so over `$__rate_interval`, or over the whole range where a panel shows one number;
identifiers are unique and panels do not overlap. Every metric that is named exists, and every one that exists is shown or is in
a rule.
"""

import json
import re
import sys
from itertools import combinations
from pathlib import Path

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECTED = ['namespace=~"$namespace"', 'job=~"$job"', 'instance=~"$instance"']
# Each variable that selects series, and what stands for all of them: a namespace need not be there.
VARIABLES = {"namespace": ".*", "job": ".+", "instance": ".+", "upstream": ".+"}
METRIC = re.compile(r"(?<![\w:$])(?:cachalot|process)_\w+")
SELECTOR = re.compile(r"(?<![\w:$])((?:cachalot|process)_\w+)(\{[^}]*\})?")
COUNTED = re.compile(r"\b(rate|irate|increase|delta|changes)\s*\(\s*\w+(?:\{[^}]*\})?\[([^]]+)\]")
SUFFIX = re.compile(r"_(?:bucket|count|sum)$")


def main() -> int:
    dashboard = json.loads(Path(sys.argv[1]).read_text())
    rules = {path.name: path.read_text() for path in sorted(Path(sys.argv[2]).glob("*.yaml"))}
    families = [line.split("\t") for line in Path(sys.argv[3]).read_text().splitlines()]
    panels = all_panels(dashboard)
    faults = [
        *of_dashboard(dashboard),
        *of_layout(dashboard),
        *(fault for panel in panels for fault in of_panel(panel)),
        *of_rules("".join(rules.values())),
        *of_metrics(dashboard, panels, rules, {family[0]: family for family in families}),
    ]
    for fault in faults:
        print(fault)
    print(f"{len(panels)} panels, {len(families)} metrics, {len(faults)} faults")
    return 1 if faults else 0


def all_panels(dashboard: dict) -> list:
    nested = [panel for row in dashboard["panels"] for panel in row.get("panels", [])]
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"] + nested


def of_dashboard(dashboard: dict) -> list:
    faults = [f"the dashboard has no {key}" for key in ("uid", "title", "tags", "links") if not dashboard.get(key)]
    if dashboard.get("editable") is not False:
        faults.append("the dashboard is editable, and an edit would be lost")
    if (dashboard.get("time"), dashboard.get("refresh")) != ({"from": "now-1h", "to": "now"}, "30s"):
        faults.append("the dashboard does not show the last hour, every 30 seconds anew")
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    if variables.get("datasource", {}).get("type") != "datasource":
        faults.append("there is no variable for the data source")
    for name, everything in VARIABLES.items():
        variable = variables.get(name, {})
        expected = {"type": "query", "multi": True, "includeAll": True, "allValue": everything, "refresh": 2}
        expected["datasource"] = SOURCE
        faults += [f"variable {name}: {key} is not {value}" for key, value in expected.items() if variable.get(key) != value]
    for annotation in dashboard["annotations"]["list"]:
        if annotation.get("datasource") != SOURCE:
            faults.append(f"annotation {annotation['name']}: not the chosen data source")
        faults += of_expression(f"annotation {annotation['name']}", annotation["expr"], is_one_number=False)
    return faults


def of_layout(dashboard: dict) -> list:
    faults = []
    rows = [row for row in dashboard["panels"] if row["type"] == "row"]
    everything = dashboard["panels"] + [panel for row in rows for panel in row["panels"]]
    identifiers = [panel["id"] for panel in everything]
    faults += [f"id {one} is there twice" for one in sorted({one for one in identifiers if identifiers.count(one) > 1})]
    for together in [dashboard["panels"], *(row["panels"] for row in rows)]:
        faults += [f"{a['title']} and {b['title']} overlap" for a, b in combinations(together, 2)
                   if overlap(a["gridPos"], b["gridPos"])]
    faults += [f"{panel['title']} is not within 24 columns" for panel in everything
               if panel["gridPos"]["x"] < 0 or panel["gridPos"]["x"] + panel["gridPos"]["w"] > 24]
    faults += [f"row {row['title']}: hides nothing" for row in rows if row["collapsed"] != bool(row["panels"])]
    return faults


def overlap(a: dict, b: dict) -> bool:
    return (a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"]
            and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"])


def of_panel(panel: dict) -> list:
    name = f"panel {panel.get('title') or panel['id']}"
    faults = [f"{name}: no {key}" for key in ("title", "description", "targets") if not panel.get(key)]
    if not panel.get("fieldConfig", {}).get("defaults", {}).get("unit"):
        faults.append(f"{name}: no unit")
    targets = panel.get("targets", [])
    if any(one.get("datasource") != SOURCE for one in [panel, *targets]):
        faults.append(f"{name}: not the chosen data source")
    references = [target["refId"] for target in targets]
    if len(set(references)) < len(references):
        faults.append(f"{name}: two targets with the same refId")
    for target in targets:
        faults += of_expression(name, target["expr"], target.get("instant", False))
    return faults


def of_expression(name: str, expression: str, is_one_number: bool) -> list:
    faults = []
    for metric, selector in SELECTOR.findall(expression):
        faults += [f"{name}: {metric} is not selected by {one}" for one in SELECTED if one not in selector]
    window = "$__range" if is_one_number else "$__rate_interval"
    counted = COUNTED.findall(expression)
    return faults + [f"{name}: {function} over {over}, not {window}" for function, over in counted if over != window]


def of_rules(text: str) -> list:
    faults = []
    for block in re.split(r"\n +- alert: ", text)[1:]:
        name = block.split("\n", 1)[0]
        # Up to the next key of the alert: what is deeper belongs to the expression.
        expression = re.search(r"\n {8}expr: (.*?)\n {8}\w+:", block, re.DOTALL).group(1)
        if not name.startswith("Cachalot"):
            faults.append(f"alert {name}: not named Cachalot…")
        if f"https://github.com/cachalot/cachalot#{name.lower()}\n" not in block:
            faults.append(f"alert {name}: no runbook_url to its heading")
        if not re.search(r"severity: (critical|warning|info)\n", block):
            faults.append(f"alert {name}: no severity")
        faults += [f"alert {name}: no {key}" for key in ("summary", "description") if f" {key}: " not in block]
        threshold = re.search(r"threshold: '(.*)'", block)
        if threshold and expression.count(threshold.group(1)) != 1:
            faults.append(f"alert {name}: the threshold {threshold.group(1)} is not in its expression once")
    return faults


def of_metrics(dashboard: dict, panels: list, rules: dict, families: dict) -> list:
    used = {}
    expressions = [("the dashboard", target["expr"]) for panel in panels for target in panel.get("targets", [])]
    expressions += [("an annotation", annotation["expr"]) for annotation in dashboard["annotations"]["list"]]
    expressions += [("a variable", variable["query"]["query"]) for variable in dashboard["templating"]["list"]
                    if variable["type"] == "query"]
    expressions += list(rules.items())
    for place, text in expressions:
        for name in METRIC.findall(text):
            used.setdefault(name if name in families else SUFFIX.sub("", name), place)
    faults = [f"{place} names {name}, which does not exist" for name, place in used.items() if name not in families]
    return faults + [f"{name} is shown nowhere and in no rule" for name in families if name not in used]


sys.exit(main())
