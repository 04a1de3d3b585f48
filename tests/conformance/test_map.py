"""docs/map.md is complete: no file without a line, no line without a file."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MAP = (REPOSITORY / "docs" / "map.md").read_text(encoding="utf-8")
# Written by runs or tools, known by everybody, or told by the folder's line.
LEFT_OUT = ("reports/*", ".*", "LICENSE", "tests/golden/*", "*/__init__.py", "*/py.typed")


def lines() -> Iterator[tuple[str, str]]:
    """Path and text of each line of the tree; a folder's path ends with a slash."""
    folders: list[str] = []
    for line in MAP.partition("## The tree")[2].split("```")[1].strip("\n").splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, text = line.strip().partition("  ")
        folders = [*folders[:depth], name]
        yield "".join(folders), text.strip()


def files() -> list[str]:
    """All files that git knows or would take, but for those left out."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    found = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    there = {path for path in found if (REPOSITORY / path).is_file()}
    return sorted(path for path in there if not any(fnmatch(path, pattern) for pattern in LEFT_OUT))


LINES = dict(lines())


def test_every_file_has_a_line_and_every_line_a_file() -> None:
    named = [path for path in LINES if not path.endswith("/")]
    every = files()
    assert [path for path in every if not any(fnmatch(path, name) for name in named)] == [], (
        "no line in docs/map.md"
    )
    assert [name for name in named if not any(fnmatch(path, name) for path in every)] == [], (
        "no such file"
    )
    folders = {
        f"{parent.as_posix()}/"
        for path in every
        for parent in Path(path).parents
        if parent != Path()
    }
    listed = {path for path in LINES if path.endswith("/")}
    starred = tuple(name[:-1] for name in named if name.endswith("/*"))
    assert (
        listed - folders == set()
        and {f for f in folders - listed if not f.startswith(starred)} == set()
    )
    assert [path for path, text in LINES.items() if not text] == []


def test_what_the_walks_and_the_tables_name_is_there() -> None:
    names = set(
        re.findall(
            r"`((?:datasets|hqsam|metrics|pipelines|perf|docs)/[\w/<>.-]+)`",
            MAP.partition("## The tree")[0],
        )
    )
    assert len(names) > 20
    for name in names:
        pattern = re.sub(r"<\w+>", "*", name)
        assert next(REPOSITORY.glob(pattern), None) is not None, name


def test_the_map_is_linked() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "docs/map.md" in (REPOSITORY / page).read_text(encoding="utf-8"), page
