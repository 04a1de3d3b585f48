"""Where the masks go wrong: kinds of error, precision and recall, calibration, classes and sizes, as tables and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hqsam_metrics.base import FRACTION
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.charts import Axes, Bar, Series, bar_chart, legend, line_chart
from hqsam_pipelines.report.instances import SIZES, diagnosis, instances
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.tables import csv_text, number, signed

if TYPE_CHECKING:
    pass

KINDS = {
    "localisation": "right class, poor mask (IoU 0.1 to 0.5)",
    "missed": "an object that no detection is about",
    "classification": "good mask, wrong class",
    "both": "wrong class and poor mask",
    "duplicate": "a second detection of a found object",
    "background": "no object there (IoU below 0.1)",
}
_PAIR = (("sam", "SAM"), ("hq", "HQ-SAM"))
_IOUS = ("mask", "boundary")


@dataclass(frozen=True)
class Diagnosed:
    """The diagnosis of one benchmark and prompt set: of the baseline and of HQ-SAM."""

    benchmark: str
    prompt_set: str
    sam: Mapping[str, Any]
    hq: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Benchmark and prompt set for people."""
        return f"{paper.title(self.benchmark)}, {self.prompt_set.replace('_', ' ')}"

    def both(self, *path: str) -> tuple[Any, Any]:
        """The same entry of both systems; None where one has none."""
        found = []
        for entry in (self.sam, self.hq):
            value: Any = entry
            for name in path:
                value = (value or {}).get(name)
            found.append(value)
        return found[0], found[1]


def diagnosed(run: Run, model: str) -> list[Diagnosed]:
    """Every benchmark and prompt set whose scores were diagnosed."""
    found = []
    for benchmark in run.benchmarks:
        entries = {(e["prompt_set"], e["system"]): e for e in diagnosis(run, model, benchmark)}
        systems = run.baseline(benchmark), run.hq_system(benchmark)
        for prompt_set in run.prompt_sets(benchmark, model):
            sides = [entries.get((prompt_set, system)) for system in systems]
            if sides[0] is not None and sides[1] is not None:
                found.append(Diagnosed(benchmark, prompt_set, sides[0], sides[1]))
    return found


def sizes(run: Run, model: str) -> list[tuple[str, str, str, int, float, float]]:
    """Mean of the pictured fraction by size: benchmark, prompt set, size, objects, SAM, HQ-SAM (times 100)."""
    found = []
    for benchmark in run.benchmarks:
        quantity = run.score(benchmark).pictured
        frame = instances(run, model, benchmark)
        if quantity is None or frame is None or quantity.scale != FRACTION:
            continue
        for prompt_set, mine in frame.groupby("prompt_set", observed=True):
            for name, low, high in SIZES:
                part = mine[(mine["share"] >= low) & (mine["share"] < high)]
                if len(part):
                    sam, hq = 100 * part["sam"].mean(), 100 * part["hq"].mean()
                    found.append((benchmark, str(prompt_set), name, len(part), sam, hq))
    return found


_SizeRows = Sequence[tuple[str, str, str, int, float, float]]


def files(found: Sequence[Diagnosed], by_size: _SizeRows) -> dict[str, str]:
    """CSV files by path below ``reports``."""
    return {
        "tables/errors.csv": csv_text(
            ["benchmark", "prompt_set", "iou", "kind", "sam", "hq_sam", "sam_cost", "hq_sam_cost"],
            [
                [d.benchmark, d.prompt_set, iou, kind, *map(str, counts), *costs]
                for d, iou, kind, counts, costs in _error_lines(found, 4)
            ],
        ),
        "tables/classes.csv": csv_text(
            ["benchmark", "prompt_set", "class", "objects", *_CLASS_COLUMNS],
            [
                [d.benchmark, d.prompt_set, c["name"], str(c["objects"]), *values]
                for d, c, values in _class_lines(found, 4)
            ],
        ),
        "tables/sizes.csv": csv_text(
            ["benchmark", "prompt_set", "share_of_image", "objects", "sam", "hq_sam"],
            [[b, p, name, str(n), number(s, 4), number(h, 4)] for b, p, name, n, s, h in by_size],
        ),
        "plots/precision_recall.csv": csv_text(
            ["benchmark", "prompt_set", "iou", "threshold", "recall", "sam", "hq_sam"],
            [
                [d.benchmark, d.prompt_set, iou, at, f"{r / 100:.2f}", number(a, 6), number(b, 6)]
                for d in found
                for iou in _IOUS
                for at in ("0.50", "0.75")
                for curves in [d.both("precision", iou, at)]
                if None not in curves
                for r, (a, b) in enumerate(zip(*curves, strict=True))
            ],
        ),
        "plots/calibration.csv": csv_text(
            ["benchmark", "prompt_set", "system", "masks", "predicted_iou", "real_iou"],
            [
                [
                    d.benchmark,
                    d.prompt_set,
                    system,
                    str(b["n"]),
                    *(number(b[name], 6) for name in ("predicted", "real")),
                ]
                for d in found
                for system, side in (("sam", d.sam), ("hq_sam", d.hq))
                for b in side.get("calibration", {}).get("bins", [])
            ],
        ),
    }


