"""The stage host with real processes: a run there looks like a run here, and ends with its caller."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hqsam_base.errors import UserError
from hqsam_base.locks import is_held
from hqsam_pipelines.config import env
from hqsam_pipelines.runner import host_client
from tests import REPOSITORY
from tests.pipelines.working_copy import (
    NOBODY,
    as_another_user,
    bare_repository,
    environment,
    needs_root,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the stage host is for Linux; elsewhere stages run in place"
)

WORK = """
import os, signal, sys, time
from pathlib import Path

def main(argv):
    what = argv[0]
    if what == "tell":
        from hqsam_pipelines.runner import clock, host_client
        parent = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode()
        print(host_client.inside, os.environ.get("COLOUR"), Path.cwd().name, "runner.host" in parent, VERSION, argv[1:])
        print("to stderr", file=sys.stderr)
        return 7
    if what == "read":
        print(sys.stdin.read().upper(), end="")
        return 0
    if what == "pipe":
        import socket
        ours, theirs = socket.socketpair()
        theirs.close()
        try:
            os.write(ours.fileno(), b"x")
        except BrokenPipeError:
            child = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGPIPE).name)"]
            import subprocess
            print(subprocess.run(child, capture_output=True, text=True).stdout.strip())
            return 0
    if what == "raise":
        raise RuntimeError("a bug")
    if what == "exit":
        sys.exit("a message")
    if what == "wait":
        Path(argv[1]).write_text(str(os.getpid()))
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            Path(argv[1] + ".interrupted").touch()
            return 130
    if what == "tables":
        import numpy, pandas
        frame = pandas.DataFrame({"x": numpy.arange(1000.0)})
        frame.to_parquet(argv[1])
        print(pandas.read_parquet(argv[1])["x"].sum())
        return 0
    if what == "torch":
        import torch
        torch.set_num_threads(2)
        print(float((torch.ones(300, 300) @ torch.ones(300, 300)).sum()))
        return 0

