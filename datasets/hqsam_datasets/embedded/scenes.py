"""Procedural scenes with exact masks: thin, intricate objects and everyday things over textured, cluttered backgrounds.

The embedded sample draws its training images from `TRAIN_FAMILIES`, its evaluation images from
`EVAL_FAMILIES` and
`EVERYDAY_FAMILIES`: disjoint sets of shape families. Everything is drawn from the generator given;
the same state gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hqsam_datasets.embedded.families import (
    ANY_ANGLE,
    DEV_FAMILIES,
    EVAL_FAMILIES,
    EVERYDAY_FAMILIES,
    FAMILIES,
    TRAIN_FAMILIES,
)
from hqsam_datasets.embedded.shapes import MARKS, Pose, Shape, proportion, rasterise
from hqsam_datasets.embedded.texture import colour, noise, pattern

__all__ = [
    "DEV_FAMILIES",
    "EVAL_FAMILIES",
    "EVERYDAY_FAMILIES",
    "TRAIN_FAMILIES",
    "Scene",
    "SceneObject",
    "compose",
    "render_background",
    "render_clip",
    "render_scene",
]

Image = NDArray[np.uint8]
Field = NDArray[np.float32]


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        family: name of the shape family.
        alpha: visible anti-aliased coverage, float32 [H, W] in 0..1 (objects in front taken off).
        colour: the object's surface, uint8 [H, W, 3] RGB, meaningful where `alpha` > 0.
    """

    family: str
    alpha: Field
    colour: Image


@dataclass(frozen=True)
class Scene:
    """A rendered image, uint8 [H, W, 3] RGB, and its objects from back to front."""

    image: Image
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True)
class _Actor:
    """What stays the same of an object from frame to frame."""

    family: str
    shape: Shape
    pose: Pose
    surface: Field
    light: float
    velocity: tuple[float, float]
    spin: float


def _pose(
    rng: Generator,
    family: str,
    shape: Shape,
    height: int,
    width: int,
    fill: tuple[float, float],
    centred: bool,
) -> Pose:
    """Draw a random pose: the extent is `fill` of the image's shorter side, the box lies inside."""
    half = 0.5 * min(height, width) * rng.uniform(*fill)
    aspect = float(np.exp(rng.uniform(-0.25, 0.25)))
    limit = np.array([0.48 * width, 0.48 * height])
    if family in EVERYDAY_FAMILIES:  # in proportion
        aspect = aspect**0.4 * float(np.sqrt(proportion(shape)))
        wanted = np.array([half * aspect, half / aspect])
        half_size = wanted * min(1.0, float((limit / wanted).min()))
    else:  # about square
        half_size = np.minimum([half * aspect, half / aspect], limit)
    room = np.array([width, height]) / 2 - half_size
    offset = rng.uniform(-1, 1, 2) * room * (0.8 if centred else 1.0)
    center = np.array([width, height]) / 2 + offset
    tilt = np.pi if family in ANY_ANGLE else 0.25
    return Pose(
        center=(float(center[0]), float(center[1])),
        half_size=(float(half_size[0]), float(half_size[1])),
        angle=float(rng.uniform(-tilt, tilt)),
        mirror=bool(rng.random() < 0.5),
        bend=float(rng.uniform(0, 0.13)),
        phase=tuple(rng.uniform(0, 2 * np.pi, 4).tolist()),
    )


def _actor(
    rng: Generator,
    families: Sequence[str],
    around: NDArray[np.float64],
    height: int,
    width: int,
    fill: tuple[float, float],
    centred: bool,
) -> _Actor:
    """Draw an object: shape, pose, surface and motion."""
    family = families[int(rng.integers(len(families)))]
    shape = FAMILIES[family](rng)
    # A colour at some distance (RGB, Euclidean) from `around`: nearer ones are harder to find.
    wanted = rng.uniform(45, 110)
    options = np.stack([colour(rng) for _ in range(12)])
    distance = np.linalg.norm(options - around, axis=1)
    far = options[distance >= wanted]
    first = far[0] if len(far) else options[int(distance.argmax())]
    second = np.clip(first + rng.normal(0, rng.uniform(5, 45), 3), 0, 255)
    speed = 0.035 * min(height, width)
    return _Actor(
        family=family,
        shape=shape,
        pose=_pose(rng, family, shape, height, width, fill, centred),
        surface=pattern(rng, height, width, first=first, second=second),
        light=float(rng.uniform(0, 2 * np.pi)),
        velocity=(float(rng.normal(0, speed)), float(rng.normal(0, speed * 0.6))),
        spin=float(rng.normal(0, 0.04)),
    )


