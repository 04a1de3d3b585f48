"""Candidate pairs: which training image could share a picture, or a part of one, with which evaluation image.

Everything here is exact integer arithmetic on stored fingerprints (`hqsam_datasets.hashing`), so the candidates do
not depend on the number of threads or the machine. Pixels are looked at later (`hqsam_datasets.overlap_verify`): a
candidate needs no proof, only a reason.

The eight dihedral variants: variant v of a picture is its transpose if ``v & 4``, then mirrored left-right if ``v &
1``, then upside down if ``v & 2``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hqsam_datasets.hashing import DESCRIPTOR_BITS, LEVEL_STEP, descriptor_frequencies, read_tiles
from hqsam_datasets.parallel import worker_count

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

FoundBy = Literal["sha256", "pdq", "tiles", "mask"]
Transform = tuple[float, float, float, float]

VARIANTS = (
    "identity", "mirror", "flip", "rotate180", "transpose", "rotate90", "rotate270", "transverse",
)  # fmt: skip
"""Names by number; `rotate90` is clockwise."""
DERIVED_SLACK = 12
"""PDQ bits that a derived variant may lose: its bits are thresholded at the stored hash's median, not at their own."""

_NEIGHBOURS = 8  # nearest evaluation features per training feature
_MAX_DISTANCE = 26  # of 128 descriptor bits
_FLAT_UP_TO = 2_000  # features that are searched without an inverted file
_PROBES = 4
_BATCH_IMAGES = 256
_TOLERANCE = 7.0  # 1/256 of the longest side: how far two features may stray from one geometry
_SCALE_TOLERANCE = 1.35  # between the scale of two features' distance and that of their levels
_DISTINCT = 5.0  # features nearer to each other than this are one piece of evidence


@dataclass(frozen=True)
class Candidate:
    """A pair to look at.

    Attributes:
        train, other: rows in the two lists that were compared.
        variant: 0..7, what was done to the training image to resemble the other.
        found_by: which search found it.
        hamming: differing PDQ bits of the pictures (`pdq`) or of their masks (`mask`), else None.
        tiles: local features that agree on one geometry (`tiles`), else 0.
        transform: (scale x, scale y, shift x, shift y) from the variant of the training image to the other image,
            both
            measured in 1/256 of their own longest side; None: frame to frame.
        masks: which foreground of either image (`mask`), else None.
    """

    train: int
    other: int
    variant: int
    found_by: FoundBy
    hamming: int | None = None
    tiles: int = 0
    transform: Transform | None = None
    masks: tuple[int, int] | None = None


# ---- dihedral variants of stored fingerprints ----


def variant_image(image: NDArray[Any], variant: int) -> NDArray[Any]:
    """Variant 0..7 of an image [H, W, ...]; contiguous."""
    if variant & 4:
        image = np.swapaxes(image, 0, 1)
    if variant & 1:
        image = image[:, ::-1]
    if variant & 2:
        image = image[::-1]
    return np.ascontiguousarray(image)


def pdq_variants(pdq: U8) -> U8:
    """The PDQ bits of all eight variants, derived: uint8 [8, N, 32] from [N, 32].

    Flips and transposition act on the signs of the 16 x 16 cosine coefficients. PDQ compares with the median and not
    with zero, so a derived hash differs from the computed one in 8 bits on average (18 at most on photographs).
    """
    # The library's order is row-major from the highest frequency to the lowest, (16, 16) first.
    coefficients = np.unpackbits(pdq, axis=1)[:, ::-1].reshape(-1, 16, 16)
    odd = (np.arange(1, 17) % 2).astype(np.uint8)
    variants = []
    for variant in range(8):
        bits = coefficients.transpose(0, 2, 1) if variant & 4 else coefficients
        if variant & 1:
            bits = bits ^ odd[None, None, :]
        if variant & 2:
            bits = bits ^ odd[None, :, None]
        variants.append(np.packbits(bits.reshape(-1, 256)[:, ::-1], axis=1))
    return np.stack(variants)


