"""Reading mask pictures: binary masks, and palette or grey pictures whose values are object numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base import png, whole_file
from hqsam_base.errors import UserError
from hqsam_metrics.masks.iou import Mask

# sam-hq counts a label pixel as foreground above this value (train/utils/misc.py).
FOREGROUND_ABOVE = 128
_GREY_TOLERANCE = 2  # between channels of one grey picture that went through a lossy format


def _read(path: Path, *, values: bool) -> NDArray[Any]:
    try:
        data = whole_file.read_bytes(path)
        array = png.decode_values(data) if values else png.decode(data)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: is not a picture that can be decoded: {error}") from None
    if array is None:
        raise UserError(f"{path}: is not a picture that can be decoded; is the file cut off?")
    return array


def read_index_png(path: Path) -> NDArray[np.uint8]:
    """Returns the object numbers of a palette or grey picture of any depth, as they are stored: uint8 [H, W].

    Raises:
        UserError: no picture, one with colours (the numbers are lost), or a number above 255.
    """
    array = _read(path, values=True)
    if array.ndim != 2:
        raise UserError(
            f"{path}: has {array.shape[2]} channels; object numbers need a palette or grey PNG"
        )
    if (top := int(array.max(initial=0))) > 255:
        raise UserError(
            f"{path}: has the value {top}; objects are numbered 1 to 254, and 255 is void"
        )
    return array.astype(np.uint8)


def read_mask_png(path: Path) -> Mask:
    """Returns a binary mask picture as bool [H, W]: foreground is above 128, as sam-hq reads its labels.

    Equal colour channels count as one grey channel; where the colours are the same everywhere,
    alpha counts if it varies. What would silently be an empty or a full mask is refused: other
    colours, and values that all lie between 1 and 128.

    Raises:
        UserError: no picture, one with colours, or a 0/1 (or other weak) encoding.
    """
    stored = _read(path, values=False)
    if stored.dtype == np.uint16 and int(stored.max(initial=0)) > 255:
        stored = stored >> 8  # else some tool wrote 0..255 (or 0/1) into 16 bits: no dark grey
    array: NDArray[np.uint8] = stored.astype(np.uint8)
    if array.ndim == 3:
        array = _one_channel(array, path)
    top = int(array.max(initial=0))
    if 0 < top <= FOREGROUND_ABOVE:
        kind, cure = (
            f"0..{top}",
            "Write a map of labels as one mask for each object, 0 and 255; scale a soft mask to "
            "0..255",
        )
        if top == 1:
            kind, cure = "0/1", "Multiply the masks by 255"
        raise UserError(
            f"{path}: mask values are {kind}, not 0/255: everything would count as background."
            f" {cure} (foreground is above {FOREGROUND_ABOVE})"
        )
    return array > FOREGROUND_ABOVE


def _one_channel(array: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    colour, alpha = array[..., :3], array[..., 3:]
    if alpha.size and np.ptp(alpha) and not np.ptp(colour, axis=(0, 1)).any():
        return array[..., 3]
    if int(np.ptp(colour, axis=2).max()) > _GREY_TOLERANCE:
        raise UserError(
            f"{path}: has colours, which do not say what is foreground; save the mask as grey "
            f"PNG, 0 and 255"
        )
    return array[..., 2]  # red: OpenCV's order is blue, green, red
