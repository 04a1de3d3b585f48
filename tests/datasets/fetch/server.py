"""A real HTTP server on the loopback interface that misbehaves on demand."""

from __future__ import annotations

import contextlib
import hashlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """What the server does with one path."""

    body: bytes
    ranges: bool = True
    etag: str | None = ""  # "" = derived from the body, None = no validator at all
    cut: Callable[[int], int | None] = lambda request: None  # bytes to send before hanging up
    status: Callable[[int], int] = lambda request: 200
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None  # a lie about the length
    requests: list[dict[str, str]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    routes: dict[str, Behaviour]

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        what = self.routes.get(path)
        if what is None:
            self.send_error(404)
            return
        number = len(what.requests)
        what.requests.append(dict(self.headers))
        status = what.status(number)
        if status != 200:
            self.send_response(status)
            for name, value in what.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(what, number)

    def _send(self, what: Behaviour, number: int) -> None:
        etag = what.etag if what.etag != "" else f'"{hashlib.md5(what.body).hexdigest()}"'
        start, end = self._range(what, etag)
        if start is not None and start >= len(what.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(what.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = what.body[start or 0 : end]
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(what.body)}")
        if etag:
            self.send_header("ETag", etag)
        self.send_header(
            "Content-Length", str(len(body) if what.announced is None else what.announced)
        )
        for name, value in what.headers.items():
            self.send_header(name, value)
        self.end_headers()
        cut = what.cut(number)
        with contextlib.suppress(OSError):
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None or what.announced is not None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.wfile.flush()
                self.connection.shutdown(2)

    def _range(self, what: Behaviour, etag: str | None) -> tuple[int | None, int]:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if not match or not what.ranges or (condition is not None and condition != etag):
            return None, len(what.body)
        return int(match[1]), min(int(match[2]) + 1, len(what.body)) if match[2] else len(what.body)


@contextlib.contextmanager
def serving(routes: dict[str, Behaviour], *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve `routes` (path to behaviour) and give the base URL."""
    handler = type("Handler", (_Handler,), {"routes": routes})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is what is tested
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield f"http{'s' * (tls is not None)}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
