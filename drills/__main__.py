"""`make drills`: kills parts of a real run at random moments, runs again, and compares with an undisturbed run.

    python -m drills                     # every kind that is built, up to the wanted counts (hours)
    python -m drills dvc host --count 2  # some kinds, and how often at most
    python -m drills --minutes 30        # no new injection after that time
    python -m drills --write             # only writes docs/reliability.md from the results

Each injection is a line in `drills/results/<kind>.csv`, so a command that was ended goes on where
it was. The moment is drawn from the kind and the number of the injection.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil

from drills import checkout
from drills.faults import KINDS, Kind
from drills.page import ONLY_HERE_THE_RUN_ENDS, write
from hqsam_pipelines.runner import server

HERE = Path(__file__).resolve().parent
LAST_MOMENT_S = 12.0
"""Moments are drawn from the seconds that a run takes on a quiet machine; a run without a victim at its moment is waited with."""
PATIENCE_S = 300.0


@dataclass
class Injection:
    """What one injection did."""

    number: int
    moment_s: float
    injected: int = 0
    run_ended: int = 0
    rerun_failed: int = 0
    files_differing: int = 0
    processes_left: int = 0
    temporary_left: int = 0
    note: str = ""


def inject(name: str, number: int, base: Path, expected: dict[str, str], folder: Path) -> Injection:
    """Disturb one run in a copy of the base, run it again, and count what is wrong afterwards."""
    kind, root, temporary = KINDS[name], folder / "checkout", folder / "tmp"
    temporary.mkdir()
    subprocess.run(["cp", "-a", str(base), str(root)], check=True)
    moment = random.Random(f"{name}-{number}").uniform(0, LAST_MOMENT_S)
    done = Injection(number, round(moment, 2))
    log = folder / "log"
    if kind.warm:
        server.ensure(root)
    first = checkout.begin(root, temporary, log)
    try:
        done.injected, second = _disturb(kind, root, first, moment, temporary, log)
        codes = [process.wait(PATIENCE_S) for process in (first, *second)]
        done.run_ended = int(any(codes))
        if done.run_ended and name != ONLY_HERE_THE_RUN_ENDS:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            done.note = next((line for line in reversed(lines) if "ERROR" in line), "")[:160]
        done.rerun_failed = int(checkout.begin(root, temporary, log).wait(PATIENCE_S) != 0)
    except subprocess.TimeoutExpired:
        done.rerun_failed, done.note = 1, "a run hung"
    checkout.stop(root)
    found = checkout.digests(root)
    wrong = [path for path in found.keys() | expected if found.get(path) != expected.get(path)]
    left = checkout.processes(root)
    done.files_differing, done.processes_left = len(wrong), len(left)
    left_files = [path.name for path in temporary.iterdir()]
    done.temporary_left = len(left_files)
    commands = [" ".join(process.cmdline())[:80] for process in left]
    details = sorted(wrong)[:2] + commands[:2] + left_files[:2]
    done.note = "; ".join(filter(None, [done.note, *details])).replace(str(folder), "")
    for process in left:
        process.kill()
    return done


def _disturb(
    kind: Kind, root: Path, run: subprocess.Popen[bytes], moment: float, temporary: Path, log: Path
) -> tuple[int, list[subprocess.Popen[bytes]]]:
    """Inject at the moment or, where there is no victim then, at the first one after it."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(moment if kind.victim is None or not kind.says.endswith("yet") else moment / 4)
    if kind.second_run:
        return int(run.poll() is None), [checkout.begin(root, temporary, log)]
    assert kind.victim is not None
    while run.poll() is None:
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            victim = kind.victim(root, run.pid)
            if victim is not None:
                victim.kill()
                return 1, []
        time.sleep(0.01)
    return 0, []


def read(path: Path) -> list[dict[str, str]]:
    """The injections of a kind that were made before."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def main(argv: list[str] | None = None) -> int:
    """Inject what is missing, one of each kind in turn, and write the page; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m drills")
    parser.add_argument("kinds", nargs="*", help=f"of: {', '.join(KINDS)}; default: all")
    parser.add_argument("--count", type=int, default=20, help="of each kind at most")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "reliability.md")
    parser.add_argument("--write", action="store_true", help="only write the page")
    options = parser.parse_args(argv)
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"unknown kind {min(unknown)!r}; one of: {', '.join(KINDS)}")
    end = time.monotonic() + 60 * options.minutes
    if not options.write:
        with tempfile.TemporaryDirectory(prefix="hqsam-drills-") as name:
            _all(options.kinds or list(KINDS), options.count, end, Path(name), options.results)
    results = {name: read(options.results / f"{name}.csv") for name in KINDS}
    return int(write(options.page, results))


def _all(names: list[str], count: int, end: float, folder: Path, results: Path) -> None:
    results.mkdir(exist_ok=True, parents=True)
    base, expected = checkout.prepare(folder)
    for number in range(count):
        for name in names:
            path = results / f"{name}.csv"
            kept = read(path)
            wanted = number < KINDS[name].wanted and KINDS[name].built
            if not wanted or len(kept) > number or time.monotonic() > end:
                continue
            place = folder / f"{name}-{number}"
            place.mkdir()
            done = inject(name, number, base, expected, place)
            with path.open("a", encoding="utf-8", newline="") as lines:
                columns = [field.name for field in fields(Injection)]
                writer = csv.DictWriter(lines, columns, lineterminator="\n")
                if not kept:
                    writer.writeheader()
                writer.writerow(asdict(done))
            print(name, done, flush=True)
            if not done.note and not done.rerun_failed:
                shutil.rmtree(place)


if __name__ == "__main__":
    sys.exit(main())
