"""Sources that are folders of images and folders of masks with equal stems: all six of the paper are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_base.texts import read_lines
from hqsam_datasets.fetch.tree import (
    below,
    find_root,
    found_below,
    has_files,
    list_files,
    packed_inside,
)
from hqsam_datasets.formats.manifest import Reject, RejectReason
from hqsam_datasets.sources.base import DataSheet, MaskFile, Pair, Scan, SourceOptions, relative

IMAGE_SUFFIXES = (".jpg",)
MASK_SUFFIXES = (".png",)


@dataclass(frozen=True, slots=True)
class Part:
    """A folder of images and the folder of their masks (the same one, or another), relative to the data's root.

    Attributes:
        images: folder of the images.
        masks: folder of the masks.
        listing: text file that names, one a line and with any extension, the stems that count;
            None: all.
        nested: images lie one folder deeper, in class folders.
    """

    images: str
    masks: str
    listing: str | None = None
    nested: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which the data set is published: all parts must be there."""

    parts: tuple[Part, ...]
    marker: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Paths that identify the layout."""
        if self.marker is not None:
            return (self.marker,)
        paths = (path for part in self.parts for path in (part.images, part.masks, part.listing))
        return tuple(dict.fromkeys(path for path in paths if path is not None))


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of one part: stem to path, of images and of masks, and everything else."""

    image_dir: Path
    mask_dir: Path
    nested: bool
    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    others: tuple[Path, ...]
    wanted: frozenset[str] | None
    listing: Path | None

    def partner(self, stem: str, image_is_missing: bool) -> Path:
        """Return where the missing half of a pair should be."""
        if image_is_missing:
            return self.image_dir / f"{stem}{IMAGE_SUFFIXES[0]}"
        return self.mask_dir / f"{stem}{MASK_SUFFIXES[0]}"


class FolderSource:
    """A source of paired files.

    Args:
        sheet: the data sheet.
        layouts: the ways in which it is published, most specific first; the first one found is
            read.
    """

    def __init__(self, sheet: DataSheet, layouts: tuple[Layout, ...]) -> None:
        self._sheet = sheet
        self._layouts = layouts

    @property
    def sheet(self) -> DataSheet:
        """Facts of the data set."""
        return self._sheet

    def scan(self, name: str, root: Path, options: SourceOptions) -> Scan:
        """Pair images with masks by stem, strictly; see `base.Source.scan`."""
        # A published set lies where its authors put it: keys of own data would be ignored.
        for key in ("images", "masks", "annotations"):
            if getattr(options, key) is not None:
                cure = f"remove {key}, or say `kind: folder` if these are files of your own"
                raise UserError(
                    "only own data have this key; this set's folders are known",
                    file="params.yaml",
                    key=f"sources.{name}.{key}",
                    cure=cure,
                )
        layout, places = self._find(name, root)
        rules = _Rules(name, self._sheet, options)
        pairs: list[Pair] = []
        for part in layout.parts:
            pairs.extend(_pairs_of(_files_of(places, part), root, rules))
        rules.check_orphans()
        return Scan(tuple(pairs), tuple(rules.rejects), rules.unmatched())

    def _find(self, name: str, root: Path) -> tuple[Layout, dict[str, Path]]:
        found: list[tuple[Layout, dict[str, Path]]] = []
        for any_case, layout in itertools.product((False, True), self._layouts):
            if (places := _resolved(root, layout, any_case)) is not None:
                if layout.marker is not None or all(
                    has_files(places[part.images], IMAGE_SUFFIXES) for part in layout.parts
                ):
                    return layout, places
                found.append((layout, places))
        if found:  # the flat layout of one archive is the empty outer folder of another's
            return found[0]
        expected = ", or ".join(" + ".join(layout.needs) for layout in self._layouts)
        there = (
            ", ".join(sorted(path.name for path in root.iterdir())[:20])
            if root.is_dir()
            else "nothing"
        )
        raise UserError(
            f"the archive holds {there}; {name} needs {expected}",
            file=root,
            key=f"sources.{name}.archive",
            cure=packed_inside(root) or "name the archive that the data sheet describes",
        )


