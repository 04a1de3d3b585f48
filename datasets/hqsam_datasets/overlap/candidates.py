"""Candidate pairs: which training image could share a picture, or a part of one, with which evaluation image.

Everything here is exact integer arithmetic on stored fingerprints
(`hqsam_datasets.overlap.hashing`), so the candidates do not depend on the number of threads or the
machine. Pixels are looked at later (`hqsam_datasets.overlap.verify`): a candidate needs no proof,
only a reason.

The eight dihedral variants: variant v of a picture is its transpose if ``v & 4``, then mirrored
left-right if ``v & 1``, then upside down if ``v & 2``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hqsam_base.processes import worker_count
from hqsam_datasets.overlap.hashing import descriptor_frequencies

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

FoundBy = Literal["pixels", "pdq", "tiles", "mask"]
Transform = tuple[float, float, float, float]

VARIANTS = (
    "identity",
    "mirror",
    "flip",
    "rotate180",
    "transpose",
    "rotate90",
    "rotate270",
    "transverse",
)
"""Names by number; `rotate90` is clockwise."""
DERIVED_SLACK = 12
"""PDQ bits that a derived variant may lose: its bits are thresholded at the stored hash's median, not at their own."""


@dataclass(frozen=True)
class Candidate:
    """A pair to look at.

    Attributes:
        train, other: rows in the two lists that were compared.
        variant: 0..7, what was done to the training image to resemble the other.
        found_by: which search found it.
        hamming: differing PDQ bits of the pictures (`pdq`) or of their masks (`mask`), else None.
        tiles: local features that agree on one geometry (`tiles`), else 0.
        transform: (scale x, scale y, shift x, shift y) from the variant of the training image to
            the other image, both measured in 1/256 of their own longest side; None: frame to frame.
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
    """Return variant 0..7 of an image [H, W, ...], contiguous."""
    if variant & 4:
        image = np.swapaxes(image, 0, 1)
    if variant & 1:
        image = image[:, ::-1]
    if variant & 2:
        image = image[::-1]
    return np.ascontiguousarray(image)


def pdq_variants(pdq: U8) -> U8:
    """Return the PDQ bits of all eight variants, derived: uint8 [8, N, 32] from [N, 32].

    Flips and transposition act on the signs of the 16 x 16 cosine coefficients. PDQ compares with
    the median and not with zero, so a derived hash differs from the computed one in 8 bits on
    average (18 at most on photographs).
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
    """Return descriptors of all eight variants: uint8 [8, N, B] from [N, B].

    Exact but for coefficients that are zero.
    """
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
    """Return where points (x, y) [N] of frames width x height [N] lie in a variant of their picture."""
    if variant & 4:
        x, y, width, height = y, x, height, width
    return (width - x if variant & 1 else x), (height - y if variant & 2 else y)


# ---- whole pictures: PDQ, every pair ----


def pdq_candidates(train: U8, other: U8, *, radius: int, same: bool = False) -> list[Candidate]:
    """Find all pairs with at most `radius` differing PDQ bits in some variant; exhaustive.

    Args:
        train: uint8 [N, 32].
        other: uint8 [M, 32].
        radius: for the identity; derived variants get `DERIVED_SLACK` bits more.
        same: both lists are the same; each unordered pair is then found once.

    Returns:
        One candidate per pair, its nearest variant, sorted by (train, other).
    """
    if not len(train) or not len(other):
        return []
    best: dict[tuple[int, int], tuple[int, int]] = {}
    with faiss_threads(8) as pool:
        index = pool.submit(flat_index, other).result()
        searches = [
            pool.submit(_within, index, queries, radius + (DERIVED_SLACK if variant else 0))
            for variant, queries in enumerate(pdq_variants(train))
        ]
        for variant, search in enumerate(searches):
            for row, column, distance in zip(
                *(values.tolist() for values in search.result()), strict=True
            ):
                if not (same and column <= row):
                    entry = (distance + (DERIVED_SLACK if variant else 0), variant)
                    best[row, column] = min(best.get((row, column), entry), entry)
    return [
        Candidate(row, column, variant, "pdq", hamming=rank - (DERIVED_SLACK if variant else 0))
        for (row, column), (rank, variant) in sorted(best.items())
    ]


def faiss_threads(n_tasks: int) -> ThreadPoolExecutor:
    """Start threads that each run faiss on one core.

    faiss would start OpenMP threads of its own for every call, and on a busy machine those wait for
    each other by spinning: the search then takes ten times as long.
    """
    import faiss

    return ThreadPoolExecutor(
        worker_count(n_tasks), initializer=faiss.omp_set_num_threads, initargs=(1,)
    )


def flat_index(bits: U8) -> Any:
    """Build an exhaustive faiss index over binary codes uint8 [N, bytes]."""
    import faiss

    index = faiss.IndexBinaryFlat(8 * bits.shape[1])
    index.add(np.ascontiguousarray(bits))
    return index


def _within(index: Any, queries: U8, radius: int) -> tuple[I64, I64, I64]:
    """Return all (query, found, distance) with a distance of at most `radius`."""
    # faiss returns distances below its limit, not at it.
    bounds, distances, found = index.range_search(np.ascontiguousarray(queries), radius + 1)
    counts = bounds[1:].astype(np.int64) - bounds[:-1].astype(np.int64)
    return (
        np.repeat(np.arange(len(queries)), counts),
        found.astype(np.int64),
        distances.astype(np.int64),
    )
