"""The README's numbers are those of the committed report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hqsam_base.errors import UserError
from hqsam_pipelines.report import readme
from tests import REPOSITORY

TABLES = REPOSITORY / "reports" / "tables"


def test_the_numbers_are_those_of_the_committed_report() -> None:
    assert not readme.updated(REPOSITORY / "README.md", TABLES)[1], "run `hqsam report readme`"


def test_only_the_marked_place_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "R.md"
    path.write_text(f"above\n{readme.BEGIN}\nold\n{readme.END}\nbelow\n")
    assert readme.write(path, TABLES) and not readme.write(path, TABLES)
    text = path.read_text()
    assert text.startswith("above\n<!--") and text.endswith("-->\nbelow\n") and "old" not in text
    assert "| Mean of the four | gt_box | mBIoU |" in text
    path.write_text(f"{readme.END}\n{readme.BEGIN}\n")
    with pytest.raises(UserError, match="not marked"):
        readme.write(path, TABLES)
    path.write_bytes(latin := "é".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        readme.write(path, TABLES)
    assert path.read_bytes() == latin
    shutil.copy(REPOSITORY / "README.md", path)
    with pytest.raises(UserError, match="no report"):
        readme.write(path, tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("overview.csv", b"other,columns\n1,2\n"),
        ("overview.csv", b"benchmark,metric,delta,better\ncoco,AP,much,higher\n"),
        ("overview.csv", b"x" * 200_000),
        ("overview.md", readme.END.encode()),
        ("overview.md", b"\xff"),
    ],
)
def test_tables_of_strangers_change_nothing(file: str, content: bytes, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    shutil.copytree(TABLES, tables)
    (tables / file).write_bytes(content)
    path = tmp_path / "R.md"
    path.write_text(before := f"{readme.BEGIN}\n{readme.END}\n")
    with pytest.raises(UserError):
        readme.write(path, tables)
    assert path.read_text() == before
