"""The rows of the benchmark: each is one question, asked of all servers that can answer it, in turn and in one run."""

import hashlib
import os
import re
import signal
import statistics
import subprocess
import time

from servers import CLIENT, MIB, Pinning, is_right, pinning, wait_until

# Times of less than a few milliseconds are medians of so many, taken in turn with what they are compared with.
ROUNDS = 15

# One download of a warm blob costs a server between half and twice what the next one does, by what the processor's caches hold.
WARM_ROUNDS = 31

# Encryption costs the same each time.
SECURED_ROUNDS = 9

# What is negotiated with every server: the clients offer nothing else.
CIPHER = "TLS13_AES_128_GCM_SHA256"
OPENSSL_CIPHER = "TLS_AES_128_GCM_SHA256"
OPENSSL_OFFERS = f"""openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = offers
[offers]
MinProtocol = TLSv1.3
Ciphersuites = {OPENSSL_CIPHER}
Groups = X25519
"""


class Table:
    """Lines of text for people and values for machines."""

    HEADINGS = ["row", "Cachalot", "nginx static", "nginx proxy_cache", "docker-registry", "ratio", "to reach"]

    def __init__(self, tell):
        self.lines, self.values, self.tell = [], [], tell

    def add(self, row, values, ratio=None, reach=None, form="{:.3g}", also=None):
        """`values` by server; `ratio` is (number, of what), and so is `also`; `reach` is what the ratio or the value should be."""
        names = ["cachalot", "nginx", "proxy_cache", "docker-registry"]
        cells = [form.format(values[name]) if values.get(name) is not None else "–" for name in names]
        told = ", ".join(f"{number:.2f} × {what}" for number, what in filter(None, (ratio, also))) or "–"
        self.lines.append([row, *cells, told, reach or "–"])
        value = {"row": row, "values": values, "ratio": ratio and ratio[0], "of": ratio and ratio[1], "to_reach": reach}
        self.values.append(value | ({"also": also[0], "also_of": also[1]} if also else {}))
        self.tell(" | ".join(self.lines[-1]))

    def markdown(self):
        rows = [self.HEADINGS, ["---"] * len(self.HEADINGS), *self.lines]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def warm_servers(ground):
    static = ground.start_static()
    caches = [ground.start_proxy_cache(ground.free), ground.start_registry(ground.free), ground.start_cachalot(ground.free)]
    return {server.name: server for server in (static, *caches)}


