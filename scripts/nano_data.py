"""Scenes, prompts and coarse targets for pretraining the `nano` base (see pretrain_nano.py)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hqsam_datasets.embedded.scenes import TRAIN_FAMILIES, render_scene

SIZE, LOW = 128, 64  # network input and low-resolution mask of the nano backbone, pixels
MAX_OBJECTS = 4
MIN_PIXELS = 25
PAD = (124, 116, 104)  # about SAM's pixel mean: zero after normalisation, as its own padding is
Array = NDArray[Any]


@dataclass(frozen=True)
class Cache:
    """Rendered scenes: images uint8 [N,128,128,3], soft masks uint8 [N,4,128,128], objects per scene int [N]."""

    images: Array
    masks: Array
    counts: Array


def _place(rng: Generator, image: Array, masks: Array) -> tuple[Array, Array]:
    """Bring a scene to the input size: stretched, longest side plus padding, or scale jitter with grey padding."""
    height, width = image.shape[:2]
    kind = rng.choice(3, p=(0.5, 0.25, 0.25))
    if kind == 0:
        return _resize(image, SIZE, SIZE), np.stack([_resize(m, SIZE, SIZE) for m in masks])
    scale = SIZE / max(height, width) * (1.0 if kind == 1 else rng.uniform(0.35, 1.6))
    h, w = max(8, round(height * scale)), max(8, round(width * scale))
    image, masks = _resize(image, h, w), np.stack([_resize(m, h, w) for m in masks])
    y, x = int(rng.integers(0, max(h - SIZE, 0) + 1)), int(rng.integers(0, max(w - SIZE, 0) + 1))
    image, masks = image[y : y + SIZE, x : x + SIZE], masks[:, y : y + SIZE, x : x + SIZE]
    out = np.empty((SIZE, SIZE, 3), np.uint8)
    out[:] = PAD if kind == 1 else 128
    out[: image.shape[0], : image.shape[1]] = image
    padded = np.zeros((len(masks), SIZE, SIZE), np.uint8)
    padded[:, : image.shape[0], : image.shape[1]] = masks
    return out, padded


def _resize(image: Array, height: int, width: int) -> Array:
    # Bilinear without anti-aliasing, as the pipeline resizes; scenes are at most 1.6 times larger.
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))


def _sample(rng: Generator) -> tuple[Array, Array, int]:
    n = 1 if rng.random() < 0.6 else int(rng.integers(2, MAX_OBJECTS + 1))
    height, width = (int(v) for v in rng.integers(110, 200, 2))
    scene = render_scene(
        rng=rng, families=TRAIN_FAMILIES, height=height, width=width, n_objects=n, fill=(0.4, 0.95)
    )
    alphas = np.stack([np.rint(o.alpha * 255).astype(np.uint8) for o in scene.objects])
    image, masks = _place(rng, scene.image, alphas)
    visible = [m for m in masks if np.count_nonzero(m > 128) >= MIN_PIXELS]
    out = np.zeros((MAX_OBJECTS, SIZE, SIZE), np.uint8)
    if visible:
        out[: len(visible)] = visible
    return image, out, len(visible)


def render_cache(folder: Path, *, n: int, seed: int) -> Cache:
    """Render `n` scenes of the training families once; later calls with the same numbers read them back."""
    stem = folder / f"scenes-{n}-{seed}"
    names = [stem.with_name(f"{stem.name}-{part}.npy") for part in ("images", "masks", "counts")]
    if not names[2].exists():
        folder.mkdir(parents=True, exist_ok=True)
        images = np.empty((n, SIZE, SIZE, 3), np.uint8)
        masks, counts = np.empty((n, MAX_OBJECTS, SIZE, SIZE), np.uint8), np.empty(n, np.int64)
        for i in range(n):
            rng = np.random.default_rng([seed, i])
            counts[i] = 0
            while counts[i] == 0:
                images[i], masks[i], counts[i] = _sample(rng)
            if i % 500 == 0:
                print(f"rendered {i}/{n}", file=sys.stderr, flush=True)
        for name, array in zip(names, (images, masks, counts), strict=True):
            np.save(name, array)
    return Cache(
        np.load(names[0], mmap_mode="r"), np.load(names[1], mmap_mode="r"), np.load(names[2])
    )


def coarsen(mask: Array) -> Array:
    """SA-1B-like target: gaps bridged, holes filled, thin parts fattened, edges soft.

    Closing with an ellipse of 5 % of the object's extent, blur of a third of that, then a stretch
    that puts the half level slightly outside.

    Args:
        mask: soft mask uint8 [128, 128].

    Returns:
        float32 [64, 64] in 0.03..0.97 (label smoothing keeps the base's logits moderate).
    """
    ys, xs = np.nonzero(mask > 128)
    extent = np.sqrt((np.ptp(ys) + 1.0) * (np.ptp(xs) + 1.0))
    r = max(1, round(0.05 * extent))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1))
    padded = cv2.copyMakeBorder(mask, 16, 16, 16, 16, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[16:-16, 16:-16]
    soft = cv2.GaussianBlur(closed.astype(np.float32) / 255, (0, 0), 0.35 * r + 0.5)
    low = cv2.resize(np.clip((soft - 0.1) / 0.6, 0, 1), (LOW, LOW), interpolation=cv2.INTER_AREA)
    return np.asarray(0.03 + 0.94 * low, np.float32)


def tight_box(mask: Array) -> Array:
    """Inclusive xyxy box of mask > 128, float32 [4]."""
    ys, xs = np.nonzero(mask > 128)
    return np.array([xs.min(), ys.min(), xs.max(), ys.max()], np.float32)


def _jitter(rng: Generator, box: Array) -> Array:
    if rng.random() < 0.4:
        return box
    side = np.tile(box[2:] - box[:2] + 1, 2)
    return np.clip(box + np.clip(rng.normal(0, 0.07, 4), -0.2, 0.2) * side, 0, SIZE - 1).astype(
        np.float32
    )


def _points(rng: Generator, mask: Array, others: Sequence[Array]) -> tuple[Array, Array]:
    """1..10 foreground points, at times some background ones, padded with label -1: [11, 2], [11]."""
    ys, xs = np.nonzero(mask > 128)
    k = int(rng.choice((1, 1, 2, 3, 5, 10)))
    pick = rng.integers(0, len(ys), k)
    points, labels = np.zeros((11, 2), np.float32), np.full(11, -1, np.float32)
    points[:k], labels[:k] = np.stack([xs[pick], ys[pick]], 1), 1
    if rng.random() < 0.3:
        inside = np.max(others, axis=0) > 128 if others and rng.random() < 0.5 else mask < 10
        by, bx = np.nonzero(inside & (mask < 10))
        if len(by):
            m = min(int(rng.integers(1, 4)), 11 - k)
            pick = rng.integers(0, len(by), m)
            points[k : k + m], labels[k : k + m] = np.stack([bx[pick], by[pick]], 1), 0
    return points, labels


def _coarse_prompt(rng: Generator, mask: Array) -> Array:
    """A wrong mask as prompt, float32 [64, 64]: as scaled logits, or as 0/255 like HQ-SAM's training feeds it."""
    moved = np.roll(mask, tuple(rng.integers(-3, 4, 2)), (0, 1)).astype(np.float32) / 255
    small = cv2.resize(moved, (LOW, LOW), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), rng.uniform(0.3, 3.0)) - np.float32(
        rng.uniform(0.15, 0.55)
    )
    edge = np.abs(soft) < 0.25
    soft = soft + edge * rng.normal(0, rng.uniform(0, 0.35), soft.shape)
    if rng.random() < 0.5:
        return np.where(soft > 0, 255.0, 0.0).astype(np.float32)
    return np.asarray(soft * rng.uniform(8, 30), np.float32)


