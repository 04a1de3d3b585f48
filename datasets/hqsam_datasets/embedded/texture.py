"""Procedural textures: colour fields for backgrounds and object surfaces.

All functions return float32 [H, W, 3] RGB in 0..255 (or [H, W] in -1..1 for `noise`) and draw from
the generator they are given, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Field = NDArray[np.float32]


def noise(
    rng: Generator, height: int, width: int, *, cells: float, octaves: int = 3, decay: float = 0.55
) -> Field:
    """Draw value noise.

    Args:
        rng: source of randomness.
        height: rows.
        width: columns.
        cells: cells of the coarsest octave along the longer side.
        octaves: each one has twice the cells of the one before.
        decay: weight of an octave relative to the one before.

    Returns:
        float32 [H, W], about -1..1.
    """
    total, weight, norm = np.zeros((height, width), np.float32), 1.0, 0.0
    for _ in range(octaves):
        rows = max(2, min(height, round(cells * height / max(height, width))))
        cols = max(2, min(width, round(cells * width / max(height, width))))
        grid = rng.random((rows, cols), np.float32) * 2 - 1
        total += np.float32(weight) * cv2.resize(
            grid, (width, height), interpolation=cv2.INTER_CUBIC
        )
        norm, weight, cells = norm + weight, weight * decay, cells * 2
    return total * np.float32(1.4 / norm)


def _coordinates(rng: Generator, height: int, width: int, *, wobble: float) -> tuple[Field, Field]:
    """Return rotated coordinates in units of the longer side, bent by low-frequency noise."""
    side, a = max(height, width), rng.uniform(0, np.pi)
    x = np.arange(width, dtype=np.float32)[None, :] / side
    y = np.arange(height, dtype=np.float32)[:, None] / side
    u = (np.cos(a) * x + np.sin(a) * y).astype(np.float32)
    v = (-np.sin(a) * x + np.cos(a) * y).astype(np.float32)
    if wobble:
        u = u + np.float32(wobble) * noise(rng, height, width, cells=3, octaves=1)
    return u, v


def _mix(a: NDArray[np.float64], b: NDArray[np.float64], t: Field) -> Field:
    """Blend two colours by a field in 0..1."""
    t3 = np.clip(t, 0, 1)[..., None]
    return a.astype(np.float32) * (1 - t3) + b.astype(np.float32) * t3


def _plain(rng: Generator, h: int, w: int, a: NDArray[np.float64], b: NDArray[np.float64]) -> Field:
    u, _ = _coordinates(rng, h, w, wobble=0.0)
    return _mix(a, b, 0.5 * u + 0.2 * noise(rng, h, w, cells=4, octaves=2))


def _clouds(
    rng: Generator, h: int, w: int, a: NDArray[np.float64], b: NDArray[np.float64]
) -> Field:
    return _mix(a, b, 0.5 + 0.6 * noise(rng, h, w, cells=rng.uniform(3, 14), octaves=4))


def _stripes(
    rng: Generator, h: int, w: int, a: NDArray[np.float64], b: NDArray[np.float64]
) -> Field:
    u, _ = _coordinates(rng, h, w, wobble=rng.uniform(0, 0.08))
    wave = np.sin(2 * np.pi * rng.uniform(3, 22) * u)
    return _mix(a, b, 0.5 + np.float32(rng.uniform(0.5, 3.0)) * wave)


def _checks(
    rng: Generator, h: int, w: int, a: NDArray[np.float64], b: NDArray[np.float64]
) -> Field:
    u, v = _coordinates(rng, h, w, wobble=rng.uniform(0, 0.03))
    f = 2 * np.pi * rng.uniform(2, 9)
    return _mix(a, b, 0.5 + 4 * np.sin(f * u) * np.sin(f * v))


def _bricks(
    rng: Generator, h: int, w: int, a: NDArray[np.float64], b: NDArray[np.float64]
) -> Field:
    u, v = _coordinates(rng, h, w, wobble=0.0)
    rows = v * rng.uniform(5, 12)
    cols = u * rng.uniform(3, 6) + 0.5 * (np.floor(rows) % 2)
    joint = np.maximum(np.abs(rows % 1 - 0.5), np.abs(cols % 1 - 0.5) * 1.05) > 0.44
    return _mix(a, b, joint.astype(np.float32) + 0.25 * noise(rng, h, w, cells=10, octaves=3))


def _patches(
    rng: Generator, h: int, w: int, a: NDArray[np.float64], b: NDArray[np.float64]
) -> Field:
    field = noise(rng, h, w, cells=rng.uniform(4, 16), octaves=2)
    return _mix(a, b, 0.5 + 6 * (field - np.float32(rng.uniform(-0.3, 0.3))))


def _grain(rng: Generator, h: int, w: int, a: NDArray[np.float64], b: NDArray[np.float64]) -> Field:
    """Draw a wood-like grain: noise stretched along one direction."""
    u, v = _coordinates(rng, h, w, wobble=0.05)
    rings = noise(rng, h, w, cells=4, octaves=2)
    return _mix(a, b, 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(6, 16) * u + 0.8 * v + rings)))


def _strokes(
    rng: Generator, h: int, w: int, a: NDArray[np.float64], b: NDArray[np.float64]
) -> Field:
    """Draw short random lines, like straw or grass."""
    canvas = np.zeros((h, w), np.uint8)
    side, n = max(h, w), int(rng.integers(60, 200))
    start = rng.uniform(-0.05, 1.05, (n, 2)) * [w, h]
    angle, length = (
        rng.normal(rng.uniform(0, np.pi), rng.uniform(0.1, 1.5), n),
        side * rng.uniform(0.04, 0.2, n),
    )
    stop = start + np.stack([np.cos(angle), np.sin(angle)], 1) * length[:, None]
    thickness = max(1, round(side * rng.uniform(0.005, 0.02)))
    lines = np.rint(np.stack([start, stop], 1) * 16).astype(np.int32)
    for line, grey in zip(lines, rng.integers(60, 255, n).tolist(), strict=True):
        cv2.line(canvas, line[0].tolist(), line[1].tolist(), grey, thickness, cv2.LINE_AA, 4)
    return _mix(a, b, canvas.astype(np.float32) / 255 + 0.2 * noise(rng, h, w, cells=6))


_PATTERNS: tuple[Callable[..., Field], ...] = (
    _plain,
    _clouds,
    _stripes,
    _checks,
    _bricks,
    _patches,
    _grain,
    _strokes,
)
_WEIGHTS = np.array([1.5, 2.0, 1.0, 0.7, 0.7, 1.0, 1.0, 1.5])


def colour(rng: Generator) -> NDArray[np.float64]:
    """Draw one RGB colour, float64 [3] in 10..245, less saturated than uniform draws."""
    grey, vivid = rng.uniform(25, 230), rng.uniform(10, 245, 3)
    mix = rng.uniform(0.2, 0.9)
    return np.asarray(np.clip(grey * (1 - mix) + vivid * mix, 10, 245))


def pattern(
    rng: Generator,
    height: int,
    width: int,
    *,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
) -> Field:
    """Draw a random pattern between two colours.

    Args:
        rng: source of randomness.
        height: rows.
        width: columns.
        first: RGB, float [3], 0..255.
        second: RGB, float [3], 0..255.

    Returns:
        float32 [H, W, 3], 0..255 before clipping.
    """
    draw = _PATTERNS[int(rng.choice(len(_PATTERNS), p=_WEIGHTS / _WEIGHTS.sum()))]
    return draw(rng, height, width, first, second)
