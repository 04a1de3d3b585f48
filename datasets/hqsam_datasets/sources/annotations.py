"""Sources that are images with one annotation file of the COCO family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hqsam_datasets.errors import UserError
from hqsam_datasets.extract import find_root
from hqsam_datasets.json_stream import PackedRecords, canonical, iterate_members
from hqsam_datasets.manifest import Reject, RejectReason
from hqsam_datasets.sources.base import DataSheet, Pair, Scan, Segmentation, SourceOptions, relative
from hqsam_datasets.sources.folders import normal_name

_MIN_COORDINATES = 6


class AnnotatedImages:
    """Images with instances of a COCO or LVIS file.

    Crowd regions and polygons with fewer than three corners are left out with a reject; images without any instance
    are no samples.

    Args:
        sheet: the data sheet.
    """

    def __init__(self, sheet: DataSheet) -> None:
        self._sheet = sheet

    @property
    def sheet(self) -> DataSheet:
        """Facts of the data set."""
        return self._sheet

    def scan(self, name: str, root: Path, options: SourceOptions) -> Scan:
        """One pair per annotated image; see `base.Source.scan`."""
        if not options.annotations:
            cure = "name the annotation file inside the archive"
            raise UserError(
                "the annotation file is not named", file="params.yaml", key=f"sources.{name}.annotations", cure=cure
            )
        path = find_root(root, options.annotations) / options.annotations
        try:
            return _scan(name, root, path, options)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            cure = "give a file in COCO's instances format"
            raise UserError(f"a malformed entry: {type(error).__name__}: {error}", file=path, cure=cure) from error


def _scan(name: str, root: Path, path: Path, options: SourceOptions) -> Scan:
    record = _read(path)
    categories = {int(c["id"]): str(c["name"]) for c in record.get("categories", ())}
    rejects: list[Reject] = []
    by_image = _instances(name, record, categories, rejects, relative(path, root))
    skip = {normal_name(stem) for stem in options.skip}
    pairs = []
    for image in sorted(record["images"], key=lambda entry: int(entry["id"])):
        file_name = _file_name(image, path)
        if not by_image.get(int(image["id"])) or normal_name(Path(file_name).stem) in skip:
            why = "no usable instance" if not by_image.get(int(image["id"])) else "listed in skip"
            rejects.append(_reject(name, file_name, "missing_mask" if why[0] == "n" else "known_bad", why))
            continue
        found = _image_path(name, root, file_name, options)
        stem = Path(file_name).with_suffix("").as_posix()
        masks = tuple(by_image[int(image["id"])])
        pairs.append(Pair(stem, found, masks, relative(found, root), relative(path, root)))
    return Scan(tuple(pairs), tuple(rejects))


def _read(path: Path) -> dict[str, Any]:
    """The file with its annotations packed: a training set's are gigabytes."""
    cure, problem = "give a file in COCO's instances format", "not a COCO-type annotation file"
    record: dict[str, Any] = {}
    packed: list[tuple[int, bytes]] = []
    for key, value in iterate_members(path, ("annotations",), problem=problem, cure=cure):
        if key != "annotations":
            record[key] = value
        elif value is None:
            record[key] = packed
        else:
            packed.append((int(value["id"]), canonical(value)))
    for key in ("images", "annotations"):
        if not isinstance(record.get(key), list):
            raise UserError(f"{problem}: {key} is no list", file=path, cure=cure)
    packed.sort(key=lambda item: item[0])
    record["annotations"] = PackedRecords([text for _, text in packed])
    return record


def _instances(
    name: str, record: Mapping[str, Any], categories: Mapping[int, str], rejects: list[Reject], origin: str
) -> dict[int, list[Segmentation]]:
    found: dict[int, list[Segmentation]] = {}
    for entry in record["annotations"]:
        where = f"{origin}#{entry['id']}"
        shape = entry.get("segmentation")
        if entry.get("iscrowd"):
            rejects.append(_reject(name, where, "invalid_annotation", "a crowd region is no instance"))
        elif not shape or (isinstance(shape, list) and all(len(p) < _MIN_COORDINATES for p in shape)):
            rejects.append(_reject(name, where, "invalid_annotation", "no polygon with three corners"))
        else:
            category = categories.get(int(entry.get("category_id", -1)))
            found.setdefault(int(entry["image_id"]), []).append(Segmentation(canonical(_usable(shape)), category))
    return found


def _usable(shape: Any) -> Any:
    return [p for p in shape if len(p) >= _MIN_COORDINATES] if isinstance(shape, list) else shape


def _file_name(image: Mapping[str, Any], path: Path) -> str:
    """`file_name` of a COCO entry; LVIS has none: the last two parts of `coco_url`."""
    if image.get("file_name"):
        return str(image["file_name"])
    if image.get("coco_url"):
        return "/".join(str(image["coco_url"]).split("/")[-2:])
    raise UserError("an image has neither file_name nor coco_url", file=path, key=str(image.get("id")))


def _image_path(name: str, root: Path, file_name: str, options: SourceOptions) -> Path:
    """The file below `options.images` (or anywhere near the root), with and without the folder in its name."""
    bases = [find_root(root, options.images) / options.images] if options.images else [root]
    for candidate in dict.fromkeys((file_name, Path(file_name).name)):
        for base in bases:
            if (base / candidate).is_file():
                return base / candidate
    raise UserError(
        f"the annotated image {file_name} is not there",
        file=bases[0],
        key=f"sources.{name}.images",
        cure="name the folder that holds the images, or list the stem under skip",
    )


def _reject(name: str, origin: str, reason: RejectReason, detail: str) -> Reject:
    return Reject(source=name, origin=origin, reason=reason, detail=detail)
