"""Real servers that tests of operations talk to: an S3 API, Postgres, and a line that can be cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@contextlib.contextmanager
def s3_server(bucket: str) -> Iterator[dict[str, str]]:
    """An S3 API with an empty bucket; gives the variables by which clients find it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    boto3.client(
        "s3",
        endpoint_url=given["AWS_ENDPOINT_URL"],
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    ).create_bucket(Bucket=bucket)
    try:
        yield given
    finally:
        server.stop()


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[dict[str, str] | None]:
    """A new server of Debian's package; gives the variables by which its administrator reaches it, None where none is installed.

    Args:
        folder: One that the user `postgres` can enter: the server refuses to run as root.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        yield None
        return
    programs, data = found[-1].parent, folder / "postgres"
    data.mkdir()
    owner = {}
    if os.geteuid() == 0:
        shutil.chown(data, "postgres", "postgres")
        owner = {"user": "postgres", "group": "postgres"}

    def call(*words: str | Path) -> None:
        subprocess.run(words, cwd=data, check=True, stdout=subprocess.DEVNULL, **owner)  # type: ignore[call-overload]

    auth = ("--auth-local=trust", "--auth-host=scram-sha-256")
    call(programs / "initdb", "-D", data / "base", "-U", "postgres", *auth)
    port = str(free_port())
    options = f"-k {data} -p {port} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = (programs / "pg_ctl", "-D", data / "base", "-w")
    call(*control, "-l", data / "log", "-o", options, "start")
    try:
        yield {"PGHOST": str(data), "PGPORT": port, "PGUSER": "postgres"}
    finally:
        call(*control, "-m", "immediate", "stop")


class Line:
    """A TCP line to a server that can be cut: once so many bytes of answers have passed, it closes under its user.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        passed: Bytes of answers so far.
        cut_at: When it is cut next, in bytes passed; None: not.
        cuts: How often it was.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self.passed = self.cuts = 0
        self.cut_at: int | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Listen no longer."""
        self._door.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._door.accept()
                far = socket.create_connection(("127.0.0.1", self._server))
                for source, target, answers in ((near, far, False), (far, near, True)):
                    work = (source, target, answers)
                    threading.Thread(target=self._pass, args=work, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                whole = self._let_through(len(data)) if answers else len(data)
                target.sendall(data[:whole])
                if whole < len(data):
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _let_through(self, n: int) -> int:
        """How many of the next bytes of answers pass; fewer than all where it is cut."""
        with self._lock:
            if self.cut_at is not None and self.passed + n > self.cut_at:
                n = max(0, self.cut_at - self.passed)
                self.cut_at = None
                self.cuts += 1
            self.passed += n
            return n
