"""Files that a part needs or makes, where nodes have no common file system: they travel by a folder URL.

`HQSAM_PARTS_URL` names it, anything that fsspec knows (`s3://bucket/parts`). What goes there is named
by its SHA-256 (`files/`), so that equal files travel once, and is verified on arrival. A node keeps
what it got in `~/.cache/hqsam/parts` (`XDG_CACHE_HOME`).
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hqsam_base.digest import sha256_file
from hqsam_base.errors import UserError

URL_VARIABLE = "HQSAM_PARTS_URL"
"""Environment variable: the folder URL; unset, all nodes see this machine's files under the same paths."""


class Folder:
    """A folder of an object store.

    Args:
        url: of the folder.

    Raises:
        UserError: no driver for such an URL is installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec  # type: ignore[import-untyped]

        self.url = url
        try:
            self._system, self._base = fsspec.core.url_to_fs(url.rstrip("/"))
        except (ImportError, ValueError) as error:
            raise UserError(
                f"the URL cannot be used ({error})",
                key=URL_VARIABLE,
                cure="give a folder URL such as s3://bucket/parts; pip install 'hqsam-pipeline[s3]'",
            ) from error

    def has(self, name: str) -> bool:
        """Return whether the file is there, whole: an object appears when all of it has arrived."""
        return bool(self._call(self._system.exists, self._path(name)))

    def put(self, source: Path, name: str) -> None:
        """Copy a file there, so that it appears whole."""
        if "file" not in _protocols(self._system):
            self._call(self._system.put_file, str(source), self._path(name))
            return
        target = Path(self._path(name))  # a plain folder shows a file while it is written
        target.parent.mkdir(parents=True, exist_ok=True)
        _copied(target, lambda part: shutil.copyfile(source, part))

    def get(self, name: str, target: Path) -> None:
        """Copy a file from there, so that it appears whole."""
        _copied(target, lambda part: self._call(self._system.get_file, self._path(name), part))

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._call(self._system.rm_file, self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _call(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:  # each store has errors of its own, most of them no OSError
            if isinstance(error, UserError):
                raise
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"the store of parts does not serve ({said})",
                file=self.url,
                key=URL_VARIABLE,
                cure="look at its address, keys and space; then run it again: parts that are there are kept",
            ) from error


def folder() -> Folder | None:
    """Return the folder that the environment names, if it names one."""
    url = os.environ.get(URL_VARIABLE)
    return Folder(url) if url else None


def dumps(content: Any) -> bytes:
    """Pickle what a part needs; with `HQSAM_PARTS_URL` the files and folders that it names are sent there."""
    buffer = io.BytesIO()
    _Pickler(buffer, folder()).dump(content)
    return buffer.getvalue()


def loads(content: bytes) -> Any:
    """Unpickle it on a node; the files and folders are fetched, and their paths are those of the copies."""
    return _Unpickler(io.BytesIO(content)).load()


class _Pickler(pickle.Pickler):
    def __init__(self, buffer: io.BytesIO, to: Folder | None) -> None:
        super().__init__(buffer, protocol=pickle.HIGHEST_PROTOCOL)
        self._to = to

    def persistent_id(self, obj: Any) -> Any:
        """The URL and the digests of a path's files; None for what is pickled as it is."""
        if self._to is None or not isinstance(obj, Path) or not obj.exists():
            return None
        files = [path for path in sorted(obj.rglob("*")) if path.is_file()]
        named = {str(path.relative_to(obj)): path for path in files} if obj.is_dir() else {"": obj}
        return self._to.url, obj.name, {name: self._sent(path) for name, path in named.items()}

    def _sent(self, path: Path) -> str:
        digest = sha256_file(path)
        assert self._to is not None
        if not self._to.has(f"files/{digest}"):
            self._to.put(path, f"files/{digest}")
        return digest


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> Path:
        """The copy of a path's files."""
        url, name, files = pid
        store = Folder(url)
        if set(files) == {""}:
            return _fetched(store, files[""], _cache() / files[""] / name)
        whole = "\n".join(f"{relative}\0{digest}" for relative, digest in sorted(files.items()))
        place: Path = _cache() / hashlib.sha256(whole.encode()).hexdigest() / name
        place.mkdir(parents=True, exist_ok=True)
        for relative, digest in files.items():
            _fetched(store, digest, place / relative)
        return place


def _fetched(store: Folder, digest: str, path: Path) -> Path:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        store.get(f"files/{digest}", path)
        if sha256_file(path) != digest:
            path.unlink()
            cure = "remove it there; the next run sends it again"
            raise UserError(
                "the file is not what was sent", file=f"{store.url}/files/{digest}", cure=cure
            )
    return path


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    place = (Path(home) if home else Path.home() / ".cache") / "hqsam" / "parts"
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    return place


def _copied(target: Path, copy: Any) -> None:
    """Have a copy made beside its place, and move it there."""
    number, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(number)
    try:
        copy(part)
        Path(part).replace(target)
    finally:
        Path(part).unlink(missing_ok=True)


def _protocols(system: Any) -> tuple[str, ...]:
    found = system.protocol
    return (found,) if isinstance(found, str) else tuple(found)
