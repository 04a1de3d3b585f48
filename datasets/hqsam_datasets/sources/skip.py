"""`skip` of own data: files to leave out, by their names."""

from __future__ import annotations

from collections.abc import Iterable

from hqsam_base.errors import UserError
from hqsam_base.filenames import one_form
from hqsam_datasets.sources.own import SUFFIXES


class Skip:
    """Tells whether a file is to be left out, and which names match no file.

    An entry is a path below the folder of the images or masks, or the last part of it, with or
    without the extension. Case, punctuation and letters of any alphabet count; the two Unicode
    forms of one name do not. One mask of several of an image goes by its whole path alone.

    Args:
        names: the entries of `skip`.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._entries: dict[str, str] = {}
        for name in names:
            text = one_form(name).replace("\\", "/")
            self._entries[text] = name
            if text.lower().endswith(SUFFIXES):
                self._entries[text[: text.rindex(".")]] = name
        self._met: set[str] = set()

    def __contains__(self, stem: str) -> bool:
        """Return whether a file is meant.

        `stem` is its path below the folder, without extension.
        """
        return self.names(stem) or self.names(stem.rpartition("/")[2])

    def names(self, stem: str) -> bool:
        """Return whether a file is meant by its whole path: one mask of several, since many images may share the last part."""
        form = one_form(stem)
        if form in self._entries:
            self._met.add(self._entries[form])
        return form in self._entries

    def check(self, key: str) -> None:
        """Stop on entries that match no file: a typing error would be noticed late, or never.

        Args:
            key: the parameter, for the message.

        Raises:
            UserError: there are some.
        """
        missed = sorted(set(self._entries.values()) - self._met)
        if missed:
            raise UserError(
                f"no file is called {', '.join(missed[:10])}",
                file="params.yaml",
                key=key,
                cure="write the path below the folder as it is, say cats/7 or 7, or remove the "
                "entry",
            )
