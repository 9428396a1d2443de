#!/usr/bin/env python3
"""Pulls through Cachalot for half a minute at most, and lets registries fail meanwhile.

    traffic.py before|after CACHE SECURE DIRECTORY

`before` makes everything known that must be known before it fails. In `after`, one upstream answers 503 and another one 429, once
their files DIRECTORY/*.flag are there. SECURE is where CACHE speaks TLS.
"""

import http.client
import json
import ssl
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ROUNDS = 6
ROUND_SECONDS = 5

phase, cache, secure, directory = sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])
seen = Counter()


def get(path: str, method: str = "GET", most: int | None = None, token: str | None = None) -> tuple[int, bytes]:
    """Returns the status and the body, or so many of its first bytes: then the client leaves."""
    connection = http.client.HTTPConnection(cache, timeout=120)
    try:
        shown = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, path, headers={"Accept": MANIFEST} | shown)
        answer = connection.getresponse()
        try:
            body = answer.read(most)
        except http.client.IncompleteRead:
            seen["cut short"] += 1
            return 0, b""
        outcome = answer.headers.get("Cache-Status", "").partition("; ")[2].partition(";")[0]
        seen[f"{answer.status} {outcome}"] += 1
        return answer.status, body
    finally:
        connection.close()


def pull(upstream: str, repository: str) -> None:
    """Does what a client does that has nothing of the image."""
    status, body = get(f"/v2/{upstream}.test/{repository}/manifests/1")
    if status != 200:
        return
    manifest = json.loads(body)
    for blob in [manifest["config"], *manifest["layers"]]:
        get(f"/v2/{upstream}.test/{repository}/blobs/{blob['digest']}")


def index(repository: str) -> dict:
    return json.loads((directory / "layouts" / repository / "index.json").read_text())["manifests"][0]


def largest(repository: str) -> str:
    digest = index(repository)["digest"]
    manifest = json.loads((directory / "layouts" / repository / "blobs" / digest.replace(":", "/")).read_text())
    return max(manifest["layers"], key=lambda layer: layer["size"])["digest"]


def ask_for_more(upstream: str, repository: str) -> None:
    """What is neither an image nor a part of one, and what is not there."""
    get("/v2/")
    get(f"/v2/{upstream}.test/{repository}/manifests/{index(repository)['digest']}", "HEAD")
    get(f"/v2/{upstream}.test/{repository}/tags/list")
    get(f"/v2/{upstream}.test/{repository}/referrers/{index(repository)['digest']}")
    for _ in range(2):
        get(f"/v2/{upstream}.test/{repository}/manifests/absent")


def ask_as_others() -> None:
    """Over TLS, by who believes the certificate and who does not; with secrets that are wrong; for what is for callers."""
    for context in (ssl._create_unverified_context(), ssl.create_default_context()):
        connection = http.client.HTTPSConnection(secure, timeout=120, context=context)
        try:
            connection.request("GET", "/v2/")
            seen[f"TLS {connection.getresponse().status}"] += 1
        except ssl.SSLError:
            seen["TLS refused"] += 1
        finally:
            connection.close()
    for _ in range(3):
        get("/v2/good.test/image/1/manifests/1", token="wrong-and-long-enough")
    get("/v2/private.test/image/1/manifests/1")


def herd(repository: str) -> None:
    """Many want the same cold blob at once, and one leaves in the middle."""
    blob = f"/v2/slow.test/{repository}/blobs/{largest(repository)}"
    get(f"/v2/slow.test/{repository}/manifests/1")
    with ThreadPoolExecutor(5) as clients:
        list(clients.map(lambda most: get(blob, most=most), [None, None, None, None, 65536]))


def before() -> None:
    for upstream in ("good", "hub", "down"):
        pull(upstream, "image/1")
    for number in range(1, 5):
        pull("good", f"image/{number}")
    ask_for_more("good", "image/1")


def after() -> None:
    with ThreadPoolExecutor(4) as clients:
        for number in range(1, ROUNDS + 1):
            until = time.monotonic() + ROUND_SECONDS
            if number == 2:
                (directory / "down.flag").touch()
            if number == 3:
                (directory / "hub.flag").touch()
            waiting = [clients.submit(herd, f"slow/{number}")]
            while time.monotonic() < until:
                waiting.append(clients.submit(one_round, number))
                time.sleep(0.5)
            for done in waiting:
                done.result()


def one_round(number: int) -> None:
    pull("good", f"image/{number + 4}")
    pull("good", f"image/{number + 4}")
    pull("hub", "image/1")
    pull("rotten", "rotten")
    ask_for_more("good", f"image/{number + 4}")
    ask_as_others()
    for image in range(1, 4):
        get("/v2/down.test/image/1/manifests/1")
        get(f"/v2/down.test/image/{image}/manifests/{index('image/9')['digest']}")
        get("/v2/dead.test/image/1/manifests/1")


{"before": before, "after": after}[phase]()
for what, count in sorted(seen.items()):
    print(f"{count:5} {what}")
