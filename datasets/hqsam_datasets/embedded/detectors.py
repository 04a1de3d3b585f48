"""What detectors and trackers would have written for the embedded scenes.

The published prompt files (FocalNet-DINO and ViTDet boxes, Mask2Former tracks, XMem masks, PSPNet
masks) come from networks. Here their *errors* are simulated instead: loose boxes, doubled and
misnamed detections, false alarms, masks without fine structure, lost frames. The result files have
the tools' own formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

BoolMask = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]

_MISS = 0.06
_DOUBLE = 0.35
_MISNAME = 0.25
_FALSE_ALARMS = (2, 6)


@dataclass(frozen=True)
class Detectable:
    """One annotated object as a detector meets it.

    Attributes:
        category_id: its category in the data set's numbering.
        bbox: (x, y, width, height) in pixels.
    """

    category_id: int
    bbox: Box


@dataclass(frozen=True)
class Frame:
    """Image size in pixels."""

    height: int
    width: int


def detections(
    objects: Sequence[Detectable],
    *,
    image_id: int,
    frame: Frame,
    category_ids: Sequence[int],
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Simulate a detector on one image.

    Args:
        objects: what is there.
        image_id: the image's id in the data set.
        frame: the image's size.
        category_ids: the classes that the detector knows (for misnamed objects and false alarms).
        rng: source of the errors.

    Returns:
        COCO results, best score first: ``{"image_id", "category_id", "bbox": [x, y, w, h],
        "score"}``.
    """
    found: list[tuple[int, Box, float]] = []
    for thing in objects:
        if rng.random() >= _MISS:
            score = float(rng.beta(6, 2))
            found.append((thing.category_id, _jittered(thing.bbox, 0.03, frame, rng), score))
            if rng.random() < _DOUBLE:
                found.append(
                    (
                        thing.category_id,
                        _jittered(thing.bbox, 0.12, frame, rng),
                        score * rng.uniform(0.2, 0.7),
                    )
                )
            if rng.random() < _MISNAME:
                wrong = int(
                    rng.choice(
                        [c for c in category_ids if c != thing.category_id] or [thing.category_id]
                    )
                )
                found.append(
                    (wrong, _jittered(thing.bbox, 0.05, frame, rng), score * rng.uniform(0.1, 0.6))
                )
    for _ in range(int(rng.integers(*_FALSE_ALARMS))):
        category = int(rng.choice(category_ids))
        w, h = rng.uniform(0.08, 0.5) * frame.width, rng.uniform(0.08, 0.5) * frame.height
        x, y = rng.uniform(0, frame.width - w), rng.uniform(0, frame.height - h)
        score = float(rng.uniform(0.01, 0.25))
        found.append((category, (float(x), float(y), float(w), float(h)), score))
    found.sort(key=lambda row: -row[2])
    return [
        {
            "image_id": image_id,
            "category_id": c,
            "bbox": [round(v, 3) for v in box],
            "score": round(score, 6),
        }
        for c, box, score in found
    ]


def _jittered(box: Box, spread: float, frame: Frame, rng: np.random.Generator) -> Box:
    """Move each side by a normal error of ``spread`` times the extent, at least half a pixel, inside the frame."""
    x, y, w, h = box
    dx, dy = max(0.5, spread * w), max(0.5, spread * h)
    left, right = np.clip(
        np.sort([x + rng.normal(0, dx), x + w + rng.normal(0, dx)]), 0, frame.width
    )
    top, bottom = np.clip(
        np.sort([y + rng.normal(0, dy), y + h + rng.normal(0, dy)]), 0, frame.height
    )
    return float(left), float(top), float(max(1.0, right - left)), float(max(1.0, bottom - top))


def coarse_mask(mask: BoolMask, *, stride: int, rng: np.random.Generator) -> BoolMask:
    """Return the mask as a segmentation network gives it: fine structure gone, gaps closed, outline off.

    Args:
        mask: bool [H, W], the exact mask.
        stride: pixels per cell of the network's output map.
        rng: source of the outline's error.

    Returns:
        bool [H, W].
    """
    height, width = mask.shape
    cells = (max(2, round(width / stride)), max(2, round(height / stride)))
    grid = cv2.resize(mask.astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    error = rng.normal(0.0, 0.06, size=grid.shape)
    grid = np.asarray(cv2.GaussianBlur(grid, (3, 3), 0.6) + error, dtype=np.float32)
    smooth = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    coarse = np.asarray(smooth > 0.25, dtype=bool)
    return coarse if coarse.any() or not mask.any() else mask


def tracked(
    masks: Sequence[BoolMask],
    *,
    stride: int,
    lost: float,
    rng: np.random.Generator,
    first_is_given: bool = False,
) -> list[BoolMask]:
    """Return one object's masks over a clip as a tracker gives them.

    Args:
        masks: exact masks, bool [H, W] per frame; all-false where the object is away.
        stride: coarseness, see `coarse_mask`.
        lost: chance per frame that the tracker loses the object.
        rng: source of the errors.
        first_is_given: semi-supervised tracking: the first frame's mask is the given one.

    Returns:
        bool [H, W] per frame.
    """
    out = []
    for index, mask in enumerate(masks):
        coarse = coarse_mask(mask, stride=stride, rng=rng)
        gone = rng.random() < lost
        out.append(
            mask if first_is_given and index == 0 else np.zeros_like(mask) if gone else coarse
        )
    return out
