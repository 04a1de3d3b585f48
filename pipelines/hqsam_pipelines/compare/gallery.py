"""Pictures of the most changed instances: what HQ-SAM's mask was at one revision and is at the other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_pipelines.compare.ap import folders
from hqsam_pipelines.compare.comparison import Comparison
from hqsam_pipelines.compare.revisions import NotAvailableError
from hqsam_pipelines.compare.rows import Instance
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.draw import overlay
from hqsam_pipelines.report.html import Picture
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.scenes import Pick, SceneReader

COUNT = 8
_PANEL = 208


def pictures(comparison: Comparison) -> tuple[list[Picture], list[str]]:
    """The most changed instances, at most two of a benchmark.

    Returns:
        The pictures, and why some could not be drawn.
    """
    chosen: list[Instance] = []
    for instance in comparison.instances:
        if sum(other.benchmark == instance.benchmark for other in chosen) < 2 and len(chosen) < COUNT:
            chosen.append(instance)
    found: list[Picture] = []
    notes: list[str] = []
    for benchmark, model in dict.fromkeys((i.benchmark, i.model) for i in chosen):
        mine = [i for i in chosen if (i.benchmark, i.model) == (benchmark, model)]
        try:
            found += _drawn(comparison, benchmark, model, mine)
        except Exception as error:  # whatever strangers' tables raise: the comparison goes on without the pictures
            known = isinstance(error, (NotAvailableError, UserError))
            notes.append(f"no pictures of {benchmark}: {error if known else f'{type(error).__name__}: {error}'}")
    return found, notes


def _drawn(comparison: Comparison, benchmark: str, model: str, instances: Sequence[Instance]) -> list[Picture]:
    with ExitStack() as stack:
        _, before = stack.enter_context(folders(comparison.a, benchmark, model, ()))
        truth, after = stack.enter_context(folders(comparison.b, benchmark, model, None))
        # The temporary folder is laid out like the repository: <root>/data/benchmarks/<name>.
        run = Run(truth.parents[2], comparison.b.params, comparison.b.results)
        return [_picture(run, before, after, instance) for instance in instances]


def _picture(run: Run, before: Path, after: Path, instance: Instance) -> Picture:
    pick = Pick(
        instance.benchmark, instance.model, instance.prompt_set, instance.key, instance.cluster, instance.unit,
        instance.a / 100, instance.b / 100, instance.quantity,
    )  # fmt: skip
    reader = SceneReader(run, lambda _: ((before, instance.system), (after, instance.system)))
    scores = f"{instance.quantity} {instance.a:.1f} → {instance.b:.1f}"
    caption = f"{paper.title(instance.benchmark)}, {instance.prompt_set.replace('_', ' ')} . {scores} . {pick.place}"
    return Picture(overlay(reader.read(pick), _PANEL), f"Masks of both revisions for {instance.unit}", caption)
