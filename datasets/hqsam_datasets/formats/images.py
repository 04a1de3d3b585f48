"""Images and masks from encoded bytes, by written rules.

Images become ``uint8 [H, W, 3]`` RGB, upright:

- the EXIF orientation is applied, wherever in the file it stands, and one that only XMP tells;
- grey (``L``, ``1``) is replicated to three channels; ``LA`` and ``RGBA`` lose their alpha (the
  colour channels are taken as stored, nothing is composited); a palette is looked up; ``CMYK``
  (Adobe's inversion included), ``YCbCr`` and ``LAB`` are converted by Pillow;
- samples of more than 8 bits keep their high byte, relative to the largest value that the file
  declares. A picture that uses only the lowest sixteenth of that range is refused: it holds 12-bit
  values in a 16-bit file, and would be nearly black. 32-bit integer and float images are refused,
  because their range is unknown.

Masks become soft ``uint8 [H, W]`` in 0..255 (foreground above 128) together with the name of the
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
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

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
MaskEncoding = Literal["0/255", "0/1", "soft", "palette", "alpha", "rgb"]
MASK_ENCODINGS: tuple[MaskEncoding, ...] = get_args(MaskEncoding)

FOREGROUND = 128
"""A mask value above this is foreground (the official code's threshold)."""
MAX_PIXELS = png.MAX_PIXELS
_SWAPPING = frozenset({5, 6, 7, 8})
_GREY_TOLERANCE = 2
_DARKEST = 16
"""Of 256: a deep picture without a single brighter pixel holds 12-bit or 8-bit values."""
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274  # TIFF's tags, the last EXIF's, too
_INVERSE = {6: 8, 8: 6}  # other orientations undo themselves
# start of codestream, size marker; 38 bytes on: components, then their bits less one
_JPEG2000_SIZE = b"\xff\x4f\xff\x51"
_UNKNOWN_RANGE = {"F": "floating-point samples", "I": "32-bit samples"}


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
        swapped = self.orientation in _SWAPPING
        return (self.width, self.height) if swapped else (self.height, self.width)


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


def probe(data: bytes) -> ImageProbe:
    """Read the header only.

    Raises:
        ImageError: `unreadable_image` for bytes that are not an image, `too_large` for more than
            `MAX_PIXELS`.
    """
    size = plain_jpeg_size(data)
    if size is not None:
        return ImageProbe("JPEG", "RGB", 1, *size)
    with _opened(data) as image:
        return _probe(image, data)


def white_is_zero(data: bytes) -> bool:
    """Say whether a file is a TIFF whose tag says that 0 is white (MINISWHITE).

    Raises:
        ImageError: as `probe`.
    """
    if data[:4] not in _TIFF:
        return False
    with _opened(data) as image:
        # Without the tag Pillow takes 0 for white too.
        return bool(_tiff_tag(image, _PHOTOMETRIC, 0) == 0)


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
    if orientation in _SWAPPING:
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def decode_mask(data: bytes) -> DecodedMask:
    """Decode one mask and name its encoding, by the rules of this module. EXIF orientation is not applied.

    Raises:
        ImageError: `unreadable_mask`, `not_a_mask`, `ambiguous_mask`, `too_large`.
    """
    values = _decode_grey_fast(data)
    if values is not None:
        return _from_grey(values)
    with _opened(data, "unreadable_mask") as image:
        _check_size(image)
        _load(image, "unreadable_mask")
        if image.mode == "P":
            return _from_palette(image)
        if image.mode in ("RGB", "RGBA", "LA"):
            return _from_channels(np.asarray(image))
        return _from_grey(_grey_of(image))


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
    with _opened(data, "unreadable_mask") as image:
        _check_size(image)
        values = _stored_values(data, image)
    if (largest := int(values.max())) > 255:
        raise ImageError("ambiguous_mask", f"labels up to {largest}: number them 1 to 254")
    return values.astype(np.uint8)


def _stored_values(data: bytes, image: Image.Image) -> NDArray[Any]:
    if image.mode not in ("P", "L", "1") and _mode_of(image) != "I;16":
        raise ImageError(
            "ambiguous_mask", f"mode {image.mode} holds no label indices: use a palette or grey PNG"
        )
    if image.format != "PNG":
        _load(image, "unreadable_mask")
        return np.asarray(image)
    try:  # Pillow stretches grey values of 2 and 4 bits to 0..255
        values = png.decode_values(data)
    except ValueError as error:
        raise ImageError("unreadable_mask", str(error)) from error
    if values is None:
        raise ImageError("unreadable_mask", "the PNG cannot be decoded")
    return values


def encode_png(array: NDArray[np.uint8]) -> bytes:
    """Encode uint8 [H, W] or RGB [H, W, 3] as PNG (zlib level 1: fast, hardly larger for masks)."""
    stored = array if array.ndim == 2 else cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(
        ".png", np.ascontiguousarray(stored), [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    if not done:
        raise ValueError(f"PNG encoding failed for an array of shape {array.shape}")
    return bytes(data.tobytes())


def histogram(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Counts of the 256 values of a uint8 array; int64 [256]."""
    if values.ndim == 2 and values.size < 1 << 24:  # OpenCV counts in float32: exact below 2^24
        counts = cv2.calcHist([values], [0], None, [256], [0, 256])
        return np.asarray(counts, dtype=np.int64).reshape(-1)
    return np.bincount(values.reshape(-1), minlength=256)


def _decode_fast(data: bytes, found: ImageProbe) -> NDArray[np.uint8] | None:
    # OpenCV decodes these modes bit-identically to Pillow in two thirds of the time, and refuses
    # damaged streams.
    if found.format == "PNG":
        _check_png(data, "unreadable_image")
    if found.format == "JPEG2000" and found.mode == "RGB" and found.depth > 8:
        return _deep_jpeg2000(data, found.depth)
    if found.format not in ("JPEG", "PNG") or found.mode not in ("RGB", "L"):
        return None
    return _opencv_decode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def _deep_jpeg2000(data: bytes, depth: int) -> NDArray[np.uint8] | None:
    """Return the high byte of deep colours; Pillow 13 rounds it, and white overflows to black."""
    _silence_opencv()
    deep = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if deep is None or deep.dtype != np.uint16 or deep.ndim != 3:
        return None
    colours = deep[..., 2::-1].astype(np.uint16, copy=False)
    return np.ascontiguousarray((colours >> (depth - 8)).astype(np.uint8))


def _decode_slow(data: bytes) -> NDArray[np.uint8]:
    with _opened(data) as image:
        mode = _mode_of(image)
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
        turned = _orientation_of(image, data) if image.format == "TIFF" else 1
        _load(image, "unreadable_image")
        return upright(_as_rgb(image, mode), _INVERSE.get(turned, turned))


def _as_rgb(image: Image.Image, mode: ImageMode) -> NDArray[np.uint8]:
    if mode in ("I;16", "L", "1"):
        values = np.asarray(image)
        grey = _high_byte(values.astype(np.uint16) if mode == "I;16" else values)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGBA").convert("RGB") if mode == "P" else image.convert("RGB"))


def _decode_grey_fast(data: bytes) -> NDArray[np.uint8] | None:
    """An 8-bit grey PNG (bit depth 8, colour type 0, no transparency), else None."""
    is_grey = data[:8] == _PNG and data[12:16] == b"IHDR" and data[24:26] == b"\x08\x00"
    height, width = int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
    if data[:8] == _PNG:
        _check_png(data, "unreadable_mask")
    if not is_grey or not 0 < height * width <= MAX_PIXELS:
        return None
    values = _opencv_decode(data, cv2.IMREAD_UNCHANGED)
    return values if values is not None and values.ndim == 2 else None


def _check_png(data: bytes, reason: RejectReason) -> None:
    damage = png_damage(data)
    if damage is not None:
        raise ImageError(reason, damage)


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
        raise ImageError(
            "ambiguous_mask", f"no value above {FOREGROUND}; {_describe(histogram(values))}"
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


def _grey_of(image: Image.Image) -> NDArray[np.uint8]:
    if _mode_of(image) == "other":
        raise ImageError("ambiguous_mask", f"{image.format} mask of mode {image.mode}")
    values = np.asarray(image)
    if values.dtype == np.uint16 and values.max(initial=0) <= 255:
        return values.astype(np.uint8)  # 8-bit values in a 16-bit file
    return _high_byte(values)


def _high_byte(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.itemsize == 2:
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    return values.astype(np.uint8)


def _describe(counts: NDArray[np.int64]) -> str:
    used = np.flatnonzero(counts)
    shown = ", ".join(f"{value}: {counts[value]}" for value in used[:8])
    return f"histogram {{{shown}{', ...' if len(used) > 8 else ''}}}"


@contextlib.contextmanager
def _opened(data: bytes, reason: RejectReason = "unreadable_image") -> Iterator[Image.Image]:
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
    width, height = _check_size(image)
    orientation, depth = _orientation_of(image, data), _depth_of(image, data)
    # Of a turned TIFF Pillow gives the size after the turn.
    if image.format == "TIFF" and _tiff_tag(image, _ORIENTATION, 1) in _SWAPPING:
        width, height = height, width
    return ImageProbe(image.format or "unknown", _mode_of(image), orientation, height, width, depth)


def _check_size(image: Image.Image) -> tuple[int, int]:
    """Width and height."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError("too_large", f"{width}x{height} pixels")
    return width, height


def _mode_of(image: Image.Image) -> ImageMode:
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


def _orientation_of(image: Image.Image, data: bytes) -> int:
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


def _load(image: Image.Image, reason: RejectReason) -> None:
    try:
        image.load()
    except Exception as error:  # see _opened
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


def _opencv_decode(data: bytes, flags: int) -> NDArray[np.uint8] | None:
    _silence_opencv()
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if decoded is None else np.asarray(decoded, dtype=np.uint8)


@functools.cache
def _silence_opencv() -> None:
    """OpenCV complains on stderr about damaged files; the exception says it better.

    Once and for all: its log level belongs to the process, so threads that set it back would do so
    to each other.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
