"""Strict readers of JSON and YAML that others wrote: files of another commit, listings from a store.

Small inputs can stand for a lot of work: brackets nested a hundred thousand deep, aliases of
aliases, a number of a million digits. So size, depth and number of values are limited, and what is
read is plain data of the expected outline.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Never, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from hqsam_base.errors import UserError

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_VALUES = 200_000
"""Mappings, lists and scalars of a file, an alias counted as all that it stands for."""
MAX_SCALAR = 10_000
"""Characters of one YAML scalar: a number of base 60 takes quadratic time."""
_MAX_INT = 1 << 128

Model = TypeVar("Model", bound=BaseModel)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=100)]
"""A name of params.yaml: it becomes part of a path."""
PromptSetName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*([.+][0-9][a-z0-9_]*)?$", max_length=100)
]
"""Like `Name`, with the parameter of a prompt set: `box_noise_0.2`, `points_10+5`."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}(\.dir)?$")]
"""An MD5 of DVC's; `.dir` marks a folder's listing."""


class Outline(BaseModel):
    """Base of what a file must look like; what a later version adds to it is passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def parse_json(text: bytes, where: str) -> Any:
    """Parse JSON.

    Args:
        text: The file's bytes.
        where: Its name for messages.

    Raises:
        UserError: It is not JSON, holds NaN or Infinity, or exceeds a limit.
    """
    _check_bytes(text, where)
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise _unreadable("JSON", error, where) from error
    _check_values(value, where)
    return value


def parse_yaml(text: bytes, where: str) -> Any:
    """Parse YAML into plain data; see `parse_json`. Aliases are counted before anything is built from them."""
    _check_bytes(text, where)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml.parse(text, Loader=loader), where)
        value = yaml.load(text, Loader=loader)
    except UserError:
        raise
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise _unreadable("YAML", error, where) from error
    _check_values(value, where)
    return value


def outlined(kind: type[Model], value: Any, where: str) -> Model:
    """A parsed file as the model `kind`.

    Raises:
        UserError: It has another outline; the first place is named.
    """
    try:
        return kind.model_validate(value)
    except (ValidationError, RecursionError) as error:
        place, why = "", str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False)[0]
            place, why = ".".join(str(part) for part in first["loc"]), first["msg"]
        raise UserError(
            f"not what this file should hold: {why}", file=where, key=place or None, cure=_CURE
        ) from error


_CURE = "restore the file from a commit that you trust"


def _check_bytes(text: bytes, where: str) -> None:
    if len(text) > MAX_BYTES:
        raise UserError(
            f"the file has {len(text)} bytes, the limit is {MAX_BYTES}", file=where, cure=_CURE
        )


def _check_events(events: Iterator[Any], where: str) -> None:
    """Limit depth and values of YAML by its events, which the parser makes without building anything."""
    sizes, anchors, names = [0], dict[str | None, int](), list[str | None]()
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            sizes.append(1)
            names.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            size, name = sizes.pop(), names.pop()
            sizes[-1] += size
            anchors |= {name: size} if name else {}
        elif isinstance(event, yaml.AliasEvent):
            sizes[-1] += anchors.get(
                event.anchor, MAX_VALUES + 1
            )  # not there yet: it would hold itself
        elif isinstance(event, yaml.ScalarEvent):
            sizes[-1] += 1
            anchors |= {event.anchor: 1} if event.anchor else {}
            if len(event.value) > MAX_SCALAR:
                raise _too("long a value", where)
        if len(sizes) > MAX_DEPTH:
            raise _too("deeply nested", where)
        if sum(sizes) > MAX_VALUES:
            raise _too("many values, or aliases that stand for too many", where)


def _check_values(value: Any, where: str, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise _too("deeply nested", where)
    if isinstance(value, int) and abs(value) > _MAX_INT:
        raise _too("large a number", where)
    inner = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
    for part in inner if isinstance(inner, (list, tuple, set)) else ():
        _check_values(part, where, depth + 1)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # 1e999
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _too(what: str, where: str) -> UserError:
    return UserError(f"the file holds too {what}", file=where, cure=_CURE)


def _unreadable(kind: str, error: Exception, where: str) -> UserError:
    return UserError(
        f"not readable as {kind}: {' '.join(str(error).split())[:300]}", file=where, cure=_CURE
    )
