"""Reads YAML 1.2 as DVC does: params.yaml, the profiles and the overlays."""

from __future__ import annotations

from pathlib import Path

from hqsam_base.errors import UserError


def read_yaml(file: Path) -> object:
    """Read YAML 1.2 as DVC does (`1e-3` is a number, `no` a text; a key that appears twice is an error).

    Raises:
        UserError: the file is missing or not readable as YAML.
    """
    try:
        return parse_yaml(file.read_bytes(), file)
    except FileNotFoundError as error:
        raise UserError(
            "the file does not exist", file=file, cure="run `hqsam profile sample`"
        ) from error


def parse_yaml(content: bytes, file: Path) -> object:
    """Like `read_yaml`, for content that was read already."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(content.decode())
    except (
        YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: no UTF-8, or a date with a month 13
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        problem = str(getattr(error, "problem", None) or error).splitlines()[0]
        cure = f"fix that place; `git diff -- {file}` shows what was changed"
        raise UserError(f"not readable as YAML: {place}{problem}", file=file, cure=cure) from error
