"""A real bootstrap of AP: images are resampled, the matches are kept, precision and recall are accumulated again.

Matching happens inside an image (and category), so it need not be done again for a resample: an image that is drawn
twice counts twice, one that is not drawn does not count. AP of a resample is then exact, but for the order of equal
scores. Costs one evaluation of the predictions of each revision, and the accumulation of each resample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_metrics.ap import accumulate
from hqsam_metrics.ap.instances import GroundTruth
from hqsam_pipelines.report.stats import Difference, percentile_difference

Float = NDArray[np.float64]
Int = NDArray[np.int64]

RESAMPLES = 400
KINDS = ("coco", "lvis")
"""Metrics (``score.metric``) whose AP can be resampled."""

_SEED = 20230602


@dataclass(frozen=True)
class Matched:
    """The matches of one system.

    Attributes:
        partials: by metric name (``AP``, ``AP_B``, ``AP_B_strict``).
        positives: int64 [I, K], ground truth that counts, by image and category, for each metric name.
        cluster: int64 [I], what is resampled (the image, or its video).
        limit: detections that count per group.
        image_ids: int64 [I].
    """

    partials: Mapping[str, accumulate.Partial]
    positives: Mapping[str, Int]
    cluster: Int
    limit: int
    image_ids: Int


def ap_differences(a: Matched, b: Matched) -> dict[str, Difference]:
    """Paired differences of AP, AP_B and AP_B_strict in points, resampling images (or videos).

    Raises:
        ValueError: the two sides are not about the same images.
    """
    if not np.array_equal(a.image_ids, b.image_ids):
        raise ValueError("the ground truth is not of the same images")
    clusters = int(a.cluster.max()) + 1
    rng = np.random.default_rng(_SEED)
    drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES)
    # The first row is the whole set, once: its AP is the official one.
    weights = np.vstack([np.ones(clusters, np.int64), drawn]).astype(np.float64)
    found = {}
    for name in a.partials.keys() & b.partials.keys():
        sides = [
            weighted_ap(side.partials[name], side.positives[name], weights[:, side.cluster], side.limit)
            for side in (a, b)
        ]
        difference = 100 * (sides[1] - sides[0])
        defined = difference[~np.isnan(difference)]
        if len(defined) > RESAMPLES // 2:
            found[name] = percentile_difference(
                float(defined[0]), defined[1:], n=int(a.positives[name].sum()), clusters=clusters
            )
    return dict(sorted(found.items()))


def weighted_ap(partial: accumulate.Partial, positives: Int, weights: Float, limit: int) -> Float:
    """AP over all sizes and thresholds with a weight for each image.

    Args:
        partial: the matches.
        positives: int64 [I, K], ground truth that counts, by image and category.
        weights: float64 [R, I], how often each image counts, for R resamples.
        limit: detections that count per group.

    Returns:
        float64 [R]; NaN for a resample without ground truth.
    """
    order = np.lexsort((partial.rank, partial.image, -partial.score, partial.category))
    order = order[partial.rank[order] < limit]
    borders = np.searchsorted(partial.category[order], np.arange(positives.shape[1] + 1))
    total, defined = np.zeros(len(weights)), np.zeros(len(weights))
    for k in np.flatnonzero(positives.any(axis=0)):
        mine = order[borders[k] : borders[k + 1]]
        count = weights @ positives[:, k]
        hit, counted = _flags(partial, mine)
        own = weights[:, partial.image[mine]]
        values = np.mean([_interpolated(hit[t], counted[t], own, count) for t in range(len(hit))], axis=0)
        total += np.where(count > 0, values, 0.0)
        defined += count > 0
    return np.asarray(np.divide(total, defined, out=np.full(len(weights), np.nan), where=defined > 0))


def _flags(partial: accumulate.Partial, mine: Int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which detections are true positives, and which count at all, over all sizes: bool [T, n]."""
    place = np.full(len(partial.score), -1, np.int64)
    place[partial.active] = np.arange(len(partial.active))
    at = place[mine]
    known = np.flatnonzero(at >= 0)
    matched, ignored = (np.zeros((partial.matched.shape[1], len(mine)), bool) for _ in range(2))
    matched[:, known] = partial.matched[0][:, at[known]]
    ignored[:, known] = partial.ignored[0][:, at[known]]
    return matched & ~ignored, np.where(matched, ~ignored, ~partial.outside[0][mine])


