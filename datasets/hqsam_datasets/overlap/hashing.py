"""Image fingerprints: one exact hash, one perceptual hash and a local-feature signature per image.

Three questions, three fingerprints, all from one decoded image:

* *the same pixels?* ``pixel_digest``, the XXH3-128 of the decoded RGB bytes: no one forges training
  images, and SHA-256 of the pixels alone would cost a quarter of decoding them;
* *the same picture?* ``pdq``, 256 bits of the PDQ perceptual hash, taken from a 64 x 64 area
  average of the grey image in place of PDQ's own decimation: halving an image then moves 2 bits on
  average instead of 18;
* *the same part of a picture?* ``tiles``, at most ``MAX_TILES`` scale-covariant local features. A
  crop, or another foreground pasted on the same background, defeats every whole-image hash but
  leaves most of these alone.

Nothing is stored for mirrored and rotated copies. A PDQ bit and a descriptor bit are both signs of
cosine coefficients: a flip of the picture negates those of odd frequency, a transposition exchanges
the two frequencies. All eight dihedral variants are therefore permutations and complements of the
stored bits (`hqsam_datasets.overlap.candidates`), derived on the query side of a search.

Layout of ``tiles`` (version 1): the bytes ``T1``, then N records of 19 bytes: x, y (uint8, position
of the centre in 1/256 of the longest side), level (uint8, the patch covers ``PATCH * PATCH_STEP * 2
** (level / 3)`` pixels of an image whose longest side is ``WORK_SIDE``), 16 bytes of descriptor. At
most ``2 + 19 * MAX_TILES`` = 1826 bytes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import xxhash
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

WORK_SIDE = 192
"""Longest side of the grey image that local features are taken from."""
PDQ_SIDE = 64
LEVEL_STEP = 2 ** (1 / 3)
LEVEL_QUOTA = (30, 20, 15, 12, 8, 6, 5)
"""Features kept per scale level, finest first: the scales span a factor of four."""
MAX_TILES = sum(LEVEL_QUOTA)
PATCH = 16
PATCH_STEP = 1.5
"""A descriptor samples PATCH x PATCH points, this many pixels of its level apart."""
DESCRIPTOR_BITS = 128
MAGIC = b"T1"
RECORD = np.dtype(
    [("x", "u1"), ("y", "u1"), ("level", "u1"), ("bits", "u1", (DESCRIPTOR_BITS // 8,))]
)

_LEVEL_SIGMA = 1.2  # blur of every level, in its own pixels
_CAMERA_SIGMA = 0.5  # blur that any picture has already
_MARGIN = 5  # level pixels: features nearer to the frame see mostly padding
_PEAK = np.ones((7, 7), np.uint8)
_MIN_CONTRAST = 1.0  # grey levels of the difference of Gaussians; below is noise
_CELLS = 4  # cells per side in which features compete first, so that no object takes them all
_WINDOW = 0.35  # standard deviation of the descriptor's window, in patch sides
_PERCENT = (np.arange(256) * (100 / 255)).astype(
    np.int64
)  # a step of grey levels in whole percent of white
_OFFSETS = ((np.arange(PATCH) - (PATCH - 1) / 2) * PATCH_STEP).astype(np.float32)
_QUOTA = np.array(LEVEL_QUOTA)
_ALL_BITS = np.int32(0x7FFFFFFF)
_UNITS = (
    256 / WORK_SIDE * LEVEL_STEP ** np.arange(len(LEVEL_QUOTA))
)  # a pixel of each level, in `RECORD`'s unit


@dataclass(frozen=True, slots=True)
class ImageHashes:
    """Fingerprints of one image.

    Attributes:
        pixel_digest: hexadecimal XXH3-128 of the RGB bytes in row order. Two images are the same
            only if height and width agree too; every table that stores this has those columns.
        pdq: 32 bytes, the 256 PDQ bits in the library's order, most significant bit of a byte
            first.
        pdq_quality: PDQ's gradient measure, 0 (flat) to 100.
        tiles: packed local features, layout in the module's docstring; only the two magic bytes for
            a flat image.
    """

    pixel_digest: str
    pdq: bytes
    pdq_quality: int
    tiles: bytes


def hash_image(rgb: U8) -> ImageHashes:
    """Fingerprint one decoded image.

    Args:
        rgb: uint8 [H, W, 3], any size from 1 x 1.

    Raises:
        ValueError: if `rgb` is not a non-empty uint8 [H, W, 3] array.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(
            f"hash_image needs a uint8 [H, W, 3] image, got {rgb.dtype} {list(rgb.shape)}"
        )
    rgb = np.ascontiguousarray(rgb)
    grey = shrink_grey(rgb, 2 * WORK_SIDE)
    pdq, quality = pdq_of(grey)
    tiles = tiles_of(resize_grey(grey, WORK_SIDE))
    return ImageHashes(digest(rgb.data), pdq, quality, tiles)


