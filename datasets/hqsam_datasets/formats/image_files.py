"""What the file of a picture says about itself, and opening it: nothing is decoded before its size is known."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsam_base import png
from hqsam_datasets.formats.jpeg_header import plain_jpeg_size
from hqsam_datasets.formats.manifest import RejectReason
from hqsam_datasets.formats.png_chunks import png_damage, tells_after_pixels

if TYPE_CHECKING:
    from PIL import Image
    from PIL.TiffImagePlugin import TiffImageFile

ImageMode = Literal["RGB", "L", "LA", "RGBA", "P", "1", "I;16", "CMYK", "YCbCr", "LAB", "other"]
MAX_PIXELS = png.MAX_PIXELS
SWAPPING = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap height and width."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274  # TIFF's tags, the last EXIF's, too
# start of codestream, size marker; 38 bytes on: components, then their bits less one
_JPEG2000_SIZE = b"\xff\x4f\xff\x51"


class ImageError(ValueError):
    """An image or mask that cannot be used; `reason` is the reject reason, the text the detail, `cure` what to do."""

    def __init__(self, reason: RejectReason, detail: str, cure: str | None = None) -> None:
        super().__init__(reason, detail, cure)
        self.reason: RejectReason = reason
        self.detail = detail
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.reason}: {self.told}"

    @property
    def told(self) -> str:
        """Detail and cure."""
        return f"{self.detail}; {self.cure}" if self.cure else self.detail


@dataclass(frozen=True, slots=True)
class ImageProbe:
    """What the header says: format (`JPEG`, ...), mode as found, EXIF orientation 1..8, size as stored, bits a sample."""

    format: str
    mode: ImageMode
    orientation: int
    height: int
    width: int
    depth: int = 8

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) after the EXIF orientation."""
        swapped = self.orientation in SWAPPING
        return (self.width, self.height) if swapped else (self.height, self.width)


def probe(data: bytes) -> ImageProbe:
    """Read the header only.

    Raises:
        ImageError: `unreadable_image` for bytes that are not an image, `too_large` for more than
            `MAX_PIXELS`.
    """
    size = plain_jpeg_size(data)
    if size is not None:
        return ImageProbe("JPEG", "RGB", 1, *size)
    with opened(data) as image:
        return _probe(image, data)


def white_is_zero(data: bytes) -> bool:
    """Say whether a file is a TIFF whose tag says that 0 is white (MINISWHITE).

    Raises:
        ImageError: as `probe`.
    """
    if data[:4] not in _TIFF:
        return False
    with opened(data) as image:
        # Without the tag Pillow takes 0 for white too.
        return bool(_tiff_tag(image, _PHOTOMETRIC, 0) == 0)


def check_png(data: bytes, reason: RejectReason) -> None:
    """Raise `ImageError` with a reason for a PNG that is damaged where decoders do not look."""
    damage = png_damage(data)
    if damage is not None:
        raise ImageError(reason, damage)


def high_byte(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Bring stored values to 0..255: bits become 0 and 255, of 16 bits the high byte counts."""
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.itemsize == 2:
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    return values.astype(np.uint8)


@contextlib.contextmanager
def opened(data: bytes, reason: RejectReason = "unreadable_image") -> Iterator[Image.Image]:
    """Open a picture with Pillow; its pixels are not decoded yet.

    Raises:
        ImageError: with the reason, or `too_large`.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", str(error)) from error
    except Exception as error:  # Pillow's parsers raise almost anything on damaged headers
        raise ImageError(reason, *_text(error, data)) from error
    with image:
        yield image


def _probe(image: Image.Image, data: bytes) -> ImageProbe:
    width, height = check_size(image)
    orientation, depth = orientation_of(image, data), _depth_of(image, data)
    # Of a turned TIFF Pillow gives the size after the turn.
    if image.format == "TIFF" and _tiff_tag(image, _ORIENTATION, 1) in SWAPPING:
        width, height = height, width
    return ImageProbe(image.format or "unknown", mode_of(image), orientation, height, width, depth)


def check_size(image: Image.Image) -> tuple[int, int]:
    """Width and height."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError("too_large", f"{width}x{height} pixels")
    return width, height


def mode_of(image: Image.Image) -> ImageMode:
    """Return the mode by the names of the manifest."""
    mode = image.mode
    if mode in ("RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "YCbCr", "LAB"):
        return mode  # type: ignore[return-value]
    # Pillow brings the values of a deep PGM to 0..65535 by its largest value, in 32 bits.
    is_16_bit = mode.startswith("I;16") or (mode == "I" and image.format == "PPM")
    return "I;16" if is_16_bit else "other"


def _depth_of(image: Image.Image, data: bytes) -> int:
    """Bits a sample as the file has them: Pillow keeps only the high byte of deep colours and does not say so."""
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        bits = _tiff_tag(image, _BITS_PER_SAMPLE, None)
        return max(bits) if isinstance(bits, tuple) and bits else 8
    if image.format == "JPEG2000":
        size = data.find(_JPEG2000_SIZE)
        return (data[size + 42] & 0x7F) + 1 if 0 <= size < len(data) - 42 else 8
    if image.format == "PPM":
        arguments = cast("Any", image).tile[0].args
        largest = arguments[1] if isinstance(arguments, tuple) else 255
        return 16 if image.mode == "I" or largest > 255 else 8
    return 16 if image.mode.startswith("I;16") else 8


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    return cast("TiffImageFile", image).tag_v2.get(tag, default)


def orientation_of(image: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation, 1..8, wherever in the file it stands; 1 where none is told."""
    from PIL import Image

    # Asked for the EXIF of a PNG, Pillow decodes all pixels to get at what may follow them.
    read = (
        Image.Image.getexif
        if image.format == "PNG" and not tells_after_pixels(data)
        else type(image).getexif
    )
    try:
        value = read(image).get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block is no reason to refuse the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def load_pixels(image: Image.Image, reason: RejectReason) -> None:
    """Decode an opened picture; `ImageError` with the reason if it is damaged."""
    try:
        image.load()
    except Exception as error:  # see opened
        raise ImageError(reason, f"{type(error).__name__}: {error}") from error


def _text(error: Exception, data: bytes) -> tuple[str, str | None]:
    """What is wrong with bytes that Pillow does not open, and what to do, where that is known."""
    if not data:
        return "the file is empty", None
    if data.lstrip()[:1] == b"<":
        return "the file is HTML or XML, not an image", None
    if "BytesIO" not in str(error):
        return f"{type(error).__name__}: {error}", None
    if data[:4] in _TIFF:
        return (
            "a TIFF of bands or samples that are not read",
            "convert it to 8-bit RGB or grey, three bands or one",
        )
    return "not an image of a known format", None


def opencv_decode(data: bytes, flags: int) -> NDArray[np.uint8] | None:
    """Decode by OpenCV to uint8, as `flags` say; None for what it cannot decode."""
    silence_opencv()
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if decoded is None else np.asarray(decoded, dtype=np.uint8)


@functools.cache
def silence_opencv() -> None:
    """OpenCV complains on stderr about damaged files; the exception says it better.

    Once and for all: its log level belongs to the process, so threads that set it back would do so
    to each other.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
