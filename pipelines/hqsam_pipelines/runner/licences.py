"""Under which licences the packages are that this installation of the project uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

PROJECT = "hqsam-pipeline"
UNKNOWN = "unknown: its metadata names none"
_LONGEST = 90  # characters of a licence's name; some packages put the whole text there


@dataclass(frozen=True)
class Licence:
    """A package, its version, and its licence as stated in its metadata: an SPDX expression where there is one."""

    name: str
    version: str
    licence: str


def licences() -> list[Licence]:
    """The licence of every installed package that the project needs, by all of its extras; sorted by name."""
    found: dict[str, Licence] = {}
    waiting = [
        *_needs(PROJECT, None),
        ("lvis", set[str]()),
    ]  # lvis is installed without what it says it needs (Makefile)
    while waiting:
        name, extras = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        try:
            about = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue  # of an extra, or another platform's
        if key not in found and key != PROJECT:
            found[key] = Licence(about["Name"], about["Version"], licence_of(about))
            waiting += _needs(name, extras)
    return [found[key] for key in sorted(found)]


def licence_of(about: metadata.PackageMetadata) -> str:
    """The licence that a package's metadata tells: its expression, its short name, or its classifiers."""
    if "License-Expression" in about:
        return about["License-Expression"]
    told = re.sub("^UNKNOWN$", "", about["License"].strip() if "License" in about else "")
    if told and len(told) <= _LONGEST and "\n" not in told:
        return told
    classified = [
        c.rpartition(" :: ")[2]
        for c in about.get_all("Classifier") or ()
        if c.startswith("License ::")
    ]
    first = next((line.strip() for line in told.splitlines() if line.strip()), "")
    return ", ".join(classified) or first[:_LONGEST] or UNKNOWN


def _needs(name: str, extras: set[str] | None) -> Iterator[tuple[str, set[str]]]:
    """What a package needs here, with the extras that it wants of each; None: by any of its own extras."""
    if extras is None:
        extras = set(metadata.metadata(name).get_all("Provides-Extra") or ())
    for line in metadata.requires(name) or ():
        wanted = Requirement(line)
        if wanted.marker is None or any(
            wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)
        ):
            yield wanted.name, wanted.extras
