"""Whether a PNG file arrived whole: libpng complains on stderr, and Pillow does not look at the pixels' checksums."""

from __future__ import annotations

from collections import deque

from hqsam_base import png


def png_damage(data: bytes) -> str | None:
    """What is wrong with the chunks of a PNG file, by their lengths and CRCs; None if nothing is."""
    try:
        deque(png.chunks(data), maxlen=0)
    except ValueError as error:
        return str(error)
    return None
