"""loadtest/peers/run: the comparison with other servers, here of Fanwire with itself in three shapes.

The others are not installed by ./test. What they share is shown: servers are started and ended, measured over their dialects, and
the figures get into the table.
"""

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

from fanwire import BINARY, TARGET

SCRIPT = Path(__file__).resolve().parents[1] / "loadtest/peers/run"
SERVERS = ["fanwire", "fanwire-plain", "fanwire-redis"]


class Peers(unittest.TestCase):
    def test_every_server_gets_its_row(self):
        small = "--rounds 1 --seconds 0.1 --warm-up 0.1 --subscribers 20 --window 1,4 --connections 50 --settle 0.1".split()
        with tempfile.TemporaryDirectory() as folder:
            result = subprocess.run(
                [SCRIPT, "fanout", "latency", "idle", "table", "--servers", ",".join(SERVERS), *small]
                + ["--fanwire", BINARY, "--loadtest", TARGET / "debug/fanwire-loadtest", "--out", folder],
                capture_output=True,
                text=True,
                timeout=120,
            )
            self.assertEqual(result.returncode, 0, result.stderr)
            whole = json.loads((Path(folder) / "peers.json").read_text())

        self.assertEqual(list(whole["servers"]), SERVERS)
        for name, server in whole["servers"].items():
            with self.subTest(name):
                self.assertEqual(server["failed"], [], result.stderr)
                self.assertEqual(list(server["fanout"]), ["W = 1", "W = 4"])
                for figures in server["fanout"].values():
                    self.assertGreater(figures["deliveries_per_cpu_second"], 0)
                    self.assertGreater(figures["share_of_limit"], 0)
                self.assertGreater(server["one_message"]["latency_p50_ms"], 0)
                self.assertGreater(server["idle"]["handshakes_per_cpu_second"], 0)
        rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
        # The names, a row for each, the raw loop.
        self.assertEqual(len(rows), 5, result.stdout)
        self.assertTrue(all(row.count("|") == rows[0].count("|") for row in rows), result.stdout)


if __name__ == "__main__":
    unittest.main()