def digest(data: bytes | memoryview) -> str:
    """Return the XXH3-128 of some bytes, 32 hexadecimal digits: it finds equals, not forgeries."""
    return xxhash.xxh3_128_hexdigest(data)


def read_tiles(tiles: bytes) -> NDArray[np.void]:
    """Unpack `ImageHashes.tiles` into a structured array of dtype `RECORD`, shape [N].

    Raises:
        ValueError: if the bytes are not of this version's layout.
    """
    if tiles[:2] != MAGIC or (len(tiles) - 2) % RECORD.itemsize:
        raise ValueError(f"no tile signature of this version: {tiles[:2]!r}, {len(tiles)} bytes")
    return np.frombuffer(tiles, RECORD, offset=2)


# ---- shrinking and the perceptual hash ----


def shrink_grey(rgb: U8, side: int) -> U8:
    """Return the grey image of `rgb` [H, W, 3], halved by 2 x 2 means until its longest side is below `side`.

    The 2 x 2 mean has a fast path in OpenCV that other area averages lack (up to fifty times),
    provided that the sides are even: an odd last row or column is left out.
    """
    grey: U8 = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    while max(grey.shape) >= side and min(grey.shape) > 1:
        height, width = grey.shape[0] // 2, grey.shape[1] // 2
        even = grey[: 2 * height, : 2 * width]
        grey = np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return grey


