"""What all downloads share: retries, waits, errors, the HTTP client, and the care for disk space."""

from __future__ import annotations

import contextlib
import functools
import random
import re
import shutil
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hqsam_base.errors import UserError

if TYPE_CHECKING:
    import httpx

CHUNK = 1 << 20
NO_SPACE = "not enough disk space"
SPACE_CURE = "free some space, then run the stage again: what was downloaded is kept"
_CERTIFICATE_CURE = (
    "is this machine's clock right? A proxy's own certificate goes into the file that "
    "SSL_CERT_FILE names"
)
RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})

ByteProgress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all or 0 if unknown)."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to give up and how long to wait.

    Attributes:
        attempts: requests in a row that may fail without a byte beyond the farthest point reached
            so far.
        base_s: upper bound of the first wait; it doubles with each failure. The wait is drawn
            uniformly between half of the bound and the bound, so that many clients do not come back
            at once.
        cap_s: largest bound.
        timeout_s: no byte for so long counts as a failure.
    """

    attempts: int = 6
    base_s: float = 1.0
    cap_s: float = 60.0
    timeout_s: float = 60.0

    def wait(self, failures: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after the n-th failure; Retry-After is honoured up to five minutes."""
        bound = min(self.cap_s, self.base_s * 2 ** (failures - 1))
        return max(random.uniform(bound / 2, bound), min(retry_after or 0.0, 300.0))


def _no_progress(done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """How one file is to be downloaded.

    Attributes:
        expected_bytes: known length; another announced length is refused.
        verified_later: the caller compares a known digest, so that a part may be resumed even where
            the server names no validator.
        policy: retries and waits.
        progress: told about every chunk.
        sleep: waits; tests replace it.
        segments: connections for one large file.
        segment_bytes: a file is fetched in segments if each is at least so long.
    """

    expected_bytes: int | None = None
    verified_later: bool = False
    policy: RetryPolicy = RetryPolicy()
    progress: ByteProgress = _no_progress
    sleep: Callable[[float], None] = time.sleep
    segments: int = 4
    segment_bytes: int = 32 << 20


class DownloadError(Exception):
    """This mirror does not give the file; another one may."""


class RetryError(Exception):
    """Worth another request to the same mirror."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


def persist(attempt: Callable[[], None], part: Path, how: Transfer) -> None:
    """Repeat `attempt` until it succeeds; the count of failures restarts when `part` grows.

    Raises:
        DownloadError: after `how.policy.attempts` failures in a row.
    """
    import httpx

    failures, farthest = 0, size_of(part)
    while True:
        try:
            attempt()
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.DecodingError) as error:
            raise DownloadError(f"{type(error).__name__}: {error}") from error
        except (RetryError, httpx.TransportError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise DownloadError(f"{error}; {_CERTIFICATE_CURE}") from error
            reached = size_of(part)
            failures = 1 if reached > farthest else failures + 1
            farthest = max(farthest, reached)
            if failures >= how.policy.attempts:
                text = (
                    str(error)
                    if isinstance(error, RetryError)
                    else f"{type(error).__name__}: {error}"
                )
                raise DownloadError(
                    f"gave up after {failures} failures in a row: {text}"
                ) from error
            how.sleep(how.policy.wait(failures, getattr(error, "retry_after", None)))
        except httpx.InvalidURL as error:
            raise DownloadError(f"not a valid URL: {error}") from error
        else:
            return


def http_client(how: Transfer) -> httpx.Client:
    """A client that follows redirects, checks certificates and wants bodies as they are stored.

    Proxies (`HTTPS_PROXY`, `NO_PROXY`, ...) and certificates (`SSL_CERT_FILE`) come from the
    environment.

    Raises:
        DownloadError: the environment asks for what cannot be (a SOCKS proxy without its driver, a
            file that is not there).
    """
    import httpx

    limits = httpx.Timeout(how.policy.timeout_s)
    headers = {"Accept-Encoding": "identity"}
    try:
        return httpx.Client(
            timeout=limits,
            follow_redirects=True,
            headers=headers,
            verify=_tls(),
            event_hooks={"response": [_stay_encrypted]},
        )
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        text = (
            f"no connection with these proxy and certificate variables of the environment: {error}"
        )
        raise DownloadError(text) from error


def _stay_encrypted(response: httpx.Response) -> None:
    """Refuse to be sent on from https to http, where anybody on the way can put another file in place."""
    target = (
        response.url.join(response.headers.get("Location", ""))
        if response.has_redirect_location
        else response.url
    )
    if response.url.scheme == "https" and target.scheme != "https":
        raise DownloadError(f"the server redirects to an unencrypted address: {target}")


@functools.cache
def _tls() -> ssl.SSLContext:
    """The trusted certificates; loading them takes longer than a small download."""
    import httpx

    return httpx.create_ssl_context()


def check_status(response: httpx.Response, start: int) -> None:
    """Sort a status: fine, worth another request (RetryError), or no file here (DownloadError)."""
    status = response.status_code
    if status in (200, 206) or (status == 416 and start):
        return
    text = f"HTTP {status} {response.reason_phrase}"
    if status in RETRYABLE:
        raise RetryError(text, _retry_after(response))
    hint = " (a login or accepted terms may be needed)" if status in (401, 403) else ""
    raise DownloadError(text + hint)


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    with contextlib.suppress(ValueError, TypeError, OverflowError, OSError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def check_encoding(response: httpx.Response) -> None:
    """Refuse a body that the server compressed on the way although it was asked not to."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    asked = (response.history or [response])[0].url.path
    if encoding in ("gzip", "x-gzip") and asked.endswith((".gz", ".tgz")):
        return  # some servers say so of files that are stored compressed
    if encoding not in ("", "identity"):
        raise DownloadError(
            f"the server sends the file compressed ({encoding}) although it was asked not to"
        )


def validator_of(response: httpx.Response) -> str:
    """What identifies this version of the file: a strong ETag, else Last-Modified, else nothing."""
    etag: str = response.headers.get("ETag", "")
    if etag and not etag.startswith(
        "W/"
    ):  # a weak one must not be used with If-Range (RFC 9110, 13.1.5)
        return etag
    return str(response.headers.get("Last-Modified", ""))


CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
"""The header of an answer to a request for a part: first and last byte, and the length of the whole."""


def check_length(part: Path, needed: int, how: Transfer) -> None:
    """Stop before a download that cannot fit: for good if its length is certain, else at this mirror.

    Raises:
        UserError, DownloadError: There are fewer than `needed` free bytes.
    """
    try:
        check_space(part, needed)
    except UserError as error:
        if how.expected_bytes:
            raise
        raise DownloadError(f"{error.problem}, if it is as long as the server says") from error


def check_space(part: Path, needed: int) -> None:
    """Stop before a download that cannot fit."""
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        gib = 1 << 30
        raise UserError(
            f"{NO_SPACE}: {needed / gib:.2f} GiB still to come, {free / gib:.2f} GiB free",
            file=part.parent,
            cure=SPACE_CURE,
        )


def size_of(path: Path) -> int:
    """Length of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0
