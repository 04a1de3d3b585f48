"""Whether the metrics of a revision were made by its own parameters and code: the first thing to doubt in a comparison."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from hqsam_base.errors import UserError
from hqsam_pipelines.compare.revisions import Revision

_SHOWN = 6
_NONE = object()


def stale(revision: Revision) -> list[str]:
    """Sentences about what was changed at a revision after its metrics were made; none if nothing was.

    Parameters are compared with those that dvc.lock records. For the workspace, DVC says what else
    is out of date.
    """
    found = []
    keys = []
    for key, recorded in revision.made_with.items():
        value: Any = revision.params
        for name in key.split("."):
            value = value.get(name, _NONE) if isinstance(value, Mapping) else _NONE
        if not (value is _NONE or _same(value, recorded)):
            keys.append(key)
    if keys:
        found.append(
            f"the metrics at {revision.label} were made with other values of "
            f"{_short(sorted(keys))} than "
            f"its params.yaml has:"
            f" run `dvc repro`{' and commit what it changes' if revision.sha else ' first'}"
        )
    stages = []
    # No pipeline that DVC can read, a run is under way, or DVC cannot write its lock: nothing is
    # known to be edited.
    with contextlib.suppress(UserError, OSError):
        if not revision.sha:
            from hqsam_pipelines.config.graph import edited

            stages = [name for name in edited(revision.repository.root) if name != "report"]
    if stages:
        found.append(
            f"the metrics on disk may be of an earlier state: {_short(stages)} out of date, run "
            f"`dvc repro` first"
        )
    return found


def _same(left: Any, right: Any) -> bool:
    """Equality of two YAML values; YAML 1.1 takes `1e-05`, as a dvc.lock has it, for a text."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, str) != isinstance(right, str) or (isinstance(left, str) and left != right):
        with contextlib.suppress(TypeError, ValueError):
            return float(left) == float(right)
    return bool(left == right)


def _short(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
