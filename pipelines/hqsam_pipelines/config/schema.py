"""Turns one section of params.yaml into a frozen options object, and every mistake into one clear message.

The classes live beside the code that they configure: pydantic models (`extra="forbid"`,
`frozen=True`), or frozen dataclasses in `hqsam_metrics`, whose base install has no pydantic. A
dataclass checks its own values in
`__post_init__`; what is checked here is that the keys exist and that plain types match.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from hqsam_base.errors import UserError

T = TypeVar("T")


def build(kind: type[T], values: object, *, file: Path, key: str) -> T:
    """Make an options object of a section.

    Args:
        kind: A pydantic model or a dataclass.
        values: The section as read.
        file: The params file, for messages.
        key: The section's dotted name, for messages.

    Raises:
        UserError: an unknown or missing key, a wrong type or a value out of range; the message
            names file, key and the expected type, and near matches of an unknown key.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"expected a mapping, found {show(values)}", file=file, key=key)
    if dataclasses.is_dataclass(kind):
        return cast(T, _build_dataclass(kind, values, file, key))
    from pydantic import ValidationError

    try:
        return kind.model_validate(dict(values))  # type: ignore[attr-defined,no-any-return]
    except ValidationError as error:
        raise _explain(error.errors(), kind, file, key) from None


def unknown(name: str, known: Iterable[str], *, what: str, file: Path, key: str) -> UserError:
    """The error for a name that does not exist, with what was probably meant."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    cure = (
        f"did you mean {' or '.join(close)}?"
        if close
        else f"one of: {', '.join(names) or '(none)'}"
    )
    return UserError(f"unknown {what} {name!r}", file=file, key=key, cure=cure)


def show(value: object) -> str:
    """A value and its type as a person would write them in YAML."""
    names: dict[type, str] = {type(None): "null", Mapping: "a mapping", list: "a list"}
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, datetime.date):
        return f"{value} (a date; in quotes it is a text)"
    return names.get(type(value), f"{value!r} ({type(value).__name__})")


def _explain(problems: list[Any], kind: type, file: Path, key: str) -> UserError:
    first = problems[0]
    place = [str(part) for part in first["loc"]]
    dotted = ".".join([key, *place])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = getattr(_descend(kind, place[:-1]), "model_fields", None) or {}
        error = unknown(place[-1], list(known), what="key", file=file, key=dotted)
        return error.amended(error.problem + more, file=file, key=dotted)
    if first["type"] == "missing":
        expected = _type_at(kind, place)
        return UserError(
            f"a required key is missing{more}", file=file, key=dotted, cure=f"add it: {expected}"
        )
    if first["type"] == "value_error":  # a validator's own words are complete
        found = first["ctx"]["error"]
        return UserError(
            str(found) + more, file=file, key=dotted, cure=getattr(found, "cure", None)
        )
    problem = f"{first['msg']}, found {show(first['input'])}{more}"
    return UserError(problem, file=file, key=dotted, cure=f"expected {_type_at(kind, place)}")


def _type_at(kind: object, place: list[str]) -> str:
    found = _descend(kind, place)
    return describe(found) if found is not None else "another type"


def _descend(kind: Any, place: list[str]) -> Any:
    """The annotation at a place such as `files.0.urls` inside a model, or None."""
    for part in place:
        kind = _strip_optional(kind)
        fields = getattr(kind, "model_fields", None)
        if fields is not None:
            kind = fields[part].annotation if part in fields else None
        elif get_origin(kind) in (list, tuple, dict, set, frozenset):
            kind = get_args(kind)[-1] if get_args(kind)[-1] is not Ellipsis else get_args(kind)[0]
        else:
            return kind
    return kind


def _strip_optional(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        rest = [part for part in get_args(kind) if part is not type(None)]
        return rest[0] if len(rest) == 1 else kind
    return kind


def describe(kind: Any) -> str:
    """A type in plain words: `Literal["a", "b"]` is `one of: a, b`, `tuple[float, float]` a list of numbers."""
    kind = _strip_optional(kind)
    simple = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        Path: "a path",
        dict: "a mapping",
    }
    origin = get_origin(kind)
    if kind in simple:
        return simple[kind]
    if origin is Literal:
        return "one of: " + ", ".join(str(value) for value in get_args(kind))
    if origin in (list, tuple, set, frozenset):
        inner = [part for part in get_args(kind) if part is not Ellipsis]
        return f"a list of {describe(inner[0])}" if inner else "a list"
    if origin in (Union, types.UnionType):
        return " or ".join(describe(part) for part in get_args(kind))
    if hasattr(kind, "model_fields") or dataclasses.is_dataclass(kind) or origin is dict:
        return "a mapping"
    return getattr(kind, "__name__", str(kind))


def _build_dataclass(kind: Any, values: Mapping[str, Any], file: Path, key: str) -> Any:
    hints = _hints(kind)
    for name, value in values.items():
        if name not in hints:
            raise unknown(name, hints, what="key", file=file, key=f"{key}.{name}")
        if not _matches(value, hints[name]):
            cure = f"expected {describe(hints[name])}"
            raise UserError(
                f"wrong type: found {show(value)}", file=file, key=f"{key}.{name}", cure=cure
            )
    for field in dataclasses.fields(kind):
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if field.init and required and field.name not in values:
            cure = f"add it: {describe(hints[field.name])}"
            raise UserError(
                "a required key is missing", file=file, key=f"{key}.{field.name}", cure=cure
            )
    # YAML knows lists only; a frozen dataclass wants tuples, or it could not be hashed.
    given = {
        name: tuple(value)
        if isinstance(value, list) and get_origin(_strip_optional(hints[name])) is tuple
        else value
        for name, value in values.items()
    }
    try:
        return kind(**given)
    except UserError as error:  # a class knows neither file nor section
        raise error.amended(file=file, key=key) from error
    except (ValueError, TypeError) as error:
        raise UserError(str(error), file=file, key=key) from error


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _matches(value: object, kind: Any) -> bool:
    origin = get_origin(kind)
    if kind is Any or isinstance(kind, str):
        return True
    if origin is Literal:
        return value in get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_matches(value, part) for part in get_args(kind))
    if origin in (tuple, list):
        inner = [part for part in get_args(kind) if part is not Ellipsis]
        return isinstance(value, list) and all(_matches(item, inner[0]) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is type(None):
        return value is None
    return isinstance(value, kind) if isinstance(kind, type) else True
