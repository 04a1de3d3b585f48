"""The figures of the paper that show masks, from this run: Figures 7 and 9 to 14; Figure 6 is `attention`'s.

The paper chose its pictures; here a rule does, so that losses are among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hqsam_pipelines.report import html, paper, scenes
from hqsam_pipelines.report.draw import pair
from hqsam_pipelines.report.html import Picture
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.scenes import Candidates, Pick, SceneReader

NOISED = ("gt_box", "box_noise_0.2", "box_noise_0.4")


@dataclass(frozen=True)
class Spec:
    """A figure of the paper.

    Attributes:
        number: of the figure.
        title: what it shows.
        benchmarks: whose instances.
        prompt_sets: each gets its share of the pictures.
        command: what makes the benchmarks that the profile does not have.
    """

    number: int
    title: str
    benchmarks: tuple[str, ...]
    prompt_sets: tuple[str, ...]
    command: str = "hqsam profile paper && dvc repro"


@dataclass(frozen=True)
class Figure:
    """A figure with its pictures.

    Attributes:
        spec: which.
        pictures: SAM above, HQ-SAM below.
        absent: benchmarks that this run has no result of, for a person; "" if there is none.
    """

    spec: Spec
    pictures: tuple[Picture, ...]
    absent: str


_DIS = ("dis_vd", "dis_te1", "dis_te2", "dis_te3", "dis_te4")
_ALL = "hqsam profile paper_all && dvc repro"
SPECS = (
    Spec(7, "Zero-shot, with a box or a point", ("coift", "hrsod"), ("gt_box", "points_1")),
    Spec(9, "DIS, boxes", _DIS, ("gt_box",), _ALL),
    Spec(10, "COCO, boxes of a detector", ("coco",), ("detector_box",)),
    Spec(11, "The same objects with exact and with noised boxes", paper.HQ4, NOISED),
    Spec(12, "HRSOD and NDD20", ("hrsod", "ndd20"), ("gt_box",), _ALL),
    Spec(13, "Video objects: DAVIS 2017", ("davis",), ("tracker_box",)),
    Spec(14, "Video instances", ("ytvis19", "hq_ytvis"), ("tracker_box",), _ALL),
)


def figures(
    run: Run, reader: SceneReader, of: Sequence[Candidates], *, count: int, side: int
) -> list[Figure]:
    """All figures, those without a picture included.

    Args:
        run: the results.
        reader: reads images and masks.
        of: every instance that can be shown.
        count: pictures of each, as far as there are so many.
        side: width and height of a panel in pixels.
    """
    found = []
    for spec in SPECS:
        chosen = _chosen(spec, of, count)
        pictures = tuple(
            Picture(pair(reader.read(pick), side), f"SAM and HQ-SAM for {pick.unit}", caption(pick))
            for pick in chosen
        )
        absent = ", ".join(paper.title(b) for b in spec.benchmarks if b not in run.benchmarks)
        found.append(Figure(spec, pictures, absent))
    return found


def _chosen(spec: Spec, of: Sequence[Candidates], count: int) -> list[Pick]:
    mine = [candidates for candidates in of if candidates.benchmark in spec.benchmarks]
    if spec.prompt_sets == NOISED:
        return _noised(mine, max(1, count // len(NOISED)))
    parts = [[candidates.with_prompts(name) for candidates in mine] for name in spec.prompt_sets]
    shown = [part for part in parts if any(map(len, part))]
    return [pick for part in shown for pick in scenes.ranked(part, count // len(shown))]


def _noised(of: Sequence[Candidates], objects: int) -> list[Pick]:
    """All boxes of a few objects: those between which HQ-SAM's gain with the worst box is spread.

    The HQ sets have one object an image, and its units are named by the prompt: images are matched.
    """
    whole: dict[str, list[Candidates]] = {}
    for candidates in of:
        sides = [candidates.with_prompts(name) for name in NOISED]
        shared = set.intersection(*(set(side.frame["cluster"]) for side in sides))
        whole[candidates.benchmark] = [side.of_images(shared) for side in sides]
    worst = scenes.ranked([sides[-1] for sides in whole.values()], objects)
    return [s.of_images([p.cluster])[0] for p in worst for s in whole[p.benchmark]]


def caption(pick: Pick) -> str:
    """Benchmark, prompt, the scores of SAM and HQ-SAM, and which object it is."""
    scale = pick.quantity.scale
    scores = (
        f"{scale.label(pick.quantity.title)} {scale.factor * pick.sam:.1f} → "
        f"{scale.factor * pick.hq:.1f}"
    )
    return (
        f"{paper.title(pick.benchmark)}, {pick.prompt_set.replace('_', ' ')} . {scores} . "
        f"{pick.place}"
    )


def context(found: Sequence[Figure], attention: tuple[Picture, str] | None) -> list[dict[str, Any]]:
    """The figures for the page, in the order of their numbers; what this run cannot show is said."""
    shown = [
        {
            "title": f"Figure {one.spec.number}: {one.spec.title}",
            "text": "",
            "wide": False,
            "pictures": [html.embed(picture) for picture in one.pictures],
            "absent": one.absent,
            "command": one.spec.command,
        }
        for one in found
    ]
    six = {
        "title": "Figure 6: where the HQ token looks",
        "text": "" if attention is None else attention[1],
        "wide": True,
        "pictures": [] if attention is None else [html.embed(attention[0])],
        "absent": "",
        "command": "dvc repro",
    }
    return [six, *shown]
