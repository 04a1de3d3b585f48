"""The local server's life with real processes: one start, reuse, stop, idle end, sudden death, a repository that vanishes."""

from __future__ import annotations

import base64
import http.server
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from websockets import ConnectionClosed, Subprotocol
from websockets.sync.client import ClientConnection, connect

from hqsam_base.errors import UserError
from hqsam_base.locks import FileLock, is_held, locked
from hqsam_pipelines.runner import doctor, flows, host, host_client, server, server_daemon
from hqsam_pipelines.runner.server_address import Server, healthy
from tests import REPOSITORY
from tests.pipelines.working_copy import as_another_user, bare_repository, environment, needs_root

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


@pytest.mark.full("five starts of Prefect for a lock that tests of its own hold to one")
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


def test_a_server_comes_back_after_its_death_a_taken_port_and_damaged_notes_and_ends_with_its_checkout(
    root: Path,
) -> None:
    """One life with three starts, each of which costs seconds of processor time."""
    server.note_path(root).write_text("{not json")
    assert server.status(root) is None
    first = server.ensure(root)
    assert first.started_now and first.pid is not None
    assert (root / ".hqsam" / "prefect" / "prefect.db").exists()

    os.kill(first.pid, signal.SIGKILL)
    assert wait_until(lambda: not is_held(server.lock_path(root)), 10)
    assert server.read_note(root) is not None  # stale
    assert server.status(root) is None
    second = server.ensure(root)
    assert second.pid != first.pid and second.api == first.api, (
        "another process at the port that pages are open on"
    )
    assert healthy(second.api)
    assert server.stop(root)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server.note_path(root).write_text(json.dumps({"pid": os.getpid(), "port": port}))
        assert server.status(root) is None  # the note alone proves nothing
        third = server.ensure(root)
        assert third.page != f"http://127.0.0.1:{port}"

    # The checkout is removed, in the order of a removal that takes a while: nothing that reads,
    # watches or ends brings a folder back.
    assert third.pid is not None
    shutil.rmtree(root / ".hqsam")
    assert server.status(root) is None and server.read_note(root) is None
    assert not server.stop(root) and not host_client.stop(root)
    assert host.main([str(root)]) == server_daemon.main([str(root), "0", "1"]) == 0
    assert wait_until(lambda: not alive(third.pid or 0), 20)
    assert sorted(path.name for path in root.iterdir()) == ["dvc.yaml", "params.yaml"]


def starting(root: Path) -> bool:
    return is_held(server.lock_path(root)) and server.lock_path(root).read_text() != ""


@pytest.mark.full(
    "deaths in the seconds of a start, with four starts of Prefect; nothing of a run is lost"
)
def test_a_server_whose_starter_or_itself_was_killed_in_its_start_stops_nobody(root: Path) -> None:
    """The half-started one is waited for and taken; one that is killed is started again; a stale note tells nobody a port."""
    server.note_path(root).write_text(json.dumps({"pid": 1, "port": 1}))
    starter = user(root, 60)
    assert wait_until(lambda: starting(root), 30)
    starter.kill()
    assert server.read_note(root) is None, "it would lead to the port of a server that is gone"
    half_started = int(server.lock_path(root).read_text())
    found = server.ensure(root)
    assert (found.pid, found.started_now) == (half_started, False)

    # Its note goes before its door closes: whoever opens one there is sent no password.
    port = int(found.page.rpartition(":")[2])
    os.kill(half_started, signal.SIGTERM)

    while server.read_note(root) or is_held(server.lock_path(root)):
        with socket.socket() as door:
            closed = door.connect_ex(("127.0.0.1", port)) != 0

        assert not (closed and server.read_note(root)), "the note outlived the door"

    second = user(root, 0)
    assert wait_until(lambda: starting(root), 30)
    killed = int(server.lock_path(root).read_text())
    os.kill(killed, signal.SIGKILL)
    out, _ = second.communicate(timeout=60)
    assert second.returncode == 0 and int(out.split()[0]) not in (killed, half_started)


DEATHS = """
import os, signal, sys, time
from pathlib import Path
from hqsam_pipelines.runner import flows, server

root, drive, calls = Path(sys.argv[1]), flows._drive, []

def end_server():
    os.kill(server.status(root).pid, signal.SIGKILL)

def death_before_the_first_request(run):
    if not calls:
        calls.append("death")
        end_server()
    drive(run)

def work(progress):
    calls.append("work")
    end_server()
    time.sleep(0.2)
    return "result"

flows._drive = death_before_the_first_request
spec = flows.FlowSpec(verb="train", run_name="train-x", parameters={})
print(flows.run_flow(spec, work, root=root), calls)
from prefect.client.orchestration import get_client
with server.running(root):
    flows.refresh_settings()
    with get_client(sync_client=True) as client:
        print([run.state_name for run in client.read_flow_runs() if run.name == "train-x"][-1])
"""