def descriptor_variants(bits: U8) -> U8:
    """Descriptors of all eight variants: uint8 [8, N, B] from [N, B]. Exact but for coefficients that are zero."""
    along_y, along_x = descriptor_frequencies().T
    index = {pair: i for i, pair in enumerate(zip(along_y.tolist(), along_x.tolist(), strict=True))}
    swap = np.array([index[x, y] for y, x in zip(along_y.tolist(), along_x.tolist(), strict=True)])
    flip_x, flip_y = np.packbits(along_x % 2), np.packbits(along_y % 2)
    swapped = np.packbits(np.unpackbits(bits, axis=1)[:, swap], axis=1)
    plain = [swapped if variant & 4 else bits for variant in range(8)]
    return np.stack(
        [
            b ^ (flip_x * bool(v & 1)).astype(np.uint8) ^ (flip_y * bool(v & 2)).astype(np.uint8)
            for v, b in enumerate(plain)
        ]
    )


def position_variants(x: F64, y: F64, width: F64, height: F64, variant: int) -> tuple[F64, F64]:
    """Where the points (x, y) [N] of frames width x height [N] lie in variant `variant` of their picture."""
    if variant & 4:
        x, y, width, height = y, x, height, width
    return (width - x if variant & 1 else x), (height - y if variant & 2 else y)


# ---- whole pictures: PDQ, every pair ----


def pdq_candidates(train: U8, other: U8, *, radius: int, same: bool = False) -> list[Candidate]:
    """All pairs whose PDQ bits differ in at most `radius` for some variant; exhaustive.

    Args:
        train: uint8 [N, 32].
        other: uint8 [M, 32].
        radius: for the identity; derived variants get `DERIVED_SLACK` bits more.
        same: the two lists are one and the same; each unordered pair is then found once.

    Returns:
        One candidate per pair, its nearest variant, sorted by (train, other).
    """
    if not len(train) or not len(other):
        return []
    best: dict[tuple[int, int], tuple[int, int]] = {}
    with _faiss_threads(8) as pool:
        index = pool.submit(_flat_index, other).result()
        searches = [
            pool.submit(_within, index, queries, radius + (DERIVED_SLACK if variant else 0))
            for variant, queries in enumerate(pdq_variants(train))
        ]
        for variant, search in enumerate(searches):
            for row, column, distance in zip(*(values.tolist() for values in search.result()), strict=True):
                if not (same and column <= row):
                    entry = (distance + (DERIVED_SLACK if variant else 0), variant)
                    best[row, column] = min(best.get((row, column), entry), entry)
    return [
        Candidate(row, column, variant, "pdq", hamming=rank - (DERIVED_SLACK if variant else 0))
        for (row, column), (rank, variant) in sorted(best.items())
    ]


def _faiss_threads(n_tasks: int) -> ThreadPoolExecutor:
    """Threads that each run faiss on one core.

    faiss would start OpenMP threads of its own for every call, and on a busy machine those wait for each other by
    spinning: the search then takes ten times as long.
    """
    import faiss

    return ThreadPoolExecutor(worker_count(n_tasks), initializer=faiss.omp_set_num_threads, initargs=(1,))


def _flat_index(bits: U8) -> Any:
    import faiss

    index = faiss.IndexBinaryFlat(8 * bits.shape[1])
    index.add(np.ascontiguousarray(bits))
    return index


def _within(index: Any, queries: U8, radius: int) -> tuple[I64, I64, I64]:
    """All (query, found, distance) with a distance of at most `radius`."""
    # faiss returns distances below its limit, not at it.
    bounds, distances, found = index.range_search(np.ascontiguousarray(queries), radius + 1)
    counts = np.diff(bounds.astype(np.int64))
    return np.repeat(np.arange(len(queries)), counts), found.astype(np.int64), distances.astype(np.int64)


# ---- parts of pictures: local features ----


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
        """The features of images `first` <= row < `last`; rows and frames keep their numbers."""
        cut = slice(*np.searchsorted(self.image, [first, last]).tolist())
        return TileTable(self.bits[cut], self.x[cut], self.y[cut], self.level[cut], self.image[cut], self.frame)


