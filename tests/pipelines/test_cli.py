"""The `hqsam` console script."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hqsam_pipelines import cli
from tests import REPOSITORY
from tests.pipelines.working_copy import PACKAGES, bare_repository, environment, git, run

Here = Callable[..., subprocess.CompletedProcess[str]]


def call(*words: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hqsam_pipelines.cli", *words]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(REPOSITORY),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_is_quick_and_lists_every_command() -> None:
    begin = time.process_time()
    assert set(cli.commands()) >= {
        "compare",
        "doctor",
        "predict",
        "profile",
        "repro",
        "score",
        "server",
    }
    text = cli.usage()
    assert time.process_time() - begin < 0.5
    for name in cli.commands():
        assert f"  {name}" in text
        assert cli.summary(name)


def test_the_list_of_commands_imports_nothing_heavy() -> None:
    code = (
        "import sys; from hqsam_pipelines import cli; cli.run(['--help']); "
        "print(sorted(sys.modules))"
    )
    done = run(REPOSITORY, "python", "-c", code)
    modules = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert not modules & {"prefect", "dvc", "torch", "numpy", "pandas", "typer", "hqsam_metrics"}


def test_numpy_starts_no_threads_of_its_own() -> None:
    # A product as large as those of the fingerprints wakes them; as many processes as cores would
    # then fight.
    free = (
        "import os; [os.environ.pop(n, None) for n in ('OMP_NUM_THREADS', "
        "'OPENBLAS_NUM_THREADS')]; "
    )
    product = (
        "import numpy as np; a = np.ones((512, 512), np.float32); a @ a; "
        "print(len(os.listdir('/proc/self/task')))"
    )
    alone = run(REPOSITORY, "python", "-c", free + product)
    ours = run(
        REPOSITORY,
        "python",
        "-c",
        free + "from hqsam_pipelines.config import env; env.prepare(); " + product,
    )
    assert int(ours.stdout) == 1
    assert int(alone.stdout) > 1 or len(os.sched_getaffinity(0)) == 1  # the setting is what did it


@pytest.mark.parametrize("name", cli.commands())
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([name, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_wrong_command_lines() -> None:
    done = call("scroe")
    assert done.returncode == 2
    assert "did you mean score" in done.stderr
    assert call().returncode == 2
    assert call("server", "begin").returncode == 2
    assert call("--version").stdout.startswith("hqsam ")


def test_outside_a_repository_is_one_message(tmp_path: Path) -> None:
    done = call("server", "status", cwd=tmp_path)
    assert done.returncode == 1
    assert "run this inside the repository" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str, argv: object) -> object:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(cli, "_call", absent)
    assert cli.run(["predict", "x.png"]) == 1
    assert "pip install 'hqsam-pipeline[model]'" in capsys.readouterr().err


def test_score_runs_without_the_rest_of_the_pipeline() -> None:
    """The base install has none of these; here they are made impossible to import."""
    blocked = [
        "torch",
        "prefect",
        "dvc",
        "pandas",
        "pyarrow",
        "PIL",
        "yaml",
        "great_expectations",
        "ruamel",
    ]
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "from hqsam_pipelines import cli\n"
        "sys.exit(cli.run(['score', 'masks', '--help']))"
    )
    done = run(REPOSITORY, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert "--dilation-ratio" in done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = bare_repository(tmp_path / "checkout")
    (root / "configs").mkdir()
    for name in ("sample", "tiny"):
        (root / "configs" / f"{name}.yaml").write_bytes(
            (REPOSITORY / "configs" / f"{name}.yaml").read_bytes()
        )
    (root / "params.yaml").write_bytes((root / "configs" / "sample.yaml").read_bytes())
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "x")
    return root


@pytest.fixture
def here(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    """Runs a command line in the checkout, in this process: most of a command's time is its imports."""
    monkeypatch.chdir(checkout)
    for name in os.environ.keys() - environment(REPOSITORY).keys():
        monkeypatch.delenv(name)

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        code = cli.run(words)
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return command


