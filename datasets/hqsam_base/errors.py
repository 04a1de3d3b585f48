"""The one exception that a user of the data part is meant to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from hqsam_base.safe_text import shown

_NAMED = ("details", "file", "key", "cure", "steps")


class UserError(Exception):
    """Bad input or a state that a person has to fix: one message that names file, key and cure.

    Stages print ``str(error)`` without a traceback and exit with 1.

    Args:
        problem: what is wrong, one sentence without a full stop. A line feed in it is a name's own,
            and is shown as an escape; so in every other text here.
        details: further lines under the problem, each shown on a line of its own.
        file: the file or folder concerned.
        key: the sample key, archive name or parameter concerned.
        cure: what to do about it, in the imperative.
        steps: further lines under the cure.
    """

    def __init__(
        self,
        problem: str,
        *,
        details: Sequence[str] = (),
        file: Path | str | None = None,
        key: str | None = None,
        cure: str | None = None,
        steps: Sequence[str] = (),
    ) -> None:
        self.problem = problem
        self.details = tuple(details)
        self.file = None if file is None else str(file)
        self.key = key
        self.cure = cure
        self.steps = tuple(steps)
        # Sanitised (`safe_text`): a name from outside cannot forge a line.
        parts = [_block(self.problem, self.details)]
        if self.file is not None:
            parts.append(f"file: {shown(self.file)}")
        if self.key is not None:
            parts.append(f"key: {shown(self.key)}")
        if self.cure is not None:
            parts.append(f"cure: {_block(self.cure, self.steps)}")
        super().__init__("\n  ".join(parts))

    def amended(self, problem: str | None = None, **named: Any) -> Self:
        """Return the same error with other words where a caller knows better: file, key or cure."""
        text = self.problem if problem is None else problem
        return type(self)(text, **{name: vars(self)[name] for name in _NAMED} | named)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle by the named arguments, so that the error survives a worker process."""
        named = {name: vars(self)[name] for name in _NAMED}
        return (_rebuild, (type(self), self.problem, named))


def _block(text: str, further: Sequence[str]) -> str:
    return "\n    ".join(shown(line) for line in (text, *further))


def _rebuild(kind: type[UserError], problem: str, named: dict[str, Any]) -> UserError:
    return kind(problem, **named)
