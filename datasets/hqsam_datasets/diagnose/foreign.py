"""Annotation files of labelling tools that are not read, known by their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_base.texts import open_text

_LARGEST = 64 << 20


def tool_of(path: Path) -> str | None:
    """Returns the tool whose own format a file is in; None: another file, a COCO file, or one too large to look at."""
    try:
        if path.stat().st_size > _LARGEST:
            return None
        with open_text(path) as file:
            if path.suffix == ".xml":
                return "CVAT" if "<annotations>" in file.read(400) else None
            return _tool(json.load(file))
    except (OSError, ValueError, RecursionError):
        return None


def foreign_format(path: Path) -> UserError:
    """Returns the error about a file that `tool_of` knows."""
    problem = f"the objects seem to be in the format of {tool_of(path)}, which is not read"
    cure = (
        "export them as COCO there, or convert them, as the library datumaro does; name that file "
        "with --annotations"
    )
    return UserError(problem, file=path, cure=cure)


def _tool(content: Any) -> str | None:
    if isinstance(content, list):
        tasks = content and all(
            isinstance(one, dict) and {"data", "annotations"} <= one.keys() for one in content
        )
        return "Label Studio" if tasks else None
    if not isinstance(content, dict):
        return None
    keys = content.keys()
    if {"categories", "items"} <= keys:
        return "Datumaro"
    if {"size", "objects"} <= keys or {"classes", "projectType"} <= keys:
        return "Supervisely"
    of_pictures = [
        one
        for one in content.values()
        if isinstance(one, dict) and {"filename", "regions"} <= one.keys()
    ]
    return "VGG Image Annotator" if "_via_img_metadata" in keys or of_pictures else None
