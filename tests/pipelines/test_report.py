"""The report on a miniature run: files, numbers, page, bad input."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from hqsam.model import checkpoint
from hqsam.model.build import build_model
from hqsam.model.options import ModelOptions
from hqsam_base.errors import UserError
from hqsam_pipelines.report import curves, paper, tables
from hqsam_pipelines.report import results as report_data
from hqsam_pipelines.report.options import ReportOptions
from hqsam_pipelines.report.run import build_report, print_summary
from hqsam_pipelines.report.units import units_frame
from tests import REPOSITORY
from tests.pipelines.report_repo import HQ4, Repo, params


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    repo = Repo(root).build()
    build_report(root=root, params=repo.params, out=root / "reports")
    return root


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    root = tmp_path / "copy"
    shutil.copytree(built, root)
    return root


FEW = ("coift", "coco")


@pytest.fixture(scope="module")
def built_few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two benchmarks: a report of it takes a third of the time."""
    root = tmp_path_factory.mktemp("few")
    repo = Repo(root)
    repo.params = params(FEW)
    repo.build()
    return root


@pytest.fixture
def few(built_few: Path, tmp_path: Path) -> Path:
    root = tmp_path / "few"
    shutil.copytree(built_few, root)
    return root


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_writes_every_output_and_leaves_the_metrics_alone(built: Path) -> None:
    reports = built / "reports"
    assert {p.name for p in (reports / "tables").iterdir()} >= {
        "overview.csv",
        "table02_hq_sets.csv",
        "table10_cost.csv",
        "further.csv",
    }
    assert {p.name for p in (reports / "plots").iterdir()} == {
        "training_curve.csv",
        "recall_biou.csv",
        "precision_recall.csv",
        "calibration.csv",
    }
    assert (reports / "figures/hero.png").is_file()
    kinds = {p.name.split("_")[0] for p in (reports / "figures").glob("*_??_*.png")}
    assert kinds >= {"improved", "best", "worst", "typical"}
    assert len(list((reports / "metrics").iterdir())) == 6
    assert not [p for p in reports.iterdir() if p.name.startswith(".")]


def test_the_figures_of_the_paper_are_there_or_said_to_be_missing(built: Path, copy: Path) -> None:
    """The miniature repository has no boxes with noise, no NDD20, no YouTube-VIS, and a model's weights only here."""
    weights = REPOSITORY / "hqsam" / "model" / "backbones" / "nano.safetensors"
    shutil.copy(weights, copy / "nano.safetensors")
    net = build_model(ModelOptions(backbone="nano", checkpoint=weights), seed=0)
    checkpoint.save_head(copy / "models/nano/hq_head.safetensors", net.head, metadata={})
    build_report(root=copy, params=params(), out=copy / "reports")
    found = {p.name.partition("_")[0] for p in (copy / "reports/figures").glob("figure*.png")}
    assert found == {f"figure{n:02d}{'' if n != 6 else '.png'}" for n in (6, 7, 9, 10, 12, 13)}
    before, page = ((root / "reports/report.html").read_text() for root in (built, copy))
    assert "16 × 16 positions" not in before and "16 × 16 positions" in page
    section = page[page.index('<section id="figures">') :]
    assert section.count("<h3>Figure ") == 8
    assert "NDD20 <code>hqsam profile paper_all" in section
    assert not (built / "reports/figures/figure06.png").exists()


def test_every_number_beside_the_papers_says_how_far_the_two_are_comparable(built: Path) -> None:
    tables = {path.name: read_csv(path) for path in (built / "reports/tables").glob("*.csv")}
    beside = [row for rows in tables.values() for row in rows if "paper_delta" in row]
    has_papers = [bool(row["paper_sam"] or row["paper_hq_sam"]) for row in beside]
    assert any(has_papers)
    assert [bool(row["comparable"]) for row in beside] == has_papers
    words = "other data (sample); other model (nano)"
    assert {row["comparable"][: len(words)] for row in beside if row["comparable"]} == {words}
    assert all(row["comparable"] for row in (*tables["paper.csv"], *tables["table10_cost.csv"]))
    page = (built / "reports/report.html").read_text()
    in_layout = [name for name in tables if name.startswith("table") and "cost" not in name]
    assert page.count(f"Ours and the paper's: {words}") == len(in_layout) > 2


