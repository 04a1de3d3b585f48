"""Which instances the report shows, and what is needed to draw them.

The choice is made from the per-instance tables alone; images and masks are read for the chosen few
only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_metrics.base import Quantity
from hqsam_pipelines.report.draw import Mask, Scene
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.units import quantity_values, side_by_side

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Pick:
    """One chosen instance.

    Attributes:
        benchmark, model, prompt_set: where it is from.
        key, cluster, unit: as in the per-instance table.
        sam, hq: its scores, as stored.
        quantity: what the scores are: what the benchmark's metric pictures.
    """

    benchmark: str
    model: str
    prompt_set: str
    key: str
    cluster: str
    unit: str
    sam: float
    hq: float
    quantity: Quantity

    @property
    def place(self) -> str:
        """Image and object for a caption."""
        known = self.unit.startswith((self.key, self.cluster))
        return self.unit if known else f"{self.key}, object {self.unit}"

    @property
    def gain(self) -> float:
        """By how much HQ-SAM is better than SAM."""
        return self.quantity.scale.gain(self.hq - self.sam)

    @property
    def merit(self) -> float:
        """HQ-SAM's score with the sign that makes more better."""
        return self.quantity.scale.gain(self.hq)


@dataclass(frozen=True)
class Candidates:
    """Every instance of a benchmark that both systems have a defined score for, as columns: there may be millions.

    Attributes:
        benchmark, model, quantity: as in `Pick`.
        frame: prompt_set, key, cluster, unit (categories), sam, hq; by prompt set, image and unit.
    """

    benchmark: str
    model: str
    quantity: Quantity
    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, place: int) -> Pick:
        row = self.frame.iloc[place]
        return Pick(
            benchmark=self.benchmark,
            model=self.model,
            prompt_set=str(row["prompt_set"]),
            key=str(row["key"]),
            cluster=str(row["cluster"]),
            unit=str(row["unit"]),
            sam=float(row["sam"]),
            hq=float(row["hq"]),
            quantity=self.quantity,
        )

    def with_prompts(self, name: str) -> Candidates:
        """Those of one prompt set."""
        return replace(self, frame=self.frame[self.frame["prompt_set"] == name])

    def of_images(self, clusters: Collection[str]) -> Candidates:
        """Those of some images (videos, of video sets)."""
        return replace(self, frame=self.frame[self.frame["cluster"].isin(list(clusters))])

    @property
    def gain(self) -> NDArray[np.float64]:
        """By how much HQ-SAM is better than SAM."""
        gains: NDArray[np.float64] = self.frame["hq"].to_numpy() - self.frame["sam"].to_numpy()
        return -gains if self.quantity.scale.lower_is_better else gains

    @property
    def merit(self) -> NDArray[np.float64]:
        """HQ-SAM's scores with the sign that makes more better."""
        scores: NDArray[np.float64] = self.frame["hq"].to_numpy()
        return -scores if self.quantity.scale.lower_is_better else scores


def candidates(run: Run, model: str, benchmark: str) -> Candidates | None:
    """Every instance of a benchmark that both systems have a defined score for; None where the metric pictures nothing.

    Where the score is that of the best detection of the class, an object without any is left out:
    there is no mask to look at. `missed` counts them.
    """
    quantity = run.score(benchmark).pictured
    if quantity is None:
        return None
    systems = (run.baseline(benchmark), run.hq_system(benchmark))
    both = side_by_side(run.units(benchmark, model), *systems, quantity)
    if run.score(benchmark).best_of_class:
        both = both[both[["sam", "hq"]].max(axis=1) > 0]
    return Candidates(benchmark, model, quantity, both)


