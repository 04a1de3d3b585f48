"""Shape families of the evaluation sets and of development; none is a training family.

Each function draws one random member in the unit frame of `shapes`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from hqsam_datasets.embedded.shapes import (
    Shape,
    arc,
    circle,
    closed,
    cut,
    fill,
    offset,
    ribbon,
    segment,
    spline,
    stroke,
)


def insect(rng: Generator) -> Shape:
    """Draw an insect: three body parts, six jointed legs and two feelers."""
    w = rng.uniform(0.03, 0.06)
    shape: Shape = [
        fill(circle((0, -0.55), rng.uniform(0.13, 0.2))),
        fill(circle((0, -0.15), (rng.uniform(0.14, 0.22), 0.28))),
        fill(circle((0, 0.55), (rng.uniform(0.2, 0.34), 0.5))),
    ]
    for side in (-1, 1):
        for y, dy in ((-0.3, -0.5), (-0.1, 0.05), (0.1, 0.6)):
            knee = np.array([side * rng.uniform(0.45, 0.65), y + 0.6 * dy - 0.15])
            foot = np.array([side * rng.uniform(0.75, 1.0), y + dy + rng.uniform(0.0, 0.3)])
            shape += [
                stroke(segment((0.1 * side, y), knee, 4), w),
                stroke(segment(knee, foot, 4), w * 0.8),
            ]
        feeler = np.array(
            [[0.08 * side, -0.68], [0.3 * side, -0.9], [side * rng.uniform(0.3, 0.6), -1.15]]
        )
        shape.append(stroke(spline(feeler, 10), w * 0.6))
    return shape


def bicycle(rng: Generator) -> Shape:
    """Draw a bicycle: two wheels with thin spokes and a diamond frame."""
    w, tyre, r = rng.uniform(0.035, 0.06), rng.uniform(0.03, 0.06), rng.uniform(0.36, 0.44)
    rear, front = np.array([-0.62, 0.3]), np.array([0.62, 0.3])
    shape: Shape = []
    for hub in (rear, front):
        shape += [stroke(closed(circle(hub, r, 36)), tyre), fill(circle(hub, 0.05, 12))]
        for a in np.arange(int(rng.integers(6, 12))) * 0.55 + rng.uniform(0, 1):
            shape.append(stroke(segment(hub, hub + r * np.array([np.cos(a), np.sin(a)]), 3), 0.015))
    crank, seat, head = np.array([-0.1, 0.32]), np.array([-0.28, -0.35]), np.array([0.42, -0.38])
    tubes = [
        (rear, crank),
        (crank, seat),
        (seat, rear),
        (crank, head),
        (offset(seat, 0.02, 0.1), head),
        (head, front),
    ]
    shape += [stroke(segment(a, b, 5), w) for a, b in tubes]
    shape += [
        stroke(segment(offset(seat, -0.15, -0.1), offset(seat, 0.12, -0.1), 4), w * 1.8),
        stroke(segment(seat, offset(seat, 0, -0.1), 3), w),
    ]
    shape.append(
        stroke(spline(np.array([head, offset(head, 0.02, -0.2), offset(head, 0.22, -0.2)]), 8), w)
    )
    return shape


def spider_web(rng: Generator) -> Shape:
    """Draw a spider web: radial threads joined by a sagging spiral."""
    n, rings, w = int(rng.integers(7, 12)), int(rng.integers(4, 7)), rng.uniform(0.022, 0.04)
    angles = (np.arange(n) + rng.uniform(-0.2, 0.2, n)) * 2 * np.pi / n
    reach = rng.uniform(0.75, 1.0, n)
    rays = reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    shape: Shape = [stroke(segment((0, 0), p, 6), w) for p in rays]
    for k in np.linspace(0.2, 0.92, rings):
        for a, b in zip(rays, np.roll(rays, -1, axis=0), strict=True):
            shape.append(stroke(spline(np.stack([a * k, (a + b) * k * 0.44, b * k]), 8), w))
    return shape


def chair(rng: Generator) -> Shape:
    """Draw a chair: seat, legs with a rung, and a back of slats."""
    w, n = rng.uniform(0.05, 0.09), int(rng.integers(2, 6))
    shape: Shape = [fill(np.array([[-0.6, 0.1], [0.5, 0.1], [0.65, 0.28], [-0.5, 0.28]]))]
    for x, top in ((-0.5, 0.2), (0.6, 0.2), (-0.3, 0.2), (0.42, 0.2)):
        shape.append(
            stroke(
                segment((x, top), (x + rng.uniform(-0.06, 0.06), 1.0 - 0.15 * (abs(x) < 0.45)), 4),
                w,
            )
        )
    shape.append(stroke(segment((-0.5, 0.65), (0.6, 0.65), 4), w * 0.6))
    for x in (-0.58, 0.48):
        shape.append(stroke(segment((x, 0.15), (x + 0.02, -1.0), 6), w))
    shape.append(
        stroke(spline(np.array([[-0.58, -0.95], [-0.05, -1.08], [0.5, -0.95]]), 10), w * 1.5)
    )
    if rng.random() < 0.5:
        shape += [
            stroke(segment((x, -0.95), (x, 0.12), 5), w * 0.6)
            for x in np.linspace(-0.45, 0.36, n + 1)
        ]
    else:
        shape += [
            stroke(segment((-0.56, y), (0.5, y), 5), w * 0.8) for y in np.linspace(-0.7, -0.1, n)
        ]
    return shape


def feather(rng: Generator) -> Shape:
    """Draw a feather: curved quill with dense barbs and gaps between them."""
    quill = spline(
        np.array([[rng.uniform(-0.4, 0.4), 1.1], [0, 0.2], [rng.uniform(-0.3, 0.3), -1]]), 60
    )
    shape: Shape = [ribbon(quill, 0.06, 0.015)]
    gaps = set(rng.integers(12, 56, int(rng.integers(2, 6))).tolist())
    slant, w = rng.uniform(0.2, 0.45), rng.uniform(0.03, 0.045)
    for i in range(12, 58):
        if i in gaps or i + 1 in gaps:
            continue
        length = 0.42 * np.sin(np.pi * min(1.0, (i - 6) / 54)) ** 0.6
        for side in (-1, 1):
            tip = quill[i] + [side * length * rng.uniform(0.85, 1.0), -slant]
            shape.append(
                stroke(
                    spline(
                        np.stack([quill[i], (quill[i] + tip) / 2 + [side * 0.06, 0.03], tip]), 6
                    ),
                    w,
                )
            )
    return shape


def antenna(rng: Generator) -> Shape:
    """Draw an antenna: a mast with cross bars of falling length, stays, and a dish at times."""
    w, n = rng.uniform(0.03, 0.05), int(rng.integers(5, 11))
    shape: Shape = [stroke(segment((0, -1), (0, 1), 8), w * 1.5)]
    for k, y in enumerate(np.linspace(-0.95, 0.2, n)):
        half = 0.25 + 0.55 * k / n * rng.uniform(0.9, 1.1)
        shape.append(stroke(segment((-half, y), (half, y), 6), w))
    shape += [stroke(segment((0, 0.2), (x, 1), 5), w * 0.6) for x in (-0.5, 0.5)]
    if rng.random() < 0.4:
        shape.append(
            fill(
                np.concatenate(
                    [arc((0.35, 0.45), 0.3, -1.2, 1.2, 14), arc((0.25, 0.45), 0.3, 1.0, -1.0, 14)]
                )
            )
        )
    return shape


def net_bag(rng: Generator) -> Shape:
    """Draw a sagging bag of knotted diagonal meshes with two handles."""
    n, w = int(rng.integers(6, 10)), rng.uniform(0.025, 0.04)
    belly = rng.uniform(0.65, 0.9)

    def at(u: float, v: float) -> np.ndarray:
        half = (
            0.45 + (belly - 0.45) * np.sin(np.pi * min(v, 1.0))
            if v < 0.7
            else belly * np.sqrt(max(1 - v, 0) / 0.3) * 0.95
        )
        return np.array([half * u, -0.5 + 1.5 * v])

    shape: Shape = [stroke(segment((-0.47, -0.5), (0.47, -0.5), 8), w * 2)]
    for k in range(-n, n + 1):
        for sign in (-1, 1):
            path = [
                at(sign * (2 * k / n + 2 * v - 1), v)
                for v in np.linspace(0, 1, 24)
                if abs(2 * k / n + 2 * v - 1) <= 1
            ]
            if len(path) > 1:
                shape.append(stroke(np.stack(path), w))
    shape += [
        stroke(arc((x, -0.5), (0.2, rng.uniform(0.3, 0.5)), np.pi, 2 * np.pi), w * 1.7)
        for x in (-0.2, 0.2)
    ]
    return shape


def scissors(rng: Generator) -> Shape:
    """Draw scissors: two crossed blades with ring handles."""
    opening, w = rng.uniform(0.12, 0.5), rng.uniform(0.07, 0.12)
    shape: Shape = []
    for side in (-1, 1):
        tip = np.array([side * np.sin(opening), -np.cos(opening)])
        shape.append(ribbon(segment(-0.45 * tip, tip, 8), w * 1.5, 0.02))
        ring = -tip * 0.72 + [-side * 0.1, 0]
        shape.append(stroke(closed(circle(ring, (rng.uniform(0.15, 0.22), 0.28), 24)), w))
    shape.append(cut(circle((0, 0), 0.03, 8)))
    return shape


def butterfly(rng: Generator) -> Shape:
    """Draw a butterfly: four scalloped wings with spots cut out, a thin body and feelers."""
    t = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    scallop = 1 + rng.uniform(0.02, 0.07) * np.cos(int(rng.integers(7, 13)) * t)
    shape: Shape = []
    upper, lower = rng.uniform(0.5, 0.62), rng.uniform(0.35, 0.5)
    for side in (-1, 1):
        for cy, rx, ry in ((-0.4, upper, 0.42), (0.42, lower, rng.uniform(0.35, 0.5))):
            wing = np.stack(
                [
                    side * (0.06 + rx * 0.9) + rx * scallop * np.cos(t),
                    cy + ry * scallop * np.sin(t),
                ],
                1,
            )
            shape.append(fill(wing))
            for _ in range(int(rng.integers(1, 4))):
                spot = (side * (0.1 + rx * rng.uniform(0.5, 1.4)), cy + ry * rng.uniform(-0.5, 0.5))
                shape.append(cut(circle(spot, rng.uniform(0.04, 0.12), 12)))
        shape.append(
            stroke(spline(np.array([[0, -0.6], [0.12 * side, -0.9], [0.3 * side, -1.1]]), 8), 0.03)
        )
    shape.append(fill(circle((0, -0.05), (0.07, 0.6))))
    return shape


def antlers(rng: Generator) -> Shape:
    """Draw a deer head with two curved antlers and their tines."""
    w, n = rng.uniform(0.07, 0.11), int(rng.integers(3, 6))
    head = np.array([[0, 1.0], [0.14, 0.75], [0.2, 0.4], [0.42, 0.22], [0.16, 0.18], [0, 0.12]])
    shape: Shape = [fill(np.concatenate([head, head[::-1] * [-1, 1]]))]
    lean = rng.uniform(0.6, 0.95)
    for side in (-1, 1):
        beam = spline(
            np.array([[0.08, 0.2], [0.5 * lean, -0.1], [lean, -0.5], [lean * 0.75, -1]])
            * [side, 1],
            30,
        )
        shape.append(ribbon(beam, w, w * 0.3))
        for i in np.linspace(6, 25, n).astype(int):
            tip = beam[i] + [-side * rng.uniform(0.05, 0.25), -rng.uniform(0.25, 0.5)]
            shape.append(
                ribbon(
                    spline(np.stack([beam[i], (beam[i] + tip) / 2 + [side * 0.06, 0], tip]), 8),
                    w * 0.6,
                    0.02,
                )
            )
    return shape


def umbrella(rng: Generator) -> Shape:
    """Draw an umbrella (development family): a ribbed canopy with gaps, a shaft and a hooked handle."""
    n, w = int(rng.integers(4, 8)), rng.uniform(0.04, 0.08)
    shape: Shape = [fill(arc((0, 0), (1, 0.9), np.pi, 2 * np.pi, 30))]
    shape += [
        cut(circle((x, 0.02), (0.9 / n, rng.uniform(0.1, 0.25)), 16))
        for x in (np.arange(n) + 0.5) * 2 / n - 1
    ]
    shape += [
        stroke(segment((0, -1), (0, 0.8)), w),
        stroke(arc((-0.15, 0.8), 0.15, 0, np.pi, 12), w),
    ]
    return shape


def racket(rng: Generator) -> Shape:
    """Draw a racket (development family): a strung frame with a handle."""
    w, n = rng.uniform(0.02, 0.035), int(rng.integers(5, 10))
    shape: Shape = [stroke(closed(circle((0, -0.4), (0.5, 0.62), 40)), rng.uniform(0.07, 0.12))]
    for u in np.linspace(-0.85, 0.85, n):
        c = np.sqrt(1 - u * u)
        shape.append(stroke(segment((0.5 * u, -0.4 - 0.62 * c), (0.5 * u, -0.4 + 0.62 * c)), w))
        shape.append(stroke(segment((-0.5 * c, -0.4 + 0.62 * u), (0.5 * c, -0.4 + 0.62 * u)), w))
    shape += [
        stroke(segment((0, 0.55), (0, 1.3)), 0.12),
        stroke(segment((-0.25, 0.15), (0, 0.6)), 0.06),
    ]
    shape.append(stroke(segment((0.25, 0.15), (0, 0.6)), 0.06))
    return shape


def candelabra(rng: Generator) -> Shape:
    """Draw a candelabra (development family): a stem with curved arms and candles."""
    arms, w = int(rng.integers(1, 4)), rng.uniform(0.05, 0.09)
    shape: Shape = [
        stroke(segment((0, -0.6), (0, 0.9)), w * 1.2),
        fill(circle((0, 0.95), (0.4, 0.1))),
    ]
    for k in range(1, arms + 1):
        x = k / arms
        for side in (-1, 1):
            shape.append(
                stroke(spline(np.array([[0, 0.5], [side * x * 0.7, 0.4], [side * x, -0.3]]), 14), w)
            )
            shape.append(stroke(segment((side * x, -0.3), (side * x, -0.85), 3), w * 1.4))
    shape.append(stroke(segment((0, -0.6), (0, -1.0), 3), w * 1.4))
    return shape


EVAL: dict[str, Callable[[Generator], Shape]] = {
    f.__name__: f
    for f in (
        insect,
        bicycle,
        spider_web,
        chair,
        feather,
        antenna,
        net_bag,
        scissors,
        butterfly,
        antlers,
    )
}
DEV: dict[str, Callable[[Generator], Shape]] = {
    f.__name__: f for f in (umbrella, racket, candelabra)
}
