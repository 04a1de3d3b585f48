"""Finding and pairing the files of an evaluation set, strictly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_base.filenames import visible
from hqsam_datasets.benchmarks.base import Box, Content, Item, Kind, Prompt, Truth
from hqsam_datasets.fetch.tree import NotHadError, found_below
from hqsam_datasets.formats.image_files import ImageError
from hqsam_datasets.formats.masks import decode_mask
from hqsam_datasets.keys import distinct_keys

BoolMask = npt.NDArray[np.bool_]

_DEPTH = 4
"""Folders that repacks put around the published tree, at most."""


def find_folder(root: Path, *names: str) -> Path:
    """The folder ``names[0]/names[1]/...`` at or below ``root`` (archives come with and without a root folder).

    Raises:
        UserError: there is none; the message lists what is there.
    """
    tail = "/".join(names)
    folder = found_below(root, tail, depth=_DEPTH)
    if not folder.is_dir():
        raise UserError(
            f"{tail} is not a folder",
            file=folder,
            cure="check that the archive is the published one",
        )
    return folder


def find_file(root: Path, *names: str) -> Path:
    """The file called ``names[0]`` at or below ``root``, else ``names[1]``, ...; the nearest one to the root wins.

    Raises:
        UserError: there is none; the message lists what is there.
    """
    return found_below(root, *names, depth=_DEPTH)


def find_prompts(root: Path, name: str) -> Path | None:
    """The file with a set's prompts; None if it is optional and unavailable: the set has no such prompts then.

    Raises:
        UserError: it is not there, although the archive is whole.
    """
    try:
        return find_file(root, name)
    except NotHadError:
        return None


def pairs(
    images: Path, masks: Path, *, image_suffix: str = ".jpg", mask_suffix: str = ".png"
) -> list[tuple[str, Path, Path]]:
    """(stem, image, mask) for every image, by stem, sorted by stem.

    Raises:
        UserError: an image without mask or a mask without image; both paths are named.
    """
    by_stem = [
        {
            p.name.removesuffix(suffix): p
            for p in visible(folder.iterdir())
            if p.is_file() and p.name.endswith(suffix)
        }
        for folder, suffix in ((images, image_suffix), (masks, mask_suffix))
    ]
    orphans = sorted(by_stem[0].keys() ^ by_stem[1].keys())
    if orphans:
        stem = orphans[0]
        has, lacks = (images / f"{stem}{image_suffix}", masks / f"{stem}{mask_suffix}")
        if stem not in by_stem[0]:
            has, lacks = lacks, has
        raise UserError(
            f"{len(orphans)} file(s) without partner; the first: {has.name} has no {lacks.name}",
            file=has,
            key=stem,
            cure=f"put the missing file at {lacks.parent.name}/{lacks.name} or fetch the archive "
            f"again",
        )
    return [(stem, by_stem[0][stem], by_stem[1][stem]) for stem in sorted(by_stem[0])]


def read_foreground(path: Path) -> BoolMask:
    """Ground truth mask, bool [H, W]: above 128 after the encoding was recognised.

    Raises:
        UserError: the file is damaged or is not a mask; evaluation skips nothing.
    """
    try:
        return decode_mask(path.read_bytes()).foreground
    except ImageError as error:
        raise UserError(
            f"the ground truth cannot be used: {error}", file=path, cure="fetch the archive again"
        ) from error


def box_prompt(prompt_id: str, box: Box, instance_id: str | None) -> Prompt:
    """A ground-truth box."""
    return Prompt(prompt_id=prompt_id, prompt_set="gt_box", box=box, instance_id=instance_id)


@dataclass(frozen=True, kw_only=True)
class MaskFolders:
    """A set of single-object images: a folder of JPEGs and a folder of PNG masks with the same stems.

    The ``gt_box`` prompt is the tight box with inclusive corners of the ground truth at full
    resolution. The official script takes it from the mask resized to the network's input instead;
    the two differ by less than a pixel of that input.

    Attributes:
        images: Path of the image folder below the root, as folder names.
        masks: Path of the mask folder.
    """

    name: str
    images: tuple[str, ...]
    masks: tuple[str, ...]
    dataset_version: str
    kind: Kind = "masks"
    class_agnostic: bool = True

    def read(self, root: Path) -> Content:
        """Every pair of the two folders."""
        found = pairs(find_folder(root, *self.images), find_folder(root, *self.masks))
        return Content(items=self._items(found), n_images=len(found))

    def _items(self, found: list[tuple[str, Path, Path]]) -> Iterator[Item]:
        stems = [stem for stem, _, _ in found]
        keys = distinct_keys(self.name, stems, stems)
        keyed = sorted(
            (key, image, mask) for key, (_, image, mask) in zip(keys, found, strict=True)
        )
        for number, (key, image, mask) in enumerate(keyed, start=1):
            yield single_object(key, number, image, read_foreground(mask))


def single_object(
    key: str, image_id: int, image: Path, foreground: BoolMask, extra: tuple[Prompt, ...] = ()
) -> Item:
    """An image with one object and its box prompt (none if the mask is empty), plus ``extra`` prompts."""
    height, width = foreground.shape
    box = rle.tight_box(foreground)
    boxes = () if box is None else (box_prompt(f"{key}-box", box, key),)
    truth = Truth(
        instance_id=key, rle=rle.encode(foreground), area=float(np.count_nonzero(foreground))
    )
    return Item(
        key=key,
        path=image,
        image_id=image_id,
        height=height,
        width=width,
        truths=(truth,),
        prompts=boxes + extra,
    )
