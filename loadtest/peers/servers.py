"""The servers that are compared: what they need, how they are configured, how they are started.

Each gets one core, memory alone (no history, no persistence), no TLS, no compression, no log of requests, and its defaults for
everything else. Where a server can use more threads than the core carries, it is told that it has one.
"""

import os
import re
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS = HERE / ".tools"
DEBIAN = TOOLS / "debian"
PATIENCE = 20.0


@dataclass
class Place:
    """Where one start of a server happens."""

    port: int
    folder: Path
    fanwire: Path
    redis_port: int | None = None

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True)
class Server:
    """A server under test, in one configuration."""

    name: str
    title: str
    dialect: str
    #: What must be there for it.
    program: Callable[[Path], Path | None]
    #: Its version, asked of the program.
    version: Callable[[Path], str]
    #: Writes what it reads and says how it is started.
    command: Callable[[Place, str], list[str]]
    configuration: str
    path: str = ""
    publish_path: str | None = None
    redis: bool = False
    environment: dict[str, str] = field(default_factory=dict)


class Running:
    """A server that accepts connections, on its core; it ends with the `with` block."""

    def __init__(self, server: Server, fanwire: Path, core: int):
        self.server, self.fanwire, self.core = server, fanwire, core
        self.processes: list[subprocess.Popen] = []

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="fanwire-peer-"))
        try:
            place = Place(free_port(), self.folder, self.fanwire)
            if self.server.redis:
                place.redis_port = free_port()
                redis = [find("redis-server"), "--port", place.redis_port, "--bind", "127.0.0.1", "--save", "", "--dir", self.folder]
                self.spawn("redis", redis, place.redis_port)
            program = self.server.program(self.fanwire)
            self.process = self.spawn("server", self.server.command(place, str(program)), place.port)
            self.url = f"ws://127.0.0.1:{place.port}{self.server.path}"
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def spawn(self, name: str, command: list, port: int) -> subprocess.Popen:
        log = open(self.folder / f"{name}.log", "wb")
        environment = os.environ | {"LD_LIBRARY_PATH": str(libraries())} | self.server.environment
        with log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                preexec_fn=self.prepare,
            )
        self.processes.append(process)
        end = time.monotonic() + PATIENCE
        while not accepts(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.server.name}: {name} does not accept connections:\n{self.log(name)}")
            time.sleep(0.02)
        return process

    def prepare(self):
        os.sched_setaffinity(0, {self.core})
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    def log(self, name: str = "server") -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-20:])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def find(name: str) -> Path | None:
    """A program of our own folder, else of the PATH."""
    for path in (TOOLS / "bin" / name, DEBIAN / "usr/sbin" / name):
        if path.is_file():
            return path
    found = shutil.which(name)
    return Path(found) if found else None


def libraries() -> Path:
    """The libraries of the unpacked Debian packages."""
    return next(DEBIAN.glob("usr/lib/*-linux-gnu"), DEBIAN)


def asked(*arguments: str) -> Callable[[Path], str]:
    """A version that the program prints when it gets `arguments`."""

    def ask(program: Path) -> str:
        environment = os.environ | {"LD_LIBRARY_PATH": str(libraries())}
        answer = subprocess.run([program, *arguments], capture_output=True, text=True, env=environment, timeout=PATIENCE)
        version = re.search(r"\d+\.\d+\.\d+[\w.-]*", answer.stdout + answer.stderr)
        return version[0] if version else "unknown"

    return ask


def package(name: str) -> dict:
    """A server that is a package of npm: the program is Node.js."""

    def program(_: Path) -> Path | None:
        return find("node") if (HERE / "node_modules" / name).is_dir() else None

    def version(node: Path) -> str:
        text = (HERE / "node_modules" / name / "package.json").read_text()
        found = re.search(r'"version": "([^"]+)"', text)
        return f"{found[1] if found else 'unknown'}, Node.js {asked('--version')(node)}"

    return {"program": program, "version": version, "environment": {"NODE_ENV": "production"}}


def nchan_module() -> Path | None:
    return next(DEBIAN.glob("usr/lib/nginx/modules/ngx_nchan_module.so"), None)


def nchan_program(_: Path) -> Path | None:
    return find("nginx") if nchan_module() else None


def fanwire(place: Place, program: str) -> list[str]:
    broker = 'kind = "memory"'
    if place.redis_port:
        broker = f'kind = "redis"\nredis = {{ urls = ["redis://127.0.0.1:{place.redis_port}"] }}'
    text = f"""
[listen]
public = "127.0.0.1:{place.port}"
control = "127.0.0.1:{free_port()}"
ops = "127.0.0.1:{free_port()}"
[broker]
{broker}
[client]
anonymous = true
insecure = true
[node]
workers = 1
[drain]
grace = "0s"
# The others serve whatever comes at once, so a storm of connections is not paced here either.
[admission]
handshakes = 0
connects = 0
subscribes = 0
"""
    return [program, "serve", "--config", place.write("fanwire.toml", text)]


