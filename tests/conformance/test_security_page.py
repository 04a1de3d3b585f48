"""docs/security.md names every border by file and function, and the test that walks its inputs: all of them are there."""

from __future__ import annotations

import ast
import re

import pytest

from tests import REPOSITORY

PAGE = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## Borders")[2].partition("## Not defended")[0].splitlines()
    if line.startswith("| ") and "`" in line
]


def named(cell: str) -> dict[str, list[str]]:
    """The files that a cell names, each with the names that follow it."""
    found: dict[str, list[str]] = {}
    for word in re.findall(r"`([^`]+)`", cell):
        if "/" in word:
            found[word] = []
        else:
            found[list(found)[-1]].append(word)
    return found


def defined(path: str) -> set[str]:
    """What a file defines at its top level."""
    body = ast.parse((REPOSITORY / path).read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    values = (target for node in body if isinstance(node, ast.Assign) for target in node.targets)
    return {node.name for node in body if isinstance(node, kinds)} | {
        ast.unparse(value) for value in values
    }


def test_the_table_is_read() -> None:
    assert len(TABLE) > 20 and all(len(row) == 4 for row in TABLE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_what_a_line_names_is_there(row: list[str]) -> None:
    borders, tests = named(row[1]), named(row[3])
    assert borders and all(borders.values()) and tests
    for path, names in (borders | tests).items():
        assert set(names) <= defined(path), path
    assert all(path.startswith("tests/") for path in tests)


def test_the_page_is_linked() -> None:
    assert "docs/security.md" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
