"""params.yaml as frozen, validated objects.

`Params.load` reads the file and checks its outline. A section becomes an options object when
somebody asks for it, so a fetch stage never imports torch to learn what `train` would accept;
`Params.check` builds them all.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqsam_base.errors import UserError
from hqsam_pipelines.config import protocols, schema

if TYPE_CHECKING:
    from hqsam.model.options import ModelOptions
    from hqsam.prediction.options import PredictOptions
    from hqsam.systems import Entry
    from hqsam.training.options import TrainOptions
    from hqsam_datasets.benchmarks.base import BenchmarkOptions
    from hqsam_datasets.fetch.spec import ArchiveSpec
    from hqsam_datasets.overlap.options import OverlapOptions
    from hqsam_datasets.prepare.augment import AugmentOptions
    from hqsam_datasets.prepare.shards import ShardOptions
    from hqsam_datasets.quality.options import QualityOptions
    from hqsam_datasets.sources.base import SourceOptions
    from hqsam_metrics.base import Score, ScoreOptions
    from hqsam_pipelines.report.options import ReportOptions

FILE = "params.yaml"

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

OPTIONS = {
    "archives": "hqsam_datasets.fetch.spec:ArchiveSpec",
    "sources": "hqsam_datasets.sources.base:SourceOptions",
    "models": "hqsam.model.options:ModelOptions",
    "index": "hqsam_datasets.benchmarks.base:BenchmarkOptions",
    "overlap": "hqsam_datasets.overlap.options:OverlapOptions",
    "quality": "hqsam_datasets.quality.options:QualityOptions",
    "shard": "hqsam_datasets.prepare.shards:ShardOptions",
    "augment": "hqsam_datasets.prepare.augment:AugmentOptions",
    "train": "hqsam.training.options:TrainOptions",
    "predict": "hqsam.prediction.options:PredictOptions",
    "report": "hqsam_pipelines.report.options:ReportOptions",
}
"""Which class a section is validated by, as `module:name`; imported when the section is asked for.

