"""The curves as a TensorBoard event file, written step by step (`tensorboard --logdir models`).

TensorBoard's format is a sequence of records, each the length of a protocol-buffer message, that
length's masked CRC-32C, the message and its masked CRC-32C. Only scalars are written, so the two
messages needed are put together here.

The file is a function of the numbers in it: the time of an event is its step, in seconds. A run
that is resumed writes its past again, byte for byte, and goes on; whoever reads along notices
nothing.
"""

# Why not TensorBoard's own writer: tensorboard 2.21 puts the time, the host's name and the time of
# its version event into name and file, so two equal runs leave different outputs and DVC would
# store both, and a resumed run begins a second file. It also brings 161 MB of packages (0.29 s and
# 42 MB to import; tensorboardX 2.6.5 takes 1.2 s and
# 220 MB), this file 0.02 s and 6 MB.
from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from hqsam_base.atomic import disk_full_is_user_error

NAME = "events.out.tfevents.0.hqsam"
_CASTAGNOLI = 0x82F63B78
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5


def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_CASTAGNOLI if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


_TABLE = _table()


def masked_crc(data: bytes) -> int:
    """CRC-32C of some bytes, rotated and shifted as TensorFlow's record files want it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def record(message: bytes) -> bytes:
    """One record of a file."""
    length = struct.pack("<Q", len(message))
    return (
        length
        + struct.pack("<I", masked_crc(length))
        + message
        + struct.pack("<I", masked_crc(message))
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, kind: int, content: bytes) -> bytes:
    length = _varint(len(content)) if kind == _BYTES else b""
    return _varint(number << 3 | kind) + length + content


def _event(step: int, content: bytes) -> bytes:
    time = _field(1, _DOUBLE, struct.pack("<d", float(step)))
    return record(time + _field(2, _VARINT, _varint(step)) + content)


def header() -> bytes:
    """The first record of a file."""
    return _event(0, _field(3, _BYTES, b"brain.Event:2"))


def scalars(step: int, values: Mapping[str, float]) -> bytes:
    """The record of some scalars.

    Args:
        step: optimiser steps done.
        values: by tag, e.g. `train/loss`.
    """
    rows = (
        _field(
            1, _BYTES, _field(1, _BYTES, tag.encode()) + _field(2, _FLOAT, struct.pack("<f", value))
        )
        for tag, value in values.items()
    )
    return _event(step, _field(5, _BYTES, b"".join(rows)))


class EventFile:
    """Writes the file of a run; use as a context manager.

    Args:
        folder: where; None: write nothing (only one of several processes writes).
        past: what a resumed run has behind it, as (step, values).
    """

    def __init__(
        self, folder: Path | None, past: Sequence[tuple[int, Mapping[str, float]]]
    ) -> None:
        self._file: BinaryIO | None = None
        if folder is not None:
            # In place and not by a rename: a TensorBoard that reads along keeps its file open.
            self._path = folder / NAME
            self._file = self._path.open("r+b" if self._path.exists() else "wb")
            self._append(header() + b"".join(scalars(step, values) for step, values in past))
            self._file.truncate()

    def __enter__(self) -> Self:
        """The file itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        if self._file is not None:
            with contextlib.suppress(
                OSError
            ):  # a full disk was reported when the records were appended
                self._file.close()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append scalars, for whoever reads along at once."""
        if self._file is not None:
            self._append(scalars(step, values))

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        with disk_full_is_user_error(
            self._path, cure="free some space, then run it again: it resumes from last.pt"
        ):
            self._file.write(data)
            self._file.flush()
