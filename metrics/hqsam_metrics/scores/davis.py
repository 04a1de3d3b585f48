"""DAVIS 2017 semi-supervised J&F from per-object predictions.

The predicted masks of a frame are merged to one label map; where they overlap, the higher predicted
IoU wins, then the lower track number (the rule of HQ-SAM's own evaluation is not published). Then
the official protocol: first and last frame left out, objects of the first annotated frame, void as
background, mean over objects.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_base.progress import Progress, silent
from hqsam_metrics.ap.options import Workers
from hqsam_metrics.base import (
    Kept,
    Option,
    Outcome,
    Quantity,
    Result,
    Scale,
    Score,
    ScoreOptions,
    Units,
    Value,
    View,
    rules,
)

if TYPE_CHECKING:
    from hqsam_base.runs import RleBatch
    from hqsam_metrics.benchmark_data import Predictions
    from hqsam_metrics.scores._davis import DavisSequence, ObjectScore

VERSION = 2
Labels = NDArray[np.uint8]
MOST_OBJECTS = 254
# Frames from which one more process pays off.
_WORTH = 200


def protocol(**own: Any) -> dict[str, Any]:
    """Returns the rules of the DAVIS protocol for the protocol block."""
    return rules(
        "davis",
        VERSION,
        metric="J&F",
        frames="all but the first and the last",
        objects="of the first annotated frame",
        contour_tolerance=0.008,
        void="background",
        frame_order="by file name; a sequence counts once",
        averaging="mean over objects of all sequences",
        empty_mask_rule="both empty: J = F = 1; one empty: 0",
        **own,
    )


@dataclass(frozen=True)
class _Layer:
    """One object's mask of a frame, in the order of drawing: later layers lie above."""

    label: int
    row: int
    order: float = 0.0


def score_davis_folders(
    *,
    pred: Annotated[Path, Option("Results: <sequence>/<frame>.png.", name="--pred", metavar="DIR")],
    gt: Annotated[
        Path, Option("The DAVIS folder (Annotations, ImageSets).", name="--gt", metavar="DIR")
    ],
    split: Annotated[str, Option("The list in ImageSets/2017.")] = "val",
    workers: Workers = 1,
    progress: Progress = silent,
    keep: bool = False,
) -> Result:
    """DAVIS 2017 semi-supervised J, F and J&F, per object."""
    from hqsam_metrics.scores._davis import (
        check_objects,
        find_sequences,
        gap_warnings,
        global_metrics,
        per_object,
        score_folders,
    )

    sequences = find_sequences(pred, gt, split)
    scores = score_folders(sequences, workers=workers, progress=progress)
    check_objects(scores, gt)
    digest = hashlib.sha256()
    for path in (path for one in sequences for path in one.target):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    block = protocol(split=split, ground_truth_digest=digest.hexdigest()[:16])
    rows = per_object(scores)
    metrics, n = dict(global_metrics(scores)), len(rows)
    kept = _kept(sequences, scores) if keep else None
    return Result(metrics, n, n, block, gap_warnings(scores), {"per_object": rows}, kept)


def _kept(sequences: Sequence[DavisSequence], scores: list[ObjectScore]) -> Kept:
    from hqsam_metrics.masks.png import read_index_png

    by_name = {one.name: one for one in sequences}

    def views(row: int) -> list[View]:
        score, one = scores[row], by_name[scores[row].sequence]
        pairs = list(zip(one.target, one.pred, strict=True))[1:-1]  # the frames that count
        return [
            View(
                f"{one.name}/{target.name}",
                read_index_png(target) == score.object,
                read_index_png(pred) == score.object,
            )
            for target, pred in pairs
            if pred is not None
        ]

    return Kept(_units(scores), views)


_J = Quantity("J", ("j",))
_F = Quantity("F", ("f",))
_BOTH = Quantity("J&F", ("j", "f"))
_DETAIL = Value(detail=True)
_DECAY = Value(Scale(lower_is_better=True), detail=True)


class DavisScore(Score):
    """The metric `davis`. The columns iou (J) and biou (empty) are there for readers of every set's table."""

    name = "davis"
    version = VERSION
    kind = "davis"
    columns = ("iou", "biou", "j", "f")
    values: ClassVar = {
        "J&F": Value(mean_of=_BOTH),
        "J": Value(mean_of=_J),
        "F": Value(mean_of=_F),
        "F_decay": _DECAY,
        "F_recall": _DETAIL,
        "J_decay": _DECAY,
        "J_recall": _DETAIL,
    }
    headline = ("J&F",)
    pictured = _BOTH
    inner_frames = True
    score_files = staticmethod(score_davis_folders)

    def protocol(self, options: ScoreOptions) -> dict[str, Any]:
        """See `hqsam_metrics.base.Score`."""
        return protocol(
            score_rule="none", overlaps="higher predicted IoU wins, then the lower track number"
        )

    def evaluate(self, data: Predictions, options: ScoreOptions, *, progress: Progress) -> Outcome:
        """See `hqsam_metrics.base.Score`."""
        from hqsam_base.processes import run_parts, worker_count
        from hqsam_metrics.benchmark_data import rle_column
        from hqsam_metrics.scores._davis import check_objects, gap_warnings, global_metrics

        target = rle_column(data.benchmark.instances, data.benchmark.folder / "instances.parquet")
        predicted, real = _predicted_layers(data), _real_layers(data)
        videos = _videos(data)
        warnings = _drop_unknown(videos, predicted, real)
        job = [
            (
                video,
                [key for key, _ in frames],
                partial(_label_map, frames=frames, layers=predicted, masks=data.masks),
                partial(_label_map, frames=frames, layers=real, masks=target),
            )
            for video, frames in videos.items()
        ]
        frames = sum(map(len, videos.values()))
        workers = min(worker_count(frames, worth=_WORTH), len(job) or 1)
        what = "scoring sequences"
        parts = run_parts(
            _score_video, job, len(job), workers=workers, progress=progress, what=what
        )
        scores = [score for part in parts for score in part]
        check_objects(scores, data.benchmark.folder)
        warnings += gap_warnings(scores)
        return Outcome(
            dict(global_metrics(scores)), len(scores), len(scores), _units(scores), warnings
        )


