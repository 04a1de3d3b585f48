"""What the report reads: metrics files and per-instance tables of a run, as typed records.

Formats: docs/formats.md. Everything is read lazily, so that a report of a large run never holds
more than one benchmark's table at a time beside the metrics.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StrictInt, StringConstraints

from hqsam.systems import System, listed
from hqsam_base.errors import UserError
from hqsam_metrics.base import Score, score_of
from hqsam_pipelines.config.strict import Name, Outline, PromptSetName, outlined, parse_json
from hqsam_pipelines.report.units import units_frame

if TYPE_CHECKING:
    import pandas as pd

    from hqsam_metrics.stats import Difference


@dataclass(frozen=True)
class Result:
    """One system's metrics on one benchmark under one prompt set.

    Attributes:
        benchmark: name as in ``params.yaml``.
        model: name as in ``params.yaml``.
        prompt_set: ``gt_box``, ``detector_box``, ...
        system: a name of the run's list (`hqsam.systems`).
        metrics: finite values only, as stored (`hqsam_metrics.base.Scale`). An undefined metric is
            absent.
        n_expected: units that the protocol asks for.
        n_scored: units that were scored.
        protocol: the protocol block.
        protocol_hash: its hash.
        warnings: what the evaluator wants a person to know.
    """

    benchmark: str
    model: str
    prompt_set: str
    system: str
    metrics: Mapping[str, float]
    n_expected: int
    n_scored: int
    protocol: Mapping[str, Any]
    protocol_hash: str
    warnings: tuple[str, ...] = ()

    @functools.cached_property
    def score(self) -> Score:
        """The metric that it is of, by its protocol."""
        return score_of(self.protocol)

    def shown(self, metric: str) -> float | None:
        """A value as people read it, None if it is undefined."""
        return (
            self.score.value(metric).scale.factor * self.metrics[metric]
            if metric in self.metrics
            else None
        )

    @property
    def row(self) -> tuple[str, str, str, str]:
        """What identifies the result: benchmark, model, prompt set, system."""
        return (self.benchmark, self.model, self.prompt_set, self.system)


def parse_metrics(text: bytes, where: str) -> list[Result]:
    """Reads one ``reports/metrics/<benchmark>-<model>.json``.

    Args:
        text: the file's bytes.
        where: its name for error messages.

    Raises:
        UserError: it is no metrics file.
    """
    try:
        found = outlined(_MetricsFile, parse_json(text, where), where)
    except UserError as error:
        problem = f"this is not a metrics file: {error.problem}"
        raise UserError(problem, file=where, key=error.key, cure="run `dvc repro score`") from error
    results = []
    for item in found.results:
        given = {name: getattr(item, name) for name in _Item.model_fields if name != "metrics"}
        known = {name: value for name, value in item.metrics.items() if value is not None}
        results.append(Result(benchmark=found.benchmark, model=found.model, metrics=known, **given))
    return results


_Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_&@.+-]{1,80}$")]


_Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e9, le=1e9)]
"""`true` is none; percent and differences of larger numbers could be infinite."""


class _Item(Outline):
    """One system's entry of a metrics file."""

    prompt_set: PromptSetName
    system: Name
    metrics: dict[_Word, _Number | None]
    n_expected: StrictInt
    n_scored: StrictInt
    protocol: dict[str, Any]
    protocol_hash: _Word
    warnings: tuple[str, ...] = ()


class _MetricsFile(Outline):
    """Its names become parts of paths."""

    benchmark: Name
    model: Name
    results: tuple[_Item, ...]


def refuse_twins(results: Sequence[Result], where: str) -> None:
    """Refuse two results of one benchmark, model, prompt set and system, in one file or in two.

    Args:
        results: Of a run.
        where: Its files, for the message.

    Raises:
        UserError: there are two; which of them counts would be chance.
    """
    rows = [result.row for result in results]
    twice = next((row for row, count in Counter(rows).items() if count > 1), None)
    if twice is not None:
        raise UserError(
            "a result stands twice in the metrics files",
            file=where,
            key=", ".join(twice),
            cure="delete the file that no stage of this profile writes, or run `dvc repro score`",
        )


