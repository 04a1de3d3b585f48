"""Label maps and masks in PNG files as the values that were stored, by OpenCV alone.

OpenCV turns a palette into colours and loses the numbers, and stretches grey values of 1, 2 and 4
bits to 0..255. The pixels of a palette PNG are stored exactly like those of a grey one: its header
is changed in memory and the stretching undone. Chunks that are not needed for the pixels are left
out, so that libpng has nothing to complain about.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 178_000_000
"""Larger pictures are refused before they are decoded: only decompression bombs come near."""
_GREY, _PALETTE = 0, 3
_PIXELS = (b"IHDR", b"IDAT", b"IEND")


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields type, first and last byte (half-open, length and CRC included) of each chunk of a PNG, up to IEND.

    Raises:
        ValueError: a chunk is damaged or cut off, or the file ends before IEND.
    """
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        stored = data[end - 4 : end]
        if end > len(data) or zlib.crc32(
            memoryview(data)[position + 4 : end - 4]
        ) != int.from_bytes(stored):
            raise ValueError(f"PNG chunk {kind!r} at byte {position} is damaged or cut off")
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise ValueError("the PNG file is truncated")


def depth_and_colour(data: bytes) -> tuple[int, int] | None:
    """Returns bits a sample and colour type of a PNG, None for any other file."""
    if not data.startswith(SIGNATURE) or len(data) < 33 or data[12:16] != b"IHDR":
        return None
    return data[24], data[25]


def decode(data: bytes) -> NDArray[Any] | None:
    """Returns the picture as OpenCV sees it ([H, W] or [H, W, C], uint8 or uint16), None if it is none.

    Raises:
        ValueError: a damaged or a too large PNG.
    """
    head = depth_and_colour(data)
    if head is not None:
        data = _kept(data, (*_PIXELS, b"PLTE", b"tRNS"))
    return _by_opencv(data)


def decode_values(data: bytes) -> NDArray[Any] | None:
    """Returns the stored values of a palette or grey picture of any depth: uint8 or uint16 [H, W].

    Args:
        data: the file. Formats other than PNG are read as OpenCV does.

    Returns:
        The values; [H, W, C] for a picture with colours, which holds no numbers; None for what is
        no picture.

    Raises:
        ValueError: a damaged or a too large PNG.
    """
    head = depth_and_colour(data)
    if head is None or head[1] not in (_GREY, _PALETTE):
        return decode(data)
    depth = head[0]
    kept = _kept(data, _PIXELS)
    # With the header of a grey picture: OpenCV would look the palette up.
    header = b"IHDR" + kept[16:25] + bytes([_GREY]) + kept[26:29]
    crc = struct.pack(">I", zlib.crc32(header))
    array = _by_opencv(SIGNATURE + struct.pack(">I", 13) + header + crc + kept[33:])
    return (
        array
        if array is None or depth >= 8
        else np.asarray(array // (255 // ((1 << depth) - 1)), np.uint8)
    )


def _by_opencv(data: bytes) -> NDArray[Any] | None:
    if not data:
        return None
    try:
        array: NDArray[Any] | None = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED
        )
    except cv2.error:  # a header that asks for too many pixels, see `env.DECODERS`
        return None
    return array


def _kept(data: bytes, kinds: tuple[bytes, ...]) -> bytes:
    width, height = struct.unpack(">II", data[16:24])
    if width * height > MAX_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, the limit is {MAX_PIXELS:,}")
    return b"".join(
        [SIGNATURE, *(data[first:last] for kind, first, last in chunks(data) if kind in kinds)]
    )
