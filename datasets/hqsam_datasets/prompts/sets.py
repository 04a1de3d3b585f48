"""Prompt sets that are made from ground-truth masks, by their names: what the index stage draws for any benchmark.

gt_box                the tight box of each object
gt_<kind>             a prompt of that kind (a file of this folder), as training draws it
previous_frame_box    in a video the box of the object's mask in the frame before: a stand-in for a tracker
tracked_box           in a video the box of the mask that the system itself predicted in the frame before, in the first
                      frame that of the ground truth: a stand-in that sees no other truth (`hqsam.prediction.tracks`)
box_noise_0.2         the tight box, jittered by this ratio (paper, Table 13: 0.2 and 0.4)
points_1              the point farthest from the boundary (paper, Figure 5)
points_5, points_10+5 so many random points on the object, and beside it; three trials, whose mean counts
clicks, clicks_5      interactive: the first click is that of points_1, each further one goes where the system's own
                      mask is wrong (`hqsam.prediction.clicks`); 20 at most, or as many as are said
coarse_eroded_1       a mask that is too small, by 2 to 4 % of the object's size (level 1), 4 to 8 % (2) or 8 to 16 % (3)
coarse_dilated_1      one that is too large
coarse_polygon_1      one with so few corners that it lies off by as much

Everything random comes from the generator that the index stage makes of the set's seed and the
object's key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from hqsam_base import rle
from hqsam_base.centre import centre_point
from hqsam_datasets.formats.resize import resize_bilinear
from hqsam_datasets.prompts import load, names
from hqsam_datasets.prompts.base import DRAWN_PREFIX, BoolMask, PromptArrays, PromptKind
from hqsam_datasets.prompts.box import mask_box, noisy_box
from hqsam_datasets.prompts.point import sample_points

GT_BOX = "gt_box"
PREVIOUS = "previous_frame_box"
TRACKED = "tracked_box"
TRIALS = 3
"""Of sets of several random points; the paper's Figure 5 takes the mean of as many."""

CLICKS = 20
"""Of an interactive set: the usual limit of NoC."""

SHIFTS = {1: (0.02, 0.04), 2: (0.04, 0.08), 3: (0.08, 0.16)}
"""By how much the contour of a coarse mask is off, at each level: a range of fractions of the square root of the object's area."""

Draw = Callable[[BoolMask, np.random.Generator], PromptArrays | None]


@dataclass(frozen=True)
class MaskSet:
    """A prompt set that is made from masks.

    Attributes:
        name: as `prompt_sets` and ``prompts.parquet`` have it.
        kind: how its prompts are written.
        draw: takes a mask, bool [H, W], and the generator; None: this mask gives no such prompt.
        trials: prompts for each object, each drawn on its own.
        clicks: of an interactive set, how many an object gets: as many prompts, all with the first.
        random: whether `draw` draws at all, so that the seed matters.
    """

    name: str
    kind: PromptKind
    draw: Draw
    trials: int = 1
    clicks: int = 0
    random: bool = True

    @property
    def per_object(self) -> int:
        """Prompts of each object."""
        return self.clicks or self.trials


def mask_set(name: str, *, box_side: int | None = None) -> MaskSet | None:
    """Find a prompt set by its name.

    Args:
        name: of the set.
        box_side: take the boxes of `gt_box` from the mask resized to a square of this side, as the
            official script of the four HQ sets does; None: from the mask itself.

    Returns:
        None: no set that is made from masks has that name.
    """
    box, point, mask = load("box"), load("point"), load("noise_mask")
    if name == GT_BOX:
        return MaskSet(name, box, partial(_box, side=box_side), random=False)
    if name in (PREVIOUS, TRACKED):
        return MaskSet(name, box, partial(_box, side=None), random=False)
    kind = name.removeprefix(DRAWN_PREFIX)
    if name.startswith(DRAWN_PREFIX) and kind in names():
        own = load(kind)
        return MaskSet(name, own, lambda found, rng: own.of_mask(found, rng=rng))
    if found := re.fullmatch(r"box_noise_(0\.\d{1,4})", name):
        return MaskSet(name, box, partial(_noisy_box, ratio=float(found[1])))
    if found := re.fullmatch(r"points_([1-9]\d{0,2})(?:\+([1-9]\d{0,2}))?", name):
        many = int(found[1]), int(found[2] or 0)
        if many == (1, 0):
            return MaskSet(name, point, _centre, random=False)
        return MaskSet(name, point, partial(_points, many=many), trials=TRIALS)
    if found := re.fullmatch(r"clicks(?:_([1-9]\d?))?", name):
        return MaskSet(name, point, _centre, clicks=int(found[1] or CLICKS), random=False)
    if found := re.fullmatch(r"coarse_(eroded|dilated|polygon)_([1-3])", name):
        return MaskSet(name, mask, partial(_coarse, how=_COARSE[found[1]], level=int(found[2])))
    return None


