"""requirements.lock goes with constraints.txt, and the licences of what is installed can be told."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path

import pytest

from hqsam_pipelines import cli
from hqsam_pipelines.runner import licences
from tests import REPOSITORY

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", re.M)


def key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_pin_of_the_lock_is_that_of_the_constraints_and_has_a_digest() -> None:
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    pins = {
        key(name): version
        for name, version in PIN.findall((REPOSITORY / "constraints.txt").read_text())
    }
    locked = dict(
        re.findall(r"^([a-z0-9-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}$", lock, re.M)
    )
    assert len(locked) == len(PIN.findall(lock)) > 200, "each has one digest"
    free = {"setuptools"}  # what builds the project
    assert {
        name: version for name, version in locked.items() if pins.get(name) != version
    }.keys() == free
    assert "://" not in lock
    needed = {key(row.name) for row in licences.licences()} & pins.keys()
    assert {"torch", "prefect", "dvc", "lvis", "pycocotools", "ruff"} <= needed & locked.keys()


def test_licences_are_listed_by_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["doctor", "licences", "--json", str(tmp_path / "l.json")]) == 0
    rows = {
        row["name"].lower(): row
        for row in json.loads((tmp_path / "l.json").read_bytes())["packages"]
    }
    assert (
        rows["numpy"]["version"] == metadata.version("numpy") and "BSD" in rows["numpy"]["licence"]
    )
    assert {"torch", "typer", "pytest", "pluggy"} <= rows.keys(), (
        "of what is needed by what is needed, too"
    )
    assert "hqsam-pipeline" not in rows and all(row["licence"] for row in rows.values())
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"License-Expression": "MIT", "License": "x"}, "MIT"),
        ({"License": "BSD-3-Clause"}, "BSD-3-Clause"),
        (
            {"License": "UNKNOWN", "Classifier": "License :: OSI Approved :: MIT License"},
            "MIT License",
        ),
        ({"License": "The text\nof a whole licence\n"}, "The text"),
        ({}, licences.UNKNOWN),
    ],
)
def test_a_licence_is_what_the_metadata_tells(fields: dict[str, str], told: str) -> None:
    from email.message import Message

    about = Message()
    for name, value in fields.items():
        about[name] = value
    assert licences.licence_of(about) == told  # type: ignore[arg-type]
