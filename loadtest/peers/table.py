"""The table of a comparison, and all its figures as JSON, from the raw results in a folder."""

import json
from pathlib import Path
from statistics import median

#: What the results are compared with.
BASE = "fanwire"


def table(folder: Path, order: list[str]) -> str:
    """The table as Markdown; `peers.json` in the same folder has what it is made of."""
    described = json.loads((folder / "servers.json").read_text())
    names = [name for name in order if any(folder.glob(f"*-{name}-*.json")) or (folder / f"idle-{name}.json").is_file()]
    results = {name: figures(folder, name) for name in names}
    machine = next((result["machine"] for result in results.values() if result["machine"]), {})
    whole = {"machine": machine, "servers": {name: described.get(name, {}) | result for name, result in results.items()}}
    (folder / "peers.json").write_text(json.dumps(whole, indent=2) + "\n")
    return "\n".join([machine_line(machine), "", *rows(described, results), "", *failures(results)])


def figures(folder: Path, name: str) -> dict:
    """The medians of one server, and what failed."""
    fanout, latency = runs(folder, f"fanout-{name}-[0-9]*.json"), runs(folder, f"latency-{name}-[0-9]*.json")
    idle = runs(folder, f"idle-{name}.json")
    every = fanout + latency + idle
    result = {
        "machine": next((one["machine"] for one in every if "machine" in one), None),
        "failed": [one["failed"] for one in every if "failed" in one],
        "rounds": len(fanout),
        "fanout": {},
    }
    points = [point for one in fanout for point in measured(one)]
    for label in dict.fromkeys(label for label, _ in points):
        mine = [values for other, values in points if other == label]
        result["fanout"][label] = medians(mine, FANOUT) | {"every_run": [one["deliveries_per_cpu_second"] for one in mine]}
    result["one_message"] = medians([values for one in latency for _, values in measured(one)], LATENCY)
    result["idle"] = medians([values for one in idle for _, values in measured(one)], IDLE)
    if result["idle"]:
        result["idle"]["handshakes_per_cpu_second"] = 1e6 / result["idle"]["handshake_cpu_us"]
    return result


LATENCY = ["latency_p50_ms", "latency_p99_ms"]
FANOUT = ["deliveries_per_cpu_second", "limit_per_cpu_second", "share_of_limit", "frames_per_write"]
FANOUT += ["deliveries_per_second", *LATENCY, "server_cpu", "client_cpu"]
IDLE = ["bytes_per_connection_rested", "handshake_cpu_us"]


def runs(folder: Path, pattern: str) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob(pattern))]


def measured(result: dict) -> list[tuple[str, dict]]:
    """The runs of a result of `fanwire-loadtest`: labels and figures."""
    return [(run["label"], run["figures"]) for scenario in result.get("scenarios", []) for run in scenario["runs"]]


def medians(points: list[dict], names: list[str]) -> dict:
    known = {name: [point[name] for point in points if point.get(name) is not None] for name in names}
    return {name: median(values) for name, values in known.items() if values}


def rows(described: dict, results: dict) -> list[str]:
    labels = list(dict.fromkeys(label for result in results.values() for label in result["fanout"]))
    base = results.get(BASE) or {"fanout": {}, "idle": {}}
    names = ["server"]
    for label in labels:
        names += [f"{label}: frames per write", "deliveries per CPU second", "of the limit"]
    names += ["latency p50 / p99, one subscriber", f"all, {labels[0]}" if labels else "all"]
    names += ["idle connection", "handshakes per CPU second"]
    lines = ["| " + " | ".join(names) + " |", "|--" + "|--:" * (len(names) - 1) + "|"]
    for name, result in results.items():
        server = described.get(name, {})
        cells = [f"{server.get('title', name)} {server.get('version', '')}"]
        for label in labels:
            row, base_row = result["fanout"].get(label, {}), base["fanout"].get(label, {})
            cells.append(digits(row.get("frames_per_write"), 1))
            cells.append(beside(thousands, row, base_row, "deliveries_per_cpu_second"))
            cells.append(digits(row.get("share_of_limit"), 2))
        cells += [latency(result["one_message"], 3), latency(result["fanout"].get(labels[0], {}) if labels else {}, 1)]
        cells.append(beside(grouped, result["idle"], base["idle"], "bytes_per_connection_rested"))
        cells.append(beside(thousands, result["idle"], base["idle"], "handshakes_per_cpu_second"))
        lines.append("| " + " | ".join(cells) + " |")
    return lines + [limit_row(labels, base, len(names))]


def limit_row(labels: list[str], base: dict, columns: int) -> str:
    """What was measured beside Fanwire, at its frames per write."""
    cells = ["raw send(2) loop"]
    for label in labels:
        row = base["fanout"].get(label, {})
        limit = {"deliveries_per_cpu_second": row.get("limit_per_cpu_second")}
        cells += [digits(row.get("frames_per_write"), 1), beside(thousands, limit, row, "deliveries_per_cpu_second"), "1"]
    return "| " + " | ".join(cells + ["–"] * (columns - len(cells))) + " |"


def failures(results: dict) -> list[str]:
    return [
        f"{name}: {len(result['failed'])} measurements failed, the first by {result['failed'][0]}"
        for name, result in results.items()
        if result["failed"]
    ]


def machine_line(machine: dict) -> str:
    return f"{machine.get('cores', '?')} × {machine.get('cpu', '?')}, {machine.get('kernel', '?')}; in brackets ×: times Fanwire's"


def beside(form, mine: dict, base: dict, name: str) -> str:
    """A figure, and how many times Fanwire's it is."""
    value, other = mine.get(name), base.get(name)
    if not value:
        return "–"
    if not other:
        return form(value)
    times = value / other
    return f"{form(value)} (×{times:.2f})" if times < 9.95 else f"{form(value)} (×{times:.0f})"


def latency(row: dict, places: int) -> str:
    if "latency_p50_ms" not in row:
        return "–"
    return f"{row['latency_p50_ms']:.{places}f} / {row['latency_p99_ms']:.{places}f} ms"


def digits(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:.{places}f}"


def thousands(value: float) -> str:
    return f"{value / 1e3:,.0f} k" if value >= 1e5 else f"{value / 1e3:.1f} k"


def grouped(value: float) -> str:
    return f"{value:,.0f} B"
