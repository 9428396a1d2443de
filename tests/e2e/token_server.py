#!/usr/bin/env python3
"""A token service for a registry: gives tokens to pull to accounts, by GET with Basic, and writes a line for each request.

    token_server.py PORT DIRECTORY ISSUER SERVICE

DIRECTORY has `token.key` and `token.pem`, which sign; `accounts`, a line `user:password` for each account; and `life`, the
seconds for which the registry takes a token. `writers`, where it is there, names the users that get what they ask for, and not
to pull only. The last token that was given is then in `token` there.

A registry of this kind takes a token for a minute beyond its end, so that a short life ends in the past. A POST is not taken.
"""

import base64
import json
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

LEEWAY_SECONDS = 60

port, directory, issuer, service = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signed(claims: dict) -> str:
    lines = (directory / "token.pem").read_text().splitlines()
    certificate = "".join(line for line in lines if "CERTIFICATE" not in line)
    header = {"typ": "JWT", "alg": "RS256", "x5c": [certificate]}
    text = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
    sign = ["openssl", "dgst", "-sha256", "-sign", str(directory / "token.key")]
    return f"{text}.{encoded(subprocess.run(sign, input=text.encode(), capture_output=True, check=True).stdout)}"


def token(user: str, scopes: list) -> str:
    writers = directory / "writers"
    may_write = writers.exists() and user in writers.read_text().split()
    now, life = int(time.time()), int((directory / "life").read_text())
    access = []
    for scope in scopes:
        kind, name, actions = scope.split(":")
        access.append({"type": kind, "name": name, "actions": actions.split(",") if may_write else ["pull"]})
    claims = {"iss": issuer, "aud": service, "sub": user, "jti": str(time.time_ns()), "access": access}
    return signed(claims | {"iat": now - 600, "nbf": now - 600, "exp": now + life - LEEWAY_SECONDS})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, document: dict) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def note(self, status: int, scopes: list) -> None:
        scheme = self.headers.get("Authorization", "none").split(" ")[0].lower()
        print(f"{self.command} {status} auth:{scheme} {' '.join(scopes)}", flush=True)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        scheme, _, proof = self.headers.get("Authorization", "").partition(" ")
        account = base64.b64decode(proof).decode() if scheme == "Basic" else ""
        scopes = query.get("scope", [])
        is_known = account in (directory / "accounts").read_text().splitlines() and query.get("service") == [service]
        self.note(200 if is_known else 401, scopes)
        if not is_known:
            return self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "no such account"}]})
        given = token(account.split(":")[0], scopes)
        (directory / "token").write_text(given)
        return self.answer(200, {"token": given, "expires_in": LEEWAY_SECONDS})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.note(405, [])
        self.answer(405, {})

    def log_message(self, *_: object) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