def _interpolated(hit: NDArray[np.bool_], counted: NDArray[np.bool_], weights: Float, count: Float) -> Float:
    """Mean precision at the 101 recalls, for each resample: float64 [R]."""
    out = np.zeros(len(weights))
    if not hit.any():
        return out
    true = np.cumsum(weights * hit, axis=1)
    seen = np.cumsum(weights * counted, axis=1)
    recall = true / np.where(count > 0, count, np.inf)[:, None]
    precision = np.maximum.accumulate((true / (seen + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    for r in range(len(weights)):
        at = np.searchsorted(recall[r], accumulate.RECALL_THRESHOLDS, side="left")
        out[r] = precision[r, at[at < recall.shape[1]]].sum() / len(accumulate.RECALL_THRESHOLDS)
    return out


def matched(*, benchmark: Path, predictions: Path, prompt_set: str, system: str, score: Mapping[str, Any]) -> Matched:
    """Evaluates the predictions of one system.

    Args:
        benchmark: folder ``data/benchmarks/<benchmark>``.
        predictions: folder ``data/predictions/<benchmark>-<model>``.
        prompt_set: name of the prompts.
        system: name of the system.
        score: the benchmark's ``score`` section; its metric is one of `KINDS`.

    Raises:
        UserError: a table is missing or damaged.
    """
    from hqsam_metrics import benchmark_data
    from hqsam_metrics.ap import score as apscore
    from hqsam_metrics.ap.detection import partial_results
    from hqsam_metrics.base import ScoreOptions

    options = ScoreOptions(**score)
    data = benchmark_data.load_predictions(benchmark_data.Benchmark(benchmark), predictions, prompt_set, system)
    gt = apscore.ground_truth(data, lvis=options.metric == "lvis")
    plan = _plan(options)
    partials = partial_results(gt, apscore.results(data, gt, options), plan)
    names = ["AP", *(f"AP{suffix}" for suffix in options.ratios)]
    agnostic = options.class_agnostic
    positives = {name: _positives(gt, agnostic=agnostic, boundary=name != "AP") for name in names}
    cluster = _clusters(data.benchmark, gt)
    return Matched(dict(zip(names, partials, strict=True)), positives, cluster, plan.limits[-1], gt.images.ids)


def _plan(options: Any) -> Any:
    from hqsam_metrics.scores import coco, lvis

    ratios = (None, *options.ratios.values())
    if options.metric == "lvis":
        return lvis.make_plan(ratios, max_dets=options.max_dets, per_instance=False)
    return coco.make_plan(ratios, class_agnostic=options.class_agnostic, max_dets=options.max_dets, per_instance=False)


def _positives(gt: GroundTruth, *, agnostic: bool, boundary: bool) -> Int:
    """Ground truth that counts (not ignored; LVIS: with an area), by image and category: int64 [I, K]."""
    ignore, _ = gt.treated(boundary=boundary)
    keep = ~ignore & ((gt.area > 0) | (gt.federation is None))
    table = np.zeros((len(gt.images), 1 if agnostic else len(gt.category_ids)), np.int64)
    np.add.at(table, (gt.image[keep], np.zeros(keep.sum(), np.int64) if agnostic else gt.category[keep]), 1)
    return table


def _clusters(benchmark: Any, gt: GroundTruth) -> Int:
    from hqsam_metrics.benchmark_data import integers, strings

    ids = integers(benchmark.images, "image_id").tolist()
    videos = dict(zip(ids, strings(benchmark.images, "video"), strict=True))
    names = [videos.get(int(i)) or f"image {i}" for i in gt.images.ids]
    return np.unique(names, return_inverse=True)[1].reshape(-1).astype(np.int64)
