"""The workflow in docs/ci.md: valid by GitHub's schema, its command valid by ours, its script right for every exit status."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hqsam_pipelines.commands.compare import app
from tests import REPOSITORY

TEXT = (REPOSITORY / "docs" / "ci.md").read_text(encoding="utf-8")
(WORKFLOW,) = [
    text for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "jobs:" in text
]


def script() -> str:
    steps: list[dict[str, Any]] = yaml.safe_load(WORKFLOW)["jobs"]["compare"]["steps"]
    return str(next(s["run"] for s in steps if "hqsam compare" in s.get("run", "")))


def check(path: Path) -> int:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    command = [sys.executable, "-m", "check_jsonschema"]
    command += ["--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_the_workflow_follows_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "compare.yml"
    path.write_text(WORKFLOW)
    assert check(path) == 0
    path.write_text(WORKFLOW.replace("runs-on:", "run-on:"))
    assert check(path) == 1


def test_its_options_exist() -> None:
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    options = re.findall(r" (--[a-z]+)", script())
    assert options and all(option in told for option in options)


@pytest.mark.parametrize("status", [0, 1, 3])
def test_its_script_keeps_the_status_and_the_answer(tmp_path: Path, status: int) -> None:
    """As GitHub runs it (`bash -e`), with a program in the place of hqsam."""
    program = tmp_path / "hqsam"
    wrote = "echo answer > answer.md" if status != 3 else "true"
    program.write_text(f"#!/bin/sh\n{wrote}\nexit {status}\n")
    program.chmod(0o755)
    variables = {"BASE": "a", "HEAD": "b", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    variables |= {n: str(tmp_path / n) for n in ("GITHUB_ENV", "GITHUB_STEP_SUMMARY")}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script()]
    subprocess.run(command, cwd=tmp_path, env=variables, check=True)
    assert (tmp_path / "GITHUB_ENV").read_text() == f"status={status}\n"
    assert (tmp_path / "GITHUB_STEP_SUMMARY").exists() == (status != 3)


def test_no_code_of_the_pull_request_runs_beside_the_token() -> None:
    found = yaml.safe_load(WORKFLOW)
    assert list(found[True]) == ["pull_request"]  # YAML 1.1 takes `on` for true
    steps = found["jobs"]["compare"]["steps"]
    runs = [line for step in steps for line in step.get("run", "").splitlines()]
    base = runs.index('git checkout --quiet --detach "$BASE"')
    assert all(n > base for n, line in enumerate(runs) if "pip" in line or "hqsam" in line)
    assert not any("${{" in line for line in runs), "texts of others reach a shell as variables"
    assert TEXT.count("actions/checkout") == TEXT.count("persist-credentials: false")
    assert TEXT.count("permissions:") == 2