def resize_grey(grey: U8, side: int) -> U8:
    """Scale a grey image [H, W] up or down to a longest side of `side`.

    A small blur precedes a reduction.
    """
    height, width = grey.shape
    scale = side / max(height, width)
    if scale < 0.9:
        grey = np.asarray(cv2.GaussianBlur(grey, (3, 3), 0), np.uint8)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def pdq_of(grey: U8) -> tuple[bytes, int]:
    """Return PDQ of a grey image [H, W]: 32 packed bytes, and the quality 0..100."""
    small: U8 = np.asarray(
        cv2.resize(grey, (PDQ_SIDE, PDQ_SIDE), interpolation=cv2.INTER_AREA), np.uint8
    )
    cosines = _pdq_cosines()
    # Rounded: coefficients that are equal by symmetry stay equal in whatever order they are summed.
    coefficients = np.rint((cosines @ small.astype(np.float64) @ cosines.T).ravel()[::-1] * 1e4)
    bits = coefficients > np.partition(coefficients, 127)[127]
    # The quality is PDQ's measure of texture: the sum of the steps between neighbours, each in
    # whole percent of white, at most 100.
    down, right = cv2.absdiff(small[1:], small[:-1]), cv2.absdiff(small[:, 1:], small[:, :-1])
    quality = min(100, int(_PERCENT[down].sum() + _PERCENT[right].sum()) // 90)
    return np.packbits(bits).tobytes(), quality


@lru_cache(maxsize=1)
def _pdq_cosines() -> NDArray[np.float64]:
    """Return the sixteen lowest cosines but the constant, float64 [16, PDQ_SIDE]."""
    frequency, place = np.arange(1, 17)[:, None], np.arange(PDQ_SIDE)[None, :]
    return np.asarray(
        np.sqrt(2 / PDQ_SIDE) * np.cos(np.pi / 2 / PDQ_SIDE * frequency * (2 * place + 1)),
        np.float64,
    )


# ---- local features ----


@dataclass(frozen=True)
class _Atlas:
    """Where the levels of one image shape lie in a single canvas: one below the other.

    One canvas lets every step after the blurs run once per image instead of once per level.

    Attributes:
        top, height, width: int64 [L], each level's rows and columns in the canvas.
        inside: bool [rows, columns], whether a feature may lie there: not near a frame.
        cell: uint8 [rows * columns], number of the cell; cells of level l are `l * _CELLS**2` and
            up.
    """

    top: I64
    height: I64
    width: I64
    inside: NDArray[np.bool_]
    cell: U8


class _Scratch(threading.local):
    """Canvases of the image shape hashed last, per thread: fresh ones would cost more in page faults than the blurs."""

    shape: tuple[int, ...] = ()

    def canvases(self, shape: tuple[int, ...]) -> tuple[F32, F32, F32]:
        """Return three float32 canvases, zero wherever no level lies."""
        if shape != self.shape:
            self.shape = shape
            self._held = (
                np.zeros(shape, np.float32),
                np.zeros(shape, np.float32),
                np.zeros(shape, np.float32),
            )
        return self._held


_SCRATCH = _Scratch()


@lru_cache(maxsize=32)
def _atlas(height: int, width: int) -> _Atlas:
    scales = LEVEL_STEP ** -np.arange(len(LEVEL_QUOTA))
    heights = np.maximum(1, np.rint(height * scales)).astype(np.int64)
    widths = np.maximum(1, np.rint(width * scales)).astype(np.int64)
    tops = np.cumsum(heights) - heights
    inside = np.zeros((int(heights.sum()), width), np.bool_)
    cell = np.zeros(inside.shape, np.uint8)
    for level, (top, rows, columns) in enumerate(zip(tops, heights, widths, strict=True)):
        inside[
            top + _MARGIN : max(top, top + rows - _MARGIN), _MARGIN : max(0, columns - _MARGIN)
        ] = True
        y = (np.arange(rows) + 0.5) * _CELLS // rows
        x = (np.arange(columns) + 0.5) * _CELLS // columns
        cell[top : top + rows, :columns] = (level * _CELLS + y[:, None]) * _CELLS + x[None, :]
    return _Atlas(tops, heights, widths, inside, cell.ravel())


def tiles_of(work: U8) -> bytes:
    """Return packed local features of a grey image [H, W] with a longest side of `WORK_SIDE`."""
    atlas = _atlas(*work.shape)
    canvas, response = _scale_space(work, atlas)
    found, level = _strongest(response, atlas)
    if not len(found):
        return MAGIC
    x, y = _refined(response, found)
    records = np.zeros(len(found), RECORD)
    unit = _UNITS[level]
    records["x"] = np.minimum((x + 0.5) * unit, 255)
    records["y"] = np.minimum((y - atlas.top[level] + 0.5) * unit, 255)
    records["level"] = level
    records["bits"] = _describe(canvas, x, y, level, atlas)
    return MAGIC + records.tobytes()


def _scale_space(work: U8, atlas: _Atlas) -> tuple[F32, F32]:
    """Return all levels of the image in the atlas, and the magnitude of their difference of Gaussians.

    Each level is the blurred one above it, sampled `LEVEL_STEP` more coarsely; the blur is such
    that every level has the same sigma in its own pixels.
    """
    canvas, response, _ = _SCRATCH.canvases(atlas.inside.shape)
    step_sigma = _LEVEL_SIGMA * float(np.sqrt(LEVEL_STEP**2 - 1))
    first_sigma = float(np.sqrt(_LEVEL_SIGMA**2 - _CAMERA_SIGMA**2))
    image = cv2.GaussianBlur(work.astype(np.float32), (5, 5), first_sigma)
    for top, rows, columns in zip(
        atlas.top.tolist(), atlas.height.tolist(), atlas.width.tolist(), strict=True
    ):
        level, step = canvas[top : top + rows, :columns], response[top : top + rows, :columns]
        if top:
            cv2.resize(image, (columns, rows), dst=level, interpolation=cv2.INTER_LINEAR)
        else:
            level[:] = image
        image = cv2.GaussianBlur(level, (5, 5), step_sigma)
        cv2.absdiff(level, image, dst=step)
    return canvas, response


def _strongest(response: F32, atlas: _Atlas) -> tuple[I64, I64]:
    """Choose the features to keep, the quota of each level: flat canvas indices and levels [N], finest first.

    The strength of a maximum is divided by its rank in its cell, so that the second of an empty
    corner goes before the sixth of a busy one: a pasted object must not take the background's
    share, nor the reverse.
    """
    floor = _SCRATCH.canvases(response.shape)[2]
    cv2.dilate(response, _PEAK, dst=floor)
    found = np.flatnonzero((response >= floor) & atlas.inside)
    found = found[response.ravel()[found] >= _MIN_CONTRAST]
    # One integer sorts by cell, then strongest first, then place: the bits of positive floats
    # ascend as the floats do.
    weakness = _ALL_BITS - response.ravel()[found].view(np.int32)
    by_cell = np.sort(
        (atlas.cell[found].astype(np.int64) << 51) | (weakness.astype(np.int64) << 20) | found
    )
    cell, found = by_cell >> 51, by_cell & 0xFFFFF
    strength = response.ravel()[found]
    worth = strength / _rank_in_run(cell)
    level = cell // _CELLS**2
    rivals = np.flatnonzero(worth >= _least_kept(worth, level)[level])
    rivals = rivals[np.lexsort((-worth[rivals], level[rivals]))]
    level = level[rivals]
    kept = _rank_in_run(level) <= _QUOTA[level]
    return found[rivals[kept]], level[kept]


def _least_kept(worth: NDArray[np.float64], level: I64) -> NDArray[np.float64]:
    """Return the worth of the last feature that fits each level's quota, float64 [L].

    `level` ascends.
    """
    least = np.zeros(len(LEVEL_QUOTA))
    bounds = np.searchsorted(level, np.arange(len(LEVEL_QUOTA) + 1)).tolist()
    for number, (quota, first, last) in enumerate(
        zip(LEVEL_QUOTA, bounds[:-1], bounds[1:], strict=True)
    ):
        if last - first > quota:
            least[number] = np.partition(worth[first:last], last - first - quota)[
                last - first - quota
            ]
    return least


def _refined(response: F32, found: I64) -> tuple[F32, F32]:
    """Return peak positions (x, y) float32 [N] in the canvas: vertices of parabolas through a peak and its neighbours.

    A whole pixel of jitter would move the patch enough to flip a tenth of the descriptor.
    """
    width = response.shape[1]
    flat = response.ravel()
    y, x = np.divmod(found, width)
    centre = flat[found]
    shifts = []
    for step in (1, width):
        before, after = flat[found - step], flat[found + step]
        bend = np.maximum(2 * centre - before - after, 1e-6)
        shifts.append(np.clip((after - before) / (2 * bend), -0.5, 0.5))
    return (x + shifts[0]).astype(np.float32), (y + shifts[1]).astype(np.float32)


def _rank_in_run(values: I64) -> I64:
    """Return 1, 2, 3, ...

    Within each run of equal values of a sorted array [N] of small non-negative integers.
    """
    first = np.searchsorted(values, np.arange(int(values[-1]) + 1 if len(values) else 0))
    return np.asarray(np.arange(1, len(values) + 1) - first[values], np.int64)


def _describe(canvas: F32, x: F32, y: F32, level: I64, atlas: _Atlas) -> U8:
    """Return packed descriptor bits uint8 [N, DESCRIPTOR_BITS / 8] of patches centred on canvas points (x, y).

    Samples outside the level repeat its edge.
    """
    map_x = np.tile(_clamped(x, np.zeros_like(level), atlas.width[level]), (1, PATCH))
    map_y = np.repeat(_clamped(y, atlas.top[level], atlas.height[level]), PATCH, axis=1)
    patches = cv2.remap(canvas, map_x, map_y, cv2.INTER_LINEAR)
    low, high = patches.min(axis=1, keepdims=True), patches.max(axis=1, keepdims=True)
    patches -= (low + high) / 2
    patches *= 254 / np.maximum(high - low, 1e-3)
    return np.packbits(np.rint(patches, out=patches) @ _basis() > 0, axis=1)


def _clamped(centre: F32, first: I64, size: I64) -> F32:
    """Return sample positions float32 [N, PATCH] about each centre, kept within `size` pixels from `first` on."""
    low = first.astype(np.float32)[:, None]
    places = centre[:, None] + _OFFSETS
    np.maximum(places, low, out=places)
    np.minimum(places, low + (size - 1).astype(np.float32)[:, None], out=places)
    return places


@lru_cache(maxsize=1)
def descriptor_frequencies() -> I64:
    """Return frequencies (along y, along x), int64 [DESCRIPTOR_BITS, 2]: the lowest but (0, 0), a set symmetric in y and x."""
    pairs = [(u, v) for u in range(PATCH) for v in range(u + 1) if u]
    pairs.sort(key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair))
    chosen: list[tuple[int, int]] = []
    for u, v in pairs:
        both = [(u, v)] if u == v else [(u, v), (v, u)]
        if len(chosen) + len(both) <= DESCRIPTOR_BITS:
            chosen += both
    return np.array(chosen, np.int64)