def _surface(actor: _Actor, pose: Pose, alpha: Field) -> Field:
    """Return the object's lit colours: its pattern with the marks on it (darker on bright objects, brighter on dark ones)."""
    surface = actor.surface
    if any(p.kind in MARKS for p in actor.shape):
        height, width = alpha.shape
        marks = rasterise(actor.shape, pose=pose, height=height, width=width, marks=True)
        tone = np.float32(0.35) if surface.mean() > 90 else np.float32(2.2)
        surface = _over(surface, surface * tone, marks)
    # Relief: the slope of the blurred coverage along the direction of the light.
    soft = cv2.GaussianBlur(alpha, (0, 0), max(1.0, 0.012 * max(alpha.shape)))
    dx, dy = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3), cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3)
    relief = np.float32(np.cos(actor.light)) * dx + np.float32(np.sin(actor.light)) * dy
    return surface * (1 + np.float32(0.35) * np.clip(relief, -1, 1))[..., None]


def _over(canvas: Field, colour_layer: Field, alpha: Field) -> Field:
    """Composite a layer over a canvas (source-over)."""
    a = alpha[..., None]
    return canvas * (1 - a) + colour_layer * a


def _backdrop(rng: Generator, height: int, width: int) -> Field:
    """Draw a textured ground, at times two textures on either side of a soft or hard border."""
    first = colour(rng)
    second = np.clip(first + rng.normal(0, rng.uniform(10, 70), 3), 5, 250)
    ground = pattern(rng, height, width, first=first, second=second)
    if rng.random() < 0.4:
        third = np.clip(first + rng.normal(0, 50, 3), 5, 250)
        other = pattern(rng, height, width, first=third, second=second)
        edge = np.clip(
            0.5 + rng.uniform(2, 30) * noise(rng, height, width, cells=2, octaves=2), 0, 1
        )
        ground = _over(ground, other, edge.astype(np.float32))
    return ground


def _add_clutter(rng: Generator, canvas: Field, families: Sequence[str], n: int) -> Field:
    """Draw distractors: small shapes of other colours behind the objects."""
    height, width = canvas.shape[:2]
    for _ in range(n):
        around = canvas.mean(axis=(0, 1)).astype(np.float64)
        actor = _actor(rng, families, around, height, width, (0.12, 0.45), False)
        shift = rng.uniform(-0.5, 0.5, 2) * [width, height]
        pose = replace(
            actor.pose, center=(width / 2 + float(shift[0]), height / 2 + float(shift[1]))
        )
        alpha = rasterise(actor.shape, pose=pose, height=height, width=width) * np.float32(
            rng.uniform(0.6, 1.0)
        )
        canvas = _over(canvas, _surface(actor, pose, alpha), alpha)
    if n and rng.random() < 0.5:
        soft = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.6) * max(height, width) / 160)
        canvas = np.asarray(soft, np.float32)
    return canvas


@dataclass(frozen=True)
class _Camera:
    """What the lens and the sensor do to a frame."""

    blur: float
    noise: float
    gain: float
    tint: NDArray[np.float64]
    vignette: float


def _camera(rng: Generator, height: int, width: int) -> _Camera:
    return _Camera(
        blur=float(rng.uniform(0, 0.75)) * max(1.0, max(height, width) / 200),
        noise=float(rng.uniform(0, 9)),
        gain=float(rng.uniform(0.8, 1.15)),
        tint=rng.uniform(0.94, 1.06, 3),
        vignette=float(rng.uniform(0, 0.35)),
    )


