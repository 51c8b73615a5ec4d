"""Runs a gateway for a test."""

import os
import pathlib
import re
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = os.environ.get("FANWIRE_BIN", TARGET / "release" / "fanwire")

# Seconds; no step of a test takes longer.
LIMIT = 15

# The environment without a proxy, which would come between tests and gateway, and without a gateway's settings.
for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("FANWIRE__")]:
    del os.environ[name]


class Gateway:
    """A gateway with this configuration (TOML without `[listen]` and `[log]`), for as long as the block lasts.

    The system chooses its ports. `public`, `control` and `ops` are the addresses of its listeners.
    """

    def __init__(self, config=""):
        self.config = config

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="fanwire-e2e-")
        file = pathlib.Path(self.folder.name, "fanwire.toml")
        listen = "".join(f'{name} = "127.0.0.1:0"\n' for name in ("public", "control", "ops"))
        file.write_text(f'[listen]\n{listen}[log]\nlevel = "warn"\n[drain]\ngrace = "0s"\n{self.config}')
        self.log = pathlib.Path(self.folder.name, "log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [BINARY, "serve", "--config", file],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        # Ends the reading below, should the gateway hang.
        timer = threading.Timer(LIMIT, self.process.kill)
        timer.start()
        try:
            for listener in ("public", "control", "ops"):
                setattr(self, listener, self.announced(listener))
            self.wait_until_ready()
        except BaseException:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.folder.cleanup()
            raise
        finally:
            timer.cancel()
        return self

    def __exit__(self, *_):
        try:
            self.process.terminate()
            code = self.process.wait(timeout=LIMIT)
            assert code == 0, f"the gateway ended with {code}:\n{self.log.read_text()}"
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.folder.cleanup()

    def announced(self, listener):
        for line in self.process.stdout:
            if found := re.match(rf" *{listener} +(http://\S+)", line):
                return found[1]
        raise AssertionError(f"{BINARY} did not start:\n{self.log.read_text()}")

    def wait_until_ready(self):
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.ops}/health/ready", timeout=LIMIT).close()
                return
            except urllib.error.URLError:
                time.sleep(0.01)
        raise AssertionError("the gateway was not ready in time")

    def url(self, path="/connection/websocket"):
        """The address of a client protocol's endpoint."""
        return self.public.replace("http:", "ws:") + path
