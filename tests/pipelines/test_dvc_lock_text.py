"""dvc.lock with one entry replaced: byte for byte what DVC's own writer makes of it, or left to DVC."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import dumps_yaml, parse_yaml, parse_yaml_for_update

from hqsam_pipelines.runner import dvc_lock_text
from tests import REPOSITORY

AWKWARD: dict[str, Any] = {
    "cmd": " && ".join(f"python -m a_module_with_a_name.number_{i}" for i in range(9)),
    "deps": [{"path": "a/b é:c", "hash": "md5", "md5": "0" * 32, "size": 3}],
    "params": {
        "params.yaml": {
            "a.b": [1e-06, 1.0, None, True, "yes", "1e3", "", " x", "a\nb\n", "2026-01-01"],
            "rows": [[0, 1], {"k": {}, "l": []}],
            "long": "words of a text that goes on " * 9,
        }
    },
}


def by_dvc(text: str, name: str, entry: dict[str, Any]) -> str:
    data = parse_yaml_for_update(text, "dvc.lock")
    data["stages"].update({name: entry})
    return str(dumps_yaml(data))


@pytest.fixture(scope="module")
def text() -> str:
    """The lock file of this checkout's sample, which DVC wrote, and one more entry."""
    entries = parse_yaml((REPOSITORY / "dvc.lock").read_text(encoding="utf-8"), "dvc.lock")
    few = dict(list(entries["stages"].items())[:2])
    odd = {"no@1e3": AWKWARD, "odd": copy.deepcopy(AWKWARD)}
    return str(dumps_yaml({"schema": "2.0", "stages": {**few, **odd}}))


@pytest.mark.parametrize("name", ["code", "no@1e3", "odd", "new@x-y", "on"])
def test_the_bytes_are_dvcs_own(text: str, name: str, tmp_path: Path) -> None:
    first = {**AWKWARD, "cmd": "short"}
    found = dvc_lock_text.spliced(text, name, first, note=tmp_path / "note")
    assert found == by_dvc(text, name, first) and found != text
    again = dvc_lock_text.spliced(found, "odd", {"cmd": "true"}, note=tmp_path / "note")
    assert again == by_dvc(found, "odd", {"cmd": "true"})


SPOILS: dict[str, Callable[[str], str]] = {
    "a comment": lambda text: text.replace("stages:\n", "stages:\n  # mine\n"),
    "another style": lambda text: text.replace("    cmd: ", "    cmd:   "),
    "another key": lambda text: text + "datasets: []\n",
    "an anchor": lambda text: text + "  x: &a\n    cmd: y\n  z: *a\n",
    "no stages": lambda text: "schema: '2.0'\nstages: {}\n",
    "windows": lambda text: text.replace("\n", "\r\n"),
    "a merge": lambda text: text + "<<<<<<< HEAD\n",
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_what_dvc_would_write_otherwise_is_left_to_dvc(
    text: str, spoil: Callable[[str], str], tmp_path: Path
) -> None:
    note = tmp_path / "note"
    assert dvc_lock_text.spliced(text, "odd", {"cmd": "true"}, note=note) is not None
    assert dvc_lock_text.spliced(spoil(text), "odd", {"cmd": "true"}, note=note) is None