def missed(run: Run, model: str, benchmark: str) -> int:
    """Number of annotated objects that no detection of their class touches."""
    quantity = run.score(benchmark).pictured
    if quantity is None or not run.score(benchmark).best_of_class:
        return 0
    mine = run.units(benchmark, model)
    mine = mine[mine["system"].isin([run.baseline(benchmark), run.hq_system(benchmark)])]
    mine = mine.assign(score=quantity_values(mine, quantity))
    objects = mine.groupby(["prompt_set", "key", "unit"], observed=True, sort=False)["score"]
    return int((objects.max() == 0).sum())


Choice = Callable[[Sequence[Candidates], int], list[Pick]]


def best(of: Sequence[Candidates], count: int) -> list[Pick]:
    """The best HQ-SAM scores, spread over the benchmarks."""
    chosen = [p for c in of for p in _first(c, np.lexsort((-c.gain, -c.merit)), count)]
    return _spread(sorted(chosen, key=lambda p: (-p.merit, -p.gain, _name(p))), count)


def worst(of: Sequence[Candidates], count: int) -> list[Pick]:
    """The worst HQ-SAM scores, spread over the benchmarks."""
    chosen = [p for c in of for p in _first(c, np.lexsort((c.gain, c.merit)), count)]
    return _spread(sorted(chosen, key=lambda p: (p.merit, p.gain, _name(p))), count)


def improved(of: Sequence[Candidates], count: int) -> list[Pick]:
    """The largest gains over SAM, spread over the benchmarks."""
    chosen = [p for c in of for p in _first(c, _positive(c.gain), count)]
    return _spread(sorted(chosen, key=lambda p: (-p.gain, _name(p))), count)


def worsened(of: Sequence[Candidates], count: int) -> list[Pick]:
    """The largest losses against SAM, spread over the benchmarks."""
    chosen = [p for c in of for p in _first(c, _positive(-c.gain), count)]
    return _spread(sorted(chosen, key=lambda p: (p.gain, _name(p))), count)


