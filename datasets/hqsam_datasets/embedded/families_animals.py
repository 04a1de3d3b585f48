"""Shape families of animals, part of the everyday things (`families_everyday`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from hqsam_datasets.embedded.shapes import (
    Shape,
    arc,
    circle,
    closed,
    fill,
    loop,
    paint,
    paint_stroke,
    ribbon,
    segment,
    spline,
    stroke,
)


def fish(rng: Generator) -> Shape:
    """Draw a fish: a spindle with a forked tail, fins, gill and eye."""
    h, fork = rng.uniform(0.35, 0.6), rng.uniform(0.25, 0.5)
    body = np.array(
        [
            [-1, 0.02],
            [-0.7, -0.6 * h],
            [-0.2, -h],
            [0.35, -0.6 * h],
            [0.75, -0.12],
            [0.75, 0.12],
            [0.3, 0.65 * h],
            [-0.25, h],
            [-0.75, 0.55 * h],
        ]
    )
    shape: Shape = [fill(loop(body, 60))]
    tail = np.array(
        [[0.66, 0], [0.95, -0.3], [1.25, -fork - 0.1], [1.1, 0], [1.25, fork + 0.1], [0.95, 0.3]]
    )
    shape.append(fill(loop(tail, 40)))
    back = rng.uniform(0.2, 0.4)
    shape.append(
        fill(
            np.array(
                [
                    [-0.4, -0.8 * h],
                    [-0.2, -h - back],
                    [0.05, -h - 0.5 * back],
                    [0.35, -h - 0.2 * back],
                    [0.45, -0.45 * h],
                ]
            )
        )
    )
    shape.append(fill(np.array([[-0.3, 0.85 * h], [-0.05, h + 0.8 * back], [0.1, 0.8 * h]])))
    shape += [
        paint(circle((-0.72, -0.12 * h), 0.06, 12)),
        paint_stroke(arc((-0.7, 0.02), (0.24, 0.6 * h), -1.2, 1.2, 14), 0.04),
    ]
    return shape


def bird(rng: Generator) -> Shape:
    """Draw a bird: a body with head, beak and tail on two thin legs; at times a raised wing."""
    body = np.array(
        [
            [-0.62, -0.75],
            [-0.4, -0.92],
            [-0.18, -0.7],
            [0.05, -0.35],
            [0.55, -0.02],
            [0.5, 0.25],
            [0.05, 0.42],
            [-0.4, 0.2],
            [-0.52, -0.2],
            [-0.64, -0.5],
        ]
    )
    shape: Shape = [
        fill(loop(body, 60)),
        fill(np.array([[-0.6, -0.78], [-1.0, -0.62 + rng.uniform(-0.1, 0.06)], [-0.58, -0.55]])),
    ]
    long = rng.uniform(0.9, 1.3)
    shape.append(
        fill(
            np.array(
                [
                    [0.4, -0.12],
                    [long, 0.05],
                    [long - 0.06, 0.18],
                    [long - 0.2, 0.14],
                    [long - 0.25, 0.28],
                    [0.35, 0.22],
                ]
            )
        )
    )
    w = rng.uniform(0.035, 0.06)
    for x in (-0.12, 0.12):
        shape += [
            stroke(segment((x, 0.3), (x + 0.03, 0.85), 4), w),
            stroke(segment((x - 0.14, 0.87), (x + 0.08, 0.87), 3), w),
        ]
    wing = np.array([[-0.3, -0.25], [0.1, -0.3], [0.45, 0.02], [0.1, 0.15]])
    if rng.random() < 0.4:
        raised = np.array(
            [
                [-0.25, -0.2],
                [0.1, -0.75],
                [0.6, -1.05],
                [0.62, -0.8],
                [0.78, -0.7],
                [0.6, -0.5],
                [0.66, -0.3],
                [0.3, 0.05],
            ]
        )
        shape.append(fill(raised))
    else:
        shape.append(paint(loop(wing, 30)))
    shape.append(paint(circle((-0.45, -0.72), 0.05, 10)))
    return shape


def teddy_bear(rng: Generator) -> Shape:
    """Draw a sitting teddy bear: head with ears, belly, arms, legs, and a painted face."""
    head, ear, arm = rng.uniform(0.36, 0.44), rng.uniform(0.13, 0.19), rng.uniform(-0.3, 0.5)
    shape: Shape = [
        fill(circle((0, -0.5), (head * 1.1, head))),
        fill(circle((0, 0.3), (rng.uniform(0.42, 0.55), 0.52))),
    ]
    for side in (-1, 1):
        shape.append(fill(circle((side * head * 0.85, -0.5 - head * 0.75), ear)))
        shape.append(ribbon(segment((side * 0.3, 0.0), (side * 0.85, 0.05 + arm), 8), 0.32, 0.24))
        shape.append(fill(circle((side * 0.85, 0.05 + arm), 0.13)))
        shape.append(ribbon(segment((side * 0.25, 0.6), (side * 0.7, 0.85), 8), 0.38, 0.3))
        shape.append(fill(circle((side * 0.72, 0.85), (0.17, 0.2))))
        shape += [
            paint(circle((side * 0.15, -0.56), 0.05, 10)),
            paint(circle((side * 0.72, 0.87), 0.09, 12)),
        ]
    shape += [paint(circle((0, -0.38), (0.11, 0.08), 14)), paint(circle((0, 0.32), (0.25, 0.3)))]
    return shape


def cat(rng: Generator) -> Shape:
    """Draw a sitting cat, seen from the side: pointed ears, arched back, front legs with a gap, a curved tail."""
    back = rng.uniform(0.4, 0.6)
    body = np.array(
        [
            [-0.35, -0.3],
            [-0.05, -0.4],
            [0.3, -0.1],
            [back, 0.45],
            [back - 0.02, 0.92],
            [0.1, 1.0],
            [-0.1, 0.85],
            [-0.28, 0.4],
            [-0.4, 0.1],
        ]
    )
    shape: Shape = [fill(loop(body, 60)), fill(circle((-0.3, -0.55), (0.33, 0.28)))]
    for x in (-0.5, -0.12):
        shape.append(fill(np.array([[x - 0.1, -0.7], [x + 0.02, -1.02], [x + 0.12, -0.68]])))
    for x in (-0.32, -0.12):
        shape.append(ribbon(segment((x + 0.05, 0.2), (x, 0.97), 6), 0.16, 0.11))
    tail = np.array(
        [
            [back - 0.1, 0.9],
            [back + 0.35, 0.85],
            [back + 0.4, 0.3],
            [back + rng.uniform(0.1, 0.5), rng.uniform(-0.2, 0.1)],
        ]
    )
    shape.append(ribbon(spline(tail, 24), 0.15, 0.07))
    shape += [paint(circle((x, -0.58), (0.045, 0.06), 10)) for x in (-0.44, -0.2)]
    shape += [paint_stroke(segment((0.1, v), (0.7, v - 0.12), 4), 0.05) for v in (0.2, 0.4, 0.6)]
    return shape


def turtle(rng: Generator) -> Shape:
    """Draw a turtle, seen from above: an oval shell with painted plates, four flippers, a head and a short tail."""
    rx, ry = rng.uniform(0.52, 0.66), rng.uniform(0.68, 0.8)
    shape: Shape = [fill(circle((0, 0.1), (rx, ry), 40))]
    reach = rng.uniform(0.3, 0.5)
    for side in (-1, 1):
        front = np.array(
            [
                [rx * 0.6, -0.35],
                [rx + reach * 0.6, -0.75],
                [rx + reach, -0.45],
                [rx + reach * 0.5, -0.4],
                [rx * 0.8, -0.05],
            ]
        )
        hind = np.array([[rx * 0.7, 0.45], [rx + 0.2, 0.75], [rx + 0.12, 0.95], [rx * 0.4, 0.68]])
        shape += [fill(loop(front * [side, 1], 30)), fill(loop(hind * [side, 1], 24))]
    shape += [
        fill(circle((0, -0.82), (0.17, 0.25))),
        fill(np.array([[-0.07, 0.85], [0, 1.08], [0.07, 0.85]])),
    ]
    plates = circle((0, 0.1), (rx * 0.6, ry * 0.6), 7)
    shape.append(paint_stroke(closed(plates), 0.05))
    shape += [paint_stroke(segment(p, (p - [0, 0.1]) * 1.6 + [0, 0.1], 3), 0.05) for p in plates]
    return shape


ANIMALS: dict[str, Callable[[Generator], Shape]] = {
    f.__name__: f for f in (fish, bird, teddy_bear, cat, turtle)
}
