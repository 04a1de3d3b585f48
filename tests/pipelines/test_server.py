"""The local server's life with real processes: one start, reuse, stop, idle end, sudden death, a repository that vanishes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hqsam_base.errors import UserError
from hqsam_base.locks import FileLock, is_held, locked
from hqsam_pipelines.runner import flows, server
from tests import REPOSITORY
from tests.pipelines.working_copy import bare_repository, environment

USE = """
import sys, time
from pathlib import Path
from hqsam_pipelines.runner import flows, server
with server.running(Path(sys.argv[1])) as found:
    print(found.pid, found.api, found.started_now, flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def root(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in list(os.environ):
        if name.startswith(("PREFECT_API", "HQSAM_SERVER")):
            monkeypatch.delenv(name)
    folder = bare_repository(tmp_path / "checkout")
    shutil.copytree(database, server.home(folder))
    yield folder
    if folder.exists():
        server.stop(folder)


def user(root: Path, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", USE, str(root), str(seconds)]
    kept = environment(REPOSITORY)
    return subprocess.Popen(words, env=kept, stdout=subprocess.PIPE, text=True)


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.1)
    return False


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_four_users_at_once_start_one_server_which_outlives_them(root: Path) -> None:
    users = [user(root, 0.2) for _ in range(4)]
    lines = [process.communicate(timeout=60)[0].split() for process in users]
    assert len({(line[0], line[1]) for line in lines}) == 1
    assert [line[2] for line in lines].count("True") == 1
    found = server.status(root)
    assert found is not None
    assert found.pid == int(lines[0][0])
    assert server.stop(root)
    assert server.status(root) is None
    assert not alive(found.pid)
    assert not server.stop(root)


def test_the_home_lies_in_the_checkout_and_the_port_is_kept(root: Path) -> None:
    first = server.ensure(root)
    assert (root / ".hqsam" / "prefect" / "prefect.db").exists()
    assert server.stop(root)
    server.note_path(root).write_text(json.dumps({"pid": 1, "port": int(first.page.rpartition(":")[2])}))
    assert server.ensure(root).api == first.api


def test_a_killed_server_is_replaced_in_spite_of_its_note(root: Path) -> None:
    first = server.ensure(root)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    assert wait_until(lambda: not is_held(server.lock_path(root)), 10)
    assert server.read_note(root) is not None  # stale
    assert server.status(root) is None
    second = server.ensure(root)
    assert second.pid != first.pid
    assert server.healthy(second.api)


def test_a_taken_port_and_a_damaged_note_do_no_harm(root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server.note_path(root).write_text(json.dumps({"pid": os.getpid(), "port": port}))
        assert server.status(root) is None  # the note alone proves nothing
        found = server.ensure(root)
        assert found.page != f"http://127.0.0.1:{port}"
    assert server.stop(root)
    server.note_path(root).write_text("{not json")
    assert server.status(root) is None
    assert server.ensure(root).started_now


def test_an_idle_server_ends_itself_but_never_under_a_user(root: Path) -> None:
    found = server.ensure(root, idle_minutes=2 / 60)
    busy = user(root, 6)
    assert busy.stdout is not None
    assert busy.stdout.readline().split()[0] == str(found.pid)
    time.sleep(4)
    assert server.status(root) is not None
    busy.communicate(timeout=30)
    assert wait_until(lambda: server.status(root) is None, 15)
    assert wait_until(lambda: not is_held(server.lock_path(root)), 15)
    assert found.pid is not None
    assert wait_until(lambda: not alive(found.pid or 0), 10)


def test_a_server_ends_when_its_checkout_vanishes(root: Path) -> None:
    found = server.ensure(root)
    assert found.pid is not None
    shutil.rmtree(root)
    assert wait_until(lambda: not alive(found.pid or 0), 20)


def test_a_given_server_is_used_and_nothing_is_started(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with server.running(root) as found:
        assert found.api == "http://127.0.0.1:9/api"
        assert not found.ours
    assert not is_held(server.lock_path(root))
    assert not server.log_path(root).exists()


def test_a_server_that_cannot_start_is_one_message_with_the_log(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(server.home(root))
    server.home(root).write_text("a file where a folder must be")
    with pytest.raises(UserError, match=r"server\.log"):
        server.ensure(root)


def test_a_lock_is_dropped_by_the_death_of_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from hqsam_base.locks import FileLock;"
        "lock = FileLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_held(path)
    with pytest.raises(TimeoutError), locked(path, timeout=0.1):
        pass
    holder.kill()
    holder.wait()
    with locked(path, timeout=5):
        assert not FileLock(path, shared=True).acquire(0)
    with locked(path, shared=True, timeout=0), locked(path, shared=True, timeout=0):
        assert not FileLock(path).acquire(0)


def test_a_server_of_the_caller_that_does_not_answer_is_one_message(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for api in ("http://127.0.0.1:9/api", "127.0.0.1:4200"):
        monkeypatch.setenv("PREFECT_API_URL", api)
        spec = flows.FlowSpec(verb="fetch", run_name="fetch-x", parameters={})
        with pytest.raises(UserError, match="the Prefect server does not answer") as caught:
            flows.run_flow(spec, lambda progress: pytest.fail("the work began"), root=root)
        assert api in str(caught.value) and "unset the variable" in str(caught.value)
    with pytest.raises(RuntimeError, match="of the stage"), server.running(root):
        raise RuntimeError("of the stage")


GONE = """
import os, signal, sys
from pathlib import Path
from hqsam_pipelines.runner import flows

def work(report):
    os.kill(int(sys.argv[2]), signal.SIGKILL)
    return "result"

spec = flows.FlowSpec(verb="train", run_name="train-x", parameters={})
print(flows.run_flow(spec, work, root=Path(sys.argv[1])))
"""


def test_a_result_is_not_lost_with_the_callers_server(root: Path, tmp_path: Path) -> None:
    """A checkout's own server is started again; the one that the caller names is not ours to start."""
    found, other = server.ensure(root), bare_repository(tmp_path / "other")
    extra = {"PREFECT_API_URL": found.api, "PREFECT_CLIENT_MAX_RETRIES": "0"}
    words = [sys.executable, "-c", GONE, str(other), str(found.pid)]
    kept = environment(REPOSITORY, **extra)
    done = subprocess.run(words, env=kept, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "result"
    assert "train-x: the work is done, but the Prefect server could not be told" in done.stderr


def test_no_secret_of_an_address_reaches_the_database(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    address = "https://me:passw0rd@127.0.0.1/a.zip?signature=s1gned"
    spec = flows.FlowSpec(verb="fetch", run_name="fetch-x", parameters={"archives": "x"})
    for error in (UserError("refused", key=address), RuntimeError(f"refused by {address}")):

        def work(report: object, error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            flows.run_flow(spec, work, root=root)
        assert caught.value is error, "the caller gets the exception itself"
    server.stop(root)
    stored = b"".join(path.read_bytes() for path in server.home(root).rglob("*") if path.is_file())
    printed = "".join(capfd.readouterr())
    assert b"https://***@127.0.0.1/a.zip?signature=***" in stored
    for secret in ("passw0rd", "s1gned"):
        assert secret.encode() not in stored and secret not in printed
