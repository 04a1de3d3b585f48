"""Several seeds: the profile that trains them, what `hqsam compare` makes of their scores, and the whole command."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hqsam_base.errors import UserError
from hqsam_pipelines import cli, seeds
from hqsam_pipelines.compare import seeds as compare_seeds
from hqsam_pipelines.compare.comparison import Comparison, compare
from hqsam_pipelines.config.params import Params
from hqsam_pipelines.config.yaml_file import parse_yaml
from hqsam_pipelines.runner import repro, seeds_run
from tests import REPOSITORY
from tests.pipelines.report_repo import Repo
from tests.pipelines.test_compare import by_row, commit, git, make_repository, write_run
from tests.pipelines.working_copy import clone, dvc_repository
from tests.pipelines.working_copy import run as run_there

SAMPLE = REPOSITORY / "configs" / "sample.yaml"


def changed(**models: object) -> Params:
    params = Params.load(SAMPLE)
    raw = {**params.raw, "models": {**params.raw["models"], **models}}
    return replace(params, raw=raw)


def test_further_seeds_differ_from_the_model_in_the_seed_alone() -> None:
    params = Params.load(SAMPLE)
    composed = Params.of(parse_yaml(seeds.compose(params, 3), SAMPLE), SAMPLE)
    composed.check()
    assert composed.models == ("nano", "nano_seed1", "nano_seed2")
    assert [composed.training_seed(name) for name in composed.models] == [0, 1, 2]
    assert len({repr((composed.model(n), composed.train(n))) for n in composed.models}) == 1
    left = {**composed.raw, "models": {"nano": composed.raw["models"]["nano"]}}
    assert left == dict(params.raw)


def test_a_name_that_is_taken_and_a_profile_that_trains_nothing_are_one_message() -> None:
    entry = Params.load(SAMPLE).raw["models"]["nano"]
    with pytest.raises(UserError, match="needed for a further seed"):
        seeds.compose(changed(nano_seed1=entry), 3)
    with pytest.raises(UserError, match="no seed matters"):
        seeds.compose(changed(nano={**entry, "train": {"epochs": 0}}), 3)
    with pytest.raises(UserError, match=r"whole number from 0 on, found True"):
        changed(nano={**entry, "seed": True}).check()


def add_seeds(root: Path, strengths: tuple[float, ...]) -> None:
    """Further seeds beside the run in the working tree, in the layout of docs/formats.md."""
    shutil.rmtree(root / seeds.FOLDER, ignore_errors=True)
    metrics = sorted((root / "reports/metrics").glob("*.json"))
    for number, strength in enumerate(strengths, start=1):
        other = root.parent / "other"
        shutil.rmtree(other, ignore_errors=True)
        Repo(other, strength=strength, images=8).build()
        for path in metrics:
            folder = root / seeds.FOLDER / f"{path.stem}_seed{number}"
            shutil.copytree(other / "data/scores" / path.stem, folder)
            shutil.copy2(other / "reports/metrics" / path.name, folder / "metrics.json")
    digests = {path.stem: seeds.digest(path.read_bytes()) for path in metrics}
    index = {"seeds": len(strengths) + 1, "metrics": digests}
    (root / seeds.INDEX).write_text(json.dumps(index))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str, str]]:
    """Three commits of much the same masks: one seed, three seeds, three seeds of another recipe."""
    root = tmp_path_factory.mktemp("seeds") / "repo"
    make_repository(root)
    write_run(root, strength=0.05)
    single = commit(root, "one seed")
    add_seeds(root, (0.10, 0.02))
    git(root, "add", "reports")
    git(root, "commit", "--quiet", "-m", "three seeds")
    several = git(root, "rev-parse", "HEAD")
    write_run(root, strength=0.08)
    add_seeds(root, (0.03, 0.06))
    yield root, single, several, commit(root, "three seeds of another recipe")


def width(found: Comparison) -> float:
    interval = by_row(found)["coift", "hq_token", "mBIoU"].interval
    return float(interval.high - interval.low)


def test_values_are_means_over_seeds_and_intervals_hold_their_spread(
    repository: tuple[Path, str, str, str],
) -> None:
    root, single, several, other = repository
    alone, both = compare(root, single, other), compare(root, several, other)
    files = [root / "reports/metrics/coift-nano.json"]
    files += [root / seeds.FOLDER / f"coift-nano_seed{k}" / "metrics.json" for k in (1, 2)]
    mean = np.mean(
        [
            result["metrics"]["mBIoU"]
            for file in files
            for result in json.loads(file.read_text())["results"]
            if result["system"] == "hq_token"
        ]
    )
    rows = by_row(both)
    change = rows["coift", "hq_token", "mBIoU"]
    assert change.b == pytest.approx(100 * mean)
    assert change.interval.mean == pytest.approx(change.difference)
    assert rows["HQ4-mean", "hq_token", "mBIoU"].interval is not None
    assert rows["coco", "hq_sum", "AP"].interval.mean == pytest.approx(
        rows["coco", "hq_sum", "AP"].difference
    )
    assert rows["coift", "sam", "mBIoU"].verdict == "cannot move"
    assert "better" not in {c.verdict for c in both.changes}  # the seeds differ as much
    assert any("means over seeds (A 3, B 3)" in note for note in both.notes)
    assert any("was trained with one seed" in note and single[:7] in note for note in alone.notes)
    assert width(alone) > 0 and width(both) > 0


@pytest.mark.parametrize("reader", ["units_frame", "read_matches"])
def test_tables_of_many_seeds_are_bounded_in_sum(
    repository: tuple[Path, str, str, str], monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    root, single, several, _ = repository
    read = getattr(compare_seeds, reader)

    def alone_allowed(*given: Any) -> Any:
        found = read(*given)
        rows = len(found) if reader == "units_frame" else len(found.image) + len(found.truth.ids)
        monkeypatch.setattr(compare_seeds, "_MOST_ROWS", rows)
        return found

    compare(root, single, several)
    monkeypatch.setattr(compare_seeds, reader, alone_allowed)
    with pytest.raises(UserError, match="rows together"):
        compare(root, single, several)


def test_seeds_of_another_run_are_left_out_and_named(
    repository: tuple[Path, str, str, str],
) -> None:
    root, single, _, other = repository
    write_run(root, strength=0.2)
    git(root, "checkout", "--quiet", other, "--", seeds.FOLDER)
    found = compare(root, single)
    assert any("of another run than its metrics" in note for note in found.notes)
    assert not any("means over seeds" in note for note in found.notes)


def test_parameters_come_back_after_a_signal_and_edits_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no server").mkdir()
    root = dvc_repository(tmp_path / "repo", "stages: {}\n", tmp_path / "no server")
    shutil.copytree(REPOSITORY / "configs", root / "configs")
    params, before = root / "params.yaml", SAMPLE.read_bytes()
    params.write_bytes(before)
    met: list[bytes] = []

    def killed(*_: object, **__: object) -> None:
        met.append(params.read_bytes())
        os.kill(os.getpid(), signal.SIGTERM)

    def edited(*_: object, **__: object) -> None:
        met.append(params.read_bytes())
        params.write_bytes(b"mine")
        raise UserError("a stage's mistake")

    monkeypatch.setattr(repro, "plan", killed)
    with pytest.raises(KeyboardInterrupt):
        seeds_run.run(root, 2)
    assert b"nano_seed1" in met[0] and params.read_bytes() == before
    # killed for good: the next run begins with the user's parameters
    params.write_bytes(met[0])
    (root / seeds_run.SAVED).write_bytes(before)
    monkeypatch.setattr(repro, "plan", edited)
    with pytest.raises(UserError, match="mistake"):
        seeds_run.run(root, 2)
    assert met[1] == met[0] and params.read_bytes() == b"mine"
    assert not (root / seeds_run.SAVED).exists()
    assert "stays as it is" in capsys.readouterr().err
    monkeypatch.chdir(root)
    for words in (["seeds", "score"], ["ablations", "report"], ["--n", "3"], ["seeds", "--n", "1"]):
        assert cli.run(["repro", *words]) == 2


@pytest.mark.full("trains the smallest profile twice, with every stage; its parts are tested above")
def test_the_command_trains_keeps_and_puts_the_profile_back(tmp_path: Path) -> None:
    root = clone(tmp_path / "repo")
    before = (root / "params.yaml").read_bytes()
    done = run_there(root, "hqsam", "repro", "seeds", "--n", "2", timeout=900)
    assert done.returncode == 0, done.stderr
    assert "| COCO detector_box AP |" in done.stdout
    assert (root / "params.yaml").read_bytes() == before
    left = [
        p.name for f in ("models", "reports/metrics", "data/scores") for p in (root / f).iterdir()
    ]
    assert not [name for name in left if "seed1" in name]
    kept = {path.name for path in (root / seeds.FOLDER / "coco-nano_seed1").iterdir()}
    assert kept == {"metrics.json", *seeds.TABLES}
    again = run_there(root, "hqsam", "repro", "seeds", "--n", "2", timeout=900)
    assert "train@nano_seed1" not in again.stderr and again.returncode == 0
