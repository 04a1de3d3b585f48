"""Toy entries of seams: each is one file, put beside the real ones by `installed`. Nothing else is edited."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def installed(package: ModuleType, folder: str) -> Iterator[None]:
    """Let a seam's package find the files of `tests/toys/<folder>`."""
    place = str(Path(__file__).parent / folder)
    package.__path__.append(place)
    try:
        yield
    finally:
        package.__path__.remove(place)
        for path in Path(place).glob("*.py"):
            sys.modules.pop(f"{package.__name__}.{path.stem}", None)
