"""The one exception that a user of the metrics is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Bad input: one message that names the file, the key and the cure.

    Commands print the message without a traceback and exit with a code other than 0.
    """