def examples() -> list[str]:
    """List names for messages: parameters as the paper has them."""
    kinds = [f"{DRAWN_PREFIX}{kind}" for kind in names() if kind != "box"]
    return [
        *kinds,
        PREVIOUS,
        TRACKED,
        "box_noise_0.2",
        "points_1",
        "points_10+5",
        "clicks",
        *(f"coarse_{how}_1" for how in _COARSE),
    ]


def _box(mask: BoolMask, rng: np.random.Generator, *, side: int | None) -> PromptArrays | None:
    found = rle.tight_box(mask) if side is None else mask_box(_resized(mask, side))
    if found is None:
        return None
    scale = np.array([1.0, 1.0]) if side is None else np.array(mask.shape[::-1]) / side
    return PromptArrays(box=np.array(found, np.float64) * np.tile(scale, 2))


def _resized(mask: BoolMask, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return resize_bilinear(mask * np.uint8(255), side, side)


def _noisy_box(mask: BoolMask, rng: np.random.Generator, *, ratio: float) -> PromptArrays | None:
    box = rle.tight_box(mask)
    if box is None:
        return None
    height, width = mask.shape
    noisy = noisy_box(box, scale=ratio, size=(height, width), rng=rng)
    return PromptArrays(box=np.array(noisy, np.float64))


def _centre(mask: BoolMask, rng: np.random.Generator) -> PromptArrays | None:
    found = centre_point(mask)
    if found is None:
        return None
    return PromptArrays(points=np.array([found[0]], np.float64), labels=np.ones(1, np.int64))


def _points(
    mask: BoolMask, rng: np.random.Generator, *, many: tuple[int, int]
) -> PromptArrays | None:
    """Draw points on the object, then points anywhere beside it; where there are fewer pixels, all of them."""
    on = sample_points(mask * np.uint8(255), n=many[0], rng=rng)
    if not len(on):
        return None
    beside = sample_points(~mask * np.uint8(255), n=many[1], rng=rng)
    return PromptArrays(
        points=np.concatenate([on, beside]).astype(np.float64),
        labels=np.repeat(np.array([1, 0], np.int64), [len(on), len(beside)]),
    )


def _coarse(
    mask: BoolMask,
    rng: np.random.Generator,
    *,
    how: Callable[[BoolMask, float, np.random.Generator], BoolMask],
    level: int,
) -> PromptArrays | None:
    box = rle.tight_box(mask)
    if box is None:
        return None
    shift = rng.uniform(*SHIFTS[level]) * math.sqrt(np.count_nonzero(mask))
    # Inside the box and the shift alone: a small object in a large photograph takes no time.
    x0, y0, x1, y1 = (int(v) for v in box)
    margin = math.ceil(shift) + 1
    rows = slice(max(y0 - margin, 0), y1 + 1 + margin)
    columns = slice(max(x0 - margin, 0), x1 + 1 + margin)
    coarse = np.zeros_like(mask)
    coarse[rows, columns] = how(mask[rows, columns], shift, rng)
    return PromptArrays(mask=coarse)


def _eroded(mask: BoolMask, shift: float, rng: np.random.Generator) -> BoolMask:
    """Keep what lies deeper than the shift; of an object that is thinner, its middle line."""
    depth = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(depth > min(shift, 0.9 * float(depth.max())))


def _dilated(mask: BoolMask, shift: float, rng: np.random.Generator) -> BoolMask:
    outside = (~mask).view(np.uint8)
    return np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= shift)


def _polygon(mask: BoolMask, shift: float, rng: np.random.Generator) -> BoolMask:
    """Approximate every contour with as few corners as the shift allows, from a random first corner."""
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rolled = [np.roll(c, int(rng.integers(len(c))), axis=0) for c in contours]
    drawn = np.zeros(mask.shape, np.uint8)
    # As open lines: of a closed one OpenCV chooses the first corner itself. All at once: inside an
    # outer contour, a hole's stays open.
    cv2.fillPoly(drawn, [cv2.approxPolyDP(c, shift, closed=False) for c in rolled], 1)
    return np.asarray(drawn > 0)


_COARSE = {"eroded": _eroded, "dilated": _dilated, "polygon": _polygon}