@dataclass(frozen=True)
class Step:
    """One training step: images uint8 [B,128,128,3] and their prompts.

    Every image has a box prompt; the first half has points for another object, the second half a
    coarse mask.
    """

    images: Array
    boxes: Array
    box_targets: Array
    points: Array
    labels: Array
    point_targets: Array
    mask_prompts: Array
    mask_boxes: Array
    mask_targets: Array


def _augment(rng: Generator, image: Array, masks: Array) -> tuple[Array, Array]:
    """Dihedral transform, channel order, contrast, inversion."""
    k, mirror = int(rng.integers(4)), bool(rng.integers(2))
    image, masks = np.rot90(image, k), np.rot90(masks, k, (1, 2))
    if mirror:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    image = image[..., rng.permutation(3)].astype(np.float32)
    if rng.random() < 0.2:
        image = 255 - image
    image = (image - 128) * rng.uniform(0.7, 1.25) + 128 + rng.uniform(-20, 20)
    return np.clip(image, 0, 255).astype(np.uint8), np.ascontiguousarray(masks)


def make_step(cache: Cache, *, seed: int, step: int, batch: int) -> Step:
    """The batch of a step; a function of (seed, step) only, so that a resumed run sees the same data."""
    rng = np.random.default_rng([seed, step])
    n, per_epoch = len(cache.counts), len(cache.counts) // batch
    order = np.random.default_rng([seed, 1 << 20, step // per_epoch]).permutation(n)
    rows: dict[str, list[Array]] = {f: [] for f in Step.__dataclass_fields__}
    for j, i in enumerate(order[(step % per_epoch) * batch :][:batch]):
        image, masks = _augment(rng, cache.images[i], cache.masks[i][: cache.counts[i]])
        first, second = (int(v) for v in rng.integers(0, len(masks), 2))
        rows["images"].append(image)
        rows["boxes"].append(_jitter(rng, tight_box(masks[first])))
        rows["box_targets"].append(coarsen(masks[first]))
        if j < batch // 2:
            points, labels = _points(
                rng, masks[second], [m for k, m in enumerate(masks) if k != second]
            )
            rows["points"].append(points)
            rows["labels"].append(labels)
            rows["point_targets"].append(coarsen(masks[second]))
        else:
            rows["mask_prompts"].append(_coarse_prompt(rng, masks[second]))
            rows["mask_boxes"].append(_jitter(rng, tight_box(masks[second])))
            rows["mask_targets"].append(coarsen(masks[second]))
    return Step(**{name: np.stack(values) for name, values in rows.items()})
