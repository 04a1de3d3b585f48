"""Writes the embedded archives: one published file per call, the same bytes on every call and in every process.

A module of this package named like the archive (``params.yaml``, section ``archives``) holds
``FILES``: published file name -> function that returns the file's bytes. There is no list of
archives to edit.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import cast

import hqsam_datasets.embedded
from hqsam_base import atomic
from hqsam_base.errors import UserError

Maker = Callable[[], bytes]


def names() -> list[str]:
    """Return every archive that can be generated, sorted."""
    modules = (m.name for m in pkgutil.iter_modules(hqsam_datasets.embedded.__path__))
    return sorted(name for name in modules if hasattr(_module(name), "FILES"))


def files(archive: str) -> list[str]:
    """Return the published file names of an archive, sorted.

    Raises:
        UserError: there is no such archive; the message lists what exists.
    """
    return sorted(_makers(archive))


def write(archive: str, file_name: str, out: Path) -> None:
    """Write one published file of an archive, atomically.

    Args:
        archive: archive name as in ``embedded://<archive>/<file>``.
        file_name: published file name.
        out: path of the file to write.

    Raises:
        UserError: unknown archive or file; the message lists what exists.
    """
    makers = _makers(archive)
    if file_name not in makers:
        raise UserError(
            f"the embedded archive {archive} has no file {file_name!r}",
            file="params.yaml",
            key=f"archives.{archive}.files",
            cure=f"use one of {', '.join(sorted(makers))}",
        )
    atomic.write_bytes(out, makers[file_name]())


def _makers(archive: str) -> Mapping[str, Maker]:
    if archive not in names():
        raise UserError(
            f"there is no embedded archive {archive!r}",
            file="params.yaml",
            key=f"archives.{archive}",
            cure=f"use one of {', '.join(names())}, or a URL that is not embedded://",
        )
    return cast(Mapping[str, Maker], _module(archive).FILES)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"hqsam_datasets.embedded.{name}")
