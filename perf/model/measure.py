"""What the model benchmarks share: fresh processes with their peak memory, medians.

Nothing here imports torch: a child's peak memory counts from its parent's size.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perf.revisions import PACKAGE_FOLDERS, ROOT


def in_child(module: str, *words: str, tree: Path = ROOT) -> dict[str, Any]:
    """Run a module as ``MODULE --child WORD ...`` and read the JSON object that it prints as its last line.

    With `tree`, the module of this checkout measures the packages of another one.
    """
    script = ROOT / f"{module.replace('.', '/')}.py"
    paths = os.pathsep.join(str(tree / folder) for folder in PACKAGE_FOLDERS)
    done = subprocess.run(
        [sys.executable, str(script), "--child", *words],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_mb(who: int = resource.RUSAGE_SELF) -> int:
    """Largest resident set of this process (or of its largest child) so far, MB."""
    return round(resource.getrusage(who).ru_maxrss / 1024)


def median(values: Sequence[float]) -> float:
    """Of repeated measurements."""
    return statistics.median(values)


def processor() -> str:
    """The processor's name."""
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    )
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
