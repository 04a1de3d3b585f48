"""Masks that another program made, as predictions of a benchmark: result files of COCO, LVIS and YouTube-VIS, folders of PNGs.

What is read depends on the kind of the benchmark: detections with their own scores (coco, lvis), tracks
(ytvis), label maps `<sequence>/<frame>.png` (davis), or one PNG for each object (masks). The
counterpart of `hqsam_metrics.exports`, which writes the same files.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hqsam_base.digest import sha256_file
from hqsam_base.errors import UserError
from hqsam_base.ids import plain_id
from hqsam_base.json_stream import iterate_results
from hqsam_base.rle import encode
from hqsam_base.runs import Int, RleBatch, decode_runs
from hqsam_metrics.ap.columns import IdTable, is_number
from hqsam_metrics.benchmark_data import Benchmark, integers, strings

_CURES = {
    "coco": "give a COCO results file: a JSON list of {image_id, category_id, segmentation, score}",
    "lvis": "give an LVIS results file: a JSON list of {image_id, category_id, segmentation, score}",
    "ytvis": "give a YouTube-VIS results file: a JSON list of {video_id, category_id, "
    "segmentations, score}",
    "davis": "give a folder with <sequence>/<frame>.png",
    "masks": "give a folder with one PNG for each object, named like its image",
}


@dataclass(frozen=True)
class Given:
    """Masks, each with what a benchmark's prompt would say of it: row i of everything is mask i.

    Attributes:
        prompt: id of the benchmark's prompt that it answers; None: it answers none, and the rest
            describes it.
        key: image key.
        category: category id, None without one.
        score: confidence.
        track: track id, None without one.
        masks: run-length codes [n].
    """

    prompt: Sequence[str | None]
    key: Sequence[str]
    category: Sequence[int | None]
    score: Sequence[float]
    track: Sequence[int | None]
    masks: RleBatch


def check(path: Path, kind: str | None = None) -> None:
    """Check that predictions are a file or a folder as a kind of benchmark needs it.

    Args:
        path: the file or folder.
        kind: of the benchmark; None: not known yet.

    Raises:
        UserError: it is missing, or the other one, or holds what is no file.
    """
    if not path.exists():
        raise UserError("there are no such predictions", file=path, cure="correct the path")
    if kind is not None and path.is_dir() != (kind in ("davis", "masks")):
        what = "a folder" if path.is_dir() else "a file"
        raise UserError(
            f"this is {what}, and the benchmark is of kind {kind}", file=path, cure=_CURES[kind]
        )
    for file in sorted(path.rglob("*.png")) if path.is_dir() else [path]:
        if not file.is_file():
            raise UserError(
                "this is no regular file",
                file=file,
                cure="take it away: links that lead nowhere, pipes and devices are not read",
            )


_KEYS = {
    "coco": ("image_id", "category_id", "segmentation"),
    "lvis": ("image_id", "category_id", "segmentation"),
    "ytvis": ("video_id", "category_id", "segmentations"),
}


def check_records(path: Path, kind: str) -> None:
    """Check predictions as far as that can be done before the benchmark is there: see `check`, and what each record holds.

    Args:
        path: the file or folder.
        kind: of the benchmark.

    Raises:
        UserError: a folder without PNGs, or a record without one of its keys or a finite score.
    """
    check(path, kind)
    if kind not in _KEYS:
        if next(path.rglob("*.png"), None) is None:
            raise UserError("the folder has no PNG files", file=path, cure=_CURES[kind])
        return
    number = 0
    for rows in iterate_results(path):
        for row in rows:
            lost = _KEYS[kind] if not isinstance(row, dict) else set(_KEYS[kind]) - row.keys()
            score = row.get("score") if isinstance(row, dict) else None
            if lost or not is_number(score):
                lacks = f"no `{min(lost)}`" if lost else "no `score` that is a finite number"
                raise UserError(f"result {number} has {lacks}", file=path, cure=_CURES[kind])
            number += 1


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of a folder's PNGs."""
    if path.is_file():
        return sha256_file(path)
    total = hashlib.sha256()
    for file in sorted(path.rglob("*.png")):
        total.update(f"{file.relative_to(path).as_posix()} {sha256_file(file)}\n".encode())
    return total.hexdigest()


