"""The same object on another background: outlines of foreground masks.

ThinObject-5K's training and test pictures are cut-outs from one source, pasted on photographs. A
cut-out that was used twice shares hardly a window of pixels with its twin when it is thin, but its
outline is the same to the pixel, and intricate outlines do not agree by chance: of unrelated pairs
with outlines that look alike to the hash, none comes near.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsam_datasets.overlap.candidates import (
    DERIVED_SLACK,
    Candidate,
    pdq_candidates,
    position_variants,
    variant_image,
)
from hqsam_datasets.overlap.hashing import pdq_of
from hqsam_datasets.overlap.verify import Evidence, in_fractions, thumbnail

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

MIN_SIDE = 12
"""Pixels: the outline of a smaller object says nothing."""
SIMPLE = 5.0
"""Complexity (`complexity_of`) below which an outline alone proves nothing: a disc has 1, a triangle 2."""
_HASH_SIDE = 64
_SIMPLE_RADIUS = 31  # PDQ bits in which simple outlines, of which there are many alike, may differ
_MAX_STRETCH = 1.25  # between the two scales that take one outline's box to the other's
_RIVALS = 4  # outlines of one pair of images that are looked at
_CANVAS = 128  # pixels: longer side of the boxes that are laid over each other
_MARGIN = 8
_TOLERANCE = 1.5  # canvas pixels: how far two outlines may be apart
_ECC = (3, 30, 1e-4)  # OpenCV's criteria: at most 30 steps, or a gain below 1e-4


@dataclass(frozen=True)
class Shapes:
    """Outlines of the foregrounds of many images.

    Attributes:
        row: int64 [S], the image.
        number: int64 [S], which of the image's masks.
        pdq: uint8 [S, 32], PDQ of the mask's bounding box, stretched to a square.
        box: float64 [S, 4], the box as (x0, y0, x1, y1), edges, in 1/256 of the image's longest
            side.
        complexity: float64 [S], see `complexity_of`.
    """

    row: I64
    number: I64
    pdq: U8
    box: F64
    complexity: F64

    @classmethod
    def of(cls, found: list[tuple[int, int, Shape, float]]) -> Shapes:
        """Build from (row, number, shape, 256 / longest side) each."""
        return cls(
            row=np.array([row for row, _, _, _ in found], np.int64),
            number=np.array([number for _, number, _, _ in found], np.int64),
            pdq=np.frombuffer(b"".join(s.pdq for _, _, s, _ in found), np.uint8).reshape(-1, 32),
            box=np.array(
                [[v * unit for v in s.box] for _, _, s, unit in found], np.float64
            ).reshape(-1, 4),
            complexity=np.array([s.complexity for _, _, s, _ in found], np.float64),
        )


@dataclass(frozen=True)
class Shape:
    """One outline: PDQ of the boxed mask, the box (x0, y0, x1, y1; x1, y1 exclusive) in pixels, complexity."""

    pdq: bytes
    box: tuple[int, int, int, int]
    complexity: float


def shape_of(mask: Mask) -> Shape | None:
    """Return the outline of a mask bool [H, W]; None if it is empty, tiny or fills its box.

    The box is stretched to a square, so a scaled or mirrored copy of the object has (a variant of)
    the same bits.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if min(width, height) < MIN_SIDE:
        return None
    crop = mask[y : y + height, x : x + width].view(np.uint8) * np.uint8(255)
    square = np.asarray(
        cv2.resize(crop, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA), np.uint8
    )
    pdq, quality = pdq_of(square)
    if not quality:
        return None
    return Shape(pdq, (x, y, x + width, y + height), complexity_of(square > 127))


def complexity_of(mask: Mask) -> float:
    """Return the squared outline length over 4 pi times the area: about 1 for a disc, over 100 for a spider's web."""
    area = int(mask.sum())
    return int(_outline(mask).sum()) ** 2 / (4 * np.pi * area) if area else 0.0


