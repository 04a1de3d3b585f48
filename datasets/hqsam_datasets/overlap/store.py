"""The two sides of the overlap search: what the tables say about every image, and its pixels on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_base.processes import worker_count
from hqsam_datasets.formats.image_files import ImageError
from hqsam_datasets.formats.images import decode_image
from hqsam_datasets.formats.manifest import read_table
from hqsam_datasets.formats.masks import decode_mask
from hqsam_datasets.formats.tar import TarReader
from hqsam_datasets.overlap.hashing import read_tiles
from hqsam_datasets.overlap.shapes import Shape, Shapes, shape_of

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

_COLUMNS = ["key", "shard", "height", "width", "pixel_digest", "pdq", "tiles"]


@dataclass
class ImageList:
    """All images of one side, in a fixed order (set by set, keys sorted).

    Attributes:
        key, group: per image its key, and the training source or benchmark it belongs to.
        height, width: int64 [N] pixels.
        pixels: XXH3-128 of the pixels, hexadecimal.
        pdq: uint8 [N, 32].
        tiles: packed local features.
    """

    key: list[str]
    group: list[str]
    height: I64
    width: I64
    pixels: list[str]
    pdq: U8
    tiles: list[bytes]
    _folder: dict[str, Path]
    _shard: list[str]
    _member: list[str] | None
    _tars: dict[Path, TarReader] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _instances: dict[str, dict[str, list[tuple[str, int, int]]]] = field(default_factory=dict)

    @classmethod
    def of_samples(cls, samples: dict[str, Path]) -> ImageList:
        """Return the training images of `data/samples/<source>` folders, by source name."""
        return cls._read(samples, "manifest.parquet", _COLUMNS)

    @classmethod
    def of_benchmarks(cls, benchmarks: dict[str, Path]) -> ImageList:
        """Return the evaluation images of `data/benchmarks/<benchmark>` folders, by benchmark name."""
        return cls._read(benchmarks, "images.parquet", [*_COLUMNS, "member"])

    @classmethod
    def _read(cls, folders: dict[str, Path], table: str, columns: list[str]) -> ImageList:
        values: dict[str, list[Any]] = {name: [] for name in [*columns, "group"]}
        for name in sorted(folders):
            rows = read_table(folders[name] / table, columns)
            for column in columns:
                values[column] += rows.column(column).to_pylist()
            values["group"] += [name] * rows.num_rows
            _check_hashes(folders[name] / table, rows)
        pdq = np.frombuffer(b"".join(values["pdq"]), np.uint8).reshape(-1, 32)
        return cls(
            key=values["key"],
            group=values["group"],
            pixels=values["pixel_digest"],
            pdq=pdq,
            tiles=values["tiles"],
            height=np.array(values["height"], np.int64),
            width=np.array(values["width"], np.int64),
            _folder=dict(folders),
            _shard=values["shard"],
            _member=values.get("member"),
        )

    def __len__(self) -> int:
        return len(self.key)

    def image(self, row: int) -> U8:
        """Decode an image to uint8 [H, W, 3] RGB.

        Raises:
            UserError: if the image is not in its archive or is damaged.
        """
        tar, key = self._tar(row), self.key[row]
        name = f"{key}.png" if f"{key}.png" in tar.members else f"{key}.jpg"
        if self._member is not None:
            name = self._member[row]
        try:
            return decode_image(tar.read(name))
        except (ImageError, KeyError) as error:
            raise UserError(
                f"the image cannot be decoded: {error}",
                file=tar.path,
                key=self.key[row],
                cure="run the stage that wrote it again",
            ) from error

    def masks(self, row: int) -> list[Mask]:
        """Return foregrounds of an image, bool [H, W] each: the sample's masks, or the set's instances without crowds.

        Raises:
            UserError: if a mask is damaged.
        """
        try:
            if self._member is None:
                tar = self._tar(row)
                names = [f"{self.key[row]}.mask.png"]
                while (more := f"{self.key[row]}.mask{len(names)}.png") in tar.members:
                    names.append(more)
                return [
                    decode_mask(tar.read(name)).foreground for name in names if name in tar.members
                ]
            known = self._benchmark_instances(self.group[row])
            return [
                rle.decode(counts, height=h, width=w)
                for counts, h, w in known.get(self.key[row], [])
            ]
        except ValueError as error:  # ImageError is one
            raise UserError(
                f"a mask cannot be decoded: {error}",
                file=self._folder[self.group[row]],
                key=self.key[row],
                cure="run the stage that wrote it again",
            ) from error

    def foreground(self, row: int) -> Mask:
        """Return the union of `masks`, bool [H, W]."""
        union = np.zeros((int(self.height[row]), int(self.width[row])), np.bool_)
        for mask in self.masks(row):
            if mask.shape == union.shape:
                union |= mask
        return union

    def shapes(self, progress: Callable[[int, int], None]) -> Shapes:
        """Return the outlines of all foregrounds, image by image.

        `progress` receives (done, total) now and then.
        """
        found: list[tuple[int, int, Shape, float]] = []
        with ThreadPoolExecutor(worker_count(len(self), worth=64)) as pool:
            for done, shapes in enumerate(pool.map(self._shapes, range(len(self))), start=1):
                found += shapes
                if done % 256 == 0 or done == len(self):
                    progress(done, len(self))
        return Shapes.of(found)

    def _shapes(self, row: int) -> list[tuple[int, int, Shape, float]]:
        unit = 256 / max(int(self.height[row]), int(self.width[row]))
        found = [(row, number, shape_of(mask), unit) for number, mask in enumerate(self.masks(row))]
        return [
            (row, number, shape, unit) for row, number, shape, unit in found if shape is not None
        ]

    def _tar(self, row: int) -> TarReader:
        path = self._folder[self.group[row]] / self._shard[row]
        with self._lock:
            if path not in self._tars:
                self._tars[path] = TarReader(path)
            return self._tars[path]

    def _benchmark_instances(self, benchmark: str) -> dict[str, list[tuple[str, int, int]]]:
        with self._lock:
            if benchmark not in self._instances:
                path = self._folder[benchmark] / "instances.parquet"
                by_key: dict[str, list[tuple[str, int, int]]] = {}
                for row in read_table(
                    path, ["key", "rle", "height", "width", "iscrowd"]
                ).to_pylist():
                    if not row["iscrowd"]:
                        by_key.setdefault(row["key"], []).append(
                            (row["rle"], row["height"], row["width"])
                        )
                self._instances[benchmark] = by_key
            return self._instances[benchmark]

    def close(self) -> None:
        """Close the archives that were opened."""
        for tar in self._tars.values():
            tar.close()
        self._tars.clear()


def _check_hashes(path: Path, rows: Any) -> None:
    for key, pdq, tiles in zip(
        *(rows.column(c).to_pylist() for c in ("key", "pdq", "tiles")), strict=True
    ):
        try:
            read_tiles(tiles)
        except ValueError as error:
            raise UserError(
                str(error), file=path, key=key, cure="run the stage that writes the table again"
            ) from error
        if len(pdq) != 32:
            raise UserError(
                f"a PDQ hash has {len(pdq)} bytes instead of 32",
                file=path,
                key=key,
                cure="run the stage that writes the table again",
            )
