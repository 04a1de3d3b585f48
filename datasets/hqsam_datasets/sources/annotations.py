"""Sources that are images with one annotation file of the COCO family."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from hqsam_base.errors import UserError
from hqsam_base.filenames import folded, visible
from hqsam_base.ids import flag, in_order, plain_id
from hqsam_base.json_stream import PackedRecords, canonical, iterate_members
from hqsam_datasets.fetch.tree import NotHadError, below
from hqsam_datasets.formats.ground_truth import NO_ANNOTATIONS
from hqsam_datasets.formats.manifest import Reject, RejectReason
from hqsam_datasets.sources.base import DataSheet, Pair, Scan, Segmentation, SourceOptions, relative
from hqsam_datasets.sources.own import SUFFIXES, found_single
from hqsam_datasets.sources.skip import Skip

_MIN_COORDINATES = 6
_CURE = "give a file in COCO's instances format"


class AnnotatedImages:
    """Images with instances of a COCO or LVIS file.

    Crowd regions, annotations without a mask and polygons with fewer than three corners are left
    out with a reject; images without any instance are no samples.
    An annotation that cannot be drawn, or an image of another size than the file says, rejects the
    image.

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
        """Return one pair per annotated image; see `base.Source.scan`."""
        if not options.annotations:
            cure = "name the annotation file inside the archive"
            raise UserError(
                "the annotation file is not named",
                file="params.yaml",
                key=f"sources.{name}.annotations",
                cure=cure,
            )
        path = annotation_file(name, root, options.annotations)
        record = _read(path)
        images = _images(record["images"], path)
        rejects: list[Reject] = []
        by_image = _instances(name, record, images, path, rejects, relative(path, root))
        skip = Skip(options.skip)
        places = Places(name, root, path, options)
        pairs = []
        for number, image in sorted(images.items(), key=lambda item: in_order(item[0])):
            stem = PurePosixPath(image.file_name).with_suffix("")
            if str(stem) in skip:
                rejects.append(_reject(name, image.file_name, "known_bad", "listed in skip"))
            elif number not in by_image:
                rejects.append(_reject(name, image.file_name, "no_object", "no usable instance"))
            elif (found := places.find(image.file_name)) is not None:
                masks = tuple(by_image[number])
                pairs.append(
                    Pair(str(stem), found, masks, relative(found, root), relative(path, root))
                )
        places.check()
        skip.check(f"sources.{name}.skip")
        return Scan(tuple(pairs), tuple(rejects))


def annotation_file(name: str, root: Path, wanted: str) -> Path:
    """Return the annotation file of `sources.<name>`."""
    key = f"sources.{name}.annotations"
    try:
        return found_single(root, wanted, key=key)
    except NotHadError:
        raise
    except UserError as error:
        cure = error.cure if error.key == key else "name the annotation file inside the archive"
        raise error.amended(file=root, key=key, cure=cure, steps=()) from None


@dataclass(frozen=True, slots=True)
class _Image:
    """An entry of `images`: a relative path with forward slashes, and the size (height, width) if it says one."""

    file_name: str
    size: tuple[int, int] | None


def _images(records: list[Any], path: Path) -> dict[int | str, _Image]:
    found: dict[int | str, _Image] = {}
    for record in records:
        with _named("image", record, path):
            number, size = plain_id(record["id"]), (record.get("height"), record.get("width"))
            declared = (int(size[0]), int(size[1])) if size[0] and size[1] else None
            image = _Image(file_name(record, path), declared)
        if number in found:
            problem = f"{found[number].file_name} and {image.file_name} have the same id"
            raise UserError(
                problem, file=path, key=f"image {number}", cure="give each image an id of its own"
            )
        found[number] = image
    return found


@contextmanager
def _named(what: str, record: Any, path: Path) -> Iterator[None]:
    """Turn what is wrong with an entry into an error that names it."""
    try:
        yield
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        key = f"{what} {record.get('id') if isinstance(record, dict) else record!r}"[:100]
        problem = f"a malformed entry: {type(error).__name__}: {error}"
        raise UserError(problem, file=path, key=key, cure=_CURE) from error


def _read(path: Path) -> dict[str, Any]:
    """Read the file and pack its annotations: a training set's are gigabytes."""
    problem = "not a COCO-type annotation file"
    record: dict[str, Any] = {}
    packed: list[tuple[int | str, bytes]] = []
    for key, value in iterate_members(path, ("annotations",), problem=problem, cure=_CURE):
        if key != "annotations":
            record[key] = value
        elif value is None:
            record[key] = packed
        else:
            with _named("annotation", value, path):
                packed.append((plain_id(value["id"]), canonical(value)))
    if not isinstance(record.get("images"), list):
        raise UserError(f"{problem}: images is not a list", file=path, cure=_CURE)
    if record.get("annotations") is None:
        raise UserError("the file has no annotations", file=path, cure=NO_ANNOTATIONS)
    if not isinstance(record["annotations"], list):
        raise UserError(f"{problem}: annotations is not a list", file=path, cure=_CURE)
    packed.sort(key=lambda item: in_order(item[0]))
    record["annotations"] = PackedRecords([text for _, text in packed])
    return record


