"""Shape families of the training sets. Each function draws one random member in the unit frame of `shapes`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from hqsam_datasets.embedded.shapes import (
    Points,
    Primitive,
    Shape,
    arc,
    blob_outline,
    circle,
    closed,
    cut,
    fill,
    ribbon,
    segment,
    spline,
    stroke,
)


def blob(rng: Generator) -> Shape:
    """Draw a plain compact object with a smooth outline, at times with a handle or a hole."""
    shape: Shape = [fill(blob_outline(rng, wobble=rng.uniform(0.1, 0.5)))]
    if rng.random() < 0.3:
        shape.append(stroke(arc((0.8, 0), 0.4, -2.0, 2.0), rng.uniform(0.06, 0.14)))
    if rng.random() < 0.25:
        shape.append(cut(circle(rng.uniform(-0.3, 0.3, 2), rng.uniform(0.1, 0.3))))
    return shape


def box(rng: Generator) -> Shape:
    """Draw a rounded or sharp convex polygon, at times with a window or with legs."""
    n = int(rng.integers(3, 7))
    t = np.sort(rng.uniform(0, 2 * np.pi / n, n)) * 0.6 + np.arange(n) * 2 * np.pi / n
    corners = np.stack([np.cos(t), np.sin(t)], 1)
    shape: Shape = [fill(corners)]
    if rng.random() < 0.4:
        shape.append(cut(corners * rng.uniform(0.35, 0.75)))
    if rng.random() < 0.4:
        shape += [
            stroke(segment((x, 0.3), (x * 1.2, 1.4)), rng.uniform(0.05, 0.1)) for x in (-0.5, 0.5)
        ]
    return shape


def wheel(rng: Generator) -> Shape:
    """Draw a spoked wheel: rim, hub and spokes."""
    n, rim = int(rng.integers(5, 17)), rng.uniform(0.05, 0.18)
    width, twist = rng.uniform(0.02, 0.06), rng.uniform(-0.5, 0.5)
    shape: Shape = [
        stroke(closed(circle((0, 0), 0.95, 48)), rim),
        fill(circle((0, 0), rng.uniform(0.08, 0.25))),
    ]
    for a in np.linspace(0, 2 * np.pi, n, endpoint=False) + rng.uniform(0, 1):
        inner = 0.1 * np.array([np.cos(a + twist), np.sin(a + twist)])
        shape.append(stroke(segment(inner, (0.95 * np.cos(a), 0.95 * np.sin(a)), 4), width))
    return shape


def rope(rng: Generator) -> Shape:
    """Draw a rope: one to three crossing curves, at times with a loop or knots."""
    shape: Shape = []
    width = rng.uniform(0.03, 0.1)
    for _ in range(int(rng.integers(1, 4))):
        control = rng.uniform(-1, 1, (int(rng.integers(4, 8)), 2))
        path = spline(control, 60)
        shape.append(stroke(path, width))
        if rng.random() < 0.3:
            shape += [fill(circle(p, width * 1.6, 12)) for p in path[:: int(rng.integers(8, 20))]]
    return shape


def fence(rng: Generator) -> Shape:
    """Draw a fence: pickets on rails or a diagonal lattice in a frame."""
    width, n = rng.uniform(0.03, 0.09), int(rng.integers(4, 10))
    xs = np.linspace(-0.95, 0.95, n)
    if rng.random() < 0.5:
        shape: Shape = [
            stroke(segment((-1, y), (1, y)), width * rng.uniform(0.8, 1.6)) for y in (-0.45, 0.5)
        ]
        for x in xs:
            top = -1 + rng.uniform(0, 0.08)
            shape.append(
                fill(
                    np.array(
                        [
                            [x - width, 1],
                            [x - width, top],
                            [x, top - 0.12],
                            [x + width, top],
                            [x + width, 1],
                        ]
                    )
                )
            )
        return shape
    frame = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    shape = [stroke(closed(frame), width * 1.8)]
    for x in np.linspace(-3, 1, 2 * n)[1:]:
        for a, b in (((x, -1), (x + 2, 1)), ((-x, -1), (-x - 2, 1))):
            line = segment(a, b, 24)
            inside = line[np.abs(line[:, 0]) <= 1.0]
            if len(inside) > 1:
                shape.append(stroke(inside, width * 0.7))
    return shape


def ladder(rng: Generator) -> Shape:
    """Draw a ladder: two rails with rungs, at times curved or tapering."""
    n, width, top = int(rng.integers(4, 12)), rng.uniform(0.04, 0.1), rng.uniform(0.2, 0.5)
    left = spline(np.array([[-0.45, 1], [-0.4 + rng.uniform(-0.2, 0.2), 0], [-top, -1]]), 20)
    right = left * [-1, 1] + [rng.uniform(-0.1, 0.1), 0]
    shape: Shape = [stroke(left, width), stroke(right, width)]
    for i in np.linspace(1, 18, n).astype(int):
        shape.append(stroke(segment(left[i], right[i], 3), width * rng.uniform(0.5, 0.9)))
    return shape


def fern(rng: Generator) -> Shape:
    """Draw a fern: a curved stem with tapering leaflets on both sides."""
    stem = spline(np.array([[rng.uniform(-0.3, 0.3), 1], [0, 0], [rng.uniform(-0.4, 0.4), -1]]), 40)
    shape: Shape = [ribbon(stem, rng.uniform(0.05, 0.09), 0.02)]
    n, lift, body = int(rng.integers(7, 15)), rng.uniform(0.1, 0.5), rng.uniform(0.06, 0.13)
    for k, i in enumerate(np.linspace(4, 38, n).astype(int)):
        length = rng.uniform(0.85, 1.0) * (0.25 + 0.6 * np.sin(np.pi * (0.2 + 0.75 * k / n)))
        for side in (-1, 1):
            tip = stem[i] + [side * length, -lift * length - 0.05]
            mid = (stem[i] + tip) / 2 + [0, -0.08 * length]
            shape.append(_leaflet(np.stack([stem[i], mid, tip]), body))
    return shape


def _leaflet(control: Points, body: float) -> Primitive:
    """Return a spindle along three control points."""
    path = spline(control, 9)
    tangent = np.gradient(path, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    half = (body / 2 * np.sin(np.linspace(0.12, np.pi - 0.05, 9)))[:, None]
    return fill(np.concatenate([path + normal * half, (path - normal * half)[::-1]]))


def holed_leaf(rng: Generator) -> Shape:
    """Draw a broad leaf with a stalk, bites at the rim and holes between the veins."""
    t = np.linspace(-1, 1, 24)
    side = rng.uniform(0.45, 0.75) * (1 - t**2) ** rng.uniform(0.6, 1.1)
    teeth = rng.uniform(0, 0.1) * (np.arange(24) % 2)
    outline = np.concatenate(
        [np.stack([side + teeth, t], 1), np.stack([-side - teeth, t], 1)[::-1]]
    )
    shape: Shape = [fill(outline), stroke(segment((0, 0.8), (rng.uniform(-0.3, 0.3), 1.5)), 0.07)]
    for _ in range(int(rng.integers(3, 10))):
        y = rng.uniform(-0.6, 0.6)
        x = rng.choice([-1, 1]) * rng.uniform(0.1, 0.5) * (1 - y * y)
        shape.append(cut(circle((x, y), rng.uniform(0.05, 0.16, 2), 14)))
    return shape


def comb(rng: Generator) -> Shape:
    """Draw a comb: a back with many parallel teeth, on one side or on both."""
    n, width = int(rng.integers(8, 22)), rng.uniform(0.02, 0.05)
    shape: Shape = [fill(np.array([[-1, -0.45], [1, -0.45], [1, -0.2], [-1, -0.2]], float))]
    for x in np.linspace(-0.96, 0.96, n):
        shape.append(stroke(segment((x, -0.25), (x + rng.uniform(-0.02, 0.02), 0.5), 4), width))
    if rng.random() < 0.3:
        shape += [
            stroke(segment((x, -0.4), (x, -0.9), 3), width)
            for x in np.linspace(-0.96, 0.96, n * 2 // 3)
        ]
    if rng.random() < 0.3:
        shape.append(stroke(segment((1, -0.32), (1.9, -0.32)), 0.14))
    return shape


def branch(rng: Generator) -> Shape:
    """Draw a bare tree: a trunk that forks four or five times."""
    shape: Shape = []
    spread, shrink = rng.uniform(0.3, 0.65), rng.uniform(0.68, 0.8)

    def grow(start: Points, angle: float, length: float, width: float, depth: int) -> None:
        end = start + length * np.array([np.sin(angle), -np.cos(angle)])
        mid = (start + end) / 2 + rng.uniform(-0.1, 0.1, 2) * length
        shape.append(ribbon(spline(np.stack([start, mid, end]), 7), width, width * 0.68))
        if depth:
            for side in (-1, 1) if rng.random() < 0.85 else (-1, 0.1, 1):
                turn = side * spread * rng.uniform(0.5, 1.4)
                grow(
                    end,
                    angle + turn,
                    length * shrink * rng.uniform(0.8, 1.15),
                    width * 0.66,
                    depth - 1,
                )

    grow(np.zeros(2), rng.uniform(-0.2, 0.2), 1.0, rng.uniform(0.14, 0.24), int(rng.integers(3, 6)))
    return shape


def chain(rng: Generator) -> Shape:
    """Draw a chain: interlocking rings along a curve."""
    n, width = int(rng.integers(4, 9)), rng.uniform(0.05, 0.1)
    path = spline(rng.uniform(-1, 1, (3, 2)) * [0.3, 1] + np.array([[-1, 0], [0, 0], [1, 0]]), n)
    step = np.linalg.norm(np.diff(path, axis=0), axis=1).mean()
    shape: Shape = []
    for p in path:
        shape.append(stroke(closed(circle(p, step * rng.uniform(0.55, 0.72), 20)), width))
    return shape


def star(rng: Generator) -> Shape:
    """Draw a star polygon with round or star-shaped holes."""
    n, inner = int(rng.integers(4, 11)), rng.uniform(0.35, 0.7)
    t = np.arange(2 * n) * np.pi / n
    outline = np.where(np.arange(2 * n) % 2 == 0, 1.0, inner)[:, None] * np.stack(
        [np.cos(t), np.sin(t)], 1
    )
    shape: Shape = [fill(outline)]
    if rng.random() < 0.5:
        shape.append(cut(outline * rng.uniform(0.4, 0.75)))
        shape += [
            stroke(segment(0.9 * inner * p, -0.9 * inner * p, 5), 0.05) for p in outline[: n // 2]
        ]
    else:
        ring = rng.uniform(0.45, 0.6) * inner + 0.1
        shape += [cut(circle(ring * p / np.linalg.norm(p), 0.11, 14)) for p in outline[::2]]
    return shape


def gear(rng: Generator) -> Shape:
    """Draw a gear: a toothed disc with a pattern of openings."""
    n, depth = int(rng.integers(8, 20)), rng.uniform(0.12, 0.25)
    t = np.linspace(0, 2 * np.pi, n * 4, endpoint=False)
    radius = np.where(np.arange(n * 4) % 4 < 2, 1.0, 1.0 - depth)
    shape: Shape = [
        fill(radius[:, None] * np.stack([np.cos(t), np.sin(t)], 1)),
        cut(circle((0, 0), 0.15)),
    ]
    k, r = int(rng.integers(3, 8)), rng.uniform(0.1, 0.17)
    shape += [
        cut(circle((0.47 * np.cos(a), 0.47 * np.sin(a)), r, 14))
        for a in np.arange(k) * 2 * np.pi / k
    ]
    return shape


def key(rng: Generator) -> Shape:
    """Draw a key: ring, shaft and bits: a solid part, a hole and a thin part together."""
    shape: Shape = [
        fill(circle((0, -0.7), (0.35, 0.3))),
        cut(circle((0, -0.72), (0.2, rng.uniform(0.1, 0.18)))),
    ]
    shape.append(stroke(segment((0, -0.45), (0, 1)), rng.uniform(0.07, 0.13)))
    for y in np.linspace(0.5, 0.95, int(rng.integers(2, 5))):
        shape.append(stroke(segment((0, y), (rng.uniform(0.15, 0.35), y), 3), 0.07))
    return shape


def grass(rng: Generator) -> Shape:
    """Draw a tuft of long bent blades from one root."""
    shape: Shape = []
    for _ in range(int(rng.integers(6, 18))):
        tip = np.array([rng.uniform(-1, 1), rng.uniform(-1, 0.3)])
        root = np.array([rng.uniform(-0.15, 0.15), 1.0])
        mid = (root + tip) / 2 + [-0.3 * tip[0], -0.2]
        shape.append(ribbon(spline(np.stack([root, mid, tip]), 12), rng.uniform(0.05, 0.12), 0.015))
    return shape


def grate(rng: Generator) -> Shape:
    """Draw a grate: a plate with a regular pattern of openings."""
    rows, cols = int(rng.integers(2, 7)), int(rng.integers(2, 7))
    shape: Shape = [fill(np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float))]
    bar = rng.uniform(0.12, 0.45)
    hx, hy = (1 - bar) / cols, (1 - bar) / rows
    round_holes = rng.random() < 0.5
    for x in (np.arange(cols) + 0.5) * 1.9 / cols - 0.95:
        for y in (np.arange(rows) + 0.5) * 1.9 / rows - 0.95:
            square = np.array(
                [[x - hx, y - hy], [x + hx, y - hy], [x + hx, y + hy], [x - hx, y + hy]]
            )
            shape.append(cut(circle((x, y), (hx, hy), 14) if round_holes else square))
    return shape


def sketch(rng: Generator) -> Shape:
    """Draw a random body with random limbs, loops and holes: no particular thing, much variety."""
    body = blob_outline(rng, wobble=rng.uniform(0.1, 0.4)) * rng.uniform(0.25, 0.6, 2)
    shape: Shape = [fill(body)]
    for _ in range(int(rng.integers(0, 4))):
        shape.append(
            cut(
                circle(
                    body[rng.integers(len(body))] * rng.uniform(0, 0.6), rng.uniform(0.05, 0.13), 12
                )
            )
        )
    for _ in range(int(rng.integers(2, 9))):
        root = body[rng.integers(len(body))] * 0.9
        out = root / max(np.linalg.norm(root), 0.1) * rng.uniform(0.3, 1.0) + root
        knee = (root + out) / 2 + rng.uniform(-0.25, 0.25, 2)
        width = rng.uniform(0.03, 0.12)
        shape.append(
            ribbon(spline(np.stack([root, knee, out]), 12), width, width * rng.uniform(0.3, 1.0))
        )
        end = rng.random()
        if end < 0.2:
            shape.append(fill(circle(out, rng.uniform(0.06, 0.2, 2), 14)))
        elif end < 0.35:
            shape.append(stroke(closed(circle(out, rng.uniform(0.12, 0.3, 2), 18)), width))
        elif end < 0.5:
            shape += [
                stroke(segment(out, out + rng.uniform(-0.35, 0.35, 2), 3), width * 0.6)
                for _ in range(3)
            ]
    return shape


TRAIN: dict[str, Callable[[Generator], Shape]] = {
    f.__name__: f
    for f in (
        blob,
        box,
        wheel,
        rope,
        fence,
        ladder,
        fern,
        holed_leaf,
        comb,
        branch,
        chain,
        star,
        gear,
        key,
        grass,
        grate,
        sketch,
    )
}