VERSION = 1
"""

CALL = """
import sys
from pathlib import Path
from hqsam_pipelines.config import env; from hqsam_pipelines.runner import host_client
env.prepare()
status = host_client.run(Path(sys.argv[1]), "hqsam_work:main", sys.argv[2:])
sys.exit(99 if status is None else status)
"""
NO_HOST = 99


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = bare_repository(tmp_path_factory.mktemp("checkout"))
    (folder / "hqsam_work.py").write_text(WORK)
    yield folder
    end = time.monotonic() + 20
    while is_held(folder / ".hqsam" / "host.lock") and time.monotonic() < end:
        host_client.stop(folder)
        time.sleep(0.1)
    assert not is_held(folder / ".hqsam" / "host.lock")


def start(root: Path, *words: str, **extra: str) -> subprocess.Popen[str]:
    kept = environment(REPOSITORY, **extra)
    kept["PYTHONPATH"] = os.pathsep.join([str(root), kept["PYTHONPATH"]])
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", CALL, str(root), *words]
    return subprocess.Popen(
        command, env=kept, cwd=root, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def call(root: Path, *words: str, text: str = "", **extra: str) -> tuple[int, str, str]:
    """The result of a run in the host, which the first call of all starts."""
    for _ in range(100):
        process = start(root, *words, **extra)
        out, err = process.communicate(text, timeout=120)
        if process.returncode != NO_HOST:
            return process.returncode, out, err
        time.sleep(0.2)
    raise AssertionError("no host came up")


def wait_until(true: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not true():
        time.sleep(0.05)
    return true()


def test_a_run_has_the_callers_arguments_environment_folder_streams_and_status(root: Path) -> None:
    status, out, err = call(root, "tell", "a b", "c", COLOUR="green")
    assert out == f"True green {root.name} True 1 ['a b', 'c']\n"
    assert (status, err) == (7, "to stderr\n")
    assert call(root, "read", text="hello") == (0, "HELLO", "")


def test_edited_code_is_never_stale(root: Path) -> None:
    assert " 1 [" in call(root, "tell")[1]
    (root / "hqsam_work.py").write_text(WORK.replace("VERSION = 1", "VERSION = 22"))
    try:
        assert " 22 [" in call(root, "tell")[1]
    finally:
        (root / "hqsam_work.py").write_text(WORK)


def test_a_connection_that_the_other_side_closes_is_an_exception_and_not_the_end(
    root: Path,
) -> None:
    """SIGPIPE as Python has it, in the fork and in a Python program that it starts: else a training ends with -13."""
    assert call(root, "pipe") == (0, "SIG_IGN\n", "")


def test_errors_look_like_errors_here(root: Path) -> None:
    status, _, err = call(root, "raise")
    assert status == 1
    assert "RuntimeError: a bug" in err
    assert call(root, "exit")[0] == 1


def test_tables_and_tensors_work_in_a_fork(root: Path, tmp_path: Path) -> None:
    for turn in range(3):
        assert call(root, "tables", str(tmp_path / f"{turn}.parquet"))[:2] == (0, "499500.0\n")
        assert call(root, "torch")[:2] == (0, "27000000.0\n")


def _begun(root: Path, mark: Path) -> tuple[subprocess.Popen[str], int]:
    call(root, "tell")
    process = start(root, "wait", str(mark))
    assert wait_until(lambda: mark.exists() and mark.read_text() != "")
    return process, int(mark.read_text())


def _gone(pid: int) -> bool:
    return wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_signals_reach_the_run(root: Path, tmp_path: Path) -> None:
    process, pid = _begun(root, tmp_path / "int")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert (tmp_path / "int.interrupted").exists()
    assert _gone(pid)
    process, pid = _begun(root, tmp_path / "term")
    process.terminate()
    assert process.wait(30) == -signal.SIGTERM
    assert _gone(pid)


def test_a_run_ends_when_its_caller_is_killed(root: Path, tmp_path: Path) -> None:
    process, pid = _begun(root, tmp_path / "mark")
    process.kill()
    process.wait()
    assert _gone(pid)


@pytest.mark.parametrize(
    "request_of", [b"{", b"[1]", b"{}", b"[" * 100_000, b'{"fingerprint": 5}', None]
)
def test_a_client_that_says_something_else_ends_no_run(
    root: Path, tmp_path: Path, request_of: bytes | None
) -> None:
    process, pid = _begun(root, tmp_path / "mark")
    link = host_client.connect(root)
    assert link is not None
    streams = [os.open(os.devnull, os.O_RDONLY)] * (3 if request_of is not None else 1)
    with link:
        if request_of is not None:
            streams.append(os.memfd_create("request"))
            os.write(streams[-1], request_of)
        socket.send_fds(link, [host_client.RUN], streams)
        assert link.recv(64) == b"", "it hangs up"
    for stream in {*streams}:
        os.close(stream)
    assert host_client.lives(pid)
    process.terminate()
    assert process.wait(30) == -signal.SIGTERM
    assert "Traceback" not in (root / ".hqsam" / "host.log").read_text()


def test_another_environment_gets_another_host(root: Path) -> None:
    assert call(root, "tell")[0] == 7
    log = root / ".hqsam" / "host.log"
    before = log.read_text().count("begins")
    assert call(root, "tell", OMP_NUM_THREADS="3")[0] == 7
    assert "another environment" in log.read_text()
    assert log.read_text().count("begins") == before + 1


def test_a_run_whose_host_dies_begins_again_in_its_caller(root: Path, tmp_path: Path) -> None:
    process, pid = _begun(root, tmp_path / "mark")
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    _out, err = process.communicate(timeout=30)
    assert process.returncode == NO_HOST, "which is where stages and DVC run in this process"
    assert "the stage host died; the run begins again" in err
    assert not host_client.lives(pid), "two runs at once"
    assert call(root, "tell")[0] == 7


def test_it_can_be_switched_off(root: Path) -> None:
    call(root, "tell")
    process = start(root, "tell", HQSAM_HOST="0")
    process.communicate(timeout=60)
    assert process.returncode == NO_HOST


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    folder = bare_repository(tmp_path / ("d" * 120))
    (folder / "hqsam_work.py").write_text(WORK)
    try:
        assert call(folder, "tell")[0] == 7
    finally:
        host_client.stop(folder)
    assert wait_until(lambda: not is_held(folder / ".hqsam" / "host.lock"))


@needs_root
def test_another_user_is_refused_by_the_host_whatever_the_modes_allow(open_folder: Path) -> None:
    folder = bare_repository(open_folder / "checkout")
    (folder / "hqsam_work.py").write_text(WORK)
    door = folder / ".hqsam" / "host.sock"

    def knock() -> str:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.settimeout(30)
        link.connect(str(door))
        try:
            link.send(host_client.QUIT)
            return f"answer {link.recv(64)!r}"
        except ConnectionError:  # it hung up before it read
            return "answer b''"

    try:
        assert call(folder, "tell")[0] == 7
        assert stat.S_IMODE(door.parent.stat().st_mode) == 0o700
        assert "PermissionError" in as_another_user(knock)
        door.parent.chmod(0o755)
        door.chmod(0o666)
        assert as_another_user(knock) == "answer b''"
        log = (folder / ".hqsam" / "host.log").read_text()
        assert f"refused a connection of user {NOBODY}" in log and "asked to" not in log
        assert call(folder, "tell")[0] == 7
        assert (folder / ".hqsam" / "host.log").read_text().count("begins") == log.count("begins")
    finally:
        host_client.stop(folder)
    assert wait_until(lambda: not is_held(folder / ".hqsam" / "host.lock"))


@needs_root
def test_the_host_of_another_user_gets_no_request(open_folder: Path) -> None:
    folder = bare_repository(open_folder / "checkout")
    state = env.make_state_dir(folder)
    state.chmod(0o777)

    def pretend() -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.bind(str(state / "host.sock"))
            door.listen()
            door.settimeout(30)
            return f"heard {door.accept()[0].recv(64)!r}"

    with ThreadPoolExecutor() as pool:
        heard = pool.submit(as_another_user, pretend)
        assert wait_until((state / "host.sock").exists)
        assert host_client.connect(folder) is None
        assert heard.result() == "heard b''"


def test_the_state_folder_is_its_owners_alone(tmp_path: Path) -> None:
    folder = bare_repository(tmp_path / "checkout")
    assert stat.S_IMODE(env.make_state_dir(folder).stat().st_mode) == 0o700
    (folder / ".hqsam").chmod(0o775)  # made by an earlier version
    assert stat.S_IMODE(env.make_state_dir(folder).stat().st_mode) == 0o700


@needs_root
def test_a_state_folder_that_somebody_else_made_is_refused(tmp_path: Path) -> None:
    folder = bare_repository(tmp_path / "checkout")
    os.chown(env.make_state_dir(folder), NOBODY, NOBODY)
    with pytest.raises(UserError, match=f"another user .number {NOBODY}.") as caught:
        env.make_state_dir(folder)
    assert caught.value.file == str(folder / ".hqsam") and caught.value.cure
