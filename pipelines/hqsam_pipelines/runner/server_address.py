"""The address of a Prefect server's API: whether one answers there, and what is wrong with one that the caller names."""

from __future__ import annotations

import contextlib
import http.client
import os
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from hqsam_base.errors import UserError
from hqsam_pipelines.config import env

SERVER_AUTH, AUTH = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"
"""The variables by which Prefect's server and its clients learn the password."""


@dataclass(frozen=True)
class Server:
    """A reachable Prefect server: `api` is its API address, `page` its user interface, `ours` whether we run it."""

    api: str
    ours: bool
    pid: int | None = None
    started_now: bool = False

    @property
    def page(self) -> str:
        """The address that a person opens in a browser."""
        return self.api.removesuffix("/").removesuffix("/api")


def healthy(api: str, timeout: float = 2.0) -> bool:
    """Whether a Prefect server answers at `api` (`http://host:port/api`)."""
    try:
        direct = env.is_loopback(urllib.parse.urlsplit(api).hostname or "")
        opener = urllib.request.build_opener(*[urllib.request.ProxyHandler({})] * direct)
        with opener.open(f"{api.rstrip('/')}/health", timeout=timeout) as answer:
            # A server's pages answer every address, also one without /api, with a page.
            return bool(answer.status == 200 and not answer.read(64).lstrip().startswith(b"<"))
    except (OSError, ValueError, http.client.HTTPException):
        return False


def given() -> Server | None:
    """The server that PREFECT_API_URL names, or None where it names none.

    Raises:
        UserError: it is not an address of a server's API: without http:// or https://, host, or the
            /api at its end.
    """
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        return None
    cure = "set it to http://HOST:PORT/api, or to what your server's settings name"
    if not api.startswith(("http://", "https://")):
        raise UserError(
            "the address has no http:// or https://", file=api, key="PREFECT_API_URL", cure=cure
        )
    try:
        parts = urllib.parse.urlsplit(api)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that are not closed, or a port that is not a number up to 65535
        has_host = False
    if not has_host:
        raise UserError(
            "the address has no host, or an invalid port",
            file=api,
            key="PREFECT_API_URL",
            cure=cure,
        )
    if "api" not in parts.path.split("/") and (right := _right_address(api)):
        problem = "this is the address of the server's pages; its API has /api at the end"
        raise UserError(problem, file=api, key="PREFECT_API_URL", cure=f"set it to {right}")
    return Server(api=api, ours=False)


def _right_address(api: str) -> str | None:
    """The address near a wrong one at which a server does answer: with /api, for that of a page, or with the other scheme."""
    scheme, rest = api.rstrip("/").split("://", 1)
    other = {"http": "https", "https": "http"}[scheme]
    near = [
        f"{scheme}://{rest}/api",
        f"{scheme}://{rest.partition('/')[0]}/api",
        f"{other}://{rest}",
    ]
    return next((address for address in near if healthy(address)), None)


@contextlib.contextmanager
def refusal_is_user_error(api: str) -> Iterator[None]:
    """Turn what Prefect raises where the server at `api` refuses or does not answer into a message for a person."""
    try:
        yield
    except Exception as error:
        response = getattr(error, "response", None)  # of httpx, which is not imported for this
        if getattr(response, "status_code", None) == 401 and str(response.url).startswith(api):  # type: ignore[union-attr]
            cure = (
                f"set {AUTH} to the server's password; of a checkout's own server that is the "
                f"content of .hqsam/server.auth"
            )
            raise UserError(
                "the Prefect server refuses the password", file=api, key=AUTH, cure=cure
            ) from None
        request = getattr(error, "_request", None)  # of httpx's errors of the connection
        lost = request is not None and str(request.url).startswith(api) and response is None
        if not lost and "Failed to reach API" not in str(error):
            raise
        right = _right_address(api)
        cure = "start that server, or unset the variable: a local one is then started"
        cure = f"set it to {right}, where one answers" if right else cure
        raise UserError(
            "the Prefect server does not answer", file=api, key="PREFECT_API_URL", cure=cure
        ) from error
