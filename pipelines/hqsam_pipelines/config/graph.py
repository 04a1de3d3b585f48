"""DVC's own graph of stages, reduced to names: what waits for what, and what is out of date."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_pipelines.config import dvc_site
from hqsam_pipelines.config.params import FILE
from hqsam_pipelines.config.schema import unknown
from hqsam_pipelines.config.yaml_file import read_yaml


@dataclass(frozen=True)
class Graph:
    """The part of the pipeline that the targets need.

    Attributes:
        order: Stage names, each after everything that it needs.
        needs: Stage to the stages directly before it.
        changed: Stages whose own command, code, parameters, inputs or outputs differ from dvc.lock.
        weight: Stage to the number of stages that wait for it, directly or not.
        targets: The stages that were asked for.
        known: Every stage of the pipeline.
    """

    order: tuple[str, ...]
    needs: dict[str, frozenset[str]]
    changed: frozenset[str]
    weight: dict[str, int]
    targets: tuple[str, ...]
    known: list[str]


def read_graph(
    root: Path,
    targets: Sequence[str],
    *,
    loaded: Callable[[Any, Mapping[str, Any]], None] | None = None,
) -> Graph:
    """Read dvc.yaml and compare the workspace with dvc.lock.

    Args:
        root: The repository.
        targets: Stage names, or groups: `score` stands for every `score@...`; empty: all stages.
        loaded: Called before the comparison, with DVC's repository and all of its stages by name.

    Raises:
        UserError: an unknown target, or dvc.yaml is not valid.
    """
    from dvc.exceptions import DvcException

    try:
        with dvc_site.open_repo(root) as repo:
            graph = repo.index.graph
            stages = {
                stage.name: stage for stage in graph.nodes
            }  # `addressing` depends on the current folder
            needs = {
                name: frozenset(n.name for n in graph.successors(stages[name])) for name in stages
            }
            wanted = _resolve(targets, list(stages), root)
            order = _ordered(needs, wanted)
            if loaded is not None:
                loaded(repo, stages)
            with repo.lock:
                # in itself: a change further up is the walk's business
                changed = frozenset(name for name in order if stages[name].changed())
    except DvcException as error:
        raise clear(error, root) from error
    kept = {name: needs[name] for name in order}
    followers: dict[str, set[str]] = {name: set() for name in kept}
    for name in reversed(list(kept)):
        for before in kept[name]:
            followers[before] |= {name} | followers[name]
    weights = {name: len(later) for name, later in followers.items()}
    return Graph(tuple(order), kept, changed, weights, tuple(wanted), sorted(stages))


def edited(root: Path) -> list[str]:
    """Stages whose command, code, parameters, inputs or outputs are there and differ from dvc.lock, in dvc.yaml's order.

    Files that are not there say nothing: a fresh clone has none before `dvc pull`.

    Raises:
        UserError: dvc.yaml is not valid, or another DVC is at work.
    """
    from dvc.exceptions import DvcException

    try:
        with dvc_site.open_repo(root) as repo:
            names = [stage.name for stage in repo.index.stages]
            found = repo.status()
    except DvcException as error:
        raise clear(error, root) from error
    short = {address.rpartition(":")[2]: entries for address, entries in found.items()}
    return [name for name in names if any(map(_differs, short.get(name, ())))]


def missing_outputs(root: Path, name: str) -> list[str]:
    """The outputs of a stage that are not there; none if there is no such stage.

    Raises:
        UserError: dvc.yaml is not valid.
    """
    from dvc.exceptions import DvcException

    try:
        with dvc_site.open_repo(root) as repo:
            outs = [out for stage in repo.index.stages if stage.name == name for out in stage.outs]
            return [str(out.fs_path) for out in outs if not out.exists]
    except DvcException as error:
        raise clear(error, root) from error


def clear(error: Exception, root: Path) -> UserError:
    """DVC's error; if one of the files that it reads is not YAML, that file and the line instead."""
    for name in (FILE, "dvc.yaml", "dvc.lock"):
        with contextlib.suppress(OSError):  # DVC's message says so then
            if (root / name).is_file():
                try:
                    read_yaml(root / name)
                except UserError as found:
                    return found
    problem, *details = str(error).splitlines() or [type(error).__name__]
    return UserError(f"DVC: {problem}", details=details, file=root / "dvc.yaml")


def _differs(entry: Any) -> bool:
    """Whether an entry of DVC's status is about something that is there: `{"changed deps": {path: word}}`, or a text."""
    if not isinstance(entry, Mapping):
        return not isinstance(entry, str) or entry in ("modified", "new", "changed command")
    return any(map(_differs, entry.values()))


def _resolve(targets: Sequence[str], names: list[str], root: Path) -> list[str]:
    if not targets:
        return names
    found: list[str] = []
    for target in targets:
        members = [name for name in names if name == target or name.partition("@")[0] == target]
        if not members:
            groups = {name.partition("@")[0] for name in names}
            raise unknown(
                target, {*names, *groups}, what="stage", file=root / "dvc.yaml", key=target
            )
        found += [name for name in members if name not in found]
    return found


def _ordered(needs: dict[str, frozenset[str]], wanted: Iterable[str]) -> list[str]:
    """The wanted stages and all before them, each after what it needs; ties in dvc.yaml's order."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in order:
            for before in (other for other in needs if other in needs[name]):
                visit(before)
            order[name] = None

    for name in wanted:
        visit(name)
    return list(order)
