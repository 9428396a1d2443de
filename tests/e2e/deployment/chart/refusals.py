"""Are values that cannot work refused, with a text that says what to set?

refusals.py HELM: every row of refusals.yaml. A row with `says` is refused by the chart with that text; one with `schema` by the
schema, in whose message this word occurs: the rest of it is Helm's.
"""

import sys

import yaml

import helm


def main(binary):
    rows = yaml.safe_load((helm.here / "refusals.yaml").read_text(encoding="utf-8"))
    rows = [row for row in rows if row.get("only", binary) == binary]
    problems = []
    for row in rows:
        arguments = [f"--set{'-json' if '=[' in value or '={' in value else ''}={value}" for value in row["set"]]
        version = row.get("version", helm.versions[-1])
        code, _, err = helm.template(binary, *arguments, version=version)
        expected = row.get("says") or row["schema"]
        if code == 0:
            problems.append(f"{row['set']} is taken")
        elif " ".join(expected.split()) not in " ".join(err.split()):
            problems.append(f"{row['set']} is refused for another reason than {expected!r}: {err}")
        elif ("values don't meet" in err or "schema" in err.lower()) != ("schema" in row):
            problems.append(f"{row['set']} is refused by the wrong one of chart and schema: {err}")
    print("\n".join(problems))
    print(f"{len(rows)} rows, {len(problems)} wrong")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
