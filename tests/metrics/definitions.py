"""The official definitions written down plainly and slowly, from the papers and the programs' rules, with no code of ours.

Masks are bool arrays. Everything is a loop over objects; nothing is shared with the package but the
input files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

# The numbers themselves matter: 0.5 + 0.05 * 7 is not 0.85, and an IoU may be 17/20.
THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def shrunk(mask: Mask) -> Mask:
    """The pixels whose eight neighbours are all in the mask; outside the picture is background."""
    padded = np.pad(mask, 1)
    out = mask.copy()
    for y in range(3):
        for x in range(3):
            out &= padded[y : y + mask.shape[0], x : x + mask.shape[1]]
    return out


def band(mask: Mask, ratio: float) -> Mask:
    """Boundary IoU (Cheng et al. 2021): what n erosions take away, n = ratio of the diagonal, halves to even."""
    inner = mask
    for _ in range(max(1, round(ratio * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2)))):
        inner = shrunk(inner)
    return mask & ~inner


def decode(segmentation: Any, height: int, width: int) -> Mask:
    """A mask by pycocotools; None is an empty one."""
    if segmentation is None:
        return np.zeros((height, width), bool)
    code = (
        segmentation
        if isinstance(segmentation["counts"], str)
        else coco_mask.frPyObjects(segmentation, height, width)
    )
    return np.asarray(coco_mask.decode(code), bool)


@dataclass
class Thing:
    """A detection or an annotation: one picture, or one a frame."""

    masks: list[Mask]
    area: float
    score: float = 0.0
    ignore: bool = False
    crowd: bool = False
    lenient: bool = False
    banded: list[Mask] | None = None


@dataclass
class Group:
    """What is matched together; `dt` in the order of the file."""

    category: int
    dt: list[Thing] = field(default_factory=list)
    gt: list[Thing] = field(default_factory=list)


Iou = Callable[[Thing, Thing], float]


def over(inside: int, either: int) -> float:
    return inside / either if either else 0.0


def counts(a: Sequence[Mask], b: Sequence[Mask]) -> tuple[int, int]:
    pairs = list(zip(a, b, strict=False))
    return sum(int((x & y).sum()) for x, y in pairs), sum(int((x | y).sum()) for x, y in pairs)


def mask_iou(d: Thing, g: Thing) -> float:
    return over(*counts(d.masks, g.masks))


def crowd_iou(d: Thing, g: Thing) -> float:
    """COCO: of a crowd only the part of the detection that lies in it counts."""
    return over(counts(d.masks, g.masks)[0], int(d.masks[0].sum())) if g.crowd else mask_iou(d, g)


def with_boundary(of_mask: Iou, ratio: float) -> Iou:
    """The smaller of mask and boundary IoU; crowds by their mask."""

    def value(d: Thing, g: Thing) -> float:
        if g.crowd:
            return of_mask(d, g)
        bands = ([band(m, ratio) for m in thing.banded or thing.masks] for thing in (d, g))
        return min(of_mask(d, g), over(*counts(*bands)))

    return value


def taken(
    values: list[list[float]], ignored: list[bool], crowd: list[bool], threshold: float
) -> list[int]:
    """The annotation that each detection takes, -1 for none: the best free one that counts, else the best ignored one."""
    used: set[int] = set()
    out = []
    for row in values:
        best = -1
        for wanted in (False, True):
            free = [
                g for g in range(len(row)) if ignored[g] == wanted and (g not in used or crowd[g])
            ]
            fit = [g for g in free if row[g] >= min(threshold, 1 - 1e-10)]
            if fit:
                best = max(fit, key=lambda g: (row[g], g))
                break
        if best >= 0:
            used.add(best)
        out.append(best)
    return out


@dataclass(frozen=True)
class Bins:
    """Size bins; `closed`: the upper border belongs to a bin."""

    small: float
    medium: float
    closed: bool = True

    def holds(self, size: str, area: float) -> bool:
        low, high = {
            "": (0, 1e10),
            "s": (0, self.small),
            "m": (self.small, self.medium),
            "l": (self.medium, 1e10),
        }[size]
        return low <= area and (area <= high if self.closed else area < high)


def tables(groups: list[Group], iou: Iou, bins: Bins, limit: int | None = None) -> dict[Any, Any]:
    """(category, size, threshold) -> precision at 101 recalls, and the recall at each limit of detections."""
    rows: dict[Any, Any] = {}
    for group in groups:
        dt = sorted(group.dt, key=lambda d: -d.score)[:limit]
        values = [[iou(d, g) for g in group.gt] for d in dt]
        for size in ("", "s", "m", "l"):
            ignored = [g.ignore or not bins.holds(size, g.area) for g in group.gt]
            for t, threshold in enumerate(THRESHOLDS):
                found = taken(values, ignored, [g.crowd for g in group.gt], threshold)
                cell = rows.setdefault((group.category, size, t), {"positives": 0, "found": []})
                cell["positives"] += ignored.count(False)
                for rank, (d, g) in enumerate(zip(dt, found, strict=True)):
                    skipped = ignored[g] if g >= 0 else d.lenient or not bins.holds(size, d.area)
                    cell["found"].append((d.score, rank, g >= 0, skipped))
    return {key: curve(cell) for key, cell in rows.items() if cell["positives"]}


def curve(cell: dict[str, Any]) -> dict[str, Any]:
    """Precision that never rises, read where each of 101 recalls is reached first."""
    true, false, points = 0, 0, []
    for _, _, hit, skipped in sorted(cell["found"], key=lambda row: -row[0]):
        true += hit and not skipped
        false += not hit and not skipped
        points.append((true / cell["positives"], true / (true + false) if true + false else 0.0))
    precision = []
    for wanted in np.linspace(0, 1, 101):
        at = [n for n, (recall, _) in enumerate(points) if recall >= wanted]
        precision.append(max(p for _, p in points[at[0] :]) if at else 0.0)
    hits = [(rank, hit and not skipped) for _, rank, hit, skipped in cell["found"]]

    def recall(limit: float) -> float:
        return sum(hit for rank, hit in hits if rank < limit) / cell["positives"]

    return {"precision": float(np.mean(precision)), "recall": recall}


def summary(
    found: dict[Any, Any], limits: dict[str, float], categories: Sequence[int] | None = None
) -> dict[str, Any]:
    """The numbers of an evaluator: AP, AP50, AP75, by size, and AR at each of `limits` (name -> detections)."""

    def mean(
        key: str, size: str = "", threshold: int | None = None, limit: float = math.inf
    ) -> float | None:
        cells = [
            cell[key] if key == "precision" else cell[key](limit)
            for (category, s, t), cell in found.items()
            if s == size
            and threshold in (None, t)
            and (categories is None or category in categories)
        ]
        return float(np.mean(cells)) if cells else None

    out = {
        "AP": mean("precision"),
        "AP50": mean("precision", threshold=0),
        "AP75": mean("precision", threshold=5),
    }
    out |= {f"AP{size}": mean("precision", size) for size in "sml"}
    return out | {
        f"AR{name}": mean("recall", name[:1].strip("@1"), limit=limit)
        for name, limit in limits.items()
    }


def contour(mask: Mask) -> Mask:
    """DAVIS: a pixel that differs from its right, lower or lower-right neighbour, pixel by pixel."""
    height, width = mask.shape
    out = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            others = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if y == height - 1:
                others = others[:1]
            elif x == width - 1:
                others = others[1:2]
            out[y, x] = any(
                b < height and a < width and mask[b, a] != mask[y, x] for b, a in others
            )
    return out


def contour_f(pred: Mask, target: Mask, radius: int) -> float:
    """Contour pixels near each other: their squared distance is at most the squared radius."""
    a, b = (np.argwhere(contour(mask)) for mask in (pred, target))
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    near = ((a[:, None] - b[None]) ** 2).sum(2) <= radius * radius
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def davis(target: list[np.ndarray], pred: list[np.ndarray]) -> list[dict[str, float]]:
    """J and F of the objects of a sequence: the first and the last frame do not count, 255 is background."""
    first = np.where(target[0] == 255, 0, target[0])
    out = []
    for k in range(1, int(first.max()) + 1):
        j, f = [], []
        for real, found in list(zip(target, pred, strict=True))[1:-1]:
            a, b = found == k, real == k
            union = int((a | b).sum())
            j.append(int((a & b).sum()) / union if union else 1.0)
            f.append(contour_f(a, b, math.ceil(0.008 * math.hypot(*a.shape))))
        row = {}
        for letter, values in (("J", j), ("F", f)):
            cuts = [round(1 + (len(values) - 1) * q / 4 + 1e-10) - 1 for q in range(5)]
            row |= {
                f"{letter}_mean": float(np.mean(values)),
                f"{letter}_recall": float(np.mean(np.array(values) > 0.5)),
            }
            row[f"{letter}_decay"] = float(
                np.mean(values[: cuts[1] + 1]) - np.mean(values[cuts[3] : cuts[4] + 1])
            )
        out.append(row)
    return out
