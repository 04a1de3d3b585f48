"""What the model benchmarks share: fresh processes with their peak memory, medians.

Nothing here imports torch: a child's peak memory counts from its parent's size.
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def in_child(module: str, *words: str) -> dict[str, Any]:
    """Run ``python -m MODULE --child WORD ...`` and read the JSON object that it prints as its last line."""
    command = [sys.executable, "-m", module, "--child", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
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
