"""reports/provenance.json: what each stage run cost and on what it ran.

Not a DVC output: it differs each time. Every stage process adds its own entry under a lock; the
top-level run adds the total.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from hqsam_base.atomic import atomic_file, json_bytes
from hqsam_base.digest import sha256_file
from hqsam_base.locks import locked
from hqsam_pipelines.config import env
from hqsam_pipelines.config.origin import git_state, host
from hqsam_pipelines.runner.clock import process_start_time

LIBRARIES = (
    "dvc",
    "great-expectations",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "prefect",
    "pyarrow",
    "pycocotools",
    "segment-anything",
    "torch",
    "torchvision",
    "webdataset",
)

VERSION = 1


@dataclass(frozen=True)
class Cost:
    """What one stage run cost.

    Attributes:
        wall_s: From the start of the process to the end of the stage.
        cpu_s: User and system time of the process and of the children that it waited for.
        peak_mb: Largest resident set of the process or of one child, in MiB.
        library_s: Inside the library's entry point.
        framework_s: The rest of `wall_s`: interpreter, imports, parameters, Prefect.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    library_s: float
    framework_s: float


class Clock:
    """Measures one stage run; `library_begin` and `library_end` mark the library call (retries add up)."""

    def __init__(self, process_start: float | None = None) -> None:
        self._start = process_start if process_start is not None else process_start_time()
        self._library = 0.0
        self._mark: float | None = None

    def library_begin(self) -> None:
        """The library's entry point is called now."""
        self._mark = time.monotonic()

    def library_end(self) -> None:
        """The library's entry point has returned or raised."""
        if self._mark is not None:
            self._library += time.monotonic() - self._mark
            self._mark = None

    def cost(self) -> Cost:
        """The cost so far."""
        wall = time.time() - self._start
        own, children = (
            resource.getrusage(resource.RUSAGE_SELF),
            resource.getrusage(resource.RUSAGE_CHILDREN),
        )
        cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        own_peak = own.ru_maxrss / _MAXRSS_UNIT
        # `ru_maxrss` alone would count what was forked before `exec`.
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    own_peak = int(line.split()[1]) / 2**10
        peak = max(own_peak, children.ru_maxrss / _MAXRSS_UNIT)
        rounded = (
            round(value, 2) for value in (wall, cpu, peak, self._library, wall - self._library)
        )
        return Cost(*rounded)


_MAXRSS_UNIT = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes there, KiB elsewhere


def path(root: Path) -> Path:
    """`reports/provenance.json` of this checkout."""
    return root / "reports" / "provenance.json"


def read(root: Path) -> dict[str, Any]:
    """The file's content, or an empty one if it does not exist or is damaged."""
    try:
        value = json.loads(path(root).read_text())
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict) or value.get("version") != VERSION:
        return {"version": VERSION, "stages": {}, "runs": {}}
    return value


def record_stage(
    root: Path, name: str, cost: Cost, figures: Mapping[str, float] | None = None
) -> None:
    """Enter one finished stage run.

    Args:
        root: The repository.
        name: The DVC stage name, for example `fetch@dis5k`.
        cost: What it cost.
        figures: What the stage says of its own speed.
    """
    # Outside the lock: the slow part.
    lock = root / "requirements.lock"
    digest = sha256_file(lock)[:16] if lock.is_file() else ""
    about = {
        "git": git_state(root),
        "host": {**host(), "lock": digest},
        "libraries": libraries(),
    }
    with locked(env.make_state_dir(root) / "provenance.lock", timeout=60):
        value = read(root)
        value["stages"][name] = {**asdict(cost), "git": about["git"]["commit"]}
        if figures:
            value["stages"][name]["figures"] = dict(figures)
        value |= about
        _write(root, value)


def record_run(
    root: Path, name: str, *, wall_s: float, stages: list[str], known: list[str] | None = None
) -> None:
    """Enter the total of a run over many stages and forget stages that the pipeline no longer has.

    Args:
        root: The repository.
        name: `repro` or `demo`.
        wall_s: Wall time of the whole run, DVC included.
        stages: The stages that ran, as DVC names.
        known: All stages of the pipeline, or None to keep every entry.
    """
    with locked(env.make_state_dir(root) / "provenance.lock", timeout=60):
        value = read(root)
        if known is not None:
            value["stages"] = {key: cost for key, cost in value["stages"].items() if key in known}
        costs = [value["stages"][key] for key in stages if key in value["stages"]]
        library = sum(cost["library_s"] for cost in costs)
        value["runs"][name] = {
            "wall_s": round(wall_s, 2),
            "stages": len(costs),
            "library_s": round(library, 2),
            # Honest for one stage after another; with fan-out the stages overlap and this is a
            # lower bound.
            "framework_s": round(max(0.0, wall_s - library), 2),
            "cpu_s": round(sum(cost["cpu_s"] for cost in costs), 2),
            "peak_mb": max((cost["peak_mb"] for cost in costs), default=0.0),
        }
        _write(root, value)


def _write(root: Path, value: dict[str, Any]) -> None:
    path(root).parent.mkdir(exist_ok=True)
    with atomic_file(path(root)) as file:
        file.write(json_bytes(value))


def libraries() -> dict[str, str]:
    """Versions of the libraries that can move a number, read without importing them."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
