"""Names from outside (archive members, shards of a remote index) as paths that stay inside a folder.

The one place that judges them: no absolute or foreign path, no `..`, and no two names that some
file system takes for one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Self

from hqsam_base.filenames import folded

_MOST_NAME, _MOST_PATH, _MOST_FOLDERS = (
    255,
    2000,
    64,
)  # bytes of a name, of all names of a path; how many names


class NameRefusedError(ValueError):
    """A name from outside that must not become a path; the text is the reason, without the name."""


class PlainName(str):
    """A file name from outside that cannot leave a folder: `folder / PlainName(text)` is a child of `folder`.

    Args:
        text: as it came; anything but a text is refused.

    Raises:
        NameRefusedError: it is empty, hidden, too long for a file system, has folders or control
            characters, or is not text.
    """

    __slots__ = ()

    def __new__(cls, text: object) -> Self:
        """Check the name."""
        if not isinstance(text, str):
            raise NameRefusedError("it is not text")
        path = relative_path(text)
        if str(path) != text or len(path.parts) != 1:
            raise NameRefusedError("it is not a plain file name")
        if text.startswith(".") or not text.isprintable():
            raise NameRefusedError("it is hidden, or holds characters that cannot be shown")
        return super().__new__(cls, text)


def relative_path(name: str) -> PurePosixPath:
    """A `/`-separated path from outside that stays below the folder it is put into.

    Raises:
        NameRefusedError: it is absolute, holds `..`, is too long for a file system, or is written
            as another system would (backslash, drive letter, NUL).
    """
    if (
        name.startswith(("/", "\\"))
        or "\\" in name
        or "\0" in name
        or (len(name) > 1 and name[1] == ":")
    ):
        raise NameRefusedError("its path is absolute or foreign")
    path = PurePosixPath(name)
    if ".." in path.parts:
        raise NameRefusedError("its path leaves the folder")
    sizes = [len(part.encode("utf-8", "replace")) for part in path.parts]
    if sum(sizes) > _MOST_PATH or len(sizes) > _MOST_FOLDERS or max(sizes, default=0) > _MOST_NAME:
        raise NameRefusedError("its name is too long")
    return path


def refuse_twins(names: Iterable[str]) -> None:
    """Refuse names that fall together on some file system, or of which one needs a folder where another is a file.

    Args:
        names: `/`-separated paths, cleaned by `relative_path`.

    Raises:
        TwinError: it holds the later name and the reason.
    """
    paths = [PurePosixPath(name) for name in names]
    seen: dict[str, PurePosixPath] = {}
    for path in paths:
        if (twin := seen.setdefault(folded(str(path)), path)) is not path:
            raise TwinError(str(path), f"it falls together with {twin}")
    for path in paths:
        for parent in path.parents:
            if folded(str(parent)) in seen:
                raise TwinError(str(path), f"{parent} is a file and a folder")


class TwinError(NameRefusedError):
    """Two names that cannot stand side by side: `name` is the later one."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name
