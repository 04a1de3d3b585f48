"""The run that delivers: worktree, branch, push, comparison, artifact, webhook; and the deployments on a real server."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hqsam_base.errors import UserError
from hqsam_pipelines.runner import evaluated, host_client, nightly, server, worktree
from tests.pipelines.working_copy import (
    dvc_repository,
    environment,
    git,
    on_server,
    run,
    wait_until,
)

STAGES = """
stages:
  score:
    cmd: echo $PROBE_TOKEN && test "$(cat in)" != bad && cp in out
    deps: [in]
    outs: [out]
  report:
    cmd: mkdir -p reports && cp out reports/report.html
    deps: [out]
    outs:
      - reports/report.html:
          cache: false
"""
FLOW = (
    "from hqsam_pipelines.runner.deployed import nightly; nightly(return_state=True, target='main')"
)


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web hook's address, with a token in it, and what it was told."""
    told: list[dict[str, Any]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(302 if self.path.endswith("gone") else 200)
            self.send_header("Location", "/T1/secret-part")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{door.server_port}/T0/secret-part", told
        door.shutdown()


def test_a_revision_is_run_and_delivered_beside_the_checkout(
    tmp_path: Path, database: Path, hook: tuple[str, list[dict[str, Any]]]
) -> None:
    root = dvc_repository(tmp_path / "home", STAGES, database)
    (root / "in").write_text("first\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "input")
    git(tmp_path, "init", "-q", "--bare", "origin.git")
    git(root, "remote", "add", "origin", str(tmp_path / "origin.git"))
    words = ("dvc", "remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    assert run(root, *words).returncode == 0
    (root / "in").write_text("what a person is at work on\n")
    given = {
        "PREFECT_API_URL": server.ensure(root, idle_minutes=5).api,
        "PREFECT_HOME": str(server.home(root)),
        server.AUTH: server.auth_path(root).read_text(),
        "HQSAM_CHECKOUT": str(root),
        "HQSAM_WEBHOOK_URL": hook[0],
        "PROBE_TOKEN": "open-sesame",
    }
    try:
        done = run(tmp_path, "python", "-c", FLOW, **given)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert git(root, "show", "nightly:reports/report.html") == "first", said
        assert "score:" in git(root, "show", "nightly:dvc.lock")
        assert git(root, "rev-parse", "nightly~1") == git(root, "rev-parse", "HEAD")
        assert git(tmp_path / "origin.git", "rev-parse", "nightly") == git(
            root, "rev-parse", "nightly"
        )
        assert any(path.is_file() for path in (tmp_path / "store").rglob("*"))
        assert (root / "in").read_text() == "what a person is at work on\n"
        assert not (root / "out").exists() and not (root / "dvc.lock").exists()
        assert list((root / ".dvc" / "cache" / "files").rglob("*")), "the cache is not shared"
        assert "***" in said and "open-sesame" not in said
        [told] = hook[1]
        assert told["event"] == "success" and told["branch"] == "nightly"
        line = "no comparison: there are no metrics at main"  # this toy has none
        assert told["text"] == f"HQ-SAM pipeline, success: {line} (branch nightly)"
        call = "request('POST', '/artifacts/latest/filter', json={}).json()"
        pages = dict(on_server(root, call, "[r['key'], r['data']]"))
        assert "Branch `nightly`" in pages["nightly"]
        shown = "[r.name, bool(r.parent_task_run_id)]"
        runs = on_server(root, "read_flow_runs(limit=9)", shown)
        assert sorted(runs) == [["nightly-HEAD", False], ["reproduce", True]]
        # A failure is told, and leaves the branch as it was.
        (root / "in").write_text("bad")
        git(root, "commit", "-qam", "a mistake")
        before = git(root, "rev-parse", "nightly")
        done = run(tmp_path, "python", "-c", FLOW, **given)
        assert hook[1][1]["event"] == "failure" and "score" in hook[1][1]["line"]
        assert git(root, "rev-parse", "nightly") == before
        states = on_server(root, "read_flow_runs(limit=9)", "[r.flow_id, r.name, r.state_type]")
        assert sum(state == "FAILED" for _, _, state in states) == 2, states  # it and its run
        assert "open-sesame" not in str(hook[1]) and "secret-part" not in str(hook[1])
    finally:
        for folder in (root, worktree.place(root, nightly.WORKTREE)):
            host_client.stop(folder)
            server.stop(folder)


@pytest.mark.parametrize(
    ("branch", "why"),
    [
        ("work", "holds other work"),
        ("main", "holds other work"),
        ("@{-1}", "own name"),
        ("--force", "check-ref-format"),
        ("a..b", "check-ref-format"),
    ],
)
def test_a_branch_that_holds_other_work_is_not_replaced(
    tmp_path: Path, branch: str, why: str
) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "work")
    git(tmp_path, "update-ref", "refs/remotes/origin/main", "main")
    git(tmp_path, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    git(tmp_path, "checkout", "-q", "-b", "work")
    with pytest.raises(UserError, match=why):
        nightly.deliver(tmp_path, "HEAD", branch=branch, target="HEAD", workers=1, push=True)
    assert not worktree.place(tmp_path, nightly.WORKTREE).exists()


def test_the_webhook_hears_what_it_wants_and_ends_no_run(
    monkeypatch: pytest.MonkeyPatch,
    hook: tuple[str, list[dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = nightly.Delivery("regression", "worse", "", "HEAD", "a" * 40, "n", "b" * 40, "/r")
    monkeypatch.setenv("HQSAM_WEBHOOK_URL", hook[0])
    monkeypatch.setenv("HQSAM_WEBHOOK_ON", "failure")
    assert not nightly.notify(found) and not hook[1]
    monkeypatch.setenv("HQSAM_WEBHOOK_ON", "failure, regression")
    assert nightly.notify(found) and hook[1][0]["line"] == "worse"
    monkeypatch.setenv("HQSAM_WEBHOOK_ON", "succeeded")
    with pytest.raises(UserError, match="unknown event 'succeeded'"):
        nightly.events()
    monkeypatch.setenv("HQSAM_WEBHOOK_ON", "regression")
    # the client writes an address in its own way
    gone = hook[0].replace("http://127.0.0.1", "HTTP://LOCALHOST") + "/gone"
    for address in ("http://127.0.0.1:9/secret-part", gone):
        monkeypatch.setenv("HQSAM_WEBHOOK_URL", address)
        assert not nightly.notify(found)
        said = capsys.readouterr().err
        assert "the webhook could not be told" in said and "secret-part" not in said


def test_a_schedule_makes_runs(tmp_path: Path, database: Path) -> None:
    """Under SQLAlchemy 2.1 the server's scheduler made none, and nothing said so (constraints.txt)."""
    root = dvc_repository(tmp_path / "home", STAGES, database)
    server.ensure(root, idle_minutes=5)

    def post(path: str, body: dict[str, Any], shown: str = "r") -> Any:
        return on_server(root, f"request('POST', {path!r}, json={body!r}).json()", shown)

    try:
        post("/flows/", {"name": "nightly"})
        [flow] = on_server(root, "read_flows()", "r.id")
        every = {"interval": 3600, "anchor_date": "2026-01-01T00:00:00Z"}
        schedules = [{"schedule": every, "active": True}]
        post("/deployments/", {"name": "d", "flow_id": flow, "schedules": schedules})
        shown = "[r['state_type'], r['auto_scheduled']]"
        assert wait_until(
            lambda: ["SCHEDULED", True] in post("/flow_runs/filter", {"limit": 9}, shown), 60
        )
    finally:
        server.stop(root)


@pytest.mark.full("seven starts of Prefect; it reads no number")
def test_deployments_are_registered_once_and_read_the_checkout_at_the_worker(
    tmp_path: Path, database: Path
) -> None:
    root = dvc_repository(tmp_path / "home", STAGES, database)
    given = {
        "PREFECT_API_URL": server.ensure(root, idle_minutes=5).api,
        "PREFECT_HOME": str(server.home(root)),
        server.AUTH: server.auth_path(root).read_text(),
    }
    try:
        for _ in range(2):
            done = run(tmp_path, "hqsam", "deploy", **given)
            assert done.returncode == 0, done.stderr
        shown = "[r.name, r.entrypoint, str(r.pull_steps), r.work_pool_name]"
        found = on_server(root, "read_deployments()", shown)
        assert sorted(entry for _, entry, _, _ in found) == [
            "hqsam_pipelines.runner.deployed.compare",
            "hqsam_pipelines.runner.deployed.evaluate",
            "hqsam_pipelines.runner.deployed.nightly",
        ]
        assert str(root) not in str(found), "the checkout was frozen"
        call = "request('POST', '/automations/filter', json={}).json()"
        assert len(on_server(root, call, "r['name']")) == 1

        def scheduled() -> bool:
            runs = on_server(root, "read_flow_runs(limit=9)", "[r.state_type, r.auto_scheduled]")
            return ["SCHEDULED", True] in runs

        assert wait_until(scheduled, 60), "the server's scheduler makes no runs"
        beat = "send_worker_heartbeat('hqsam', 'mine', 30)"
        pause = "update_work_pool('hqsam', WorkPoolUpdate(is_paused=True))"
        code = (
            "from hqsam_pipelines.runner.doctor_operations import workers\n"
            "from prefect import get_client\n"
            "from prefect.client.schemas.actions import WorkPoolUpdate\n"
            "print(*workers(None), sep='\\n')\n"
            f"for client in [get_client(sync_client=True)]: client.{beat}\n"
            "print(*workers(None), sep='\\n')\n"
            f"client.{pause}\n"
            "print(*workers(None), sep='\\n')\n"
        )
        said = run(tmp_path, "python", "-c", code, **given).stdout.splitlines()
        levels = [re.findall(r"level='(\w+)'", line) for line in said]
        assert levels == [["fail"], ["ok"], ["fail"]], said
        assert "there never was one" in said[0] and "resume hqsam" in said[2]
    finally:
        server.stop(root)
    assert "no server is named" in run(tmp_path, "hqsam", "deploy").stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"benchmarks": []}, "no benchmark is named"),
        ({"systems": []}, "nothing to evaluate"),
        ({"benchmarks": ["coco", "dis_vd"], "predictions": "/a"}, "belong to one benchmark"),
        ({"predictions": "theirs=a=b.json"}, "the path is relative"),
        ({"revision": "nowhere"}, "`git rev-parse` failed"),
    ],
    ids=str,
)
def test_what_no_worker_can_evaluate_is_one_message(
    tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    git(tmp_path, "init", "-q")
    wanted = {"benchmarks": ["coco"], "systems": ["nano"], "prompts": [], "predictions": ""}
    with pytest.raises(UserError, match=said):
        evaluated.evaluate(tmp_path, **{"revision": "HEAD", **wanted, **given})


@pytest.mark.full("it waits for heartbeats that do not come, two minutes")
def test_the_run_of_a_dead_worker_is_crashed_and_missed_runs_become_one(
    tmp_path: Path, database: Path
) -> None:
    stages = "stages:\n  score:\n    cmd: touch begun && sleep 600\n    outs: [out]\n"
    root = dvc_repository(tmp_path / "home", stages, database)
    given = {
        "PREFECT_API_URL": server.ensure(root, idle_minutes=9).api,
        "PREFECT_HOME": str(server.home(root)),
        server.AUTH: server.auth_path(root).read_text(),
    }
    tree = worktree.place(root, nightly.WORKTREE)
    try:
        assert run(tmp_path, "hqsam", "deploy", **given).returncode == 0
        code = (
            "from datetime import UTC, datetime, timedelta\n"
            "from prefect.deployments import run_deployment\n"
            "for n in (3, 2): run_deployment('nightly/hqsam', timeout=0,"
            " scheduled_time=datetime.now(UTC) - timedelta(minutes=n))"
        )
        assert run(tmp_path, "python", "-c", code, **given).returncode == 0
        words = ["prefect", "worker", "start", "--pool", "hqsam", "--name", "test"]
        with (tmp_path / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                words,
                cwd=tmp_path,
                env=environment(root, HQSAM_CHECKOUT=str(root), **given),
                stdout=log,
                stderr=log,
            )
        try:
            assert wait_until((tree / "begun").exists, 180), (tmp_path / "worker.log").read_text()
            shown = "[r.name, r.state_type, r.deployment_id]"

            def one_is_left() -> bool:  # the worker submits the other one when it comes to it
                runs = on_server(root, "read_flow_runs(limit=50)", shown)
                states = {state for _, state, deployment in runs if deployment}
                return {"CANCELLED", "RUNNING"} <= states

            assert wait_until(one_is_left, 60)
        finally:  # as a power cut would
            family = psutil.Process(worker.pid).children(recursive=True)
            for process in (*family, worker):
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    process.kill()
        killed = time.monotonic()

        def crashed() -> bool:
            found = on_server(root, "read_flow_runs(limit=50)", "[r.state_type, r.deployment_id]")
            return any(state == "CRASHED" and owner for state, owner in found)

        while not crashed():
            assert time.monotonic() - killed < 150
            time.sleep(5)
        assert time.monotonic() - killed < 130
    finally:
        host_client.stop(tree)
        server.stop(root)