def typical(of: Sequence[Candidates]) -> list[Pick]:
    """One instance per benchmark: the one whose gain is the median."""
    some = [c for c in of if len(c)]
    return [c[int(np.argsort(c.gain, kind="stable")[(len(c) - 1) // 2])] for c in some]


def _positive(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Places of the values above zero, the largest first; equal ones in their order."""
    above = np.flatnonzero(values > 0)
    return above[np.argsort(-values[above], kind="stable")]


def _first(candidates: Candidates, order: NDArray[np.intp], count: int) -> list[Pick]:
    """The first `count` instances of an order, one image at most once: no more of one benchmark can be shown."""
    cluster = candidates.frame["cluster"].cat.codes.to_numpy()
    found: dict[int, int] = {}
    for place in order if count else ():
        found.setdefault(int(cluster[place]), int(place))
        if len(found) == count:
            break
    return [candidates[place] for place in found.values()]


def ranked(of: Sequence[Candidates], count: int) -> list[Pick]:
    """From the largest gain to the largest loss in even steps of the ranking, one instance of an image at most."""
    found: list[tuple[float, str, int, Candidates]] = []
    for candidates in of:
        order = np.argsort(-candidates.gain, kind="stable")
        first = np.unique(
            candidates.frame["cluster"].cat.codes.to_numpy()[order], return_index=True
        )[1]
        gains = candidates.gain
        found += [(-gains[n], candidates.benchmark, int(n), candidates) for n in order[first]]
    found.sort(key=lambda item: item[:3])
    steps = range(min(count, len(found)))
    last = max(1, len(steps) - 1)
    chosen = [found[round(step * (len(found) - 1) / last)] for step in steps]
    return [candidates[place] for *_, place, candidates in chosen]


def _name(pick: Pick) -> tuple[str, ...]:
    return (pick.benchmark, pick.prompt_set, pick.key, pick.unit)


def _spread(ranked: Sequence[Pick], count: int) -> list[Pick]:
    """The first `count`, one image at most once, no benchmark a second time before each had its turn."""
    taken: list[Pick] = []
    for turn in range(1, count + 1):
        for pick in ranked:
            mine = [t for t in taken if t.benchmark == pick.benchmark]
            if (
                len(taken) < count
                and len(mine) < turn
                and all(t.cluster != pick.cluster for t in mine)
            ):
                taken.append(pick)
    return sorted(taken, key=ranked.index)


Sides = Callable[[Pick], tuple[tuple[Path, str], tuple[Path, str]]]
"""The two masks of a picture: for each the folder of the predictions and the system."""


def run_sides(run: Run) -> Sides:
    """SAM and HQ-SAM of one run."""

    def sides(pick: Pick) -> tuple[tuple[Path, str], tuple[Path, str]]:
        folder = run.folder("predictions", pick.benchmark, pick.model)
        return (folder, run.baseline(pick.benchmark)), (folder, run.hq_system(pick.benchmark))

    return sides


class SceneReader:
    """Reads what a picture of an instance needs from one benchmark's folders.

    Args:
        run: the results; its root holds ``data/benchmarks``.
        sides: where the two masks come from; default: SAM and HQ-SAM of the run.
    """

    def __init__(self, run: Run, sides: Sides | None = None) -> None:
        self.root = run.root
        self.run = run
        self.sides = run_sides(run) if sides is None else sides

    def read(self, pick: Pick) -> Scene:
        """The scene of one instance; of a track, the frame in which the two systems differ most.

        Raises:
            UserError: a table or an image is missing, or the instance is in none of them.
        """
        folder = self.root / "data" / "benchmarks" / pick.benchmark
        targets = self._targets(folder, pick)
        if not targets:
            raise UserError(
                "the per-instance table names a unit that the benchmark does not have",
                file=folder / "instances.parquet",
                key=pick.unit,
                cure="run `dvc repro score`",
            )
        found = [self._masks(folder, pick, target, prompt) for target, prompt in targets]
        sign = 1 if pick.gain >= 0 else -1
        gains = [sign * (_iou(hq, truth) - _iou(sam, truth)) for truth, sam, hq, _ in found]
        chosen = int(np.argmax(gains))
        return self._scene(folder, targets[chosen][0]["key"], found[chosen])

    def prompt(self, pick: Pick) -> Mapping[str, Any]:
        """The row of prompts.parquet that an instance of a set without detections was scored for."""
        path = self.root / "data" / "benchmarks" / pick.benchmark / "prompts.parquet"
        return _rows(path, pick.key, None, prompt_id=pick.unit)[0]

    def _targets(self, folder: Path, pick: Pick) -> list[tuple[Mapping[str, Any], str | None]]:
        """Ground-truth rows of the unit, each with the prompt it was scored for (None: the best of the image)."""
        prompts = _rows(folder / "prompts.parquet", None, _PROMPT_NAMES, prompt_id=pick.unit)
        here = _rows(
            folder / "instances.parquet",
            prompts[0]["key"] if prompts else pick.key,
            _INSTANCE_NAMES,
        )
        if prompts:
            mine = [row for row in here if row["instance_id"] == prompts[0]["instance_id"]]
            return [(row, pick.unit) for row in (mine or here)[:1]]
        direct = [row for row in here if row["instance_id"] == pick.unit]
        return [
            (row, None)
            for row in direct
            or _track(folder, pick, inner=self.run.score(pick.benchmark).inner_frames)
        ]

    def _masks(
        self, folder: Path, pick: Pick, place: Mapping[str, Any], prompt: str | None
    ) -> tuple[Mask, Mask, Mask, str]:
        """Ground truth, the masks of both sides, and the prompt that the second is for."""
        here = _rows(folder / "instances.parquet", place["key"])
        target = next(row for row in here if row["instance_id"] == place["instance_id"])
        truth = _decode(target)
        masks = []
        chosen = ""
        for predictions, system in self.sides(pick):
            parts = sorted(predictions.glob("part-*.parquet"))
            rows = [r for p in parts for r in _rows(p, target["key"])]
            rows = [r for r in rows if (r["prompt_set"], r["system"]) == (pick.prompt_set, system)]
            scored = [r for r in rows if r["prompt_id"] == prompt]
            rows = self._same_class(pick, target, rows) if prompt is None else scored
            mine = [(r["prompt_id"], _decode(r)) for r in rows]
            ranked = sorted(mine, key=lambda item: (-_iou(item[1], truth), item[0]))
            chosen = ranked[0][0] if ranked else ""
            masks.append(ranked[0][1] if ranked else np.zeros_like(truth))
        return truth, masks[0], masks[1], chosen

    def _same_class(
        self, pick: Pick, target: Mapping[str, Any], rows: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        # params.yaml need not say it: `protocol` may.
        found = (r.protocol for r in self.run.results if r.benchmark == pick.benchmark)
        if next(found, {}).get("classes") == "agnostic":
            return rows
        path = self.root / "data" / "benchmarks" / pick.benchmark / "prompts.parquet"
        prompts = _rows(path, target["key"], ["prompt_id", "key", "category_id"])
        category = {r["prompt_id"]: r["category_id"] for r in prompts}
        same = {p for p, c in category.items() if c is None or c == target["category_id"]}
        return [r for r in rows if r["prompt_id"] in same]

    def _scene(self, folder: Path, key: str, masks: tuple[Mask, Mask, Mask, str]) -> Scene:
        from hqsam_datasets.formats.images import decode_image
        from hqsam_datasets.formats.tar import TarReader
        from hqsam_datasets.prompts import Marks, marks_of_row

        truth, sam, hq, prompt_id = masks
        row = next(iter(_rows(folder / "images.parquet", key, ["key", "member", "shard"])), None)
        if row is None:
            raise UserError(
                "an image is missing in the table", file=folder / "images.parquet", key=key
            )
        with TarReader(folder / row["shard"]) as reader:
            image = decode_image(reader.read(row["member"]))
        prompts = [r for r in _rows(folder / "prompts.parquet", key) if r["prompt_id"] == prompt_id]
        return Scene(image, truth, sam, hq, marks_of_row(prompts[0]) if prompts else Marks())


_PROMPT_NAMES = ["prompt_id", "instance_id", "key"]
_INSTANCE_NAMES = ["instance_id", "key", "track_id"]


def _track(folder: Path, pick: Pick, *, inner: bool) -> list[dict[str, Any]]:
    """The frames of one object of a video: unit ``<...><track id>``, cluster the video's name or id.

    With `inner`, without the first and the last, which the metric does not evaluate.
    """
    digits = re.search(r"(\d+)$", pick.unit)
    if digits is None:
        return []
    images = _rows(folder / "images.parquet", None, ["key", "video", "video_id"])
    frames = {row["key"] for row in images if pick.cluster in (row["video"], str(row["video_id"]))}
    tracked = _rows(
        folder / "instances.parquet", None, _INSTANCE_NAMES, track_id=int(digits.group(1))
    )
    mine = sorted((row for row in tracked if row["key"] in frames), key=lambda row: str(row["key"]))
    return (mine[1:-1] if inner else []) or mine


def _rows(
    path: Path, key: str | None, columns: list[str] | None = None, **equal: str | int
) -> list[dict[str, Any]]:
    """Rows of a table: those of one image, those with given values (row groups that cannot hold them are skipped)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = {**equal, **({} if key is None else {"key": key})}
    filters = [(name, "=", value) for name, value in wanted.items()] or None
    try:
        table = pq.read_table(path, columns=columns, filters=filters, use_threads=False)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise UserError(
            f"the table cannot be read: {error}", file=path, cure="run `dvc repro`"
        ) from error
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _decode(row: Mapping[str, Any]) -> Mask:
    from hqsam_base.rle import decode

    return decode(row["rle"], height=row["height"], width=row["width"])


def _iou(a: Mask, b: Mask) -> float:
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 0.0
