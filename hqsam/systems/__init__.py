"""Whose masks a run predicts and compares: kinds of systems, one file each, found by name.

``load("sam_hq")`` returns the constant ``SYSTEM`` of ``hqsam/systems/sam_hq.py``. A run's list
comes from the optional section ``systems`` of params.yaml; without it the run has SAM and the two
outputs of HQ-SAM, from one encoding. Predictions, scores, report and comparison follow the list: a
new system is one file of a new kind, or one entry of a kind that is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from hqsam.systems.base import (
    Context,
    Decoded,
    Derived,
    Entry,
    Given,
    GivenKind,
    Promptable,
    System,
    SystemKind,
    SystemOptions,
)
from hqsam_base.errors import UserError
from hqsam_base.seam import Seam

__all__ = [
    "DEFAULT",
    "SECTION",
    "Context",
    "Decoded",
    "Derived",
    "Entry",
    "Given",
    "GivenKind",
    "Promptable",
    "System",
    "SystemKind",
    "SystemOptions",
    "applying",
    "check",
    "listed",
    "load",
    "names",
    "of_entries",
]

SECTION: Mapping[str, Mapping[str, Any]] = {"sam_hq": {"kind": "sam_hq"}}
"""The section ``systems`` of a params.yaml that has none."""

_SEAM = Seam(
    package=__name__,
    what="system kind",
    constant="SYSTEM",
    kind=SystemKind,  # type: ignore[type-abstract]
    helpers=frozenset({"base"}),
)
names = _SEAM.names
load = _SEAM.load

DEFAULT = (Entry("sam_hq", SystemOptions(kind="sam_hq")),)
"""The entries of `SECTION`."""


def of_entries(entries: Iterable[Entry]) -> tuple[System, ...]:
    """List the systems of some entries, in their order.

    What an entry is compared with by default is ``sam``, if it is there.
    """
    found = [system for entry in entries for system in load(entry.options.kind).systems(entry)]
    baseline = next((system.name for system in found if system.name == "sam"), None)
    known = {system.name for system in found}
    return tuple(
        system
        if system.versus in known or system.name == baseline
        else replace(system, versus=baseline)
        for system in found
    )


def check(entries: Sequence[Entry]) -> None:
    """Check that each system has a name of its own and that those named by others are there.

    Raises:
        UserError: naming the key of params.yaml.
    """
    seen: dict[str, str] = {}
    kinds = {entry.name: load(entry.options.kind) for entry in entries}
    for entry in entries:
        for system in load(entry.options.kind).systems(entry):
            if system.name in seen:
                raise UserError(
                    f"the system {system.name} is there twice, of the entries {seen[system.name]} "
                    f"and {entry.name}",
                    key=f"systems.{entry.name}",
                    cure="rename this entry",
                )
            seen[system.name] = entry.name
        for key in ("versus", "of"):
            named = getattr(entry.options, key, None)
            if named is not None and (named not in seen or seen[named] == entry.name):
                raise UserError(
                    f"there is no system {named} before it",
                    key=f"systems.{entry.name}.{key}",
                    cure=f"name one of: "
                    f"{', '.join(name for name, of in seen.items() if of != entry.name)}",
                )
        of = getattr(entry.options, "of", None)
        if of is not None and isinstance(kinds[seen[of]], GivenKind):
            raise UserError(
                f"the masks of {of} exist already: no refiner is run on them",
                key=f"systems.{entry.name}.of",
                cure="name a system that this run predicts",
            )


def applying(entries: Sequence[Entry], model: str, models: Sequence[str]) -> tuple[Entry, ...]:
    """Choose the entries that are predicted for a model.

    Args:
        entries: those of the run.
        model: its name.
        models: names of all models, in the order of params.yaml.
    """
    first = tuple(models[:1])
    return tuple(
        e
        for e in entries
        if load(e.options.kind).every_model or model in (e.options.models or first)
    )


def listed(section: Mapping[str, Any] | None) -> tuple[System, ...]:
    """List a run's systems for whoever shows results: entries that cannot be read here are left out.

    Args:
        section: ``systems`` of params.yaml as it was read, perhaps at another revision; None: there
            is none.
    """
    entries = []
    given = section or SECTION
    for name, values in given.items() if isinstance(given, Mapping) else ():
        try:
            entries.append(Entry(name, load(values["kind"]).options.model_validate(values)))
        except (UserError, ValidationError, KeyError, TypeError):
            continue
    return of_entries(entries)
