"""What every export format is, and the JSON results that several of them write."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

from hqsam_base.atomic import atomic_file
from hqsam_base.errors import UserError
from hqsam_base.foreign_names import NameRefusedError, PlainName, refuse_twins

if TYPE_CHECKING:
    from hqsam_metrics.base import ScoreOptions
    from hqsam_metrics.benchmark_data import Predictions


class Export(ABC):
    """One file format.

    Attributes:
        name: the file's stem.
        kinds: kinds of benchmarks that it can hold (`index.json`).
        folder: whether a folder is written, not a file.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    folder: ClassVar[bool] = False

    @abstractmethod
    def write(self, data: Predictions, options: ScoreOptions, out: Path) -> list[str]:
        """Write the predictions of one system for one prompt set.

        Args:
            data: the predictions.
            options: the benchmark's `score` section: the scores in the file follow its rule.
            out: the file, which appears as a whole; for a `folder` format an empty folder.

        Returns:
            Warnings: what the format cannot hold and therefore was left out.

        Raises:
            UserError: the predictions do not fit the format.
        """

    def check(self, kind: str, out: Path) -> None:
        """Check, before anything is read, that a benchmark's kind fits and that nothing is overwritten.

        Raises:
            UserError: it does not, or `out` is a folder with files where a folder is written.
        """
        if kind not in self.kinds:
            from hqsam_metrics.exports import load, names

            fitting = [name for name in names() if kind in load(name).kinds]
            raise UserError(
                f"the format {self.name!r} holds benchmarks of kind {' or '.join(self.kinds)}, "
                f"not {kind}",
                key="--as",
                cure=f"use one of {', '.join(fitting)}",
            )
        if self.folder and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(
                "a folder is written, and there is something at its place",
                file=out,
                key="--out",
                cure="give a new or an empty folder",
            )


def plain_names(names: Iterable[str | None]) -> list[PlainName]:
    """Return names of files or folders as they may be written, in order.

    Raises:
        UserError: one would leave the folder, or falls together with another on some file system.
    """
    checked: list[PlainName] = []
    name: object = None
    try:
        for name in names:
            checked.append(PlainName(name))
        refuse_twins(checked)
    except NameRefusedError as error:
        raise UserError(
            f"this name cannot become a file: {error}",
            key=getattr(error, "name", None) or str(name),
            cure="rename it in the benchmark and index again, or choose another format",
        ) from error
    return checked


def write_results(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON list, one record a line, without holding it in memory."""
    with atomic_file(path) as file:
        stream_results(file, rows)


def stream_results(file: IO[bytes], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON list into an open file, one record a line."""
    file.write(b"[")
    for number, row in enumerate(rows):
        file.write((",\n" if number else "\n").encode() + json.dumps(row).encode())
    file.write(b"\n]\n")


def detections(
    data: Predictions, options: ScoreOptions
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield image id, category id and the record of each prediction, in the order of the prompt ids.

    A record has no `bbox`: pycocotools would take an object's size from the box instead of from
    the mask, and other objects would be small, medium and large.
    """
    from hqsam_base.json_stream import read_json
    from hqsam_metrics.benchmark_data import integers

    image_ids = integers(data.benchmark.images, "image_id")[data.image].tolist()
    if getattr(options, "class_agnostic", False):
        # Readers leave out detections of categories that the ground truth does not have.
        truth = read_json(data.benchmark.ground_truth)
        categories = [int(truth["categories"][0]["id"])] * len(data.prompts)
    else:
        categories = [int(one) for one in integers(data.prompts, "category_id")]
    scores = data.scores(getattr(options, "score_rule", "none")).tolist()
    heights, widths = data.masks.heights.tolist(), data.masks.widths.tolist()
    own = data.benchmark.original_ids
    for row, (image, category) in enumerate(zip(image_ids, categories, strict=True)):
        segmentation = {
            "size": [heights[row], widths[row]],
            "counts": data.masks.string(row).decode("ascii"),
        }
        record = {
            "image_id": own["images"].get(image, image),
            "category_id": own["categories"].get(category, category),
            "segmentation": segmentation,
            "score": scores[row],
        }
        yield image, category, record
