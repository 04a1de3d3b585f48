"""The seam of the metrics: what a file in `scores/` must offer, and how it is found.

A metric is one module `hqsam_metrics/scores/<name>.py`, named like the `metric` key of a
benchmark's `score` section in params.yaml; files whose name begins with an underscore are helpers.
It exposes one constant, ``SCORE``, a `Score`, and its ``VERSION``. Whoever shows, compares or
configures metrics reads the traits of `Score` and knows no metric by name.

Light at import (no NumPy): `hqsam score --help` reads every metric.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_base.seam import Seam

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hqsam_metrics.ap.resample import Matches
    from hqsam_metrics.benchmark_data import Predictions


def check_ratio(ratio: float, where: str) -> None:
    """Checks that the width of a boundary band is a fraction of the diagonal.

    Raises:
        UserError: it is not between 0 and 1.
    """
    if not (math.isfinite(ratio) and 0 < ratio < 1):
        raise UserError(
            f"{where} is {ratio}: it must lie between 0 and 1 (0.02, or 0.01 for strict)"
        )


def check_choice(value: object, choice: Any, where: str) -> None:
    """Checks that a value is one of a Literal's.

    Raises:
        UserError: it is not.
    """
    if value not in choice.__args__:
        raise UserError(f"{where} is {value!r}: it must be one of {', '.join(choice.__args__)}")


@dataclass(frozen=True)
class ScoreOptions:
    """The section `benchmarks.<name>.score` of params.yaml: what every metric has; `Score.options` adds its own keys.

    Attributes:
        metric: name of the file in `scores/`.
        version: the metric's version; a change to the metric's code raises it, so that only scores
            are redone.
        output: which system of the run is HQ-SAM in this benchmark's protocol.
    """

    metric: str
    version: int
    output: str = "hq_token"

    def __post_init__(self) -> None:
        """Checks values; those that are checked here are the deriving classes' own."""


@dataclass(frozen=True)
class BandOptions(ScoreOptions):
    """Options of a metric that looks at boundary bands.

    Attributes:
        dilation_ratio: width of the boundary band as a fraction of the image diagonal.
        strict_dilation_ratio: a second ratio, reported with the suffix `_strict`.
    """

    dilation_ratio: float = 0.02
    strict_dilation_ratio: float | None = None

    def __post_init__(self) -> None:
        """Checks values."""
        super().__post_init__()
        check_ratio(self.dilation_ratio, "score.dilation_ratio")
        if self.strict_dilation_ratio is not None:
            check_ratio(self.strict_dilation_ratio, "score.strict_dilation_ratio")

    @property
    def ratios(self) -> dict[str, float]:
        """Suffix of the metric names and dilation ratio: `_B`, and `_B_strict` when wanted."""
        out = {"_B": self.dilation_ratio}
        return (
            out
            if self.strict_dilation_ratio is None
            else {**out, "_B_strict": self.strict_dilation_ratio}
        )


@dataclass(frozen=True)
class Scale:
    """How numbers of one kind are shown, and which of two is better.

    Attributes:
        factor: a stored number times this is shown.
        unit: of a shown difference.
        lower_is_better: whether the smaller of two is the better one.
        limits: ends of the axis in charts, as shown; None: where the values end.
    """

    factor: float = 100.0
    unit: str = "points"
    lower_is_better: bool = False
    limits: tuple[float, float] | None = (0.0, 100.0)

    def gain(self, difference: float) -> float:
        """Returns a difference with the sign that makes positive the better side."""
        return -difference if self.lower_is_better else difference

    def label(self, name: str) -> str:
        """Returns a name with its unit if that is not points, and an arrow where lower is better."""
        unit = "" if self.unit == "points" else f" [{self.unit}]"
        return f"{name}{unit}" + (" ↓" if self.lower_is_better else "")


FRACTION = Scale()
"""A fraction, shown times 100; its differences are points; higher is better."""


@dataclass(frozen=True)
class Quantity:
    """A number that every instance has.

    Attributes:
        title: what people call it.
        columns: of the per-instance table; it is their mean.
        scale: of the columns.
    """

    title: str
    columns: tuple[str, ...]
    scale: Scale = FRACTION


@dataclass(frozen=True)
class Value:
    """What one of a metric's values is.

    Attributes:
        scale: how it is shown.
        mean_of: the value is the mean of this over the instances; their bootstrap gives its
            interval.
        stand_in: where it is no such mean: the quantity whose mean tells whether it moved beyond
            noise.
        resampled: the value of a resample can be computed from the metric's matches
            (`Outcome.matches`).
        detail: left out of `reports/metrics.json`.
    """

    scale: Scale = FRACTION
    mean_of: Quantity | None = None
    stand_in: Quantity | None = None
    resampled: bool = False
    detail: bool = False


