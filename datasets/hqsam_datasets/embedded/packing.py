"""Deterministic encoders and zip files for the embedded archives.

The same content gives the same bytes on every call: fixed JPEG settings, members sorted by name,
the zip format's oldest date, no compression of members (deflate output differs between zlib
builds).
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8Image = npt.NDArray[np.uint8]
Member = tuple[str, bytes]

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_EXIF_ORIENTATION = 0x0112
# EXIF orientation -> quarter turns, counter-clockwise, from the upright image to the stored one.
_STORED_TURNS = {1: 0, 3: 2, 6: 1, 8: 3}


def rng_of(*parts: object) -> np.random.Generator:
    """Return a generator that depends only on the given parts (archive, item name, ...), not on any call made before."""
    text = "\x1f".join(str(part) for part in parts)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


def jpeg(
    image: UInt8Image, *, quality: int = 92, orientation: int = 1, mode: str | None = None
) -> bytes:
    """Encode a JPEG.

    Args:
        image: uint8 [H, W, 3] RGB, upright.
        quality: libjpeg quality, 1..95.
        orientation: EXIF orientation (1, 3, 6, 8). The pixels are stored turned, so that a reader
            that honours the tag gets ``image``.
        mode: Pillow mode to store ("L" for a grey file, "CMYK" for print files); None keeps RGB.

    Returns:
        The file's bytes.
    """
    picture = Image.fromarray(np.ascontiguousarray(np.rot90(image, _STORED_TURNS[orientation])))
    if mode is not None:
        picture = picture.convert(mode)
    options: dict[str, Any] = {}
    if orientation != 1:
        exif = Image.Exif()
        exif[_EXIF_ORIENTATION] = orientation
        options["exif"] = exif
    return _saved(picture, "JPEG", quality=quality, **options)


def png(array: UInt8Image) -> bytes:
    """Encode uint8 [H, W] (grey), [H, W, 3] (RGB) or [H, W, 4] (RGBA) as PNG."""
    return _saved(Image.fromarray(np.ascontiguousarray(array)), "PNG")


def palette_png(labels: UInt8Image) -> bytes:
    """Encode a label map uint8 [H, W] as a palette PNG (mode P) with the colours that PASCAL and DAVIS use."""
    picture = Image.fromarray(np.ascontiguousarray(labels))
    # PASCAL VOC's colour map: the label's bits dealt to R, G and B from the top bit down.
    label = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((label >> (3 * bit + channel)) & 1) << (7 - bit)).astype(
                np.uint8
            )
    picture.putpalette(palette.tobytes())
    return _saved(picture, "PNG")


def _saved(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def json_bytes(value: Any) -> bytes:
    """Return compact JSON, as annotation files are published, with the keys in the given order."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def zip_bytes(members: Iterable[Member], *, folders: bool = False) -> bytes:
    """Pack members into a zip file.

    Args:
        members: (name, bytes) pairs in any order; names with forward slashes.
        folders: whether to write an entry for each folder too, as the ``zip`` program does.

    Returns:
        The zip file's bytes.
    """
    files = dict(members)
    names = set(files)
    if folders:
        names |= {
            f"{parent}/"
            for name in files
            for parent in map(str, Path(name).parents)
            if parent != "."
        }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(names):
            info = zipfile.ZipInfo(name, date_time=_ZIP_EPOCH)
            info.create_system = 3  # Unix, whatever machine this runs on
            info.external_attr = (
                ((0o40755 << 16) | 0x10) if name.endswith("/") else (0o100644 << 16)
            )
            archive.writestr(info, files.get(name, b""))
    return buffer.getvalue()
