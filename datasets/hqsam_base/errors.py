"""The one exception that a user of the data part is meant to read."""

from __future__ import annotations

import re
from pathlib import Path

from hqsam_base.safe_text import shown


class UserError(Exception):
    """Bad input or a state that a person has to fix: one message that names file, key and cure.

    Stages print ``str(error)`` without a traceback and exit with 1.

    Args:
        problem: what is wrong, one sentence without a full stop.
        file: the file or folder concerned.
        key: the sample key, archive name or parameter concerned.
        cure: what to do about it, in the imperative.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: Path | str | None = None,
        key: str | None = None,
        cure: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else str(file)
        self.key = key
        self.cure = cure
        super().__init__(self._text())

    def _text(self) -> str:
        """Return the message, sanitised (`safe_text`): a name from outside cannot forge a line."""
        parts = [_block(self.problem)]
        if self.file is not None:
            parts.append(f"file: {shown(self.file)}")
        if self.key is not None:
            parts.append(f"key: {shown(self.key)}")
        if self.cure is not None:
            parts.append(f"cure: {_block(self.cure)}")
        return "\n  ".join(parts)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle by the named arguments, so that the error survives a worker process."""
        return (_rebuild, (type(self), self.problem, self.file, self.key, self.cure))


def _block(text: str) -> str:
    """Keep line feeds before indented lines; escape all others, which belong to names in the text."""
    return re.sub(r"\n(?!\s)", r"\\n", shown(text, lines=True))


def _rebuild(
    kind: type[UserError], problem: str, file: str | None, key: str | None, cure: str | None
) -> UserError:
    return kind(problem, file=file, key=key, cure=cure)
