"""Errors that a person is meant to read."""

from __future__ import annotations

from hqsam_base.errors import UserError

__all__ = ["InputError", "UserError"]


class InputError(UserError, ValueError):
    """An image or a prompt that would give a meaningless mask; a ``ValueError`` for those who use the library."""
