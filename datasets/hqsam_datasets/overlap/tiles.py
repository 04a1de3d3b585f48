"""Candidate pairs that share a part of a picture: local features that agree on one geometry.

Every local feature of a training image, in all eight dihedral variants, is looked up among those of
all evaluation images (an inverted file over 128-bit descriptors); image pairs in which several
matches agree on one scale and shift are candidates. Integers but for the geometry: the same result
on any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_datasets.overlap.candidates import (
    Candidate,
    descriptor_variants,
    faiss_threads,
    flat_index,
    position_variants,
)
from hqsam_datasets.overlap.hashing import DESCRIPTOR_BITS, LEVEL_STEP, read_tiles

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

_NEIGHBOURS = 8  # nearest evaluation features per training feature
_MAX_DISTANCE = 30  # of 128 descriptor bits
_FLAT_UP_TO = 2_000  # features that are searched without an inverted file
_PROBES = 4
_BATCH_IMAGES = 256
_TOLERANCE = 7.0  # 1/256 of the longest side: how far two features may stray from one geometry
_SCALE_TOLERANCE = 1.35  # between the scale of two features' distance and that of their levels
_DISTINCT = 5.0  # features nearer to each other than this are one piece of evidence


@dataclass(frozen=True)
class TileTable:
    """The local features of many images.

    Attributes:
        bits: uint8 [F, DESCRIPTOR_BITS / 8].
        x, y: float64 [F], in 1/256 of the image's longest side.
        level: int64 [F].
        image: int64 [F], row of the image, ascending.
        frame: float64 [N, 2], width and height of every image in the same unit.
    """

    bits: U8
    x: F64
    y: F64
    level: I64
    image: I64
    frame: F64

    @classmethod
    def of(cls, tiles: Sequence[bytes], height: I64, width: I64) -> TileTable:
        """Unpack signatures; `height`, `width` int64 [N] are those of the images."""
        records = [read_tiles(item) for item in tiles]
        counts = np.array([len(item) for item in records], np.int64)
        table = np.concatenate(records) if records else read_tiles(b"T1")
        longest = np.maximum(height, width)
        return cls(
            bits=np.ascontiguousarray(table["bits"]),
            x=table["x"] + 0.5,
            y=table["y"] + 0.5,
            level=table["level"].astype(np.int64),
            image=np.repeat(np.arange(len(records)), counts),
            frame=np.stack([256 * width / longest, 256 * height / longest], 1).reshape(-1, 2),
        )

    def rows(self, first: int, last: int) -> TileTable:
        """Return the features of images `first` <= row < `last`.

        Rows and frames keep their numbers.
        """
        cut = slice(*np.searchsorted(self.image, [first, last]).tolist())
        return TileTable(
            self.bits[cut], self.x[cut], self.y[cut], self.level[cut], self.image[cut], self.frame
        )


def tile_candidates(
    train: TileTable, other: TileTable, *, min_tiles: int
) -> Iterator[tuple[int, list[Candidate]]]:
    """Yield pairs of images of which at least `min_tiles` local features agree on one similarity (scale, shift, variant).

    Yields:
        (training images done so far, candidates of the last batch), candidates sorted by (train,
        other), one per pair.
    """
    n_images = len(train.frame)
    if not len(other.image):
        yield n_images, []
        return
    batches = [
        (first, min(first + _BATCH_IMAGES, n_images)) for first in range(0, n_images, _BATCH_IMAGES)
    ]
    with faiss_threads(len(batches)) as pool:
        index = pool.submit(_feature_index, other.bits).result()

        def search(batch: tuple[int, int]) -> list[Candidate]:
            return _batch_candidates(train.rows(*batch), other, index, min_tiles)

        for (_, last), found in zip(batches, pool.map(search, batches), strict=True):
            yield last, found


def _feature_index(bits: U8) -> Any:
    """Build a faiss index over descriptors: exhaustive when small, else an inverted file with integer k-medians."""
    import faiss

    if len(bits) <= _FLAT_UP_TO:
        return flat_index(bits)
    n_lists = int(2 ** np.clip(np.round(np.log2(2 * np.sqrt(len(bits)))), 6, 13))
    flat = flat_index(_centroids(bits, n_lists))
    index = faiss.IndexBinaryIVF(flat, DESCRIPTOR_BITS, n_lists)
    index.is_trained = True
    index.nprobe = _PROBES
    index.add(bits)
    index.own_fields = False
    setattr(index, "borrowed", flat)  # noqa: B010  the C++ object holds a bare pointer to it
    return index


def _centroids(bits: U8, count: int, *, rounds: int = 3) -> U8:
    """Return majority-bit centroids of an evenly spaced subset; integers only, hence the same on every machine.

    (The library's own training runs a float k-means: its rounding depends on the number of
    threads.)
    """
    sample = bits[np.linspace(0, len(bits) - 1, min(len(bits), 32 * count)).astype(np.int64)]
    centroids = sample[np.linspace(0, len(sample) - 1, count).astype(np.int64)].copy()
    unpacked = np.unpackbits(sample, axis=1)
    for _ in range(rounds):
        nearest = flat_index(centroids).search(sample, 1)[1][:, 0]
        order = np.argsort(nearest, kind="stable")
        starts = np.searchsorted(nearest[order], np.arange(count))
        sizes = np.diff(np.append(starts, len(sample)))
        sums = np.add.reduceat(
            unpacked[order].astype(np.int32), np.minimum(starts, len(sample) - 1), axis=0
        )
        full = sizes > 0
        centroids[full] = np.packbits(2 * sums[full] > sizes[full, None], axis=1)
    return centroids


@dataclass(frozen=True)
class _Matches:
    """Feature matches [M], sorted by `pair`: the training feature in its variant's frame, and the other's."""

    pair: I64
    x: F64
    y: F64
    to_x: F64
    to_y: F64
    scale: F64

    def take(self, rows: NDArray[Any] | slice) -> _Matches:
        """Return a subset."""
        return _Matches(
            self.pair[rows],
            self.x[rows],
            self.y[rows],
            self.to_x[rows],
            self.to_y[rows],
            self.scale[rows],
        )


def _batch_candidates(
    train: TileTable, other: TileTable, index: Any, min_tiles: int
) -> list[Candidate]:
    if not len(train.image):
        return []
    matches = _matches(train, other, index)
    # An image pair with fewer matches cannot have enough that agree.
    _, inverse, counts = np.unique(matches.pair, return_inverse=True, return_counts=True)
    matches = matches.take(counts[inverse] >= min_tiles)
    if not len(matches.pair):
        return []
    best: dict[tuple[int, int], Candidate] = {}
    for pair, tiles, (scale, tx, ty) in _consistent(matches, min_tiles):
        rest, variant = divmod(pair, 8)
        row, column = divmod(rest, len(other.frame))
        known = best.get((row, column))
        if known is None or tiles > known.tiles:
            best[row, column] = Candidate(
                row, column, variant, "tiles", tiles=tiles, transform=(scale, scale, tx, ty)
            )
    return [best[key] for key in sorted(best)]


def _matches(train: TileTable, other: TileTable, index: Any) -> _Matches:
    """Find the nearest neighbours of every training feature in all eight variants, within `_MAX_DISTANCE`."""
    parts = []
    width, height = train.frame[train.image].T
    for variant, queries in enumerate(descriptor_variants(train.bits)):
        distances, found = index.search(
            np.ascontiguousarray(queries), min(_NEIGHBOURS, index.ntotal)
        )
        query, rank = np.nonzero((distances <= _MAX_DISTANCE) & (found >= 0))
        to = found[query, rank]
        x, y = position_variants(train.x, train.y, width, height, variant)
        pair = (train.image[query] * len(other.frame) + other.image[to]) * 8 + variant
        scale = LEVEL_STEP ** (other.level[to] - train.level[query]).astype(np.float64)
        parts.append(_Matches(pair, x[query], y[query], other.x[to], other.y[to], scale))
    joined = _Matches(
        *(
            np.concatenate([getattr(p, name) for p in parts])
            for name in _Matches.__dataclass_fields__
        )
    )
    return joined.take(np.argsort(joined.pair, kind="stable"))


def _consistent(
    matches: _Matches, min_tiles: int
) -> Iterator[tuple[int, int, tuple[float, float, float]]]:
    """Yield image pairs with at least `min_tiles` distinct features on one geometry: (pair, count, transform)."""
    starts = np.flatnonzero(np.diff(matches.pair, prepend=-1))
    for first, last in zip(
        starts.tolist(), np.append(starts[1:], len(matches.pair)).tolist(), strict=True
    ):
        group = matches.take(slice(first, last))
        fit = _geometry(group)
        if fit is None:
            continue
        transform, inliers = fit
        count = min(
            _n_distinct(group.x[inliers], group.y[inliers]),
            _n_distinct(group.to_x[inliers], group.to_y[inliers]),
        )
        if count >= min_tiles:
            yield int(matches.pair[first]), count, transform


def _geometry(group: _Matches) -> tuple[tuple[float, float, float], NDArray[np.bool_]] | None:
    """Scale and shift that most matches of one image pair agree on, and which do; None without two that agree.

    Every match is compared with every other: two agree if their difference vectors in the two
    images are parallel and as long as the features' levels say. The match with most partners leads;
    least squares over its party.
    """
    dx, dy = group.x[:, None] - group.x, group.y[:, None] - group.y
    ex, ey = group.to_x[:, None] - group.to_x, group.to_y[:, None] - group.to_y
    length = dx * dx + dy * dy
    scale = (dx * ex + dy * ey) / np.maximum(length, 1e-9)
    stray = np.hypot(ex - scale * dx, ey - scale * dy)
    level_scale = np.sqrt(group.scale[:, None] * group.scale)
    ratio = scale / level_scale
    alike = np.maximum(group.scale[:, None], group.scale) <= 1.3 * np.minimum(
        group.scale[:, None], group.scale
    )
    agree = (
        (length > _DISTINCT**2)
        & (ratio > 1 / _SCALE_TOLERANCE)
        & (ratio < _SCALE_TOLERANCE)
        & alike
    )
    agree &= stray <= _TOLERANCE * np.maximum(1.0, level_scale)
    partners = agree.sum(1)
    leader = int(np.argmax(partners))
    if partners[leader] < 1:
        return None
    party = agree[leader].copy()
    party[leader] = True
    transform = (1.0, 0.0, 0.0)
    for _ in range(2):
        # Scale and shift (s, tx, ty) that take (x, y) to (to_x, to_y) with the least squared error.
        some = group.take(party)
        x, y = some.x - some.x.mean(), some.y - some.y.mean()
        s = float((x * some.to_x + y * some.to_y).sum() / max(float((x * x + y * y).sum()), 1e-9))
        tx = float(some.to_x.mean() - s * some.x.mean())
        ty = float(some.to_y.mean() - s * some.y.mean())
        transform = s, tx, ty
        stray_1 = np.hypot(group.to_x - s * group.x - tx, group.to_y - s * group.y - ty)
        level_fit = (group.scale > s / 1.5) & (group.scale < s * 1.5)
        party = (stray_1 <= _TOLERANCE * max(1.0, s)) & level_fit
        if party.sum() < 2:
            return None
    return transform, party


def _n_distinct(x: F64, y: F64) -> int:
    """Count the points that are at least `_DISTINCT` apart from all counted before, in the order given."""
    near = np.hypot(x[:, None] - x, y[:, None] - y) < _DISTINCT
    return int((~np.tril(near, -1).any(1)).sum())
