"""The names of a cluster's Services, over UDP, as the API server has them.

    names.py ADDRESS API CA CERTIFICATE KEY [NAME=ADDRESS]…

Knows A records of Services, with or without an address of their own, and the names that are given; has no other names."""

import json
import socket
import ssl
import struct
import sys
import urllib.error
import urllib.request

A_RECORD = 1
NO_ERROR, FAILED, NO_SUCH_NAME = 0, 2, 3
address, api, ca, certificate, key, *given = sys.argv[1:]
GIVEN = dict(pair.split("=") for pair in given)
CONTEXT = ssl.create_default_context(cafile=ca)
CONTEXT.load_cert_chain(certificate, key)


def ask(path):
    with urllib.request.urlopen(api + path, context=CONTEXT, timeout=5) as answer:
        return json.load(answer)


def addresses(name):
    """The addresses of a name; None if there is no such name."""
    if name in GIVEN:
        return [GIVEN[name]]
    labels = name.removesuffix(".cluster.local").split(".")
    if len(labels) != 3 or labels[2] != "svc":
        return None
    service, namespace, _ = labels
    try:
        own = ask(f"/api/v1/namespaces/{namespace}/services/{service}")["spec"]["clusterIP"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    if own != "None":
        return [own]
    selector = f"?labelSelector=kubernetes.io/service-name%3D{service}"
    slices = ask(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices{selector}")["items"]
    return [
        one
        for part in slices
        if part["addressType"] == "IPv4"
        for endpoint in part["endpoints"] or []
        if endpoint["conditions"]["ready"]
        for one in endpoint["addresses"]
    ]


def question(query):
    """The name that is asked for, the type of its records, and where the question ends."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    return ".".join(labels), struct.unpack_from("!H", query, at + 1)[0], at + 5


def answer(query):
    name, kind, end = question(query)
    try:
        found = addresses(name)
    except OSError as error:
        # The client is told, and asks again.
        print(name, error, flush=True)
        return reply(query, end, FAILED, [])
    print(name, kind, found, flush=True)
    return reply(query, end, NO_SUCH_NAME if found is None else NO_ERROR, found if found and kind == A_RECORD else [])


def reply(query, end, code, records):
    """An authoritative answer (RFC 1035 §4.1.1); each record points back at the name, and holds for no time."""
    head = query[:2] + struct.pack("!5H", 0x8580 | code, 1, len(records), 0, 0)
    return head + query[12:end] + b"".join(
        struct.pack("!3HIH", 0xC00C, A_RECORD, 1, 0, 4) + socket.inet_aton(one) for one in records
    )


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, 53))
while True:
    received, client = server.recvfrom(4096)
    server.sendto(answer(received), client)
