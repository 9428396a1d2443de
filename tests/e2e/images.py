#!/usr/bin/env python3
"""Builds small images as OCI layouts, without network and always with the same bytes.

    images.py DIRECTORY NAME SEED [BIG_LAYER_MIB]

NAME is `one`, an image of three layers for this machine, or `many`, an index of two such images for two platforms.
SEED makes the content: layouts with different seeds share no blob.
"""

import gzip
import hashlib
import io
import json
import platform
import random
import sys
import tarfile
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
KIB = 1024


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    def __init__(self, directory: Path):
        self.directory = directory
        (directory / "blobs" / "sha256").mkdir(parents=True)

    def add(self, media_type: str, data: bytes) -> dict:
        digest = sha256(data)
        (self.directory / "blobs" / digest.replace(":", "/")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def add_json(self, media_type: str, document: dict) -> dict:
        return self.add(media_type, json.dumps(document).encode())

    def finish(self, descriptor: dict) -> None:
        named = descriptor | {"annotations": {"org.opencontainers.image.ref.name": "1"}}
        (self.directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}
        (self.directory / "index.json").write_text(json.dumps(index))


def tar(files: dict) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def image(layout: Layout, seed: str, architecture: str, big_layer_mib: int) -> dict:
    noise = random.Random(f"{seed} {architecture}")
    contents = [
        {"etc/os-release": f"ID={seed}\n".encode(), "etc/seed": noise.randbytes(16)},
        {"srv/middle": noise.randbytes(300 * KIB)},
        {"srv/big": noise.randbytes(big_layer_mib * KIB * KIB), "srv/small": noise.randbytes(KIB)},
    ]
    archives = [tar(files) for files in contents]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(archive) for archive in archives]},
        "history": [{"created_by": f"layer {number}"} for number in range(len(archives))],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.add_json(CONFIG, config),
        "layers": [layout.add(LAYER, gzip.compress(archive, 1, mtime=0)) for archive in archives],
    }
    return layout.add_json(MANIFEST, manifest)


def main() -> None:
    directory, name, seed = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    big_layer_mib = int(sys.argv[4]) if len(sys.argv) > 4 else 2
    layout = Layout(directory)
    if name == "one":
        own = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
        layout.finish(image(layout, seed, own, big_layer_mib))
        return
    manifests = [
        image(layout, seed, architecture, big_layer_mib)
        | {"platform": {"os": "linux", "architecture": architecture}}
        for architecture in ("amd64", "arm64")
    ]
    layout.finish(layout.add_json(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))


main()
