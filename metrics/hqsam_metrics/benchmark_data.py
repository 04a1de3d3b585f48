"""The parquet side of a benchmark: prompts and images, and the predictions of one system joined to them.

Everything stays in columns; run-length strings are used where Arrow holds them. pyarrow (extra
`data`) is imported when a table is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.digest import sha256_file
from hqsam_base.errors import UserError
from hqsam_base.json_stream import read_json
from hqsam_base.runs import Int, RleBatch

Table = Any  # pyarrow.Table; the library ships no types
_PROMPT_CONTENT = (
    "prompt_id",
    "key",
    "kind",
    "x0",
    "y0",
    "x1",
    "y1",
    "points",
    "labels",
    "rle",
    "score",
    "category_id",
    "track_id",
)


def read_table(path: Path, columns: Sequence[str], filters: Any = None) -> Table:
    """Reads columns of a parquet file (or several, as a list of paths) as a pyarrow Table.

    Raises:
        UserError: the file is missing, no parquet, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=list(columns), filters=filters, use_threads=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it") from None
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(
            f"{path}: cannot be read with the columns {', '.join(columns)}: {error}"
        ) from None


def numbers(table: Table, column: str) -> NDArray[np.float64]:
    """Returns a numeric column as float64, NaN for null."""
    import pyarrow as pa

    values = table[column].cast(pa.float64()).fill_null(float("nan"))
    return np.asarray(values.to_numpy(), np.float64)


def integers(table: Table, column: str, default: int = -1) -> Int:
    """Returns an integer column as int64, `default` for null."""
    import pyarrow as pa

    return np.asarray(table[column].cast(pa.int64()).fill_null(default).to_numpy(), np.int64)


def strings(table: Table, column: str) -> list[str | None]:
    """Returns a text column as a list, None for null."""
    values: list[str | None] = table[column].to_pylist()
    return values


def rle_column(table: Table, path: Path) -> RleBatch:
    """Returns the columns rle, height, width as a batch of masks, without copying the strings.

    Raises:
        UserError: a null among them.
    """
    import pyarrow as pa

    if table["rle"].null_count:
        raise UserError(
            f"{path}: {table['rle'].null_count} rows have no `rle`; an empty mask is a code too"
        )
    column = table["rle"].cast(pa.large_binary()).combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    _, offsets, data = column.buffers()
    if not len(column):
        return RleBatch.of([], [], [])
    places = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    text = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    first, last = int(places[0]), int(places[-1])
    return RleBatch(
        text[first:last], places - first, integers(table, "height"), integers(table, "width")
    )


def lookup(values: Any, table: Any) -> Int:
    """Returns the place of each value in `table` (both Arrow text columns), -1 for one that is not there: int64."""
    import pyarrow.compute as pc

    found = pc.index_in(values, value_set=table.combine_chunks()).fill_null(-1)
    return np.asarray(found.to_numpy(), np.int64)


