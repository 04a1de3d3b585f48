"""Pictures of the most changed instances: what HQ-SAM's mask was at one revision and is at the other."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_pipelines.compare.comparison import Comparison
from hqsam_pipelines.compare.revisions import NotAvailableError, Revision
from hqsam_pipelines.compare.rows import Instance
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.draw import overlay
from hqsam_pipelines.report.html import Picture
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.scenes import Pick, SceneReader

COUNT = 8
_PANEL = 208


@contextmanager
def folders(
    revision: Revision, benchmark: str, model: str, tables: Sequence[str] | None
) -> Iterator[tuple[Path, Path]]:
    """The benchmark's and the predictions' folders of a revision, put together from the workspace or the cache.

    Args:
        revision: the revision.
        benchmark: its name.
        model: its name.
        tables: the files of the benchmark that are wanted; None: all of them.

    Raises:
        NotAvailableError: a file is unavailable here.
    """
    truth, predictions = f"data/benchmarks/{benchmark}", f"data/predictions/{benchmark}-{model}"
    repository = revision.repository
    with tempfile.TemporaryDirectory(prefix="hqsam-compare-") as temporary:
        for folder, wanted in ((truth, tables), (predictions, None)):
            for name in wanted or repository.output_names(revision, folder):
                place = Path(temporary) / folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                source = repository.output_file(revision, folder, name)
                if isinstance(source, Path):
                    place.symlink_to(source.resolve())
                else:
                    with place.open("wb") as file:
                        shutil.copyfileobj(source, file)
        yield Path(temporary) / truth, Path(temporary) / predictions


def pictures(comparison: Comparison) -> tuple[list[Picture], list[str]]:
    """The most changed instances, at most two of a benchmark.

    Returns:
        The pictures, and why some could not be drawn.
    """
    chosen: list[Instance] = []
    for instance in comparison.instances:
        if (
            sum(other.benchmark == instance.benchmark for other in chosen) < 2
            and len(chosen) < COUNT
        ):
            chosen.append(instance)
    found: list[Picture] = []
    notes: list[str] = []
    for benchmark, model in dict.fromkeys((i.benchmark, i.model) for i in chosen):
        mine = [i for i in chosen if (i.benchmark, i.model) == (benchmark, model)]
        try:
            with ExitStack() as stack:
                _, before = stack.enter_context(folders(comparison.a, benchmark, model, ()))
                truth, after = stack.enter_context(folders(comparison.b, benchmark, model, None))
                # The temporary folder is laid out like the repository: <root>/data/benchmarks/<name>.
                run = Run(truth.parents[2], comparison.b.params, comparison.b.results)
                found += [_picture(run, before, after, instance) for instance in mine]
        except (
            Exception
        ) as error:  # whatever strangers' tables raise: the comparison goes on without the pictures
            known = isinstance(error, (NotAvailableError, UserError))
            notes.append(
                f"no pictures of {benchmark}: "
                f"{error if known else f'{type(error).__name__}: {error}'}"
            )
    return found, notes


def _picture(run: Run, before: Path, after: Path, instance: Instance) -> Picture:
    quantity = run.score(instance.benchmark).pictured
    assert quantity is not None  # or it would not have been chosen
    pick = Pick(
        instance.benchmark,
        instance.model,
        instance.prompt_set,
        instance.key,
        instance.cluster,
        instance.unit,
        instance.a / quantity.scale.factor,
        instance.b / quantity.scale.factor,
        quantity,
    )
    reader = SceneReader(run, lambda _: ((before, instance.system), (after, instance.system)))
    scores = f"{instance.quantity} {instance.a:.1f} → {instance.b:.1f}"
    caption = (
        f"{paper.title(instance.benchmark)}, {instance.prompt_set.replace('_', ' ')} . {scores} . "
        f"{pick.place}"
    )
    return Picture(
        overlay(reader.read(pick), _PANEL), f"Masks of both revisions for {instance.unit}", caption
    )