def test_all_numbers_are_one_a_line(built: Path) -> None:
    tree = json.loads((built / "reports/metrics.json").read_text())
    rows = read_csv(built / "reports/tables/all_numbers.csv")
    assert {row["system"] for row in rows} == {"sam", "hq_token", "hq_sum"}
    assert {row["benchmark"] for row in rows} == {*HQ4, "coco", "davis"}
    for row in rows:
        value = tree[row["benchmark"]][row["prompt_set"]][row["system"]][row["metric"]]
        assert float(row["value"]) == pytest.approx(100 * value, abs=0.0051)


def test_the_same_inputs_give_the_same_bytes_anywhere(built: Path, copy: Path) -> None:
    shutil.rmtree(copy / "reports/figures")
    (copy / "reports/tables/stale.csv").write_text("old")
    build_report(root=copy, params=params(), out=copy / "reports")
    assert digests(copy / "reports") == digests(built / "reports")
    page = (copy / "reports/report.html").read_text()
    assert str(copy) not in page and str(built) not in page


def test_metrics_json_is_a_tree_of_the_metrics_files(built: Path) -> None:
    tree = json.loads((built / "reports/metrics.json").read_text())
    for path in (built / "reports/metrics").iterdir():
        content = json.loads(path.read_text())
        for result in content["results"]:
            values = tree[content["benchmark"]][result["prompt_set"]][result["system"]]
            known = {
                k: v
                for k, v in result["metrics"].items()
                if v is not None and not k.startswith(("AR", "J_", "F_", "AP_Bs", "AP_Bm", "AP_Bl"))
            }
            assert values == pytest.approx(
                {**known, **{k: result[k] for k in ("n_scored", "n_expected")}}, abs=1e-6
            )
    mean = tree["HQ4-mean"]["gt_box"]["hq_token"]["mBIoU"]
    assert mean == pytest.approx(
        np.mean([tree[n]["gt_box"]["hq_token"]["mBIoU"] for n in HQ4]), abs=1e-6
    )


def test_kinds_of_error_classes_and_sizes_are_those_of_the_scores(built: Path) -> None:
    found = json.loads((built / "data/scores/coco-nano/diagnosis.json").read_text())["results"]
    sides = {r["system"]: r for r in found if r["system"] in ("sam", "hq_sum")}
    rows = read_csv(built / "reports/tables/errors.csv")
    assert len(rows) == 2 * 6 and {r["benchmark"] for r in rows} == {"coco"}
    for row in rows:
        for name, system in (("sam", "sam"), ("hq_sam", "hq_sum")):
            split = sides[system]["errors"][row["iou"]]
            assert int(row[name]) == split["count"][row["kind"]]
            assert float(row[f"{name}_cost"]) == pytest.approx(
                100 * split["cost"][row["kind"]], abs=1e-4
            )
    assert any(int(row["sam"]) != int(row["hq_sam"]) for row in rows)
    (wheel,) = read_csv(built / "reports/tables/classes.csv")
    assert (wheel["class"], wheel["objects"]) == ("wheel", "10")
    coco = {r["metric"]: r for r in read_csv(built / "reports/tables/table04_coco.csv")}
    assert float(wheel["hq_sam_AP_B"]) == pytest.approx(float(coco["AP_B"]["hq_sam"]), abs=1e-3)
    # Every object has a size; their weighted mean is that of all of them.
    rows = [r for r in read_csv(built / "reports/tables/sizes.csv") if r["benchmark"] == "coift"]
    counts = [int(r["objects"]) for r in rows]
    assert sum(counts) == 10
    overview = read_csv(built / "reports/tables/overview.csv")
    (mean,) = [r for r in overview if (r["benchmark"], r["metric"]) == ("coift", "mBIoU")]
    for name in ("sam", "hq_sam"):
        weighted = np.average([float(r[name]) for r in rows], weights=counts)
        assert weighted == pytest.approx(float(mean[name]), abs=1e-3)
    page = (built / "reports/report.html").read_text()
    assert "COCO, detector box: errors by boundary IoU" in page