@dataclass(frozen=True)
class Benchmark:
    """A folder `data/benchmarks/<name>`."""

    folder: Path

    @cached_property
    def index(self) -> dict[str, Any]:
        """`index.json`."""
        content = read_json(self.folder / "index.json")
        if not isinstance(content, dict) or "kind" not in content:
            raise UserError(
                f"{self.folder / 'index.json'}: is not an index of a benchmark; run the index stage"
            )
        return content

    @cached_property
    def images(self) -> Table:
        """Images: key, height, width, image_id, video, video_id, frame."""
        columns = ("key", "height", "width", "image_id", "video", "video_id", "frame")
        return read_table(self.folder / "images.parquet", columns)

    @cached_property
    def instances(self) -> Table:
        """Ground-truth instances."""
        columns = ("instance_id", "key", "track_id", "iscrowd", "rle", "height", "width")
        return read_table(self.folder / "instances.parquet", columns)

    def prompts(self, prompt_set: str) -> Table:
        """Returns the prompts of one set, sorted by prompt id.

        Raises:
            UserError: there is none.
        """
        path = self.folder / "prompts.parquet"
        table = _read_prompts(path, prompt_set)
        if not len(table):
            raise UserError(
                f"{path}: no prompts of the set {prompt_set!r}; index the benchmark with it"
            )
        return table

    @cached_property
    def ground_truth_digest(self) -> str:
        """SHA-256 (16 hex digits) of what is scored against: images, masks, and the evaluator's own file."""
        digest = hashlib.sha256()
        for table in (self.images.sort_by("key"), self.instances.sort_by("instance_id")):
            for column in table.column_names:
                for value in table[column].to_pylist():
                    digest.update(repr(value).encode() + b"\n")
        if self.ground_truth.is_file():
            digest.update(sha256_file(self.ground_truth).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def original_ids(self) -> dict[str, dict[int, int | str]]:
        """The ids of `images` and `categories` in the user's file where the index stage numbered names, by number."""
        if not self.index.get("original_ids"):
            return {"images": {}, "categories": {}}
        truth = read_json(self.ground_truth)
        return {
            name: {int(r["id"]): r["original_id"] for r in truth[name] if "original_id" in r}
            for name in ("images", "categories")
        }

    @property
    def ground_truth(self) -> Path:
        """`gt.json`, the evaluator's own format."""
        return self.folder / "gt.json"


def _read_prompts(path: Path, prompt_set: str) -> Table:
    columns = (*_PROMPT_CONTENT, "instance_id")
    return read_table(path, columns, filters=[("prompt_set", "=", prompt_set)]).sort_by("prompt_id")


def prompts_digest(prompts: Table) -> str:
    """Returns the SHA-256 (16 hex digits) of what the prompts say, whatever wrote the file."""
    digest = hashlib.sha256()
    for column in _PROMPT_CONTENT:
        for value in prompts[column].to_pylist():
            digest.update(repr(value).encode() + b"\n")
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Predictions:
    """Predictions of one system for one set of prompts: row i of everything is prompt i.

    Attributes:
        benchmark: the benchmark.
        prompt_set: name of the set.
        system: name of the system.
        prompts: the prompts (pyarrow Table, sorted by prompt id).
        masks: predicted masks [n].
        iou_pred: float64 [n], predicted IoU.
        image: int64 [n], row in `benchmark.images`.
        folder: where they came from, for messages.
    """

    benchmark: Benchmark
    prompt_set: str
    system: str
    prompts: Table
    masks: RleBatch
    iou_pred: NDArray[np.float64]
    image: Int
    folder: Path

    def keys(self) -> list[str]:
        """Returns the image key of each prompt."""
        return [str(key) for key in strings(self.prompts, "key")]

    def scores(self, rule: str) -> NDArray[np.float64]:
        """Returns the confidence of each prediction by the score rule: float64 [n].

        A prompt that was made from the ground truth has no detector's score: it counts as 1.

        Raises:
            UserError: a value that the rule needs is missing or no finite number.
        """
        n = len(self.prompts)
        detector = numbers(self.prompts, "score") if rule != "none" else np.ones(n)
        made = np.asarray(self.prompts["instance_id"].is_valid().to_numpy(), bool)
        detector = np.where(np.isnan(detector) & made, 1.0, detector)
        score = detector * self.iou_pred if rule == "detector_x_iou" else detector
        bad = np.flatnonzero(~np.isfinite(score))
        if len(bad):
            what = strings(self.prompts, "prompt_id")[int(bad[0])]
            raise UserError(
                f"{self.folder}: prompt {what} has no finite score for score_rule {rule!r} "
                f"({len(bad)} such);"
                " index the benchmark with the detector's scores, or use score_rule: none"
            )
        return score

    def trial(self, number: int) -> Predictions:
        """Returns the predictions for one of the trials of a set that is drawn several times, from 1."""
        rows = np.flatnonzero(
            [str(p).endswith(f"~{number}") for p in strings(self.prompts, "prompt_id")]
        )
        return replace(
            self,
            prompts=self.prompts.take(rows),
            masks=self.masks.take(rows),
            iou_pred=self.iou_pred[rows],
            image=self.image[rows],
        )


def _check_complete(place: Int, prompts: Table, found: Table, path: Path, what: str) -> None:
    unknown = np.flatnonzero(place < 0)
    if len(unknown):
        name = found["prompt_id"][int(unknown[0])]
        raise UserError(
            f"{path}: {what}: prompt {name} is not in the benchmark ({len(unknown)} such); "
            f"predict again"
        )
    counts = np.bincount(place, minlength=len(prompts))
    for wrong, word in (
        (counts == 0, "has no prediction"),
        (counts > 1, "is predicted more than once"),
    ):
        at = np.flatnonzero(wrong)
        if len(at):
            name = prompts["prompt_id"][int(at[0])]
            raise UserError(
                f"{path}: {what}: prompt {name} {word} ({len(at)} of {len(prompts)}); predict again"
            )


def own_prompts(system: str) -> str:
    """Returns the name of the file with the prompts of a system that answered none of the benchmark's.

    Such as another program's detections: what they say of themselves stands where a prompt's box,
    class and score would.
    """
    return f"prompts-{system}.parquet"


def load_predictions(
    benchmark: Benchmark, folder: Path, prompt_set: str, system: str
) -> Predictions:
    """Reads the predictions of one system for one set of prompts.

    Args:
        benchmark: the benchmark.
        folder: `data/predictions/<benchmark>-<model>`.
        prompt_set: name of the set.
        system: name of the system.

    Raises:
        UserError: missing, double or unknown prompts, masks of another size than the image.
    """
    own = folder / own_prompts(system)
    prompts = _read_prompts(own, prompt_set) if own.is_file() else benchmark.prompts(prompt_set)
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise UserError(f"{folder}: has no part-*.parquet; run the predict stage")
    columns = ("prompt_id", "rle", "height", "width", "iou_pred")
    filters = [("prompt_set", "=", prompt_set), ("system", "=", system)]
    found = read_table(parts, columns, filters=filters)  # type: ignore[arg-type]
    place = lookup(found["prompt_id"], prompts["prompt_id"])
    _check_complete(place, prompts, found, folder, f"{prompt_set}/{system}")
    found = found.take(np.argsort(place))
    image = lookup(prompts["key"], benchmark.images["key"])
    if (image < 0).any():
        key = prompts["key"][int(np.argmax(image < 0))]
        raise UserError(
            f"{benchmark.folder}: prompts of image {key}, which images.parquet does not have; "
            f"index again"
        )
    masks = rle_column(found, folder)
    height, width = (integers(benchmark.images, side)[image] for side in ("height", "width"))
    wrong = np.flatnonzero((masks.heights != height) | (masks.widths != width))
    if len(wrong):
        i = int(wrong[0])
        raise UserError(
            f"{folder}: prompt {prompts['prompt_id'][i]}: the mask is {masks.heights[i]} x "
            f"{masks.widths[i]}, its"
            f" image {height[i]} x {width[i]} (height x width; {len(wrong)} such); predict at the "
            f"original size"
        )
    return Predictions(
        benchmark, prompt_set, system, prompts, masks, numbers(found, "iou_pred"), image, folder
    )
