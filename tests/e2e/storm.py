#!/usr/bin/env python3
"""A herd of clients that want objects which are not cached and, like containerd, ask for each five times without a pause.

    storm.py HOST:PORT PATH OBJECTS

PATH is that of a repository's manifests. Prints one line of JSON: how many answers of each status there were, how many of
them were refusals that did not say when to come again, and how long it took.
"""

import hashlib
import http.client
import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

ATTEMPTS = 5

address, path, objects = sys.argv[1], sys.argv[2], int(sys.argv[3])


def pull(number: int) -> list:
    digest = hashlib.sha256(f"{path} {number}".encode()).hexdigest()
    connection = http.client.HTTPConnection(address, timeout=60)
    answers = []
    for _ in range(ATTEMPTS):
        connection.request("GET", f"{path}/sha256:{digest}")
        answer = connection.getresponse()
        answer.read()
        answers.append((answer.status, answer.getheader("Retry-After")))
    connection.close()
    return answers


began = time.monotonic()
with ThreadPoolExecutor(objects) as clients:
    answers = [answer for answers in clients.map(pull, range(objects)) for answer in answers]
print(
    json.dumps(
        {
            "answers": len(answers),
            "statuses": dict(Counter(str(status) for status, _ in answers)),
            "without_retry_after": sum(status >= 429 and not retry_after for status, retry_after in answers),
            "seconds": round(time.monotonic() - began, 2),
        }
    )
)