class _Rules:
    """Decides about files that are no clean pair, and remembers what it decided."""

    def __init__(self, name: str, sheet: DataSheet, options: SourceOptions) -> None:
        self._name = name
        self._known_bad = {normal_name(stem): why for stem, why in sheet.known_bad.items()}
        self._spelled = {
            way: normal_name(stem) for stem in sheet.known_bad for way in _spellings(stem)
        }
        self._strays = {normal_name(stem): why for stem, why in sheet.strays.items()}
        self._stray_suffixes = {
            stem.removeprefix("*"): why for stem, why in sheet.strays.items() if stem[0] == "*"
        }
        self._skip = {normal_name(stem) for stem in options.skip}
        self._drop = options.drop_known_bad
        self._met: set[str] = set()
        self._orphans: list[tuple[Path, str]] = []
        self.rejects: list[Reject] = []

    def drops(self, stem: str, origin: str) -> bool:
        """Return whether this pair is left out, and note the reject."""
        plain = normal_name(stem)
        if (bad := self._spelled.get(plain)) is not None:
            self._met.add(bad)
            if self._drop:
                self.reject(origin, "known_bad", self._known_bad[bad])
                return True
        if plain in self._skip:
            self.reject(origin, "known_bad", "listed in skip")
            return True
        return False

    def why_bad(self, stem: str) -> str | None:
        """Return what the data sheet says against this stem."""
        bad = self._spelled.get(normal_name(stem))
        return None if bad is None else self._known_bad[bad]

    def orphan(self, path: Path, stem: str, origin: str, missing: Path | None) -> None:
        """Note a file without partner: stray or bad where the sheet or `skip` lists it, else an error later."""
        why = self._strays.get(normal_name(stem + path.suffix)) or self._stray_suffixes.get(
            path.suffix
        )
        if why is not None:
            self.reject(origin, "stray_file", why)
        elif not self.drops(stem, origin):
            self._orphans.append(
                (path, f"has no {missing}" if missing else "is neither image nor mask of a pair")
            )

    def absent(self, path: Path, stem: str, listing: Path) -> None:
        """Note an image of the set's own list that is not there: an error later unless the sheet or `skip` lists it."""
        if not self.drops(stem, path.name):
            self._orphans.append((path, f"is named in {listing} and is not there"))

    def reject(self, origin: str, reason: RejectReason, detail: str) -> None:
        """Note one file that is left out."""
        self.rejects.append(Reject(source=self._name, origin=origin, reason=reason, detail=detail))

    def check_orphans(self) -> None:
        """Stop on files without partner that nothing lists."""
        if not self._orphans:
            return
        shown = [f"{path} {what}" for path, what in self._orphans[:10]]
        more = [f"and {len(self._orphans) - 10} more"] if len(self._orphans) > 10 else []
        raise UserError(
            f"{len(self._orphans)} files of {self._name} have no partner:",
            details=[*shown, *more],
            file=self._orphans[0][0],
            key=f"sources.{self._name}.skip",
            cure="fetch the archive again, or list the stems under this key to leave them out",
        )

    def unmatched(self) -> tuple[str, ...]:
        """Return known bad stems that no file had: the archive names its files differently, or was cleaned."""
        return tuple(sorted(set(self._known_bad) - self._met))


def normal_name(stem: str) -> str:
    """Return a stem without case and punctuation: `bamboo_slip/7`, `bamboo_slip_7` and `bamboo-slip-7` are one."""
    return re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")


def _spellings(stem: str) -> set[str]:
    """Return how a flat repack may spell `bamboo_slip/7`.

    A name without folder has one spelling.
    """
    folder, _, name = stem.rpartition("/")
    ways = (
        (f"{folder}/{name}", f"{folder}{name}", f"{name}/{folder}", f"{name}{folder}")
        if folder
        else (stem,)
    )
    return {normal_name(way) for way in ways}


def _pairs_of(files: _Files, root: Path, rules: _Rules) -> Iterator[Pair]:
    for stem in sorted(files.images.keys() | files.masks.keys()):
        image, mask = files.images.get(stem), files.masks.get(stem)
        if files.wanted is not None and stem not in files.wanted:
            continue  # another split of the same folder
        if image is None or mask is None:
            present = image or mask
            assert present is not None
            rules.orphan(present, stem, relative(present, root), files.partner(stem, image is None))
        elif not rules.drops(stem, origin := relative(image, root)):
            yield Pair(
                name=stem,
                image=image,
                masks=(MaskFile(mask),),
                origin_image=origin,
                origin_mask=relative(mask, root),
                known_bad=rules.why_bad(stem),
            )
    for path in files.others:
        rules.orphan(path, _stem_of(path, files.nested), relative(path, root), None)
    if files.wanted is not None and files.listing is not None:
        for stem in sorted(files.wanted - files.images.keys() - files.masks.keys()):
            rules.absent(files.partner(stem, True), stem, files.listing)


def _files_of(places: Mapping[str, Path], part: Part) -> _Files:
    image_dir, mask_dir = places[part.images], places[part.masks]
    shared = image_dir == mask_dir
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    others: list[Path] = []
    found = _listed(image_dir, part.nested)
    for path in found:
        if path.name.endswith(IMAGE_SUFFIXES):
            images[_stem_of(path, part.nested)] = path
        elif not (shared and path.name.endswith(MASK_SUFFIXES)):
            others.append(path)
    for path in found if shared else _listed(mask_dir, part.nested):
        if path.name.endswith(MASK_SUFFIXES):
            masks[_stem_of(path, part.nested)] = path
        elif not shared:
            others.append(path)
    listing = places[part.listing] if part.listing else None
    wanted = None if listing is None else frozenset(Path(line).stem for line in read_lines(listing))
    return _Files(image_dir, mask_dir, part.nested, images, masks, tuple(others), wanted, listing)


def _listed(folder: Path, nested: bool) -> list[Path]:
    if not nested:
        return list_files(folder)
    classes = sorted(child for child in folder.iterdir() if child.is_dir())
    return [path for child in classes for path in list_files(child)]


def _stem_of(path: Path, nested: bool) -> str:
    return f"{path.parent.name}/{path.stem}" if nested else path.stem


def _resolved(root: Path, layout: Layout, any_case: bool) -> dict[str, Path] | None:
    """Return where each path of the layout lies: together if possible, else anywhere (archives of several files)."""
    try:
        base = find_root(root, layout.needs[0], any_case=any_case)
        if layout.marker is not None:
            return {".": base}
        places = {}
        for path in layout.needs:
            near = below(base, path) if any_case else base / path
            places[path] = near if near.exists() else found_below(root, path, any_case=any_case)
        return places
    except UserError:
        return None
