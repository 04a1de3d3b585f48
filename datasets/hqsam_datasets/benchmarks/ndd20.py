"""NDD20, the Northumberland Dolphin Dataset: 2,201 photographs taken above and as many taken below the water.

Source: Trotter et al., 2020, doi 10.25405/data.ncl.c.4982342. Licence: CC BY-NC-SA 4.0. Layout of
`NDD20.zip`:
`ABOVE/`, `BELOW/` with the images, `ABOVE_LABELS.json`, `BELOW_LABELS.json` in the VIA format: per
file `regions` with polygons (`all_points_x`, `all_points_y`). Known bad files: none; polygons of
fewer than three points occur, are not objects and are left out. The paper shows pictures of this set
and no numbers: every polygon is an object of its own, prompted by its box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks.base import Content, Item, Kind, Prompt, Truth
from hqsam_datasets.benchmarks.cocolike import field, inside, read_json
from hqsam_datasets.benchmarks.common import box_prompt
from hqsam_datasets.fetch.tree import below, found_below
from hqsam_datasets.formats.image_files import ImageError, probe
from hqsam_datasets.sample import make_key

_CURE = "fetch the file again, or fix the record"
Json = dict[str, Any]
_PARTS = ("ABOVE", "BELOW")


@dataclass(frozen=True)
class Ndd20:
    """Both parts of NDD20."""

    name: str = "ndd20"
    kind: Kind = "masks"
    dataset_version: str = "NDD20"
    class_agnostic: bool = True

    def read(self, root: Path) -> Content:
        """Every annotated photograph with its polygons."""
        files = []
        for part in _PARTS:
            labels = f"{part}_LABELS.json"
            path = found_below(root, labels, depth=4)
            images = _images(read_json(path, dict), path)
            for image in images:
                stem = Path(inside(image, "filename", path)).stem
                files.append((make_key(self.name, f"{part}-{stem}"), path, part, image))
        return Content(items=self._items(sorted(files, key=lambda f: f[0])), n_images=len(files))

    def _items(self, files: list[tuple[str, Path, str, Json]]) -> Iterator[Item]:
        for number, (key, labels, part, image) in enumerate(files, start=1):
            path = below(labels.parent, f"{part}/{image['filename']}")
            try:  # from the file's header: the labels do not say it
                height, width = probe(path.read_bytes()).upright_size
            except FileNotFoundError:
                cure = "fetch the archive again"
                raise UserError("the image does not exist", file=path, key=key, cure=cure) from None
            except ImageError as error:
                raise UserError(f"the image cannot be used: {error}", file=path, key=key) from error
            truths, prompts = _objects(key, _polygons(image, labels), (height, width), labels)
            yield Item(
                key=key,
                path=path,
                image_id=number,
                height=height,
                width=width,
                truths=truths,
                prompts=prompts,
            )


def _images(labels: Json, path: Path) -> list[Json]:
    """The entries of a VIA file: a project with its settings, or the entries alone."""
    entries = labels.get("_via_img_metadata", labels)
    if not isinstance(entries, dict) or not all(
        isinstance(entry, dict) for entry in entries.values()
    ):
        raise UserError(
            "not a VIA file: its top level is not a mapping of image entries",
            file=path,
            cure=_CURE,
        )
    return list(entries.values())


def _polygons(image: Json, path: Path) -> list[list[float]]:
    """x0, y0, x1, y1, ... of each region; one of fewer than three points (empty here) is not an object."""
    regions = field(image, "regions", path)
    try:
        shapes = [
            region["shape_attributes"]
            for region in (regions.values() if isinstance(regions, dict) else regions)
        ]
        points = [
            (shape.get("all_points_x", []), shape.get("all_points_y", [])) for shape in shapes
        ]
        whole = [(xs, ys) if len(xs) == len(ys) > 2 else ((), ()) for xs, ys in points]
        return [[float(v) for point in zip(xs, ys, strict=True) for v in point] for xs, ys in whole]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"bad region: {error!r}", file=path, key=str(image.get("filename")), cure=_CURE
        ) from error


def _objects(
    key: str, polygons: list[list[float]], size: tuple[int, int], path: Path
) -> tuple[tuple[Truth, ...], tuple[Prompt, ...]]:
    truths, prompts = [], []
    height, width = size
    for place, polygon in enumerate(polygons):
        if not polygon:
            continue
        try:
            counts = rle.from_segmentation([polygon], height=height, width=width)
        except ValueError as error:
            raise UserError(
                f"bad region: {error}", file=path, key=f"{key}, region {place}", cure=_CURE
            ) from error
        box = rle.tight_box(rle.decode(counts, height=height, width=width))
        if box is not None:
            name = f"{key}-{place:03d}"
            area = float(rle.area(counts, height=height, width=width))
            truths.append(Truth(instance_id=name, rle=counts, area=area))
            prompts.append(box_prompt(f"{name}-box", box, name))
    return tuple(truths), tuple(prompts)


BENCHMARK = Ndd20()