def _expose(rng: Generator, canvas: Field, camera: _Camera) -> Image:
    """Apply light, blur, sensor noise and quantisation."""
    height, width = canvas.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    light = np.float32(camera.gain) * (1 - np.float32(camera.vignette) * (x * x + y * y) / 2)
    lit: Field = np.asarray(canvas * light[..., None] * camera.tint.astype(np.float32), np.float32)
    if camera.blur > 0.25:
        lit = np.asarray(cv2.GaussianBlur(lit, (0, 0), camera.blur), np.float32)
    lit += np.float32(camera.noise) * rng.standard_normal((height, width, 1), np.float32)
    return np.asarray(np.clip(np.rint(lit), 0, 255), np.uint8)


def _render(rng: Generator, backdrop: Field, actors: Sequence[_Actor], camera: _Camera) -> Scene:
    """Composite the actors from back to front and take the picture."""
    height, width = backdrop.shape[:2]
    canvas = backdrop
    objects: list[SceneObject] = []
    for actor in actors:
        alpha = rasterise(actor.shape, pose=actor.pose, height=height, width=width)
        surface = np.clip(_surface(actor, actor.pose, alpha), 0, 255)
        # The object's shadow: the canvas is darker under a shifted, blurred copy of the coverage.
        side = max(alpha.shape)
        dx, dy = rng.uniform(-0.03, 0.03, 2) * side
        shift = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        moved = cv2.warpAffine(alpha, shift, alpha.shape[::-1])
        soft = cv2.GaussianBlur(moved, (0, 0), max(1.0, side * rng.uniform(0.008, 0.03)))
        canvas = canvas * (1 - np.float32(rng.uniform(0.15, 0.5)) * soft)[..., None]
        canvas = _over(canvas, surface, alpha)
        objects = [replace(o, alpha=o.alpha * (1 - alpha)) for o in objects]
        objects.append(SceneObject(actor.family, alpha, surface.astype(np.uint8)))
    return Scene(_expose(rng, canvas, camera), tuple(objects))


def _cast(
    rng: Generator,
    families: Sequence[str],
    backdrop: Field,
    n_objects: int,
    fill: tuple[float, float],
) -> list[_Actor]:
    """Draw the objects of a scene.

    Several objects are smaller and keep some distance from each other.
    """
    height, width = backdrop.shape[:2]
    around = backdrop.mean(axis=(0, 1)).astype(np.float64)
    if n_objects == 1:
        return [_actor(rng, families, around, height, width, fill, True)]
    share = (fill[0] / np.sqrt(max(n_objects, 1)) * 1.1, fill[1] / np.sqrt(max(n_objects, 1)) * 1.1)
    actors: list[_Actor] = []
    for _ in range(n_objects):
        tries = [_actor(rng, families, around, height, width, share, False) for _ in range(3)]
        actors.append(max(tries, key=lambda t: _clearance(t, actors)))
    return actors


def _clearance(actor: _Actor, others: Sequence[_Actor]) -> float:
    """Return the smallest gap to the other objects' boxes along x or y, pixels.

    Negative when the boxes overlap.
    """
    gaps = [
        max(
            abs(actor.pose.center[k] - o.pose.center[k])
            - actor.pose.half_size[k]
            - o.pose.half_size[k]
            for k in (0, 1)
        )
        for o in others
    ]
    return min(gaps, default=0.0)


def _check(families: Sequence[str], height: int, width: int, n_objects: int) -> None:
    unknown = sorted(set(families) - set(FAMILIES))
    if unknown or not families:
        raise ValueError(f"unknown shape families {unknown}; known: {sorted(FAMILIES)}")
    if min(height, width) < 16 or n_objects < 0:
        raise ValueError(
            f"scene of {height}x{width} with {n_objects} objects: sides start at 16, objects at 0"
        )


