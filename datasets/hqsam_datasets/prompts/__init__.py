"""Kinds of prompts, one file each, found by name.

``load("box")`` returns the constant ``PROMPT`` of ``prompts/box.py``. There is no list to edit: a
new kind is one new file. A kind says how its prompt is drawn from a mask, how it is kept in a plan
and in a table, what SAM's prompt encoder gets (`PromptArrays`) and what a picture shows (`Marks`);
sampling, reading and embedding are the same code for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from hqsam_base.seam import Seam
from hqsam_datasets.prompts.base import (
    Drawn,
    Marks,
    PlanOptions,
    PromptArrays,
    PromptKind,
    Target,
)

__all__ = [
    "DEFAULT",
    "Drawn",
    "Marks",
    "PlanOptions",
    "PromptArrays",
    "PromptKind",
    "Target",
    "load",
    "marks_of_row",
    "names",
    "of_row",
    "of_table",
]

DEFAULT = ("box", "point", "noise_mask")
"""The kinds of the official training (paper, section 3.3)."""

_SEAM = Seam(
    package=__name__,
    what="prompt kind",
    constant="PROMPT",
    kind=PromptKind,  # type: ignore[type-abstract]
    helpers=frozenset({"base", "sets"}),
)
names = _SEAM.names
load = functools.cache(_SEAM.load)  # the loader asks for every view


@functools.cache
def of_table(kind: str) -> PromptKind:
    """Find a kind by what the column ``kind`` of ``prompts.parquet`` says.

    Raises:
        UserError: there is none; the message lists the kinds.
    """
    found = (load(name) for name in names())
    return next((one for one in found if one.in_tables == kind), None) or load(kind)


def of_row(row: Mapping[str, Any]) -> PromptArrays:
    """Read a row of ``prompts.parquet``, in pixels of the image.

    Raises:
        UserError: the kind is unknown.
        ValueError: the columns of its kind are empty.
    """
    return of_table(row["kind"]).of_row(row)


def marks_of_row(row: Mapping[str, Any]) -> Marks:
    """Say what a picture shows of a row of ``prompts.parquet``; see `of_row`."""
    kind = of_table(row["kind"])
    return kind.marks(kind.of_row(row))
