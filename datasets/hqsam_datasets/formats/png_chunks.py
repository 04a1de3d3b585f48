"""What the chunks of a PNG file say before its pixels are decoded.

Whether it arrived whole: libpng complains on stderr, and Pillow does not look at the pixels'
checksums. And whether something that may turn the picture stands behind them, which the
specification allows and ImageMagick 6 does.
"""

from __future__ import annotations

from collections import deque

from hqsam_base import png

_TELLING = frozenset({b"eXIf", b"iTXt", b"tEXt", b"zTXt"})  # EXIF, and XMP or EXIF as text


def tells_after_pixels(data: bytes) -> bool:
    """Return whether a PNG has chunks after its image data, which may hold an orientation."""
    position, pixels = len(png.SIGNATURE), False
    while position + 12 <= len(data):
        kind = data[position + 4 : position + 8]
        if pixels and kind in _TELLING:
            return True
        pixels = pixels or kind == b"IDAT"
        position += 12 + int.from_bytes(data[position : position + 4])
    return False


def png_damage(data: bytes) -> str | None:
    """What is wrong with the chunks of a PNG file, by their lengths and CRCs; None if nothing is."""
    try:
        deque(png.chunks(data), maxlen=0)
    except ValueError as error:
        return str(error)
    return None
