"""The drills: their page says what was injected and what it did, and a tenth of them ends well."""

from __future__ import annotations

from pathlib import Path

import pytest

from drills.__main__ import main

HEADER = "number,moment_s,injected,run_ended,rerun_failed,files_differing,processes_left,temporary_left,note\n"


def row(page: Path, kind: str) -> list[str]:
    line = next(x for x in page.read_text().splitlines() if x.startswith(f"| {kind} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][2:]


@pytest.mark.parametrize(
    ("kind", "result", "status", "shown"),
    [
        ("dvc", "1,0,0,0,0,0,", 0, ["1 of 20", "0", "0", "0", "0", "0"]),
        ("dvc", "1,1,0,0,0,0,", 1, ["1 of 20", "1", "0", "0", "0", "0"]),
        ("run", "1,1,0,0,0,0,", 0, ["1 of 20", "1", "0", "0", "0", "0"]),
        ("run", "1,1,0,3,0,0,data/x", 1, ["1 of 20", "1", "0", "3", "0", "0"]),
        ("dvc", "0,0,0,0,0,0,", 0, ["0 of 20", "-", "-", "-", "-", "-"]),
    ],
)
def test_the_page_tells_what_was_injected_and_fails_on_what_is_wrong(
    tmp_path: Path, kind: str, result: str, status: int, shown: list[str]
) -> None:
    (tmp_path / f"{kind}.csv").write_text(f"{HEADER}0,1.5,{result}\n")
    page = tmp_path / "page.md"
    assert main(["--write", "--results", str(tmp_path), "--page", str(page)]) == status
    assert row(page, kind) == shown and row(page, "ray-node")[0] == "0 of 10"
    assert ("number 0: data/x" in page.read_text()) == result.endswith("x")


@pytest.mark.full("a tenth of the drills: minutes of real runs that are killed")
@pytest.mark.timeout(3600)
def test_a_tenth_of_the_drills_ends_well(tmp_path: Path) -> None:
    words = ["--count", "2", "--results", str(tmp_path), "--page", str(tmp_path / "page.md")]
    assert main(words) == 0, (tmp_path / "page.md").read_text()