def test_scores_without_a_diagnosis_have_a_report_all_the_same(few: Path) -> None:
    for path in few.glob("data/scores/*/diagnosis.json"):
        path.unlink()
    build_report(root=few, params=params(FEW), out=few / "reports")
    assert read_csv(few / "reports/tables/errors.csv") == []


def test_quality_by_number_of_points_and_clicks_is_drawn_in_their_order(built: Path) -> None:
    results = report_data.load_metrics(built / "reports/metrics")
    old = [r for r in results if r.benchmark == "coift"]
    values = {"points_10+5": 7, "points_1": 1, "points_10": 5, "points_3": 3}

    def scored(name: str, metrics: dict[str, float]) -> list[report_data.Result]:
        # HQ-SAM is better by 10 points everywhere.
        return [
            dataclasses.replace(
                r,
                prompt_set=name,
                metrics={m: v + 0.1 * (r.system == "hq_token") for m, v in metrics.items()},
            )
            for r in old
        ]

    new = [r for name, v in values.items() for r in scored(name, {"mIoU": v / 10})]
    new += scored("clicks", {"mIoU@1": 0.3, "mIoU@3": 0.5, "NoC@90": 12.0})
    run = report_data.Run(built, params(), [*results, *new])
    points, clicks = curves.steps(run, "nano")
    assert points.names == ("1", "3", "10", "10+5")
    assert points.sam == pytest.approx((10, 30, 50, 70))
    assert points.hq == pytest.approx((20, 40, 60, 80))
    assert (clicks.prompts, clicks.names) == ("clicks", ("1", "3"))
    title, svg, _ = curves.steps_chart(points)
    assert title == "COIFT: mIoU by number of points"
    ticks = [e.text for e in ElementTree.fromstring(svg.partition("<ul")[0]).iter("text")]
    assert [t for t in ticks if t in points.names] == list(points.names)
    assert curves.steps_csv([clicks]).splitlines()[2] == "coift,clicks,mIoU,3,50.0000,60.0000"
    # Without such prompt sets there is no such chart; Figure 4 is there for every set.
    assert curves.steps(report_data.Run(built, params(), results), "nano") == []
    page = (built / "reports/report.html").read_text()
    assert "by number of points" not in page
    assert all(f"{paper.title(name)}: images above a threshold" in page for name in HQ4)


def test_a_second_model_moves_no_key(built: Path) -> None:
    results = report_data.load_metrics(built / "reports/metrics")
    twin = [r.__class__(**{**vars(r), "model": "vit_l"}) for r in results]
    one = tables.metrics_tree(report_data.Run(built, params(), results))
    both = {**params(), "models": {"nano": {}, "vit_l": {}}}
    two = tables.metrics_tree(report_data.Run(built, both, [*twin, *results]))
    assert two["coift"]["gt_box"]["vit_l:sam"] == one["coift"]["gt_box"]["sam"]
    for benchmark, sets in one.items():
        for prompt_set, systems in sets.items():
            assert systems.items() <= two[benchmark][prompt_set].items()


def test_table_sets_ours_beside_the_papers(built: Path) -> None:
    rows = {
        (r["benchmark"], r["metric"]): r
        for r in read_csv(built / "reports/tables/table02_hq_sets.csv")
    }
    row = rows["dis_vd", "mIoU"]
    assert (row["paper_sam"], row["paper_hq_sam"], row["paper_delta"]) == ("62.0", "78.6", "16.6")
    assert (
        row["paper_backbone"] == "vit_l"
        and row["hq_output"] == "hq_token"
        and row["hq_sam"] == row["hq_token"]
    )
    for row in rows.values():
        assert float(row["delta"]) == pytest.approx(
            float(row["hq_sam"]) - float(row["sam"]), abs=0.011
        )
        assert float(row["ci_low"]) <= float(row["delta"]) <= float(row["ci_high"])
    assert (
        rows["HQ4-mean", "mIoU"]["n_scored"] == "40"
        and rows["HQ4-mean", "mIoU"]["clusters"] == "40"
    )
    coco = {r["metric"]: r for r in read_csv(built / "reports/tables/table04_coco.csv")}
    assert coco["AP"]["instance_quantity"] == "instance IoU"
    assert float(coco["AP"]["ci_low"]) <= float(coco["AP"]["delta"]) <= float(coco["AP"]["ci_high"])
    assert coco["APs"]["ci_low"] == ""
    assert (
        coco["AP_B"]["instance_quantity"] == "instance boundary IoU"
        and coco["AP_B"]["instance_ci_low"] != ""
    )


