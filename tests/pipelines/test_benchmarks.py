"""The benchmark runner: how benchmarks are found and chosen, and what becomes of their tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from perf import record
from perf.__main__ import guard, run, scripts, selected
from perf.table import Row, render

KNOWN = ["data/hash", "metrics/jf", "metrics/lvis", "model/encoder"]


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ([], KNOWN),
        (["metrics"], ["metrics/jf", "metrics/lvis"]),
        (["metrics", "jf"], ["metrics/jf"]),
        (["encoder", "data/hash"], ["data/hash", "model/encoder"]),
        (["metrics", "data"], ["data/hash", "metrics/jf", "metrics/lvis"]),
    ],
)
def test_selection(words: list[str], want: list[str]) -> None:
    assert selected(words, KNOWN) == want


@pytest.mark.parametrize("words", [["nothing"], ["metrics", "encoder"]])
def test_an_unknown_name_is_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match="no benchmark"):
        selected(words, KNOWN)


def test_every_script_is_found_and_every_helper_is_not() -> None:
    found = scripts()
    assert {
        "metrics/boundary_ap",
        "metrics/growth",
        "metrics/import",
        "metrics/jf",
        "metrics/lvis",
    } <= found.keys()
    assert not {"metrics/programs", "metrics/workloads"} & found.keys()
    for name, path in found.items():
        text = path.read_text(encoding="utf-8")
        assert '"--json"' in text and text.startswith('"""'), name


HEAD = """
import argparse, pathlib, sys
from perf.table import Row, finish
parser = argparse.ArgumentParser()
parser.add_argument("--json", type=pathlib.Path)
parser.add_argument("--full", action="store_true")
options = parser.parse_args()
"""


def outcome(tmp_path: Path, body: str, size: str | None = None) -> list[Row]:
    script = tmp_path / "bench_x.py"
    script.write_text(HEAD + body)
    return run(script, tmp_path / "x.json", size=size)[0]


def test_rows_come_back_and_a_missed_promise_is_seen(tmp_path: Path) -> None:
    body = (
        "sys.exit(finish([Row.at_least('a', 9.5, 8), Row.at_least('b', 12, 20 if options.full "
        "else 0)], options.json))"
    )
    small = outcome(tmp_path, body)
    assert small == [
        Row("a", "9.50 x", ">= 8 x", met=True, ratio=9.5),
        Row("b", "12.0 x", ratio=12.0),
    ]
    missed = Row("b", "12.0 x", ">= 20 x", met=False, ratio=12.0)
    assert outcome(tmp_path, body, "--full")[1] == missed
    assert [row.met for row in outcome(tmp_path, body, "--quick")] == [True, None]


def test_scripts_with_a_format_of_their_own_count_by_exit_status(tmp_path: Path) -> None:
    assert [row.met for row in outcome(tmp_path, "options.json.write_text('[1]')")] == [True]
    assert [row.met for row in outcome(tmp_path, "sys.exit(3)")] == [False]
    # What is left of an earlier run is not taken for this one's.
    (tmp_path / "x.json").write_text('{"rows": []}')
    rows = outcome(tmp_path, "finish([Row('a', '1 s')], options.json); raise SystemExit(1)")
    assert [row.met for row in rows] == [None, False]


def test_the_table_is_markdown() -> None:
    text = render([Row.at_most("time", 0.25, 0.3, "s"), Row.at_most("memory", 2.0, 1.0, "GB")])
    assert [line.count("|") for line in text.splitlines()] == [5, 5, 5, 5]
    assert "met" in text and "MISSED" in text


def test_the_page_is_what_the_record_says_and_names_every_missed_target() -> None:
    kept = record.load()
    assert record.PAGE.read_text(encoding="utf-8") == record.page(kept), (
        "run `python -m perf --write-docs`"
    )
    # `pipelines/sample` is the run of the sample itself; its seconds are in reports/provenance.json.
    assert kept["benchmarks"].keys() <= scripts().keys() | {"pipelines/sample"}
    record.keep(kept, "metrics/jf", [Row.at_least("a slow thing", 1.5, 2, peer="x: 3 s")])
    changed = record.page(kept)
    assert "- a slow thing: 1.50 x (>= 2 x), `metrics/jf`" in changed.split("## Metrics")[0]
    assert "| x: 3 s " in changed and "MISSED" in changed


@pytest.mark.parametrize(("kept", "status"), [(2.4, 0), (2.6, 1), (None, 1)])
def test_the_guard_fails_below_0_8_of_a_kept_ratio(
    kept: float | None, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "measured.json"
    monkeypatch.setattr(record, "DATA", data)
    ratios = {} if kept is None else {"metrics/toy: a": kept}
    data.write_text(json.dumps({"benchmarks": {}, "guard": ratios | {"metrics/other: b": 9.0}}))
    script = tmp_path / "bench_toy.py"
    small = HEAD.replace('"--full"', '"--quick"') + (
        "sys.exit(finish([Row.at_least('a', 2.0 if options.quick else 0.1, 5), Row('c', '1 s')], "
        "options.json))"
    )
    script.write_text(small)
    assert guard({"metrics/toy": script}, tmp_path, ["metrics/toy"], write=False) == status


def test_the_guard_misses_a_ratio_that_was_not_measured() -> None:
    assert [row.met for row in record.guarded({"a": 2.0, "b": 2.0}, {"a": 1.7})] == [True, False]


@pytest.mark.full("minutes; the ratios move when somebody works on what is measured")
def test_no_headline_ratio_has_fallen_below_0_8_of_the_kept_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perf", "--guard", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=record.ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