CLICK_THRESHOLDS = (85, 90, 95)
"""IoU, in per cent, to which the clicks of interactive prompt sets are counted."""

_SHOWN_CLICKS = (1, 3, 5, 10, 20)


def click_value(metric: str) -> Value | None:
    """Returns what a value of an interactive prompt set is, whatever the benchmark's metric; None: it is none of them."""
    name, _, click = metric.partition("@")
    if name == "mIoU" and click.isdigit():
        return Value(detail=int(click) not in _SHOWN_CLICKS)
    if name in [f"NoC{threshold}" for threshold in CLICK_THRESHOLDS]:
        return Value(Scale(1.0, "clicks", lower_is_better=True, limits=None))
    if name in [f"NoF{threshold}" for threshold in CLICK_THRESHOLDS]:
        return Value(Scale(1.0, "objects", lower_is_better=True, limits=None), detail=True)
    return None


@dataclass(frozen=True)
class Units:
    """Per-instance values, one row each, for overlays and the paired bootstrap.

    Attributes:
        key: image key.
        cluster: what is resampled: the image, or the video.
        unit: name of the instance.
        values: `Score.columns`: float64 [n], NaN where undefined.
    """

    key: list[str]
    cluster: list[str]
    unit: list[str]
    values: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Outcome:
    """What a metric gives for one system under one set of prompts.

    Attributes:
        metrics: values by name, None: undefined.
        n_expected: units that the ground truth asks for.
        n_scored: units that were scored.
        units: the per-instance table's rows.
        warnings: what the protocol tolerates but should be known.
        matches: what a resample of values that are not means over instances needs.
        diagnosis: what is wrong with the masks, as plain values for JSON (docs/formats.md).
    """

    metrics: dict[str, float | None]
    n_expected: int
    n_scored: int
    units: Units
    warnings: list[str] = field(default_factory=list)
    matches: Matches | None = None
    diagnosis: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """The masks of one instance in one picture, bool [H, W] each.

    Attributes:
        image: file name of the picture as the ground truth has it.
        truth: ground truth.
        found: what was predicted, empty where nothing was.
    """

    image: str
    truth: NDArray[np.bool_]
    found: NDArray[np.bool_]


@dataclass(frozen=True)
class Kept:
    """What a comparison of two files of predictions needs of each (`hqsam_metrics.against`).

    Attributes:
        units: values of each instance.
        views: gives the masks of the instance in that row of `units`, one for each of its pictures.
        matches: see `Outcome`.
    """

    units: Units
    views: Callable[[int], Sequence[View]]
    matches: Matches | None = None


