"""The servers of the benchmark: started, measured and stopped by their process id; everything listens on the loopback only."""

import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

MIB = 1 << 20
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


class Ports:
    """Ports that nobody listens on, below those that the kernel gives to connections: none of these takes one before it is used."""

    first_of_connections = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    given = set()


def free_port():
    while True:
        port = random.randrange(max(Ports.first_of_connections - 12000, 1024), max(Ports.first_of_connections, 13024))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in Ports.given:
            Ports.given.add(port)
            return port


def wait_until(what, ready, seconds=60):
    """Asks `ready` again and again, for there is nobody who would tell."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = ready()
        if result:
            return result
        time.sleep(0.005)
    raise RuntimeError(f"{what}: not within {seconds} s")


SERVER, CLIENT = 0, 1


class Pinning:
    """Whether the servers share one processor, and the load client has another: costs are steady and comparable only so."""

    wanted = False


def pinning(which):
    processors = sorted(os.sched_getaffinity(0))
    if not Pinning.wanted or len(processors) < 2:
        return None
    return lambda: os.sched_setaffinity(0, {processors[which]})


class Server:
    """One running server."""

    def __init__(self, name, port, command, log, scheme="http"):
        self.name, self.port, self.scheme = name, port, scheme
        self.process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=pinning(SERVER))
        wait_until(name, self.answers)

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def url(self, path):
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def pids(self):
        pid = self.process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def cpu(self):
        """Seconds of processor time of the server and its workers so far, ended threads included."""
        # The clock of a process, as clock_getcpuclockid(3) makes it.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.pids())

    def resident(self, key="VmRSS"):
        """Bytes of resident memory now, or with `VmHWM` at the most so far."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"no {key}")

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Cachalot(Server):
    """Cachalot in front of one registry, which is its default upstream; the access log is off unless asked for.

    With `identity`, files of a certificate and its key, it speaks TLS only.
    """

    def __init__(self, binary, directory, upstream, log, access=False, capacity="64GiB", identity=None):
        directory.mkdir(parents=True, exist_ok=True)
        self.admin = free_port()
        port = free_port()
        config = directory / "cachalot.toml"
        plain, secured = f'["127.0.0.1:{port}"]', ""
        if identity:
            plain, secured = "[]", '[[listener]]\naddress = "127.0.0.1:{}"\ncert = "{}"\nkey = "{}"\n'.format(port, *identity)
        config.write_text(
            f'[server]\nlisten = {plain}\ndefault_upstream = "bench.test"\nbuiltin_upstreams = false\n'
            f'[admin]\nlisten = "127.0.0.1:{self.admin}"\n'
            f'[store]\npath = "{directory}/store"\ncapacity = "{capacity}"\nmanifests = "4MiB"\nmin_free = "1GiB"\n'
            f"[log]\naccess = {str(access).lower()}\n"
            f'[[upstream]]\nname = "bench.test"\nendpoints = ["http://127.0.0.1:{upstream}"]\n{secured}'
        )
        scheme = "https" if identity else "http"
        super().__init__("cachalot", port, [binary, "serve", "--config", config], log, scheme)

    def metric(self, prefix):
        """The sum of the series that begin so."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(prefix))


class Ground:
    """The temporary directory, the content that is served, and the servers over it."""

    def __init__(self, work, binary, load, limit):
        self.work, self.binary, self.load_binary, self.limit = work, binary, load, limit
        self.log = open(work / "servers.log", "ab")
        self.running = []
        self.content = work / "content" / "v2" / "bench" / "app"
        for kind in ("blobs", "manifests", "referrers"):
            (self.content / kind).mkdir(parents=True)
        self.made = 0

    def add_blob(self, mib):
        """Makes a blob of so many MiB that no server has seen, and returns its path and digest."""
        self.made += 1
        draft = self.work / "draft"
        hasher = hashlib.sha256()
        with open(draft, "wb") as file:
            for _ in range(mib):
                part = os.urandom(MIB)
                hasher.update(part)
                file.write(part)
        draft.rename(self.content / "blobs" / f"sha256:{hasher.hexdigest()}")
        return f"/v2/bench/app/blobs/sha256:{hasher.hexdigest()}", hasher.hexdigest()

    def add_manifest(self):
        config = b"{}"
        digest = "sha256:" + hashlib.sha256(config).hexdigest()
        (self.content / "blobs" / digest).write_bytes(config)
        descriptor = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(config)}
        layers = [dict(descriptor, mediaType="application/vnd.oci.image.layer.v1.tar+gzip") for _ in range(8)]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": descriptor, "layers": layers}
        text = json.dumps(manifest).encode()
        name = "sha256:" + hashlib.sha256(text).hexdigest()
        (self.content / "manifests" / name).write_bytes(text)
        referrer = dict(descriptor, mediaType=MANIFEST_TYPE, artifactType="application/vnd.example.signature")
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [referrer]}
        (self.content / "referrers" / name).write_text(json.dumps(index))
        return f"/v2/bench/app/manifests/{name}"

    def make_identity(self):
        """Makes a certificate for the loopback address, its own authority, and returns its file and that of its key."""
        certificate, key = self.work / "server.pem", self.work / "server.key"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate]
        subprocess.run(command, check=True, stdout=self.log, stderr=self.log)
        return certificate, key

    def nginx(self, name, servers, identity=None):
        """Starts an nginx with one worker and these server blocks; the first port is the one to wait for.

        With `identity`, files of a certificate and its key, they all speak TLS.
        """
        directory = self.work / f"{name}-{self.made}-{free_port()}"
        directory.mkdir()
        directory.chmod(0o755)
        secured = " ssl; ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3".format(*identity) if identity else ""
        blocks = "\n".join(f"server {{ listen 127.0.0.1:{port}{secured}; {body} }}" for port, body in servers)
        config = directory / "nginx.conf"
        config.write_text(
            f"daemon off; user root; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;\n"
            "worker_rlimit_nofile 20000; events { worker_connections 8000; }\n"
            "http {\n"
            "log_format bytes '$server_port $request_method $uri $status $body_bytes_sent';\n"
            "access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n"
            f"default_type application/octet-stream; client_body_temp_path {directory}/body;\n"
            f"proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;\n"
            f"uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;\n"
            f"proxy_cache_path {directory}/cache levels=1:2 keys_zone=cache:16m max_size=64g inactive=1h;\n"
            f"{blocks}\n}}\n"
        )
        command = ["nginx", "-c", config, "-e", directory / "error.log"]
        return self.run(Server(name, servers[0][0], command, self.log, "https" if identity else "http"))

    def registry_body(self, more=""):
        """A registry of static files; every answer's bytes are logged."""
        return (
            f"root {self.work}/content; location = /v2/ {{ return 200; }} "
            f"location /v2/bench/app/manifests/ {{ default_type {MANIFEST_TYPE}; }} "
            f"location /v2/bench/app/referrers/ {{ default_type {INDEX_TYPE}; }} {more}"
        )

    def start_origin(self):
        """The upstream of all caches: one port without a limit, one that limits each connection."""
        self.origin_log = self.work / "origin.log"
        self.free, self.limited, self.status = free_port(), free_port(), free_port()
        logged = f"access_log {self.origin_log} bytes;"
        return self.nginx(
            "origin",
            [
                (self.free, self.registry_body(logged)),
                # Without the second, each request would begin with 2 MiB at full speed.
                (self.limited, self.registry_body(f"{logged} limit_rate {self.limit}; sendfile_max_chunk 128k;")),
                (self.status, "location / { stub_status; }"),
            ],
        )

    def sent(self, path):
        """Bytes of bodies that the upstream has sent for a path, once all its requests have ended."""
        wait_until("the end of all transfers", self.origin_rests)
        total = 0
        for line in self.origin_log.read_text().splitlines():
            _, _, uri, status, count = line.split()
            if uri == path and status in ("200", "206"):
                total += int(count)
        return total

    def origin_rests(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status}/") as answer:
            # This very request is one that is being written.
            return b"Writing: 1 " in answer.read()

    def start_static(self, identity=None):
        return self.nginx("nginx", [(free_port(), self.registry_body())], identity)

    def start_proxy_cache(self, upstream, identity=None):
        body = (
            f"location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_cache cache; proxy_cache_valid 200 206 1h; "
            "proxy_cache_lock on; proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h; proxy_http_version 1.1; "
            "proxy_max_temp_file_size 0; proxy_set_header Connection ''; }"
        )
        return self.nginx("proxy_cache", [(free_port(), body)], identity)

    def start_registry(self, upstream):
        port, directory = free_port(), self.work / f"registry-{free_port()}"
        directory.mkdir()
        config = directory / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n"
            f"storage: {{ filesystem: {{ rootdirectory: {directory} }} }}\n"
            f"http: {{ addr: 127.0.0.1:{port} }}\nproxy: {{ remoteurl: 'http://127.0.0.1:{upstream}' }}\n"
        )
        return self.run(Server("docker-registry", port, ["docker-registry", "serve", config], self.log))

    def start_cachalot(self, upstream, name=None, **more):
        directory = self.work / (name or f"cachalot-{free_port()}")
        return self.run(Cachalot(self.binary, directory, upstream, self.log, **more))

    def run(self, server):
        self.running.append(server)
        return server

    def load(self, url, **options):
        """Downloads, and returns what the load client saw."""
        command = [self.load_binary, "--url", url]
        for key, value in options.items():
            command += [f"--{key}", str(value)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=pinning(CLIENT))
        return json.loads(done.stdout)

    def load_beside(self, url, **options):
        command = [self.load_binary, "--url", url]
        for key, value in options.items():
            command += [f"--{key}", str(value)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def stop(self, *servers):
        for server in servers:
            server.stop()
            self.running.remove(server)

    def clean_up(self):
        for server in self.running:
            server.stop()
        shutil.rmtree(self.work, ignore_errors=True)


def is_right(url, digest):
    """True when the answer is 200 and its bytes have the digest."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return hashlib.sha256(answer.read()).hexdigest() == digest
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