def read(path: Path, benchmark: Benchmark, prompt_set: str) -> Given:
    """Read predictions for one prompt set of a benchmark.

    Args:
        path: the file or folder.
        benchmark: whose images they are of.
        prompt_set: of the benchmark; only PNGs of objects answer its prompts.

    Raises:
        UserError: unknown images or objects, objects without a mask, masks of another size, scores
            that are missing or no finite numbers, or no such file.
    """
    kind = str(benchmark.index["kind"])
    check(path, kind)
    try:
        if kind == "ytvis":
            return _tracks(path, benchmark)
        if kind == "davis":
            return _label_maps(path, benchmark)
        if kind == "masks":
            return _objects(path, benchmark, prompt_set)
        return _detections(path, benchmark, lvis=kind == "lvis")
    except UserError as error:
        raise error.amended(file=error.file or path, cure=error.cure or _CURES[kind]) from error


def _detections(path: Path, benchmark: Benchmark, *, lvis: bool) -> Given:
    from hqsam_metrics.ap.instances import read_ground_truth
    from hqsam_metrics.ap.results import read_results

    truth = read_ground_truth(benchmark.ground_truth, lvis=lvis)
    own = benchmark.original_ids
    images = replace(truth.images, table=_renamed(truth.images.table, own["images"]))
    categories = _renamed(truth.categories, own["categories"])
    found = read_results(path, replace(truth, images=images, categories=categories))
    given = found.category_id if categories.names is None else None
    ids = truth.images.ids[found.image].tolist()
    numbers = integers(benchmark.images, "image_id").tolist()
    keys = dict(zip(numbers, map(str, strings(benchmark.images, "key")), strict=True))
    n = len(found)
    return Given(
        [None] * n,
        [keys[i] for i in ids],
        _class_ids(given, found.category, truth.category_ids).tolist(),
        found.score.tolist(),
        [None] * n,
        found.masks,
    )


def _class_ids(given: Int | None, place: Int, known: Int) -> Int:
    """Returns the category ids of a file, those that the benchmark does not have too: the score stage tells of them."""
    return np.where(place >= 0, known[place], -1) if given is None else given


def _renamed(table: IdTable, original: Mapping[int, int | str]) -> IdTable:
    """Returns the ids by which the user's file names the same records."""
    numbers = table.numbers.tolist()
    return (
        replace(table, names=tuple(plain_id(original[n]) for n in numbers)) if original else table
    )


def _tracks(path: Path, benchmark: Benchmark) -> Given:
    from hqsam_metrics.ap.tubes_io import read_tube_results, read_ytvis
    from hqsam_metrics.scores.ytvis import frame_places

    truth = read_ytvis(benchmark.ground_truth)
    tubes = read_tube_results(path, truth)
    names = map(str, strings(benchmark.images, "key"))
    keys = dict(zip(frame_places(benchmark, truth), names, strict=True))
    offsets = tubes.frames.offsets.tolist()
    areas = decode_runs(tubes.frames.masks).areas()
    rows: list[tuple[int, int, str]] = []  # track, row of the mask, key
    for track, (first, stop) in enumerate(itertools.pairwise(offsets)):
        frames = range(first, min(stop, first + int(truth.lengths[tubes.video[track]])))
        drawn = [row for row in frames if areas[row]] or list(frames[:1])
        rows += [(track, row, keys[int(tubes.video[track]), row - first]) for row in drawn]
    at = np.array([track for track, _, _ in rows], np.int64)
    categories = _class_ids(tubes.category_id, tubes.category, truth.category_ids)
    return Given(
        [None] * len(rows),
        [key for _, _, key in rows],
        categories[at].tolist() if rows else [],
        tubes.score[at].tolist() if rows else [],
        at.tolist(),
        tubes.frames.masks.take(np.array([row for _, row, _ in rows], np.int64)),
    )