A benchmark's `score` section has the class that its metric states
(`hqsam_metrics.base.Score.options`).
"""


@dataclass(frozen=True)
class Params:
    """The active profile.

    Attributes:
        file: Where it was read from.
        profile: Its name.
        seed: The seed of everything random that is not an evaluation prompt (`index.seed`).
        raw: The content as read; treat it as read-only.
    """

    file: Path
    profile: str
    seed: int
    raw: Mapping[str, Any]

    @classmethod
    def load(cls, file: Path) -> Params:
        """Read and check the outline: top-level keys, names, references between the sections.

        Raises:
            UserError: the file is missing or no YAML, or a key is unknown, missing or of a wrong
                type.
        """
        return cls.of(read_yaml(file), file)

    @classmethod
    def of(cls, raw: object, file: Path) -> Params:
        """Like `load`, for content that was read already."""
        if not isinstance(raw, Mapping):
            raise UserError(f"expected a mapping, found {schema.show(raw)}", file=file)
        _check_outline(raw, file)
        return cls(file=file, profile=raw["profile"], seed=raw["seed"], raw=raw)

    @property
    def archives(self) -> tuple[str, ...]:
        """Names of the archives."""
        return tuple(self.raw["archives"])

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the training sources."""
        return tuple(self.raw["sources"])

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Names of the evaluation sets."""
        return tuple(self.raw["benchmarks"])

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(self.raw["models"])

    def entry(self, section: str, name: str) -> Mapping[str, Any]:
        """The raw entry `section.name`.

        Raises:
            UserError: there is none; the message lists near matches.
        """
        entries: Mapping[str, Any] = self.raw[section]
        if name not in entries:
            raise schema.unknown(
                name,
                entries,
                what=section.removesuffix("s"),
                file=self.file,
                key=f"{section}.{name}",
            )
        value: Mapping[str, Any] = entries[name]
        return value

    def archive(self, name: str) -> ArchiveSpec:
        """`archives.<name>`."""
        return self._named("archives", name)  # type: ignore[no-any-return]

    def source(self, name: str) -> SourceOptions:
        """`sources.<name>`."""
        options: SourceOptions = self._named("sources", name)
        self._check_seam(
            "hqsam_datasets.sources", options.kind or name, "source", f"sources.{name}.kind"
        )
        return options

    def model(self, name: str) -> ModelOptions:
        """`models.<name>`, without its `train` and `seed`."""
        entry = self.entry("models", name).items()
        own = {key: value for key, value in entry if key not in ("train", "seed")}
        return self._build("models", own, f"models.{name}")  # type: ignore[no-any-return]

    def training_seed(self, model: str) -> int:
        """`models.<name>.seed`, or `seed`: of the initial weights, the order of the views and the loss points.

        Raises:
            UserError: it is no whole number from 0 on.
        """
        seed = self.entry("models", model).get("seed", self.seed)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UserError(
                f"expected a whole number from 0 on, found {schema.show(seed)}",
                file=self.file,
                key=f"models.{model}.seed",
            )
        return seed

    def index(self, benchmark: str) -> BenchmarkOptions:
        """`benchmarks.<name>.index`."""
        from hqsam_datasets import (
            benchmarks,
        )  # NumPy and the image libraries behind it: not for every reader of params.yaml

        options: BenchmarkOptions = self._benchmark_part(benchmark, "index", {})
        kind = str(self.entry("benchmarks", benchmark)["kind"])
        self._check_seam(
            "hqsam_datasets.benchmarks", kind, "benchmark", f"benchmarks.{benchmark}.kind"
        )
        try:
            found = benchmarks.of_section(benchmark, kind, options)
        except UserError as error:
            raise error.amended(file=self.file) from None
        self._check_metric(benchmark, found.kind)
        return options

    def predict(self, benchmark: str) -> PredictOptions:
        """`predict`, overridden by `benchmarks.<name>.predict`."""
        return self._benchmark_part(benchmark, "predict", self.raw["predict"])  # type: ignore[no-any-return]

    def score(self, benchmark: str) -> ScoreOptions:
        """`benchmarks.<name>.score`, of the class that its metric states."""
        own = self.entry("benchmarks", benchmark)["score"]
        key = f"benchmarks.{benchmark}.score"
        known = self._metric(benchmark).options
        options: ScoreOptions = schema.build(
            known, {**own, **self.protocol(benchmark, "score")}, file=self.file, key=key
        )
        self._check_output(benchmark, options.output)
        return options

    def _metric(self, benchmark: str) -> Score:
        from hqsam_metrics.base import SCORES, ScoreOptions

        own, key = self.entry("benchmarks", benchmark)["score"], f"benchmarks.{benchmark}.score"
        name = own.get("metric") if isinstance(own, Mapping) else None
        if not isinstance(name, str):
            only = (
                {k: v for k, v in own.items() if k == "metric"} if isinstance(own, Mapping) else own
            )
            schema.build(ScoreOptions, only, file=self.file, key=key)  # says what is wrong with it
        elif name not in SCORES.names():
            raise schema.unknown(
                name, SCORES.names(), what="metric", file=self.file, key=f"{key}.metric"
            )
        return SCORES.load(str(name))

    def _check_metric(self, benchmark: str, kind: str) -> None:
        """The metric must be one for this kind of ground truth: found out by the score stage, it would cost all predictions."""
        from hqsam_metrics.base import SCORES

        score = self._metric(benchmark)
        if score.kind != kind:
            fitting = [name for name in SCORES.names() if SCORES.load(name).kind == kind]
            raise UserError(
                f"the metric {score.name} is not for this set, whose ground truth is of kind "
                f"{kind}",
                file=self.file,
                key=f"benchmarks.{benchmark}.score.metric",
                cure=f"say metric: {' or '.join(fitting)}",
            )

    @functools.cached_property
    def systems(self) -> tuple[Entry, ...]:
        """The entries of `systems`; those of every run if there is no such section.

        Raises:
            UserError: an entry is not valid, two give a system of one name, or one names a system
                that is not there.
        """
        from hqsam import systems

        entries = []
        for name, values in self.raw.get("systems", systems.SECTION).items():
            kind = str(values.get("kind"))
            self._check_seam("hqsam.systems", kind, "system kind", f"systems.{name}.kind")
            key = f"systems.{name}"
            options = schema.build(systems.load(kind).options, values, file=self.file, key=key)
            for what, known in (("models", self.models), ("benchmarks", self.benchmarks)):
                for other in getattr(options, what, ()):
                    if other not in known:
                        place = f"{key}.{what}"
                        raise schema.unknown(
                            other, known, what=what[:-1], file=self.file, key=place
                        )
            entries.append(systems.Entry(name, options))
        try:
            systems.check(entries)
        except UserError as error:
            raise error.amended(file=self.file) from None
        return tuple(entries)

    def systems_of(self, model: str) -> tuple[Entry, ...]:
        """The entries that are predicted for a model."""
        from hqsam import systems

        return systems.applying(self.systems, model, self.models)

    def _check_output(self, benchmark: str, output: str) -> None:
        from hqsam import systems

        known = [system.name for system in systems.of_entries(self.systems)]
        if output not in known:
            key = f"benchmarks.{benchmark}.score.output"
            raise schema.unknown(output, known, what="system", file=self.file, key=key)

    @property
    def overlap(self) -> OverlapOptions:
        """`overlap`."""
        return self._plain("overlap")  # type: ignore[no-any-return]

    @property
    def quality(self) -> QualityOptions:
        """`quality`."""
        return self._plain("quality")  # type: ignore[no-any-return]

    @property
    def shard(self) -> ShardOptions:
        """`shard`."""
        return self._plain("shard")  # type: ignore[no-any-return]

    @property
    def augment(self) -> AugmentOptions:
        """`augment`."""
        return self._plain("augment")  # type: ignore[no-any-return]

    def train(self, model: str) -> TrainOptions:
        """`train`, overridden by `models.<name>.train`.

        Raises:
            UserError: a key or value is not valid, a source of `train.sources` is not one of this
                profile, or the model is to be trained and there is no source.
        """
        key = f"models.{model}.train"
        own = self.entry("models", model).get("train", {})
        if not isinstance(own, Mapping):
            raise UserError(
                f"expected a mapping, found {schema.show(own)}", file=self.file, key=key
            )
        options: TrainOptions = self._build(
            "train", {**self.raw["train"], **own}, key if own else "train"
        )
        for name in options.sources:
            if name not in self.sources:
                raise schema.unknown(
                    name, self.sources, what="source", file=self.file, key=f"{key}.sources"
                )
        if options.epochs and not self.sources:
            raise UserError(
                f"there is no entry, but the model {model} trains for {options.epochs} epochs",
                file=self.file,
                key="sources",
                cure="name a training source, or set train.epochs to 0",
            )
        return options

    @property
    def report(self) -> ReportOptions:
        """`report`."""
        return self._plain("report")  # type: ignore[no-any-return]

    def check(self) -> int:
        """Build every section.

        Returns:
            How many there are.

        Raises:
            UserError: the first mistake.
        """
        parts: list[object] = [self.archive(name) for name in self.archives]
        parts += [self.source(name) for name in self.sources]
        for name in self.models:
            parts += [self.model(name), self.train(name)]
            self.training_seed(name)
        for name in self.benchmarks:
            parts += [self.index(name), self.predict(name), self.score(name)]
        parts += [getattr(self, name) for name in PLAIN if name not in ("predict", "train")]
        parts += self.systems if "systems" in self.raw else ()
        return len(parts)

    def _named(self, section: str, name: str) -> Any:
        return self._build(section, self.entry(section, name), f"{section}.{name}")

    def _benchmark_part(self, benchmark: str, part: str, defaults: Mapping[str, Any]) -> Any:
        own = self.entry("benchmarks", benchmark)[part]
        key = f"benchmarks.{benchmark}.{part}"
        if not isinstance(own, Mapping):
            raise UserError(
                f"expected a mapping, found {schema.show(own)}", file=self.file, key=key
            )
        sets = self.protocol(benchmark, part)
        place = key if own or not defaults else part
        return self._build(part, {**defaults, **own, **sets}, place)

    def protocols(self, benchmark: str) -> dict[str, dict[str, Any]]:
        """What `benchmarks.<name>.protocol` sets, by section; see `protocol`."""
        return {
            part: dict(self.protocol(benchmark, part)) for part in ("index", "predict", "score")
        }

    def protocol(self, benchmark: str, part: str) -> Mapping[str, Any]:
        """What `benchmarks.<name>.protocol` sets of a section; nothing without that key.

        Raises:
            UserError: there is no such protocol, none for this set, or the section says otherwise.
        """
        entry, key = self.entry("benchmarks", benchmark), f"benchmarks.{benchmark}"
        if PROTOCOL_KEY not in entry:
            return {}
        name = str(entry[PROTOCOL_KEY])
        if name not in protocols.NAMES:
            raise schema.unknown(
                name, protocols.NAMES, what="protocol", file=self.file, key=f"{key}.protocol"
            )
        options = [field.name for field in fields(self._metric(benchmark).options)]
        found = protocols.sections(name, str(entry["kind"]), options)
        if found is None:
            raise UserError(
                f"there is no official code for data of kind {entry['kind']}",
                file=self.file,
                key=f"{key}.protocol",
                cure="say protocol: strict, or leave the key out",
            )
        sets, own = found[part], entry[part]
        for option in sets.keys() & (own.keys() if isinstance(own, Mapping) else ()):
            if own[option] != sets[option]:
                raise UserError(
                    f"protocol: {name} stands for {option}: {schema.show(sets[option])}",
                    file=self.file,
                    key=f"{key}.{part}.{option}",
                    cure="remove this key, or the protocol",
                )
        return sets

    def _check_seam(self, package: str, name: str, what: str, key: str) -> None:
        """A name that stands for a file of a package: the file must exist."""
        entries = importlib.import_module(package)
        every = [module.name for module in pkgutil.iter_modules(entries.__path__)]
        known = (
            entries.names() if hasattr(entries, "names") else every
        )  # some have helpers among their files
        if name not in known:
            raise schema.unknown(name, known, what=what, file=self.file, key=key)

    def _plain(self, section: str) -> Any:
        return self._build(section, self.raw[section], section)

    def _build(self, section: str, values: object, key: str) -> Any:
        return schema.build(options_class(section), values, file=self.file, key=key)


@functools.cache
def options_class(section: str) -> type:
    """The class of a section in `OPTIONS`."""
    module, _, name = OPTIONS[section].partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found


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
        cure = f"fix that place; `git diff -- {file}` shows what was changed"
        raise UserError(
            f"not readable as YAML: {_one_line(error)}", file=file, cure=cure
        ) from error


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return place + str(getattr(error, "problem", None) or error).splitlines()[0]


def _check_outline(raw: Mapping[str, Any], file: Path) -> None:
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
    for section in ("sources", "benchmarks"):
        _check_archives(raw, section, file)
    for name in raw["benchmarks"].keys() & raw["sources"].keys():
        cure = "rename one of them: their keys would be the same"
        raise UserError(
            f"a source is called {name}, too", file=file, key=f"benchmarks.{name}", cure=cure
        )
    for section in ("sources", "benchmarks"):
        for name, entry in raw[section].items():
            _check_kind(entry, section, name, file)
    for name, entry in raw["benchmarks"].items():
        _check_benchmark(entry, name, file)


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


def _check_archives(raw: Mapping[str, Any], section: str, file: Path) -> None:
    for name, entry in raw[section].items():
        key = f"{section}.{name}.archive"
        if "archive" not in entry:
            raise UserError(
                "a required key is missing", file=file, key=key, cure="name an entry of `archives`"
            )
        if entry["archive"] not in raw["archives"]:
            raise schema.unknown(
                str(entry["archive"]), raw["archives"], what="archive", file=file, key=key
            )


def _check_kind(entry: Mapping[str, Any], section: str, name: str, file: Path) -> None:
    """DVC takes the stage's code dependency from `kind` and knows no defaults."""
    if "kind" not in entry:
        cure = (
            f"add `kind: {name}` for a set with a file of its own in "
            f"datasets/hqsam_datasets/{section}, else folder, label_maps, ..."
        )
        raise UserError(
            "a required key is missing", file=file, key=f"{section}.{name}.kind", cure=cure
        )


def _check_benchmark(entry: Mapping[str, Any], name: str, file: Path) -> None:
    for key in entry:
        if key not in (known := (*BENCHMARK_KEYS, PROTOCOL_KEY)):
            raise schema.unknown(
                str(key), known, what="key", file=file, key=f"benchmarks.{name}.{key}"
            )
    for key in BENCHMARK_KEYS:
        if key not in entry:
            raise UserError(
                "a required key is missing",
                file=file,
                key=f"benchmarks.{name}.{key}",
                cure="add it",
            )
