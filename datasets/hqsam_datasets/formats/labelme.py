"""Folders of labelme: one JSON file beside each image, with the shapes drawn on it. Written as one COCO file.

Layout (labelme 3 to 5): `shapes` with `label`, `points` [[x, y], ...], `shape_type` and `group_id`;
`imagePath`,
`imageHeight`, `imageWidth`. Shapes of one label and one group are the parts of one object.
Polygons, rectangles, circles and masks are objects; points and lines have no area and are left out.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hqsam_base import png, rle
from hqsam_base.errors import UserError
from hqsam_base.filenames import is_hidden
from hqsam_base.texts import open_text

_CURE = "open and save it with labelme, or take it out of the folder"
_LARGEST = 64 << 20
_CIRCLE = 12
_CLOSED = (
    "polygon",
    "oriented_rectangle",
    "rotation",
)  # the last is X-AnyLabeling's name for a turned rectangle
_KEYS = {"shapes", "imagePath"}
Json = dict[str, Any]


@dataclass(frozen=True)
class Converted:
    """A folder's content in COCO's format, and the numbers of shapes by type that were left out."""

    content: Json
    left_out: Mapping[str, int]


def labelme_files(folder: Path) -> list[Path]:
    """Returns the files of labelme below a folder, sorted; they are known by their keys."""
    found = (
        path
        for path in folder.rglob("*.json")
        if not any(is_hidden(p) for p in path.relative_to(folder).parts)
    )
    return sorted(path for path in found if path.is_file() and is_labelme(path))


def is_labelme(path: Path) -> bool:
    """Returns whether a JSON file is labelme's."""
    if path.stat().st_size > _LARGEST:
        return False
    try:
        with open_text(path) as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= _KEYS


def convert(folder: Path) -> Converted:
    """Reads all files of labelme below a folder.

    Args:
        folder: holds the images and their JSON files; image names become relative to it.

    Returns:
        COCO's `images`, `annotations`, `categories` (labels in alphabetical order, numbered from
        1).

    Raises:
        UserError: there are none, or one is malformed.
    """
    files = labelme_files(folder)
    if not files:
        raise UserError(
            "no files of labelme here",
            file=folder,
            cure="give the folder with the images and JSON files",
        )
    images, objects = [], list[Json]()
    left_out: Counter[str] = Counter()
    for number, path in enumerate(files, start=1):
        with open_text(path) as file:
            content = json.load(file)
        try:
            picture = path.parent / Path(content["imagePath"].replace("\\", "/")).name
            image: Json = {
                "id": number,
                "file_name": picture.relative_to(folder).as_posix(),
                "height": int(content["imageHeight"]),
                "width": int(content["imageWidth"]),
            }
            size = image["height"], image["width"]
            if min(size) < 1 or size[0] * size[1] > png.MAX_PIXELS:
                raise ValueError("no image has the size that it names")
            objects += [
                _annotation(number, label, code, size)
                for label, code in _objects(content["shapes"], size, left_out)
            ]
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            ArithmeticError,
            binascii.Error,
        ) as error:
            problem = f"a malformed file of labelme: {type(error).__name__}: {error}"
            raise UserError(problem, file=path, cure=_CURE) from error
        images.append(image)
    labels = {
        label: place
        for place, label in enumerate(sorted({one["category_id"] for one in objects}), start=1)
    }
    annotations = [
        {"id": n, **one, "category_id": labels[one["category_id"]]}
        for n, one in enumerate(objects, start=1)
    ]
    categories = [{"id": number, "name": label} for label, number in labels.items()]
    return Converted(
        {"images": images, "annotations": annotations, "categories": categories}, dict(left_out)
    )


def _objects(
    shapes: list[Json], size: tuple[int, int], left_out: Counter[str]
) -> Iterator[tuple[str, Any]]:
    """Label and `segmentation` of each object: polygons, or a run-length code where a part is a mask."""
    groups: dict[tuple[str, Any], list[Json]] = defaultdict(list)
    for place, shape in enumerate(shapes):
        group = shape.get("group_id")
        groups[str(shape["label"]), ("alone", place) if group is None else group].append(shape)
    for (label, _), parts in groups.items():
        drawn = [(part, polygon) for part in parts if (polygon := _polygon(part)) is not None]
        masks = [part for part in parts if part.get("shape_type") == "mask"]
        left_out.update(
            p.get("shape_type", "polygon") for p in parts if p not in masks and _polygon(p) is None
        )
        polygons = [polygon for _, polygon in drawn]
        if masks:
            yield label, _united(polygons, masks, size)
        elif polygons:
            yield label, polygons


def _polygon(shape: Json) -> list[float] | None:
    """The outline x0, y0, x1, y1, ... of a shape; None for one without area."""
    points = [(float(x), float(y)) for x, y in shape["points"]]
    # also false for what is no number; a circle beyond all images would be drawn with any number of corners
    if not all(abs(value) <= rle.FARTHEST for point in points for value in point):
        raise ValueError("a point is no number or far outside the image")
    kind = shape.get("shape_type") or "polygon"
    if kind == "rectangle" and len(points) >= 2:
        (x0, y0), (x1, y1) = points[0], points[-1 if len(points) == 2 else 2]
        points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    elif kind == "circle" and len(points) == 2:
        # A polygon less than a pixel away from it, as labelme's own conversion draws it.
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        n = max(int(math.pi / math.acos(1 - 1 / radius)), _CIRCLE) if radius > 1 else _CIRCLE
        angles = np.linspace(0, 2 * math.pi, n, endpoint=False).tolist()
        points = [(x + radius * math.sin(a), y + radius * math.cos(a)) for a in angles]
    elif kind not in _CLOSED or len(points) < 3:
        return None
    return [value for point in points for value in point]


def _united(polygons: list[list[float]], masks: list[Json], size: tuple[int, int]) -> Json:
    height, width = size
    whole = np.zeros(size, bool)
    if polygons:
        whole |= rle.decode(
            rle.from_segmentation(polygons, height=height, width=width), height=height, width=width
        )
    for shape in masks:
        part = _picture(base64.b64decode(shape["mask"]), size)
        x, y = (round(float(v)) for v in shape["points"][0])
        whole[y : y + part.shape[0], x : x + part.shape[1]] |= part > 0
    return {"size": [height, width], "counts": rle.encode(whole)}


def _picture(data: bytes, size: tuple[int, int]) -> np.ndarray[Any, np.dtype[Any]]:
    """The part that a mask fills, [h, w]; one larger than its image is refused before it is decoded."""
    if png.depth_and_colour(data) is None or max(data[16:20], data[20:24]) > max(size).to_bytes(4):
        raise ValueError("a mask is not a PNG that fits into its image")
    part = png.decode_values(data)
    if part is None or part.ndim != 2:
        raise ValueError("a mask is not a grey PNG")
    return part


def _annotation(image: int, label: str, segmentation: Any, size: tuple[int, int]) -> Json:
    """COCO's record of an object without its id, the label in place of the category's."""
    height, width = size
    counts = rle.from_segmentation(segmentation, height=height, width=width)
    box = rle.tight_box(rle.decode(counts, height=height, width=width))
    x0, y0, x1, y1 = box or (0.0, 0.0, -1.0, -1.0)
    area = float(rle.area(counts, height=height, width=width))
    return {
        "image_id": image,
        "category_id": label,
        "segmentation": segmentation,
        "iscrowd": 0,
        "area": area,
        "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1],
    }