def label_maps(data: Predictions, warnings: list[str]) -> Iterator[tuple[str, int, Labels]]:
    """Yields video, frame number and label map uint8 [H, W] of every frame, as they are scored.

    Args:
        data: the predictions.
        warnings: what is left out is appended.
    """
    from hqsam_metrics.benchmark_data import integers, strings

    images = data.benchmark.images
    numbers = dict(zip(strings(images, "key"), integers(images, "frame").tolist(), strict=True))
    videos, predicted = _videos(data), _predicted_layers(data)
    warnings += _drop_unknown(videos, predicted, _real_layers(data))
    for video, frames in videos.items():
        for at, (key, _) in enumerate(frames):
            labels = _label_map(at, frames=frames, layers=predicted, masks=data.masks)
            yield video, numbers[key], labels


def _score_video(job: Any, number: int) -> list[ObjectScore]:
    from hqsam_metrics.scores._davis import score_sequence

    video, keys, pred, target = job[number]
    return score_sequence(video, keys, pred=pred, target=target)


def _videos(data: Predictions) -> dict[str, list[tuple[str, tuple[int, int]]]]:
    """Returns key and (height, width) of the frames of each video, in order."""
    from hqsam_metrics.benchmark_data import integers, strings

    images = data.benchmark.images
    columns = (integers(images, name) for name in ("frame", "height", "width"))
    rows = sorted(
        zip(strings(images, "video"), *columns, strings(images, "key"), strict=True),
        key=lambda row: row[:2],
    )
    out: dict[str, list[tuple[str, tuple[int, int]]]] = defaultdict(list)
    for video, _, height, width, key in rows:
        if video is None:
            raise UserError(
                f"{data.benchmark.folder / 'images.parquet'}: image {key} belongs to no video"
            )
        out[video].append((str(key), (int(height), int(width))))
    return out


def _real_layers(data: Predictions) -> dict[str, list[_Layer]]:
    from hqsam_metrics.benchmark_data import integers, strings

    table = data.benchmark.instances
    out: dict[str, list[_Layer]] = defaultdict(list)
    for row, (key, track) in enumerate(
        zip(strings(table, "key"), integers(table, "track_id"), strict=True)
    ):
        out[str(key)].append(_Layer(_label(int(track), data), row))
    return out


def _predicted_layers(data: Predictions) -> dict[str, list[_Layer]]:
    from hqsam_metrics.benchmark_data import integers

    out: dict[str, list[_Layer]] = defaultdict(list)
    quality = np.nan_to_num(data.iou_pred, nan=-1.0)
    for row, (key, track) in enumerate(
        zip(data.keys(), integers(data.prompts, "track_id"), strict=True)
    ):
        out[key].append(_Layer(_label(int(track), data), row, float(quality[row])))
    for layers in out.values():
        layers.sort(key=lambda layer: (layer.order, -layer.label))
    return out


def _drop_unknown(
    videos: dict[str, list[tuple[str, tuple[int, int]]]],
    predicted: dict[str, list[_Layer]],
    real: dict[str, list[_Layer]],
) -> list[str]:
    """Takes out predictions of objects that the first annotated frame does not have: they are not evaluated."""
    dropped = 0
    for frames in videos.values():
        most = max((layer.label for layer in real.get(frames[0][0], [])), default=0)
        for key, _ in frames:
            layers = predicted.get(key, [])
            predicted[key] = [layer for layer in layers if layer.label <= most]
            dropped += len(layers) - len(predicted[key])
    return (
        [f"{dropped} masks of objects that the first annotated frame does not have do not count"]
        if dropped
        else []
    )


def _label(track: int, data: Predictions) -> int:
    if not 1 <= track <= MOST_OBJECTS:
        raise UserError(
            f"{data.benchmark.folder}: track_id {track}: DAVIS objects are numbered "
            f"1..{MOST_OBJECTS}"
        )
    return track


def _label_map(
    at: int,
    *,
    frames: list[tuple[str, tuple[int, int]]],
    layers: dict[str, list[_Layer]],
    masks: RleBatch,
) -> Labels:
    from hqsam_base.rle import decode

    key, size = frames[at]
    out = np.zeros(size, np.uint8)
    for layer in layers.get(key, []):
        try:
            out[decode(masks.string(layer.row), height=size[0], width=size[1])] = layer.label
        except ValueError as error:
            raise UserError(
                f"frame {key}, object {layer.label}: malformed run-length code: {error}"
            ) from None
    return out


def _units(scores: list[ObjectScore]) -> Units:
    """Returns one row an object; its key is the first evaluated frame, its unit ends in the object's number."""
    values = {
        "j": np.array([s.j.mean() for s in scores]),
        "f": np.array([s.f.mean() for s in scores]),
    }
    nothing = np.full(len(scores), np.nan)
    return Units(
        [s.frames[0] for s in scores],
        [s.sequence for s in scores],
        [f"{s.sequence}/{s.object:03d}" for s in scores],
        {"iou": values["j"], "biou": nothing, **values},
    )


SCORE = DavisScore()
