"""Report and comparison of large sets of masks: processor time and peak memory of the whole process.

    python -m perf pipelines/report [--full]

The run is made up: a miniature one whose eight objects are repeated, each repetition with a name
and scores of its own, three systems a mask. `--full` has 20,000 images of 300 objects for the
report, and 5 million objects at both commits for `hqsam compare`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from perf.table import Row, finish

BENCHMARK = "dis_vd"
AT_ONCE = 500  # images written at once
PROCESS = """
import json, resource, sys
from hqsam_pipelines.cli import main
sys.argv = ["hqsam", *sys.argv[1:]]
try:
    main()
finally:
    own = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([own.ru_utime + own.ru_stime, own.ru_maxrss / 1e6]), file=sys.stderr)
"""
REPORT = """
import json, resource, sys, yaml
from pathlib import Path
from hqsam_pipelines.report.run import build_report
root = Path(sys.argv[1])
build_report(root=root, params=yaml.safe_load((root / "params.yaml").read_text()), out=root / "reports")
own = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([own.ru_utime + own.ru_stime, own.ru_maxrss / 1e6]), file=sys.stderr)
"""


def write_run(root: Path, images: int, objects: int, strength: float) -> None:
    """Write a finished run of one set of masks; `strength` is how wrong HQ-SAM's masks are."""
    from tests.pipelines.report_repo import Repo, params

    for name in ("data", "models", "reports"):
        shutil.rmtree(root / name, ignore_errors=True)
    repo = Repo(root, strength=strength, images=8)
    repo.params = params((BENCHMARK,))
    repo.build()
    (root / "params.yaml").write_text(yaml.safe_dump(repo.params), encoding="utf-8")
    data = root / "data"
    for path, once in (
        (data / f"scores/{BENCHMARK}-nano/instances.parquet", False),
        (data / f"benchmarks/{BENCHMARK}/images.parquet", True),
        (data / f"benchmarks/{BENCHMARK}/instances.parquet", False),
        (data / f"benchmarks/{BENCHMARK}/prompts.parquet", False),
        (data / f"predictions/{BENCHMARK}-nano/part-00000.parquet", False),
    ):
        enlarge(path, images, 1 if once else objects)


def enlarge(path: Path, images: int, objects: int) -> None:
    """Repeat a table's rows under new names; scores move a little at each repetition."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for part in repeated(table, images, objects):
            writer.write_table(part)


def repeated(table: Any, images: int, objects: int) -> Iterator[Any]:
    """The rows of `AT_ONCE` images at a time, by system, image and object."""
    import pyarrow as pa

    rng = np.random.default_rng(0)
    systems = table["system"].to_pylist() if "system" in table.column_names else [""] * len(table)
    for system in sorted(set(systems)):
        rows = np.array([place for place, name in enumerate(systems) if name == system])
        for start in range(0, images, AT_ONCE):
            image = np.repeat(np.arange(start, min(images, start + AT_ONCE)), objects)
            number = np.tile(np.arange(objects), len(image) // objects)
            part = table.take(pa.array(rows[(image + number) % len(rows)]))
            key = [f"image_{i:05d}" for i in image]
            unit = [f"image_{i:05d}_{n:03d}" for i, n in zip(image, number, strict=True)]
            names = {"key": key, "cluster": key, "unit": unit, "prompt_id": unit}
            names["instance_id"] = [f"{text}_gt" for text in unit]
            for place, field in enumerate(table.schema):
                if field.name in names:
                    texts = pa.array(names[field.name], pa.string())
                    part = part.set_column(place, field, texts.cast(field.type))
                elif field.name in ("iou", "biou"):
                    moved = part[field.name].to_numpy() + rng.normal(0, 0.01, len(part))
                    part = part.set_column(place, field, pa.array(np.clip(moved, 0, 1), field.type))
            yield part


def measured(root: Path, code: str, *words: str) -> tuple[float, float]:
    """Processor seconds and peak memory in GB of a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=root, capture_output=True, text=True
    )
    if done.returncode not in (0, 1):  # 1: a headline row is worse
        raise RuntimeError(done.stdout + done.stderr)
    seconds, peak = json.loads(done.stderr.splitlines()[-1])
    return seconds, peak


def compared(root: Path, images: int, objects: int) -> tuple[float, float]:
    """Two commits of a new repository, then `hqsam compare` between them."""
    root.mkdir()
    dvc = [sys.executable, "-m", "dvc"]
    score = {
        "cmd": "true",
        "outs": [
            f"data/scores/{BENCHMARK}-nano",
            {f"reports/metrics/{BENCHMARK}-nano.json": {"cache": False}},
        ],
    }
    commands = [["git", "init", "-q"], [*dvc, "init", "-q"]]
    for strength in (0.3, 0.03):
        for command in commands:
            subprocess.run(command, cwd=root, check=True, capture_output=True)
        write_run(root, images, objects, strength)
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"score": score}}))
        (root / ".gitignore").write_text("/data\n/models\n")
        commands = []
        for command in (
            [*dvc, "commit", "-f", "-q"],
            ["git", "add", "-f", "params.yaml", "dvc.yaml", "dvc.lock", "reports", ".gitignore"],
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", str(strength)],
        ):
            subprocess.run(command, cwd=root, check=True, capture_output=True)
    return measured(root, PROCESS, "compare", "HEAD~1", "HEAD", "-q")


def main() -> int:
    """Prints the table; 1 when time or memory is above its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="20,000 images of 300 objects")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    images, objects = (20_000, 300) if options.full else (500, 30)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "report"
        root.mkdir()
        write_run(root, images, objects, 0.03)
        report = measured(root, REPORT, str(root))
        shutil.rmtree(root)
        pairs = images * 5 // 6
        comparison = compared(Path(temporary) / "compare", pairs, objects)
    rows = []
    for what, found, limit in (
        (f"report of {images * objects:,} objects", report, 180.0),
        (f"compare of {pairs * objects:,} objects", comparison, 60.0),
    ):
        rows.append(Row.at_most(f"{what}: processor time", found[0], limit, "s"))
        rows.append(Row.at_most(f"{what}: peak memory", found[1], 4.0, "GB"))
    return finish(rows, options.json, measured={"report": report, "compare": comparison})


if __name__ == "__main__":
    sys.exit(main())
