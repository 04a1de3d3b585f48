"""Images from encoded bytes, by written rules.

They become ``uint8 [H, W, 3]`` RGB, upright:

- the EXIF orientation is applied, wherever in the file it stands, and one that only XMP tells;
- grey (``L``, ``1``) is replicated to three channels; ``LA`` and ``RGBA`` lose their alpha (the
  colour channels are taken as stored, nothing is composited); a palette is looked up; ``CMYK``
  (Adobe's inversion included), ``YCbCr`` and ``LAB`` are converted by Pillow;
- samples of more than 8 bits keep their high byte, relative to the largest value that the file
  declares. A picture that uses only the lowest sixteenth of that range is refused: it holds 12-bit
  values in a 16-bit file, and would be nearly black. 32-bit integer and float images are refused,
  because their range is unknown.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsam_datasets.formats.image_files import (
    SWAPPING,
    ImageError,
    ImageProbe,
    check_png,
    high_byte,
    load_pixels,
    mode_of,
    opencv_decode,
    opened,
    orientation_of,
    probe,
    silence_opencv,
)

_DARKEST = 16
"""Of 256: a deep picture without a single brighter pixel holds 12-bit or 8-bit values."""
_INVERSE = {6: 8, 8: 6}  # EXIF orientations that do not undo themselves
_UNKNOWN_RANGE = {"F": "floating-point samples", "I": "32-bit samples"}


def decode_image(
    data: bytes, *, apply_exif: bool = True, found: ImageProbe | None = None
) -> NDArray[np.uint8]:
    """Decode to uint8 [H, W, 3] RGB by the rules of this module; upright unless `apply_exif` is false.

    `found` is the result of `probe`, where the caller has it already.

    Raises:
        ImageError: `unreadable_image` (damaged, truncated), `unsupported_mode` (also 12-bit values
            in a 16-bit file),
            `too_large`.
    """
    found = found or probe(data)
    rgb = _decode_fast(data, found)
    if rgb is None:
        rgb = _decode_slow(data)
    if found.depth > 8 and int(rgb.max()) < _DARKEST + (
        found.format == "PPM"
    ):  # whose values Pillow rounds
        raise ImageError(
            "unsupported_mode",
            f"{found.depth}-bit samples below {_DARKEST << (found.depth - 8)} only: its high "
            f"bytes are nearly black",
            f"scale its values to 0..{(1 << found.depth) - 1}, or convert it to 8 bit",
        )
    return upright(rgb, found.orientation) if apply_exif else rgb


def upright(array: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply an EXIF orientation (1..8) to [H, W] or [H, W, C]; contiguous result."""
    if orientation in SWAPPING:
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def encode_png(array: NDArray[np.uint8]) -> bytes:
    """Encode uint8 [H, W] or RGB [H, W, 3] as PNG (zlib level 1: fast, hardly larger for masks)."""
    stored = array if array.ndim == 2 else cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(
        ".png", np.ascontiguousarray(stored), [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    if not done:
        raise ValueError(f"PNG encoding failed for an array of shape {array.shape}")
    return bytes(data.tobytes())


def _decode_fast(data: bytes, found: ImageProbe) -> NDArray[np.uint8] | None:
    # OpenCV decodes these modes bit-identically to Pillow in two thirds of the time, and refuses
    # damaged streams.
    if found.format == "PNG":
        check_png(data, "unreadable_image")
    if found.format == "JPEG2000" and found.mode == "RGB" and found.depth > 8:
        # The high byte of deep colours: Pillow 13 rounds it, and white overflows to black.
        silence_opencv()
        deep = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
        )
        if deep is None or deep.dtype != np.uint16 or deep.ndim != 3:
            return None
        colours = deep[..., 2::-1].astype(np.uint16, copy=False)
        return np.ascontiguousarray((colours >> (found.depth - 8)).astype(np.uint8))
    if found.format not in ("JPEG", "PNG") or found.mode not in ("RGB", "L"):
        return None
    return opencv_decode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def _decode_slow(data: bytes) -> NDArray[np.uint8]:
    with opened(data) as image:
        mode = mode_of(image)
        if mode == "other":
            kind = _UNKNOWN_RANGE.get(image.mode)
            cure = (
                "scale its values to 0..255 and save it as 8-bit grey or RGB"
                if kind
                else "convert it to 8-bit RGB"
            )
            text = f"{image.format} image of mode {image.mode}" + (
                f", {kind} of unknown range" if kind else ""
            )
            raise ImageError("unsupported_mode", text, cure)
        # Pillow turns a TIFF upright by itself; `decode_image` does it for all formats alike.
        turned = orientation_of(image, data) if image.format == "TIFF" else 1
        load_pixels(image, "unreadable_image")
        if mode in ("I;16", "L", "1"):
            values = np.asarray(image)
            grey = high_byte(values.astype(np.uint16) if mode == "I;16" else values)
            rgb = np.repeat(grey[..., None], 3, axis=2)
        else:
            stored = image.convert("RGBA") if mode == "P" else image
            rgb = np.array(stored.convert("RGB"))
        return upright(rgb, _INVERSE.get(turned, turned))