@dataclass(frozen=True)
class Result:
    """What one evaluation of files gives: the content of `hqsam score --json`.

    Attributes:
        metrics: value by name, None where undefined.
        n_expected: units (pairs, images, videos, objects) that the ground truth asks for.
        n_scored: units that have a value.
        protocol: everything that can move a number.
        warnings: what the protocol tolerates but should be known.
        details: further entries of the JSON, such as one row an object.
        kept: for a comparison; no part of the JSON. None: it was not asked for.
    """

    metrics: dict[str, float | None]
    n_expected: int
    n_scored: int
    protocol: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    kept: Kept | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of out.json."""
        content = {
            "metrics": self.metrics,
            "n_expected": self.n_expected,
            "n_scored": self.n_scored,
            "protocol": self.protocol,
            "protocol_hash": protocol_hash(self.protocol),
            "warnings": self.warnings,
            **self.details,
        }
        out: dict[str, Any] = plain(content)
        return out


@dataclass(frozen=True)
class Option:
    """What `hqsam score <metric> --help` says about a parameter of `Score.score_files`; metadata of its `Annotated` type.

    Attributes:
        help: one sentence.
        name: the option; None: the parameter's name with dashes.
        metavar: what stands for its value, such as FILE or DIR.
        least: smallest number that is accepted.
    """

    help: str
    name: str | None = None
    metavar: str | None = None
    least: int | None = None


class Score(ABC):
    """A metric of the pipeline: its traits, and how it is computed.

    Attributes:
        name: of its file.
        version: raised with every change that can move a number.
        kind: of the ground truth that it is for (`index.json`).
        options: class of the benchmark's `score` section in params.yaml.
        columns: names of the per-instance table's columns, in their order.
        values: its values by name, in reading order; a metric with names that cannot be listed
            overrides `value` and
            `place`.
        headline: the values of overviews; the last one is what charts and the count of gains are
            about.
        pictured: the quantity by which single instances are chosen for pictures and named in
            captions; None: no pictures.
        best_of_class: a unit's values are those of the best detection of its class, so that one
            without any is no failure of a mask.
        inner_frames: the first and the last frame of a video do not count.
        score_files: the command `hqsam score <name>`: keyword parameters `pred`, `gt`, those of the
            protocol, `workers` and `progress`, each but the last `Annotated` with an `Option`;
            returns a `Result`. With a parameter `keep` (false: no) the command can compare two
            files: it asks for `Result.kept`. None: no command.
        cross_check: takes the command's parameters, runs a reference program on the files and
            returns what it found, as a sentence; None: there is no such program.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    kind: ClassVar[str]
    options: ClassVar[type[ScoreOptions]] = ScoreOptions
    columns: ClassVar[tuple[str, ...]]
    values: ClassVar[Mapping[str, Value]] = {}
    headline: ClassVar[tuple[str, ...]]
    pictured: ClassVar[Quantity | None] = None
    best_of_class: ClassVar[bool] = False
    inner_frames: ClassVar[bool] = False
    score_files: ClassVar[Callable[..., Result] | None] = None
    cross_check: ClassVar[Callable[..., str] | None] = None

    def value(self, metric: str) -> Value:
        """Returns what the value of that name is; an unknown one is a fraction."""
        return click_value(metric) or self.values.get(metric, Value())

    def column_scale(self, column: str) -> Scale:
        """Returns how a column of the per-instance table is shown: as the quantity that it belongs to."""
        quantities = [self.pictured, *(value.mean_of for value in self.values.values())]
        return next(
            (q.scale for q in quantities if q is not None and column in q.columns), FRACTION
        )

    def place(self, metric: str) -> tuple[Any, ...]:
        """Returns the sorting key of a value's name in reading order."""
        names = list(self.values)
        return (names.index(metric) if metric in names else len(names), metric)

    @abstractmethod
    def protocol(self, options: Any) -> dict[str, Any]:
        """Returns everything in this metric's rules that can move a number, for the protocol block."""

    @abstractmethod
    def evaluate(self, data: Predictions, options: Any, *, progress: Progress) -> Outcome:
        """Scores the predictions of one system for one set of prompts."""


SCORES = Seam(
    package="hqsam_metrics.scores",
    what="metric",
    constant="SCORE",
    kind=Score,  # type: ignore[type-abstract]
)


def score_names() -> list[str]:
    """Returns the names of all metrics: the files of `scores/`."""
    return SCORES.names()


def load_score(name: str) -> Score:
    """Returns the metric of that name.

    Raises:
        UserError: there is none.
    """
    return SCORES.load(name)


def score_options(section: Mapping[str, Any]) -> ScoreOptions:
    """Returns the options of a benchmark's `score` section, of the class that its metric has.

    Raises:
        UserError: there is no such metric, or a value is out of range.
        TypeError: a key that the metric does not know.
    """
    return load_score(str(section["metric"])).options(**section)


def plain(value: Any) -> Any:
    """Returns `value` for JSON: NaN and infinities become None, NumPy scalars Python ones, tuples lists."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def protocol_hash(protocol: dict[str, Any]) -> str:
    """Returns the first 16 hex digits of the SHA-256 of the protocol block's canonical JSON."""
    text = json.dumps(plain(protocol), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def rules(score: str, version: int, **own: Any) -> dict[str, Any]:
    """Returns the part of the protocol block that every evaluation has, with the metric's `own` rules."""
    return {"evaluator": f"{_EVALUATOR}{score}", "evaluator_version": version, **own}


_EVALUATOR = "hqsam_metrics."


class _Unknown(Score):
    """A metric that this version does not have: its values are taken for fractions, without intervals."""

    name = "unknown"
    version = 0
    kind = ""
    columns = ()
    headline = ()

    def protocol(self, options: Any) -> dict[str, Any]:
        """Nothing is known."""
        raise NotImplementedError

    def evaluate(self, data: Predictions, options: Any, *, progress: Progress) -> Outcome:
        """Nothing is known."""
        raise NotImplementedError


def score_of(protocol: Mapping[str, Any]) -> Score:
    """Returns the metric that a protocol block is of; one without traits where this version does not have it."""
    name = str(protocol.get("evaluator", "")).removeprefix(_EVALUATOR)
    return load_score(name) if name in score_names() else _Unknown()
