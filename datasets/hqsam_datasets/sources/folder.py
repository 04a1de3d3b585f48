"""Own data: a folder of images and a folder of masks, of any common format, with one or several masks per image.

    sources:
      my_birds: {kind: folder, archive: my_birds, images: photos, masks: masks}

An image `<images>/a/b.jpg` takes its mask from `<masks>/a/b.<any>`, or its instances from all files
of the folder
`<masks>/a/b/`. Without `images` and `masks`, the folders `images` and `masks` are looked for. If
both are the same folder, JPEG and WebP files are images and the others masks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_base.filenames import is_hidden, one_form
from hqsam_datasets.fetch.tree import NotHadError, below, find_root, found_below
from hqsam_datasets.formats.manifest import Reject
from hqsam_datasets.sources.base import (
    DataSheet,
    LabelMap,
    MaskFile,
    Pair,
    Scan,
    SourceOptions,
    relative,
)
from hqsam_datasets.sources.own import LOSSY, SUFFIXES, found_single
from hqsam_datasets.sources.skip import Skip

_SHOWN = 10

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
        masks = _by_stem(
            mask_dir, tuple(s for s in SUFFIXES if s not in LOSSY) if shared else SUFFIXES
        )
        skip = Skip(options.skip)
        reference: type[LabelMap] | type[MaskFile] = LabelMap if self._label_maps else MaskFile
        pairs, rejects, used, orphans = [], [], set(), {}
        masks_of = mask_finder(masks)
        for stem, image in sorted(images.items()):
            files = masks_of(stem)
            used.update(files)
            if stem in skip:
                rejects.append(_skipped(name, relative(image, root)))
                continue
            left_out = [f for f in files if skip.names(f)]
            rejects += [_skipped(name, relative(masks[f], root)) for f in left_out]
            files = [f for f in files if f not in left_out]
            if not files:
                orphans[image] = f"has no mask {mask_dir / stem}.png"
            else:
                paths = [masks[f] for f in files]
                origins = relative(image, root), relative(paths[0], root)
                pairs.append(Pair(stem, image, tuple(reference(p) for p in paths), *origins))
        for stem in sorted(masks.keys() - used):
            if stem not in skip:
                orphans[masks[stem]] = f"has no image {image_dir / stem}.jpg"
            rejects.append(_skipped(name, relative(masks[stem], root)))
        _check_orphans(name, orphans, shared)
        skip.check(f"sources.{name}.skip")
        return Scan(tuple(pairs), tuple(rejects))

    def _folders(self, name: str, root: Path, options: SourceOptions) -> tuple[Path, Path]:
        image_dir, mask_dir = options.images or "images", options.masks or "masks"
        try:
            base, images = find_root(root, image_dir), found_below(root, image_dir)
            masks = below(base, mask_dir)
            found = images, masks if masks.is_dir() else found_below(root, mask_dir)
        except NotHadError:
            raise
        except UserError as error:
            cure = f"set images and masks under sources.{name} to folders of the archive"
            raise error.amended(file=root, key=f"sources.{name}", cure=cure, steps=()) from None
        found_single(root, image_dir, key=f"sources.{name}.images")
        return found


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """List files by their path below `folder` without extension; hidden ones are left out.

    Raises:
        UserError: if two files have the same stem: which one counts would be a guess.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        hidden = any(is_hidden(part) for part in inner.parts)
        if path.suffix.lower() not in suffixes or hidden or path.is_dir():
            continue
        stem = stem_of(inner)
        if stem in found:
            cure = "keep one of them"
            raise UserError(
                f"{found[stem].name} and {path.name} have the same stem",
                file=path,
                key=stem,
                cure=cure,
            )
        found[stem] = path
    return found


def stem_of(inner: Path) -> str:
    """Return what pairs an image with its masks: the path below the folder without extension, in one Unicode form.

    macOS writes `ö` as two characters, most others as one: a mask made on another system must still
    be found.
    """
    return one_form(inner.with_suffix("").as_posix())


def mask_finder(masks: Collection[str]) -> Callable[[str], list[str]]:
    """Return the stems of an image's masks: the same one, or else all in the folder of that name."""
    by_folder: dict[str, list[str]] = {}
    for stem in sorted(masks):
        by_folder.setdefault(stem.rpartition("/")[0], []).append(stem)
    return lambda stem: [stem] if stem in masks else by_folder.get(stem, [])


def _skipped(name: str, origin: str) -> Reject:
    return Reject(source=name, origin=origin, reason="known_bad", detail="listed in skip")


def _check_orphans(name: str, orphans: Mapping[Path, str], shared: bool) -> None:
    """Stop on files without partner."""
    if not orphans:
        return
    lines = [f"{path} {problem}" for path, problem in orphans.items()]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    cure = "add the missing files, or list their stems under this key to leave them out"
    if shared:
        cure += "; in one folder for both only JPEG and WebP files are images"
    raise UserError(
        f"{len(lines)} files of {name} have no partner:",
        details=[*lines[:_SHOWN], *more],
        file=next(iter(orphans)),
        key=f"sources.{name}.skip",
        cure=cure,
    )


SOURCE = AnyFolder(SHEET)
