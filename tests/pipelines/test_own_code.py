"""Which checkout's code runs: an environment with an editable install of one, used in another, with real processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from hqsam_base import own_code
from hqsam_base.errors import UserError
from hqsam_base.locks import locked
from hqsam_pipelines.config import env
from hqsam_pipelines.runner import server
from tests import REPOSITORY
from tests.pipelines.working_copy import (
    NOBODY,
    bare_repository,
    clone,
    environment,
    git,
    needs_root,
)

MARK = "the code of the second checkout"
METRIC = "metrics/hqsam_metrics/masks/iou.py"
SCORE = "python -m hqsam_pipelines.cli score masks --pred pred --gt gt --json out.json"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose only DVC stage is a scoring of two committed masks."""
    root = clone(tmp_path_factory.mktemp("checkouts") / "first")
    stage = (
        f"stages:\n  score:\n    cmd: {SCORE}\n    deps: [metrics/hqsam_metrics, pred, gt]\n    "
        f"outs: [out.json]\n"
    )
    (root / "dvc.yaml").write_text(stage)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 5:15] = 255
    for folder in ("pred", "gt"):
        (root / folder).mkdir()
        cv2.imwrite(str(root / folder / "a.png"), mask)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "one stage")
    return root


@pytest.fixture(scope="module")
def python(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment with the first checkout installed as `pip install -e` installs it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    # PEP 660: what pip calls, without its copy of the build tools.
    build = "import sys; from setuptools import build_meta; build_meta.build_editable(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=first, check=True, capture_output=True
    )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    libraries = [entry for entry in sys.path if entry.endswith("site-packages")]
    (site / "zz_libraries.pth").write_text("\n".join(libraries) + "\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def second(first: Path) -> Path:
    """A worktree of the first checkout with a mark in every package and a metric that raises."""
    root = first.parent / "second"
    git(first, "worktree", "add", "-q", "-b", "second", str(root))
    for name, folder in own_code.packages(root).items():
        with (folder / "__init__.py").open("a") as file:
            file.write(f'\nimport sys\n\nprint("{MARK}: {name}", file=sys.stderr)\n')
    spoil(root / METRIC)
    return root


def spoil(module: Path) -> None:
    module.write_text(f'raise RuntimeError("{MARK}")\n')


def call(python: Path, root: Path, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the environment's interpreter in a checkout as README says: no PYTHONPATH, the environment first on PATH."""
    dropped = ("PREFECT_", "HQSAM_", "DVC_", "COVERAGE_", "PYTEST_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    kept |= {
        "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
        "HQSAM_HOST": "0",
        **extra,
    }
    return subprocess.run(
        [python, *words],
        cwd=root,
        env=kept,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


SCRIPT = "from hqsam_pipelines.cli import main; main()"  # what pip writes into bin/hqsam
FLOW = (
    "from hqsam_pipelines.reproduce import reproduce; reproduce.fn(['none'])"  # what a worker does
)


@pytest.mark.parametrize(
    ("words", "packages"),
    [
        (("-c", SCRIPT, "--version"), "pipelines base"),
        (("-m", "hqsam_pipelines.stages.code"), "pipelines base"),
        (("-m", "hqsam_pipelines.runner.dvc_run", "--version"), "pipelines base"),
        (("-m", "hqsam_pipelines.runner.server_daemon", ".", "x", "1"), "pipelines base"),
        (("-m", "hqsam_pipelines.runner.host", "."), "pipelines base"),
        (("-m", "hqsam.training.run", "none.json"), "base"),
        (("-c", FLOW), "pipelines base"),
    ],
    ids=["command", "stage", "dvc", "server", "host", "training", "deployment"],
)
def test_an_entry_point_runs_the_code_of_the_checkout_that_it_is_called_in(
    words: tuple[str, ...], packages: str, python: Path, first: Path, second: Path
) -> None:
    env.make_state_dir(second)
    with (
        locked(server.lock_path(second)),
        locked(server.lock_path(second).with_name("host.lock")),
    ):  # neither stays
        done = call(python, second, *words)
    for package in packages.split():
        assert f"{MARK}: hqsam_{package}" in done.stderr, done.stderr
    written = second / "data" / "code" / "score.json"
    assert "stages.code" not in words[1] or METRIC in json.loads(written.read_text())


def test_the_installed_checkout_runs_its_own_code(python: Path, first: Path, second: Path) -> None:
    assert MARK not in call(python, first, "-c", SCRIPT, "--version").stderr


def test_a_changed_metric_is_what_a_worktree_and_an_experiment_run(
    python: Path, first: Path, second: Path
) -> None:
    run = call(python, first, "-m", "dvc", "repro", "-q")
    assert run.returncode == 0, run.stderr
    assert json.loads((first / "out.json").read_text())["metrics"]["mIoU"] == 1.0
    changed = call(python, second, *SCORE.split()[1:])
    assert changed.returncode == 1 and f"RuntimeError: {MARK}" in changed.stderr
    whole = (first / METRIC).read_bytes()
    spoil(first / METRIC)
    try:
        experiment = call(python, first, "-m", "dvc", "exp", "run", "--temp")
    finally:
        (first / METRIC).write_bytes(whole)
    assert (
        experiment.returncode != 0
        and f"RuntimeError: {MARK}" in experiment.stderr + experiment.stdout
    )


def test_every_program_of_the_packages_asks_whose_code_it_runs() -> None:
    files = {
        path for folder in own_code.packages(REPOSITORY).values() for path in folder.rglob("*.py")
    }
    programs = {
        path: path.read_text() for path in files if '__name__ == "__main__"' in path.read_text()
    }
    asked = [
        path for path, text in programs.items() if "own_code.use" in text or "main(STAGE, " in text
    ]
    assert sorted(programs) == sorted(asked) and len(programs) > 15


def test_doctor_names_the_checkout_that_is_installed(
    python: Path, first: Path, second: Path
) -> None:
    line = [
        line
        for line in call(python, second, "-c", SCRIPT, "doctor").stdout.splitlines()
        if " code " in line
    ]
    assert line and line[0].startswith("WARN") and f"of {first}" in line[0]


@needs_root
@pytest.mark.parametrize(
    "place", [".", "dvc.yaml", "params.yaml", "pipelines", "pipelines/hqsam_pipelines"]
)
def test_another_users_repository_above_the_folder_gives_no_code(
    tmp_path: Path, place: str
) -> None:
    """As in a folder below /tmp, where any user can put these files."""
    root = bare_repository(tmp_path / "root")
    package = root / "pipelines" / "hqsam_pipelines"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('it runs')")
    os.chown(root / place, NOBODY, NOBODY)
    before = list(sys.path)
    with pytest.raises(UserError, match=f"another user's .number {NOBODY}.") as caught:
        own_code.use(root)
    assert caught.value.file == str(root / place) and caught.value.cure and sys.path == before


@needs_root
def test_the_benchmarks_ask_whose_code_they_run(tmp_path: Path) -> None:
    root = bare_repository(tmp_path / "root")
    shutil.copytree(REPOSITORY / "perf", root / "perf")
    package = root / "pipelines" / "hqsam_pipelines"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('it runs')")
    os.chown(package, NOBODY, NOBODY)
    done = subprocess.run(
        [sys.executable, "-m", "perf", "jf"],
        cwd=root,
        env=environment(REPOSITORY),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and f"another user's (number {NOBODY})" in done.stderr, done.stderr
    assert "== " not in done.stdout


def test_packages_that_stay_mixed_are_refused_with_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = bare_repository(tmp_path / "checkout")
    assert not own_code.use(
        root
    )  # a repository without the project's packages runs what is installed
    (root / "hqsam").mkdir()
    (root / "hqsam" / "__init__.py").touch()
    with pytest.raises(UserError, match="the package hqsam comes from") as caught:
        own_code.refuse_foreign(root)
    assert caught.value.file == str(root / "hqsam") and "PYTHONPATH" in str(caught.value.cure)
    (
        root / "dvc.yaml"
    ).unlink()  # no repository: the current folder must not mix with what is installed
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(root)
    monkeypatch.delitem(sys.modules, "hqsam", raising=False)
    with pytest.raises(UserError, match=r"the package hqsam comes from .*checkout"):
        own_code.use_here()
