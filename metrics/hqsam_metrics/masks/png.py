"""Reading mask pictures with OpenCV alone: binary masks, and palette pictures whose values are object numbers.

OpenCV turns a palette into colours and loses the numbers. The pixels of a palette PNG are stored exactly like those
of a grey one, so its header is changed in memory and the numbers come out as grey values.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_metrics.masks.iou import Mask

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PALETTE = 3
# sam-hq counts a label pixel as foreground above this value (train/utils/misc.py).
FOREGROUND_ABOVE = 128
_GREY_TOLERANCE = 2  # between channels of one grey picture that went through a lossy format


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _decode(data: bytes, path: Path) -> NDArray[np.uint8]:
    array: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if array is None:
        raise UserError(f"{path}: is no picture that can be decoded; is the file cut off?")
    if array.dtype == np.uint16:
        # Some tools write 0..255 (or 0/1, or object numbers) into 16 bits: those are no dark grey values.
        array = (array >> 8 if int(array.max(initial=0)) > 255 else array).astype(np.uint8)
    return np.asarray(array, np.uint8)


def _palette_depth(data: bytes) -> int | None:
    """Returns the bits a pixel of a palette PNG, None for any other file."""
    if not data.startswith(_SIGNATURE) or len(data) < 33 or data[12:16] != b"IHDR" or data[25] != _PALETTE:
        return None
    return data[24]


def _as_grey(data: bytes) -> bytes:
    """Returns a palette PNG's bytes with the header of a grey one."""
    header = b"IHDR" + data[16:25] + b"\x00" + data[26:29]
    head = _SIGNATURE + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    out, at = [head], 33
    while at + 8 <= len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        # A grey picture has neither a palette nor one transparency a palette entry.
        if data[at + 4 : at + 8] not in (b"PLTE", b"tRNS"):
            out.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join(out)


def read_index_png(path: Path) -> NDArray[np.uint8]:
    """Returns the object numbers of a palette or grey picture: uint8 [H, W].

    Raises:
        UserError: no picture, or one with colours (the numbers are lost).
    """
    data = _read(path)
    depth = _palette_depth(data)
    array = _decode(data if depth is None else _as_grey(data), path)
    if array.ndim != 2:
        raise UserError(f"{path}: has {array.shape[2]} channels; object numbers need a palette or grey PNG")
    # A decoder stretches 1, 2 and 4 bit grey values to 0..255.
    return array if depth is None or depth == 8 else (array // (255 // ((1 << depth) - 1))).astype(np.uint8)


def read_mask_png(path: Path) -> Mask:
    """Returns a binary mask picture as bool [H, W]: foreground is above 128, as sam-hq reads its labels.

    Equal colour channels count as one grey channel; where the colours are the same everywhere, alpha counts if it
    varies. What would silently be an empty or a full mask is refused: other colours, and values that all lie between
    1 and 128.

    Raises:
        UserError: no picture, one with colours, or a 0/1 (or other weak) encoding.
    """
    array = _decode(_read(path), path)
    if array.ndim == 3:
        array = _one_channel(array, path)
    top = int(array.max(initial=0))
    if 0 < top <= FOREGROUND_ABOVE:
        kind = "0/1" if top == 1 else f"0..{top}"
        raise UserError(
            f"{path}: mask values are {kind}, not 0/255: everything would count as background."
            f" Multiply the masks by 255 (foreground is above {FOREGROUND_ABOVE})"
        )
    return array > FOREGROUND_ABOVE


def _one_channel(array: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    colour, alpha = array[..., :3], array[..., 3:]
    if alpha.size and np.ptp(alpha) and not np.ptp(colour, axis=(0, 1)).any():
        return array[..., 3]
    if int(np.ptp(colour, axis=2).max()) > _GREY_TOLERANCE:
        raise UserError(
            f"{path}: has colours, which do not say what is foreground; save the mask as grey PNG, 0 and 255"
        )
    return array[..., 2]  # red: OpenCV's order is blue, green, red