def _label_maps(path: Path, benchmark: Benchmark) -> Given:
    from hqsam_metrics.masks.png import read_index_png

    table = benchmark.images
    columns = (strings(table, "video"), integers(table, "frame").tolist(), strings(table, "key"))
    sizes = (integers(table, "height").tolist(), integers(table, "width").tolist())
    frames = sorted(zip(*columns, *sizes, strict=True))
    wanted = {f"{video}/{frame:05d}.png" for video, frame, *_ in frames}
    _refuse_unknown(path, {p.relative_to(path).as_posix() for p in path.rglob("*.png")}, wanted)
    rows: list[tuple[str, int, str, int, int]] = []
    for at, (video, frame, key, height, width) in enumerate(frames):
        file = path / str(video) / f"{frame:05d}.png"
        outer = {at - 1, at + 1} - set(range(len(frames))) or {
            n for n in (at - 1, at + 1) if frames[n][0] != video
        }
        if not file.is_file() and outer:
            continue  # the first and the last frame of a sequence do not count
        labels = _sized(read_index_png(file), height, width, file)
        rows += [
            (str(key), int(label), encode(labels == label), height, width)
            for label in np.unique(labels).tolist()
            if label and label != 255  # void
        ]
    masks = RleBatch.of(
        [code.encode() for _, _, code, _, _ in rows],
        [height for *_, height, _ in rows],
        [width for *_, width in rows],
    )
    n = len(rows)
    keys, tracks = [key for key, *_ in rows], [track for _, track, *_ in rows]
    return Given([None] * n, keys, [None] * n, [1.0] * n, tracks, masks)


def _refuse_unknown(folder: Path, found: set[str], wanted: set[str]) -> None:
    if unknown := sorted(found - wanted):
        raise UserError(
            f"{len(unknown)} pictures are of no image of the benchmark",
            file=folder,
            key=unknown[0],
            cure=f"name them like {min(wanted)}",
        )


def _sized(labels: Any, height: int, width: int, file: Path) -> Any:
    if labels.shape != (height, width):
        raise UserError(
            f"the mask is {labels.shape[1]} x {labels.shape[0]}, its image {width} x {height}",
            file=file,
            cure="write masks of the images' own size",
        )
    return labels


def _objects(path: Path, benchmark: Benchmark, prompt_set: str) -> Given:
    from hqsam_metrics.masks.png import read_mask_png

    prompts = benchmark.prompts(prompt_set)
    names = _names(benchmark, prompts)
    files = {file.stem: file for file in sorted(path.glob("*.png"))}
    _refuse_unknown(path, set(files), {name for given in names for name in given})
    chosen = [next((n for n in given if n in files), None) for given in names]
    lost = [given[0] for given, name in zip(names, chosen, strict=True) if name is None]
    if lost:
        raise UserError(
            f"{len(lost)} of {len(names)} objects have no mask",
            file=path,
            key=lost[0],
            cure="write a picture for each, black where nothing was found",
        )
    size = {str(k): n for n, k in enumerate(strings(benchmark.images, "key"))}
    keys = [str(key) for key in strings(prompts, "key")]
    heights, widths = (integers(benchmark.images, side).tolist() for side in ("height", "width"))
    sides = [(heights[size[key]], widths[size[key]]) for key in keys]
    codes: dict[str, bytes] = {}
    for name, (height, width) in zip(chosen, sides, strict=True):
        if name is not None and name not in codes:
            mask = _sized(read_mask_png(files[name]), height, width, files[name])
            codes[name] = encode(mask).encode()
    masks = RleBatch.of([codes[str(name)] for name in chosen], *zip(*sides, strict=True))
    n = len(keys)
    ids = [str(name) for name in strings(prompts, "prompt_id")]
    return Given(ids, keys, [None] * n, [1.0] * n, [None] * n, masks)


def _names(benchmark: Benchmark, prompts: Any) -> list[list[str]]:
    """The stems that a picture of each prompt's object may have, the most exact first."""
    keys = [str(key) for key in strings(benchmark.instances, "key")]
    alone: Mapping[str, bool] = {key: keys.count(key) == 1 for key in set(keys)}
    prefix = f"{benchmark.index.get('benchmark', '')}_"
    out = []
    columns = (strings(prompts, name) for name in ("prompt_id", "instance_id", "key"))
    for prompt, instance, key in zip(*columns, strict=True):
        image = [str(key), str(key).removeprefix(prefix)] if alone.get(str(key)) else []
        given = [str(prompt), str(instance or prompt), *image]
        out.append(list(dict.fromkeys(given)))
    return out
