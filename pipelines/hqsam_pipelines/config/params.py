"""params.yaml as frozen, validated objects.

`Params.load` reads the file and checks its outline. A section becomes an options object when
somebody asks for it, so a fetch stage never imports torch to learn what `train` would accept;
`Params.check` builds them all.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqsam_base.errors import UserError
from hqsam_pipelines.config import protocols, schema
from hqsam_pipelines.config.outline import PLAIN, PROTOCOL_KEY, check_outline
from hqsam_pipelines.config.yaml_file import read_yaml

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
        check_outline(raw, file)
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
        # NumPy and the image libraries behind them: not for every reader of params.yaml
        from hqsam_datasets import benchmarks
        from hqsam_metrics.base import SCORES

        options: BenchmarkOptions = self._benchmark_part(benchmark, "index", {})
        kind = str(self.entry("benchmarks", benchmark)["kind"])
        self._check_seam(
            "hqsam_datasets.benchmarks", kind, "benchmark", f"benchmarks.{benchmark}.kind"
        )
        try:
            found = benchmarks.of_section(benchmark, kind, options)
        except UserError as error:
            raise error.amended(file=self.file) from None
        # Found out by the score stage, another kind of metric would cost all predictions.
        score = self._metric(benchmark)
        if score.kind != found.kind:
            fitting = [name for name in SCORES.names() if SCORES.load(name).kind == found.kind]
            raise UserError(
                f"the metric {score.name} is not for this set, whose ground truth is of kind "
                f"{found.kind}",
                file=self.file,
                key=f"benchmarks.{benchmark}.score.metric",
                cure=f"say metric: {' or '.join(fitting)}",
            )
        return options

    def predict(self, benchmark: str) -> PredictOptions:
        """`predict`, overridden by `benchmarks.<name>.predict`."""
        return self._benchmark_part(benchmark, "predict", self.raw["predict"])  # type: ignore[no-any-return]

    def score(self, benchmark: str) -> ScoreOptions:
        """`benchmarks.<name>.score`, of the class that its metric states."""
        from hqsam import systems

        own = self.entry("benchmarks", benchmark)["score"]
        key = f"benchmarks.{benchmark}.score"
        known = self._metric(benchmark).options
        options: ScoreOptions = schema.build(
            known, {**own, **self.protocol(benchmark, "score")}, file=self.file, key=key
        )
        outputs = [system.name for system in systems.of_entries(self.systems)]
        if options.output not in outputs:
            raise schema.unknown(
                options.output, outputs, what="system", file=self.file, key=f"{key}.output"
            )
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
