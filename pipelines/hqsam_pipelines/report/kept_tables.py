"""Per-instance tables and matches in git: small archives in reports/instances/, so that a fresh clone can compare commits.

`<benchmark>-<model>.tar.xz` holds the Parquet files of data/scores/<benchmark>-<model>/ and the MD5
of the metrics file that they belong to. Tables of large sets stay in DVC's cache alone.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from pathlib import Path

from hqsam_base.atomic import atomic_folder
from hqsam_base.errors import UserError

FOLDER = "reports/instances"
SUFFIX = ".tar.xz"
MOST_BYTES = 8 << 20
"""Parquet files of one benchmark and model that are larger than this together stay out of git."""

_METRICS = "metrics.md5"
_NAMES = ("instances.parquet", "matches.parquet", "truth.parquet")
_MOST_UNPACKED = 4 * MOST_BYTES
_MOST_MEMBERS = 16
"""More than any version writes: a megabyte can hold thousands of headers, each read by Python."""


def write_instances(root: Path, folder: Path) -> None:
    """Writes the archives of all metrics files of the last run.

    Args:
        root: the repository.
        folder: where they appear, as a whole.
    """
    with atomic_folder(folder) as new:
        for metrics in sorted((root / "reports/metrics").glob("*.json")):
            scores = root / "data/scores" / metrics.stem
            tables = {n: scores / n for n in _NAMES if (scores / n).is_file()}
            if 0 < sum(path.stat().st_size for path in tables.values()) <= MOST_BYTES:
                files = {name: path.read_bytes() for name, path in tables.items()}
                archive = packed(files, md5(metrics.read_bytes()))
                (new / f"{metrics.stem}{SUFFIX}").write_bytes(archive)


def packed(files: dict[str, bytes], metrics: str) -> bytes:
    """One archive: the same bytes for the same tables and metrics.

    Args:
        files: tables by name.
        metrics: MD5 of the metrics file that they belong to.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted({**files, _METRICS: metrics.encode()}.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return lzma.compress(out.getvalue(), preset=6)


class _PlainFile(tarfile.TarInfo):
    """A header of a plain file, as `packed` writes it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _PlainFile:
        """See `tarfile.TarInfo`.

        Raises:
            ValueError: It is a link, which may lead to itself, an extended header, which may say
                that a file is sparse and of any size, or has a length that no archive can hold.
        """
        header = super().frombuf(buf, encoding, errors)
        plain = header.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
        if not plain or not 0 <= header.size <= _MOST_UNPACKED:
            raise ValueError(f"{header.name!r} is no plain file of a possible length")
        return header


def unpacked(archive: bytes, where: str) -> tuple[dict[str, bytes], str]:
    """The tables of an archive by name, and the MD5 of the metrics that they belong to.

    Args:
        archive: its bytes.
        where: its name for error messages.

    Raises:
        UserError: it is damaged, too large, or holds something else.
    """
    reader = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=256 << 20)
    try:
        content = reader.decompress(archive, _MOST_UNPACKED)
        if not reader.eof:
            raise UserError("the archive is cut, or too large", file=where, cure=_CURE)
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:", tarinfo=_PlainFile) as members:
            files: dict[str, bytes] = {}
            for count, member in enumerate(members):
                if count == _MOST_MEMBERS:
                    raise ValueError(f"more than {_MOST_MEMBERS} files")
                if member.name in files:
                    raise ValueError(f"{member.name} twice")
                file = members.extractfile(member)
                if member.name in (*_NAMES, _METRICS) and file is not None:
                    files[member.name] = file.read()
    except (lzma.LZMAError, tarfile.TarError, ValueError, KeyError) as error:
        raise UserError(f"the archive is damaged: {error}", file=where, cure=_CURE) from error
    return files, files.pop(_METRICS, b"").decode("ascii", errors="replace")


_CURE = "run `dvc repro report`, or remove the file: the tables are then taken from DVC's cache"


def md5(content: bytes) -> str:
    """The digest by which metrics and tables are joined; the one that dvc.lock has, too."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