def test_delta_of_a_mean_is_the_mean_of_the_instances(built: Path) -> None:
    frame = units_frame(built / "data/scores/hrsod-nano/instances.parquet", "x")
    means = frame.groupby("system")["biou"].mean() * 100
    row = next(
        r
        for r in read_csv(built / "reports/tables/overview.csv")
        if (r["benchmark"], r["metric"]) == ("hrsod", "mBIoU")
    )
    assert float(row["delta"]) == pytest.approx(means["hq_token"] - means["sam"], abs=0.006)


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (("SAM", "lvis", "detector_box", "AP_B_strict", "vit_l"), 32.1),
        (("HQ-SAM", "hq_ytvis", "tracker_box", "AP", "vit_l"), 63.6),
        (("HQ-SAM", "big", "coarse_mask", "mBIoU", "vit_l"), 75.1),
        (("SAM", "big", "gt_box", "mIoU", "vit_l"), 81.1),
        (("SAM", "coco", "detector_box", "APs", "vit_b"), 32.1),
        (("HQ-SAM", paper.HQ4_MEAN, "gt_box", "mIoU", "vit_tiny"), 81.4),
        (("SAM", "davis", "tracker_box", "J&F", "vit_l"), 82.0),
        (("SAM", "dis_vd", "gt_box", "mIoU", "vit_h"), None),
        (("SAM", "dis_vd", "three_points", "mIoU", "vit_l"), None),
        (("SAM", "my_set", "gt_box", "mIoU", "vit_l"), None),
    ],
)
def test_papers_values_are_found_by_our_names(who: Any, expected: float | None) -> None:
    assert paper.value(*who) == expected


def test_every_cell_of_the_layout_is_in_the_paper() -> None:
    sets = {"hq_ytvis": "tracker_box", "ytvis19": "tracker_box", "davis": "tracker_box"}
    for spec in paper.TABLES:
        for block in spec.blocks:
            prompt = block.prompt_set or sets.get(block.benchmark, "detector_box")
            for metric in block.metrics:
                for system in ("SAM", "HQ-SAM"):
                    assert paper.value(system, block.benchmark, prompt, metric) is not None, (
                        spec.name,
                        metric,
                    )


