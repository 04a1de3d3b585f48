"""AP of a revision evaluated again, for its bootstrap: predictions and ground truth come from the DVC cache."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hqsam_metrics.ap.resample import Matched, matched
from hqsam_pipelines.compare.revisions import Revision

_TABLES = ("images.parquet", "instances.parquet", "prompts.parquet", "index.json", "gt.json")


def matched_at(revision: Revision, benchmark: str, model: str, prompt_set: str, system: str) -> Matched:
    """Evaluates the predictions of one system at a revision.

    Raises:
        NotAvailableError: predictions or ground truth of the revision cannot be had here.
        UserError: they are damaged.
    """
    score = revision.params["benchmarks"][benchmark]["score"]
    with folders(revision, benchmark, model, _TABLES) as (truth, predictions):
        return matched(benchmark=truth, predictions=predictions, prompt_set=prompt_set, system=system, score=score)


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
        NotAvailableError: a file cannot be had here.
    """
    truth, predictions = f"data/benchmarks/{benchmark}", f"data/predictions/{benchmark}-{model}"
    repository = revision.repository
    with tempfile.TemporaryDirectory(prefix="hqsam-compare-") as temporary:
        for folder, wanted in ((truth, tables), (predictions, None)):
            for name in wanted or repository.output_names(revision, folder):
                place = Path(temporary) / folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                _put(repository.output_file(revision, folder, name), place)
        yield Path(temporary) / truth, Path(temporary) / predictions


def _put(source: Path | io.BytesIO, place: Path) -> None:
    if isinstance(source, Path):
        place.symlink_to(source.resolve())
    else:
        with place.open("wb") as file:
            shutil.copyfileobj(source, file)
