"""A metric is one file: a new one, in pixels and better when lower, is right everywhere without another edit.

`new_metric/boundary_distance.py` joins the folder `scores/` for the time of these tests; nothing
else is told of it.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from hqsam_base.errors import UserError
from hqsam_metrics import scores
from hqsam_metrics.base import load_score
from hqsam_pipelines.commands.score import app
from hqsam_pipelines.compare.answer import answer
from hqsam_pipelines.compare.as_json import to_json
from hqsam_pipelines.compare.comparison import compare
from hqsam_pipelines.compare.page import to_html
from hqsam_pipelines.compare.terminal import show
from hqsam_pipelines.config.params import Params
from hqsam_pipelines.config.yaml_file import read_yaml
from hqsam_pipelines.report import summary
from hqsam_pipelines.report.run import build_report
from tests import REPOSITORY
from tests.pipelines.report_repo import params
from tests.pipelines.test_compare import commit, make_repository, write_run

NEW = Path(__file__).parent / "new_metric" / "boundary_distance.py"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """Two commits of a run whose second benchmark has the new metric: HQ masks with 12 % errors, then with 2 %."""
    folder = tmp_path_factory.mktemp("scores")
    shutil.copy(NEW, folder)
    scores.__path__.append(str(folder))

    def edit(content: dict[str, Any]) -> None:
        content["benchmarks"] = params(("dis_vd", "wheels"))["benchmarks"]
        content["benchmarks"]["wheels"]["score"] = {
            "metric": NEW.stem,
            "version": 3,
            "at_most": 20.0,
        }

    root = tmp_path_factory.mktemp("compare") / "repo"
    try:
        make_repository(root)
        found = []
        for strength in (0.12, 0.02):
            write_run(root, strength=strength, edit=edit)
            found.append(commit(root, f"errors {strength}"))
        yield root, found[0], found[1]
    finally:
        scores.__path__.remove(str(folder))


def values(root: Path) -> dict[str, float]:
    results = json.loads((root / "reports/metrics/wheels-nano.json").read_bytes())["results"]
    return {row["system"]: row["metrics"]["MBD"] for row in results}


@pytest.fixture(scope="module")
def reports(repository: tuple[Path, str, str]) -> Path:
    root = repository[0]
    build_report(root=root, params=read_yaml(root / "params.yaml"), out=root / "reports")
    return root / "reports"


def test_the_report_shows_pixels_and_that_less_is_better(
    repository: tuple[Path, str, str], reports: Path
) -> None:
    mine = values(repository[0])
    assert 0 < mine["hq_token"] < mine["sam"] < 20
    with (reports / "tables" / "overview.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] == "wheels"]
    (row,) = rows  # the headline is MBD alone
    assert (row["metric"], row["unit"], row["better"]) == ("MBD", "px", "lower")
    assert float(row["sam"]) == pytest.approx(mine["sam"], abs=1e-4)
    delta = mine["hq_token"] - mine["sam"]
    assert float(row["delta"]) == pytest.approx(delta, abs=1e-4) and delta < 0
    assert float(row["ci_low"]) < delta < float(row["ci_high"]) < 0 and row["clusters"] == "8"
    (text,) = [
        line
        for line in (reports / "tables" / "overview.md").read_text().splitlines()
        if "wheels" in line
    ]
    assert f"| MBD [px] ↓ | {mine['sam']:.1f} | {mine['hq_token']:.1f} | −{-delta:.1f} |" in text
    further = (reports / "tables" / "further.csv").read_text()
    assert "share_near" in further
    assert json.loads((reports / "metrics.json").read_bytes())["wheels"]["gt_box"]["sam"][
        "MBD"
    ] == round(mine["sam"], 6)


def test_the_page_and_the_terminal_call_less_an_improvement(reports: Path) -> None:
    page = (reports / "report.html").read_text(encoding="utf-8")
    charts = [part.partition("</svg>")[0] for part in page.split('<svg class="chart"')[1:]]
    (dumbbell,) = [chart for chart in charts if "wheels . MBD [px] ↓" in chart]
    assert (
        'class="way up"' in dumbbell and 'class="delta up"' in dumbbell and "down" not in dumbbell
    )
    assert "DIS-VD" not in dumbbell  # fractions have a chart of their own
    (cloud,) = [chart for chart in charts if "HQ-SAM, boundary distance [px] ↓" in chart]
    assert cloud.count('class="cloud') == 8
    assert "below the diagonal HQ-SAM is better (8 of 8 instances)" in page
    assert "boundary distance [px] ↓" in page.partition('id="improved"')[2]
    console = Console(width=200, record=True, force_terminal=True)
    summary.show(reports.parent, console)
    (line,) = [text for text in console.export_text(styles=True).splitlines() if "MBD" in text]
    assert "MBD [px] ↓" in line and "\x1b[32m-" in line  # green


def test_a_fall_is_better_and_a_rise_is_worse(repository: tuple[Path, str, str]) -> None:
    root, first, second = repository
    for a, b, verdict, tone in ((first, second, "better", "up"), (second, first, "worse", "down")):
        found = compare(root, a, b)
        (change,) = [
            c
            for c in found.changes
            if (c.benchmark, c.system, c.metric) == ("wheels", "hq_token", "MBD")
        ]
        assert change.verdict == verdict and change.difference == pytest.approx(
            change.interval.mean
        )
        assert (change.difference < 0) == (verdict == "better")
        (row,) = [
            r for r in to_json(found)["rows"] if (r["system"], r["metric"]) == ("hq_token", "MBD")
        ]
        assert (row["unit"], row["better"], row["b"] < row["a"]) == (
            "px",
            "lower",
            verdict == "better",
        )
        assert [i.gain > 0 for i in found.instances if i.benchmark == "wheels"].count(
            verdict == "better"
        ) >= 6
        page = to_html(found)
        (chart,) = [
            c
            for c in page.split('<svg class="chart"')[1:]
            if "MBD [px] ↓" in c.partition("</svg>")[0]
        ]
        assert f'class="dot {tone}"' in chart and "B minus A, px" in chart
        console = Console(width=160, record=True)
        show(found, console)
        assert "MBD [px] ↓" in console.export_text()
        assert any("MBD" in str(c) and c.verdict == "worse" for c in answer(found).rows) == (
            verdict == "worse"
        )


def test_it_has_a_command(repository: tuple[Path, str, str], tmp_path: Path) -> None:
    for name, left in (("pred", 12), ("gt", 10)):
        (tmp_path / name).mkdir()
        mask = np.zeros((40, 60), np.uint8)
        mask[5:35, left : left + 30] = 255
        cv2.imwrite(str(tmp_path / name / "a.png"), mask)
    files = ["--pred", str(tmp_path / "pred"), "--gt", str(tmp_path / "gt")]
    listed = CliRunner().invoke(app, ["--help"]).output
    assert NEW.stem in listed and "in pixels" in listed
    assert "--at-most" in CliRunner().invoke(app, [NEW.stem, "--help"]).output
    done = CliRunner().invoke(app, [NEW.stem, *files, "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0 and "scored 1 of 1" in done.output
    content = json.loads((tmp_path / "out.json").read_bytes())
    # Of 2 x 116 boundary pixels the two sides (30 each) lie 2 px away, the corners nearer: a little
    # above 1 in the mean.
    assert 0.9 < content["metrics"]["MBD"] < 1.3 and content["protocol"]["at_most"] == 50.0
    capped = CliRunner().invoke(app, [NEW.stem, *files, "--at-most", "0.5"])
    assert float(capped.output.split()[1]) < 0.5


def test_params_check_its_own_keys(repository: tuple[Path, str, str]) -> None:
    raw: Any = read_yaml(REPOSITORY / "configs" / "sample.yaml")

    def options(**score: object) -> Any:
        raw["benchmarks"]["dis_vd"]["score"] = {"metric": NEW.stem, "version": 3, **score}
        made = Params.of(raw, Path("params.yaml"))
        made.index("dis_vd")
        return made.score("dis_vd")

    assert load_score(NEW.stem).column_scale("distance").unit == "px"
    assert options(at_most=7.0) == load_score(NEW.stem).options(
        metric=NEW.stem, version=3, at_most=7.0
    )
    for wrong, words in (
        ({"at_most": -1.0}, "above 0"),
        ({"dilation_ratio": 0.02}, "unknown key 'dilation_ratio'"),
    ):
        with pytest.raises(UserError, match=words):
            options(**wrong)
