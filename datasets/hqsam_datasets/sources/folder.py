"""Own data: a folder of images and a folder of masks, of any common format, with one or several masks per image.

    sources:
      my_birds: {kind: folder, archive: my_birds, images: photos, masks: masks}

An image `<images>/a/b.jpg` takes its mask from `<masks>/a/b.<any>`, or its instances from all files of the folder
`<masks>/a/b/`. Without `images` and `masks`, the folders `images` and `masks` are looked for. If both are the same
folder, JPEG files are images and the others masks.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

from hqsam_datasets.errors import UserError
from hqsam_datasets.extract import find_root
from hqsam_datasets.manifest import Reject
from hqsam_datasets.sources.base import DataSheet, LabelMap, MaskFile, MaskRef, Pair, Scan, SourceOptions, relative
from hqsam_datasets.sources.folders import normal_name

LOSSY = (".jpg", ".jpeg", ".webp")
SUFFIXES = (*LOSSY, ".png", ".bmp", ".tif", ".tiff", ".gif")

SHEET = DataSheet(
    title="a folder of images and a folder of masks",
    url="",
    licence="the user's own",
    citation="",
    n_pairs=0,
    layout=__doc__ or "",
)


class AnyFolder:
    """Pairs of files under two folders; see the module's docstring.

    Args:
        sheet: the data sheet.
        label_maps: whether a mask file is a map of labels instead of one mask.
    """

    def __init__(self, sheet: DataSheet, *, label_maps: bool = False) -> None:
        self._sheet = sheet
        self._label_maps = label_maps

    @property
    def sheet(self) -> DataSheet:
        """Facts of the data set."""
        return self._sheet

    def scan(self, name: str, root: Path, options: SourceOptions) -> Scan:
        """Pair images with masks by path; see `base.Source.scan`."""
        image_dir, mask_dir = self._folders(name, root, options)
        shared = image_dir == mask_dir
        images = _by_stem(image_dir, LOSSY if shared else SUFFIXES)
        masks = _by_stem(mask_dir, tuple(s for s in SUFFIXES if s not in LOSSY) if shared else SUFFIXES)
        skip = {normal_name(stem) for stem in options.skip}
        pairs, rejects, used = [], [], set()
        for stem, image in sorted(images.items()):
            files = masks_of(stem, masks)
            used.update(files)
            if normal_name(stem) in skip:
                rejects.append(_skipped(name, relative(image, root)))
            elif not files:
                raise _orphan(name, stem, image, f"has no mask {mask_dir / stem}.png")
            else:
                pairs.append(self._pair(stem, image, [masks[f] for f in files], root))
        for stem in sorted(masks.keys() - used):
            if normal_name(stem) not in skip:
                raise _orphan(name, stem, masks[stem], f"has no image {image_dir / stem}.jpg")
            rejects.append(_skipped(name, relative(masks[stem], root)))
        return Scan(tuple(pairs), tuple(rejects))

    def _folders(self, name: str, root: Path, options: SourceOptions) -> tuple[Path, Path]:
        image_dir, mask_dir = options.images or "images", options.masks or "masks"
        try:
            base = find_root(root, image_dir)
            found = base / image_dir, base / mask_dir
            if not found[1].is_dir():
                found = found[0], find_root(root, mask_dir) / mask_dir
        except UserError as error:
            cure = f"set images and masks under sources.{name} to folders of the archive"
            raise UserError(error.problem, file=root, key=f"sources.{name}", cure=cure) from None
        return found

    def _pair(self, stem: str, image: Path, masks: list[Path], root: Path) -> Pair:
        reference: type[LabelMap] | type[MaskFile] = LabelMap if self._label_maps else MaskFile
        references: tuple[MaskRef, ...] = tuple(reference(path) for path in masks)
        return Pair(stem, image, references, relative(image, root), relative(masks[0], root))


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files by their path below `folder` without extension; hidden ones are left out.

    Raises:
        UserError: if two files have the same stem: which one counts would be a guess.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.suffix.lower() not in suffixes or any(part.startswith(".") for part in inner.parts):
            continue
        stem = stem_of(inner)
        if stem in found:
            cure = "keep one of them"
            raise UserError(f"{found[stem].name} and {path.name} have the same stem", file=path, key=stem, cure=cure)
        found[stem] = path
    return found


def stem_of(inner: Path) -> str:
    """What pairs an image with its masks: the path below the folder without extension, in one Unicode form.

    macOS writes `ö` as two characters, most others as one: a mask made on another system must still be found.
    """
    return unicodedata.normalize("NFC", inner.with_suffix("").as_posix())


def masks_of(stem: str, masks: Mapping[str, object]) -> list[str]:
    """The stems of an image's masks: the same one, or else all in the folder of that name."""
    if stem in masks:
        return [stem]
    return sorted(other for other in masks if other.rpartition("/")[0] == stem)


def _skipped(name: str, origin: str) -> Reject:
    return Reject(source=name, origin=origin, reason="known_bad", detail="listed in skip")


def _orphan(name: str, stem: str, path: Path, problem: str) -> UserError:
    cure = f"add the missing file, or list the stem {stem!r} under this key to leave it out"
    return UserError(f"{path} {problem}", file=path, key=f"sources.{name}.skip", cure=cure)


SOURCE = AnyFolder(SHEET)
