"""Which pictures the page has, and their files in reports/figures: galleries, the hero, the figures of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hqsam_base.atomic import atomic_folder
from hqsam_pipelines.report import attention, figures, paper, scenes
from hqsam_pipelines.report.draw import captioned, overlay, png_bytes, strip
from hqsam_pipelines.report.html import Picture
from hqsam_pipelines.report.options import ReportOptions
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.scenes import Candidates, Pick, SceneReader

_PALETTE = 256

HERO_TEXT = (
    "The largest gains among the four HQ sets, one scene of each; the galleries below also hold "
    "losses, failures "
    "and typical instances."
)


@dataclass(frozen=True)
class Gallery:
    """One kind of picture."""

    id: str
    title: str
    text: str
    picks: tuple[Pick, ...]


@dataclass(frozen=True)
class Pictures:
    """Everything that is drawn.

    Attributes:
        of_galleries: by gallery and place in it.
        hero: at the top of the page.
        attention: Figure 6 and what to say of it.
        figures: the other figures of the paper.
    """

    of_galleries: Mapping[tuple[str, int], Picture]
    hero: Picture | None
    attention: tuple[Picture, str] | None
    figures: Sequence[figures.Figure]


_KINDS: tuple[tuple[str, str, str, scenes.Choice], ...] = (
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


def choose_galleries(of: Sequence[Candidates], options: ReportOptions) -> list[Gallery]:
    """The galleries of the best, the worst, the most changed and the typical instances, as far as there are any."""
    spread = " Spread over the benchmarks: none has a second picture before each had one."
    found = [
        Gallery(name, title, text + spread, tuple(choose(of, getattr(options, name))))
        for name, title, text, choose in _KINDS
    ]
    if options.typical:
        text = (
            "One picture per benchmark, chosen by rule: the instance whose gain over SAM is the "
            "median."
        )
        found.append(Gallery("typical", "Typical", text, tuple(scenes.typical(of))))
    return [gallery for gallery in found if gallery.picks]


def write_figures(
    folder: Path,
    run: Run,
    galleries: Sequence[Gallery],
    of: Sequence[Candidates],
    options: ReportOptions,
) -> Pictures:
    """Draw everything, and write it as PNG files into a folder.

    Args:
        folder: to write, whole or not at all.
        run: the results.
        galleries: of `choose_galleries`.
        of: every instance that can be shown.
        options: section `report` of params.yaml.
    """
    reader = SceneReader(run)
    found: dict[tuple[str, int], Picture] = {}
    hero = _hero(reader, of, options)
    # Attention is shown of the largest gains with exact boxes among the four HQ sets.
    exact = [c.with_prompts("gt_box") for c in of if c.benchmark in paper.HQ4]
    looked = attention.figure(run, reader, scenes.improved(exact, options.attention))
    of_paper = figures.figures(run, reader, of, count=options.figures, side=options.panel)
    with atomic_folder(folder) as tmp:
        for gallery in galleries:
            for place, pick in enumerate(gallery.picks):
                sheet = overlay(reader.read(pick), options.panel)
                label = f"Masks of SAM and HQ-SAM for {pick.unit}"
                picture = Picture(sheet, label, figures.caption(pick))
                found[gallery.id, place] = picture
                name = f"{gallery.id}_{place + 1:02d}_{pick.benchmark}.png"
                (tmp / name).write_bytes(png_bytes(picture.image, _PALETTE))
        for figure in of_paper:
            for place, picture in enumerate(figure.pictures):
                name = f"figure{figure.spec.number:02d}_{place + 1:02d}.png"
                (tmp / name).write_bytes(png_bytes(picture.image, _PALETTE))
        if looked is not None:
            (tmp / "figure06.png").write_bytes(png_bytes(looked[0].image, _PALETTE, careful=True))
        if hero is not None:
            (tmp / "hero.png").write_bytes(png_bytes(hero.image, _PALETTE, careful=True))
    return Pictures(found, hero, looked, of_paper)


def _hero(reader: SceneReader, of: Sequence[Candidates], options: ReportOptions) -> Picture | None:
    """A row per scene: the largest gains among the four HQ sets (all benchmarks if none of them was run)."""
    chosen = [c for c in of if len(c) and c.benchmark in paper.HQ4] or of
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