def nginx(place: Place, program: str) -> list[str]:
    text = f"""
daemon off; master_process off; worker_processes 1; user root root;
pid nginx.pid; error_log stderr error;
load_module {nchan_module()};
events {{ worker_connections 19000; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  nchan_message_buffer_length 0;
  server {{
    listen 127.0.0.1:{place.port} backlog=4096;
    location ~ ^/sub/(.+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; nchan_subscriber_first_message newest; }}
    location ~ ^/pub/(.+)$ {{ nchan_publisher websocket; nchan_channel_id $1; }}
  }}
}}
"""
    # With the module loaded, Debian's nginx makes a folder below /var/lib whatever the configuration says: it gets one of
    # its own, in a mount namespace.
    private = 'mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/nginx && exec "$@"'
    start = [program, "-p", str(place.folder), "-c", place.write("nginx.conf", text), "-e", "stderr"]
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", private, "sh", *start]


def nats(place: Place, program: str) -> list[str]:
    text = f"""
listen: 127.0.0.1:{free_port()}
websocket {{ listen: "127.0.0.1:{place.port}", no_tls: true }}
"""
    return [program, "--config", place.write("nats.conf", text)]


def mosquitto(place: Place, program: str) -> list[str]:
    # Debian's refuses to start with nothing but a WebSocket listener.
    text = f"""
listener {free_port()} 127.0.0.1
listener {place.port} 127.0.0.1
protocol websockets
socket_domain ipv4
allow_anonymous true
persistence false
set_tcp_nodelay true
log_type error
user root
"""
    return [program, "-c", place.write("mosquitto.conf", text)]


def centrifugo(place: Place, program: str) -> list[str]:
    text = f'{{"client": {{"insecure": true}}, "http_server": {{"address": "127.0.0.1", "port": {place.port}}}, "log": {{"level": "error"}}}}'
    return [program, "--config", place.write("centrifugo.json", text)]


def ours(binary: Path) -> Path | None:
    return binary if binary.is_file() else None


FANWIRE = {"program": ours, "version": asked("--version"), "command": fanwire}

SERVERS = [
    Server("fanwire", "Fanwire", "native", configuration="one worker, memory broker, no admission control", **FANWIRE),
    Server("fanwire-plain", "Fanwire, plain protocol", "plain", configuration="the same", **FANWIRE),
    Server("fanwire-redis", "Fanwire over Redis", "native", configuration="the same with the Redis broker", redis=True, **FANWIRE),
    Server(
        "ws",
        "ws",
        "plain",
        command=lambda place, node: [node, str(HERE / "ws.mjs"), str(place.port)],
        configuration="ws.mjs: a loop over a Set",
        path="/sub/{channel}",
        publish_path="/pub/{channel}",
        **package("ws"),
    ),
    Server(
        "socket.io",
        "Socket.IO",
        "socket-io",
        command=lambda place, node: [node, str(HERE / "socket_io.mjs"), str(place.port)],
        configuration="socket_io.mjs: a room, WebSocket only",
        **package("socket.io"),
    ),
    Server(
        "socket.io-redis",
        "Socket.IO, Redis adapter",
        "socket-io",
        command=lambda place, node: [node, str(HERE / "socket_io.mjs"), str(place.port), str(place.redis_port)],
        configuration="the same with @socket.io/redis-adapter",
        redis=True,
        **package("socket.io"),
    ),
    Server(
        "nats",
        "NATS",
        "nats",
        program=lambda _: find("nats-server"),
        version=asked("--version"),
        command=nats,
        configuration="WebSocket listener, GOMAXPROCS=1",
        environment={"GOMAXPROCS": "1"},
    ),
    Server(
        "nchan",
        "Nchan",
        "plain",
        program=nchan_program,
        version=lambda program: f"{nchan_version()}, nginx {asked('-v')(program)}",
        command=nginx,
        configuration="one nginx process, no message buffer",
        path="/sub/{channel}",
        publish_path="/pub/{channel}",
    ),
    Server(
        "mosquitto",
        "Mosquitto",
        "mqtt",
        program=lambda _: find("mosquitto"),
        version=asked("-h"),
        command=mosquitto,
        configuration="WebSocket listener, QoS 0, no persistence",
    ),
    Server(
        "centrifugo",
        "Centrifugo",
        "native",
        program=lambda _: find("centrifugo"),
        version=asked("version"),
        command=centrifugo,
        configuration="memory engine, client.insecure, GOMAXPROCS=1",
        environment={"GOMAXPROCS": "1"},
    ),
]


def nchan_version() -> str:
    """The module does not say it; the changelog of its package does."""
    changelog = next(DEBIAN.glob("usr/share/doc/libnginx-mod-nchan/changelog.Debian.*"), None)
    if changelog is None:
        return "unknown version"
    import gzip

    opened = gzip.open(changelog, "rt") if changelog.suffix == ".gz" else open(changelog)
    with opened as text:
        version = re.search(r"\((?:\d+:)?([^)+]+)", text.readline())
    return version[1] if version else "unknown version"
