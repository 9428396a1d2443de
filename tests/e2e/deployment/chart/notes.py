"""Do the notes after an installation say what holds for it, in snippets that clients can read?

notes.py HELM DIRECTORY: every row of notes.yaml; DIRECTORY is for a copy of the chart that puts its notes into a ConfigMap, since
`helm template` does not show them.
"""

import json
import pathlib
import re
import shutil
import sys
import textwrap
import tomllib

import yaml

import helm


def main(binary, directory):
    copy = pathlib.Path(directory) / "with-notes"
    shutil.copytree(helm.chart, copy)
    notes = copy / "templates" / "NOTES.txt"
    define = f'{{{{- define "cachalot.notes" }}}}{notes.read_text(encoding="utf-8")}{{{{ end }}}}'
    (copy / "templates" / "_notes.tpl").write_text(define, encoding="utf-8")
    shown = 'kind: ConfigMap\nmetadata: {name: notes}\ndata: {notes: {{ include "cachalot.notes" . | toJson }}}\n'
    (copy / "templates" / "notes.yaml").write_text(shown, encoding="utf-8")
    notes.unlink()
    rows = yaml.safe_load((helm.here / "notes.yaml").read_text(encoding="utf-8"))
    problems = []
    for row in rows:
        values = f"--values={helm.here / 'values' / row['values']}.yaml"
        version = row.get("version", helm.versions[-1])
        documents = helm.render(binary, values, *row.get("options", []), version=version, directory=copy)
        text = helm.find(documents, "ConfigMap", "notes")["data"]["notes"]
        flat = " ".join(text.split())
        problems += [f"{row['values']}: does not say {says!r}" for says in row.get("says", []) if says not in flat]
        problems += [f"{row['values']}: says {says!r}" for says in row.get("silent", []) if says in flat]
        problems += [f"{row['values']}: {problem}" for problem in about_snippets(text, row.get("snippets", 0))]
        problems += [f"{row['values']}: longer than a screen is wide: {line}" for line in text.splitlines() if len(line) > 140]
    print("\n".join(problems))
    return 1 if problems else 0


def about_snippets(text, expected):
    """Reads each indented block that looks like TOML or JSON."""
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.MULTILINE)]
    blocks = [block for block in blocks if re.match(r"\s*(\w+ =|\[|\{)", block)]
    if len(blocks) < expected:
        yield f"{len(blocks)} snippets instead of {expected}"
    for block in blocks:
        try:
            if block.lstrip().startswith("{"):
                json.loads(block)
            else:
                tomllib.loads(block)
        except ValueError as error:
            yield f"a snippet cannot be read: {error}: {block}"
    if any("<no value>" in line or "%!" in line or "{{" in line for line in text.splitlines()):
        yield "a template that was not rendered"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
