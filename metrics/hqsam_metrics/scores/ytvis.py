"""Tube mask AP and tube boundary AP of HQ-YTVIS / YouTube-VIS.

Tube IoU: sum of intersections over sum of unions over all frames. Boundary: each frame's own band
at ratio 0.02, of
`segmentations_refined` where an annotation has it (as the official program).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hqsam_base.errors import UserError
from hqsam_base.progress import Progress, silent
from hqsam_metrics.ap.names import ApScore, coco_metrics
from hqsam_metrics.ap.options import (
    TUBE_DILATION_RATIO,
    Agnostic,
    Kind,
    Results,
    ScoreRule,
    Truth,
    Workers,
)
from hqsam_metrics.base import (
    Kept,
    Outcome,
    Result,
    ScoreOptions,
    Units,
    View,
    check_choice,
    rules,
)

if TYPE_CHECKING:
    from pathlib import Path

    from hqsam_metrics.ap.detection import BestMatches, Scored
    from hqsam_metrics.ap.tubes_io import Tubes, TubeTruth
    from hqsam_metrics.benchmark_data import Benchmark, Predictions

VERSION = 2


def protocol(*, class_agnostic: bool, **own: Any) -> dict[str, Any]:
    """Returns the rules of the HQ-YTVIS protocol for the protocol block."""
    return rules(
        "ytvis",
        VERSION,
        classes="agnostic" if class_agnostic else "aware",
        iou_thresholds="0.50:0.05:0.95",
        max_dets=[1, 10, 100],
        max_dets_per="video" if class_agnostic else "video and category",
        area_rule="mean over frames with the object; detections: mask; bins 128^2 256^2, closed",
        boundary_match="min(tube mask IoU, tube boundary IoU); crowd: mask alone, plain IoU",
        boundaries="of segmentations_refined where an annotation has it",
        empty_mask_rule="a tube without a pixel is a false positive; 0/0 is 0",
        **own,
    )


def score_ytvis_files(
    *,
    pred: Results,
    gt: Truth,
    iou_type: Kind = "segm",
    class_agnostic: Agnostic = False,
    workers: Workers = 1,
    progress: Progress = silent,
    keep: bool = False,
) -> Result:
    """HQ-YTVIS / YouTube-VIS tube AP and AR of masks or boundaries (band 0.02, fixed by the protocol)."""
    from hqsam_base.digest import sha256_file
    from hqsam_metrics.ap import score
    from hqsam_metrics.ap.tubes import score_tubes
    from hqsam_metrics.ap.tubes_io import (
        category_warnings,
        check_countable,
        length_warnings,
        read_tube_results,
        read_ytvis,
    )

    progress(0, 0, "reading ground truth")
    truth = read_ytvis(gt)
    check_countable(truth)
    progress(0, 0, "reading results")
    found = read_tube_results(pred, truth)
    boundary = iou_type == "boundary"
    scored = score_tubes(
        truth,
        found,
        boundary=boundary,
        class_agnostic=class_agnostic,
        per_instance=keep,
        workers=workers,
        progress=progress,
    )
    block = protocol(
        class_agnostic=class_agnostic,
        iou_type=iou_type,
        dilation_ratio=TUBE_DILATION_RATIO if boundary else None,
        ground_truth_digest=sha256_file(gt)[:16],
    )
    n = len(truth.video_ids)
    tolerated = score.file_warnings(n, "videos", found.video, scored.dropped, scored.tables[::-1])
    columns = found.video, found.category, found.score
    copies = score.copy_warnings(columns, found.frames.code)
    warnings = [*truth.warnings, *length_warnings(truth, found), *copies, *tolerated]
    if not class_agnostic:
        warnings += category_warnings(truth, found)
    kept = _kept(truth, found, scored, gt, boundary=boundary) if keep else None
    return Result(coco_metrics(scored.tables[-1]), n, n, block, warnings, kept=kept)


def _kept(
    truth: TubeTruth, found: Tubes, scored: Scored, annotations: Path, *, boundary: bool
) -> Kept:
    from hqsam_base.json_stream import read_json
    from hqsam_base.rle import decode
    from hqsam_metrics.ap.columns import IdTable
    from hqsam_metrics.ap.resample import matches_of
    from hqsam_metrics.ap.tubes import BINS, LIMITS

    assert scored.best is not None
    best, videos = scored.best, truth.tubes.video[scored.best.gt]
    clusters = [str(video) for video in videos.tolist()]

    @functools.cache
    def names() -> list[list[str]]:
        rows = read_json(annotations)["videos"]
        order = IdTable.of(rows, str(annotations), "video")[1]
        return [list(map(str, rows[n].get("file_names") or [])) for n in order]

    def views(row: int) -> list[View]:
        video, mine = int(videos[row]), int(best.dt[row])
        size = {"height": int(truth.heights[video]), "width": int(truth.widths[video])}
        real, out = truth.tubes.frames.take(best.gt[[row]])[0], []
        given: list[int] = []
        if mine >= 0:
            given = found.frames.take(best.dt[[row]])[0].tolist()
        for frame, place in enumerate(real[: truth.lengths[video]].tolist()):
            target = decode(truth.tubes.frames.masks.string(place), **size)
            pred = np.zeros_like(target)
            if frame < len(given):
                pred = decode(found.frames.masks.string(given[frame]), **size)
            name = names()[video][frame] if frame < len(names()[video]) else f"{frame:05d}"
            out.append(View(name, target, pred))
        return out

    values = {"iou": best.iou} | ({"biou": best.biou} if boundary else {})
    ids = [str(i) for i in truth.ids[best.gt]]
    matches = matches_of(
        {"AP": scored.partials[-1]},
        BINS,
        limit=LIMITS[-1],
        ids=truth.video_ids,
        cluster=np.arange(len(truth.video_ids)),
    )
    return Kept(Units(clusters, clusters, ids, values), views, matches)


@dataclass(frozen=True)
class YtvisOptions(ScoreOptions):
    """Options of `ytvis`.

    Attributes:
        dilation_ratio: 0.02, which the protocol fixes: here so that it is said.
        score_rule: confidence of a frame's mask: the detector's, or the detector's times the
            predicted IoU.
        class_agnostic: match whatever the category.
    """

    dilation_ratio: float = TUBE_DILATION_RATIO
    score_rule: ScoreRule = "none"
    class_agnostic: bool = False

    def __post_init__(self) -> None:
        """Checks values."""
        super().__post_init__()
        check_choice(self.score_rule, ScoreRule, "score.score_rule")
        if self.dilation_ratio != TUBE_DILATION_RATIO:
            raise UserError(
                f"score.dilation_ratio: the HQ-YTVIS protocol is fixed at {TUBE_DILATION_RATIO}, "
                f"without strict"
            )


class YtvisScore(ApScore):
    """The metric `ytvis`."""

    name = "ytvis"
    version = VERSION
    kind = "ytvis"
    options = YtvisOptions
    score_files = staticmethod(score_ytvis_files)

    def protocol(self, options: YtvisOptions) -> dict[str, Any]:
        """See `hqsam_metrics.base.Score`."""
        return protocol(
            score_rule=options.score_rule,
            class_agnostic=options.class_agnostic,
            metric="AP AP_B",
            dilation_ratio=options.dilation_ratio,
            tube_score="mean over the frames of the track",
        )

    def evaluate(self, data: Predictions, options: YtvisOptions, *, progress: Progress) -> Outcome:
        """See `hqsam_metrics.base.Score`."""
        from hqsam_metrics.ap.detection import mask_workers
        from hqsam_metrics.ap.resample import matches_of
        from hqsam_metrics.ap.score import ap_warnings, dropped_warnings
        from hqsam_metrics.ap.tubes import BINS, LIMITS, score_tubes
        from hqsam_metrics.ap.tubes_io import category_warnings, check_countable, read_ytvis

        truth = read_ytvis(data.benchmark.ground_truth)
        check_countable(truth)
        dt = join_tracks(data, truth, options)
        scored = score_tubes(
            truth,
            dt,
            class_agnostic=options.class_agnostic,
            per_instance=True,
            workers=mask_workers(len(dt.frames.masks)),
            progress=progress,
        )
        metrics = coco_metrics(scored.tables[0]) | coco_metrics(scored.tables[1], "_B")
        warnings = [
            *truth.warnings,
            *dropped_warnings(scored.dropped),
            *ap_warnings(metrics, ["_B"]),
            *([] if options.class_agnostic else category_warnings(truth, dt)),
        ]
        n = len(truth.video_ids)
        assert scored.best is not None
        matches = matches_of(
            dict(zip(("AP", "AP_B"), scored.partials, strict=True)),
            BINS,
            limit=LIMITS[-1],
            ids=truth.video_ids,
            cluster=np.arange(n),
        )
        return Outcome(metrics, n, n, _units(data, truth, scored.best), warnings, matches)


def frame_places(benchmark: Benchmark, truth: TubeTruth) -> list[tuple[int, int]]:
    """Returns (video, frame) of every image, frames numbered from 0 in the order of their `frame` column."""
    from hqsam_metrics.benchmark_data import integers

    video, frame = (integers(benchmark.images, column) for column in ("video_id", "frame"))
    out: list[tuple[int, int]] = [(-1, -1)] * len(video)
    for v, video_id in enumerate(truth.video_ids):
        mine = np.flatnonzero(video == video_id)
        if len(mine) != truth.lengths[v]:
            raise UserError(
                f"{benchmark.folder / 'images.parquet'}: video {video_id} has {len(mine)} "
                f"frames, gt.json says"
                f" {truth.lengths[v]}; index again"
            )
        for n, image in enumerate(mine[np.argsort(frame[mine], kind="stable")]):
            out[int(image)] = (v, n)
    return out


def join_tracks(data: Predictions, truth: TubeTruth, options: YtvisOptions) -> Tubes:
    """Joins the predictions of each track to one tube, whose score is the mean over its frames."""
    from hqsam_base.runs import RleBatch
    from hqsam_metrics.ap.tubes_io import Frames, Tubes, blank_string
    from hqsam_metrics.benchmark_data import integers

    places = frame_places(data.benchmark, truth)
    track, given = (integers(data.prompts, column) for column in ("track_id", "category_id"))
    score = data.scores(options.score_rule)
    rows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, image in enumerate(data.image):
        rows[places[int(image)][0], int(track[row])].append(row)
    strings: list[bytes] = []
    keys = sorted(rows)
    for video, name in keys:
        height, width = int(truth.heights[video]), int(truth.widths[video])
        frames = [blank_string(height, width)] * int(truth.lengths[video])
        for row in rows[video, name]:
            frames[places[int(data.image[row])][1]] = data.masks.string(row)
        strings += frames
    owner = np.array([video for video, _ in keys], np.int64)
    categories = [_category(given[rows[key]], key, truth, data) for key in keys]
    scores = np.array([_mean(score[rows[key]]) for key in keys], np.float64)
    sizes = truth.lengths[owner]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    each = np.repeat(owner, sizes)
    masks = RleBatch.of(strings, truth.heights[each], truth.widths[each])
    classes = np.array(categories, np.int64)
    none = np.zeros(len(keys), bool)
    return Tubes(
        str(data.folder),
        owner,
        truth.categories.place(classes),
        scores,
        none,
        np.full(len(keys), np.nan),
        Frames(offsets, masks),
        category_id=classes,
    )


def _mean(values: Any) -> float:
    """Returns the mean; of equal values exactly that value."""
    return float(values[0]) if (values == values[0]).all() else float(np.mean(values))


def _category(values: Any, key: tuple[int, int], truth: TubeTruth, data: Predictions) -> int:
    if (values != values[0]).any():
        raise UserError(
            f"{data.benchmark.folder / 'prompts.parquet'}: track {key[1]} of video "
            f"{truth.video_ids[key[0]]} has"
            " several categories; a track has one"
        )
    return int(values[0])


def _units(data: Predictions, truth: TubeTruth, best: BestMatches) -> Units:
    """Returns one row a ground-truth tube; its key is the first frame, its unit ends in the annotation's id."""
    from hqsam_metrics.benchmark_data import integers, strings

    images = data.benchmark.images
    names = strings(images, "video")
    first: dict[int, tuple[int, str, str]] = {}
    rows = zip(
        integers(images, "video_id"),
        integers(images, "frame"),
        strings(images, "key"),
        names,
        strict=True,
    )
    for video, frame, key, name in rows:
        entry = (int(frame), str(key), name or str(video))
        first[int(video)] = min(first.get(int(video), entry), entry)
    mine = [first[int(truth.video_ids[v])] for v in truth.tubes.video[best.gt]]
    clusters = [name for _, _, name in mine]
    unit = [f"{name}/{i}" for name, i in zip(clusters, truth.ids[best.gt], strict=True)]
    return Units([key for _, key, _ in mine], clusters, unit, {"iou": best.iou, "biou": best.biou})


SCORE = YtvisScore()
