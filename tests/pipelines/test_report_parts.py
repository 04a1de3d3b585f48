"""The report's parts: statistics, choice of instances, scenes, drawing, charts."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqsam.systems import listed
from hqsam_base.errors import UserError
from hqsam_metrics import stats
from hqsam_metrics.base import FRACTION, Quantity, Scale, load_score
from hqsam_pipelines.report import charts, draw, figures, html, scenes, summary, units
from hqsam_pipelines.report import tables as report_tables
from hqsam_pipelines.report.results import load_run
from hqsam_pipelines.report.rows import Row, judged
from hqsam_pipelines.report.scenes import Candidates, Pick
from tests.pipelines.report_repo import Repo, predictions, wheel

# --- choice


BIOU = Quantity("boundary IoU", ("biou",))


def candidates(rows: Iterable[tuple[Any, ...]], quantity: Quantity = BIOU) -> list[Candidates]:
    """Of each benchmark its instances (benchmark, unit, SAM's score, HQ-SAM's, prompt set), two units an image."""
    whole = [(*row, "gt_box")[:5] for row in rows]
    whole.sort(key=lambda row: (row[0], row[4], row[1]))
    frame = pd.DataFrame(whole, columns=["benchmark", "n", "sam", "hq", "prompt_set"])
    frame = frame.assign(
        key=[f"k{n:02d}" for n in frame["n"]],
        cluster=[f"{b}{n // 2:02d}" for b, n in zip(frame["benchmark"], frame["n"], strict=True)],
        unit=[
            f"u{n:02d}" + f"-{name}" * (name != "gt_box")
            for n, name in zip(frame["n"], frame["prompt_set"], strict=True)
        ],
    ).astype(dict.fromkeys(("prompt_set", "key", "cluster", "unit"), "category"))
    return [Candidates(str(b), "nano", quantity, mine) for b, mine in frame.groupby("benchmark")]


def test_where_lower_is_better_the_largest_gain_is_the_largest_fall() -> None:
    distance = Quantity(
        "distance", ("distance",), Scale(1.0, "px", lower_is_better=True, limits=None)
    )
    picks = candidates((("a", 2 * i, 5.0, h) for i, h in enumerate((9.0, 4.0, 1.0))), distance)
    assert [p.hq for p in scenes.improved(picks, 3)] == [1.0, 4.0] and [
        p.hq for p in scenes.worsened(picks, 3)
    ] == [9.0]
    assert (
        [p.hq for p in scenes.best(picks, 3)]
        == [1.0, 4.0, 9.0]
        == [p.hq for p in scenes.worst(picks, 3)][::-1]
    )


def test_figures_go_from_the_largest_gain_to_the_largest_loss() -> None:
    """In even steps, no image twice."""
    rows = [("a", 2 * i, 0.5, 0.5 + 0.1 * gain) for i, gain in enumerate((0, 4, -3, 2, -1))]
    twin = ("a", 1, 0.5, 0.95)  # the image of the first, with a larger gain than all
    chosen = scenes.ranked(candidates([*rows, twin]), 3)
    assert [round(p.gain, 2) for p in chosen] == [0.45, 0.2, -0.3]
    assert len(scenes.ranked(candidates(rows), 9)) == 5
    assert [p.unit for p in scenes.ranked(candidates(rows), 1)] == ["u02"]
    assert scenes.ranked([], 3) == []


def test_figure_11_shows_the_same_objects_with_every_box() -> None:
    gains = {"gt_box": 0.1, "box_noise_0.2": 0.2, "box_noise_0.4": 0.3}
    rows = [
        ("coift", 2 * i, 0.4, 0.4 + sign * gain, name)
        for i, sign in enumerate((1, -1, 0.5))
        for name, gain in gains.items()
    ]
    [spec] = [spec for spec in figures.SPECS if spec.number == 11]
    chosen = figures._chosen(spec, candidates(rows[:-1]), 6)  # the third object lacks the worst box
    assert [(p.key, p.prompt_set) for p in chosen] == [
        (key, name) for key in ("k00", "k02") for name in gains
    ]


rows_of = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.floats(0, 1), st.floats(0, 1)),
    max_size=25,
    unique_by=lambda t: (t[0], t[1]),
)


@settings(deadline=None)
@given(rows_of, st.integers(0, 8))
def test_galleries_are_spread_ranked_and_free_of_repeats(
    rows: list[tuple[str, int, float, float]], count: int
) -> None:
    picks = candidates(rows)
    for choose, key in (
        (scenes.best, lambda p: -p.hq),
        (scenes.worst, lambda p: p.hq),
        (scenes.improved, lambda p: -p.gain),
        (scenes.worsened, lambda p: p.gain),
    ):
        chosen = choose(picks, count)
        assert len(chosen) <= count and len({(p.benchmark, p.cluster) for p in chosen}) == len(
            chosen
        )
        assert [key(p) for p in chosen] == sorted(key(p) for p in chosen)
        numbers = [sum(p.benchmark == b for p in chosen) for b in "abc"]
        if count and chosen and choose in (scenes.best, scenes.worst):
            available = [
                len({n // 2 for benchmark, n, *_ in rows if benchmark == b}) for b in "abc"
            ]
            for (n, have), (m, _) in itertools.permutations(
                zip(numbers, available, strict=True), 2
            ):
                assert n >= m - 1 or n == have
    assert all(p.gain > 0 for p in scenes.improved(picks, count))
    assert all(p.gain < 0 for p in scenes.worsened(picks, count))


def test_typical_is_the_median() -> None:
    gains = enumerate((0.9, 0.1, 0.3, 0.2, 0.8))
    chosen = scenes.typical(candidates(("a", i, 0.0, g) for i, g in gains))
    assert [p.hq for p in chosen] == [0.3]


# --- per-instance tables


def table(rows: Iterable[tuple[str, str, str, float]]) -> pd.DataFrame:
    """A per-instance table (system, image, unit, IoU), as it is read from a file."""
    frame = pd.DataFrame(list(rows), columns=["system", "key", "unit", "iou"])
    file = io.BytesIO()
    frame.assign(prompt_set="gt_box", cluster=frame["key"]).to_parquet(file)
    return units.units_frame(file, "x")


def test_tables_with_other_names_are_paired_by_image_and_unit() -> None:
    a = table([("sam", "k2", "u1", 0.2), ("sam", "k1", "u9", 0.1), ("sam", "k1", "u1", 0.3)])
    b = table([("sam", "k1", "u1", 0.5), ("sam", "k0", "u9", 0.7), ("sam", "k2", "u1", 0.6)])
    left, right = units.common_rows([units.rows_of(frame, "gt_box", "sam") for frame in (a, b)])
    assert left["iou"].tolist() == [0.3, 0.2] and right["iou"].tolist() == [0.5, 0.6]
    assert left["key"].tolist() == right["key"].tolist() == ["k1", "k2"]
    assert units.rows_of(a, "gt_box", "sam")["iou"].tolist() == [0.3, 0.1, 0.2]
    assert units.rows_of(a, "gt_box", "none").empty


def test_an_instance_twice_is_refused() -> None:
    with pytest.raises(UserError, match="an instance twice"):
        table([("sam", "k", "u", 0.2), ("hq_sum", "k", "u", 0.2), ("sam", "k", "u", 0.3)])


# --- scenes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    root = tmp_path_factory.mktemp("scenes")
    return load_run(root, Repo(root, images=10).build().params)


def scene_masks(name: str, i: int):  # type: ignore[no-untyped-def]
    from tests.pipelines.report_repo import digest

    rng = np.random.default_rng([0, i, int(digest(name)[:6], 16)])
    truth = wheel(rng)
    return truth, predictions(truth, np.random.default_rng([i, 7]))


@pytest.mark.parametrize(("name", "output"), [("dis_vd", "hq_token"), ("coco", "hq_sum")])
def test_scene_is_what_was_scored(run, name: str, output: str) -> None:  # type: ignore[no-untyped-def]
    reader = scenes.SceneReader(run)
    found = scenes.candidates(run, "nano", name)
    assert found is not None and len(found) >= 3
    for chosen in map(found.__getitem__, range(3)):
        truth, masks = scene_masks(name, int(chosen.key[-2:]))
        scene = reader.read(chosen)
        assert np.array_equal(scene.truth, truth)
        assert np.array_equal(scene.sam, masks["sam"]) and np.array_equal(scene.hq, masks[output])
        assert scene.image.shape == (*truth.shape, 3) and len(scene.prompt.boxes) == 1


def test_scene_of_a_track_is_the_evaluated_frame_that_differs_most(run) -> None:  # type: ignore[no-untyped-def]
    def iou(a: np.ndarray, b: np.ndarray) -> float:
        return float((a & b).sum() / (a | b).sum())

    reader = scenes.SceneReader(run)
    found = scenes.candidates(run, "nano", "davis")
    assert found is not None
    chosen = found[0]
    assert chosen.cluster == "clip-0" and chosen.quantity.title == "J&F"
    scene = reader.read(chosen)
    frames = [
        scene_masks("davis", i) for i in range(1, 4)
    ]  # of five: the first and the last are not evaluated
    sign = 1 if chosen.gain >= 0 else -1
    gains = [sign * (iou(m["hq_sum"], t) - iou(m["sam"], t)) for t, m in frames]
    assert np.array_equal(scene.truth, frames[int(np.argmax(gains))][0])


def test_unknown_unit_is_an_error(run) -> None:  # type: ignore[no-untyped-def]
    lost = Pick(
        "dis_vd", "nano", "gt_box", "dis_vd_00", "dis_vd_00", "nobody", 0.1, 0.2, Quantity("x", ())
    )
    with pytest.raises(UserError, match="nobody"):
        scenes.SceneReader(run).read(lost)


# --- drawing


def scene(height: int, width: int, box: tuple[int, int, int, int]) -> draw.Scene:
    truth = np.zeros((height, width), bool)
    truth[box[1] : box[3], box[0] : box[2]] = True
    return draw.Scene(np.full((height, width, 3), 120, np.uint8), truth, truth, truth)


@settings(deadline=None, max_examples=40)
@given(st.integers(8, 400), st.integers(8, 400), st.data())
def test_window_shows_the_whole_object(height: int, width: int, data: st.DataObject) -> None:
    x0, y0 = data.draw(st.integers(0, width - 2)), data.draw(st.integers(0, height - 2))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    window = draw.window_of(scene(height, width, (x0, y0, x1, y1)))
    assert window.x <= x0 and window.y <= y0
    assert window.x + window.side >= x1 - 1e-6 and window.y + window.side >= y1 - 1e-6


def test_errors_have_their_colours() -> None:
    truth = np.zeros((40, 40), bool)
    truth[10:30, 10:20] = True
    pred = np.zeros((40, 40), bool)
    pred[10:30, 15:25] = True
    picture = draw.Painter(draw.Scene(np.zeros((40, 40, 3), np.uint8), truth, truth, pred), 160)
    window, panel = picture.window, picture.errors(pred)

    def colour(x: float, y: float) -> np.ndarray:
        at = (np.array([y - window.y, x - window.x]) + 0.5) * 160 / window.side
        return panel[int(at[0]), int(at[1])].astype(float)

    for (x, y), wanted in {
        (12, 20): draw.MISSED,
        (22, 20): draw.ADDED,
        (17, 20): (235, 235, 235),
    }.items():
        assert np.abs(colour(x, y) - 0.92 * np.array(wanted)).max() < 6
    assert colour(28, 20).max() < 30


def test_thin_structures_survive_shrinking() -> None:
    image = np.zeros((2000, 2000, 3), np.uint8)
    truth = np.zeros((2000, 2000), bool)
    truth[::100, :] = True
    panel = draw.Painter(draw.Scene(image, truth, truth, truth), 200).errors(truth)
    lines = panel[:, 100].astype(int).sum(axis=1)
    assert (lines > 20).sum() >= 18  # twenty lines of one pixel each, shrunk tenfold


def test_empty_and_full_masks_are_drawn() -> None:
    for value in (False, True):
        mask = np.full((30, 50), value)
        picture = draw.overlay(draw.Scene(np.zeros((30, 50, 3), np.uint8), mask, ~mask, mask), 64)
        assert picture.shape == (2 * 64 + 4, 3 * 64 + 8, 3) and picture.dtype == np.uint8


def test_png_has_no_metadata_and_keeps_the_picture() -> None:
    import io

    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    data = draw.png_bytes(picture)
    opened = Image.open(io.BytesIO(data))
    assert np.array_equal(np.asarray(opened), picture) and not opened.info
    assert draw.png_bytes(picture, 64) == draw.png_bytes(picture, 64)


# --- charts


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_rising_and_inside(low: float, size: float) -> None:
    high = low + size
    if high <= low:
        return
    values = charts.ticks(low, high)
    assert 1 <= len(values) <= 13 and values == sorted(set(values))
    assert values[0] >= low - size * 1e-6 and values[-1] <= high + size * 1e-6


def test_charts_are_well_formed_and_escape_names() -> None:
    axes = charts.Axes("a < b", "y", (0, 1), (0, 1))
    line = charts.Series("x & <y>", "hq", [0.0, 0.5, float("nan")], [0.1, 0.2, 0.3])
    pages = [
        charts.line_chart([line], axes, "a < b"),
        charts.scatter_chart([charts.Series("x", "hq", [0.1], [0.2])], axes, "s"),
        charts.dumbbell_chart([charts.Pair("<i>", 10, 20)], "d"),
        charts.interval_chart([("n & m", -1.0, 0.5, 2.0, "flat")], "i", "points"),
    ]
    for page in pages:
        ElementTree.fromstring(f"<div>{page}</div>")
        assert "nan" not in page


@pytest.mark.parametrize(
    ("p", "mean", "why", "tone", "colour"),
    [
        (0.01, 2.0, "", "up", "[green]+2.0[/green]"),
        (0.2, 2.0, "", "flat", "+2.0"),
        (0.01, -2.0, "", "down", "[red]+2.0[/red]"),
        (math.nan, 2.0, "7 images", "flat", "+2.0"),
    ],
)
def test_a_colour_means_a_verdict(p: float, mean: float, why: str, tone: str, colour: str) -> None:
    low, high = (math.nan, math.nan) if why else (mean - 1, mean + 1)
    interval = stats.Difference(mean, low, high, p, 9, 9, 9, why)
    row = Row(
        "coco",
        "detector_box",
        "AP_B",
        "nano",
        "hq_sum",
        "sam",
        FRACTION,
        True,
        {"sam": 10.0, "hq_sum": 12.0},
        2.0,
        interval,
        None,
        None,
        None,
        None,
        "vit_l",
        9,
        9,
    )
    [row] = judged([row])
    assert f'class="delta {tone}"' in html.overview_chart([row])
    [line] = csv.DictReader(io.StringIO(report_tables.table_csv([row], listed(None))))
    table = summary.overview_table([line])
    assert [cell.plain for cell in table.columns[5].cells] == (
        ["too few"] if why else [f"[{mean - 1:+.1f}, {mean + 1:+.1f}]"]
    )
    assert [cell.markup for cell in table.columns[4].cells] == [colour]


def test_terminal_and_report_round_a_number_alike() -> None:
    """8.4529 is 8.5 everywhere, not 8.45 in a file and 8.4 from there."""
    row = Row(
        "uvo",
        "detector_box",
        "AP_B",
        "nano",
        "hq_sum",
        "sam",
        FRACTION,
        True,
        {"sam": 7.2901, "hq_sum": 8.4529},
        1.1628,
        None,
        None,
        None,
        None,
        None,
        "vit_l",
        6,
        6,
    )
    [line] = csv.DictReader(io.StringIO(report_tables.table_csv([row], listed(None))))
    table = summary.overview_table([line])
    assert [cell.markup for cell in table.columns[3].cells] == ["[bold]8.5[/bold]"]
    assert "| 7.3 | 8.5 | +1.2 |" in report_tables.summary_markdown([row])


def test_span_of_a_constant_has_room() -> None:
    assert charts.span([2.0, 2.0])[0] < 2.0 < charts.span([2.0])[1]
    assert charts.span([]) == (0.0, 1.0)


def test_values_are_listed_in_reading_order() -> None:
    wanted = [
        "AP",
        "AP50",
        "AP75",
        "APs",
        "APr",
        "AP_B",
        "AP_B50",
        "AP_Bl",
        "AP_B_strict",
        "AP_B_strict75",
        "AR1",
        "AR_B1",
    ]
    assert sorted(sorted(wanted), key=load_score("lvis").place) == wanted
    assert sorted(["other", "mBIoU", "mIoU"], key=load_score("masks").place) == [
        "mIoU",
        "mBIoU",
        "other",
    ]
    assert sorted(["F", "J", "J_decay", "J&F"], key=load_score("davis").place) == [
        "J&F",
        "J",
        "F",
        "J_decay",
    ]
