"""HTTP downloads that survive bad networks and bad servers.

A body is appended to `<name>.part`; `<name>.part.json` remembers the validator (ETag or Last-Modified) it belongs to.
After a cut, or a kill, the next request asks for the rest with `Range` and `If-Range`: a server whose file has changed,
or that knows no ranges, answers 200 with the whole file and the part is begun anew.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import random
import re
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hqsam_datasets.atomic import write_json
from hqsam_datasets.errors import UserError

if TYPE_CHECKING:
    import httpx

CHUNK = 1 << 20
_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})

Progress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all or 0 if unknown)."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to give up and how long to wait.

    Attributes:
        attempts: requests in a row that may fail without a byte beyond the farthest point reached so far.
        base_s: upper bound of the first wait; it doubles with each failure. The wait is drawn uniformly
            between half of the bound and the bound, so that many clients do not come back at once.
        cap_s: largest bound.
        timeout_s: no byte for so long counts as a failure.
    """

    attempts: int = 6
    base_s: float = 1.0
    cap_s: float = 60.0
    timeout_s: float = 60.0

    def wait(self, failures: int, retry_after: float | None = None) -> float:
        """Seconds to wait after the n-th failure in a row; a server's Retry-After is honoured up to five minutes."""
        bound = min(self.cap_s, self.base_s * 2 ** (failures - 1))
        return max(random.uniform(bound / 2, bound), min(retry_after or 0.0, 300.0))