def test_the_death_of_the_server_ends_no_stage_and_does_no_work_twice(root: Path) -> None:
    words = [sys.executable, "-c", DEATHS, str(root)]
    kept = environment(REPOSITORY)
    done = subprocess.run(words, env=kept, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["result ['death', 'work']", "Completed"], done.stderr
    assert "the Prefect server died; it is started again" in done.stderr
    assert "Traceback" not in done.stderr and "could not be told" not in done.stderr


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


ASK = """
import sys
from pathlib import Path
from hqsam_pipelines.config import env
from hqsam_pipelines.runner import server
env.prepare()
with server.running(Path(sys.argv[1])):
    from prefect.client.orchestration import get_client
    with get_client(sync_client=True) as client:
        print(client.hello().json())
"""


@pytest.mark.full("a start of Prefect for two variables of the environment")
def test_this_machine_is_asked_without_the_proxy_and_others_through_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ensure(root)
    proxies = dict.fromkeys(
        ("HTTP_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9"
    )  # nothing listens there
    kept = environment(REPOSITORY, **proxies, no_proxy="intranet.example")
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(root)],
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    asked: list[str] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"true")

    with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        assert healthy("http://prefect.example:4200/api")
        proxy.shutdown()
    assert asked == ["http://prefect.example:4200/api/health"]


