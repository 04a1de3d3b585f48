"""The benchmark runner: how benchmarks are found and chosen, and what becomes of their tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf.__main__ import run, scripts, selected
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
    assert outcome(tmp_path, body) == [Row("a", "9.50 x", ">= 8 x", met=True), Row("b", "12.0 x")]
    assert outcome(tmp_path, body, "--full")[1] == Row("b", "12.0 x", ">= 20 x", met=False)
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