def render_scene(
    *,
    rng: Generator,
    families: Sequence[str],
    height: int,
    width: int,
    n_objects: int = 1,
    fill: tuple[float, float] = (0.55, 0.95),
    clutter: int | None = None,
    scenery: Sequence[str] | None = None,
) -> Scene:
    """Render one still image.

    Args:
        rng: source of all randomness.
        families: shape families to draw objects from.
        height: rows of the image.
        width: columns of the image.
        n_objects: objects with a mask; several ones get smaller so that they fit side by side.
        fill: range of the object's extent as a share of the shorter image side (for one object).
        clutter: number of distractors; None draws 0..5.
        scenery: shape families to draw distractors from; None for those of the objects.

    Returns:
        The scene, objects from back to front.

    Raises:
        ValueError: unknown family, side under 16 pixels, negative number of objects.
    """
    _check(families, height, width, n_objects)
    backdrop = _backdrop(rng, height, width)
    n_clutter = int(rng.integers(0, 6)) if clutter is None else clutter
    backdrop = _add_clutter(rng, backdrop, scenery or families, n_clutter)
    actors = _cast(rng, families, backdrop, n_objects, fill)
    return _render(rng, backdrop, actors, _camera(rng, height, width))


def _moved(actor: _Actor, frame: int) -> _Actor:
    """Return the actor's pose some frames later: drift, turn and a travelling bend."""
    p = actor.pose
    center = (p.center[0] + frame * actor.velocity[0], p.center[1] + frame * actor.velocity[1])
    phase = (
        p.phase[0] + 0.25 * frame,
        p.phase[1] - 0.2 * frame,
        p.phase[2] + 0.3 * frame,
        p.phase[3],
    )
    moved = replace(
        p, center=center, phase=phase, angle=p.angle + frame * actor.spin, bend=max(p.bend, 0.05)
    )
    return replace(actor, pose=moved)


def render_clip(
    *,
    rng: Generator,
    families: Sequence[str],
    height: int,
    width: int,
    n_frames: int,
    n_objects: int,
    scenery: Sequence[str] | None = None,
) -> list[Scene]:
    """Render a clip: the same objects, in the same order, move, turn and bend over a slowly panning ground.

    Objects may cover each other and leave the image; then their `alpha` gets smaller or all zero.

    Args:
        rng: source of all randomness.
        families: shape families to draw objects from.
        height: rows.
        width: columns.
        n_frames: frames.
        n_objects: objects with a mask.
        scenery: shape families to draw distractors from; None for those of the objects.

    Returns:
        One scene per frame.
    """
    _check(families, height, width, n_objects)
    margin = max(8, n_frames * 2)
    ground = _backdrop(rng, height + margin, width + margin)
    ground = _add_clutter(rng, ground, scenery or families, int(rng.integers(1, 6)))
    actors = _cast(rng, families, ground[:height, :width], n_objects, (0.45, 0.75))
    camera = _camera(rng, height, width)
    pan = rng.uniform(0, 1, 2) * margin / max(n_frames, 1)
    clip = []
    for t in range(n_frames):
        y, x = (int(v * t) for v in pan)
        view = ground[y : y + height, x : x + width]
        clip.append(_render(rng, view, [_moved(a, t) for a in actors], camera))
    return clip


def render_background(*, rng: Generator, height: int, width: int, clutter: int = 3) -> Image:
    """Render a textured, cluttered image without any object, uint8 [H, W, 3] RGB."""
    canvas = _add_clutter(rng, _backdrop(rng, height, width), TRAIN_FAMILIES, clutter)
    return _expose(rng, canvas, _camera(rng, height, width))


def compose(*, background: Image, objects: Sequence[SceneObject]) -> Image:
    """Paste objects, back to front, onto another background of the same size.

    Args:
        background: uint8 [H, W, 3] RGB.
        objects: their `alpha` and `colour` have the background's size.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        ValueError: sizes differ.
    """
    canvas = background.astype(np.float32)
    for o in objects:
        if o.alpha.shape != background.shape[:2]:
            raise ValueError(f"object of {o.alpha.shape} on a background of {background.shape[:2]}")
        canvas = _over(canvas, o.colour.astype(np.float32), o.alpha)
    return np.asarray(np.clip(np.rint(canvas), 0, 255), np.uint8)