def test_an_address_that_is_none_of_an_api_is_told_for_what_it_is(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = server.ensure(root)
    assert healthy(f"{found.api}/") and not healthy(found.page)  # a page, not an answer
    for address, message in (
        (found.page, r"pages; its API has /api at the end"),
        (f"{found.page}/dashboard", r"pages; its API has /api at the end"),
        (found.api.removeprefix("http://"), "no http:// or https://"),
        ("localhost:4200/api", "no http:// or https://"),
        ("http://127.0.0.1:PORT/api", "no host, or an invalid port"),
        ("http://[::1/api", "no host, or an invalid port"),
        ("https:///api", "no host, or an invalid port"),
    ):
        monkeypatch.setenv("PREFECT_API_URL", address)
        for call in (lambda: server.status(root), lambda: server.running(root).__enter__()):
            with pytest.raises(UserError, match=message) as caught:
                call()
            assert caught.value.key == "PREFECT_API_URL" and "/api" in str(caught.value.cure)
        [finding] = doctor._server(root)
        assert finding.level == "fail" and "/api" in finding.detail
    monkeypatch.setenv("PREFECT_API_URL", found.api.replace("http://", "https://"))
    with pytest.raises(UserError, match="does not answer") as caught, server.running(root):
        raise RuntimeError("Failed to reach API at ...")  # what Prefect raises there
    assert caught.value.cure == f"set it to {found.api}, where one answers"


def test_a_given_server_is_used_and_nothing_is_started(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with server.running(root) as found:
        assert found.api == "http://127.0.0.1:9/api"
        assert not found.ours
    assert not is_held(server.lock_path(root))
    assert not server.log_path(root).exists()


@pytest.mark.full(
    "a start of Prefect, to fail; that no server is one message is tested below, without one"
)
def test_a_server_that_cannot_start_is_one_message_with_the_log(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(server.home(root))
    server.home(root).write_text("a file where a folder must be")
    with pytest.raises(UserError, match=r"server\.log"):
        server.ensure(root)


def get(api: str, path: str, *, auth: str | None = None, **headers: str) -> tuple[int, str | None]:
    """The status of a request to the server, and whose pages may read the answer."""
    request = urllib.request.Request(f"{api}{path}", headers=headers)
    if auth is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(auth.encode()).decode())
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=30
        ) as answer:
            return answer.status, answer.headers.get("Access-Control-Allow-Origin")
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Access-Control-Allow-Origin")


def test_the_server_answers_who_knows_the_password_on_this_machine_and_no_other_page(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = server.ensure(root)
    password = server.auth_path(root).read_text()
    assert stat.S_IMODE(server.auth_path(root).stat().st_mode) == 0o600 and len(password) > 40
    assert get(found.api, "/version", auth=password)[0] == 200
    assert [
        get(found.api, "/version", auth=wrong)[0] for wrong in (None, "", "hqsam:", password[:-1])
    ] == [401] * 4
    port = found.page.rpartition(":")[2]
    for name in ("evil.example", f"evil.example:{port}", "10.0.0.1", "127.0.0.1.evil.example", ""):
        assert get(found.api, "/version", auth=password, Host=name)[0] == 400, name
        assert get(found.page, "/", Host=name)[0] == 400, name
    assert get(found.page, "/", Host=f"localhost:{port}")[0] == 200
    for origin, allowed in (
        (found.page, found.page),
        ("http://evil.example", None),
        ("null", None),
    ):
        assert get(found.api, "/version", auth=password, Origin=origin) == (200, allowed)

    with pytest.raises(ConnectionClosed), websocket(found, "guess") as link:
        link.recv(30)
    with websocket(found, password) as link:
        assert json.loads(link.recv(30))["type"] == "auth_success"
    process = psutil.Process(found.pid)
    doors = [
        c.laddr.ip
        for p in (process, *process.children(True))
        for c in p.net_connections()
        if c.status == "LISTEN"
    ]
    assert doors == ["127.0.0.1"]

    monkeypatch.setenv("PREFECT_API_URL", found.api)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:wrong")
    spec = flows.FlowSpec(verb="fetch", run_name="fetch-x", parameters={})
    with pytest.raises(UserError, match="refuses the password") as caught:
        flows.run_flow(spec, lambda report: pytest.fail("the work began"), root=root)
    assert caught.value.key == "PREFECT_API_AUTH_STRING" and caught.value.cure
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", password)
    spec.figures["images_per_s"] = 2.5
    assert flows.run_flow(spec, lambda report: "done", root=root) == "done"
    words = {"json": {}, "auth": httpx.BasicAuth(*password.split(":", 1))}
    [shown] = httpx.post(f"{found.api}/artifacts/filter", **words).json()
    assert shown["key"] == "fetch-x-table"
    assert "2.5" in [row["value"] for row in json.loads(shown["data"])]


def websocket(found: Server, token: str) -> ClientConnection:
    link = connect(
        f"ws{found.api.removeprefix('http')}/logs/out",
        subprotocols=[Subprotocol("prefect")],
        proxy=None,
    )
    link.send(json.dumps({"type": "auth", "token": token}))
    return link


@needs_root
def test_another_user_of_the_machine_is_refused(open_folder: Path, database: Path) -> None:
    root = bare_repository(open_folder / "checkout")
    shutil.copytree(database, server.home(root))
    found = server.ensure(root)
    try:
        assert (
            as_another_user(lambda: str(get(found.api, "/health")[0])) == "200"
        )  # it reaches the port
        assert as_another_user(lambda: str(get(found.api, "/admin/settings")[0])) == "401"
        path = server.auth_path(root)
        assert "PermissionError" in as_another_user(path.read_text)
        path.parent.chmod(0o755)  # somebody widened it: the file itself is closed, too
        assert "PermissionError" in as_another_user(path.read_text)
    finally:
        server.stop(root)


@needs_root
def test_no_other_user_can_listen_at_the_servers_port_before_it_answers() -> None:
    with server_daemon._open_door(0) as door, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def listen() -> str:
            other.bind(door.getsockname())
            other.listen()
            return "listens"

        assert "Address already in use" in as_another_user(listen)


def test_a_password_of_the_users_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:my own")
    found = server.ensure(root)
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING")
    assert get(found.api, "/version", auth="me:my own")[0] == 200
    assert server.auth_path(root).read_text() == "me:my own"
    spec = flows.FlowSpec(verb="fetch", run_name="fetch-x", parameters={})
    assert (
        flows.run_flow(spec, lambda report: os.environ["PREFECT_API_AUTH_STRING"], root=root)
        == "me:my own"
    )
    assert server.stop(root)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:pässword")
    with pytest.raises(UserError, match="not ASCII"):
        server.ensure(root)


def test_a_lock_is_dropped_by_the_death_of_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from hqsam_base.locks import FileLock;"
        "lock = FileLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); "
        "time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
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
    for api in ("http://127.0.0.1:9/api", "http://127.0.0.1:9"):
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
    extra["PREFECT_API_AUTH_STRING"] = server.auth_path(root).read_text()
    words = [sys.executable, "-c", GONE, str(other), str(found.pid)]
    kept = environment(REPOSITORY, **extra)
    done = subprocess.run(words, env=kept, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "result"
    assert "train-x: the work is done, but the Prefect server could not be told" in done.stderr


def test_no_secret_of_an_address_reaches_the_database(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
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