def tile_candidates(train: TileTable, other: TileTable, *, min_tiles: int) -> Iterator[tuple[int, list[Candidate]]]:
    """Pairs of images of which at least `min_tiles` local features agree on one similarity (scale, shift, variant).

    Yields:
        (training images done so far, candidates of the last batch), candidates sorted by (train, other), one per
        pair.
    """
    n_images = len(train.frame)
    if not len(other.image):
        yield n_images, []
        return
    batches = [(first, min(first + _BATCH_IMAGES, n_images)) for first in range(0, n_images, _BATCH_IMAGES)]
    with _faiss_threads(len(batches)) as pool:
        index = pool.submit(_feature_index, other.bits).result()

        def search(batch: tuple[int, int]) -> list[Candidate]:
            return _batch_candidates(train.rows(*batch), other, index, min_tiles)

        for (_, last), found in zip(batches, pool.map(search, batches), strict=True):
            yield last, found


def _feature_index(bits: U8) -> Any:
    """A faiss index over descriptors: exhaustive when small, else an inverted file with integer k-medians."""
    import faiss

    if len(bits) <= _FLAT_UP_TO:
        return _flat_index(bits)
    n_lists = int(2 ** np.clip(np.round(np.log2(2 * np.sqrt(len(bits)))), 6, 13))
    flat = _flat_index(_centroids(bits, n_lists))
    index = faiss.IndexBinaryIVF(flat, DESCRIPTOR_BITS, n_lists)
    index.is_trained = True
    index.nprobe = _PROBES
    index.add(bits)
    index.own_fields = False
    index.referenced_objects = [flat]  # the C++ object only borrows it
    return index


def _centroids(bits: U8, count: int, *, rounds: int = 3) -> U8:
    """Majority-bit centroids of an evenly spaced subset; integers only, hence the same on every machine.

    (The library's own training runs a float k-means, whose rounding depends on the number of threads.)
    """
    sample = bits[np.linspace(0, len(bits) - 1, min(len(bits), 32 * count)).astype(np.int64)]
    centroids = sample[np.linspace(0, len(sample) - 1, count).astype(np.int64)].copy()
    unpacked = np.unpackbits(sample, axis=1)
    for _ in range(rounds):
        nearest = _flat_index(centroids).search(sample, 1)[1][:, 0]
        order = np.argsort(nearest, kind="stable")
        starts = np.searchsorted(nearest[order], np.arange(count))
        sizes = np.diff(np.append(starts, len(sample)))
        sums = np.add.reduceat(unpacked[order].astype(np.int32), np.minimum(starts, len(sample) - 1), axis=0)
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

    def take(self, rows: NDArray[Any]) -> _Matches:
        return _Matches(self.pair[rows], self.x[rows], self.y[rows], self.to_x[rows], self.to_y[rows], self.scale[rows])


def _batch_candidates(train: TileTable, other: TileTable, index: Any, min_tiles: int) -> list[Candidate]:
    if not len(train.image):
        return []
    matches = _matches(train, other, index)
    matches = _in_groups_of(matches, min_tiles)
    if not len(matches.pair):
        return []
    best: dict[tuple[int, int], Candidate] = {}
    for pair, tiles, (scale, tx, ty) in _consistent(matches, min_tiles):
        rest, variant = divmod(pair, 8)
        row, column = divmod(rest, len(other.frame))
        known = best.get((row, column))
        if known is None or tiles > known.tiles:
            best[row, column] = Candidate(row, column, variant, "tiles", tiles=tiles, transform=(scale, scale, tx, ty))
    return [best[key] for key in sorted(best)]


def _matches(train: TileTable, other: TileTable, index: Any) -> _Matches:
    """Nearest neighbours of every training feature in all eight variants, within `_MAX_DISTANCE`."""
    parts = []
    width, height = train.frame[train.image].T
    for variant, queries in enumerate(descriptor_variants(train.bits)):
        distances, found = index.search(np.ascontiguousarray(queries), min(_NEIGHBOURS, index.ntotal))
        query, rank = np.nonzero((distances <= _MAX_DISTANCE) & (found >= 0))
        to = found[query, rank]
        x, y = position_variants(train.x, train.y, width, height, variant)
        pair = (train.image[query] * len(other.frame) + other.image[to]) * 8 + variant
        scale = LEVEL_STEP ** (other.level[to] - train.level[query]).astype(np.float64)
        parts.append(_Matches(pair, x[query], y[query], other.x[to], other.y[to], scale))
    joined = _Matches(*(np.concatenate([getattr(p, name) for p in parts]) for name in _Matches.__dataclass_fields__))
    return joined.take(np.argsort(joined.pair, kind="stable"))


