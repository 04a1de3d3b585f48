"""What all own data have in common: which files are images, and where named folders and files lie."""

from __future__ import annotations

import glob
from pathlib import Path, PurePosixPath

from hqsam_base.errors import UserError
from hqsam_datasets.fetch.tree import found_below
from hqsam_datasets.sources.base import relative

LOSSY = (".jpg", ".jpeg", ".webp")
SUFFIXES = (*LOSSY, ".png", ".bmp", ".tif", ".tiff", ".gif")


def found_single(root: Path, wanted: str, *, key: str) -> Path:
    """Return what the parameter `key` names, searched as `found_below` does, if only one lies that near to `root`.

    Raises:
        UserError: if it is not there, or several times, say for each split: the others would be
            left out without a word.
    """
    found = found_below(root, wanted)
    parts = found.relative_to(root).parts
    around = len(parts) - len(PurePosixPath(wanted).parts)
    same = (
        sorted(root.glob("*/" * around + glob.escape("/".join(parts[around:])))) if around else []
    )
    if len(same) > 1:
        names = ", ".join(relative(path, root) for path in same)
        cure = "name one of them with the folder around it; each can be a set of its own"
        raise UserError(f"the archive holds {names}", file=root, key=key, cure=cure)
    return found
