"""Builds the report: reads the run once, writes tables, plots and pictures, then the page, then `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hqsam_base.atomic import json_bytes, write_bytes, write_text
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
from hqsam_pipelines.report.numbers import Numbers, gather, write_plots, write_tables
from hqsam_pipelines.report.options import ReportOptions
from hqsam_pipelines.report.pictures import (
    HERO_TEXT,
    Gallery,
    Pictures,
    choose_galleries,
    write_figures,
)
from hqsam_pipelines.report.results import Run, load_run
from hqsam_pipelines.report.scenes import Candidates

_PANELS = ("Prompt", "SAM", "HQ-SAM", "Ground truth", "Errors of SAM", "Errors of HQ-SAM")


def build(*, root: Path, params: Any, out: Path, progress: Progress) -> dict[str, Any]:
    """See `hqsam_pipelines.report.run.build_report`."""
    run = load_run(root, params)
    options = ReportOptions.model_validate(dict(run.params.get("report", {})))
    progress(0, 5, "numbers")
    numbers = gather(run)
    write_tables(out / "tables", numbers, run)
    write_plots(out / "plots", numbers)
    write_instances(root, out / "instances")
    progress(1, 5, "choosing instances")
    pictured = (scenes.candidates(run, run.models[0], b) for b in run.benchmarks)
    chosen_from = [candidates for candidates in pictured if candidates is not None]
    galleries = choose_galleries(chosen_from, options)
    progress(2, 5, "pictures")
    pictures = write_figures(out / "figures", run, galleries, chosen_from, options)
    progress(3, 5, "page")
    places = (p for gallery in galleries for p in gallery.picks)
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
    hero = pictures.hero
    model = run.models[0]
    origin = sources.origin_words(run)
    title, profile = "SAM against HQ-SAM", run.params.get("profile", "?")
    others = ", ".join(dict.fromkeys(row.model for row in numbers.models))
    if others:
        others = f" It is the first model of params.yaml; {others}: see “Other models of this run”."
    context = {
        "title": title,
        "page_title": " · ".join([title, str(profile), *origin[:1]]),
        "origin": ", ".join(origin),
        "panels": _PANELS,
        "subtitle": f"Profile {run.params.get('profile', '?')}, model {model} "
        f"({run.backbone(model)}), "
        f"{len(run.benchmarks)} benchmarks, zero-shot.{others}",
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
        "galleries": [_gallery_context(g, pictures.of_galleries) for g in galleries],
        "figures": figures.context(pictures.figures, pictures.attention),
        "n_missed": sum(scenes.missed(run, model, b) for b in run.benchmarks),
        **_data_context(run),
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
    return {"id": gallery.id, "title": gallery.title, "text": gallery.text, "pictures": items}


def _data_context(run: Run) -> dict[str, Any]:
    from hqsam_datasets.formats.images import decode_image

    overlap = html.overlap_context(run)
    if overlap:
        pairs = [
            Picture(decode_image(path.read_bytes()), f"Overlapping pair, {text}", text)
            for path, text in overlap["gallery"]
        ]
        overlap = {**overlap, "pictures": [html.embed(pair) for pair in pairs]}
    protocols = []
    for block in sources.protocols(run):
        name = block["benchmark"]
        protocols.append(
            {
                **block,
                "title": paper.title(name),
                "anchor": f"{name}-{block['prompt_set']}",
                "files": [f"metrics/{name}-{model}.json" for model in run.models],
                "instances": f"data/scores/{name}-{run.models[0]}/instances.parquet",
                "stage": f"score@{name}-{run.models[0]}",
            }
        )
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
