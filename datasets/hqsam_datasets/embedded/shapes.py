"""Vector shapes of the procedural scenes: primitives in a unit frame, their deformation and their rasterisation.

A shape is a list of `Primitive` in the frame [-1, 1] x [-1, 1], x to the right and y down. Only the
vertices move when a shape is posed, so one shape keeps its identity over the frames of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Vector = Sequence[float] | NDArray[np.floating[Any]]
Kind = Literal["fill", "cut", "stroke", "paint", "paint_stroke"]
MARKS: tuple[Kind, ...] = ("paint", "paint_stroke")

SUPERSAMPLE = 4
_MIN_STROKE_PX = 1.1  # thinner strokes alias away even after supersampling


@dataclass(frozen=True)
class Primitive:
    """One drawing step.

    Attributes:
        kind: "fill" and "cut" draw the closed polygon as object or as hole, "stroke" a polyline;
            "paint" and "paint_stroke" are marks on the object (a window, a stripe): they change its
            surface and not its outline.
        points: vertices, float64 [N, 2], (x, y) in the unit frame.
        width: stroke width in the unit frame (a shape is 2 wide); unused by polygons.
    """

    kind: Kind
    points: Points
    width: float = 0.0


Shape = list[Primitive]


@dataclass(frozen=True)
class Pose:
    """Where and how a shape stands in the image.

    Attributes:
        center: (x, y), pixels.
        half_size: half extent of the fitted shape along x and y, pixels.
        angle: rotation, radians.
        mirror: whether x is flipped before the rotation.
        bend: amplitude of the smooth warp, unit frame.
        phase: phases of the warp's four waves, radians.
    """

    center: tuple[float, float]
    half_size: tuple[float, float]
    angle: float = 0.0
    mirror: bool = False
    bend: float = 0.0
    phase: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


def segment(a: Vector, b: Vector, n: int = 6) -> Points:
    """Return a straight line from `a` to `b` with `n` vertices, so that a warp can bend it."""
    t = np.linspace(0.0, 1.0, n)[:, None]
    return np.asarray(a, float) * (1 - t) + np.asarray(b, float) * t


def arc(center: Vector, radius: float | Vector, start: float, stop: float, n: int = 24) -> Points:
    """Return an elliptic arc; `radius` is one number or (rx, ry).

    Angles in radians, clockwise on screen.
    """
    t = np.linspace(start, stop, n)
    r = np.broadcast_to(np.asarray(radius, float), (2,))
    return np.stack([center[0] + r[0] * np.cos(t), center[1] + r[1] * np.sin(t)], axis=1)


def circle(center: Vector, radius: float | Vector, n: int = 28) -> Points:
    """Return a closed ellipse as a polygon of `n` vertices."""
    return arc(center, radius, 0.0, 2 * np.pi * (1 - 1 / n), n)


def offset(point: Vector, dx: float, dy: float) -> Points:
    """Return the point moved by (dx, dy)."""
    return np.array([point[0] + dx, point[1] + dy], np.float64)


def closed(points: Points) -> Points:
    """Return the polygon with its first vertex repeated, for closed strokes."""
    return np.concatenate([points, points[:1]])


def spline(control: Points, n: int = 40) -> Points:
    """Return the Catmull-Rom curve through all control points.

    Args:
        control: float [K, 2], K >= 2.
        n: vertices of the result.
    """
    p = np.concatenate([2 * control[:1] - control[1:2], control, 2 * control[-1:] - control[-2:-1]])
    u = np.linspace(0, len(control) - 1 - 1e-9, n)
    i = u.astype(int)
    t = (u - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    cubic = (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    return np.asarray(0.5 * cubic)


def loop(control: Points, n: int = 60) -> Points:
    """Return the closed Catmull-Rom curve through all control points.

    Args:
        control: float [K, 2], K >= 3.
        n: vertices of the result.
    """
    k = len(control)
    around = spline(np.concatenate([control[-2:], control, control[:3]]), n * (k + 4) // k)
    u = np.linspace(0, k + 4 - 1e-9, len(around))
    return around[(u >= 2) & (u < k + 2)]


def ribbon(path: Points, start: float, stop: float) -> Primitive:
    """Return a band along `path`, its full width going linearly from `start` to `stop` (unit frame)."""
    tangent = np.gradient(path, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    half = np.linspace(start, stop, len(path))[:, None] / 2
    return Primitive("fill", np.concatenate([path + normal * half, (path - normal * half)[::-1]]))


def stroke(points: Points, width: float) -> Primitive:
    """Return a polyline of the given width (unit frame)."""
    return Primitive("stroke", points, width)


def fill(points: Points) -> Primitive:
    """Return a filled polygon."""
    return Primitive("fill", points)


def paint(points: Points) -> Primitive:
    """Return a polygonal mark on the object."""
    return Primitive("paint", points)


def paint_stroke(points: Points, width: float) -> Primitive:
    """Return a mark along a polyline of the given width (unit frame)."""
    return Primitive("paint_stroke", points, width)


def cut(points: Points) -> Primitive:
    """Return a polygonal hole in everything drawn before."""
    return Primitive("cut", points)


def blob_outline(rng: np.random.Generator, *, wobble: float = 0.25, n: int = 48) -> Points:
    """Return a smooth closed outline of mean radius about 0.8 made of a few random waves."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    r = np.ones(n)
    for k in range(2, 6):
        r += wobble / k * rng.uniform(-1.5, 1.5) * np.cos(k * t + rng.uniform(0, 2 * np.pi))
    return np.asarray(0.8 * np.stack([r * np.cos(t), r * np.sin(t)], axis=1))


