"""Whether a PNG file arrived whole: libpng complains on stderr, and Pillow does not look at the pixels' checksums."""

from __future__ import annotations

import zlib

_SIGNATURE_BYTES = 8


def png_damage(data: bytes) -> str | None:
    """What is wrong with the chunks of a PNG file, by their lengths and CRCs; None if nothing is."""
    position = _SIGNATURE_BYTES
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        stored = data[end - 4 : end]
        if end > len(data) or zlib.crc32(memoryview(data)[position + 4 : end - 4]) != int.from_bytes(stored):
            return f"PNG chunk {kind!r} at byte {position} is damaged or cut off"
        if kind == b"IEND":
            return None
        position = end
    return "the PNG file is truncated"
