"""A name in params.yaml that is none: nothing of it is run and nothing taken away, by DVC itself and by our own entry points."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hqsam_pipelines.runner.stage import _names_from_dvc
from hqsam_pipelines.stages import fetch, predict
from tests.pipelines.working_copy import clone, run

NAME = "x; touch hacked; true"
OTHERS = pytest.mark.full("test_preflight.py takes the same check through every entry point")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose stage `code` is up to date, and then somebody changes params.yaml."""
    root = clone(tmp_path_factory.mktemp("hostile") / "checkout")
    done = run(root, "dvc", "repro", "code")
    assert done.returncode == 0, done.stdout + done.stderr
    (root / "notes").mkdir()
    (root / "notes" / "mine").write_text("years of work")
    (root / ".gitignore").write_text((root / ".gitignore").read_text() + "/notes\n")
    params = (root / "params.yaml").read_text()
    params = params.replace(
        "archives:\n", f"archives:\n  {NAME!r}: {{files: [{{name: a.zip}}]}}\n", 1
    )
    params = params.replace(
        "sources:\n", "sources:\n  ../../notes: {kind: folder, archive: x}\n", 1
    )
    (root / "params.yaml").write_text(params)
    return root


@pytest.mark.parametrize(
    "command",
    [
        (
            "dvc",
            "repro",
            "--single-item",
            f"fetch@{NAME}",
        ),  # first: a failed `code` takes data/code with it
        ("python", "-m", "hqsam_pipelines.stages.fetch", NAME),
        pytest.param(("dvc", "repro"), marks=OTHERS),
        pytest.param(("hqsam", "repro"), marks=OTHERS),
        pytest.param(("hqsam", "repro", "--accept-code"), marks=OTHERS),
        pytest.param(("python", "-m", "hqsam_pipelines.runner.demo"), marks=OTHERS),
    ],
)
def test_it_is_refused_before_anything_is_run_or_taken_away(
    checkout: Path, command: tuple[str, ...]
) -> None:
    done = run(checkout, *command, HQSAM_HOST="0")
    assert done.returncode != 0
    assert "bad name 'x; touch hacked; true'" in done.stdout + done.stderr, (
        done.stdout + done.stderr
    )
    assert "params.yaml" in done.stdout + done.stderr
    assert not list(checkout.rglob("hacked"))
    assert (checkout / "notes" / "mine").exists()


def test_a_stage_takes_its_names_from_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    for told, one, two in (
        ("fetch@dis5k", ["dis5k"], ()),
        ("sub/dvc.yaml:predict@dis_vd-nano", (), ["dis_vd", "nano"]),
        ("predict@a-b-c", (), ["a", "b-c"]),
        ("fetch@", (), ()),
        ("", (), ()),
    ):
        monkeypatch.setitem(os.environ, "DVC_STAGE", told)
        assert (_names_from_dvc(fetch.STAGE), _names_from_dvc(predict.STAGE)) == (one, two), told