def _outline(mask: Mask) -> Mask:
    """Return pixels of the mask that touch its outside (or the frame)."""
    padded = cv2.copyMakeBorder(mask.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    return np.asarray(mask & ~(inner > 0))


# ---- candidates ----


def shape_candidates(train: Shapes, other: Shapes, frame: F64, *, radius: int) -> list[Candidate]:
    """Find pairs of images with foregrounds of nearly the same outline, in some dihedral variant.

    Args:
        train: the outlines of the training images' foregrounds.
        other: those of the other side.
        frame: float64 [N, 2], width and height of the training images in 1/256 of their longest
            side.
        radius: PDQ bits that may differ; fewer if either outline is simple.

    Returns:
        Candidates that take box to box, sorted by (train, other, hamming); the best few of two
        images with many objects.
    """
    found = []
    for pair in pdq_candidates(train.pdq, other.pdq, radius=radius):
        simple = min(train.complexity[pair.train], other.complexity[pair.other]) < SIMPLE
        candidate = _box_to_box(pair, train, other, frame)
        limit = _SIMPLE_RADIUS + (DERIVED_SLACK if pair.variant else 0)
        if candidate is not None and not (simple and (pair.hamming or 0) > limit):
            found.append(candidate)
    found.sort(key=lambda c: (c.train, c.other, c.hamming or 0, c.masks or (0, 0)))
    pairs = itertools.groupby(found, key=lambda c: (c.train, c.other))
    return [candidate for _, rivals in pairs for candidate in itertools.islice(rivals, _RIVALS)]


def _box_to_box(pair: Candidate, train: Shapes, other: Shapes, frame: F64) -> Candidate | None:
    """Return the candidate for two images, from a pair of outlines.

    None if one box would have to be stretched.
    """
    row, column = int(train.row[pair.train]), int(other.row[pair.other])
    box, to = train.box[pair.train], other.box[pair.other]
    width, height = (np.full(2, side) for side in frame[row])
    x, y = position_variants(box[0::2], box[1::2], width, height, pair.variant)
    scale_x = float((to[2] - to[0]) / (x.max() - x.min()))
    scale_y = float((to[3] - to[1]) / (y.max() - y.min()))
    if max(scale_x, scale_y) > _MAX_STRETCH * min(scale_x, scale_y):
        return None
    shift = (float(to[0] - scale_x * x.min()), float(to[1] - scale_y * y.min()))
    masks = (int(train.number[pair.train]), int(other.number[pair.other]))
    return Candidate(
        row,
        column,
        pair.variant,
        "mask",
        hamming=pair.hamming,
        transform=(scale_x, scale_y, *shift),
        masks=masks,
    )


# ---- proof ----


@dataclass(frozen=True)
class Cutout:
    """A picture uint8 [H, W, 3] RGB and one of its foregrounds bool [H, W]."""

    image: U8
    mask: Mask

    def turned(self, variant: int) -> Cutout:
        """Return a dihedral variant of both."""
        return Cutout(variant_image(self.image, variant), variant_image(self.mask, variant))


def compare_outlines(train: Cutout, other: Cutout, candidate: Candidate) -> Evidence | None:
    """Lay two foregrounds over each other, refine the fit, compare outline and colours.

    None for empty masks.
    """
    turned = train.turned(candidate.variant)
    boxes = [cv2.boundingRect(cutout.mask.view(np.uint8)) for cutout in (turned, other)]
    if min(min(box[2:]) for box in boxes) < 2:
        return None
    scale = _CANVAS / max(boxes[1][2:])
    size = (max(8, round(boxes[1][2] * scale)), max(8, round(boxes[1][3] * scale)))
    first, first_mask, first_map = _on_canvas(turned, boxes[0], size)
    second, second_mask, second_map = _on_canvas(other, boxes[1], size)
    template, moving = (cv2.GaussianBlur(mask, (0, 0), 1.5) for mask in (second_mask, first_mask))
    start = np.eye(2, 3, dtype=np.float32)
    try:  # the affine map, second canvas to first, that lays the first mask over the second
        _, found = cv2.findTransformECC(template, moving, start, cv2.MOTION_AFFINE, _ECC)
        refined = np.asarray(found, np.float32)
    except cv2.error:  # no convergence: the boxes' fit stands
        refined = np.eye(2, 3, dtype=np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shape = (second.shape[1], second.shape[0])
    first = np.asarray(cv2.warpAffine(first, refined, shape, flags=flags), np.uint8)
    first_mask = np.asarray(cv2.warpAffine(first_mask, refined, shape, flags=flags), np.float32)
    a, b = first_mask > 0.5, second_mask > 0.5
    colour, ncc = _colours(first, second, a & b)
    # OpenCV's map goes from the second canvas back to the first.
    total = np.eye(3)
    for step in (
        first_map,
        cv2.invertAffineTransform(refined.astype(np.float64)),
        cv2.invertAffineTransform(second_map),
    ):
        total = np.vstack([step, [0, 0, 1]]) @ total
    affine = np.asarray(total[:2], np.float64)
    shared = float((a & b).sum()) / max(1, int(b.sum()))
    return Evidence(
        ncc=ncc,
        corners=None,
        corner_fraction=float("nan"),
        matched_fraction=float("nan"),
        matched_inside=float((a & b).sum()) / max(1, int((a | b).sum())),
        matched_outside=float("nan"),
        cover_train=1.0,
        cover_other=1.0,
        area_train=shared * float(turned.mask.mean()),
        area_other=shared * float(other.mask.mean()),
        area_inside=shared * float(turned.mask.mean()),
        affine=in_fractions(affine, turned.mask.shape, other.mask.shape),
        region=thumbnail(other.mask),
        outline=_agreement(a, b),
        complexity=complexity_of(b),
        colour=colour,
    )


def is_same_object(evidence: Evidence) -> bool:
    """Return whether outlines and shading (without shading: finer agreement and colours) prove one and the same cut-out.

    Limits: in perf/data/overlap_recall.py outlines of the same object agree to 0.89 and more, and
    their grey values correlate to 0.82 and more. Two bicycles of one make agree to 0.91, and their
    grey values not at all.
    """
    e = evidence
    if e.ncc >= 0.85 and e.outline >= 0.75 and e.matched_inside >= 0.9:
        return True
    if not (e.outline >= 0.84 and e.matched_inside >= 0.7):
        return False
    if e.ncc >= 0.6:
        return True
    if e.complexity < SIMPLE:
        return e.ncc >= 0.3 and e.colour <= 6
    return e.outline >= 0.94 and e.matched_inside >= 0.85 and e.colour <= 40


def _on_canvas(cutout: Cutout, box: Any, size: tuple[int, int]) -> tuple[U8, F32, F64]:
    """Return the boxed picture and soft mask at `size` (width, height) plus a margin, and the map from pixels to there."""
    x, y, width, height = box
    window = (slice(y, y + height), slice(x, x + width))
    how = cv2.INTER_AREA if size[0] < width else cv2.INTER_LINEAR
    small = cv2.resize(np.ascontiguousarray(cutout.image[window]), size, interpolation=how)
    soft = cv2.resize(cutout.mask[window].astype(np.float32), size, interpolation=how)
    pad = (_MARGIN,) * 4
    image = np.asarray(cv2.copyMakeBorder(small, *pad, cv2.BORDER_REPLICATE), np.uint8)
    alpha = np.asarray(cv2.copyMakeBorder(soft, *pad, cv2.BORDER_CONSTANT, value=0), np.float32)
    scale_x, scale_y = size[0] / width, size[1] / height
    shift_x, shift_y = (
        (0.5 - start) * scale - 0.5 + _MARGIN for start, scale in ((x, scale_x), (y, scale_y))
    )
    return image, alpha, np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]])


