"""The real pipeline on the smallest profile, in temporary clones, through DVC, through `hqsam repro`, and as a deployment.

One story in one test module: each step builds on the clone that the ones before left. It is in
`make test` because nothing else runs all stages in the order and with the dependencies that a user
gets; one whole run serves all its steps.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hqsam.model import convert
from hqsam.model.build import build_model
from hqsam.model.options import ModelOptions
from hqsam_base.locks import is_held
from hqsam_pipelines.runner import host_client, nightly, server, worktree
from tests import FULL, REPOSITORY
from tests.pipelines.working_copy import clone, environment, git, on_server, run

STAGES = (
    "code",
    "fetch@dis5k",
    "fetch@coco",
    "normalise@dis5k",
    "index@dis_vd",
    "index@coco",
    "overlap",
    "validate",
    "shard",
    "augment",
    "train@nano",
    "predict@dis_vd-nano",
    "predict@coco-nano",
    "score@dis_vd-nano",
    "score@coco-nano",
    "report",
)
FOLDERS = ("data", "models", "reports")
# What runs once more, side by side: short stages that read the same archive, two by two, or in
# `make test-all` all of them.
AGAIN = (
    STAGES
    if FULL
    else ("normalise@dis5k", "index@dis_vd", "index@coco", "score@dis_vd-nano", "score@coco-nano")
)


def password(root: Path) -> dict[str, str]:
    """What a client of the checkout's server needs in its environment."""
    return {server.AUTH: server.auth_path(root).read_text()}


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def digests(root: Path) -> dict[str, str]:
    """Every output file and its digest; what differs in each run by design is left out."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if (
                path.is_file()
                and not name.startswith("data/extracted/")
                and name != "reports/provenance.json"
            ):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def set_version(root: Path, benchmark: str, version: int) -> None:
    head, section, rest = (root / "params.yaml").read_text().partition("\nbenchmarks:")
    part = re.compile(rf"(\n  {benchmark}:\n.*?version: )\d+", re.DOTALL)
    (root / "params.yaml").write_text(head + section + part.sub(rf"\g<1>{version}", rest, count=1))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = clone(tmp_path_factory.mktemp("e2e") / "first")
    yield root
    host_client.stop(root)
    server.stop(root)
    end = time.monotonic() + 20
    while is_held(root / ".hqsam" / "host.lock") and time.monotonic() < end:
        time.sleep(0.1)
    for lock in ("server.lock", "host.lock"):
        assert not is_held(root / ".hqsam" / lock), f"left behind: {lock}"


def test_1_dvc_repro_runs_every_stage_on_one_server(first: Path) -> None:
    done = run(first, "dvc", "repro", timeout=400)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert sorted(ran(done.stdout)) == sorted(STAGES)
    assert (done.stdout + done.stderr).count("Prefect server: http://127.0.0.1:") == 1
    metrics = json.loads((first / "reports" / "metrics" / "dis_vd-nano.json").read_text())
    assert {result["system"] for result in metrics["results"]} == {"sam", "hq_token", "hq_sum"}
    for result in metrics["results"]:
        assert result["n_scored"] == result["n_expected"] == 16
        assert 0.05 < result["metrics"]["mIoU"] <= 1
        assert 0 < result["metrics"]["mBIoU"] < result["metrics"]["mIoU"]
    assert "<html" in (first / "reports" / "report.html").read_text()[:500]
    cost = json.loads((first / "reports" / "provenance.json").read_text())["stages"]
    assert sorted(cost) == sorted(STAGES)
    assert all(c["wall_s"] >= c["library_s"] >= 0 and c["peak_mb"] < 4096 for c in cost.values())
    for figures in (c["figures"] for name, c in cost.items() if name.startswith("predict")):
        assert figures["prompts_per_s"] >= figures["images_per_s"] > 0
        assert 0 <= figures["device_waited"] < 1
    assert git(first, "status", "--porcelain", "--", "data", "models") == ""


def test_2_a_second_run_does_nothing_and_says_so(first: Path) -> None:
    before = digests(first)
    done = run(first, "dvc", "repro")
    assert done.returncode == 0
    assert ran(done.stdout) == []
    assert "Data and pipelines are up to date." in done.stdout
    assert "everything is up to date (16 stages)" in run(first, "hqsam", "repro").stdout
    assert digests(first) == before


def test_3_dvc_can_show_metrics_and_plots(first: Path) -> None:
    shown = run(first, "dvc", "metrics", "show", "--json")
    assert shown.returncode == 0, shown.stderr
    assert "mIoU" in shown.stdout
    git(first, "add", "-A")
    git(first, "commit", "-qm", "run")
    assert run(first, "dvc", "metrics", "diff", "--json").stdout.strip() in ("{}", "")
    plots = run(first, "dvc", "plots", "show", "--json")
    assert plots.returncode == 0, plots.stderr


def test_4_every_run_is_on_the_server_with_name_tags_lines_and_a_table(first: Path) -> None:
    runs = dict(
        on_server(first, "read_flow_runs(limit=200)", "[r.name, [r.state_type, r.tags, r.id]]")
    )
    expected = {
        name.replace("@", "-") for name in STAGES if name != "code"
    }  # its work is shorter than a call to the server
    assert expected <= set(runs)
    assert {runs[name][0] for name in expected} == {"COMPLETED"}
    commit = f"commit:{git(first, 'rev-parse', 'HEAD~1').strip()[:10]}"  # that of the run
    assert set(runs["score-coco-nano"][1]) == {
        "stage:score",
        "benchmark:coco",
        "model:nano",
        commit,
    }
    for name, words in (
        ("train-nano", "epoch 1 of 1: lr "),
        ("score-coco-nano", "prompts detector_box, system hq_sum, metric AP_B, value 0."),
    ):
        lines = {"logs": {"flow_run_id": {"any_": [runs[name][2]]}}}
        logs = on_server(
            first, f"request('POST', '/logs/filter', json={lines}).json()", "r['message']"
        )
        assert any(words in line for line in logs), logs
    call = "request('POST', '/artifacts/latest/filter', json={}).json()"
    artifacts = dict(on_server(first, call, "[r['key'], r['data']]"))
    tables = {f"{name.replace('_', '-')}-table" for name in expected}
    assert tables <= set(artifacts)
    assert "report.html" in artifacts["report-page"]


def test_5_edits_run_what_depends_on_them_and_nothing_else(first: Path) -> None:
    module = first / "metrics" / "hqsam_metrics" / "scores" / "coco.py"
    code = module.read_text()
    [version] = re.findall(r"^VERSION = (\d+)$", code, re.MULTILINE)
    bumped = int(version) + 1
    # The parameter alone: only this benchmark's score, then the report (and `code`, which looks at
    # the names).
    set_version(first, "coco", bumped)
    done = run(first, "dvc", "status", "--json")
    assert set(json.loads(done.stdout)) == {"code", "score@coco-nano", "report"}
    # The code, with it: scores and report, and never a prediction. An edit of what only starts and
    # watches stages runs nothing more, and one of what a single stage imports runs that stage
    # alone: its outputs stay, so nothing follows.
    module.write_text(code.replace(f"\nVERSION = {version}\n", f"\nVERSION = {bumped}\n"))
    for name in (
        "pipelines/hqsam_pipelines/runner/progress.py",
        "datasets/hqsam_datasets/prepare/shards.py",
    ):
        assert (first / name).is_file()
        with (first / name).open("a") as file:
            file.write("\n# nothing\n")
    done = run(first, "dvc", "repro")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert sorted(ran(done.stdout)) == [
        "code",
        "report",
        "score@coco-nano",
        "score@dis_vd-nano",
        "shard",
    ]


def test_5b_back_at_earlier_code_dvc_knows_the_earlier_results(first: Path) -> None:
    git(first, "checkout", "-q", "--", "datasets", "metrics", "params.yaml", "pipelines")
    assert run(first, "dvc", "repro").returncode == 0
    assert git(first, "status", "--porcelain", "--", "reports/metrics", "dvc.lock") == ""


def without(root: Path, stages: tuple[str, ...]) -> None:
    """Take the outputs of some stages away, and whatever DVC remembers of their runs."""
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    for stage in stages:
        for out in lock["stages"].pop(stage)["outs"]:
            path = root / out["path"]
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (root / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    shutil.rmtree(root / ".dvc" / "cache" / "runs")
    shutil.rmtree(root / "data" / "extracted")


def test_6_side_by_side_gives_the_same_bytes(first: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(first, second, symlinks=True, ignore=shutil.ignore_patterns(".hqsam"))
    without(second, AGAIN)
    # One server is enough.
    given = {
        "PREFECT_API_URL": server.ensure(first).api,
        "PREFECT_HOME": str(server.home(first)),
        **password(first),
    }
    try:
        done = run(second, "hqsam", "repro", timeout=400, **given)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        assert f"{len(AGAIN)} ran, {16 - len(AGAIN)} up to date, 0 failed" in done.stdout
        shown = "[r.name, bool(r.parent_task_run_id)]"
        runs = on_server(first, "read_flow_runs(limit=200)", shown)
        linked = {name for name, parent in runs if parent}
        assert "score-coco-nano" in linked, "the stage is not a child of the run that started it"
        ours, theirs = digests(second), digests(first)
        assert set(ours) == set(theirs)
        assert [name for name in ours if ours[name] != theirs[name]] == []
        locks = [
            yaml.safe_load((root / "dvc.lock").read_text())["stages"] for root in (second, first)
        ]
        assert locks[0] == locks[1]
    finally:
        host_client.stop(second)


def test_7_switching_profiles_back_brings_the_outputs_back(first: Path) -> None:
    before = digests(first)
    assert run(first, "hqsam", "profile", "sample").returncode == 0
    shutil.rmtree(
        first / "models" / "nano"
    )  # a persistent output: DVC's own repro would train again
    done = run(first, "hqsam", "profile", "tiny")
    assert done.returncode == 0, done.stderr
    assert "restored models/nano" in done.stdout
    status = json.loads(run(first, "dvc", "status", "--json").stdout)
    assert set(status) <= {name for name in STAGES if name.startswith("score@")} | {"report"}
    assert run(first, "dvc", "repro").returncode == 0
    assert digests(first) == before


def test_7_a_second_clone_has_nothing_to_do_after_a_pull(first: Path, tmp_path: Path) -> None:
    git(first, "add", "-A")
    git(first, "commit", "-qm", "to share", "--allow-empty")
    second = tmp_path / "second clone"
    git(tmp_path, "clone", "-q", str(first), str(second))
    remote = f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path / 'store'}\n"
    for root in (first, second):
        (root / ".dvc" / "config.local").write_text(remote)
    assert run(first, "dvc", "push").returncode == 0
    done = run(second, "dvc", "pull")
    assert done.returncode == 0, done.stderr
    done = run(second, "dvc", "repro")
    assert done.returncode == 0 and ran(done.stdout) == [], done.stdout
    assert digests(second) == digests(first)
    assert git(second, "status", "--porcelain") == ""
    found = run(second, "hqsam", "compare", "HEAD", "--json", str(tmp_path / "same.json"))
    assert found.returncode == 0, found.stderr
    content = json.loads((tmp_path / "same.json").read_text())
    assert content["notes"] == [] and {row["verdict"] for row in content["rows"]} == {
        "cannot move",
        "not tested",
    }


def test_8_bad_input_is_one_message_a_failed_run_and_nothing_half_written(first: Path) -> None:
    archive = first / "data" / "archives" / "coco" / "val2017.zip"
    whole = archive.read_bytes()
    before = digests(first)
    archive.unlink()  # it may be a link into DVC's cache
    archive.write_bytes(whole[: len(whole) // 2])
    shutil.rmtree(first / "data" / "extracted" / "coco", ignore_errors=True)
    done = run(first, "python", "-m", "hqsam_pipelines.stages.index", "coco")
    archive.write_bytes(whole)
    assert done.returncode == 1
    assert "val2017.zip" in done.stderr
    assert "Traceback" not in done.stderr
    assert digests(first) == before
    if (
        not FULL
    ):  # what is missing is told by the tests of `hqsam.model`; this is one more start of torch
        return
    missing = (first / "params.yaml").read_text().replace("nano.safetensors", "absent.safetensors")
    (first / "params.yaml").write_text(missing)
    done = run(first, "python", "-m", "hqsam_pipelines.stages.predict", "coco", "nano")
    assert done.returncode == 1
    assert "absent.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    git(first, "checkout", "-q", "--", "params.yaml")
    assert digests(first) == before


@pytest.mark.full("Prefect's own worker, which costs ten imports of Prefect; it reads no number")
def test_9_a_worker_delivers_evaluates_and_compares(first: Path) -> None:
    text = (first / "params.yaml").read_text()
    (first / "params.yaml").write_text(text.replace("report: {worst: 1,", "report: {worst: 2,"))
    git(first, "commit", "-qam", "more pictures")
    old = (first / "reports" / "report.html").read_bytes()
    server.stop(first)  # the one of the stages ends sooner, and a worker holds no lease
    place = server.ensure(first, idle_minutes=20)
    extra = {
        "PREFECT_API_URL": place.api,
        "PREFECT_HOME": str(server.home(first)),
        **password(first),
    }
    assert run(first, "hqsam", "deploy", **extra).returncode == 0
    with (first / ".hqsam" / "worker.log").open("wb") as log:
        words = ["prefect", "worker", "start", "--pool", "hqsam", "--name", "test"]
        given = environment(first, HQSAM_CHECKOUT=str(first), **extra)
        worker = subprocess.Popen(words, cwd=first.parent, env=given, stdout=log, stderr=log)

    def started(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        parameters = [part for word in words for part in ("-p", word)]
        return run(
            first,
            "prefect",
            "deployment",
            "run",
            f"{name}/hqsam",
            *parameters,
            "--watch",
            timeout=400,
            **extra,
        )

    try:
        wanted = ('benchmarks=["coco"]', 'systems=["nano"]')
        for name, words in (
            ("nightly", ("target=HEAD~1",)),
            ("evaluate", wanted),
            ("compare", ("before=HEAD~1", "after=nightly")),
        ):
            done = started(name, *words)
            told = done.stdout[-2000:] + done.stderr[-2000:]
            log_text = (first / ".hqsam" / "worker.log").read_text()[-4000:]
            assert done.returncode == 0 and "Completed" in done.stdout, told + log_text
        done = started("evaluate", "benchmarks=coco")
        assert done.returncode != 0 and "benchmarks" in done.stdout + done.stderr
    finally:
        host_client.stop(worktree.place(first, nightly.WORKTREE))
        worker.terminate()
        try:
            worker.wait(20)
        except (
            subprocess.TimeoutExpired
        ):  # Prefect's worker may hang on a web socket; its run is over
            worker.kill()
            worker.wait(20)
    assert git(first, "diff", "--name-only", "HEAD", "nightly", "--", "reports/report.html")
    assert (first / "reports" / "report.html").read_bytes() == old
    call = "request('POST', '/artifacts/latest/filter', json={}).json()"
    pages = dict(on_server(first, call, "[r['key'], r['data']]"))
    for name in ("nightly", "compare"):
        assert "4 of 4 headline rows did not move" in pages[name], pages[name]
    rows = json.loads(pages["evaluate-coco-table"])
    assert {row["system"] for row in rows} == {"SAM", "HQ token", "SAM + HQ"}
    commit = git(first, "rev-parse", "HEAD")[:10]
    assert (first / "evaluations" / commit / "coco" / "params.yaml").is_file()


def test_10_a_profile_that_trains_nothing_needs_no_training_data(first: Path) -> None:
    """As `paper_published`: an HQ-SAM file is evaluated as it is, on a benchmark that is there already."""
    git(first, "checkout", "-q", "--", "params.yaml")
    raw = yaml.safe_load((first / "params.yaml").read_text())
    checkpoint = REPOSITORY / "hqsam" / "model" / "backbones" / "nano.safetensors"
    net = build_model(ModelOptions(backbone="nano", checkpoint=checkpoint), seed=0)
    (first / "weights").mkdir()
    convert.write(net, first / "weights" / "sam_hq_nano.pth", "hq_sam")
    own = {"backbone": "nano", "variant": "hq", "checkpoint": "weights/sam_hq_nano.pth"}
    raw |= {"sources": {}, "models": {"given": own}, "train": {**raw["train"], "epochs": 0}}
    del raw["benchmarks"]["coco"], raw["archives"]["coco"]
    (first / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    assert run(first, "hqsam", "profile", "--prune").returncode == 0
    assert not list((first / "data" / "samples").glob("*/"))
    shutil.rmtree(first / "data" / "extracted", ignore_errors=True)
    done = run(first, "dvc", "repro")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert not any(name.startswith(("fetch", "normalise", "index")) for name in ran(done.stdout))
    assert not (first / "data" / "extracted").exists(), "no archive was opened"
    overlap = json.loads((first / "data" / "overlap" / "overlap.json").read_text())
    assert (overlap["gate"], overlap["n_eval"]) == ("no training data", 16)
    page = (first / "reports" / "report.html").read_text()
    for words in ("Nothing was trained", "No training: the models", "nothing to check"):
        assert words in page
    assert 'aria-label="Training sources"' not in page and "in 0 shards" not in page
    assert ran(run(first, "dvc", "repro").stdout) == []
