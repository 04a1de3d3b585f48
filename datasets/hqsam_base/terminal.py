"""The one way to print: what comes from outside is made harmless first (`hqsam_base.safe_text`)."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

from hqsam_base.safe_text import shown

if TYPE_CHECKING:
    from rich.text import Text


def say(text: object, *, err: bool = False, lines: bool = False) -> None:
    """Print a message, what comes from outside made harmless (`safe_text.shown`).

    Args:
        text: The message.
        err: To standard error in place of standard output.
        lines: It may have several lines. Else a line feed is shown as an escape, so that no name
            can forge a line.
    """
    print(shown(text, lines=lines), file=sys.stderr if err else sys.stdout, flush=True)


def say_traceback(error: BaseException) -> None:
    """Print an unexpected exception to standard error; its message may hold text from outside."""
    say("".join(traceback.format_exception(error)).rstrip(), err=True, lines=True)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Text for rich, in which nothing is taken for markup.

    Args:
        parts: Plain text, or (text, style).
    """
    from rich.text import Text

    pairs = (part if isinstance(part, tuple) else (part, "") for part in parts)
    return Text.assemble(*((shown(text), style) for text, style in pairs))
