"""Masks to COCO polygons, as a careful annotator would draw them.

Published polygon annotations are outlines on a sub-pixel grid. Holes (between spokes, through a
lattice) are drawn as annotators do it, by a
cut: the outline runs into the hole, around it and back. ``pycocotools`` fills by parity, so the two
passes over the cut cancel.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Alpha = npt.NDArray[np.floating]
Contour = npt.NDArray[np.integer]
Ring = npt.NDArray[np.float64]

_SUBPIXELS = 8
_TOLERANCE_PX = 0.3
_MIN_PART_PX = 2.0


def polygons_of(alpha: Alpha) -> list[list[float]]:
    """Outline the region where ``alpha`` is above one half.

    Args:
        alpha: float [H, W] coverage in 0..1.

    Returns:
        COCO polygons ``[x0, y0, x1, y1, ...]`` in COCO's frame: pixel (x, y) covers the square from
        (x, y) to (x + 1, y + 1). Parts below two pixels of area are left out, as annotators do.
        Empty if nothing is left.
    """
    size = (alpha.shape[1] * _SUBPIXELS, alpha.shape[0] * _SUBPIXELS)
    fine = cv2.resize(alpha.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    found, tree = cv2.findContours(fine.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings: list[Contour] = [np.asarray(ring, dtype=np.int32) for ring in found]
    if not rings:
        return []
    outlines: list[list[float]] = []
    for index in range(len(rings)):
        if tree[0][index][3] == -1 and _area(rings[index]) >= _MIN_PART_PX:
            holes = [
                rings[k]
                for k in range(len(rings))
                if tree[0][k][3] == index and _area(rings[k]) >= 1.0
            ]
            outlines.append(_joined(_simple(rings[index]), [_simple(hole) for hole in holes]))
    return [outline for outline in outlines if len(outline) >= 6]


def _area(ring: Contour) -> float:
    return float(cv2.contourArea(ring)) / _SUBPIXELS**2


def _simple(ring: Contour) -> Ring:
    """Drop points that lie within the tolerance of the outline; float [N, 2] in COCO's frame."""
    simplified = cv2.approxPolyDP(ring, _TOLERANCE_PX * _SUBPIXELS, closed=True)
    return np.asarray((simplified.reshape(-1, 2) + 0.5) / _SUBPIXELS, dtype=np.float64)


def _joined(outer: Ring, holes: list[Ring]) -> list[float]:
    """Join holes to their outline by cuts between the nearest points.

    Flat, two decimals as published.
    """
    for hole in holes:
        distance = ((outer[:, None] - hole[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(int(distance.argmin()), distance.shape)
        around = np.roll(hole, -int(there), axis=0)
        outer = np.concatenate([outer[: here + 1], around, around[:1], outer[here:]])
    return [round(float(v), 2) for v in outer.ravel()]
