"""The one record that flows: an image with its instances, validated on creation."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_datasets.formats.image_files import ImageProbe
from hqsam_datasets.formats.images import decode_image
from hqsam_datasets.formats.masks import FOREGROUND, decode_stored_mask

KEY_PATTERN = re.compile(r"[a-z0-9_-]+")
MAX_KEY = 75
"""Leaves room in the 100 characters of a USTAR name for part of a digest and `.mask99999.png`."""


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One object of an image.

    Attributes:
        id: number within the sample, counted from 0.
        mask: uint8 [H, W], soft 0..255; foreground is above 128.
        category: class name, or None where the source knows none.
    """

    id: int
    mask: NDArray[np.uint8]
    category: str | None = None

    def __post_init__(self) -> None:
        if self.mask.dtype != np.uint8 or self.mask.ndim != 2:
            raise ValueError(f"mask must be uint8 [H, W], not {self.mask.dtype} {self.mask.shape}")
        if self.id < 0:
            raise ValueError(f"instance id must not be negative: {self.id}")

    @property
    def foreground(self) -> NDArray[np.bool_]:
        """Bool [H, W]: the pixels above 128."""
        return self.mask > FOREGROUND


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image and its instances.

    Attributes:
        key: unique over all sources, `[a-z0-9_-]+`.
        source: name of the source.
        image: uint8 [H, W, 3] RGB, upright.
        instances: at least one, ids 0, 1, ..., masks of the image's size.
        origin_image: path of the image inside the source's archive.
        origin_mask: path of the mask (or annotation file) inside the source's archive.
    """

    key: str
    source: str
    image: NDArray[np.uint8]
    instances: tuple[Instance, ...]
    origin_image: str = ""
    origin_mask: str = ""

    def __post_init__(self) -> None:
        if not KEY_PATTERN.fullmatch(self.key):
            raise ValueError(f"key {self.key!r} may hold only a-z, 0-9, _ and -")
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(
                f"{self.key}: image must be uint8 [H, W, 3], not {self.image.dtype} "
                f"{self.image.shape}"
            )
        if not self.instances:
            raise ValueError(f"{self.key}: a sample needs at least one instance")
        for number, instance in enumerate(self.instances):
            if instance.id != number:
                raise ValueError(f"{self.key}: instance ids must be 0, 1, ..., found {instance.id}")
            if instance.mask.shape != self.image.shape[:2]:
                raise ValueError(
                    f"{self.key}: mask {instance.mask.shape}, image {self.image.shape[:2]}"
                )

    @property
    def height(self) -> int:
        """Image height in pixels."""
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        """Image width in pixels."""
        return int(self.image.shape[1])


def make_key(source: str, name: str) -> str:
    """`<source>_<name>` in the alphabet of keys: no accents, lower case, runs of other characters one `-`.

    Different names can give the same key (`a#b` and `a b`); the caller must notice. A long name is
    cut and ends with a part of its digest: members of the archives have at most 100 characters.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    cleaned = re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-")
    key = f"{source}_{cleaned or 'unnamed'}"
    return (
        key
        if len(key) <= MAX_KEY
        else f"{key[: MAX_KEY - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    )


def mask_extension(instance_id: int) -> str:
    """Extension of an instance's mask in the archives: `mask.png`, `mask1.png`, `mask2.png`, ..."""
    return "mask.png" if instance_id == 0 else f"mask{instance_id}.png"


def sample_json(
    *,
    key: str,
    source: str,
    height: int,
    width: int,
    categories: tuple[str | None, ...],
    origin_image: str,
    origin_mask: str,
) -> bytes:
    """The `<key>.json` member of docs/formats.md, as compact deterministic JSON."""
    record = {
        "key": key,
        "source": source,
        "height": height,
        "width": width,
        "instances": [{"id": i, "category": category} for i, category in enumerate(categories)],
        "origin": {"image": origin_image, "mask": origin_mask},
    }
    return json.dumps(record, sort_keys=True, ensure_ascii=False).encode() + b"\n"


_STORED = {"jpg": ImageProbe("JPEG", "RGB", 1, 0, 0), "png": ImageProbe("PNG", "RGB", 1, 0, 0)}
"""What the normalise stage writes: upright RGB. Probing each file again costs the loader 10 % of its speed."""


def parse_sample(key: str, files: Mapping[str, bytes]) -> Sample:
    """Rebuild a sample from its archive members ({extension: bytes}, as `tario` gives them).

    Raises:
        UserError: naming the key and the member that is missing or damaged.
    """
    try:
        record = json.loads(files["json"])
        extension = "jpg" if "jpg" in files else "png"
        image = decode_image(files[extension], found=_STORED[extension])
        instances = tuple(
            Instance(i, decode_stored_mask(files[mask_extension(i)]), entry["category"])
            for i, entry in enumerate(record["instances"])
        )
        origin = record["origin"]
        return Sample(key, record["source"], image, instances, origin["image"], origin["mask"])
    except KeyError as error:
        raise UserError(
            f"the sample has no {error}", key=key, cure="write the shards again"
        ) from error
    except ValueError as error:
        raise UserError(
            f"the sample is damaged: {error}", key=key, cure="write the shards again"
        ) from error
