"""Text from outside, made fit to print and to store.

File names, tensor names, commit subjects, a server's reason phrase and addresses come from
strangers. Printed as they are, they can move a terminal's cursor, hide what stands beside them,
forge a line of a log, or tell a password.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 and C1: ESC, backspace, carriage return, ...
    # other line ends, and what turns the direction of writing
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    "\ud800-\udfff]"  # bytes of a file name that are not UTF-8; printing them raises an error
)
_ADDRESS = re.compile(
    # without a limit a name of 100,000 letters takes a minute
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30})://"
    # A password in which `/`, `?` and `#` are written as they are is one, too, unless it could be a
    # port.
    r"(?:(?P<user>[^\s/?#<>\"]*|[^\s/?#<>\"@:\[]*:(?![0-9]*[/?#])[^\s<>\"]*)@)?"
    r"(?P<path>[^\s?#<>\"]*)(?P<secret>[?#][^\s<>\"]*)?"
)
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with; the wide forms, too, where a spreadsheet speaks Japanese or Chinese."""
_NO_SECRETS = frozenset({"embedded", "drop", "file"})
"""Schemes of files on this machine, whose names may hold `?` and `#`."""
_CLOSING = re.compile(r"[)\]}'`,.;:!]*$")
_MASK = "***"


def sanitize(text: str, *, lines: bool = False) -> str:
    r"""Replace control characters by visible escapes such as `\x1b` or `\u202e`.

    Args:
        text: Any text, with lone surrogates, too.
        lines: Keep line feeds and tabs: the text is a message of several lines, not a name inside
            one.
    """
    kept = "\n\t" if lines else ""
    return _CONTROL.sub(
        lambda found: (
            found[0] if found[0] in kept else found[0].encode("unicode_escape").decode("ascii")
        ),
        text,
    )


def cell(text: str) -> str:
    """Make a text fit for a CSV file that somebody opens in a spreadsheet, which runs what begins like a formula.

    A text that begins so gets an apostrophe in front, by which spreadsheets know a text; a number
    stays as it is. Control characters become visible, see `sanitize`.
    """
    clean = sanitize(text)
    if len(clean) < 2 or not clean.startswith(_FORMULA):
        return clean
    try:
        float(clean)
    except ValueError:
        return f"'{clean}"
    return clean


def redact(text: str) -> str:
    """Remove user info from every URL in a text, and mask the values of its query and fragment.

    `https://me:word@host/a.zip?sig=abc` becomes `https://***@host/a.zip?sig=***`.
    """
    return _ADDRESS.sub(_redacted, text)


def without_secrets(text: object, address: str) -> str:
    """Mask the password and the query's values of an address wherever else a text repeats them.

    Drivers take an address apart and print its parts: `github://me:word@host/x` ends in a message
    about `https://api.github.com/repos/me/word`.
    """
    found = _ADDRESS.search(address)
    if found is None or found["scheme"].lower() in _NO_SECRETS:
        return str(text)
    words = re.split(r"[:@/]", found["user"] or "")
    secrets = words[1:] or words
    secrets += [part.partition("=")[2] for part in re.split(r"[?#&;]", found["secret"] or "")]
    masked = str(text)
    for secret in sorted({*secrets, *map(unquote, secrets)} - {""}, key=len, reverse=True):
        masked = masked.replace(secret, _MASK)
    return masked


def shown(text: object, *, lines: bool = False) -> str:
    """A message as it may be printed and stored: `sanitize` and `redact`."""
    return redact(sanitize(str(text), lines=lines))


def _redacted(found: re.Match[str]) -> str:
    if found["scheme"].lower() in _NO_SECRETS:
        return found[0]
    user = f"{_MASK}@" if found["user"] else ""
    return f"{found['scheme']}://{user}{found['path']}{_masked(found['secret'] or '')}"


def _masked(secret: str) -> str:
    """`?a=1&b=2#c` as `?a=***&b=***#***`; punctuation of the sentence around it is kept."""
    closing = _CLOSING.search(secret)
    end = closing[0] if closing else ""
    parts = re.split(r"([?#&;])", secret[: len(secret) - len(end)])
    return (
        "".join(part if part in ("", "?", "#", "&", ";") else _mask(part) for part in parts) + end
    )


def _mask(part: str) -> str:
    name, equals, _ = part.partition("=")
    return f"{name}={_MASK}" if equals else _MASK