def _warp(points: Points, pose: Pose) -> Points:
    """Bend smoothly (two waves per axis), mirror and rotate, still in the unit frame."""
    x, y = points[:, 0], points[:, 1]
    p = pose.phase
    dx = pose.bend * (np.sin(1.9 * y + p[0]) + 0.5 * np.sin(2.7 * x + p[1]))
    dy = pose.bend * (np.sin(1.7 * x + p[2]) + 0.5 * np.sin(2.9 * y + p[3]))
    x = -(x + dx) if pose.mirror else x + dx
    y = y + dy
    c, s = np.cos(pose.angle), np.sin(pose.angle)
    return np.stack([c * x - s * y, s * x + c * y], axis=1)


def _extent(shape: Shape, posed: list[Points]) -> tuple[Points, Points]:
    """Return the lower and upper corner of what the posed shape covers, holes and marks left out."""
    drawn = [
        (q, p.width / 2) for p, q in zip(shape, posed, strict=True) if p.kind in ("fill", "stroke")
    ]
    low = np.min([q.min(axis=0) - w for q, w in drawn], axis=0)
    high = np.max([q.max(axis=0) + w for q, w in drawn], axis=0)
    return low, high


def proportion(shape: Shape) -> float:
    """Return a shape's width over its height, in its own frame."""
    low, high = _extent(shape, [p.points for p in shape])
    return float((high[0] - low[0]) / max(high[1] - low[1], 1e-6))


def rasterise(
    shape: Shape, *, pose: Pose, height: int, width: int, marks: bool = False
) -> NDArray[np.float32]:
    """Draw a posed shape, or the marks on it, anti-aliased by supersampling.

    The shape's posed bounding box is fitted to `pose.half_size` around `pose.center`, axis by axis.

    Returns:
        Coverage, float32 [height, width] in 0..1. Marks may reach beyond the outline.
    """
    posed = [_warp(p.points, pose) for p in shape]
    low, high = _extent(shape, posed)
    half = np.maximum((high - low) / 2, 1e-6)
    scale = np.asarray(pose.half_size) / half
    shift = np.asarray(pose.center) - scale * (low + high) / 2
    stroke_scale = float(np.sqrt(scale[0] * scale[1]))
    canvas = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE), np.uint8)
    for primitive, points in zip(shape, posed, strict=True):
        if (primitive.kind in MARKS) == marks:
            # In 1/16 of a supersampled pixel.
            xy = np.rint((points * scale + shift) * SUPERSAMPLE * 16).astype(np.int32)
            if primitive.kind in ("stroke", "paint_stroke"):
                thickness = round(max(primitive.width * stroke_scale, _MIN_STROKE_PX) * SUPERSAMPLE)
                cv2.polylines(canvas, [xy], False, 255, thickness, cv2.LINE_8, 4)
            else:
                cv2.fillPoly(canvas, [xy], 0 if primitive.kind == "cut" else 255, cv2.LINE_8, 4)
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(255)
