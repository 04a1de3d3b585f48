"""Compares the results of two revisions: how much better or worse, and is it noise?

For every benchmark, model, prompt set, system and metric: both values, their difference, a paired
bootstrap interval over the instances that both revisions scored (clustered by image or video), a
p-value adjusted for the headline rows, and a verdict (`hqsam_metrics.verdicts`). AP over all sizes
and thresholds, no mean over instances, has its interval from the matches of both revisions; the
mean of a quantity of the same instances is compared beside it. Which value is what, its unit, and
which way is better is a trait of the metric (`hqsam_metrics.base.Score`).
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hqsam.systems import System
from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_metrics.seeds import two_level
from hqsam_metrics.verdicts import judge
from hqsam_pipelines.compare.machine import other_machine
from hqsam_pipelines.compare.revisions import (
    WORKSPACE,
    NotAvailableError,
    Repository,
    Revision,
    unavailable,
)
from hqsam_pipelines.compare.rows import (
    LONE,
    BenchmarkRows,
    Change,
    Instance,
    Strata,
    differing,
    hq_system,
)
from hqsam_pipelines.compare.stale import stale
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.results import systems_of

METHOD = (
    "B minus A, in points (fractions times 100) unless a unit is named; ↓: lower is better. "
    "Intervals: 95 %, by a paired "
    "studentised bootstrap over the instances that both revisions scored, resampling "
    "whole images (videos for "
    "video sets). p-values: adjusted by Benjamini and Hochberg over the headline rows that can "
    "move, for each model and system (docs/statistics.md). AP: "
    "whole images (videos) are left out in turn, their matches "
    "dropped, and precision and recall accumulated again."
)

_KINDS = ("benchmark", "metric", "prompt_set", "model")
_ONE_SEED = (
    "a head was trained anew, with one seed on each side: the intervals are about the images, and "
    "another seed may move the numbers as much (docs/statistics.md)"
)


@dataclass(frozen=True)
class Comparison:
    """All changes between two revisions.

    Attributes:
        a, b: the revisions.
        changes: the rows.
        missing: benchmarks (and prompt sets, systems) that only one side has, as sentences.
        notes: what could not be read, once each.
        commits: short log from A to B.
        params: differing keys of params.yaml with both values.
        outputs: DVC outputs whose content differs.
        instances: the most changed instances, largest change first.
        method: how to read the rows.
    """

    a: Revision
    b: Revision
    changes: tuple[Change, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    commits: tuple[str, ...]
    params: tuple[tuple[str, str, str], ...]
    outputs: tuple[str, ...]
    instances: tuple[Instance, ...]
    method: str = METHOD

    @functools.cached_property
    def systems(self) -> tuple[System, ...]:
        """The systems of B, then those that only A has."""
        now, before = (systems_of(side.params, side.results) for side in (self.b, self.a))
        return (
            *now,
            *(system for system in before if system.name not in {other.name for other in now}),
        )

    def system(self, name: str) -> System:
        """A system by its name."""
        return next(system for system in self.systems if system.name == name)


def compare(
    root: Path,
    rev_a: str,
    rev_b: str = WORKSPACE,
    *,
    only: Sequence[str] = (),
    running: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Compares two revisions of the repository at `root`.

    Args:
        root: folder with dvc.yaml, inside a git repository.
        rev_a: a git revision (or ``workspace``).
        rev_b: the same; what is judged.
        only: names of benchmarks, metrics, prompt sets or models: other rows are no part of the
            question; several of a kind are alternatives.
        running: DVC is at work: it is not asked what is out of date.
        progress: called with (done, total, what).

    Raises:
        UserError: no git repository, unknown revision, no metrics at a revision, damaged files, a
            name in `only` that no row has.
    """
    repository = Repository(root)
    a, b = repository.revision(rev_a), repository.revision(rev_b)
    found: list[Change] = []
    notes: list[str] = []
    lacking: list[NotAvailableError] = []
    instances: list[Instance] = []
    strata: Strata = {}
    seeds: set[tuple[int, int]] = set()
    # (benchmark, model) of both sides, in the order of B's params.yaml
    order = {name: place for place, name in enumerate(b.params.get("benchmarks", {}))}
    pairs = sorted(
        {(r.benchmark, r.model) for side in (a, b) for r in side.results},
        key=lambda p: (order.get(p[0], len(order)), p),
    )
    for place, (benchmark, model) in enumerate(pairs):
        if progress is not None:
            progress(place, len(pairs), benchmark)
        one = BenchmarkRows(a, b, benchmark, model)
        rows = one.changes(strata)
        found += one.resampled(rows)
        instances += one.instances()
        seeds.add(one.seeds)
        notes += one.notes
        lacking += one.lacking
    found = _chosen(_hq4_rows(found, strata) + found, only)
    kept = {(row.benchmark, row.model, row.prompt_set) for row in found}
    return Comparison(
        a=a,
        b=b,
        changes=tuple(_judged(found, a, b)),
        missing=tuple(_missing(a, b)),
        notes=(
            *([] if running else dict.fromkeys([*stale(a), *stale(b)])),
            *unavailable(lacking),
            *dict.fromkeys(notes),
            *_about_seeds(a, b, seeds),
        ),
        commits=tuple(repository.commits_between(a.sha, b.sha)),
        params=differing(a.params, b.params),
        outputs=tuple(
            sorted(p for p in {*a.outputs, *b.outputs} if a.outputs.get(p) != b.outputs.get(p))
        ),
        instances=tuple(
            sorted(
                [i for i in instances if (i.benchmark, i.model, i.prompt_set) in kept],
                key=lambda i: (-abs(i.b - i.a), i.benchmark, i.key, i.unit),
            )[:24]
        ),
    )


