"""What a training source is: a data sheet, and a scan of its extracted archive that pairs images with masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from hqsam_datasets.images import ImageError, MaskEncoding, decode_labels, decode_mask
from hqsam_datasets.manifest import Reject

Kind = Literal["folder", "coco_json", "lvis_json", "label_maps"]


class SourceOptions(BaseModel):
    """A section `sources.<name>` of params.yaml.

    Attributes:
        archive: the archive to read, a key of `archives`.
        expected: number of samples after rejects; a difference stops the run. None: any number but 0 will do.
        drop_known_bad: leave out what the data sheet lists as bad. If false, those are judged like any other file
            (masks of another size are then stretched to the image).
        skip: further file stems to leave out, for bad files that the sheet does not know yet.
        kind: the adapter, if it is not the one called like the section: how one's own data is brought in.
        images, masks: for own data, folders inside the archive.
        annotations: for own data, the annotation file inside the archive.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    archive: str
    expected: int | None = Field(default=None, ge=1)
    drop_known_bad: bool = True
    skip: tuple[str, ...] = ()
    kind: Kind | None = None
    images: str | None = None
    masks: str | None = None
    annotations: str | None = None


@dataclass(frozen=True, slots=True)
class DataSheet:
    """Facts of a data set, as published.

    Attributes:
        title: full name.
        url: where it is described.
        licence: terms in one line; "none stated" where no text was found.
        citation: what to cite.
        n_pairs: image-mask pairs as published.
        layout: folders of the repack and of the original archives.
        checksums: archive file name to SHA-256, where published.
        known_bad: stem to reason; matched without regard to case and punctuation.
        strays: files that belong to no pair, with the reason.
        notes: quirks worth knowing.
    """

    title: str
    url: str
    licence: str
    citation: str
    n_pairs: int
    layout: str
    checksums: Mapping[str, str] = field(default_factory=dict)
    known_bad: Mapping[str, str] = field(default_factory=dict)
    strays: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""


class MaskRef(Protocol):
    """Where one instance's mask is stored, and how to read it."""

    @property
    def category(self) -> str | None:
        """Class name, or None."""

    def load(self, size: tuple[int, int]) -> LoadedMask:
        """Read the mask; `size` is the image's (height, width), for annotations that know none.

        Raises:
            ImageError: with the reject reason.
        """


@dataclass(frozen=True, slots=True)
class LoadedMask:
    """A mask as read: soft uint8 [H, W], how it was encoded, its soft fraction, and its bytes if they can be kept.

    Attributes:
        png: the file's bytes if it is an 8-bit grey PNG with exactly these values, else None.
    """

    mask: NDArray[np.uint8]
    encoding: MaskEncoding
    soft_fraction: float
    png: bytes | None = None


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask that is an image file of its own."""

    path: Path
    category: str | None = None

    def load(self, size: tuple[int, int]) -> LoadedMask:
        """Decode the file by the rules of `hqsam_datasets.images`."""
        data = read_file(self.path, "unreadable_mask")
        found = decode_mask(data)
        plain = data[24:26] == b"\x08\x00" and data[:4] == b"\x89PNG" and found.encoding in ("0/255", "soft")
        return LoadedMask(found.mask, found.encoding, found.soft_fraction, data if plain else None)


@dataclass(frozen=True, slots=True)
class LabelMask:
    """One value of a label map."""

    path: Path
    value: int
    category: str | None = None

    def load(self, size: tuple[int, int]) -> LoadedMask:
        """The pixels of this value, 255."""
        labels = decode_labels(read_file(self.path, "unreadable_mask"))
        return LoadedMask(np.where(labels == self.value, 255, 0).astype(np.uint8), "palette", 0.0)


@dataclass(frozen=True, slots=True)
class Pair:
    """An image with the places of its masks, not yet read.

    Attributes:
        name: what the key is made of: the stem, with folders where stems alone are not unique.
        image: the image file.
        masks: one per instance.
        origin_image: path of the image inside the archive.
        origin_mask: path of the mask or annotation file inside the archive.
        known_bad: why the data sheet lists it, if it does and it was kept nevertheless.
    """

    name: str
    image: Path
    masks: tuple[MaskRef, ...]
    origin_image: str
    origin_mask: str
    known_bad: str | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """What a source's folders hold: the pairs in a fixed order, and what was left out and why."""

    pairs: tuple[Pair, ...]
    rejects: tuple[Reject, ...] = ()
    unmatched_known_bad: tuple[str, ...] = ()


class Source(Protocol):
    """A training source; every file of this folder exposes one as `SOURCE`."""

    @property
    def sheet(self) -> DataSheet:
        """Facts of the data set."""

    def scan(self, name: str, root: Path, options: SourceOptions) -> Scan:
        """List the pairs under the extracted `root` for the section `sources.<name>`; reads no pixels.

        Raises:
            UserError: if the layout is not recognised, or an image has no mask (or the reverse) and neither the
                data sheet nor `options.skip` lists it.
        """


def read_file(path: Path, reason: Literal["unreadable_image", "unreadable_mask"]) -> bytes:
    """The bytes of a file; an ImageError with `reason` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(reason, f"{type(error).__name__}: {error.strerror}") from error


def relative(path: Path, root: Path) -> str:
    """Path inside the archive, with forward slashes."""
    return path.relative_to(root).as_posix()


def iterate_pairs(scan: Scan) -> Iterator[Pair]:
    """The pairs in order."""
    yield from scan.pairs
