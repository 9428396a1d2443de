"""Are the alerts that reach Prometheus those of the files, but for what the values say?

rules.py HELM
"""

import copy
import sys

import yaml

import helm

runbooks = "https://runbooks.example/cachalot"


def main(binary):
    written = [group for file in ("recording", "alerts") for group in load(file)]
    problems = compare("as they are", written, rendered(binary))

    disabled = sorted({rule["alert"] for rule in rules(written) if "alert" in rule})[0]
    without = copy.deepcopy(written)
    for group in without:
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert") != disabled]
    without = [group for group in without if group["rules"]]
    found = rendered(binary, f'--set-json=prometheusRule.disabledAlerts=["{disabled}"]')
    problems += compare(f"without {disabled}", without, found)

    elsewhere = copy.deepcopy(written)
    for rule in rules(elsewhere):
        if "alert" in rule:
            rule["annotations"]["runbook_url"] = f"{runbooks}#{rule['alert'].lower()}"
    problems += compare("with other runbooks", elsewhere, rendered(binary, f"--set=prometheusRule.runbookURL={runbooks}"))

    tunable = [rule for rule in rules(written) if rule.get("annotations", {}).get("threshold")]
    for rule in tunable:
        problems += with_threshold(binary, written, rule)
    print("\n".join(problems))
    print(f"{len(list(rules(written)))} rules, {len(tunable)} thresholds")
    return 1 if problems or not tunable else 0


def load(name):
    return yaml.safe_load((helm.chart / "files" / "rules" / f"{name}.yaml").read_text(encoding="utf-8"))["groups"]


def rules(groups):
    return (rule for group in groups for rule in group["rules"])


def rendered(binary, *arguments):
    documents = helm.render(binary, "--set=prometheusRule.enabled=true", *arguments)
    return helm.find(documents, "PrometheusRule")["spec"]["groups"]


def with_threshold(binary, written, rule):
    """Sets the threshold of one alert to a number that occurs nowhere."""
    expected = copy.deepcopy(written)
    changed = next(other for other in rules(expected) if other == rule)
    if rule["expr"].count(rule["annotations"]["threshold"]) != 1:
        return [f"{rule['alert']}: its threshold does not occur once in its expression"]
    changed["expr"] = rule["expr"].replace(rule["annotations"]["threshold"], "0.7531")
    changed["annotations"]["threshold"] = "0.7531"
    key = f"prometheusRule.thresholds.{rule['alert']}.{rule['labels']['severity']}"
    return compare(key, expected, rendered(binary, f"--set={key}=0.7531"))


def compare(what, expected, found):
    if expected == found:
        return []
    pairs = zip(rules(expected), rules(found))
    different = next((f"{one} is {other}" for one, other in pairs if one != other), "there are more or fewer")
    return [f"{what}: {different}"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