def _chosen(rows: list[Change], only: Sequence[str]) -> list[Change]:
    """The rows that `only` names (see `compare`).

    Raises:
        UserError: a name that no row has.
    """
    kinds: dict[str, set[str]] = {}
    for word in only:
        kind = next((k for k in _KINDS for row in rows if word in _names_of(row, k)), None)
        if kind is None:
            known = sorted({name for row in rows for k in _KINDS for name in _names_of(row, k)})
            close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
            cure = f"did you mean {close[0]}?" if close else f"one of: {', '.join(known)}"
            raise UserError("no row has this name", key=f"--only {word}", cure=cure)
        kinds.setdefault(kind, set()).add(word)
    return [r for r in rows if all(words & _names_of(r, k) for k, words in kinds.items())]


def _names_of(row: Change, kind: str) -> set[str]:
    """What a row's benchmark, metric, prompt set or model may be called."""
    name = str(getattr(row, kind))
    return {name, paper.title(name)} if kind == "benchmark" else {name}


def _hq4_rows(changes: Iterable[Change], strata: Strata) -> list[Change]:
    """The mean over the four HQ sets, for each system and metric that all four have; without an interval where a table is missing."""
    table = {(c.benchmark, c.model, c.prompt_set, c.system, c.metric): c for c in changes}
    rows = []
    for (benchmark, model, prompt_set, system, metric), first in table.items():
        found = [table.get((b, model, prompt_set, system, metric)) for b in paper.HQ4]
        known = [c for c in found if c is not None and c.difference is not None]
        if benchmark != paper.HQ4[0] or not first.main or len(known) < len(paper.HQ4):
            continue
        parts = strata.get((model, prompt_set, f"{system} {metric}"), {})
        paired = [parts[b] for b in paper.HQ4 if b in parts]
        a, b = (sum(getattr(c, side) for c in known) / len(known) for side in ("a", "b"))
        whole = two_level(paired) if len(paired) == len(paper.HQ4) else None
        mean = replace(first, benchmark=paper.HQ4_MEAN, a=a, b=b, difference=b - a, interval=whole)
        rows.append(mean)
    return rows


def _judged(changes: Sequence[Change], a: Revision, b: Revision) -> list[Change]:
    """Adds p-values and verdicts: the headline rows of HQ-SAM are one family, whichever of its outputs a set takes."""
    machine = other_machine(a, b)
    families: dict[tuple[str, str, bool], list[int]] = {}
    for place, change in enumerate(changes):
        if change.verdict not in ("not comparable", *LONE):
            output = change.system == hq_system(b, change.benchmark)
            family = (change.model, "" if output else change.system, change.headline)
            families.setdefault(family, []).append(place)
    judged = list(changes)
    for places in families.values():
        rows = judge(
            [(changes[place].interval, changes[place].scale) for place in places],
            other_machine=machine,
        )
        for place, row in zip(places, rows, strict=True):
            judged[place] = replace(
                changes[place],
                p_family=row.p,
                verdict=row.verdict,
                note=row.why or changes[place].note,
            )
    return judged


def _about_seeds(a: Revision, b: Revision, seeds: set[tuple[int, int]]) -> list[str]:
    """What the intervals say of the seeds that heads were trained with.

    Args:
        a: one side.
        b: the other.
        seeds: trainings of A and of B that are compared, of each benchmark and model.
    """
    known = sorted(seeds - {(1, 1)})
    if not known:
        both = a.outputs.keys() & b.outputs.keys()
        heads = [path for path in both if path.startswith("models/")]
        return [_ONE_SEED] if any(a.outputs[path] != b.outputs[path] for path in heads) else []
    notes = []
    for left, right in known:
        if left > 1 < right:
            notes.append(
                f"values are means over seeds (A {left}, B {right}); the intervals are about seeds "
                f"and images"
            )
        else:
            one, other, k = (a, "B", right) if left == 1 else (b, "A", left)
            notes.append(
                f"{one.label} was trained with one seed: how far others would move it is taken "
                f"from the {k} seeds of {other}; `hqsam repro seeds` trains more"
            )
    if (1, 1) in seeds:
        notes.append("some benchmarks have one seed on each side: their intervals are about images")
    return notes


def _missing(a: Revision, b: Revision) -> list[str]:
    """What only one side has: whole benchmarks first, then single prompt sets and systems."""
    found = []
    rows = [{r.row for r in side.results} for side in (a, b)]
    for own, other, side, opposite in ((rows[0], rows[1], a, b), (rows[1], rows[0], b, a)):
        sets, other_sets = ({row[:2] for row in part} for part in (own, other))
        for benchmark, model in sorted(sets - other_sets):
            found.append(
                f"{benchmark} ({model}) is missing at {opposite.label}, it is only at {side.label}"
            )
        for row in sorted(r for r in own - other if r[:2] in other_sets):
            found.append(
                f"{' '.join(row)} is missing at {opposite.label}, it is only at {side.label}"
            )
    return found