def _instances(
    name: str,
    record: Mapping[str, Any],
    images: Mapping[int | str, _Image],
    path: Path,
    rejects: list[Reject],
    origin: str,
) -> dict[int | str, list[Segmentation]]:
    found: dict[int | str, list[Segmentation]] = {}
    categories: dict[str, str] = {}
    listed = record.get("categories") or []
    if not isinstance(listed, list):
        raise UserError("categories is not a list", file=path, key="categories", cure=_CURE)
    for category in listed:
        with _named("category", category, path):
            categories[str(category["id"])] = str(category["name"])
    for entry in record["annotations"]:
        with _named("annotation", entry, path):
            number, shape = plain_id(entry["image_id"]), entry.get("segmentation")
            why = _unusable(entry, shape, number in images)
            if why is not None:
                rejects.append(_reject(name, f"{origin}#{entry['id']}", *why))
                continue
            name_of = categories.get(str(entry.get("category_id")))
            if isinstance(shape, list):
                shape = [p[: len(p) // 2 * 2] for p in shape if len(p) >= _MIN_COORDINATES]
            what = f"annotation {entry['id']}"
            mask = Segmentation(canonical(shape), name_of, what, images[number].size)
            found.setdefault(number, []).append(mask)
    return found


def _unusable(
    entry: Mapping[str, Any], shape: Any, has_image: bool
) -> tuple[RejectReason, str] | None:
    if not has_image:
        return "invalid_annotation", f"its image {entry['image_id']} is not among the images"
    if flag(entry.get("iscrowd")):
        return "crowd", "a crowd region is no instance"
    if not shape:
        return "no_mask", "segmentation is empty"
    if isinstance(shape, list) and not isinstance(shape[0], list):
        raise ValueError("segmentation must be a list of polygons [[x, y, ...], ...]")
    if isinstance(shape, list) and any(isinstance(p[0], list | dict) for p in shape if p):
        raise ValueError("a polygon must be a flat list [x, y, x, y, ...], not of points")
    if isinstance(shape, list) and all(len(p) < _MIN_COORDINATES for p in shape):
        return "invalid_annotation", "no polygon with three corners"
    return None


def file_name(image: Mapping[str, Any], path: Path) -> str:
    """Return `file_name` of a COCO entry, or the last two parts of LVIS's `coco_url`.

    Never a path that leaves the archive.
    """
    if image.get("file_name"):
        parts = re.split(r"[\\/]+", _without_query(str(image["file_name"])))
    elif image.get("coco_url"):
        parts = _without_query(str(image["coco_url"])).split("/")[-2:]
    else:
        raise UserError(
            "an image has neither file_name nor coco_url",
            file=path,
            key=f"image {image.get('id')}",
            cure=_CURE,
        )
    while ".." in parts:
        parts = parts[parts.index("..") + 1 :]
    return "/".join(part for part in parts if part not in ("", "."))


def _without_query(name: str) -> str:
    """Return an address of a picture without what stands behind its name, such as a signature; else the name."""
    path = urlsplit(name).path if "://" in name else ""
    # Label Studio's addresses have the file's name in the query.
    return path if PurePosixPath(path).suffix else name


class Places:
    """Where the images lie: below `options.images`, else beside the annotation file or at the root.

    A `file_name` is tried whole, then without its first folders: annotation tools write paths of
    their own machine.
    """

    def __init__(self, name: str, root: Path, annotations: Path, options: SourceOptions) -> None:
        self._key = f"sources.{name}.images"
        self._file = annotations
        self._bases = [annotations.parent, root]
        if options.images:
            self._bases = [found_single(root, options.images, key=self._key)]
        self._taken: dict[Path, str] = {}
        self._missing: list[str] = []

    def find(self, file_name: str) -> Path | None:
        """Find the image; None, and an error later, if it is not there."""
        parts = file_name.split("/")
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        paths = [(base, tail) for tail in tails for base in self._bases]
        found = next((base / tail for base, tail in paths if (base / tail).is_file()), None)
        if found is None:  # another case or Unicode form; only now, for it reads whole folders
            folded = (below(base, tail) for base, tail in paths)
            found = next((path for path in folded if path.is_file()), None)
        if found is None:
            self._missing.append(file_name)
        elif found in self._taken:
            problem = (
                f"{self._taken[found]} and {file_name} of the annotation file are one image, "
                f"{found}"
            )
            cure = "join the two entries, or pack the images with their folders"
            raise UserError(problem, file=self._file, key=self._key, cure=cure)
        else:
            self._taken[found] = file_name
        return found

    def check(self) -> None:
        """Stop if images are not there."""
        if not self._missing:
            return
        shown = ", ".join(self._missing[:10]) + (", ..." if len(self._missing) > 10 else "")
        problem = f"{len(self._missing)} annotated image(s) not there: {shown}"
        cure = "name the folder that holds the images, or list the stems under skip"
        like = self._like(PurePosixPath(self._missing[0]).stem)
        if like is not None:
            cure = f"{like} is there: give each image in {self._file.name} the name of its file"
        raise UserError(problem, file=self._bases[0], key=self._key, cure=cure)

    def _like(self, stem: str) -> str | None:
        """A file whose name differs in its extension, in spaces, or in what addresses write for them."""

        def plain(text: str) -> str:
            return re.sub(r"[\s+_-]+", " ", folded(text)).strip()

        files = (path for base in self._bases for path in visible(base.rglob("*")))
        same = (p for p in files if plain(p.stem) == plain(stem) and p.suffix.lower() in SUFFIXES)
        return next((path.relative_to(self._bases[0]).as_posix() for path in same), None)


def _reject(name: str, origin: str, reason: RejectReason, detail: str) -> Reject:
    return Reject(source=name, origin=origin, reason=reason, detail=detail)