def _error_lines(
    found: Sequence[Diagnosed], digits: int
) -> list[tuple[Diagnosed, str, str, tuple[int, int], list[str]]]:
    lines = []
    for d in found:
        for iou in _IOUS:
            splits = d.both("errors", iou)
            if None in splits:
                continue
            for kind in KINDS:
                costs = [s["cost"][kind] for s in splits]
                shown = [number(None if c is None else 100 * c, digits) for c in costs]
                lines.append((d, iou, kind, tuple(s["count"][kind] for s in splits), shown))
    return lines


_CLASS_COLUMNS = ("sam_AP", "hq_sam_AP", "sam_AP_B", "hq_sam_AP_B")


def _class_lines(
    found: Sequence[Diagnosed], digits: int
) -> list[tuple[Diagnosed, dict[str, Any], list[str]]]:
    lines = []
    for d in found:
        sam, hq = d.both("classes")
        for a, b in zip(sam or (), hq or (), strict=True):
            values = [side[name] for name in ("AP", "AP_B") for side in (a, b) if name in side]
            lines.append((d, a, [number(100 * v, digits) for v in values]))
    return [line for line in lines if "id" in line[1]]


def context(run: Run, found: Sequence[Diagnosed], by_size: _SizeRows) -> dict[str, Any]:
    """What the template shows."""
    from markupsafe import Markup

    return {
        "kinds": list(KINDS.items()),
        "legend": Markup(legend([Series(label, style, [], []) for style, label in _PAIR])),
        "charts": [
            {"title": title, "svg": Markup(svg)} for d in found for title, svg in _charts(d)
        ],
        "calibration": [_calibration(d) for d in found if None not in d.both("calibration")],
        "errors": [
            [d.title, iou, kind, *map(str, counts), *shown]
            for d, iou, kind, counts, shown in _error_lines(found, 1)
        ],
        "classes": [
            # SAM, HQ-SAM, difference; for AP and AP_B
            [
                d.title,
                c["name"],
                str(c["objects"]),
                *(
                    cell
                    for a, b in zip(values[::2], values[1::2], strict=True)
                    for cell in (a, b, signed(float(b) - float(a)))
                ),
            ]
            for d, c, values in _class_lines(found, 1)
        ],
        "sizes": [
            [
                f"{paper.title(b)}, {p.replace('_', ' ')}",
                getattr(run.score(b).pictured, "title", ""),
                name,
                str(n),
                number(s, 1),
                number(h, 1),
                signed(h - s),
            ]
            for b, p, name, n, s, h in by_size
        ],
    }


def _charts(d: Diagnosed) -> list[tuple[str, str]]:
    """Kinds of error, then precision over recall, each by mask and by boundary IoU."""
    charts = []
    for iou in _IOUS:
        sam, hq = d.both("errors", iou)
        if sam is None or hq is None or sam["ap50"] is None:
            continue
        bars = [
            Bar(
                kind,
                [100 * s["cost"][kind] for s in (sam, hq)],
                [s["count"][kind] for s in (sam, hq)],
            )
            for kind in KINDS
        ]
        title = f"{d.title}: errors by {iou} IoU"
        names = [label for _, label in _PAIR]
        charts.append((title, bar_chart(bars, title, names, "AP50 that is lost, points")))
    for iou in _IOUS:
        series = []
        for at, faint in (("0.50", False), ("0.75", True)):
            for (style, label), curve in zip(_PAIR, d.both("precision", iou, at), strict=True):
                if curve is not None:
                    name = f"{label}, IoU {at}"
                    percent = [100 * float(v) for v in curve]
                    series.append(Series(name, style, list(range(101)), percent, faint=faint))
        if series:
            title = f"{d.title}: precision and recall, {iou} IoU"
            axes = Axes("recall, %", "precision, %", (0.0, 100.0), (0.0, 100.0))
            charts.append((title, line_chart(series, axes, title)))
    return charts


def _calibration(d: Diagnosed) -> dict[str, Any]:
    from markupsafe import Markup

    series = []
    for (style, label), side in zip(_PAIR, d.both("calibration", "bins"), strict=True):
        points = [(100 * b["predicted"], 100 * b["real"]) for b in side]
        series.append(Series(label, style, [x for x, _ in points], [y for _, y in points]))
    top = max([100.0, *(x for one in series for x in one.x)])
    axes = Axes("predicted IoU", "real IoU", (0.0, top), (0.0, 100.0))
    chart = line_chart(series, axes, f"Predicted and real IoU, {d.title}", diagonal=True)
    told = [
        f"{label} {100 * v:.1f}"
        for (_, label), v in zip(_PAIR, d.both("calibration", "error"), strict=True)
        if v is not None
    ]
    errors = "Expected calibration error: " + ", ".join(told) if told else ""
    return {"title": d.title, "svg": Markup(chart), "errors": errors}