def test_a_profile_is_a_diff_of_params_and_takes_its_outputs_away(checkout: Path) -> None:
    for name in (
        "data/samples/dis5k",
        "data/samples/ecssd",
        "data/scores/lvis-nano",
        "data/scores/coco-nano",
    ):
        (checkout / name).mkdir(parents=True)
    (checkout / "reports" / "metrics").mkdir(parents=True)
    (checkout / "reports" / "metrics" / "lvis-nano.json").write_text("{}")
    assert call("profile", cwd=checkout).stdout.split() == ["*", "sample", "tiny"]
    done = call("profile", "tiny", cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert git(checkout, "diff", "--name-only").split() == ["params.yaml"]
    assert (checkout / "params.yaml").read_bytes() == (
        checkout / "configs" / "tiny.yaml"
    ).read_bytes()
    assert sorted(p.name for p in (checkout / "data" / "samples").iterdir()) == ["dis5k"]
    assert sorted(p.name for p in (checkout / "data" / "scores").iterdir()) == ["coco-nano"]
    assert not list((checkout / "reports" / "metrics").iterdir())
    assert "active already" in call("profile", "tiny", cwd=checkout).stdout


def test_a_stage_that_reads_whole_folders_refuses_what_is_not_of_the_profile(
    checkout: Path,
) -> None:
    (checkout / "data" / "samples" / "own_photos").mkdir(parents=True)
    command = [sys.executable, "-m", "hqsam_pipelines.stages.overlap"]
    kept = environment(REPOSITORY, HQSAM_HOST="0")
    done = subprocess.run(
        command, cwd=checkout, env=kept, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "data/samples/own_photos" in done.stderr
    assert "hqsam profile --prune" in done.stderr
    assert (checkout / "data" / "samples" / "own_photos").exists()
    assert "removed data/samples/own_photos" in call("profile", "--prune", cwd=checkout).stdout
    assert not (checkout / "data" / "samples" / "own_photos").exists()


def test_edits_of_params_are_not_lost(checkout: Path) -> None:
    edited = (checkout / "params.yaml").read_text().replace("seed: 0", "seed: 5")
    (checkout / "params.yaml").write_text(edited)
    done = call("profile", "tiny", cwd=checkout)
    assert done.returncode == 1
    assert "would be lost" in done.stderr
    assert (checkout / "params.yaml").read_text() == edited
    assert call("profile", "tiny", "--force", cwd=checkout).returncode == 0
    unknown = call("profile", "papr", cwd=checkout)
    assert unknown.returncode == 1
    assert "unknown profile 'papr'" in unknown.stderr


def test_doctor_finds_this_checkout_well_and_names_what_is_not(
    checkout: Path, here: Here, tmp_path: Path
) -> None:
    done = call("doctor", "--json", str(tmp_path / "doctor.json"))
    levels = {
        f["what"]: f["level"]
        for f in json.loads((tmp_path / "doctor.json").read_text())["findings"]
    }
    assert done.returncode == 0, done.stdout
    assert {
        "python",
        "libraries",
        "machine",
        "gpu",
        "params",
        "disk",
        "git",
        "dvc",
        "server",
    } <= set(levels)
    (checkout / "params.yaml").write_text(
        (checkout / "params.yaml").read_text().replace("epochs: ", "epocs: ")
    )
    broken = here("doctor")
    assert broken.returncode == 1
    assert "train.epocs" in broken.stdout
    assert "did you mean epochs" in broken.stdout


def test_doctor_knows_the_disk_by_the_archives_not_by_the_name(checkout: Path, here: Here) -> None:
    path = checkout / "params.yaml"
    text = path.read_text().replace("profile: sample", "profile: my_own")
    path.write_text(text)
    assert "GB free, the profile wants 2" in here("doctor").stdout
    own = "archives:\n  own: {files: [{name: own.zip, urls: ['https://example.org/own.zip']}]}\n"
    path.write_text(text.replace("archives:\n", own, 1))
    assert "own downloads need is not known" in here("doctor").stdout
    path.write_text(text + "\n  : [")
    broken = here("doctor")
    assert broken.returncode == 1 and "not readable as YAML" in broken.stdout


def test_doctor_misses_an_archive_of_the_user(checkout: Path, here: Here) -> None:
    own = "archives:\n  own: {files: [{name: own.zip, urls: ['file:///nowhere/own.zip']}]}\n"
    path = checkout / "params.yaml"
    path.write_text(path.read_text().replace("archives:\n", own, 1))
    done = here("doctor")
    assert done.returncode == 1
    assert (
        "own: put own.zip into the drop folder (file:///nowhere/own.zip is not there)"
        in done.stdout
    )


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_doctor_misses_the_gpu_that_the_profile_demands(checkout: Path, here: Here) -> None:
    text = (checkout / "params.yaml").read_text()
    demanding = text.replace("\n  epochs: ", "\n  device: cuda\n  epochs: ")
    (checkout / "params.yaml").write_text(demanding)
    done = here("doctor")
    assert done.returncode == 1
    assert "nano: `train.device: cuda` demands a GPU" in done.stdout
    (checkout / "params.yaml").write_text(demanding.replace("\n  epochs: 12", "\n  epochs: 0"))
    assert "demands a GPU" not in here("doctor").stdout, "nothing trains"


def test_an_output_that_is_a_folder_or_cannot_be_written_is_one_message(
    here: Here, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    for target in ("taken", "file/x.json"):
        done = here("doctor", "--json", str(tmp_path / target))
        assert done.returncode == 1
        assert f"file: {tmp_path / target.split('/')[0]}" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_checkout_that_cannot_be_written_is_one_message(checkout: Path) -> None:
    for package in PACKAGES:  # what makes it a repository of this project
        (checkout / package).symlink_to(REPOSITORY / package)
    (checkout / ".hqsam").write_text("a file where a folder must be")
    command = [sys.executable, "-m", "hqsam_pipelines.stages.code"]
    kept = environment(REPOSITORY)
    done = subprocess.run(
        command, cwd=checkout, env=kept, capture_output=True, text=True, timeout=60, check=False
    )
    for told in (done, call("repro", cwd=checkout)):
        assert told.returncode == 1
        assert "the folder cannot be made" in told.stderr and "Traceback" not in told.stderr
    checkout.chmod(0o555)
    try:
        if not os.access(checkout, os.W_OK):  # root may write anywhere
            assert "FAIL  repository" in call("doctor", cwd=checkout).stdout
    finally:
        checkout.chmod(0o755)


@pytest.mark.parametrize("verb", ["start", "status"])
def test_a_given_server_that_does_not_answer_is_no_success(checkout: Path, verb: str) -> None:
    command = [sys.executable, "-m", "hqsam_pipelines.cli", "server", verb]
    kept = environment(REPOSITORY, PREFECT_API_URL="http://127.0.0.1:9/api")
    done = subprocess.run(
        command, cwd=checkout, env=kept, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and "does not answer" in done.stderr and not done.stdout


def test_the_grid_of_ablations_is_not_that_of_other_data(checkout: Path, here: Here) -> None:
    text = (checkout / "params.yaml").read_text().replace("profile: sample", "profile: birds")
    for name in ("params.yaml", "configs/birds.yaml"):
        (checkout / name).write_text(text)
    done = here("repro", "ablations")
    assert done.returncode == 1
    assert "no grid of ablations for the profile 'birds'" in done.stderr
    assert (checkout / "params.yaml").read_text() == text


def test_refine_looks_at_its_output_before_the_work(checkout: Path, here: Here) -> None:
    done = here("refine", "coift", "nano", "--refiner", "grabcut", "--json", str(checkout))
    assert done.returncode == 1 and "this is a folder" in done.stderr


def test_exported_predictions_of_a_set_that_was_never_predicted(checkout: Path, here: Here) -> None:
    words = ("export", "predictions", "coift", "nano", "--out", str(checkout / "masks"))
    done = here(*words, "--as", "png")
    assert done.returncode == 1 and "index.json" in done.stderr
    done = here(*words, "--as", "tiff")
    assert done.returncode == 1 and "coco, davis, lvis, png, sginw, ytvis" in done.stderr
    assert not (checkout / "masks").exists()
