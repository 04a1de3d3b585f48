"""docs/reliability.md from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from drills.faults import KINDS

HEAD = """# Reliability

Written by `make drills` from the lines of `drills/results/`; do not edit it.

A drill runs `hqsam repro score@coco-nano` in a clone on the profile `tiny`, whose stages `fetch`, `index`, `predict` and
`score` of COCO are to be done. It injects one fault at a moment drawn from a seed, or as soon after it as there is something
to kill, runs the command again, and compares every file of `data/`, `models/` and `reports/metrics/` with those of an
undisturbed run. Afterwards it stops the stage host and the server and counts the processes and temporary files that are left.
A kind with 0 injections says nothing about that fault.

| kind | fault | injected | run ended | rerun failed | files differing | processes left | temporary files left |
|---|---|---|---|---|---|---|---|
"""
COUNTED = ("run_ended", "rerun_failed", "files_differing", "processes_left", "temporary_left")
ONLY_HERE_THE_RUN_ENDS = "run"


def write(page: Path, results: Mapping[str, Sequence[Mapping[str, str]]]) -> bool:
    """Write the page and return whether any result is other than it should be.

    Args:
        page: The file.
        results: The lines of each kind's file of results.
    """
    lines, notes, wrong = [], [], False
    for name, kind in KINDS.items():
        rows = [row for row in results.get(name, ()) if row["injected"] == "1"]
        sums = [sum(int(row[column]) for row in rows) for column in COUNTED]
        shown = [str(number) for number in sums] if rows else ["-"] * len(sums)
        told = [name, kind.says, f"{len(rows)} of {kind.wanted}", *shown]
        lines.append(f"| {' | '.join(told)} |\n")
        wrong |= any(sums[1:]) or (sums[0] > 0 and name != ONLY_HERE_THE_RUN_ENDS)
        notes += [
            f"- {name}, number {row['number']}: {row['note']}\n" for row in rows if row["note"]
        ]
    after = "".join(["\n## Notes\n\n", *notes]) if notes else ""
    page.write_text(HEAD + "".join(lines) + after, encoding="utf-8")
    return wrong
