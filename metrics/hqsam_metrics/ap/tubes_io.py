"""Reading YouTube-VIS / HQ-YTVIS annotations and results: tubes of one mask a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_base.json_stream import as_results, read_json
from hqsam_base.rle import segmentation_string
from hqsam_base.runs import Int, RleBatch, RleError, decode_runs, encode_lengths, ragged_arange
from hqsam_metrics.ap import category_ids
from hqsam_metrics.ap.columns import (
    IdTable,
    finite,
    flag,
    integers,
    known_places,
    numbers,
    read_ids,
    rows_of,
    unique,
    zero_id_warning,
)
from hqsam_metrics.ap.instances import Bool, Float, annotation_rows


@dataclass(frozen=True)
class Frames:
    """One mask a frame of n tubes: frame f of tube i is mask ``offsets[i] + f``, an empty one where it is away.

    Attributes:
        offsets: int64 [n + 1], frames of each tube.
        masks: codes of all frames.
    """

    offsets: Int
    masks: RleBatch

    def take(self, rows: Int) -> tuple[Int, Int]:
        """Returns the frames of some tubes: the masks' numbers int64 [f], new offsets int64 [len(rows) + 1]."""
        sizes = np.diff(self.offsets)[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        return np.repeat(self.offsets[rows], sizes) + ragged_arange(sizes), offsets

    def code(self, tube: int) -> bytes:
        """Returns the masks of a tube as one text."""
        first, last = self.offsets[tube : tube + 2].tolist()
        return b"\n".join(self.masks.string(row) for row in range(first, last))

    def owner(self) -> Int:
        """Returns the tube of each mask: int64 [masks]."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True)
class Tubes:
    """Object tubes.

    Attributes:
        name: the file, for messages.
        video: int64 [n], place of the video.
        category: int64 [n], place of the category, -1 for an unknown one.
        score: float64 [n], zeros for ground truth.
        crowd: bool [n].
        area: float64 [n], mean area (ground truth), NaN: count.
        frames: the masks.
        refined: masks whose boundary counts in place of that of `frames` (HQ-YTVIS:
            `segmentations_refined`); None: the same.
        category_id: int64 [n], the category's id as the file has it; None where ids are names, and
            for ground truth.
    """

    name: str
    video: Int
    category: Int
    score: Float
    crowd: Bool
    area: Float
    frames: Frames
    refined: Frames | None = None
    category_id: Int | None = None

    def __len__(self) -> int:
        """Returns n."""
        return len(self.video)


@dataclass(frozen=True)
class TubeTruth:
    """Ground truth of a video set: ids of videos and categories, sizes and lengths of videos, the tubes and their ids."""

    videos: IdTable
    heights: Int
    widths: Int
    lengths: Int
    categories: IdTable
    ids: NDArray[Any]
    tubes: Tubes
    warnings: tuple[str, ...] = ()

    @property
    def video_ids(self) -> Int:
        """The ids of the videos, int64, rising; where they are names: their places."""
        return self.videos.numbers

    @property
    def category_ids(self) -> Int:
        """The ids of the categories, int64, rising; where they are names: their places."""
        return self.categories.numbers


def blank_string(height: int, width: int) -> bytes:
    """Returns the compressed code of an empty mask."""
    lengths = np.array([height * width], np.int64)
    return encode_lengths(lengths, np.array([0, 1], np.int64))[0].tobytes()


_REFINED = "segmentations_refined"


def _refined(
    rows: Sequence[Any], video: Int, truth: tuple[Int, Int], name: str, what: str
) -> Frames | None:
    """Reads `segmentations_refined` where any row has it; the others' boundaries are those of their `segmentations`."""
    if not any(_REFINED in row for row in rows):
        return None
    shown = [row if _REFINED not in row else {"segmentations": row[_REFINED]} for row in rows]
    return _frames(shown, video, truth, name, f"`{_REFINED}` of {what}")


def _frames(
    rows: Sequence[Any], video: Int, truth: tuple[Int, Int], name: str, what: str
) -> Frames:
    """Reads `segmentations` of all rows."""
    heights, widths = truth
    strings: list[bytes] = []
    counts: list[int] = []
    empty: dict[tuple[int, int], bytes] = {}
    for i, row in enumerate(rows):
        size = int(heights[video[i]]), int(widths[video[i]])
        frames = row.get("segmentations")
        if not isinstance(frames, list):
            raise UserError(
                f"{name}: {what} {i}: `segmentations` must be a list with one entry a frame"
            )
        blank = empty.setdefault(size, blank_string(*size))
        for f, frame in enumerate(frames):
            try:
                # As the official program has it, whatever is false says that the object is not
                # there: null, [], {}.
                strings.append(segmentation_string(frame, *size) if frame else blank)
            except RleError as error:
                raise UserError(f"{name}: {what} {i}, frame {f}: {error.reason}") from None
        counts.append(len(frames))
    sizes = np.array(counts, np.int64)
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    owner = np.repeat(video, sizes)
    return Frames(offsets, RleBatch.of(strings, heights[owner], widths[owner]))


def parse_ytvis(content: Any, name: str) -> TubeTruth:
    """Reads an annotation file in YouTube-VIS format.

    Raises:
        UserError: duplicate ids, malformed or wrongly sized masks, missing keys.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{name}: must be a JSON object with `videos`, `annotations`, `categories`")
    videos = rows_of(content, "videos", name)
    if not videos:
        raise UserError(f"{name}: `videos` is empty; there is nothing to score")
    table, order = IdTable.of(videos, name, "video")
    heights, widths = (integers(videos, key, name, "video")[order] for key in ("height", "width"))
    lengths = np.array([_length(row, name) for row in videos], np.int64)[order]
    categories, _ = IdTable.of(rows_of(content, "categories", name), name, "category")
    rows = annotation_rows(content, name)
    own = read_ids(rows, "id", name, "annotation")
    unique(own, name, "annotation id")
    video = table.place(read_ids(rows, "video_id", name, "annotation"))
    classes = read_ids(rows, "category_id", name, "annotation")
    category = categories.place(classes)
    keep = np.flatnonzero((video >= 0) & (category >= 0))
    warnings = zero_id_warning(own)
    if len(keep) < len(rows):
        warnings.append(
            f"{len(rows) - len(keep)} annotations of unknown videos or categories were left out"
        )
    warnings += category_ids.of_annotations(classes, categories)
    kept = [rows[i] for i in keep]
    what = kept, video[keep], (heights, widths), name, "annotation"
    frames, refined = _frames(*what), _refined(*what)
    crowd = np.array([flag(row, "iscrowd", name) for row in kept], bool)
    area = _areas(kept, frames, name)
    tubes = Tubes(
        name, video[keep], category[keep], np.zeros(len(keep)), crowd, area, frames, refined
    )
    of_kept = np.asarray(own, None if isinstance(own, np.ndarray) else object)[keep]
    return TubeTruth(table, heights, widths, lengths, categories, of_kept, tubes, tuple(warnings))


def check_countable(truth: TubeTruth) -> None:
    """Checks that something can be scored; UserError when every tube is left out or a crowd, which is ignored."""
    if truth.tubes.crowd.all():
        why = (
            f"all {len(truth.tubes)} annotations are crowds (`iscrowd`: 1)"
            if len(truth.tubes)
            else truth.warnings[-1]
        )
        raise UserError(f"{truth.tubes.name}: has no object that counts: {why}")


def _areas(rows: Sequence[Any], frames: Frames, name: str) -> Float:
    """Returns the mean over the frames with the object: of the row's `areas` that are not 0, or else counted."""
    area = np.full(len(rows), np.nan)
    for at, row in enumerate(rows):
        given = row.get("areas")
        if given is None:
            continue
        who = f"{name}: annotation id {row.get('id')}"
        if not isinstance(given, list):
            raise UserError(f"{who}: `areas` must be a list with one entry a frame")
        values = [finite(value, f"{who}: an area") for value in given if value is not None]
        present = [value for value in values if value > 0]
        area[at] = float(np.mean(present)) if present else 0.0
    missing = np.flatnonzero(np.isnan(area))
    if not len(missing):
        return area
    places, offsets = frames.take(missing)
    try:
        pixels = decode_runs(frames.masks.take(places)).areas().astype(np.float64)
    except RleError as error:
        where = f"annotation {missing[np.searchsorted(offsets, error.index, side='right') - 1]}"
        raise UserError(
            f"{name}: a frame of {where}: malformed run-length code: {error.reason}"
        ) from None
    for row, first, last in zip(missing, offsets[:-1], offsets[1:], strict=True):
        there = pixels[first:last][pixels[first:last] > 0]
        area[row] = there.mean() if len(there) else 0.0
    return area


def _length(row: Any, name: str) -> int:
    names = row.get("file_names")
    if isinstance(names, list):
        return len(names)
    length = row.get("length")
    if isinstance(length, int) and not isinstance(length, bool) and 0 <= length < 1 << 31:
        return length
    raise UserError(f"{name}: video id {row.get('id')} has neither `file_names` nor `length`")


def parse_tube_results(rows: Any, truth: TubeTruth, name: str) -> Tubes:
    """Reads results in YouTube-VIS format; a frame may be null or empty, `height` and `width` are not needed.

    Raises:
        UserError: unknown video ids, scores that are no finite numbers, malformed or wrongly sized
            masks.
    """
    rows = as_results(rows, name)
    video = known_places(rows, "video_id", truth.videos, name, truth.tubes.name)
    classes = read_ids(rows, "category_id", name, "result")
    score = numbers(rows, "score", name, "result")
    what = rows, video, (truth.heights, truth.widths), name, "result"
    none = np.zeros(len(rows), bool)
    return Tubes(
        name,
        video,
        truth.categories.place(classes),
        score,
        none,
        np.full(len(rows), np.nan),
        _frames(*what),
        _refined(*what),
        classes if isinstance(classes, np.ndarray) else None,
    )


def read_ytvis(path: Path) -> TubeTruth:
    """Reads an annotation file (see `parse_ytvis`)."""
    return parse_ytvis(read_json(path), str(path))


def read_tube_results(path: Path, truth: TubeTruth) -> Tubes:
    """Reads a result file (see `parse_tube_results`)."""
    return parse_tube_results(read_json(path), truth, str(path))


def category_warnings(truth: TubeTruth, found: Tubes) -> list[str]:
    """Warns of tubes whose category ids are counted otherwise than the annotations'; see `category_ids`."""
    annotated, detected = ((side.video, side.category) for side in (truth.tubes, found))
    return category_ids.of_detections(truth.categories, annotated, detected, found.category_id)


def length_warnings(truth: TubeTruth, dt: Tubes) -> list[str]:
    """Counts tubes whose list of frames is not as long as their video."""
    out = []
    for tubes, what in ((truth.tubes, "annotations"), (dt, "results")):
        wrong = int((np.diff(tubes.frames.offsets) != truth.lengths[tubes.video]).sum())
        if wrong:
            out.append(
                f"{wrong} {what} have not one mask a frame; frames beyond the shorter list do not "
                f"count"
            )
    return out