class Page(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "link", "circle", "line", "polyline", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset", "data") and v]
        self.ids += [v for k, v in attrs if k == "id" and v]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open and self.open.pop() == tag, (
                f"</{tag}> does not close <{self.open[-1:]}>"
            )


def test_page_opens_without_network(built: Path) -> None:
    text = (built / "reports/report.html").read_text()
    page = Page(text)
    assert page.open == [] and len(page.ids) == len(set(page.ids))
    for link in page.links:
        near = link in ("provenance.json", "tables/instances.csv") or link.startswith("metrics/")
        assert near or link.startswith(("data:image/webp;base64,", "#")), link[:60]
        assert not near or link == "provenance.json" or (built / "reports" / link).is_file()
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    images = [link for link in page.links if link.startswith("data:")]
    assert len(images) > 8
    for link in images:
        Image.open(io.BytesIO(base64.b64decode(link.split(",")[1]))).load()
    assert "@import" not in text and "url(" not in text


def test_page_says_what_it_proves(built: Path, copy: Path) -> None:
    text = (built / "reports/report.html").read_text()
    assert "its numbers prove nothing about SAM" in text and "They are not these sets" in text
    real = params()
    real["models"] = {"nano": {"backbone": "vit_b"}}
    real["archives"] = {
        "dis5k": {"files": [{"name": "DIS5K.zip", "urls": ["https://example.org/DIS5K.zip"]}]}
    }
    build_report(root=copy, params=real, out=copy / "reports")
    text = (copy / "reports/report.html").read_text()
    assert "prove nothing" not in text and "They are not these sets" not in text
    assert read_csv(copy / "reports/tables/overview.csv")[0]["paper_sam"] == "70.6"


def test_page_warns_of_what_was_not_scored_and_of_kept_overlap(few: Path) -> None:
    path = few / "reports/metrics/coift-nano.json"
    content = json.loads(path.read_text())
    for result in content["results"]:
        result["n_scored"] = 5
        result["warnings"] = ["one <mask> is odd"]
    path.write_text(json.dumps(content))
    build_report(
        root=few, params={**params(FEW), "overlap": {"unresolved": "keep"}}, out=few / "reports"
    )
    text = (few / "reports/report.html").read_text()
    assert "Not every expected unit was scored: coift/gt_box" in text
    assert "found and kept" in text and "one &lt;mask&gt; is odd" in text


def test_a_benchmark_that_the_paper_lacks_needs_no_code(tmp_path: Path) -> None:
    repo = Repo(tmp_path)
    repo.params = params(("ndd20",))
    repo.build()
    done = build_report(root=tmp_path, params=repo.params, out=tmp_path / "reports")
    assert done["n_benchmarks"] == 1
    rows = read_csv(tmp_path / "reports/tables/further.csv")
    assert {(r["benchmark"], r["metric"], r["paper_sam"]) for r in rows} == {
        ("ndd20", "mIoU", ""),
        ("ndd20", "mBIoU", ""),
    }
    assert "ndd20" in (tmp_path / "reports/report.html").read_text()


def test_a_run_of_scores_alone_still_has_a_report(few: Path) -> None:
    for name in ("overlap", "validation", "samples", "shards", "archives"):
        shutil.rmtree(few / "data" / name)
    shutil.rmtree(few / "models")
    build_report(root=few, params=params(FEW), out=few / "reports")
    assert "Training sources" not in (few / "reports/report.html").read_text()
    assert (few / "reports/plots/training_curve.csv").read_text() == "model\n"


def test_recall_curve_counts_images_above_the_threshold(built: Path) -> None:
    rows = read_csv(built / "reports/plots/recall_biou.csv")
    assert [r["biou_threshold"] for r in rows] == [f"{t:.2f}" for t in tables.THRESHOLDS]
    frame = units_frame(built / "data/scores/coift-nano/instances.parquet", "x")
    sam = frame[frame["system"] == "sam"]["biou"]
    for row in rows:
        assert float(row["coift_sam"]) == pytest.approx(
            100 * (sam >= float(row["biou_threshold"])).mean(), abs=0.01
        )
        assert float(row["sam"]) == pytest.approx(
            np.mean([float(row[f"{n}_sam"]) for n in HQ4]), abs=0.01
        )
    assert [float(r["hq_sam"]) for r in rows] == sorted(
        (float(r["hq_sam"]) for r in rows), reverse=True
    )


def test_training_curve_holds_every_model(copy: Path) -> None:
    (copy / "models/vit_b").mkdir()
    (copy / "models/vit_b/curves.csv").write_text("step,loss,val_mIoU\n0,1.5,\n1,1.2,0.5\n")
    columns, rows = tables.curve_table(copy, ["nano", "vit_b"])
    assert columns == ["model", "step", "epoch", "loss", "bce", "dice", "lr", "val_mIoU"]
    assert rows[-1] == ["vit_b", "1", "", "1.2", "", "", "", "0.5"] and len(rows) == 10


def test_a_second_model_is_on_the_page(few: Path) -> None:
    """The page is about the first model; the numbers of another one were nowhere on it."""
    build_report(root=few, params=params(FEW), out=few / "reports")
    before = digests(few / "reports/tables")
    for name in ("all_numbers.csv", "models.csv"):  # of every model
        before.pop(name, None)
    for folder in ("data/scores", "data/predictions"):
        for path in sorted((few / folder).iterdir()):
            shutil.copytree(path, path.with_name(path.name.replace("-nano", "-mine")))
    for path in sorted((few / "reports/metrics").iterdir()):
        content = json.loads(path.read_text()) | {"model": "mine"}
        path.with_name(path.name.replace("-nano", "-mine")).write_text(json.dumps(content))
    shutil.copytree(few / "models/nano", few / "models/mine")
    both = params(FEW) | {"models": {"nano": {"backbone": "nano"}, "mine": {"backbone": "nano"}}}
    build_report(root=few, params=both, out=few / "reports")
    assert before.items() <= digests(few / "reports/tables").items()
    own, first = (read_csv(few / f"reports/tables/{name}.csv") for name in ("models", "overview"))
    assert {row["model"] for row in own} == {"mine"} and {row["model"] for row in first} == {"nano"}
    assert [row["delta"] for row in own] == [row["delta"] for row in first]
    page = (few / "reports/report.html").read_text()
    assert (
        "Other models of this run" in page
        and "It is the first model of params.yaml; mine: see" in page
    )
    loss = page[page.index("<h3>Training loss</h3>") :].split("</ul>")[0]
    assert (
        '<i class="key hq"></i>nano: loss' in loss and '<i class="key truth"></i>mine: loss' in loss
    )
    assert "bce" not in loss


def test_summary_prints_the_table_and_the_place(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    print_summary(built)
    text = capsys.readouterr().out
    assert "Mean of the four" in text and "DAVIS 2017" in text and "report.html" in text
    assert "+16.6" in text
    with pytest.raises(UserError, match="no report yet"):
        print_summary(tmp_path)


def _no_metrics(root: Path) -> None:
    shutil.rmtree(root / "reports/metrics")


def _broken_json(root: Path) -> None:
    (root / "reports/metrics/hrsod-nano.json").write_text('{"results": [')


def _other_json(root: Path) -> None:
    (root / "reports/metrics/hrsod-nano.json").write_text('{"results": [{"prompt_set": "gt_box"}]}')


def _no_table(root: Path) -> None:
    (root / "data/scores/hrsod-nano/instances.parquet").unlink()


def _cut_table(root: Path) -> None:
    path = root / "data/scores/hrsod-nano/instances.parquet"
    path.write_bytes(path.read_bytes()[:-40])


def _no_predictions(root: Path) -> None:
    (root / "data/benchmarks/hrsod/instances.parquet").unlink()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (_no_metrics, "no metrics to report"),
        (_broken_json, "hrsod-nano.json"),
        (_other_json, "not a metrics file"),
        (_no_table, "hrsod-nano/instances.parquet"),
        (_cut_table, "cannot be read"),
        (_no_predictions, "hrsod/instances.parquet"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_the_old_page(
    copy: Path, spoil: Callable[[Path], None], text: str
) -> None:
    before = (copy / "reports/report.html").read_bytes()
    spoil(copy)
    with pytest.raises(UserError, match=text):
        build_report(root=copy, params=params(), out=copy / "reports")
    assert (copy / "reports/report.html").read_bytes() == before
    assert not [p for p in (copy / "reports").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("section", [{"best": -1}, {"best": "4"}, {"bests": 4}, {"panel": 10}])
def test_options_are_checked(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReportOptions(**section)


def test_progress_is_reported(few: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    build_report(
        root=few, params=params(FEW), out=few / "reports", progress=lambda *what: seen.append(what)
    )
    assert seen[0][0] == 0 and seen[-1][:2] == (5, 5)


@pytest.mark.parametrize("lost", ["reports/metrics/coco-nano.json", "data/predictions/coco-nano"])
def test_a_benchmark_without_results_is_named_everywhere(
    few: Path, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its stage failed; metrics whose predictions have gone are an earlier run's."""
    path = few / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    build_report(root=few, params=params(FEW), out=few / "reports")
    tables = few / "reports" / "tables"
    assert read_csv(tables / "absent.csv") == [
        {"benchmark": "coco", "model": "nano", "reason": "no result: a stage failed or was not run"}
    ]
    assert "coco" not in {row["benchmark"] for row in read_csv(tables / "overview.csv")}
    assert "| COCO (nano) | | no result" in (tables / "overview.md").read_text()
    page = (few / "reports" / "report.html").read_text()
    assert "This report is partial." in page and "COCO (nano)" in page
    print_summary(few)
    assert "COCO (nano): no result" in capsys.readouterr().out


def test_a_whole_report_says_nothing_of_missing_results(built: Path) -> None:
    assert not (built / "reports" / "tables" / "absent.csv").exists()
    assert "This report is partial" not in (built / "reports" / "report.html").read_text()
