"""Stage modules, dvc.yaml and the README name the same stages; a stage's command line is strict."""

from __future__ import annotations

import hashlib
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hqsam_pipelines.config.params import Params
from hqsam_pipelines.runner import codegraph
from hqsam_pipelines.runner import stage as stage_module
from hqsam_pipelines.runner.stage import Stage
from hqsam_pipelines.stages import fetch
from tests import REPOSITORY
from tests.datasets.fetch.archives import a_zip
from tests.datasets.fetch.server import Behaviour, serving
from tests.pipelines.working_copy import dvc_repository, environment, run, wait_until

VERBS = codegraph.modules_of(REPOSITORY, "hqsam_pipelines.stages")
ORDER = (
    "fetch",
    "normalise",
    "index",
    "overlap",
    "validate",
    "shard",
    "augment",
    "train",
    "predict",
    "score",
    "report",
)


def call(*words: str, cwd: Path = REPOSITORY, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words]
    kept = environment(REPOSITORY, HQSAM_HOST="0", **extra)
    return subprocess.run(
        command, cwd=cwd, env=kept, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_stages_are_those_of_the_design() -> None:
    assert sorted((*ORDER, codegraph.STAGE)) == VERBS


def test_the_readme_names_every_stage_in_order() -> None:
    text = (REPOSITORY / "README.md").read_text()
    places = [re.search(rf"\b{verb}\b", text) for verb in ORDER]
    assert all(places), [verb for verb, place in zip(ORDER, places, strict=True) if place is None]


def test_importing_stages_is_light() -> None:
    modules = ", ".join(f"hqsam_pipelines.stages.{verb}" for verb in VERBS)
    code = (
        f"import sys, {modules};"
        "heavy = {'prefect', 'dvc', 'torch', 'numpy', 'pandas', 'pydantic', 'cv2'} & "
        "set(sys.modules); print(heavy); sys.exit(bool(heavy))"
    )
    assert run(REPOSITORY, "python", "-c", code).returncode == 0


@pytest.mark.parametrize("verb", VERBS)
def test_names_of_runs(verb: str) -> None:
    stage: Stage = importlib.import_module(f"hqsam_pipelines.stages.{verb}").STAGE
    names = [section.removesuffix("s") for section in stage.per]
    assert stage.verb == verb
    assert stage.run_name(names).startswith(verb)
    assert stage.dvc_name(names) == (f"{verb}@{'-'.join(names)}" if names else verb)
    for module in stage.imports:
        assert importlib.util.find_spec(module) is not None, module


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ("normalise", "dis5"),
            ["unknown source 'dis5'", "params.yaml", "sources.dis5", "did you mean dis5k"],
        ),
        (("fetch", "cocoo"), ["unknown archive 'cocoo'", "archives.cocoo", "did you mean coco"]),
        (("predict", "coco", "nanno"), ["unknown model 'nanno'", "models.nanno", "nano"]),
    ],
)
def test_an_unknown_name_is_one_message_and_status_1(
    words: tuple[str, ...], parts: list[str]
) -> None:
    done = call(f"hqsam_pipelines.stages.{words[0]}", *words[1:])
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_wrong_arguments_are_status_2() -> None:
    assert call("hqsam_pipelines.stages.fetch").returncode == 2
    assert call("hqsam_pipelines.stages.fetch", DVC_STAGE="index@dis5k").returncode == 2
    assert call("hqsam_pipelines.stages.predict", DVC_STAGE="predict@coco").returncode == 2
    assert call("hqsam_pipelines.stages.overlap", "x").returncode == 2
    done = call("hqsam_pipelines.stages.predict", "--help")
    assert done.returncode == 0
    assert "BENCHMARK MODEL" in done.stdout


def test_outside_a_repository_is_one_message(tmp_path: Path) -> None:
    done = call("hqsam_pipelines.stages.overlap", cwd=tmp_path)
    assert done.returncode == 1
    assert "run this inside the repository" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_params_file_stops_a_stage_with_one_message(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    text = (REPOSITORY / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("\nseed:", "\nsead:"))
    done = call("hqsam_pipelines.stages.overlap", cwd=tmp_path)
    assert done.returncode == 1
    assert "unknown key 'sead'" in done.stderr
    assert "did you mean seed" in done.stderr
    assert "Traceback" not in done.stderr


JOINED = """
import sys, time
from pathlib import Path
from hqsam_pipelines.runner.stage import Stage, main

def run(job):
    with open("begun", "a") as file:
        file.write("begun\\n")
    while not Path("go").exists():
        time.sleep(0.05)
    Path("out").write_text("result")

sys.exit(main(Stage("slow", (), run, on_server=False), sys.argv[1:]))
"""


def test_a_stage_that_a_killed_dvc_left_behind_is_joined(tmp_path: Path, database: Path) -> None:
    """Its result is taken if its inputs are the same, else the work is done after it."""
    stages = "stages:\n  slow:\n    cmd: python slow.py\n    params: [seed]\n    outs: [out]\n"
    root = dvc_repository(tmp_path / "joined", stages, database)
    (root / "slow.py").write_text(JOINED)
    for edited, begun in ((False, 1), (True, 2)):
        for name in ("begun", "go", "out"):
            (root / name).unlink(missing_ok=True)
        first = start(root)
        assert wait_until((root / "begun").exists, 60)
        first.kill()
        first.wait()
        if edited:
            text = (root / "params.yaml").read_text()
            (root / "params.yaml").write_text(text.replace("seed: 0", "seed: 1"))
        second = start(root)
        assert second.stdout is not None
        assert any("waiting for slow, which process " in line for line in second.stdout)
        (root / "go").touch()
        out, _ = second.communicate(timeout=60)
        assert second.returncode == 0, out
        assert (root / "begun").read_text() == "begun\n" * begun
        assert (root / "out").read_text() == "result"
        assert ("done by process" in out) is not edited


def start(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["dvc", "repro", "--force"],
        cwd=root,
        env=environment(root, HQSAM_HOST="0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_fetch_stage_keeps_first_digests_for_all_clones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = yaml.safe_load((REPOSITORY / "configs" / "tiny.yaml").read_text())
    with serving({"/x.zip": Behaviour(a_zip())}) as base:
        raw["archives"]["own"] = {
            "files": [{"name": "x.zip", "urls": [f"{base}/x.zip?signature=s1gned"]}]
        }
        job = stage_module.Job(
            root=tmp_path, params=Params.of(raw, tmp_path / "params.yaml"), names=("own",)
        )
        fetch.run(job)
    digest = hashlib.sha256(a_zip()).hexdigest()
    assert (tmp_path / "archives.sha256").read_text().splitlines()[1:] == [f"{digest}  own/x.zip"]
    said = capsys.readouterr().out
    assert "own: nobody publishes a digest of own/x.zip" in said and "commit it" in said
