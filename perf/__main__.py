"""`make bench`: runs benchmarks one after the other, each in its own process, and ends with one table an area.

    python -m perf [metrics|model|data|train|pipelines] [--full|--quick] [--out FOLDER] [NAME ...]
    python -m perf                       # everything at each script's own, small size (minutes)
    python -m perf metrics --full        # one area, at the sizes that the promises are about (long)
    python -m perf metrics/jf encoder    # single benchmarks, with or without their area
    python -m perf metrics --full --write   # and keeps the rows for docs/benchmarks.md
    python -m perf --guard               # the smallest sizes: fails where a ratio fell below 0.8 of the kept one

How a benchmark is found: every file `perf/<area>/<name>.py` with a function `main()` at its
top level is one; its name is the file's without `bench_`. Files without `main()` are helpers. There
is no list to edit. The guard runs those that have a smallest size (`--quick`).

What a benchmark does: its `main()` takes `--json FILE`, and may take `--full` and `--quick` (handed
on to those that mention them); it prints its own table and returns 1, or exits with it, when it
misses a promise. A script that ends in
`return perf.table.finish(rows, options.json)` has its rows in the area's last table; any other one
has a line there with its verdict. Ratios are made inside one script, in one interleaved run on the
same inputs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from hqsam_base import own_code
from hqsam_base.errors import UserError
from hqsam_pipelines.config.env import THREADS
from perf.model.measure import processor
from perf.record import KEPT, guarded, keep, load, save, write_page
from perf.revisions import revision
from perf.table import Row, finish, read_rows, render

HERE = Path(__file__).resolve().parent


def scripts() -> dict[str, Path]:
    """Benchmark `<area>/<name>` to script."""
    found = {}
    for path in sorted(HERE.glob("*/*.py")):
        if "\ndef main(" in path.read_text(encoding="utf-8"):
            found[f"{path.parent.name}/{path.stem.removeprefix('bench_')}"] = path
    return found


def selected(words: list[str], known: list[str]) -> list[str]:
    """The benchmarks that are meant by areas, names, or `<area>/<name>`; all of them without a word.

    Areas and names together mean the names in these areas (`metrics jf`).

    Raises:
        ValueError: a word is none of these.
    """
    areas = {name.partition("/")[0] for name in known}
    chosen = [word for word in words if word in areas]
    names = [word for word in words if word not in areas]
    inside = [name for name in known if not chosen or name.partition("/")[0] in chosen]
    for word in names:
        if not any(word in (name, name.partition("/")[2]) for name in inside):
            raise ValueError(f"no benchmark {word!r}; there are {', '.join(inside)}")
    return [
        name for name in inside if not names or name in names or name.partition("/")[2] in names
    ]


def run(script: Path, out: Path, *, size: str | None) -> tuple[list[Row], float]:
    """Runs one script; returns its rows (one with the verdict if it keeps none) and the seconds it took."""
    out.unlink(missing_ok=True)
    command = [sys.executable, str(script), "--json", str(out)]
    if size is not None and has_size(script, size):
        command.append(size)
    paths = [
        str(script.parent),
        *(str(HERE.parent / part) for part in ("", "datasets", "metrics", "pipelines")),
    ]
    environment = {**THREADS, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    begin = time.monotonic()
    status = subprocess.run(command, env=environment, check=False).returncode
    seconds = time.monotonic() - begin
    rows = read_rows(out)
    if status and not any(row.met is False for row in rows):
        rows = [*rows, Row(script.stem, f"exit status {status}", "0", met=False)]
    return rows or [Row(script.stem, "see above", "its own", met=True)], seconds


def guard(found: dict[str, Path], out: Path, names: Iterable[str], *, write: bool) -> int:
    """Measures what has a smallest size; 1 where a ratio is less than 0.8 of the kept one.

    A benchmark whose ratio is too low runs once more, and the better one counts: another program may
    have had the caches.
    """
    record = load()
    ratios: dict[str, float] = {}
    for name in names:
        for _ in range(2):
            print(f"\n== {name}", flush=True)
            rows, _ = run(found[name], out / "guard.json", size="--quick")
            for row in rows:
                if row.ratio is not None:
                    what = f"{name}: {row.what}"
                    ratios[what] = max(row.ratio, ratios.get(what, 0.0))
            own = {
                what: one for what, one in record["guard"].items() if what.startswith(f"{name}:")
            }
            if all(ratios.get(what, 0.0) >= KEPT * ratio for what, ratio in own.items()):
                break
    if write:
        others = {
            what: ratio
            for what, ratio in record["guard"].items()
            if what.partition(":")[0] not in names
        }
        save(record | {"guard": others | ratios})
        write_page()
        return 0
    kept = {what: r for what, r in record["guard"].items() if what.partition(":")[0] in names}
    return finish(guarded(kept, ratios), None)


def has_size(script: Path, size: str) -> bool:
    """Whether a script knows `--full` or `--quick`."""
    return f'"{size}"' in script.read_text(encoding="utf-8")


def main() -> int:
    """Runs what was asked for; 1 if a benchmark failed or a promise was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="AREA|NAME", help=f"of: {', '.join(scripts())}")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--full",
        action="store_const",
        const="--full",
        dest="size",
        help="the sizes of the promises",
    )
    size.add_argument(
        "--quick", action="store_const", const="--quick", dest="size", help="the smallest sizes"
    )
    size.add_argument(
        "--guard", action="store_true", help="the smallest sizes against the kept ratios"
    )
    parser.add_argument(
        "--write", action="store_true", help="keep what is measured, and write docs/benchmarks.md"
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="write docs/benchmarks.md from what is kept"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(".bench"), help="folder for the JSON files"
    )
    options = parser.parse_intermixed_args()
    try:
        own_code.use(HERE.parent)  # the benchmarks measure the checkout that they lie in
    except UserError as error:
        parser.error(str(error))
    if options.write_docs:
        write_page()
        return 0
    found = scripts()
    try:
        names = selected(options.words, list(found))
    except ValueError as error:
        parser.error(str(error))
    options.out.mkdir(parents=True, exist_ok=True)
    if options.guard:
        small = [name for name in names if has_size(found[name], "--quick")]
        return guard(found, options.out, small, write=options.write)
    areas: dict[str, list[Row]] = {}
    for name in names:
        area, _, short = name.partition("/")
        print(f"\n== {name}", flush=True)
        rows, seconds = run(found[name], options.out / f"{area}-{short}.json", size=options.size)
        print(f"({seconds:.0f} s)", flush=True)
        areas.setdefault(area, []).extend(rows)
        if options.write:
            record = load()
            keep(record, name, rows, revision=revision(), processor=processor())
            save(record)
            write_page()
    for area, rows in areas.items():
        print(f"\n== {area}: the promises\n\n{render(row for row in rows if row.met is not None)}")
    return int(any(row.met is False for rows in areas.values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
