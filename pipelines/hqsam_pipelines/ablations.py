"""The grid of the paper's ablations: one overlay per row, and the profile that they make together.

`configs/ablations/<row>.yaml` says in a few keys how a row differs from HQ-SAM: an entry of
`models` (what it leaves out is taken from the base profile's first model) and perhaps a `train` of
its own. `_<base>.yaml` adapts the base profile itself: its benchmarks, the extra source. The
profile `ablations` is the sample with all rows, `paper_ablations` the same with the paper's data;
the report then has a table with one row for each. `sample_full` has an adaptation of its own: the
rows of the tables that it names, and every prompt set.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_pipelines.config.yaml_file import read_yaml

FOLDER = Path("configs") / "ablations"
PROFILES = {"ablations": "sample", "paper_ablations": "paper", "sample_full": "sample"}
"""Composed profile and the ready profile that it is made from."""

_OWN = ("title", "paper", "profiles")


@dataclass(frozen=True)
class Row:
    """One overlay.

    Attributes:
        name: of the file and of the model.
        title: what it is, for the table.
        paper: `table: system` of the paper's row, as in paper_tables.csv.
        profiles: base profiles that it can run on; empty: all.
        changes: what it adds to the base profile.
    """

    name: str
    title: str
    paper: str
    profiles: tuple[str, ...]
    changes: Mapping[str, Any]


def rows(root: Path) -> list[Row]:
    """Return all rows, by the paper's tables, then by name.

    Raises:
        UserError: an overlay is not one.
    """
    found = []
    for path in (root / FOLDER).glob("[!_]*.yaml"):
        raw = mapping(read_yaml(path), path)
        missing = [key for key in ("title", "paper", "models") if key not in raw]
        if missing or list(raw["models"]) != [path.stem]:
            raise UserError(
                "an ablation needs a title, a paper and one entry of models with the file's name",
                file=path,
                key=missing[0] if missing else "models",
                cure="compare it with the other files of this folder",
            )
        profiles = tuple(raw.get("profiles", ()))
        changes = {key: value for key, value in raw.items() if key not in _OWN}
        found.append(Row(path.stem, str(raw["title"]), str(raw["paper"]), profiles, changes))
    return sorted(found, key=lambda row: (_table(row.paper), row.name))


def _table(paper: str) -> tuple[int, str]:
    table = paper.partition(":")[0]
    return (int(table) if table.isdigit() else 3, table)


def compose(root: Path, profile: str) -> bytes:
    """Return the content of params.yaml for a composed profile: the same overlays give the same bytes.

    Args:
        root: The repository.
        profile: A key of `PROFILES`.

    Raises:
        UserError: an overlay or the base profile is not valid.
    """
    base = PROFILES[profile]
    path, own = root / "configs" / f"{base}.yaml", root / FOLDER / f"_{profile}.yaml"
    overlay = own if own.is_file() else root / FOLDER / f"_{base}.yaml"
    changes = dict(mapping(read_yaml(overlay), overlay))
    tables = changes.pop("tables", None)
    merged = merge(mapping(read_yaml(path), path), changes)
    first = next(iter(merged["models"].values()))
    for row in rows(root):
        wanted = tables is None or row.paper.partition(":")[0] in tables
        if wanted and (not row.profiles or base in row.profiles):
            merged = merge(
                merged,
                {**row.changes, "models": {row.name: {**first, **row.changes["models"][row.name]}}},
            )
    made = f"configs/{base}.yaml with the overlays of {FOLDER.as_posix()}"
    return written(merged, profile, f"{made}, put together by `hqsam profile {profile}`.")


def written(content: Mapping[str, Any], profile: str, comment: str) -> bytes:
    """Return the bytes of a composed params.yaml; its first line is the comment."""
    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    # Block style throughout: the C reader that DVC uses takes no `a://b` inside brackets.
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = False, 4096, False
    yaml.representer.ignore_aliases = lambda _value: True  # an overlay's anchors are its own affair
    out = io.BytesIO()
    out.write(f"# {comment}\n".encode())
    yaml.dump({**content, "profile": profile}, out)
    return out.getvalue()


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `changes` into `base`, mapping by mapping; None takes a key away."""
    merged = dict(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def mapping(value: object, path: Path) -> Mapping[str, Any]:
    """Return the content of an overlay.

    Raises:
        UserError: it is not a mapping.
    """
    if not isinstance(value, Mapping):
        raise UserError(
            "expected a mapping", file=path, cure="compare it with the other files of this folder"
        )
    return value
