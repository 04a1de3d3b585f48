"""A seam: a package whose entries are files, found by name; each exposes one constant."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Generic, TypeVar

from hqsam_base.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Seam(Generic[T]):
    """The entries of one package.

    Attributes:
        package: Its import name.
        what: What an entry is, as messages call it.
        constant: What each entry's file exposes.
        kind: Class or runtime-checkable Protocol of the constant. One with a ``name`` must be
            called like its file.
        helpers: Files that are not entries; nor are those whose name begins with an underscore.
    """

    package: str
    what: str
    constant: str
    kind: type[T]
    helpers: frozenset[str] = frozenset()

    def names(self) -> list[str]:
        """Names of the entries: the files of the package's folder, sorted."""
        found = (
            module.name
            for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__)
        )
        return sorted(
            name for name in found if name not in self.helpers and not name.startswith("_")
        )

    def load(self, name: str) -> T:
        """The constant of an entry's file.

        Args:
            name: File stem.

        Raises:
            UserError: There is no such file; the message lists the ones that exist.
            TypeError: The file's constant is not what the seam promises: a mistake of who wrote it.
        """
        folder = self.package.replace(".", "/")
        if name not in self.names():
            raise UserError(
                f"unknown {self.what} {name!r}",
                key=self.what,
                cure=f"use one of {', '.join(self.names())} ({folder}/)",
            )
        found = getattr(importlib.import_module(f"{self.package}.{name}"), self.constant, None)
        if not isinstance(found, self.kind) or getattr(found, "name", name) != name:
            raise TypeError(
                f"{folder}/{name}.py: {self.constant} must be a {self.kind.__name__} named {name!r}"
            )
        return found
