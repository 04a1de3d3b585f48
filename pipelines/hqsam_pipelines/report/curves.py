"""The curves of the report: recall over a threshold, quality over points and clicks, training, each instance."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqsam.model.outputs import Output
from hqsam.systems import listed
from hqsam_metrics.base import Quantity
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.charts import Axes, Series, line_chart, scatter_chart, span
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.tables import THRESHOLDS, csv_text, number

_CLOUD = 1500  # more points than this make the scatter plot a blot
_POINTS = re.compile(r"points_(\d+)(?:\+(\d+))?")
_TOLD_CLICKS = (1, 2, 3, 5, 7, 10, 15, 20)


@dataclass(frozen=True)
class Steps:
    """Quality for more and more points, or after more and more clicks.

    Attributes:
        benchmark: name.
        prompts: ``points`` or the prompt set of clicks.
        metric: what is measured.
        names: of the steps, such as ``10+5``: positive and negative points.
        sam, hq: values as shown.
    """

    benchmark: str
    prompts: str
    metric: str
    names: tuple[str, ...]
    sam: tuple[float, ...]
    hq: tuple[float, ...]


def steps(run: Run, model: str) -> list[Steps]:
    """What the paper's Figure 5 shows, of every benchmark with several prompt sets of points; and of each set of clicks."""
    found = []
    for benchmark in run.benchmarks:
        sets = run.prompt_sets(benchmark, model)
        metric = run.score(benchmark).headline[0]
        matched = [(m, name) for name in sets if (m := _POINTS.fullmatch(name))]
        counted = sorted((int(m[1]), int(m[2] or 0), name) for m, name in matched)
        named = [(name.removeprefix("points_"), name, metric) for *_, name in counted]
        found.append(_steps(run, model, benchmark, "points", metric, named))
        for name in (name for name in sets if re.fullmatch(r"clicks(_\d+)?", name)):
            named = [(str(k), name, f"mIoU@{k}") for k in _TOLD_CLICKS]
            found.append(_steps(run, model, benchmark, name, "mIoU", named))
    return [one for one in found if len(one.names) > 1]


def _steps(
    run: Run,
    model: str,
    benchmark: str,
    prompts: str,
    metric: str,
    named: Sequence[tuple[str, str, str]],
) -> Steps:
    """Values of (name of the step, prompt set, metric), where both systems have one."""
    systems = run.baseline(benchmark), run.hq_system(benchmark)
    lines = []
    for name, prompt_set, value in named:
        results = [run.find(benchmark, model, prompt_set, system) for system in systems]
        sides = [None if r is None else r.shown(value) for r in results]
        if sides[0] is not None and sides[1] is not None:
            lines.append((name, sides[0], sides[1]))
    names, sam, hq = zip(*lines, strict=True) if lines else ((), (), ())
    return Steps(benchmark, prompts, metric, names, sam, hq)


def steps_chart(one: Steps) -> tuple[str, str, str]:
    """(title, svg, text) of one curve."""
    places = list(range(len(one.names)))
    series = [Series("SAM", "sam", places, one.sam), Series("HQ-SAM", "hq", places, one.hq)]
    what = "points" if one.prompts == "points" else "clicks"
    title = f"{paper.title(one.benchmark)}: {one.metric} by number of {what}"
    limits = span([*one.sam, *one.hq], 0.08)
    axes = Axes(what, one.metric, (-0.2, len(places) - 0.8), limits, x_names=one.names)
    text = "As in the paper's Figure 5; 10+5: ten on the object and five beside it."
    return title, line_chart(series, axes, title), text if what == "points" else ""


def steps_csv(found: Sequence[Steps]) -> str:
    """The curves as CSV."""
    rows = [
        [one.benchmark, one.prompts, one.metric, name, number(sam, 4), number(hq, 4)]
        for one in found
        for name, sam, hq in zip(one.names, one.sam, one.hq, strict=True)
    ]
    return csv_text(["benchmark", "prompts", "metric", "step", "sam", "hq_sam"], rows)


def recall_charts(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
) -> list[tuple[str, str, str]]:
    """(title, svg, text) of the paper's Figure 4: the mean over the sets, then each set."""
    if not curves:
        return []
    text = "Bold: mean of the four HQ sets; thin: each set. As in the paper's Figure 4."
    charts = [("Images above a boundary-IoU threshold", recall_chart(curves), text)]
    for benchmark in curves.get("sam", {}):
        title = f"{paper.title(benchmark)}: images above a threshold"
        series = [
            Series(name, style, [float(t) for t in THRESHOLDS], curves[system][benchmark])
            for system, style, name in _SIDES
        ]
        charts.append((title, line_chart(series, _recall_axes(), title), ""))
    return charts


