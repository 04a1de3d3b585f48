"""Whether a fetched file can be what its name says, by its first and last bytes."""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from pathlib import Path

from hqsam_datasets.fetch import tar_headers
from hqsam_datasets.fetch.transfer import DownloadError


class WrongContentError(DownloadError):
    """The mirror sent a file, but not the right one."""


class ChangedContentError(WrongContentError):
    """The mirror sent another file than at the first download, of which nobody publishes a digest."""


def check_structure(path: Path, name: str) -> None:
    """Catch truncated files and pages in place of files where no digest does. Extraction checks every byte.

    Raises:
        WrongContentError: the content does not fit the suffix of `name`.
    """
    with path.open("rb") as file:
        head = (
            file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
        )  # a byte order mark, as Windows tools write it
        file.seek(-min(64, path.stat().st_size), os.SEEK_END)
        tail = file.read().rstrip()
    if head[:1] == b"<" and not name.endswith((".html", ".xml", ".svg")):
        raise WrongContentError("a web page, not the file")
    if name.endswith(".zip") and not zipfile.is_zipfile(path):
        raise WrongContentError("not a complete zip archive (truncated?)")
    if name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")) and not _is_tar(path):
        raise WrongContentError("not a tar archive")
    if name.endswith(".json") and (head[:1] not in (b"{", b"[") or tail[-1:] not in (b"}", b"]")):
        raise WrongContentError("not complete JSON (truncated?)")


def _is_tar(path: Path) -> bool:
    """Like `tarfile.is_tarfile`, but for what it does with a header that is made to harm."""
    try:
        with tar_headers.opened(path):
            return True
    except (
        tarfile.TarError,
        ValueError,
        LookupError,
        EOFError,
        RuntimeError,
        OverflowError,
        zlib.error,
        lzma.LZMAError,
    ):
        return False
