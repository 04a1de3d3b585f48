"""Pictures of samples, masks and prompts for people: `hqsam data show KEY`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsam_base import rle
from hqsam_datasets import prompts as kinds
from hqsam_datasets.formats.masks import FOREGROUND
from hqsam_datasets.prepare.augment import apply_view
from hqsam_datasets.prompts import Marks, marks_of_row
from hqsam_datasets.sample import Sample

TILE = 512
_GAP = 8
_TINTS = (
    (255, 64, 64),
    (64, 160, 255),
    (64, 220, 96),
    (255, 200, 0),
    (200, 96, 255),
    (0, 210, 210),
)
_Colour = tuple[int, int, int]
_BOX = (255, 235, 0)
_POINT = (0, 255, 80)
_INK = (40, 40, 40)
_SAMPLE_LEGEND = (
    ("area", _TINTS[0], "mask; each instance has a colour of its own"),
    ("box", _BOX, "box prompt"),
    ("point", _POINT, "point prompt"),
    ("box", _BOX, "drawn thick, or large points: the prompt that trains, named in the tile"),
)
_EVALUATION_LEGEND = (
    ("area", _TINTS[0], "ground truth or mask prompt"),
    ("box", _TINTS[0], "box prompt"),
    ("point", _TINTS[0], "point prompt"),
    ("area", _TINTS[1], "each object has a colour of its own; a tile's number counts them"),
)


def draw_sample(
    sample: Sample,
    views: Sequence[Mapping[str, Any]],
    pictures: Sequence[Mapping[str, NDArray[np.uint8]]],
) -> NDArray[np.uint8]:
    """Draw a sheet of tiles: the sample with its masks and the views' crops; then per view the prompts and their pictures.

    Args:
        sample: the sample.
        views: entries of the plan's `views`; may be empty.
        pictures: the pictures of each view's prompts by name, uint8 [m, m]: the noisy mask.

    Returns:
        uint8 [H, W, 3] RGB: one row for the sample, one for each view, and the legend.
    """
    first = sample.image.copy()
    for instance in sample.instances:
        first = tinted(first, instance.mask, _TINTS[instance.id % len(_TINTS)])
    union = np.max([instance.mask for instance in sample.instances], axis=0)
    overview = _tile(first)
    for view in views:
        size = sample.image.shape[:2]
        factor = TILE / max(size)
        x0, y0, x1, y1 = (round(v * factor) for v in crop_box(view, size))
        colour = _TINTS[(int(view["view"]) + 1) % len(_TINTS)]
        cv2.rectangle(overview, (x0, y0), (x1 - 1, y1 - 1), colour, 2)
        text = f"{view['view']}{' mirrored' if view['flip'] else ''}"
        place = (x0 + 4, y1 - 6 - 18 * int(view["view"]))  # crops often end in one line
        cv2.putText(overview, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
    _labelled(overview, "instances, and the crop of each view")
    image_tile = _labelled(_tile(sample.image), "image")
    rows = [_row([image_tile, overview, _labelled(_tile(_grey(union)), "union of the masks")])]
    for view, own in zip(views, pictures, strict=True):
        mask = sample.instances[int(view["instance"])].mask
        image, label = apply_view(image=sample.image, mask=mask, view=view)
        shown = _tile(tinted(image, label, _TINTS[0]))
        _draw_prompts(shown, view, own)
        named = (
            _labelled(_tile(_grey(picture)), name.replace("_", " "))
            for name, picture in own.items()
        )
        rows.append(_row([_labelled(_tile(image), "augmented image"), shown, *named]))
    # Below each other; a row of fewer tiles is filled up with white.
    width = max(row.shape[1] for row in rows)
    gap = np.full((_GAP, width, 3), 255, np.uint8)
    parts = []
    for row in rows:
        room = ((0, 0), (0, width - row.shape[1]), (0, 0))
        parts += [np.pad(row, room, constant_values=255), gap]
    return np.concatenate([*parts, _legend(_SAMPLE_LEGEND, width)], axis=0)


def draw_evaluation(
    image: NDArray[np.uint8],
    truths: Sequence[Mapping[str, Any]],
    prompts: Sequence[Mapping[str, Any]],
) -> NDArray[np.uint8]:
    """Draw a row of tiles: the image, its ground truth, and the prompts of each set.

    Args:
        image: uint8 [H, W, 3] RGB.
        truths: its rows of `instances.parquet`.
        prompts: its rows of `prompts.parquet`.

    Returns:
        uint8 [H, W, 3] RGB: the tiles, and the legend below them.
    """
    plain = _tile(image)
    tiles = [plain, _labelled(_with_masks(plain.copy(), truths), f"ground truth: {len(truths)}")]
    for name in sorted({prompt["prompt_set"] for prompt in prompts}):
        chosen = [prompt for prompt in prompts if prompt["prompt_set"] == name]
        tile = _with_masks(plain.copy(), [prompt for prompt in chosen if prompt["rle"]])
        factor = TILE / max(image.shape[:2])
        for place, prompt in enumerate(row for row in chosen if not row["rle"]):
            colour = _TINTS[place % len(_TINTS)]
            _draw_marks(
                tile, marks_of_row(prompt), factor, colours=(colour, colour), thick=2, radius=3
            )
        tiles.append(_labelled(tile, f"{name}: {len(chosen)}"))
    _labelled(tiles[0], "image")
    row = _row(tiles)
    return np.concatenate([row, _legend(_EVALUATION_LEGEND, row.shape[1])], axis=0)


def _legend(entries: Sequence[tuple[str, _Colour, str]], width: int) -> NDArray[np.uint8]:
    """Explain marks in lines of a given width: a shape, its colour, what it stands for."""
    lines: list[list[tuple[str, _Colour, str]]] = [[]]
    ends = 0
    for entry in entries:
        needed = 40 + cv2.getTextSize(entry[2], cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0]
        if lines[-1] and ends + needed > width:
            lines.append([])
            ends = 0
        lines[-1].append(entry)
        ends += needed
    canvas = np.full((len(lines) * 24 + _GAP, width, 3), 255, np.uint8)
    for y, line in zip(range(16, len(lines) * 24, 24), lines, strict=True):
        x = 8
        for shape, colour, text in line:
            # Dark edges: yellow on white cannot be seen.
            if shape == "point":
                cv2.circle(canvas, (x + 8, y - 4), 6, _INK, -1)
                cv2.circle(canvas, (x + 8, y - 4), 5, colour, -1)
            else:
                filled = -1 if shape == "area" else 3
                cv2.rectangle(canvas, (x, y - 10), (x + 16, y + 2), colour, filled)
                cv2.rectangle(canvas, (x - 2, y - 12), (x + 18, y + 4), _INK, 1)
            cv2.putText(
                canvas, text, (x + 24, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _INK, 1, cv2.LINE_AA
            )
            x += 40 + cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0]
    return canvas


def _with_masks(tile: NDArray[np.uint8], rows: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """Draw the masks of an image at the tile's size: there may be hundreds of large ones."""
    for place, row in enumerate(rows):
        mask = rle.decode(row["rle"], height=row["height"], width=row["width"]).view(
            np.uint8
        ) * np.uint8(255)
        tile = tinted(tile, _fitted(mask), _TINTS[place % len(_TINTS)])
    return tile


