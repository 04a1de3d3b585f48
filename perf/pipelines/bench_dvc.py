"""What DVC itself costs per stage: every stage of the active profile with its real dependencies and an empty command.

python -m perf pipelines/dvc

DVC reads and writes all of dvc.lock after each stage, so its time grows with the lines there.
Baseline: each stage names the files of its code, and folders where all of a folder belongs to it.
Ours: it names one file of digests (`data/code/<stage>.json`). Parameters, data and outputs are the
same in both. Seconds are processor time of DVC and of what it starts, which other programs disturb
less.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hqsam_pipelines.runner import codegraph
from perf.table import Row, finish

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "hqsam",
    "datasets",
    "metrics",
    "pipelines",
    "configs",
    "params.yaml",
    "dvc.yaml",
    ".dvcignore",
)
FOLDERS = {
    "fetch": ("datasets/hqsam_datasets/embedded",),
    "score": ("metrics/hqsam_metrics",),
    "report": (
        "metrics/hqsam_metrics",
        "pipelines/hqsam_pipelines/report/data",
        "pipelines/hqsam_pipelines/report/templates",
    ),
}
"""What the baseline names as a whole."""
BY_FILE = "code named by file"


@dataclass(frozen=True)
class Measured:
    """One form of the pipeline: seconds of a first run, of a run with nothing to do, and what the lock came to."""

    first_s: float
    second_s: float
    stages: int
    lines: int
    code_deps: int

    @property
    def stage_s(self) -> float:
        """Seconds per stage of the first run."""
        return self.first_s / self.stages


def copy(target: Path) -> Path:
    """The checkout's code and parameters in a DVC project of their own."""
    target.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy2(source, target / name)
    dvc(target, "init", "--quiet", "--no-scm")
    return target


def dvc(root: Path, *words: str) -> float:
    """Run DVC; the processor time that it took, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"dvc {' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def stages(root: Path, *, by_file: bool) -> dict[str, Any]:
    """Every stage of the profile under a name of its own, with a command that only makes its outputs."""
    from dvc.repo import Repo

    found: dict[str, Any] = {}
    graph = codegraph.CodeGraph(root)
    with Repo(str(root)) as repo:
        named = {dep.def_path for stage in repo.index.stages for dep in stage.deps}
        read = {
            out: sorted(dep for dep in named if dep.startswith(f"{out}/"))
            for stage in repo.index.stages
            for out in (out.def_path for out in stage.outs)
        }
        for stage in repo.index.stages:
            verb = stage.name.partition("@")[0]
            if by_file and verb == codegraph.STAGE:
                continue
            digests = f"data/code/{verb}.json"
            deps = [dep.def_path for dep in stage.deps if not hasattr(dep, "params")]
            if by_file:
                deps = [dep for dep in deps if dep != digests] + collapsed(
                    graph.digested(verb), FOLDERS.get(verb, ())
                )
            keys = [key for dep in stage.deps for key in getattr(dep, "params", [])]
            outs = [out.def_path for out in stage.outs]
            made = [make(out, read[out]) for out in outs]
            name = stage.name.replace("@", "-")
            found[name] = {"cmd": " && ".join(made), "deps": deps, "params": keys, "outs": outs}
    return found


def collapsed(files: list[str], folders: tuple[str, ...]) -> list[str]:
    """The files, those inside one of the folders replaced by it."""
    inside = tuple(f"{folder}/" for folder in folders)
    return [*folders, *(path for path in files if not path.startswith(inside))]


def make(out: str, read: Sequence[str]) -> str:
    """A shell command that makes an output, with the files in it that stages read one by one."""
    if Path(out).suffix:
        return f"mkdir -p {Path(out).parent} && echo {out} > {out}"
    files = read or [f"{out}/file"]
    return f"mkdir -p {out} && " + " && ".join(f"echo {path} > {path}" for path in files)


def measure(root: Path, *, by_file: bool) -> Measured:
    """Run one form from nothing, then again."""
    flat = stages(root, by_file=by_file)
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": flat}, sort_keys=False, width=4096))
    first, second = dvc(root, "repro"), dvc(root, "repro")
    lock = (root / "dvc.lock").read_text()
    code = len(
        re.findall(
            r"^    - path: (?:datasets|hqsam|metrics|pipelines|data/code)/?\S*$", lock, re.MULTILINE
        )
    )
    return Measured(first, second, len(flat), lock.count("\n"), code)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours = measure(copy(Path(folder) / "ours"), by_file=False)
        theirs = measure(copy(Path(folder) / "by_file"), by_file=True)
    rows = [
        Row("lines of dvc.lock there", f"{ours.lines:,}", peer=f"{BY_FILE}: {theirs.lines:,}"),
        Row(
            "dependencies on code there",
            f"{ours.code_deps:,}",
            peer=f"{BY_FILE}: {theirs.code_deps:,}",
        ),
        Row.at_least(
            f"DVC alone, processor time a stage, {ours.stages} stages",
            theirs.stage_s / ours.stage_s,
            0,
            peer=f"{BY_FILE}: {theirs.stage_s:.2f} s",
            now=f"{ours.stage_s:.2f} s",
        ),
        Row(
            "DVC alone, nothing to do",
            f"{ours.second_s:.2f} s",
            peer=f"{BY_FILE}: {theirs.second_s:.2f} s",
        ),
    ]
    return finish(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
