"""Builds the report: reads the run once, writes tables, plots and pictures, then the page, then `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hqsam_base.atomic import atomic_folder, json_bytes, write_bytes, write_text
from hqsam_base.progress import Progress
from hqsam_metrics.stats import REPLICATES
from hqsam_pipelines.report import ablations as report_ablations
from hqsam_pipelines.report import (
    cost,
    errors,
    figures,
    full,
    html,
    instances,
    paper,
    published,
    scenes,
    sources,
)
from hqsam_pipelines.report import curves as report_curves
from hqsam_pipelines.report import tables as report_tables
from hqsam_pipelines.report.html import Picture
from hqsam_pipelines.report.kept_tables import write_instances
from hqsam_pipelines.report.options import ReportOptions
from hqsam_pipelines.report.pictures import (
    HERO_TEXT,
    Gallery,
    Pictures,
    choose_further,
    choose_galleries,
    write_figures,
)
from hqsam_pipelines.report.results import Run, load_run
from hqsam_pipelines.report.rows import (
    Row,
    headline_rows,
    judged,
    other_rows,
    spec_rows,
    system_rows,
)
from hqsam_pipelines.report.scenes import Candidates


@dataclass(frozen=True)
class Numbers:
    """Everything that is computed from metrics and per-instance tables."""

    overview: list[Row]
    tables: list[tuple[paper.TableSpec, list[Row]]]
    others: list[Row]
    curves: dict[str, dict[str, list[float]]]
    training: tuple[list[str], list[list[str]]]
    ablations: list[report_ablations.AblationRow]
    models: list[Row]
    systems: list[Row]
    published: list[published.Cell]
    full: list[full.Number]
    diagnosed: list[errors.Diagnosed]
    sizes: list[tuple[str, str, str, int, float, float]]
    steps: list[report_curves.Steps]


def build(*, root: Path, params: Any, out: Path, progress: Progress) -> dict[str, Any]:
    """See `hqsam_pipelines.report.run.build_report`."""
    run = load_run(root, params)
    options = ReportOptions.model_validate(dict(run.params.get("report", {})))
    progress(0, 5, "numbers")
    numbers = _numbers(run)
    _write_tables(out / "tables", numbers, run)
    _write_plots(out / "plots", numbers)
    write_instances(root, out / "instances")
    progress(1, 5, "choosing instances")
    pictured = (scenes.candidates(run, run.models[0], b) for b in run.benchmarks)
    chosen_from = [candidates for candidates in pictured if candidates is not None]
    galleries = [*choose_galleries(chosen_from, options), *choose_further(run, options)]
    progress(2, 5, "pictures")
    pictures = write_figures(out / "figures", run, galleries, chosen_from, options)
    progress(3, 5, "page")
    # Those of SAM and HQ-SAM, which come first on the page, are the list's two columns.
    places = (p for gallery in galleries if gallery.pair is None for p in gallery.picks)
    shown = {(p.benchmark, p.prompt_set, p.unit): at for at, p in enumerate(places)}
    listing = instances.listing(run, run.models[0], shown)
    write_text(out / "tables" / "instances.csv", listing.csv)
    page = _page(run, numbers, chosen_from, galleries, pictures, listing)
    write_text(out / "report.html", page)
    write_bytes(out / "metrics.json", json_bytes(report_tables.metrics_tree(run)))
    progress(5, 5, "done")
    return {
        "n_benchmarks": len(run.benchmarks),
        "n_pictures": len(pictures.of_galleries) + sum(len(f.pictures) for f in pictures.figures),
        "bytes": len(page.encode()),
    }


def _numbers(run: Run) -> Numbers:
    model = run.models[0]
    overview = judged(headline_rows(run, model))
    tables = [(spec, judged(spec_rows(run, model, spec), overview)) for spec in paper.TABLES]
    hq4 = [b for b in paper.HQ4 if b in run.benchmarks]
    ablations = report_ablations.rows(run)
    more = [] if ablations else run.models[1:]  # the grid has a table of its own
    return Numbers(
        overview=overview,
        tables=[(spec, rows) for spec, rows in tables if rows],
        others=judged(other_rows(run, model), overview),
        curves=report_tables.recall_curves(run, model, hq4),
        training=report_tables.curve_table(run.root, run.models),
        ablations=ablations,
        models=[row for name in more for row in judged(headline_rows(run, name))],
        systems=judged(system_rows(run, model)),
        published=published.cells(run),
        full=full.numbers(run),
        diagnosed=errors.diagnosed(run, model),
        sizes=errors.sizes(run, model),
        steps=report_curves.steps(run, model),
    )


def _write_tables(folder: Path, numbers: Numbers, run: Run) -> None:
    with atomic_folder(folder) as tmp:
        for name, text in _files(numbers, folder.name).items():
            (tmp / name).write_text(text, encoding="utf-8")
        (tmp / "overview.md").write_text(
            report_tables.summary_markdown(numbers.overview, run.absent), encoding="utf-8"
        )
        if run.absent:
            (tmp / "absent.csv").write_text(report_tables.absent_csv(run), encoding="utf-8")
        (tmp / "overview.csv").write_text(
            report_tables.table_csv(numbers.overview, run.systems), encoding="utf-8"
        )
        for spec, rows in numbers.tables:
            (tmp / f"{spec.name}.csv").write_text(
                report_tables.table_csv(rows, run.systems), encoding="utf-8"
            )
        (tmp / "paper.csv").write_text(published.table_csv(numbers.published), encoding="utf-8")
        (tmp / "all_numbers.csv").write_text(full.table_csv(numbers.full), encoding="utf-8")
        (tmp / "table10_cost.csv").write_text(cost.cost_csv(), encoding="utf-8")
        (tmp / "further.csv").write_text(
            report_tables.table_csv(numbers.others, run.systems), encoding="utf-8"
        )
        if numbers.systems:
            (tmp / "systems.csv").write_text(
                report_tables.systems_csv(numbers.systems, run), encoding="utf-8"
            )
        if numbers.models:
            (tmp / "models.csv").write_text(
                report_tables.table_csv(numbers.models, run.systems), encoding="utf-8"
            )
        if numbers.ablations:
            (tmp / "ablations.csv").write_text(
                report_ablations.table_csv(numbers.ablations), encoding="utf-8"
            )
            (tmp / "ablations.md").write_text(
                report_ablations.markdown(numbers.ablations), encoding="utf-8"
            )


def _files(numbers: Numbers, folder: str) -> dict[str, str]:
    """The files about errors that belong into a folder, by name."""
    found = errors.files(numbers.diagnosed, numbers.sizes)
    return {path.partition("/")[2]: text for path, text in found.items() if path.startswith(folder)}


def _write_plots(folder: Path, numbers: Numbers) -> None:
    with atomic_folder(folder) as tmp:
        text = report_tables.csv_text(*numbers.training)
        (tmp / "training_curve.csv").write_text(text, encoding="utf-8")
        (tmp / "recall_biou.csv").write_text(
            report_tables.recall_csv(numbers.curves), encoding="utf-8"
        )
        for name, text in _files(numbers, folder.name).items():
            (tmp / name).write_text(text, encoding="utf-8")
        if numbers.steps:
            (tmp / "points.csv").write_text(
                report_curves.steps_csv(numbers.steps), encoding="utf-8"
            )


def _page(
    run: Run,
    numbers: Numbers,
    of: Sequence[Candidates],
    galleries: Sequence[Gallery],
    pictures: Pictures,
    listing: instances.Listing,
) -> str:
    from markupsafe import Markup

    charts = [(title, svg, "") for title, svg in report_curves.training_charts(*numbers.training)]
    charts += [
        *report_curves.recall_charts(numbers.curves),
        *map(report_curves.steps_chart, numbers.steps),
    ]
    charts += _gain_charts(of)
    data = _data_context(run)
    shown = [_gallery_context(g, pictures.of_galleries) for g in galleries]
    hero = pictures.hero
    model = run.models[0]
    origin = sources.origin_words(run)
    title, profile = "SAM against HQ-SAM", run.params.get("profile", "?")
    context = {
        "title": title,
        "page_title": " · ".join([title, str(profile), *origin[:1]]),
        "origin": ", ".join(origin),
        "subtitle": f"Profile {run.params.get('profile', '?')}, model {model} "
        f"({run.backbone(model)}), "
        f"{len(run.benchmarks)} benchmarks, zero-shot." + _others(numbers),
        "notices": html.notices(run),
        "sections": _sections(galleries, hero is not None),
        "cards": html.cards(numbers.overview),
        "overview_chart": Markup(html.overview_chart(numbers.overview)),
        "overview_legend": Markup(html.overview_legend()),
        "replicates": f"{REPLICATES:,}",
        "overview": html.overview(numbers.overview),
        "hero": None if hero is None else {**html.embed(hero), "text": HERO_TEXT},
        "paper_backbone": paper.reference_backbone(run.backbone(model)),
        "tables": [html.table_context(spec, rows, run) for spec, rows in numbers.tables],
        "more_tables": html.other_context(numbers.others)
        + full.context(run, numbers.full)
        + html.systems_context(numbers.systems, run)
        + html.models_context(numbers.models)
        + report_ablations.context(numbers.ablations, str(run.params.get("profile", ""))),
        "cost": cost.cost_context(),
        "published": published.context(numbers.published),
        "n_published": len(numbers.published),
        "charts": [{"title": t, "svg": Markup(svg), "text": text} for t, svg, text in charts],
        "listing": listing,
        "errors": errors.context(run, numbers.diagnosed, numbers.sizes),
        "galleries": shown,
        "figures": figures.context(pictures.figures, pictures.attention),
        "n_missed": sum(scenes.missed(run, model, b) for b in run.benchmarks),
        **data,
    }
    return html.render("report.html.j2", ("page.js.j2", "browser.js.j2"), context)


def _gain_charts(of: Sequence[Candidates]) -> list[tuple[str, str, str]]:
    """(title, svg, text) of each scale that the pictured quantities have, named by the first of them."""
    scales: dict[Any, list[Candidates]] = {}
    for candidates in of:
        if len(candidates):
            scales.setdefault(candidates.quantity.scale, []).append(candidates)
    found = []
    for scale, mine in scales.items():
        total = sum(map(len, mine))
        ahead = sum(np.count_nonzero(c.gain > 0) for c in mine)
        side = "below" if scale.lower_is_better else "above"
        where = "All benchmarks" if len(scales) == 1 else paper.titles(c.benchmark for c in mine)
        text = f"{where}; {side} the diagonal HQ-SAM is better ({ahead} of {total} instances)."
        sam, hq = (np.concatenate([c.frame[name] for c in mine]) for name in ("sam", "hq"))
        chart = report_curves.gain_chart(sam, hq, mine[0].quantity)
        found.append((scale.label("Every instance"), chart, text))
    return found


def _others(numbers: Numbers) -> str:
    names = ", ".join(dict.fromkeys(row.model for row in numbers.models))
    return (
        f" It is the first model of params.yaml; {names}: see “Other models of this run”."
        if names
        else ""
    )


def _sections(galleries: Sequence[Gallery], hero: bool) -> list[tuple[str, str]]:
    found = [("results", "Results at a glance")]
    found += [("pictures", "What it looks like")] if hero else []
    found += [
        ("tables", "Tables in the paper's layout"),
        ("published", "All numbers of the paper"),
        ("cost", "Parameters, speed, memory"),
        ("curves", "Curves"),
        ("errors", "What kind of error"),
    ]
    found += [("figures", "Figures of the paper")]
    found += [(g.id, g.title) for g in galleries]
    return [
        *found,
        ("instances", "All instances"),
        ("data", "Data"),
        ("protocols", "Protocols"),
        ("provenance", "Provenance"),
    ]


def _gallery_context(
    gallery: Gallery, pictures: Mapping[tuple[str, int], Picture]
) -> dict[str, Any]:
    items = [html.embed(pictures[gallery.id, place]) for place in range(len(gallery.picks))]
    texts = {name: getattr(gallery, name) for name in ("id", "title", "text", "panels")}
    return {**texts, "pictures": items}


def _data_context(run: Run) -> dict[str, Any]:
    overlap = html.overlap_context(run)
    if overlap:
        overlap = {
            **overlap,
            "pictures": [_file_picture(path, text) for path, text in overlap["gallery"]],
        }
    protocols = [_protocol_context(run, block) for block in sources.protocols(run)]
    return {
        "trains_nothing": not run.params.get("sources"),
        "sources": sources.sources(run),
        "training_set": sources.training_set(run),
        "evaluation_sets": sources.evaluation_sets(run),
        "quality": sources.quality(run),
        "overlap": overlap,
        "protocols": protocols,
        "versions": sources.versions(),
        "models": sources.models(run),
        "digests": sources.digests(run),
        "archives": sources.archives(run),
        "params_text": html.params_text(run),
    }


def _protocol_context(run: Run, block: dict[str, Any]) -> dict[str, Any]:
    name = block["benchmark"]
    return {
        **block,
        "title": paper.title(name),
        "anchor": f"{name}-{block['prompt_set']}",
        "files": [f"metrics/{name}-{model}.json" for model in run.models],
        "instances": f"data/scores/{name}-{run.models[0]}/instances.parquet",
        "stage": f"score@{name}-{run.models[0]}",
    }


def _file_picture(path: Path, text: str) -> dict[str, Any]:
    from hqsam_datasets.formats.images import decode_image

    return html.embed(Picture(decode_image(path.read_bytes()), f"Overlapping pair, {text}", text))