@lru_cache(maxsize=1)
def _basis() -> F32:
    """Return windowed cosine functions, float32 [PATCH * PATCH, DESCRIPTOR_BITS], whole numbers of at most 127.

    Every function has zero mean, so brightness and contrast move no bit, and the window is
    symmetric, so the dihedral variants are exact. Products with whole numbers up to 127 sum to less
    than 2**24, which float32 holds: the sign does not depend on the order in which a BLAS library,
    on however many threads, adds them.
    """
    frequencies = descriptor_frequencies()
    positions = (np.arange(PATCH) + 0.5) / PATCH
    cosines = np.cos(np.pi * np.arange(PATCH)[:, None] * positions[None, :])
    window = np.exp(-0.5 * ((positions - 0.5) / _WINDOW) ** 2)
    weight = np.outer(window, window)
    functions = cosines[frequencies[:, 0]][:, :, None] * cosines[frequencies[:, 1]][:, None, :]
    functions = functions - (functions * weight).sum((1, 2), keepdims=True) / weight.sum()
    windowed = functions * weight
    whole = np.rint(127 * windowed / np.abs(windowed).max(axis=(1, 2), keepdims=True))
    return np.ascontiguousarray(whole.reshape(DESCRIPTOR_BITS, -1).T, dtype=np.float32)
