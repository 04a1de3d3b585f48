"""Builds the report: reads the run once, writes tables, plots and pictures, then the page, then `metrics.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsam_base.atomic import atomic_folder, json_bytes, write_bytes, write_text
from hqsam_base.progress import Progress
from hqsam_metrics.stats import REPLICATES
from hqsam_pipelines.report import ablations as report_ablations
from hqsam_pipelines.report import (
    cost,
    errors,
    html,
    instances,
    paper,
    published,
    scenes,
    sources,
)
from hqsam_pipelines.report import curves as report_curves
from hqsam_pipelines.report import tables as report_tables
from hqsam_pipelines.report.draw import captioned, overlay, png_bytes, strip
from hqsam_pipelines.report.html import Picture
from hqsam_pipelines.report.kept_tables import write_instances
from hqsam_pipelines.report.numbers import Numbers, gather, write_plots, write_tables
from hqsam_pipelines.report.options import ReportOptions
from hqsam_pipelines.report.results import Run, load_run
from hqsam_pipelines.report.scenes import Pick, SceneReader

_PALETTE = 256
_PANELS = ("Prompt", "SAM", "HQ-SAM", "Ground truth", "Errors of SAM", "Errors of HQ-SAM")


@dataclass(frozen=True)
class Gallery:
    """One kind of picture."""

    id: str
    title: str
    text: str
    picks: tuple[Pick, ...]


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
    picks = [p for b in run.benchmarks for p in scenes.candidates(run, run.models[0], b)]
    galleries = _galleries(picks, options)
    progress(2, 5, "pictures")
    pictures, hero = _write_figures(out / "figures", run, galleries, picks, options)
    progress(3, 5, "page")
    places = (p for gallery in galleries for p in gallery.picks)
    shown = {(p.benchmark, p.prompt_set, p.unit): at for at, p in enumerate(places)}
    listing = instances.listing(run, run.models[0], shown)
    write_text(out / "tables" / "instances.csv", listing.csv)
    page = _page(run, numbers, picks, galleries, pictures, hero, listing)
    write_text(out / "report.html", page)
    write_bytes(out / "metrics.json", json_bytes(report_tables.metrics_tree(run)))
    progress(5, 5, "done")
    return {
        "n_benchmarks": len(run.benchmarks),
        "n_pictures": len(pictures),
        "bytes": len(page.encode()),
    }


_KINDS: tuple[tuple[str, str, str, Callable[[Sequence[Pick], int], list[Pick]]], ...] = (
    (
        "improved",
        "Most improved",
        "The largest gains in boundary quality over SAM.",
        scenes.improved,
    ),
    ("worsened", "Most worsened", "The largest losses against SAM.", scenes.worsened),
    ("best", "Best", "HQ-SAM's best boundaries.", scenes.best),
    ("worst", "Worst", "HQ-SAM's worst boundaries.", scenes.worst),
)
"""Galleries: identifier (and name of the option with their number), title, text, choice."""


def _galleries(picks: Sequence[Pick], options: ReportOptions) -> list[Gallery]:
    spread = " Spread over the benchmarks: none has a second picture before each had one."
    found = [
        Gallery(name, title, text + spread, tuple(choose(picks, getattr(options, name))))
        for name, title, text, choose in _KINDS
    ]
    if options.typical:
        text = (
            "One picture per benchmark, chosen by rule: the instance whose gain over SAM is the "
            "median."
        )
        found.append(Gallery("typical", "Typical", text, tuple(scenes.typical(picks))))
    return [gallery for gallery in found if gallery.picks]


def _write_figures(
    folder: Path,
    run: Run,
    galleries: Sequence[Gallery],
    picks: Sequence[Pick],
    options: ReportOptions,
) -> tuple[dict[tuple[str, int], Picture], Picture | None]:
    reader = SceneReader(run)
    pictures: dict[tuple[str, int], Picture] = {}
    with atomic_folder(folder) as tmp:
        for gallery in galleries:
            for place, pick in enumerate(gallery.picks):
                picture = _picture(reader, pick, options.panel)
                pictures[gallery.id, place] = picture
                name = f"{gallery.id}_{place + 1:02d}_{pick.benchmark}.png"
                (tmp / name).write_bytes(png_bytes(picture.image, _PALETTE))
        hero = _hero(reader, picks, options)
        if hero is not None:
            (tmp / "hero.png").write_bytes(png_bytes(hero.image, _PALETTE, careful=True))
    return pictures, hero


def _picture(reader: SceneReader, pick: Pick, panel: int) -> Picture:
    image = overlay(reader.read(pick), panel)
    scale = pick.quantity.scale
    scores = (
        f"{scale.label(pick.quantity.title)} {scale.factor * pick.sam:.1f} → "
        f"{scale.factor * pick.hq:.1f}"
    )
    caption = (
        f"{paper.title(pick.benchmark)}, {pick.prompt_set.replace('_', ' ')} . {scores} . "
        f"{pick.place}"
    )
    return Picture(image, f"Masks of SAM and HQ-SAM for {pick.unit}", caption)


def _hero(reader: SceneReader, picks: Sequence[Pick], options: ReportOptions) -> Picture | None:
    """A row per scene: the largest gains among the four HQ sets (all benchmarks if none of them was run)."""
    chosen = [p for p in picks if p.benchmark in paper.HQ4] or list(picks)
    shown = scenes.improved(chosen, options.hero)
    if not shown:
        return None
    rows = [strip(reader.read(pick), 232) for pick in shown]
    captions = [
        [
            paper.title(p.benchmark),
            *(f"{p.quantity.title} {p.quantity.scale.factor * v:.0f}" for v in (p.sam, p.hq)),
            "",
        ]
        for p in shown
    ]
    heads = ["Image and prompt", "SAM", "HQ-SAM", "Ground truth"]
    return Picture(
        captioned(rows, heads, captions), "SAM and HQ-SAM on scenes with thin structures", ""
    )


def _page(
    run: Run,
    numbers: Numbers,
    picks: Sequence[Pick],
    galleries: Sequence[Gallery],
    pictures: Mapping[tuple[str, int], Picture],
    hero: Picture | None,
    listing: instances.Listing,
) -> str:
    from markupsafe import Markup

    charts = [(title, svg, "") for title, svg in report_curves.training_charts(*numbers.training)]
    charts += [
        *report_curves.recall_charts(numbers.curves),
        *map(report_curves.steps_chart, numbers.steps),
    ]
    charts += _gain_charts(picks)
    data = _data_context(run)
    shown = [_gallery_context(g, pictures) for g in galleries]
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
        "hero": None if hero is None else {**html.embed(hero), "text": _HERO_TEXT},
        "paper_backbone": paper.reference_backbone(run.backbone(model)),
        "tables": [html.table_context(spec, rows, run) for spec, rows in numbers.tables],
        "more_tables": html.other_context(numbers.others)
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
        "n_missed": sum(scenes.missed(run, model, b) for b in run.benchmarks),
        **data,
    }
    return html.render("report.html.j2", context)


def _gain_charts(picks: Sequence[Pick]) -> list[tuple[str, str, str]]:
    """(title, svg, text) of each scale that the pictured quantities have, named by the first of them."""
    scales: dict[Any, list[Pick]] = {}
    for pick in picks:
        scales.setdefault(pick.quantity.scale, []).append(pick)
    found = []
    for scale, mine in scales.items():
        ahead, side = sum(p.gain > 0 for p in mine), "below" if scale.lower_is_better else "above"
        where = "All benchmarks" if len(scales) == 1 else paper.titles(p.benchmark for p in mine)
        text = f"{where}; {side} the diagonal HQ-SAM is better ({ahead} of {len(mine)} instances)."
        chart = report_curves.gain_chart(
            [p.sam for p in mine], [p.hq for p in mine], mine[0].quantity
        )
        found.append((scale.label("Every instance"), chart, text))
    return found


_HERO_TEXT = (
    "The largest gains among the four HQ sets, one scene of each; the galleries below also hold "
    "losses, failures "
    "and typical instances."
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
