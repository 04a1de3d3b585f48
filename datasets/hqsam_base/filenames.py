"""Which file a name means: the same names are written in several ways by systems and tools.

macOS writes `ö` as two characters where others write one, and puts a `._x.png` beside each `x.png`
on foreign disks; Windows and macOS do not mind case; labelling tools write names percent-encoded,
as in an address.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote


class AmbiguousNameError(ValueError):
    """Several files are meant; the text names them."""


def is_hidden(name: str) -> bool:
    """Returns whether a file is clutter of the system, such as macOS's `._x.png` and `.DS_Store`."""
    return name.startswith(".")


def one_form(name: str) -> str:
    """Returns a name in the one Unicode form in which names are compared."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """Returns a name without regard to case and Unicode form."""
    return one_form(name).casefold()


# From strict to lenient: the first that fits any file decides.
_READINGS: tuple[Callable[[str], str], ...] = (one_form, folded, lambda name: folded(unquote(name)))


def meant(folder: Path, path: str) -> Path | None:
    """Returns the file or folder below `folder` that `path` means, None if there is none.

    Args:
        folder: where to look.
        path: relative, with forward slashes. It is taken as it is written, else in the other
            Unicode form, else in another case, else percent-encoded or decoded; only entries of the
            folder are returned, so a name cannot leave it.

    Raises:
        AmbiguousNameError: two entries fit equally.
    """
    parts = PurePosixPath(path).parts
    if ".." in parts or path.startswith("/"):
        return None
    if (folder / path).exists():
        return folder / path
    found = folder
    for part in parts:
        inner = _entry(found, part)
        if inner is None:
            return None
        found = inner
    return found


def _entry(folder: Path, name: str) -> Path | None:
    if (folder / name).exists():
        return folder / name
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    for reading in _READINGS:
        same = [entry for entry in entries if reading(entry.name) == reading(name)]
        if len(same) > 1:
            names = " and ".join(entry.name for entry in same)
            raise AmbiguousNameError(
                f"{names} differ only in case or spelling, and neither is called {name}"
            )
        if same:
            return same[0]
    return None


def visible(paths: Iterable[Path]) -> list[Path]:
    """Returns the files and folders that are data, sorted by name."""
    return sorted((path for path in paths if not is_hidden(path.name)), key=lambda path: path.name)