def load_metrics(folder: Path) -> list[Result]:
    """Reads every metrics file of a folder.

    Raises:
        UserError: there is none, or a result stands twice.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UserError("there are no metrics to report", file=folder, cure="run `dvc repro score`")
    found = [result for file in files for result in parse_metrics(file.read_bytes(), str(file))]
    refuse_twins(found, str(folder))
    return found


def as_mapping(params: Any) -> Mapping[str, Any]:
    """The sections of ``params.yaml`` as plain mappings, from a mapping or from the validated `Params`."""
    sections: Mapping[str, Any] = params if isinstance(params, Mapping) else params.raw
    return sections


def systems_of(params: Mapping[str, Any], results: Iterable[Result]) -> tuple[System, ...]:
    """The systems of a run: the list of its ``params.yaml``, then those that only its results have, by name."""
    known = listed(params.get("systems"))
    more = sorted({result.system for result in results} - {system.name for system in known})
    return (*known, *(System(name=name, label=name, owner=name) for name in more))


def further(systems: Sequence[System], output: str) -> tuple[System, ...]:
    """The systems beside those of the owners of `output` (what HQ-SAM is in a protocol) and of its baseline."""
    of_name = {system.name: system for system in systems}
    hq = of_name[output]
    shown = {hq.owner, of_name[hq.versus or output].owner}
    return tuple(system for system in systems if system.owner not in shown)


class Run:
    """One run's results, in the order of ``params.yaml``.

    Args:
        root: the repository.
        params: the sections of ``params.yaml``.
        results: all metrics rows.
        absent: (benchmark, model) pairs of ``params.yaml`` that have no results, because a stage of
            theirs failed or was not run.
    """

    def __init__(
        self,
        root: Path,
        params: Mapping[str, Any],
        results: Sequence[Result],
        absent: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.root = root
        self.params = params
        self.results = tuple(results)
        self.absent = tuple(absent)
        self._by_row = {result.row: result for result in results}
        self.units = functools.lru_cache(maxsize=4)(self._read_units)
        self.resampled = functools.lru_cache(maxsize=None)(self._resampled)

    @property
    def benchmarks(self) -> list[str]:
        """Benchmarks with results, in the order of ``params.yaml``; unlisted ones follow by name."""
        return _in_order({r.benchmark for r in self.results}, self.params.get("benchmarks", {}))

    @property
    def models(self) -> list[str]:
        """Models with results; the first is the one that the headline is about."""
        return _in_order({r.model for r in self.results}, self.params.get("models", {}))

    def prompt_sets(self, benchmark: str, model: str) -> list[str]:
        """Prompt sets with results, in the order of ``params.yaml``."""
        found = {r.prompt_set for r in self.results if (r.benchmark, r.model) == (benchmark, model)}
        listed = self.benchmark_params(benchmark).get("index", {}).get("prompt_sets", ())
        return _in_order(found, listed)

    def benchmark_params(self, benchmark: str) -> Mapping[str, Any]:
        """The benchmark's section of ``params.yaml``; empty if it has none."""
        section: Mapping[str, Any] = self.params.get("benchmarks", {}).get(benchmark, {})
        return section

    @functools.cached_property
    def systems(self) -> tuple[System, ...]:
        """The systems of the run: the list of ``params.yaml``, then those that only the results have, by name."""
        return systems_of(self.params, self.results)

    def system(self, name: str) -> System:
        """A system of the run by its name."""
        return next(system for system in self.systems if system.name == name)

    def baseline(self, benchmark: str) -> str:
        """What HQ-SAM is compared with in this benchmark's protocol: SAM."""
        output = self.hq_system(benchmark)
        return self.system(output).versus or output

    def further(self, benchmark: str) -> tuple[System, ...]:
        """The systems beside HQ-SAM, its other outputs and its baseline."""
        return further(self.systems, self.hq_system(benchmark))

    def hq_system(self, benchmark: str) -> str:
        """Which system is HQ-SAM in this benchmark's protocol (``score.output``)."""
        return str(self.benchmark_params(benchmark).get("score", {}).get("output", "hq_token"))

    def score(self, benchmark: str) -> Score:
        """The metric of a benchmark with results."""
        return next(r.score for r in self.results if r.benchmark == benchmark)

    def backbone(self, model: str) -> str:
        """The model's backbone; its own name if ``params.yaml`` does not say."""
        return str(self.params.get("models", {}).get(model, {}).get("backbone", model))

    def find(self, benchmark: str, model: str, prompt_set: str, system: str) -> Result | None:
        """The result of one system, if it was scored."""
        return self._by_row.get((benchmark, model, prompt_set, system))

    def folder(self, kind: str, benchmark: str, model: str) -> Path:
        """``data/<kind>/<benchmark>-<model>``."""
        return self.root / "data" / kind / f"{benchmark}-{model}"

    def _resampled(
        self, benchmark: str, model: str, prompt_set: str, system: str
    ) -> dict[str, Difference]:
        """A system minus its baseline, of the values that are resampled from matches, as shown; empty if there are none."""
        from hqsam_metrics.ap.resample import differences
        from hqsam_metrics.matches_file import MATCHES, TRUTH, read_matches

        results = [
            self.find(benchmark, model, prompt_set, s)
            for s in (self.system(system).versus or system, system)
        ]
        score, folder = self.score(benchmark), self.folder("scores", benchmark, model)
        names = [m for r in results if r is not None for m in r.metrics if score.value(m).resampled]
        # The mean of several trials has no matches of its own.
        if None in results or not names or any("trials" in r.protocol for r in results if r):
            return {}
        files = {name: folder / name for name in (MATCHES, TRUTH)}
        a, b = (
            read_matches(files, prompt_set, r.system, str(folder)) for r in results if r is not None
        )
        return differences(a, b, dict.fromkeys(names))

    def _read_units(self, benchmark: str, model: str) -> pd.DataFrame:
        path = self.folder("scores", benchmark, model) / "instances.parquet"
        if not path.is_file():
            raise UserError(
                "the per-instance table does not exist", file=path, cure="run `dvc repro score`"
            )
        return units_frame(path, str(path))


def _in_order(found: Iterable[str], listed: Iterable[str]) -> list[str]:
    places = {name: place for place, name in enumerate(listed)}
    return sorted(found, key=lambda name: (places.get(name, len(places)), name))


def load_run(root: Path, params: Any) -> Run:
    """Reads the metrics of a repository's last run.

    Metrics of predictions that are no longer there are left out: they belong to an earlier run.

    Raises:
        UserError: there are no metrics, or a file is not one.
    """
    sections = as_mapping(params)
    results = load_metrics(root / "reports" / "metrics")
    pairs = [(b, m) for b in sections.get("benchmarks", {}) for m in sections.get("models", {})]
    absent = [
        (benchmark, model)
        for benchmark, model in pairs
        if not (root / "reports" / "metrics" / f"{benchmark}-{model}.json").is_file()
        or not (root / "data" / "predictions" / f"{benchmark}-{model}" / "predict.json").is_file()
    ]
    kept = [result for result in results if (result.benchmark, result.model) not in absent]
    if not kept and results:
        cure = "run `dvc repro score`"
        raise UserError("no metrics belong to predictions that are there", file=root, cure=cure)
    return Run(root, sections, kept, absent)