def _no_progress(done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """How one file is to be downloaded.

    Attributes:
        expected_bytes: known length; another announced length is refused.
        verified_later: the caller compares a known digest, so that a part may be resumed even where the server
            names no validator.
        policy: retries and waits.
        progress: told about every chunk.
        sleep: waits; tests replace it.
    """

    expected_bytes: int | None = None
    verified_later: bool = False
    policy: RetryPolicy = RetryPolicy()
    progress: Progress = _no_progress
    sleep: Callable[[float], None] = time.sleep


class DownloadError(Exception):
    """This mirror does not give the file; another one may."""


class _RetryError(Exception):
    """Worth another request to the same mirror."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


def download(url: str, part: Path, how: Transfer) -> None:
    """Bring `part` up to the whole body of `url`, resuming what is there; `<part>.json` tells what that is.

    Raises:
        DownloadError: if the mirror refuses, sends something else (HTML, another length), or fails too often.
        UserError: if the disk is full.
    """
    import httpx

    failures, farthest = 0, _size(part)
    limits = httpx.Timeout(how.policy.timeout_s)
    headers = {"Accept-Encoding": "identity"}
    with httpx.Client(timeout=limits, follow_redirects=True, headers=headers, verify=_tls()) as client:
        while True:
            try:
                _request(client, url, part, how)
            except (_RetryError, httpx.TransportError) as error:
                reached = _size(part)
                failures = 1 if reached > farthest else failures + 1
                farthest = max(farthest, reached)
                if failures >= how.policy.attempts:
                    text = f"gave up after {failures} failures in a row: {_describe(error)}"
                    raise DownloadError(text) from error
                how.sleep(how.policy.wait(failures, getattr(error, "retry_after", None)))
            except httpx.InvalidURL as error:
                raise DownloadError(f"not a valid URL: {error}") from error
            else:
                _state_file(part).unlink(missing_ok=True)
                return


@functools.cache
def _tls() -> ssl.SSLContext:
    """The trusted certificates; loading them takes longer than a small download."""
    import httpx

    return httpx.create_ssl_context()


def _request(client: httpx.Client, url: str, part: Path, how: Transfer) -> None:
    start = _resume_point(part, url, how.verified_later)
    headers = {}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator := _state(part)["validator"]:
            headers["If-Range"] = validator
    with client.stream("GET", url, headers=headers) as response:
        _check_status(response, start)
        if response.status_code == 416:
            if _range_total(response) == start:
                return  # everything was there already
            _discard(part)
            raise _RetryError("the server has no bytes where the part ends")
        start, total = _placement(response, start, part, how.expected_bytes)
        _check_space(part, max(0, total - start))
        _remember(part, url, response)
        _receive(response, part, start, total, how.progress)
    if total and _size(part) != total:
        raise _RetryError(f"the body ended after {_size(part)} of {total} bytes")


def _placement(response: httpx.Response, start: int, part: Path, expected: int | None) -> tuple[int, int]:
    """Where the body goes (0 for a whole one) and how long the file is in all (0 if the server does not say)."""
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if not match or int(match[1]) != start:
            _discard(part)
            raise _RetryError("the server answered with another range than the one asked for")
        total = 0 if match[3] == "*" else int(match[3])
    else:
        start, total = 0, int(response.headers.get("Content-Length") or 0)
    if expected and total and total != expected:
        _discard(part)
        raise DownloadError(f"the file is {total} bytes long there, {expected} were expected")
    return start, total or expected or 0


def _receive(response: httpx.Response, part: Path, start: int, total: int, progress: Progress) -> None:
    done = start
    # "r+b" keeps what a resumed part already holds; a whole body begins at 0 and cuts the rest off.
    with _disk_full_is_user_error(part), part.open("r+b" if part.exists() else "xb") as file:
        file.truncate(start)
        file.seek(start)
        try:
            # No chunk size: httpx would hold back what does not fill a chunk, and a cut would lose it.
            for chunk in response.iter_raw():
                if done == 0:
                    _refuse_html(response, chunk, part)
                if total and done + len(chunk) > total:
                    raise _RetryError(f"the server sends more than the {total} bytes that it announced")
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
        finally:
            file.flush()
            os.fsync(file.fileno())


def _check_status(response: httpx.Response, start: int) -> None:
    status = response.status_code
    if status in (200, 206) or (status == 416 and start):
        return
    text = f"HTTP {status} {response.reason_phrase}"
    if status in _RETRYABLE:
        raise _RetryError(text, _retry_after(response))
    hint = " (a login or accepted terms may be needed)" if status in (401, 403) else ""
    raise DownloadError(text + hint)


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _refuse_html(response: httpx.Response, chunk: bytes, part: Path) -> None:
    """A login, quota or error page in place of the file: 200 and HTML, the commonest way of a mirror to fail."""
    name = part.name.removesuffix(".part")
    head = chunk[:2048].lstrip().lower()
    looks_html = head.startswith((b"<!doctype html", b"<html", b"<head", b"<script"))
    if looks_html and not name.endswith((".html", ".htm")):
        text = re.sub(rb"<[^>]*>|\s+", b" ", chunk[:65536]).decode("utf-8", "replace").lower()
        why = "quota exceeded" if "quota" in text or "too many users" in text else "a web page"
        _discard(part)
        raise DownloadError(f"got {why} instead of the file ({response.headers.get('Content-Type', 'no type')})")


def _remember(part: Path, url: str, response: httpx.Response) -> None:
    etag = response.headers.get("ETag", "")
    # A weak ETag must not be used with If-Range (RFC 9110, 13.1.5).
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    state = {"url": url, "validator": validator}
    if not _state_file(part).exists() or _state(part) != state:
        write_json(_state_file(part), state)


def _resume_point(part: Path, url: str, verified_later: bool) -> int:
    """Bytes that can be kept: all of the part if it came from this URL and mixing versions would be noticed."""
    state = _state(part)
    return _size(part) if state["url"] == url and (state["validator"] or verified_later) else 0


def _state(part: Path) -> dict[str, str]:
    try:
        found = json.loads(_state_file(part).read_bytes())
        return {"url": str(found["url"]), "validator": str(found["validator"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"url": "", "validator": ""}


def _state_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_file(part).unlink(missing_ok=True)


def _range_total(response: httpx.Response) -> int:
    match = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", "").strip())
    return int(match[1]) if match else -1


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        gib = 1 << 30
        raise UserError(
            f"not enough disk space: {needed / gib:.2f} GiB still to come, {free / gib:.2f} GiB free",
            file=part.parent,
            cure="free some space, then run the stage again: what was downloaded is kept",
        )


@contextlib.contextmanager
def _disk_full_is_user_error(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        cure = "free some space, then run the stage again: what was downloaded is kept"
        raise UserError("the disk is full", file=part.parent, cure=cure) from error


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, _RetryError) else f"{type(error).__name__}: {error}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