def warm_blobs(ground, table, quick):
    size = 256 if quick else 1024
    path, digest = ground.add_blob(size)
    Pinning.wanted = True
    servers = warm_servers(ground)
    for server in servers.values():
        assert ground.load(server.url(path), sha256=digest)["failures"] == 0, server.name
        ground.load(server.url(path))
    for clients, limit in ((1, size), (4, size), (64, size // 16)):
        costs, rates = {name: [] for name in servers}, {name: [] for name in servers}
        for _ in range(5 if quick else WARM_ROUNDS):
            for name, server in servers.items():
                before = server.cpu()
                seen = ground.load(server.url(path), clients=clients, limit=limit * MIB)
                assert seen["failures"] == 0, (name, seen)
                gigabytes = seen["bytes"] / 1e9
                costs[name].append((server.cpu() - before) / gigabytes)
                rates[name].append(gigabytes / seen["wall"])
        cost, rate = medians(costs), medians(rates)
        ratio = cost["cachalot"] / cost["nginx"]
        table.add(f"warm blob, {clients} clients: CPU s/GB", cost, (ratio, "nginx static"), "≤ 1.1")
        table.add(f"warm blob, {clients} clients: GB/s", rate, (rate["cachalot"] / rate["nginx"], "nginx static"))
    ground.stop(*servers.values())
    Pinning.wanted = False


def secured(ground, table, quick):
    """Warm blobs, and warm manifests on connections that are kept, over TLS with one cipher for all."""
    mib, seconds, rounds = (64, 1, 3) if quick else (512, 3, SECURED_ROUNDS)
    blob, digest = ground.add_blob(mib)
    manifest = ground.add_manifest()
    identity = ground.make_identity()
    offers = ground.work / "openssl.cnf"
    offers.write_text(OPENSSL_OFFERS)
    environment = dict(os.environ, OPENSSL_CONF=str(offers))
    Pinning.wanted = True
    started = [
        ground.start_static(identity),
        ground.start_proxy_cache(ground.free, identity),
        ground.start_cachalot(ground.free, identity=identity),
    ]
    servers = {server.name: server for server in started}
    for name, server in servers.items():
        assert ground.load(server.url(blob), ca=identity[0], sha256=digest)["failures"] == 0, name
        ground.load(server.url(blob), ca=identity[0])
        assert_cipher(server, environment)
    for clients, limit in ((1, mib), (4, mib), (64, mib // 16)):
        costs, rates = {name: [] for name in servers}, {name: [] for name in servers}
        for _ in range(rounds):
            for name, server in servers.items():
                before = server.cpu()
                seen = ground.load(server.url(blob), ca=identity[0], clients=clients, limit=limit * MIB)
                assert seen["failures"] == 0 and seen["secured_by"] == [f"TLSv1_3 {CIPHER}"], (name, seen)
                gigabytes = seen["bytes"] / 1e9
                costs[name].append((server.cpu() - before) / gigabytes)
                rates[name].append(gigabytes / seen["wall"])
        for what, values in (("CPU s/GB", medians(costs)), ("GB/s", medians(rates))):
            table.add(f"warm blob over TLS, {clients} clients: {what}", values, **against(values))
    costs, rates = {name: [] for name in servers}, {name: [] for name in servers}
    for _ in range(3):
        for name, server in servers.items():
            requests, cpu = wrk(server, manifest, seconds, environment)
            rates[name].append(requests / seconds)
            costs[name].append(cpu / requests * 1e6)
    table.add("warm manifest over TLS: requests/s", medians(rates), form="{:.0f}", **against(medians(rates)))
    table.add("warm manifest over TLS: CPU µs/request", medians(costs), **against(medians(costs)))
    ground.stop(*started)
    Pinning.wanted = False


def against(values):
    """Cachalot's value as ratios to those of both servers of nginx."""
    ours = values["cachalot"]
    return {"ratio": (ours / values["nginx"], "nginx static"), "also": (ours / values["proxy_cache"], "nginx proxy_cache")}


def assert_cipher(server, environment):
    """What a client that uses OpenSSL, as wrk does, agrees on with the server."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, input="", env=environment).stdout
    for wanted in (f"TLSv1.3, Cipher is {OPENSSL_CIPHER}", "Server Temp Key: X25519"):
        assert wanted in told, (server.name, wanted, told)


def medians(values):
    return {name: statistics.median(some) for name, some in values.items()}


def warm_manifests(ground, table, quick):
    seconds = 2 if quick else 5
    path = ground.add_manifest()
    Pinning.wanted = True
    servers = warm_servers(ground)
    # It asks the upstream about each manifest first, which a directory of files answers otherwise than a registry.
    ground.stop(servers.pop("docker-registry"))
    logged = ground.start_cachalot(ground.free, access=True)
    asked = {name: (server, path) for name, server in {**servers, "logged": logged}.items()}
    asked["referrers"] = servers["cachalot"], path.replace("/manifests/", "/referrers/")
    costs, rates = {name: [] for name in asked}, {name: [] for name in asked}
    for _ in range(3):
        for name, (server, target) in asked.items():
            requests, cpu = wrk(server, target, seconds)
            rates[name].append(requests / seconds)
            costs[name].append(cpu / requests * 1e6)
    cost, rate = medians(costs), medians(rates)
    peer = "nginx proxy_cache"
    table.add("warm manifest: requests/s", rate, (rate["cachalot"] / rate["proxy_cache"], peer), "≥ 0.9", "{:.0f}")
    table.add("warm manifest: CPU µs/request", cost, (cost["cachalot"] / cost["proxy_cache"], peer))
    logged_rate = {"cachalot": rate["logged"]}
    table.add("the same, access log on: requests/s", logged_rate, (rate["logged"] / rate["proxy_cache"], peer), None, "{:.0f}")
    referrers_rate = {"cachalot": rate["referrers"]}
    table.add("warm referrers: requests/s", referrers_rate, (rate["referrers"] / rate["cachalot"], "a warm manifest"), None, "{:.0f}")
    ground.stop(*servers.values(), logged)
    Pinning.wanted = False


def wrk(server, path, seconds, environment=None):
    """Returns how many requests were answered in so many seconds, and the processor time they took."""
    before = server.cpu()
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", server.url(path)]
    how = {"check": True, "capture_output": True, "text": True, "env": environment}
    told = subprocess.run(command, preexec_fn=pinning(CLIENT), **how).stdout
    assert "Non-2xx" not in told and "Socket errors" not in told, (server.name, told)
    return int(re.search(r"(\d+) requests in", told).group(1)), server.cpu() - before


def cold_herds(ground, table, quick):
    """Clients on one cold blob behind an upstream that limits each connection."""
    for clients in (1, 20, 200, 1000):
        mib = 32 if clients == 1000 or quick else 64
        direct_path, _ = ground.add_blob(mib)
        direct_url = f"http://127.0.0.1:{ground.limited}{direct_path}"
        direct = ground.load(direct_url)
        starts = [ground.start_cachalot, ground.start_proxy_cache, ground.start_registry]
        wall, first, last_first, sent, failures = {}, {}, {}, {}, {}
        for start in starts if clients <= 20 else starts[:1]:
            server = start(ground.limited)
            path, _ = ground.add_blob(mib)
            seen = ground.load(server.url(path), clients=clients)
            if clients <= 20:
                # Hashing would slow the clients: the bytes are checked in a herd of their own.
                other, digest = ground.add_blob(mib)
                seen["failures"] += ground.load(server.url(other), clients=clients, sha256=digest)["failures"]
            wall[server.name], failures[server.name] = seen["wall"], seen["failures"]
            first[server.name], last_first[server.name] = seen["first_byte"]["p50"], seen["first_byte"]["p99"]
            if server.name == "cachalot":
                (first[server.name], last_first[server.name]), herd = first_bytes(ground, server, clients)
            ground.stop(server)
            sent[server.name] = ground.sent(path) / (mib * MIB)
        name = f"{clients} cold clients of {mib} MiB"
        one = "one direct client"
        table.add(f"{name}: wall s", wall, (wall["cachalot"] / direct["wall"], one), "≤ 0.35" if clients == 20 else None)
        table.add(f"{name}: bytes sent by the upstream / blob", sent, None, "≤ 1.01", "{:.3f}")
        ratio = (first["cachalot"] / herd[0], "as many direct clients")
        milliseconds = {name: 1000 * value for name, value in first.items()}
        table.add(f"{name}: first byte p50 ms", milliseconds, ratio, "≤ 3" if clients == 20 else None)
        milliseconds = {name: 1000 * value for name, value in last_first.items()}
        ratio = (last_first["cachalot"] / herd[1], "as many direct clients")
        table.add(f"{name}: first byte p99 ms", milliseconds, ratio)
        table.add(f"{name}: failures", failures, None, "0", "{:.0f}")


def first_bytes(ground, server, clients):
    """The median and the 99th percentile of the time to the first byte of a cold blob, and those of as many direct clients."""
    ours, direct = [], []
    for _ in range(ROUNDS if clients <= 20 else 3):
        for url, seen in ((server.url, ours), (f"http://127.0.0.1:{ground.limited}{{}}".format, direct)):
            path, _ = ground.add_blob(1)
            seen.append(ground.load(url(path), clients=clients, limit=64 * 1024)["first_byte"])
    return [[statistics.median(one[part] for one in seen) for part in ("p50", "p99")] for seen in (ours, direct)]


def cold_range(ground, table, quick):
    """One KiB deep in a cold blob, then all of it."""
    mib = 64 if quick else 256
    at = mib * MIB // 4 * 3
    deep = {"range": f"{at}-{at + 1023}", "limit": 1024}
    times, direct = {}, []
    for start in (ground.start_cachalot, ground.start_proxy_cache, ground.start_registry):
        server, seen = start(ground.limited), []
        # One that fetches the prefix first takes its time.
        for _ in range(1 if server.name == "proxy_cache" else 5):
            path, _ = ground.add_blob(mib)
            # The rest of the one before is still being fetched.
            wait_until("the end of all transfers", ground.origin_rests, 120)
            seen.append(ground.load(server.url(path), **deep)["wall"])
            direct.append(ground.load(f"http://127.0.0.1:{ground.limited}{path}", **deep)["wall"])
        times[server.name] = statistics.median(seen)
        if server.name == "cachalot":
            assert ground.load(server.url(path))["failures"] == 0
            whole = path
        ground.stop(server)
    # The direct client was sent a KiB of it, too.
    sent = (ground.sent(whole) - 1024) / (mib * MIB)
    upstream = statistics.median(direct)
    milliseconds = {name: 1000 * value for name, value in times.items()}
    name = f"1 KiB deep in a cold blob of {mib} MiB"
    table.add(f"{name}: ms", milliseconds, (times["cachalot"] / upstream, "the upstream"), "≤ 3")
    table.add(f"{name}, then all of it: bytes sent / blob", {"cachalot": sent}, None, "≤ 1.01 and a segment", "{:.3f}")


def parallel_ranges(ground, table, quick):
    """Eight open ranges at once, each read for an eighth and closed: containerd's parallel pull."""
    mib = 64 if quick else 256
    path, _ = ground.add_blob(mib)
    direct = ground.load(f"http://127.0.0.1:{ground.limited}{path}", clients=8, stride=mib * MIB // 8)
    cachalot = ground.start_cachalot(ground.limited)
    path, _ = ground.add_blob(mib)
    seen = ground.load(cachalot.url(path), clients=8, stride=mib * MIB // 8)
    ground.stop(cachalot)
    partial = seen["statuses"].get("206", 0) if seen["failures"] == 0 else 0
    name = f"8 open ranges of a cold blob of {mib} MiB"
    table.add(f"{name}: wall s", {"cachalot": seen["wall"]}, (seen["wall"] / direct["wall"], "directly"))
    table.add(f"{name}: right answers with 206", {"cachalot": partial}, None, "8", "{:.0f}")
    table.add(f"{name}: bytes sent / blob", {"cachalot": ground.sent(path) / (mib * MIB)}, None, "≤ 1.01", "{:.3f}")


def many_streams(ground, table, quick):
    """Resident memory with a thousand slow streams of one cold blob."""
    mib, streams, seconds = (256 if quick else 1024), 1000, 15
    path, _ = ground.add_blob(mib)
    cachalot = ground.start_cachalot(ground.free)
    wait_until("readiness", lambda: cachalot.metric("cachalot_"))
    idle = cachalot.resident()
    seen = ground.load(cachalot.url(path), clients=streams, rate=256 * 1024, seconds=seconds)
    above = (cachalot.resident("VmHWM") - idle) / MIB
    assert seen["failures"] == 0, seen
    ground.stop(cachalot)
    table.add(f"{streams} streams of one cold blob of {mib} MiB: MiB above idle", {"cachalot": above}, None, "≤ 64", "{:.1f}")


def many_objects(ground, table, quick):
    """Start to first hit with many objects, the memory that they take, and what evicting one costs."""
    for count in (10_000, 100_000 if quick else 1_000_000):
        name = f"cachalot-{count}"
        path, digest = ground.add_blob(1)
        cachalot = ground.start_cachalot(ground.free, name)
        assert ground.load(cachalot.url(path), sha256=digest)["failures"] == 0
        ground.stop(cachalot)
        fill_store(ground.work / name / "store", count)
        began = time.monotonic()
        cachalot = ground.start_cachalot(ground.free, name)
        wait_until("the first hit", lambda: is_right(cachalot.url(path), digest))
        first_hit = time.monotonic() - began
        objects = 'cachalot_storage_objects{kind="blob",tier="disk"}'
        wait_until("the scan", lambda: cachalot.metric(objects) >= count, 300)
        scanned, resident = cachalot.cpu(), cachalot.resident("VmHWM") / MIB
        ground.stop(cachalot)
        table.add(f"{count} objects: start to first hit, s", {"cachalot": first_hit}, None, "≤ 1")
        table.add(f"{count} objects: resident MiB at the most", {"cachalot": resident}, None, "≤ 200", "{:.0f}")
        # Half of them no longer fit.
        cachalot = ground.start_cachalot(ground.free, name, capacity=f"{count // 2 * 4 + 4096}KiB")
        evictions = "cachalot_evictions_total"
        wait_until("the eviction", lambda: cachalot.metric(evictions) >= count // 2, 600)
        evicted = cachalot.metric(evictions)
        cost = (cachalot.cpu() - scanned) / evicted * 1e6
        ground.stop(cachalot)
        table.add(f"{count} objects: CPU µs for each of {evicted:.0f} evicted", {"cachalot": cost})


def fill_store(store, count):
    """Puts so many objects of 4 KiB, all holes, where the store keeps layers."""
    shelf = store / "layer" / "sha256"
    for fan in range(256):
        os.makedirs(shelf / f"{fan:02x}", exist_ok=True)
    for number in range(count):
        name = hashlib.sha256(number.to_bytes(8, "big")).hexdigest()
        file = os.open(shelf / name[:2] / name, os.O_CREAT | os.O_WRONLY, 0o600)
        os.ftruncate(file, 4096)
        os.close(file)


def killed_half_way(ground, table, quick):
    """kill -9 at half of a cold blob, a start, and the rest."""
    mib = 64 if quick else 256
    path, digest = ground.add_blob(mib)
    cachalot = ground.start_cachalot(ground.limited, "killed")
    client = ground.load_beside(cachalot.url(path))
    fetched = "cachalot_upstream_fetched_bytes_total"
    wait_until("half of it", lambda: cachalot.metric(fetched) >= mib * MIB // 2, 120)
    cachalot.stop(signal.SIGKILL)
    client.wait(60)
    ground.stop(cachalot)
    cachalot = ground.start_cachalot(ground.limited, "killed")
    assert ground.load(cachalot.url(path), sha256=digest)["failures"] == 0
    ground.stop(cachalot)
    sent = ground.sent(path) / (mib * MIB)
    table.add(f"kill -9 at half of {mib} MiB: bytes sent in all / blob", {"cachalot": sent}, None, "≤ 1.1", "{:.3f}")


ROWS = {
    "a": warm_blobs,
    "b": warm_manifests,
    "c": cold_herds,
    "d": cold_range,
    "e": parallel_ranges,
    "f": many_streams,
    "g": many_objects,
    "h": killed_half_way,
    "i": secured,
}
