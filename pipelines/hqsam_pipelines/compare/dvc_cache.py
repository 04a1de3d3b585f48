"""Reads objects of DVC's cache, or of the remote behind it, by the digests that a dvc.lock holds."""

from __future__ import annotations

import functools
import hashlib
import io
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import field_validator

from hqsam_pipelines.config import dvc_site
from hqsam_pipelines.config.strict import MAX_BYTES, Digest, Outline, outlined, parse_json

_MOST_BYTES = 1 << 30  # of a table: a dvc.lock of strangers may name any object of the remote


class AbsentError(Exception):
    """An object that neither the cache nor the remote has."""


class _Entry(Outline):
    relpath: str
    md5: Digest

    @field_validator("relpath")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if (
            PurePosixPath(path).is_absolute()
            or ".." in path.split("/")
            or "\\" in path
            or not path.isprintable()
        ):
            raise ValueError("its path leaves the folder")
        return path


class Listing(Outline):
    """What DVC keeps of an output folder: its files and their digests."""

    entries: tuple[_Entry, ...]


class DvcCache:
    """The cache of a DVC project, and its default remote.

    Args:
        root: the folder with dvc.yaml.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self, md5: str) -> dict[str, str]:
        """Path and digest of each file of a folder.

        Args:
            md5: the digest of the folder's listing.

        Raises:
            AbsentError: the listing is not to be had.
            UserError: it is malformed.
        """
        source, where = self.object(md5), f"DVC's listing {md5}"
        with source.open("rb") if isinstance(source, Path) else source as file:
            text = file.read(MAX_BYTES + 1)  # one more, so that `parse_json` refuses what is larger
        found = outlined(Listing, {"entries": parse_json(text, where)}, where)
        return {entry.relpath: entry.md5 for entry in found.entries}

    def object(self, md5: str) -> Path | io.BytesIO:
        """An object of the local cache, or of the remote that the workspace is configured for.

        Raises:
            AbsentError: neither has it, or what the remote has is something else, or too large.
        """
        # DVC 3 keeps objects below files/md5; caches made by DVC 2 have them at the top.
        places = (
            self._cache / "files" / "md5" / md5[:2] / md5[2:],
            self._cache / md5[:2] / md5[2:],
        )
        found = next((place for place in places if place.is_file()), None)
        if found is not None:
            return found
        if self._remote is None:
            raise AbsentError("no remote is configured")
        try:
            with self._remote.fs.open(self._remote.oid_to_path(md5), "rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except (
            Exception
        ) as error:  # whatever the remote's client raises: the comparison goes on without the table
            raise AbsentError(f"nor on the remote: {type(error).__name__}") from error
        if len(data) > _MOST_BYTES:
            raise AbsentError(f"on the remote it has more than {_MOST_BYTES} bytes")
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5.removesuffix(".dir"):
            raise AbsentError("what the remote has under its digest are other bytes")
        return io.BytesIO(data)

    @functools.cached_property
    def _remote(self) -> Any:
        """DVC's object database of the default remote, None without one."""
        from dvc.config import Config

        if (
            not (self._root / ".dvc").is_dir()
            or not Config(dvc_dir=str(self._root / ".dvc"), validate=False)["remote"]
        ):
            return None
        try:
            return dvc_site.open_repo(self._root).cloud.get_remote_odb(hash_name="md5")
        except (
            Exception
        ) as error:  # no default among several remotes, a missing extra, bad credentials
            raise AbsentError(
                f"the remote cannot be used: {type(error).__name__}: {error}"
            ) from error

    @functools.cached_property
    def _cache(self) -> Path:
        from dvc.config import Config

        folder = self._root / ".dvc"
        given = (
            Config(dvc_dir=str(folder), validate=False).get("cache", {}).get("dir")
            if folder.is_dir()
            else None
        )
        return Path(folder / "cache" if given is None else given)