def tinted(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Tint an image with a mask: half transparent inside, its outline solid."""
    weight = (mask.astype(np.float32) / 255 * 0.45)[..., None]
    mixed = (image * (1 - weight) + np.array(colour, np.float32) * weight).astype(np.uint8)
    inside = (mask > FOREGROUND).astype(np.uint8)
    outline = inside.astype(bool) & ~cv2.erode(inside, np.ones((3, 3), np.uint8)).astype(bool)
    mixed[outline] = colour
    return mixed


def crop_box(view: Mapping[str, Any], size: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Return what a view shows of its image, xyxy in pixels of the image.

    `size` is (height, width).
    """
    jitter, (height, width) = view["jitter"], size
    across, down = width / jitter["width"], height / jitter["height"]
    x0, x1 = jitter["crop_x"] * across, (jitter["crop_x"] + jitter["crop_w"]) * across
    y0, y1 = jitter["crop_y"] * down, (jitter["crop_y"] + jitter["crop_h"]) * down
    return (width - x1, y0, width - x0, y1) if view["flip"] else (x0, y0, x1, y1)


def _draw_prompts(
    tile: NDArray[np.uint8], view: Mapping[str, Any], pictures: Mapping[str, NDArray[np.uint8]]
) -> None:
    """Draw the view's prompts where they fall on the tile; the one that trains is drawn thick."""
    factor = tile.shape[0] / view["image_size"]
    for kind in (kinds.load(name) for name in kinds.names()):
        try:
            marks = kind.marks(kind.planned(view, pictures.__getitem__))
        except KeyError:  # the plan was made without this kind
            continue
        thick, radius = (3, 6) if view["prompt"] == kind.name else (1, 3)
        _draw_marks(
            tile, marks, factor, colours=(_BOX, _POINT), thick=thick, radius=radius, centre=0.5
        )
    _labelled(tile, f"view {view['view']}: {view['prompt']}, scale {view['jitter']['scale']:.2f}")


def _draw_marks(
    tile: NDArray[np.uint8],
    marks: Marks,
    factor: float,
    *,
    colours: tuple[_Colour, _Colour],
    thick: int,
    radius: int,
    centre: float = 0.0,
) -> None:
    """Draw boxes and lines in the first colour and points in the second.

    `centre` is where in a pixel a coordinate is.
    """

    def at(x: float, y: float) -> tuple[int, int]:
        place = (x + centre) * factor, (y + centre) * factor
        return (int(place[0]), int(place[1])) if centre else (round(place[0]), round(place[1]))

    for x0, y0, x1, y1 in marks.boxes:
        cv2.rectangle(tile, at(x0, y0), at(x1, y1), colours[0], thick)
    for line in marks.lines:
        cv2.polylines(
            tile, [np.array([at(x, y) for x, y in line], np.int32)], False, colours[0], thick
        )
    for x, y, _ in marks.points:
        cv2.circle(tile, at(x, y), radius, colours[1], -1)


def _labelled(tile: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Write a line of text into the tile's corner, in place."""
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    tile[: height + 16, : width + 16] //= 3
    cv2.putText(
        tile, text, (8, height + 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA
    )
    return tile


def _tile(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fit an image into a square of `TILE` pixels, keeping its shape; grey around it."""
    return _fitted(image, around=48)


def _fitted(image: NDArray[np.uint8], *, around: int = 0) -> NDArray[np.uint8]:
    """Return an image or mask, enlarged or reduced to `TILE` pixels, in the upper left corner of a square."""
    factor = TILE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    canvas = np.full((TILE, TILE, *image.shape[2:]), around, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(
        image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    )
    return canvas


def _grey(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(mask[..., None], 3, axis=2)


def _row(tiles: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    gap = np.full((TILE, _GAP, 3), 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)
