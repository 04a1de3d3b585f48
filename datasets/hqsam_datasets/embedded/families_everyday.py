"""Shape families of everyday things: mostly solid, with a few small parts. None is a training family.

They imitate what COCO, LVIS, UVO and YouTube-VIS consist of for the larger part: vehicles, animals,
vessels, clothes. The outlines are curved and have concavities; handles, fins, mirrors, legs and
spouts are small beside the body. Marks inside the outline (windows, labels, eyes) are painted: they
belong to the object. Each function draws one random member in its natural proportions, y down.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from hqsam_datasets.embedded.families_animals import ANIMALS
from hqsam_datasets.embedded.shapes import (
    Points,
    Shape,
    arc,
    circle,
    cut,
    fill,
    loop,
    paint,
    paint_stroke,
    ribbon,
    segment,
    spline,
    stroke,
)


def _turned(profile: list[tuple[float, float]], n: int = 40) -> Points:
    """Return the outline of a turned vessel: the (radius, height) profile from the rim down, and its mirror image."""
    right = spline(np.array(profile), n)
    return np.concatenate([right, right[::-1] * [-1, 1]])


def _mirrored(half: Points) -> Points:
    """Return a symmetric outline from its right half."""
    return np.concatenate([half, half[::-1] * [-1, 1]])


def vase(rng: Generator) -> Shape:
    """Draw a vase: belly, neck, lip and foot; half of them with two handles."""
    lip, neck, belly, foot = (
        rng.uniform(0.3, 0.5),
        rng.uniform(0.14, 0.26),
        rng.uniform(0.5, 0.75),
        rng.uniform(0.2, 0.4),
    )
    y = rng.uniform(-0.1, 0.35)
    shape: Shape = [
        fill(_turned([(lip, -1), (neck, -0.68), (belly, y), (foot * 0.8, 0.85), (foot, 1)]))
    ]
    if rng.random() < 0.5:
        for side in (-1, 1):
            grip = np.array(
                [[neck, -0.7], [belly + 0.05, -0.62], [belly + 0.08, -0.3], [belly * 0.85, y - 0.2]]
            )
            shape.append(stroke(spline(grip * [side, 1], 18), rng.uniform(0.07, 0.11)))
    shape += [
        paint_stroke(segment((-1, v), (1, v)), 0.07)
        for v in y + np.array([-0.12, 0.12]) * rng.uniform(0.5, 2)
    ]
    return shape


def bottle(rng: Generator) -> Shape:
    """Draw a bottle: body, shoulder, neck and cap, with a label."""
    r, neck, shoulder = rng.uniform(0.26, 0.42), rng.uniform(0.09, 0.13), rng.uniform(-0.4, -0.1)
    waist = r * rng.uniform(0.8, 1.0)
    body = [
        (neck, -0.9),
        (neck, -0.62),
        (r, shoulder),
        (waist, 0.3),
        (r, 0.75),
        (r * 0.95, 0.97),
        (r * 0.8, 1),
    ]
    shape: Shape = [fill(_turned(body)), stroke(segment((-neck, -0.95), (neck, -0.95)), 0.13)]
    shape.append(
        paint(np.array([[-r, 0.05], [r, 0.05], [r, 0.6], [-r, 0.6]]) * [rng.uniform(0.7, 1), 1])
    )
    return shape


def cup(rng: Generator) -> Shape:
    """Draw a cup: a tapered body with an open handle; at times on a saucer."""
    top, foot, w = rng.uniform(0.6, 0.75), rng.uniform(0.35, 0.65), rng.uniform(0.1, 0.16)
    shape: Shape = [
        fill(_turned([(top, -0.7), (top * 0.97, -0.2), (foot * 1.05, 0.5), (foot, 0.7)]))
    ]
    shape.append(fill(circle((0, -0.7), (top, 0.09))))
    side = np.array(
        [[top * 0.95, -0.45], [top + 0.3, -0.5], [top + 0.35, -0.05], [foot + 0.02, 0.3]]
    )
    shape.append(stroke(spline(side, 24), w))
    if rng.random() < 0.35:
        shape.append(fill(circle((0, 0.75), (rng.uniform(0.95, 1.2), 0.11))))
    shape.append(paint(circle((0, -0.7), (top * 0.88, 0.06))))
    shape.append(paint_stroke(segment((-1, 0.1), (top * 0.9, 0.1)), rng.uniform(0.06, 0.2)))
    return shape


def teapot(rng: Generator) -> Shape:
    """Draw a teapot: a round pot with a spout, a handle, and a lid with its knob."""
    rx, ry = rng.uniform(0.6, 0.75), rng.uniform(0.45, 0.62)
    shape: Shape = [
        fill(circle((0, 0.1), (rx, ry))),
        fill(circle((0, 0.1 + ry * 0.95), (rx * 0.55, 0.09))),
    ]
    spout = np.array(
        [[-rx * 0.8, 0.3], [-rx - 0.15, 0.15], [-rx - 0.25, -0.25], [-rx - 0.45, -0.4]]
    )
    shape.append(ribbon(spline(spout, 20), rng.uniform(0.24, 0.34), 0.12))
    grip = np.array([[rx * 0.8, -0.25], [rx + 0.3, -0.35], [rx + 0.4, 0.15], [rx * 0.85, 0.4]])
    shape.append(stroke(spline(grip, 24), rng.uniform(0.09, 0.14)))
    shape.append(fill(arc((0, 0.12 - ry), (rx * 0.5, 0.2), np.pi, 2 * np.pi, 20)))
    shape.append(fill(circle((0, -ry - 0.12), rng.uniform(0.07, 0.11), 14)))
    shape.append(paint_stroke(arc((0, 0.12 - ry), (rx * 0.55, 0.08), 0, np.pi, 14), 0.04))
    return shape


def car(rng: Generator) -> Shape:
    """Draw a car from the side: bonnet, cabin, boot, wheels, a mirror and at times a roof rack."""
    roof, nose, tail = rng.uniform(-0.62, -0.48), rng.uniform(-0.12, 0.0), rng.uniform(-0.25, 0.0)
    front, rear = rng.uniform(-0.38, -0.25), rng.uniform(0.4, 0.62)
    body = np.array(
        [
            [-1.2, 0.26],
            [-1.22, nose + 0.08],
            [-0.7, nose - 0.05],
            [front, roof],
            [rear - 0.1, roof],
            [rear + 0.3, tail - 0.06],
            [1.15, tail],
            [1.2, 0.26],
            [0.9, 0.32],
            [-0.9, 0.32],
        ]
    )
    r = rng.uniform(0.19, 0.25)
    shape: Shape = [fill(loop(body, 90))]
    for x in (-0.72, 0.72):
        shape += [fill(circle((x, 0.32), r, 28)), paint(circle((x, 0.32), r * 0.55, 20))]
    shape.append(
        fill(
            np.array(
                [
                    [-0.62, nose - 0.2],
                    [-0.5, nose - 0.22],
                    [-0.48, nose - 0.08],
                    [-0.6, nose - 0.07],
                ]
            )
        )
    )
    low, mid = min(nose, tail) - 0.06, (front + rear) / 2
    shape.append(
        paint(
            np.array(
                [
                    [front + 0.04, roof + 0.1],
                    [mid - 0.04, roof + 0.09],
                    [mid - 0.04, low],
                    [front - 0.25, low],
                ]
            )
        )
    )
    shape.append(
        paint(
            np.array(
                [
                    [mid + 0.04, roof + 0.09],
                    [rear - 0.1, roof + 0.1],
                    [rear + 0.12, low],
                    [mid + 0.04, low],
                ]
            )
        )
    )
    if rng.random() < 0.35:
        shape += [stroke(segment((front + 0.1, roof - 0.1), (rear - 0.1, roof - 0.1)), 0.04)]
        shape += [
            stroke(segment((x, roof - 0.1), (x, roof + 0.05), 3), 0.04)
            for x in (front + 0.2, rear - 0.2)
        ]
    return shape


def truck(rng: Generator) -> Shape:
    """Draw a truck from the side: a cab, a load with a gap between them, wheels and an exhaust pipe."""
    top, gap = rng.uniform(-0.75, -0.5), rng.uniform(0.06, 0.12)
    cab = np.array([[-1.2, 0.3], [-1.2, -0.05], [-1.08, -0.42], [-0.62, -0.44], [-0.62, 0.3]])
    load = np.array([[-0.62 + gap, top], [1.2, top], [1.2, 0.22], [-0.62 + gap, 0.22]])
    shape: Shape = [fill(cab), fill(load), stroke(segment((-0.7, 0.24), (1.15, 0.24)), 0.12)]
    r = rng.uniform(0.17, 0.22)
    for x in (-0.9, 0.55, 0.95) if rng.random() < 0.5 else (-0.9, 0.8):
        shape += [fill(circle((x, 0.36), r, 28)), paint(circle((x, 0.36), r * 0.5, 18))]
    shape += [
        stroke(segment((-0.65, -0.4), (-0.65, -0.68), 3), 0.05),
        stroke(segment((-1.28, -0.3), (-1.28, -0.05), 3), 0.06),
    ]
    shape.append(paint(np.array([[-1.12, -0.08], [-1.02, -0.34], [-0.75, -0.34], [-0.75, -0.08]])))
    shape += [
        paint_stroke(segment((x, top), (x, 0.22), 3), 0.03)
        for x in np.linspace(-0.3, 1.0, int(rng.integers(2, 6)))
    ]
    return shape


def sailing_boat(rng: Generator) -> Shape:
    """Draw a sailing boat: a hull under two sails with the mast and a gap between them, and a pennant."""
    mast = rng.uniform(-0.15, 0.1)
    hull = np.array(
        [[-1, 0.55], [0, 0.6], [1.05, 0.5], [0.75, 0.85], [0.3, 0.98], [-0.6, 0.98], [-0.85, 0.8]]
    )
    shape: Shape = [fill(hull), stroke(segment((mast, -1.15), (mast, 0.6), 8), 0.05)]
    belly = rng.uniform(0.05, 0.2)
    main = np.array(
        [[mast + 0.07, -1.02], [mast + 0.45 + belly, -0.3], [0.9, 0.4], [mast + 0.07, 0.42]]
    )
    jib = np.array(
        [[mast - 0.07, -0.9], [mast - 0.4 - belly, -0.2], [-0.9, 0.36], [mast - 0.07, 0.3]]
    )
    for sail in (main, jib):
        shape.append(
            fill(
                np.concatenate(
                    [
                        spline(sail[:3], 20),
                        spline(
                            np.stack([sail[2], (sail[2] + sail[3]) / 2 + [0, 0.06], sail[3]]), 10
                        ),
                    ]
                )
            )
        )
    shape.append(fill(np.array([[mast, -1.15], [mast + 0.25, -1.08], [mast, -1.0]])))
    shape += [
        paint_stroke(segment((-1, 0.72), (1, 0.7)), 0.07),
        paint_stroke(segment(main[0] * 0.3 + main[3] * 0.7, main[2], 4), 0.03),
    ]
    return shape


def shirt(rng: Generator) -> Shape:
    """Draw a T-shirt or a long-sleeved shirt, with a neck opening and a wavy hem."""
    long = rng.random() < 0.4
    x, y, w = (1.05, 0.55, 0.3) if long else (1.0, -0.25, 0.32)
    waist, hem = rng.uniform(0.42, 0.55), rng.uniform(0.45, 0.65)
    neck = arc((0, -0.95), (rng.uniform(0.18, 0.28), rng.uniform(0.12, 0.35)), np.pi / 2, 0, 10)
    side = np.array(
        [[0.5, -0.85], [x, y - 0.1], [x - w, y + 0.08], [0.52, -0.35], [waist, 0.2], [hem, 0.95]]
    )
    bottom = np.stack(
        [np.linspace(hem, 0, 12), 0.95 + rng.uniform(0, 0.05) * np.sin(np.linspace(0, 9, 12))], 1
    )
    shape: Shape = [fill(_mirrored(np.concatenate([neck, side, bottom])))]
    if rng.random() < 0.5:
        shape += [
            paint_stroke(segment((-1.2, v), (1.2, v)), 0.1)
            for v in np.arange(-0.4, 0.9, rng.uniform(0.25, 0.5))
        ]
    else:
        shape.append(paint(circle((rng.uniform(-0.1, 0.1), -0.1), rng.uniform(0.12, 0.25, 2), 24)))
    return shape


def airplane(rng: Generator) -> Shape:
    """Draw an airplane, seen from above: fuselage, swept wings with engines, tailplane."""
    sweep, span, root = rng.uniform(0.1, 0.5), rng.uniform(0.85, 1.1), rng.uniform(0.34, 0.5)
    shape: Shape = [
        fill(_turned([(0.0, -1), (0.11, -0.85), (0.14, -0.4), (0.13, 0.4), (0.05, 1), (0.0, 1.02)]))
    ]
    for side in (-1, 1):
        wing = np.array(
            [
                [0.08, -0.3],
                [span, -0.3 + sweep + 0.15],
                [span, -0.3 + sweep + 0.3],
                [0.08, -0.3 + root],
            ]
        )
        tail = np.array([[0.04, 0.68], [0.42, 0.86], [0.42, 0.97], [0.04, 0.92]])
        shape += [fill(wing * [side, 1]), fill(tail * [side, 1])]
        for x in (0.35, 0.62)[: int(rng.integers(1, 3))]:
            shape.append(
                fill(circle((side * x, -0.26 + (sweep + 0.1) * x / span), (0.06, 0.15), 16))
            )
    shape += [
        paint_stroke(segment((0, -0.6), (0, 0.8), 6), 0.05),
        paint(circle((0, -0.86), (0.07, 0.05), 10)),
    ]
    return shape


def apple(rng: Generator) -> Shape:
    """Draw an apple: round with a dent at the stalk, a stalk and a leaf; at times with a bite."""
    half = [
        (0.0, -0.62),
        (0.3, -0.78),
        (0.75, -0.5),
        (0.82, 0.1),
        (0.55, 0.75),
        (0.22, 0.9),
        (0.0, 0.82),
    ]
    widths = np.array(half) * [rng.uniform(0.85, 1.1), 1]
    shape: Shape = [fill(_mirrored(spline(widths, 40)))]
    if rng.random() < 0.25:
        shape.append(cut(circle((0.85, rng.uniform(-0.2, 0.3)), rng.uniform(0.25, 0.36), 24)))
    bend = rng.uniform(-0.15, 0.15)
    shape.append(
        stroke(spline(np.array([[0, -0.55], [bend * 0.4, -0.85], [bend, -1.05]]), 10), 0.08)
    )
    leaf = np.array([[0.02, -0.82], [0.25, -1.08], [0.55, -1.02], [0.32, -0.82]])
    shape.append(fill(loop(leaf, 24)))
    shape.append(paint(circle((-0.35, -0.3), (0.12, 0.2), 16)))
    return shape


EVERYDAY: dict[str, Callable[[Generator], Shape]] = {
    **{
        f.__name__: f
        for f in (vase, bottle, cup, teapot, car, truck, sailing_boat, shirt, airplane, apple)
    },
    **ANIMALS,
}
