#!/usr/bin/env python3
"""Reads a dashboard by the types that Grafana publishes, writes it again, and prints what was lost on the way: Grafana would not
know it either.

    known.py DASHBOARD
"""

import json
import re
import sys
from pathlib import Path

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

# What the data source reads itself, or what is in the types of later versions.
ELSEWHERE = re.compile(r"\.annotations\.list\[\d+]\.(step|useValueForTime|titleFormat|textFormat)$|\.options\.tooltip\.\w+$")


def lost(before: object, after: object, path: str) -> list:
    if isinstance(before, dict) and isinstance(after, dict):
        return [one for key in before for one in lost(before[key], after.get(key), f"{path}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [one for place, (a, b) in enumerate(zip(before, after)) for one in lost(a, b, f"{path}[{place}]")]
    return [] if before == after else [path]


plugins.register_default_plugins()
written = json.loads(Path(sys.argv[1]).read_text())
read = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
unknown = [path for path in lost(written, read, "") if not ELSEWHERE.search(path)]
print("\n".join(unknown))
sys.exit(1 if unknown else 0)
