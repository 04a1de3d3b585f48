"""Runs all benchmarks of the metrics and prints one table; exit code 1 when a promised ratio is missed.

    python benchmarks/metrics/run.py [--full] [--json FILE]

Ratios are taken in one run on the same files. Small sizes by default; --full are the sizes that the promises are about.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPTS = ("bench_boundary_ap.py", "bench_growth.py", "bench_jf.py", "bench_lvis.py")


def flat(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Returns (what, value, verdict) lines of one result row."""
    name = str(row.get("workload") or row.get("case"))
    if "times_ours" in row:
        name += f" ratio {row['dilation_ratio']}" if "dilation_ratio" in row else ""
        lines = [(f"{name}: {k}", f"{v:.3f} s", "") for k, v in row["seconds"].items()]
        verdict = {k: "met" if v else "MISSED" for k, v in row["met"].items()}
        lines += [
            (f"{name}: times as fast as {k}", f"{v:.1f}", verdict.get(k, "")) for k, v in row["times_ours"].items()
        ]
        return lines
    value = f"{row.get('seconds', row.get('cpu_seconds'))} s, {row['peak_gb']} GB"
    value += f", {row['relative']} of base" if "relative" in row else ""
    return [(name, value, {True: "met", False: "MISSED", None: ""}[row.get("met")])]


def main() -> int:
    """Runs the scripts one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for script in SCRIPTS:
            out = Path(temporary) / "out.json"
            command = [sys.executable, str(HERE / script), "--json", str(out), *(["--full"] if options.full else [])]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            results[script.removesuffix(".py")] = json.loads(out.read_text())
    lines = [line for rows in results.values() for row in rows for line in flat(row)]
    width = max(len(what) for what, _, _ in lines)
    for what, value, verdict in lines:
        print(f"{what:<{width}}  {value:>24}  {verdict}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(any(verdict == "MISSED" for _, _, verdict in lines))


if __name__ == "__main__":
    sys.exit(main())
