"""Judges a report of Autobahn|Testsuite: prints the verdicts, fails on a bad one, writes a Markdown summary on demand."""

import argparse
import collections
import json
import pathlib
import sys

GOOD = {"OK", "INFORMATIONAL", "NON-STRICT"}
GROUPS = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Opcodes",
    "5": "Fragmentation",
    "6": "UTF-8 handling",
    "7": "Close handling",
    "9": "Limits and performance",
    "10": "Auto-fragmentation",
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("index", type=pathlib.Path, help="the report's index.json")
    parser.add_argument("--expect", type=int, required=True, help="how many cases must have run")
    parser.add_argument("--summary", type=pathlib.Path, help="a Markdown file to write")
    args = parser.parse_args()

    agents = json.loads(args.index.read_text())
    cases = next(iter(agents.values()), {})
    problems = [
        f"{case}: {result['behavior']}, close {result['behaviorClose']}"
        for case, result in sorted(cases.items(), key=lambda item: order(item[0]))
        if not acceptable(case, result)
    ]
    if len(cases) != args.expect:
        problems.append(f"{len(cases)} cases ran, not {args.expect}")

    verdicts = collections.Counter(result["behavior"] for result in cases.values())
    print(f"{len(cases)} cases: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))
    if args.summary:
        args.summary.write_text(summary(cases))
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


def acceptable(case, result):
    """Whether the verdict passes.

    NON-STRICT in 6.4 means that invalid UTF-8 was only noticed at the end of the message: the gateway promises better.
    """
    if result["behavior"] == "NON-STRICT" and case.startswith("6.4."):
        return False
    return result["behavior"] in GOOD and result["behaviorClose"] in GOOD


def summary(cases):
    columns = ["OK", "NON-STRICT", "INFORMATIONAL"]
    rows = collections.defaultdict(collections.Counter)
    for case, result in cases.items():
        verdict = result["behavior"] if acceptable(case, result) else "failed"
        rows[case.split(".")[0]][verdict] += 1

    lines = [
        "# RFC 6455 conformance",
        "",
        "Autobahn|Testsuite 25.10.1 against the echo example of `crates/net`: the WebSocket layer of the gateway itself.",
        "Written by `e2e/autobahn.sh --all --summary docs/autobahn.md`.",
        "",
        "| cases | about | run | OK | non-strict | informational | failed |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for group in sorted(rows, key=int):
        counts = rows[group]
        cells = [f"{group}.*", GROUPS[group], sum(counts.values()), *(counts[column] for column in columns), counts["failed"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    total = sum(rows.values(), collections.Counter())
    cells = ["all", "", sum(total.values()), *(total[column] for column in columns), total["failed"]]
    lines.append("| " + " | ".join(map(str, cells)) + " |")

    noted = [case for case in sorted(cases, key=order) if cases[case]["behavior"] != "OK"]
    if noted:
        lines += ["", "Other than OK:", ""]
        lines += [f"- {case}: {cases[case]['behavior']}, close {cases[case]['behaviorClose']}" for case in noted]
    return "\n".join(lines) + "\n"


def order(case):
    return [int(part) for part in case.split(".")]


main()