def _agreement(a: Mask, b: Mask) -> float:
    """Return the share of either outline within `_TOLERANCE` pixels of the other, the smaller of the two, less chance.

    Outlines of two grids lie near each other wherever they are laid: the share of the whole box
    that is that near is what chance gives, and counts as 0.
    """
    first, second = _outline(a), _outline(b)
    if not first.any() or not second.any():
        return 0.0
    x, y, width, height = cv2.boundingRect((a | b).view(np.uint8))
    box = (slice(y, y + height), slice(x, x + width))
    shares = []
    for line, to in ((first, second), (second, first)):
        near = cv2.distanceTransform((~to).view(np.uint8), cv2.DIST_L2, 3) <= _TOLERANCE
        chance = float(near[box].mean())
        shares.append((float(near[line].mean()) - chance) / max(1 - chance, 1e-6))
    return min(shares)


def _colours(first: U8, second: U8, where: Mask) -> tuple[float, float]:
    """Return the largest difference of the mean R, G, B and the correlation of the grey values in the common foreground."""
    inner = cv2.erode(where.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if inner.sum() >= 50:
        where = np.asarray(inner)
    a, b = first[where].astype(np.float64), second[where].astype(np.float64)
    if len(a) < 8:
        return float("inf"), float("nan")
    grey_a, grey_b = a.mean(1), b.mean(1)
    flat = min(grey_a.std(), grey_b.std()) < 1e-6
    ncc = float("nan") if flat else float(np.corrcoef(grey_a, grey_b)[0, 1])
    return float(np.abs(a.mean(0) - b.mean(0)).max()), ncc
