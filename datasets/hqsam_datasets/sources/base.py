"""What a training source is: a data sheet, and a scan of its extracted archive that pairs images with masks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hqsam_base import rle
from hqsam_datasets.formats.image_files import ImageError
from hqsam_datasets.formats.manifest import Reject
from hqsam_datasets.formats.masks import MaskEncoding, decode_labels, decode_mask, histogram


def _inside(value: str) -> str:
    if (
        not value.strip("/")
        or value.startswith(("/", "~"))
        or ".." in value.split("/")
        or "\\" in value
    ):
        raise ValueError(
            f"{value!r} is not a path inside the archive, as photos or train/photos would be"
        )
    return value.rstrip("/")


InnerPath = Annotated[str, AfterValidator(_inside)]
"""A path inside an archive."""


class SourceOptions(BaseModel):
    """A section `sources.<name>` of params.yaml.

    Attributes:
        archive: the archive to read, a key of `archives`.
        expected: number of samples after rejects; a difference stops the run. None: any number but
            0 will do.
        drop_known_bad: leave out what the data sheet lists as bad. If false, those are judged like
            any other file (masks of another size are then stretched to the image).
        skip: further file stems to leave out, for bad files that the sheet does not list yet.
        kind: the file of this folder that reads the archive: the set's own (`ecssd`), or `folder`,
            `label_maps`, `coco_json`,
            `lvis_json` for own data. Every section of params.yaml names it, because DVC reads the
            section's code dependency here; None, for use without DVC: the file named like the
            section.
        images: for own data, the folder of the images inside the archive.
        masks: for own data, the folder of the masks (it may be the same).
        annotations: for own data, the annotation file inside the archive.
        limit: take at most this many images, chosen by a hash of their names: a subset of a large
            set.
        max_instances: take at most this many instances of an image, chosen by a hash (SA-1B only).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    archive: str
    expected: int | None = Field(default=None, ge=1)
    drop_known_bad: bool = True
    skip: tuple[str, ...] = ()
    kind: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    images: InnerPath | None = None
    masks: InnerPath | None = None
    annotations: InnerPath | None = None
    limit: int | None = Field(default=None, ge=1)
    max_instances: int = Field(default=1, ge=1)


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
        strays: files that belong to no pair, with the reason; `*.jpeg`: any that ends so and has no
            partner.
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


@dataclass(frozen=True, slots=True)
class LoadedMask:
    """One instance's mask as read.

    Attributes:
        mask: soft uint8 [H, W], 0..255.
        encoding: how it was encoded.
        soft_fraction: fraction of pixels that are neither 0 nor 255.
        category: class name, or None.
        png: the file's bytes if it is an 8-bit grey PNG with exactly these values, else None.
    """

    mask: NDArray[np.uint8]
    encoding: MaskEncoding
    soft_fraction: float = 0.0
    category: str | None = None
    png: bytes | None = None


class MaskRef(Protocol):
    """Where masks are stored, and how to read them."""

    def load(self, size: tuple[int, int]) -> Iterable[LoadedMask]:
        """Read the masks, one at a time where they are many; `size` is the image's (height, width), for annotations that know none.

        Raises:
            ImageError: with the reject reason.
        """


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask that is an image file of its own."""

    path: Path
    category: str | None = None

    def load(self, size: tuple[int, int]) -> list[LoadedMask]:
        """Decode the file by the rules of `hqsam_datasets.formats.masks`."""
        data = read_file(self.path, "unreadable_mask")
        found = decode_mask(data)
        plain = (
            data[24:26] == b"\x08\x00"
            and data[:4] == b"\x89PNG"
            and found.encoding in ("0/255", "soft")
        )
        png = data if plain else None
        return [LoadedMask(found.mask, found.encoding, found.soft_fraction, self.category, png)]


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A map of labels: one instance for each value but 0 (background) and 255 (void)."""

    path: Path

    def load(self, size: tuple[int, int]) -> Iterator[LoadedMask]:
        """Yield one mask per label, in ascending order; the label is the category."""
        labels = decode_labels(read_file(self.path, "unreadable_mask"))
        values = [int(value) for value in np.flatnonzero(histogram(labels)) if 0 < value < 255]
        if not values:
            raise ImageError("empty_mask", "no label but 0 and 255")
        for value in values:
            yield LoadedMask(
                (labels == value).view(np.uint8) * np.uint8(255), "palette", 0.0, str(value)
            )


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A polygon or run-length mask of a COCO-type annotation.

    Attributes:
        value: the `segmentation` entry, or that as JSON text.
        category: class name, or None.
        name: what rejects call it.
        size: (height, width) of the image as the annotation file says, which the mask was drawn on;
            None: it does not say.
    """

    value: Any
    category: str | None = None
    name: str = "annotation"
    size: tuple[int, int] | None = None

    def load(self, size: tuple[int, int]) -> list[LoadedMask]:
        """Rasterise at the size that the mask was drawn on, as pycocotools does."""
        height, width = self.size or size
        if (height, width) not in (
            size,
            size[::-1],
        ):  # swapped: drawn on a photograph as it is stored, turned
            detail = f"image {size[1]}x{size[0]}, the annotation file says {width}x{height}"
            raise ImageError("size_mismatch", detail)
        try:
            value = json.loads(self.value) if isinstance(self.value, bytes) else self.value
            counts = rle.from_segmentation(value, height=height, width=width)
            mask = rle.decode(counts, height=height, width=width)
        except (
            Exception
        ) as error:  # malformed annotations fail in many ways inside the C code's wrapper
            raise ImageError(
                "invalid_annotation", f"{self.name}: {type(error).__name__}: {error}"
            ) from error
        return [LoadedMask(mask.astype(np.uint8) * np.uint8(255), "0/255", 0.0, self.category)]


@dataclass(frozen=True, slots=True)
class Pair:
    """An image with the places of its masks, not yet read.

    Attributes:
        name: what the key is made of: the stem, with folders where stems alone are not unique.
        image: the image file.
        masks: where the masks are; one reference may hold several instances.
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


@runtime_checkable
class Source(Protocol):
    """A training source; every file of this folder exposes one as `SOURCE`."""

    @property
    def sheet(self) -> DataSheet:
        """Facts of the data set."""

    def scan(self, name: str, root: Path, options: SourceOptions) -> Scan:
        """List the pairs under the extracted `root` for the section `sources.<name>`; reads no pixels.

        Raises:
            UserError: if the layout is not recognised, or an image has no mask (or the reverse) and
                neither the data sheet nor `options.skip` lists it.
        """


def read_file(path: Path, reason: Literal["unreadable_image", "unreadable_mask"]) -> bytes:
    """Read a file; an ImageError with `reason` if that fails."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(reason, f"{type(error).__name__}: {error.strerror}") from error


def relative(path: Path, root: Path) -> str:
    """Return the path inside the archive, with forward slashes."""
    whole, base = path.as_posix(), root.as_posix() + "/"  # a tenth of the time of `relative_to`
    return whole[len(base) :] if whole.startswith(base) else path.relative_to(root).as_posix()
