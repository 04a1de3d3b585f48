"""The outline of params.yaml: its sections, the names of their entries, and what these refer to in each other.

Checked before any section becomes an options object (`params`), without an import of their classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_pipelines.config import schema

NAMED = ("archives", "sources", "benchmarks", "models")
"""Sections that hold one entry per name; a name is a file name, a DVC stage name and a folder name at once."""

PLAIN = ("overlap", "quality", "shard", "augment", "train", "predict", "report")
"""Sections that are one options object."""

OPTIONAL = ("systems",)
"""Sections that need not be there: their default is what every run has."""

BENCHMARK_KEYS = ("kind", "archive", "index", "predict", "score")

PROTOCOL_KEY = "protocol"
"""Key of a benchmark that need not be there; what it stands for: `hqsam_pipelines.config.protocols`."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")

FILE_NAMES = {
    "sources": ("kind", "archive"),
    "benchmarks": ("kind", "archive"),
    "models": ("backbone", "variant"),
}
"""Keys of an entry whose value is part of a path in dvc.yaml."""


def check_outline(raw: Mapping[str, Any], file: Path) -> None:
    """Check the keys and types of the top level, the names of the entries, and what they refer to.

    Raises:
        UserError: the first mistake.
    """
    known = ("profile", "seed", *NAMED, *PLAIN, *OPTIONAL)
    for key in raw:
        if key not in known:
            raise schema.unknown(str(key), known, what="key", file=file, key=str(key))
    expected: dict[str, type] = {"profile": str, "seed": int} | dict.fromkeys(
        (*NAMED, *PLAIN), dict
    )
    for key, kind in expected.items():
        if key not in raw:
            raise UserError(
                "a required key is missing",
                file=file,
                key=key,
                cure=f"add it: {schema.describe(kind)}",
            )
        if not isinstance(raw[key], kind) or isinstance(raw[key], bool):
            cure = f"expected {schema.describe(kind)}"
            raise UserError(
                f"wrong type: found {schema.show(raw[key])}", file=file, key=key, cure=cure
            )
    for section in NAMED:
        if not raw[section] and section != "sources":  # none where nothing trains: see `train`
            raise UserError("there is no entry", file=file, key=section, cure="name at least one")
    for section in (name for name in OPTIONAL if name in raw):
        if not isinstance(raw[section], Mapping) or not raw[section]:
            cure = "name at least one entry, or leave the section out"
            raise UserError(
                f"expected a mapping, found {schema.show(raw[section])}",
                file=file,
                key=section,
                cure=cure,
            )
    check_names(raw, file)
    _check_sets(raw, file)


def check_names(raw: object, file: Path) -> None:
    """Refuse names that must not become part of a path, a stage name or a word of a command, whatever else the file holds.

    Quick, so that every entry point can ask before DVC acts on the names.

    Raises:
        UserError: a name of an entry, or one that an entry gives for a file (`FILE_NAMES`), is
            none.
    """
    sections = raw if isinstance(raw, Mapping) else {}
    for section in (*NAMED, *OPTIONAL):
        entries = sections.get(section, {})
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            _check_name(name, file, section)
            if not isinstance(entry, Mapping):
                raise UserError(
                    f"expected a mapping, found {schema.show(entry)}",
                    file=file,
                    key=f"{section}.{name}",
                )
            for key in FILE_NAMES.get(section, ()):
                if key in entry:
                    _check_name(entry[key], file, f"{section}.{name}.{key}")


def _check_name(name: object, file: Path, key: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        cure = (
            "use lower-case letters, digits and underscores: it becomes a file, folder and stage "
            "name"
        )
        shown = repr(name) if isinstance(name, str) else schema.show(name)
        raise UserError(f"bad name {shown}", file=file, key=key, cure=cure)


def _check_sets(raw: Mapping[str, Any], file: Path) -> None:
    """The archives and kinds of the sources and benchmarks, and the other keys of a benchmark."""
    entries = [(s, *item) for s in ("sources", "benchmarks") for item in raw[s].items()]
    missing = "a required key is missing"
    for section, name, entry in entries:
        key = f"{section}.{name}.archive"
        if "archive" not in entry:
            raise UserError(missing, file=file, key=key, cure="name an entry of `archives`")
        if entry["archive"] not in raw["archives"]:
            raise schema.unknown(
                str(entry["archive"]), raw["archives"], what="archive", file=file, key=key
            )
    for name in raw["benchmarks"].keys() & raw["sources"].keys():
        cure = "rename one of them: their keys would be the same"
        raise UserError(
            f"a source is called {name}, too", file=file, key=f"benchmarks.{name}", cure=cure
        )
    for section, name, entry in entries:
        # DVC takes the stage's code dependency from `kind` and knows no defaults.
        if "kind" not in entry:
            cure = (
                f"add `kind: {name}` for a set with a file of its own in "
                f"datasets/hqsam_datasets/{section}, else folder, label_maps, ..."
            )
            raise UserError(missing, file=file, key=f"{section}.{name}.kind", cure=cure)
    known = (*BENCHMARK_KEYS, PROTOCOL_KEY)
    for name, entry in raw["benchmarks"].items():
        for key in entry:
            if key not in known:
                raise schema.unknown(
                    str(key), known, what="key", file=file, key=f"benchmarks.{name}.{key}"
                )
        for key in BENCHMARK_KEYS:
            if key not in entry:
                raise UserError(missing, file=file, key=f"benchmarks.{name}.{key}", cure="add it")