_SIDES = (("sam", "sam", "SAM"), ("hq_sam", "hq", "HQ-SAM"))


def _recall_axes() -> Axes:
    return Axes("boundary IoU threshold", "images above it, %", (0.5, 0.95), (0.0, 100.0))


def recall_chart(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Share of images over the boundary-IoU threshold: bold the mean, thin each set."""
    x = [float(t) for t in THRESHOLDS]
    series = []
    for system, style, name in _SIDES:
        sets = curves.get(system, {})
        series += [
            Series(f"{name}, {paper.title(b)}", style, x, y, faint=True) for b, y in sets.items()
        ]
        if sets:
            series.append(
                Series(f"{name}, mean", style, x, np.mean(list(sets.values()), axis=0).tolist())
            )
    return line_chart(
        series, _recall_axes(), "Share of images whose boundary IoU exceeds a threshold"
    )


def gain_chart(sam: NDArray[np.float64], hq: NDArray[np.float64], quantity: Quantity) -> str:
    """Each instance: SAM's value of a quantity against HQ-SAM's, both as stored."""
    step = -(-len(sam) // _CLOUD) or 1
    x, y = ((quantity.scale.factor * side[::step]).tolist() for side in (sam, hq))
    name, limits = quantity.scale.label(quantity.title), quantity.scale.limits or span([*x, *y])
    axes = Axes(f"SAM, {name}", f"HQ-SAM, {name}", limits, limits)
    title = name[:1].upper() + name[1:]
    return scatter_chart(
        [Series("instances", "hq", x, y)], axes, f"{title} of every instance, SAM against HQ-SAM"
    )


_X_COLUMNS = ("step", "iteration", "epoch")
_CURVE_STYLES: dict[str, str] = {Output.sam: "sam", Output.hq_token: "hq", Output.hq_sum: "extra"}
_CURVE_TITLES = {system.name: system.label for system in listed(None)}
_STYLES = ("hq", "sam", "truth", "extra", "plain")
_MODEL_STYLES = ("hq", "truth", "extra", "plain")


def training_charts(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """(title, svg) of the curves that training wrote: the losses, and each validation metric of all systems."""
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    x_name = next((name for name in _X_COLUMNS if name in columns), "")
    names = [n for n in columns if n not in ("model", "lr", *_X_COLUMNS)]
    numeric = [n for n in names if any(_float(r[n]) is not None for r in records)]
    groups: dict[str, list[str]] = {}
    for name in numeric:
        metric = name.rpartition("_")[2]
        title = f"Held-out {metric} while training" if metric in ("mIoU", "mBIoU") else name
        if "loss" in name or name in ("bce", "dice"):
            title = "Training loss"
        groups.setdefault(title, []).append(name)
    return [
        (title, _training_chart(records, x_name, title, group)) for title, group in groups.items()
    ]


def _training_chart(
    records: Sequence[Mapping[str, str]], x_name: str, title: str, names: Sequence[str]
) -> str:
    scale = 100.0 if title.startswith("Held-out") else 1.0
    models = list(dict.fromkeys(r["model"] for r in records))
    several = len(models) > 1
    series = []
    for turn, model in enumerate(models):
        mine = [r for r in records if r["model"] == model]
        shown = names
        if several:
            # One column a model, so that a colour is a model: the whole loss, the HQ token; SAM
            # once, of the first.
            sam = [name for name in names if _system(name) == Output.sam and turn == 0]
            telling = [n for n in names if n == "loss" or _system(n) == Output.hq_token]
            shown = sam + (telling or list(names[:1]))
        for place, name in enumerate(shown):
            points = [
                (_float(r[x_name]) if x_name else float(i), _float(r[name]))
                for i, r in enumerate(mine)
            ]
            known = [(x, scale * y) for x, y in points if x is not None and y is not None]
            label = f"{model}: {_curve_title(name)}" if several else _curve_title(name)
            style = (
                _MODEL_STYLES[turn % len(_MODEL_STYLES)]
                if several and _system(name) != Output.sam
                else None
            )
            series.append(
                Series(
                    label,
                    style or _CURVE_STYLES.get(_system(name), _STYLES[place % len(_STYLES)]),
                    [p[0] for p in known],
                    [p[1] for p in known],
                )
            )
    width = span([x for s in series for x in s.x], 0.01)
    height = span([y for s in series for y in s.y], 0.06)
    axes = Axes(x_name or "row", "percent" if scale > 1 else "loss", width, height)
    return line_chart(series, axes, title)


def _system(name: str) -> str:
    return name.rpartition("_")[0]


def _curve_title(name: str) -> str:
    return _CURVE_TITLES.get(_system(name), name)


def _float(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
