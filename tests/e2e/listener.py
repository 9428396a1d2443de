#!/usr/bin/env python3
"""Listens on a port of every address, IPv4 and IPv6, writes `listening` and a line for each connection, and
answers or does not.

    listener.py PORT silent|DIRECTORY

With `silent` nothing is ever answered. With a directory, a registry's, its files are sent: `…/manifests/1` from the file
`manifest`, whose type is in `type`, and `…/blobs/sha256:X` from the file X.
"""

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

port, answers = int(sys.argv[1]), sys.argv[2]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def get_request(self) -> tuple:
        connection, peer = super().get_request()
        print(f"connection to {connection.getsockname()[0]}", flush=True)
        return connection, peer


class Handler(BaseHTTPRequestHandler):
    def handle(self) -> None:
        if answers == "silent":
            threading.Event().wait()
        super().handle()

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1].removeprefix("sha256:")
        is_manifest = "/manifests/" in self.path
        body = (Path(answers) / ("manifest" if is_manifest else name)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", (Path(answers) / "type").read_text() if is_manifest else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


server = Server(("::", port), Handler)
print("listening", flush=True)
server.serve_forever()
