"""The examples of docs/publishing.md, as they stand there, each with its own tool."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import urllib.request

import fanwire

ADDRESS = "127.0.0.1:8010"
KEY = "a-key-of-sixteen-or-more-characters"

CONFIG = f"""
[[api_key]]
name = "backend"
secret = "{KEY}"

[[namespace]]
name = "chat"
history_size = 100
history_ttl = "5m"
"""

# How a block of a language is run: its file, and the command before its name.
LANGUAGES = {
    "sh": ("example.sh", ["sh", "-eu"]),
    "python": ("example.py", [sys.executable]),
    "js": ("example.mjs", ["node"]),
    "go": ("example.go", ["go", "run"]),
    "php": ("example.php", ["php"]),
}

# Go compiles its library when it runs for the first time; later runs find it in .test/.
LIMIT = 600


def examples():
    """The blocks of the page: language, text, and what they publish."""
    page = (fanwire.ROOT / "docs" / "publishing.md").read_text()
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        words = re.search(r"from \w+", text)
        # The data of gRPC is in base64.
        yield language, text, words[0] if words else "from grpcurl"


class PublishingTest(unittest.TestCase):
    def test_each_example_publishes(self):
        left_out, published = [], []
        with fanwire.Gateway(CONFIG) as gateway, tempfile.TemporaryDirectory(prefix="fanwire-e2e-") as folder:
            folder = pathlib.Path(folder)
            # The gateway's own program under its name.
            (folder / "bin").mkdir()
            (folder / "bin" / "fanwire").symlink_to(pathlib.Path(fanwire.BINARY).resolve())
            environment = os.environ | {
                "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "GOCACHE": str(fanwire.ROOT / ".test" / "go"),
                "GO111MODULE": "off",
            }
            for language, text, words in examples():
                name, command = LANGUAGES[language]
                tool = "grpcurl" if "grpcurl" in words else command[0]
                if shutil.which(tool) is None:
                    left_out.append(f"{tool} ({words})")
                    continue
                self.assertIn(ADDRESS, text)
                file = folder / name
                file.write_text(text.replace(ADDRESS, gateway.control.removeprefix("http://")))
                with self.subTest(words):
                    run = subprocess.run(
                        [*command, file], cwd=fanwire.ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
                    )
                    self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
                    self.assertIn(words, self.history(gateway), run.stdout + run.stderr)
                    published.append(words)
        self.assertEqual(len(published) + len(left_out), 8, "the page has another number of examples")
        print(f"published: {', '.join(published)}")
        if left_out:
            print(f"NOT RUN, for their tool is not here: {', '.join(left_out)}")
        # These tools are installed with the others; Go is used where it is there, and grpcurl where Go could install it.
        for words in ("from curl", "from fanwire", "from cent", "from Python", "from Node", "from PHP"):
            self.assertIn(words, published)
        if shutil.which("go"):
            self.assertIn("from Go", published)

    def history(self, gateway):
        body = json.dumps({"channel": "chat:lobby", "limit": -1}).encode()
        request = urllib.request.Request(f"{gateway.control}/api/history", body, {"X-API-Key": KEY})
        with urllib.request.urlopen(request, timeout=fanwire.LIMIT) as answer:
            publications = json.load(answer)["result"]["publications"]
        return [publication["data"]["text"] for publication in publications]


if __name__ == "__main__":
    unittest.main()
