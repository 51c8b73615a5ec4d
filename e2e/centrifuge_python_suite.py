"""Runs the test-suite of centrifuge-python, as its authors publish it, against `fanwire`.

    .test/venv/bin/python e2e/centrifuge_python_suite.py [--only PATTERN] [--timeout SECONDS]

The suite comes with the source distribution of the package and is unpacked below `.test/`. Its tests of a live server have
the address localhost:8000 built in, share one user, and mostly wait without a limit: so they run one after the other, each
in a process of its own that is ended when its time is up. The others bring a fake server and run beside them.
"""

import argparse
import concurrent.futures
import fnmatch
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSION = "0.7.0"
HOME = ROOT / ".test" / "centrifuge-python"
SUITE = HOME / f"centrifuge_python-{VERSION}"
CONFIG = ROOT / "e2e" / "centrifuge-python.toml"
PORT = 8000
LIVE_MODULE = "tests.test_client"
# All that the release is known to contain: a listing that lost some must not pass.
LIVE_TESTS, OTHER_TESTS = 62, 123

LIST_TESTS = """
import sys, unittest
def walk(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from walk(item)
        else:
            yield item.id()
print("\\n".join(walk(unittest.defaultTestLoader.discover("tests", top_level_dir="."))))
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fetch", action="store_true", help="only fetch the suite")
    parser.add_argument("--only", default="*", help="run the tests whose name matches this pattern")
    parser.add_argument("--timeout", type=float, default=30, help="seconds for each live test")
    args = parser.parse_args()

    fetch()
    if args.fetch:
        return
    names = run(["-c", LIST_TESTS], timeout=60, check=True).stdout.split()
    live = [name for name in names if name.startswith(LIVE_MODULE + ".")]
    others = [name for name in names if not name.startswith(LIVE_MODULE + ".")]
    if (len(live), len(others)) != (LIVE_TESTS, OTHER_TESTS):
        sys.exit(f"the suite lists {len(live)} + {len(others)} tests, not {LIVE_TESTS} + {OTHER_TESTS}: {others[-3:]}")
    live = [name for name in live if fnmatch.fnmatch(name, f"*{args.only}*")]
    others = [name for name in others if fnmatch.fnmatch(name, f"*{args.only}*")]

    require_free_port()
    with Server(), concurrent.futures.ThreadPoolExecutor() as pool:
        rest = pool.submit(run_together, others)
        failed = [name for name in live if not run_alone(name, args.timeout)]
        rest_failed = rest.result()
    passed = len(live) - len(failed)
    print(f"against fanwire: {passed} of {len(live)} passed")
    print(f"self-contained: {'some failed' if rest_failed else 'all passed'} ({len(others)} tests)")
    for name in failed:
        print(f"  failed: {name}")
    sys.exit(1 if failed or rest_failed or not live + others else 0)


def fetch():
    """Unpacks the source distribution below `.test/`, once."""
    if SUITE.is_dir():
        return
    HOME.mkdir(parents=True, exist_ok=True)
    requirement = f"centrifuge-python=={VERSION}"
    command = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "centrifuge-python", "--dest", HOME]
    subprocess.run([sys.executable, *command, requirement], check=True)
    # Unpacked aside and renamed: a folder that is there is whole.
    unpacked = HOME / "unpacked"
    shutil.unpack_archive(HOME / f"{SUITE.name}.tar.gz", unpacked)
    (unpacked / SUITE.name).rename(SUITE)


def require_free_port():
    for host in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((host, PORT), timeout=1).close()
        except OSError:
            continue
        sys.exit(f"port {PORT} of {host} is taken, and the suite of centrifuge-python can use no other: free it first")


class Server:
    """A `fanwire` with the committed configuration, for as long as the block lasts."""

    def __enter__(self):
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        binary = os.environ.get("FANWIRE_BIN", target / "release" / "fanwire")
        if not os.access(binary, os.X_OK):
            sys.exit(f"{binary} is missing: cargo build --release -p fanwire")
        self.log = HOME / "fanwire.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [binary, "serve", "--config", CONFIG], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self.wait_until_it_answers()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, *_):
        died = self.process.poll()
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            sys.exit("fanwire did not end on SIGTERM within 15 s")
        if died is not None:
            sys.exit(f"fanwire ended by itself with {died}:\n{self.tail()}")

    def wait_until_it_answers(self):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                sys.exit(f"fanwire did not start:\n{self.tail()}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/connection/websocket", timeout=1)
                return
            except urllib.error.HTTPError:
                # Any answer is one; this endpoint has only errors for a plain GET.
                return
            except OSError:
                time.sleep(0.05)
        sys.exit(f"fanwire did not answer within 10 s:\n{self.tail()}")

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])


def run_alone(name, timeout):
    """Runs one test in a process of its own; prints and returns whether it passed."""
    started = time.monotonic()
    try:
        result = run(["-m", "unittest", name], timeout=timeout)
    except subprocess.TimeoutExpired as expired:
        passed, output = False, f"no end after {timeout:g} s\n{text(expired.stderr)}"
    else:
        passed, output = result.returncode == 0 and "Ran 1 test" in result.stderr, result.stderr
    took = time.monotonic() - started
    print(f"{'ok    ' if passed else 'FAILED'} {name.removeprefix(LIVE_MODULE + '.')} ({took:.1f} s)", flush=True)
    if not passed:
        print("    " + "\n    ".join(output.splitlines()[-25:]), flush=True)
    return passed


def run_together(names):
    """Runs the tests in one process; prints what it says and returns whether any failed."""
    if not names:
        return False
    try:
        result = run(["-m", "unittest", *names], timeout=240)
    except subprocess.TimeoutExpired as expired:
        print(f"the self-contained tests had not ended after 240 s\n{text(expired.stderr)[-4000:]}")
        return True
    failed = result.returncode != 0 or f"Ran {len(names)} test" not in result.stderr
    if failed:
        print(result.stderr[-8000:])
    return failed


def run(arguments, timeout, check=False):
    # A proxy of the machine would come between the tests and the servers they start.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=SUITE,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=check,
    )


def text(output):
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


if __name__ == "__main__":
    main()
