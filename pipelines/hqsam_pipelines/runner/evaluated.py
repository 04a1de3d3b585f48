"""Evaluations that a worker runs: `hqsam evaluate` in a worktree at a revision, one benchmark after the other."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_base.terminal import say
from hqsam_pipelines.runner import worktree

WORKTREE = "evaluate"
FOLDER = "evaluations"


@dataclass(frozen=True)
class Evaluated:
    """What was evaluated at one revision.

    Attributes:
        commit: The revision's.
        tables: Rows of the table of each benchmark, as `hqsam evaluate` wrote them.
        failed: Benchmarks without a table, each with the last lines that were printed.
    """

    commit: str
    tables: dict[str, list[dict[str, str]]]
    failed: dict[str, list[str]]

    @property
    def line(self) -> str:
        """What happened, in one line."""
        done = f"{FOLDER}/{self.commit[:10]}: {', '.join(self.tables) or 'nothing'} evaluated"
        return f"{done}; failed: {', '.join(self.failed)}" if self.failed else done


def evaluate(
    root: Path,
    revision: str,
    benchmarks: Sequence[str],
    *,
    systems: Sequence[str],
    prompts: Sequence[str],
    predictions: str,
) -> Evaluated:
    """Evaluate systems on benchmarks with the code and params.yaml of a revision.

    The files go to `evaluations/<commit>/<benchmark>` of the checkout. What training and index
    stages of that revision left comes from DVC's cache, or from DVC's default remote if there is
    one. A benchmark that fails does not stop the next.

    Args:
        root: The checkout.
        revision: A commit, branch or tag.
        benchmarks: Of params.yaml.
        systems: Each `[NAME=]X` as `hqsam evaluate --model` takes it; paths are absolute.
        prompts: Prompt sets; none: those of params.yaml.
        predictions: Masks of another program, `[NAME=]PATH` with an absolute path; empty: none.

    Raises:
        UserError: nothing to evaluate, predictions for several benchmarks, a relative path to them,
            or an unknown revision.
    """
    _check(benchmarks, systems, predictions)
    tables: dict[str, list[dict[str, str]]] = {}
    failed: dict[str, list[str]] = {}
    with worktree.at(root, WORKTREE, revision) as (tree, commit):
        _pull(tree, [*(f"train@{s}" for s in systems), *(f"index@{b}" for b in benchmarks)])
        for benchmark in benchmarks:
            out = root / FOLDER / commit[:10] / benchmark
            words = [sys.executable, "-m", "hqsam_pipelines.cli", "evaluate"]
            words += [f"--benchmark={benchmark}", f"--out={out}"]
            words += [f"--model={system}" for system in systems]
            words += [f"--prompts={name}" for name in prompts]
            words += [f"--predictions={predictions}"] * bool(predictions)
            status, output = worktree.call(tree, words, said=True)
            if status:
                failed[benchmark] = output[-20:]
                continue
            written = (out / "reports" / "tables").glob(f"{benchmark}-*.csv")
            newest = max(written, key=lambda path: path.stat().st_mtime_ns)
            with newest.open(encoding="utf-8", newline="") as file:
                tables[benchmark] = list(csv.DictReader(file))
    return Evaluated(commit, tables, failed)


def _check(benchmarks: Sequence[str], systems: Sequence[str], predictions: str) -> None:
    if not benchmarks:
        cure = "name evaluation sets of params.yaml: -p 'benchmarks=[\"coco\"]'"
        raise UserError("no benchmark is named", key="benchmarks", cure=cure)
    if not systems and not predictions:
        cure = "name models or predictions: -p 'systems=[\"nano\"]'"
        raise UserError("there is nothing to evaluate", key="systems", cure=cure)
    if predictions and len(benchmarks) > 1:
        cure = "start one run for each benchmark"
        raise UserError("predictions belong to one benchmark", key="predictions", cure=cure)
    path = Path(re.sub(r"^[a-z0-9_]+=", "", predictions))
    if predictions and not path.is_absolute():
        cure = "give the whole path, as the worker sees it"
        raise UserError("the path is relative", file=path, key="predictions", cure=cure)


def _pull(tree: Path, wanted: Sequence[str]) -> None:
    """Bring outputs of stages from DVC's default remote. What is not there is missed, and named, by the evaluation."""
    if worktree.call(tree, [*worktree.DVC, "remote", "default"])[0]:
        return
    _, known = worktree.call(tree, [*worktree.DVC, "stage", "list", "--name-only"])
    stages = [name for name in wanted if name in known]
    if stages:
        words = [*worktree.DVC, "pull", "--force", "--allow-missing", *stages]
        if worktree.call(tree, words)[0]:
            say(f"not everything of {', '.join(stages)} is on DVC's remote", err=True)