def _in_groups_of(matches: _Matches, size: int) -> _Matches:
    """Only the matches of image pairs that have at least `size` of them."""
    _, inverse, counts = np.unique(matches.pair, return_inverse=True, return_counts=True)
    return matches.take(counts[inverse] >= size)


def _consistent(matches: _Matches, min_tiles: int) -> Iterator[tuple[int, int, tuple[float, float, float]]]:
    """Image pairs with at least `min_tiles` distinct features on one geometry: (pair, count, transform)."""
    starts = np.flatnonzero(np.diff(matches.pair, prepend=-1))
    for first, last in zip(starts.tolist(), np.append(starts[1:], len(matches.pair)).tolist(), strict=True):
        group = matches.take(slice(first, last))
        fit = _geometry(group)
        if fit is None:
            continue
        transform, inliers = fit
        count = min(
            _n_distinct(group.x[inliers], group.y[inliers]), _n_distinct(group.to_x[inliers], group.to_y[inliers])
        )
        if count >= min_tiles:
            yield int(matches.pair[first]), count, transform


def _geometry(group: _Matches) -> tuple[tuple[float, float, float], NDArray[np.bool_]] | None:
    """Scale and shift that most matches of one image pair agree on, and which do; None without two that agree.

    Every match is compared with every other: two agree if their difference vectors in the two images are parallel
    and as long as the features' levels say. The match with most partners leads; least squares over its party.
    """
    dx, dy = group.x[:, None] - group.x, group.y[:, None] - group.y
    ex, ey = group.to_x[:, None] - group.to_x, group.to_y[:, None] - group.to_y
    length = dx * dx + dy * dy
    scale = (dx * ex + dy * ey) / np.maximum(length, 1e-9)
    stray = np.hypot(ex - scale * dx, ey - scale * dy)
    level_scale = np.sqrt(group.scale[:, None] * group.scale)
    ratio = scale / level_scale
    alike = np.maximum(group.scale[:, None], group.scale) <= 1.3 * np.minimum(group.scale[:, None], group.scale)
    agree = (length > _DISTINCT**2) & (ratio > 1 / _SCALE_TOLERANCE) & (ratio < _SCALE_TOLERANCE) & alike
    agree &= stray <= _TOLERANCE * np.maximum(1.0, level_scale)
    partners = agree.sum(1)
    leader = int(np.argmax(partners))
    if partners[leader] < 1:
        return None
    party = agree[leader].copy()
    party[leader] = True
    transform = (1.0, 0.0, 0.0)
    for _ in range(2):
        transform = _least_squares(group.take(party))
        s, tx, ty = transform
        stray_1 = np.hypot(group.to_x - s * group.x - tx, group.to_y - s * group.y - ty)
        level_fit = (group.scale > s / 1.5) & (group.scale < s * 1.5)
        party = (stray_1 <= _TOLERANCE * max(1.0, s)) & level_fit
        if party.sum() < 2:
            return None
    return transform, party


def _least_squares(group: _Matches) -> tuple[float, float, float]:
    """Scale and shift (s, tx, ty) that take (x, y) to (to_x, to_y) with the least squared error."""
    x, y = group.x - group.x.mean(), group.y - group.y.mean()
    scale = float((x * group.to_x + y * group.to_y).sum() / max(float((x * x + y * y).sum()), 1e-9))
    return (
        scale,
        float(group.to_x.mean() - scale * group.x.mean()),
        float(group.to_y.mean() - scale * group.y.mean()),
    )


def _n_distinct(x: F64, y: F64) -> int:
    """Number of points that are at least `_DISTINCT` apart from all counted before, in the order given."""
    near = np.hypot(x[:, None] - x, y[:, None] - y) < _DISTINCT
    return int((~np.tril(near, -1).any(1)).sum())
