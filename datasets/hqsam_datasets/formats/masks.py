"""Masks from encoded bytes, by written rules.

They become soft ``uint8 [H, W]`` in 0..255 (foreground above 128) together with the name of the
encoding found:

- ``0/255`` and ``0/1`` (the latter times 255); ``soft``: values between, with some above 128;
- ``rgb``: three equal channels (channel 0 counts), or one colour on black;
- ``alpha``: the colour says nothing and the alpha channel varies;
- ``palette``: a palette image whose used colours are grey counts by grey level, else every index
  but 0 and 255 (void) is foreground. `decode_labels` gives the indices themselves.

A picture in place of a mask, or values that do not say what is foreground (say 0, 3, 7), raise
`ImageError`: a guess would train on garbage in silence.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsam_base import png

if TYPE_CHECKING:
    from PIL import Image
from hqsam_datasets.formats.image_files import (
    MAX_PIXELS,
    PNG_SIGNATURE,
    ImageError,
    check_png,
    check_size,
    high_byte,
    load_pixels,
    mode_of,
    opencv_decode,
    opened,
)

MaskEncoding = Literal["0/255", "0/1", "soft", "palette", "alpha", "rgb"]
MASK_ENCODINGS: tuple[MaskEncoding, ...] = get_args(MaskEncoding)
FOREGROUND = 128
"""A mask value above this is foreground (the official code's threshold)."""
_GREY_TOLERANCE = 2


@dataclass(frozen=True, slots=True)
class DecodedMask:
    """Soft uint8 [H, W] in 0..255, the encoding it was found in, and the fraction of in-between pixels."""

    mask: NDArray[np.uint8]
    encoding: MaskEncoding
    soft_fraction: float

    @property
    def foreground(self) -> NDArray[np.bool_]:
        """Bool [H, W]: above 128."""
        return self.mask > FOREGROUND


def decode_mask(data: bytes) -> DecodedMask:
    """Decode one mask and name its encoding, by the rules of this module. EXIF orientation is not applied.

    Raises:
        ImageError: `unreadable_mask`, `not_a_mask`, `ambiguous_mask`, `too_large`.
    """
    values = _decode_grey_fast(data)
    if values is not None:
        return _from_grey(values)
    with opened(data, "unreadable_mask") as image:
        check_size(image)
        load_pixels(image, "unreadable_mask")
        if image.mode == "P":
            return _from_palette(image)
        if image.mode in ("RGB", "RGBA", "LA"):
            return _from_channels(np.asarray(image))
        if mode_of(image) == "other":
            raise ImageError("ambiguous_mask", f"{image.format} mask of mode {image.mode}")
        values = np.asarray(image)
        if values.dtype == np.uint16 and values.max(initial=0) <= 255:
            return _from_grey(values.astype(np.uint8))  # 8-bit values in a 16-bit file
        return _from_grey(high_byte(values))


def decode_stored_mask(data: bytes) -> NDArray[np.uint8]:
    """Decode a mask as the normalise stage stores it, an 8-bit grey PNG of 0..255, to soft uint8 [H, W].

    Raises:
        ImageError: `unreadable_mask` for anything else.
    """
    values = _decode_grey_fast(data)
    if values is None:
        raise ImageError("unreadable_mask", "not an 8-bit grey PNG")
    return values


def decode_labels(data: bytes) -> NDArray[np.uint8]:
    """Decode a label map (palette indices or grey values, as they are stored in any depth) to uint8 [H, W].

    Raises:
        ImageError: `unreadable_mask`, or `ambiguous_mask` for colour images, whose values are no
            labels, and for labels above 255.
    """
    with opened(data, "unreadable_mask") as image:
        check_size(image)
        if image.mode not in ("P", "L", "1") and mode_of(image) != "I;16":
            problem = f"mode {image.mode} holds no label indices: use a palette or grey PNG"
            raise ImageError("ambiguous_mask", problem)
        stored: NDArray[Any] | None
        if image.format == "PNG":
            try:  # Pillow stretches grey values of 2 and 4 bits to 0..255
                stored = png.decode_values(data)
            except ValueError as error:
                raise ImageError("unreadable_mask", str(error)) from error
        else:
            load_pixels(image, "unreadable_mask")
            stored = np.asarray(image)
    if stored is None:
        raise ImageError("unreadable_mask", "the PNG cannot be decoded")
    if (largest := int(stored.max())) > 255:
        raise ImageError("ambiguous_mask", f"labels up to {largest}: number them 1 to 254")
    return stored.astype(np.uint8)


def histogram(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Counts of the 256 values of a uint8 array; int64 [256]."""
    if values.ndim == 2 and values.size < 1 << 24:  # OpenCV counts in float32: exact below 2^24
        counts = cv2.calcHist([values], [0], None, [256], [0, 256])
        return np.asarray(counts, dtype=np.int64).reshape(-1)
    return np.bincount(values.reshape(-1), minlength=256)


def _decode_grey_fast(data: bytes) -> NDArray[np.uint8] | None:
    """An 8-bit grey PNG (bit depth 8, colour type 0, no transparency), else None."""
    is_grey = data[:8] == PNG_SIGNATURE and data[12:16] == b"IHDR" and data[24:26] == b"\x08\x00"
    height, width = int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
    if data[:8] == PNG_SIGNATURE:
        check_png(data, "unreadable_mask")
    if not is_grey or not 0 < height * width <= MAX_PIXELS:
        return None
    values = opencv_decode(data, cv2.IMREAD_UNCHANGED)
    return values if values is not None and values.ndim == 2 else None


def _from_grey(values: NDArray[np.uint8], encoding: MaskEncoding | None = None) -> DecodedMask:
    between = _count(values, 1, 254)
    if between == 0:
        return DecodedMask(values, encoding or "0/255", 0.0)
    largest = int(values.max())
    if largest == 1:
        return DecodedMask(values * np.uint8(255), encoding or "0/1", 0.0)
    soft = between / values.size
    if soft > 0.5 and _count(values, 16, 239) / values.size > 0.5:
        raise ImageError(
            "not_a_mask", f"{soft:.0%} of the pixels are neither 0 nor 255: this is a picture"
        )
    if largest <= FOREGROUND:
        counts = histogram(values)
        used = np.flatnonzero(counts)
        shown = ", ".join(f"{value}: {counts[value]}" for value in used[:8])
        more = ", ..." if len(used) > 8 else ""
        raise ImageError(
            "ambiguous_mask", f"no value above {FOREGROUND}; histogram {{{shown}{more}}}"
        )
    return DecodedMask(values, encoding or "soft", soft)


def _count(values: NDArray[np.uint8], low: int, high: int) -> int:
    """Number of pixels in low..high, both included."""
    return int(cv2.countNonZero(cv2.inRange(values, low, high)))


def _from_palette(image: Image.Image) -> DecodedMask:
    indices = np.array(image, dtype=np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    stored = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)[:256]
    palette[: len(stored)] = stored
    used = np.flatnonzero(histogram(indices))
    colours = palette[used]
    if (np.ptp(colours.astype(int), axis=1) == 0).all() and colours.max(initial=0) > FOREGROUND:
        return _from_grey(palette[:, 0][indices], "palette")
    if len(used) > 64:
        raise ImageError(
            "not_a_mask", f"a palette image with {len(used)} colours: this is a picture"
        )
    return DecodedMask(
        np.where((indices > 0) & (indices < 255), 255, 0).astype(np.uint8), "palette", 0.0
    )


def _from_channels(values: NDArray[np.uint8]) -> DecodedMask:
    has_alpha = values.shape[2] in (2, 4)
    colour, alpha = (values[..., :-1], values[..., -1]) if has_alpha else (values, None)
    grey = np.ascontiguousarray(colour[..., 0])
    varies = bool(np.ptp(grey))
    if _channels_agree(colour) and varies:
        with contextlib.suppress(ImageError):
            return _from_grey(grey, "rgb")
    if alpha is not None and np.ptp(alpha):
        return _from_grey(np.ascontiguousarray(alpha), "alpha")
    if _channels_agree(colour):
        return _from_grey(grey, "rgb")
    inside = colour.any(axis=2)
    inks = colour[inside]
    if inside.all() or not (inks == inks[0]).all():
        raise ImageError(
            "not_a_mask", "a colour image with more than one colour on black: this is a picture"
        )
    return DecodedMask(np.where(inside, 255, 0).astype(np.uint8), "rgb", 0.0)


def _channels_agree(colour: NDArray[np.uint8]) -> bool:
    if colour.shape[2] == 1:
        return True
    difference = (
        cv2.absdiff(colour[..., 0], colour[..., 1]).max(),
        cv2.absdiff(colour[..., 0], colour[..., 2]).max(),
    )
    return int(max(difference)) <= _GREY_TOLERANCE
