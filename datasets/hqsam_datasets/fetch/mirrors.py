"""What every mirror of a profile answers, without downloading anything: `hqsam doctor urls`."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode, urlsplit

from hqsam_datasets.fetch.cloud import DRIVE
from hqsam_datasets.fetch.places import is_absent
from hqsam_datasets.fetch.spec import ArchiveFile, ArchiveSpec
from hqsam_datasets.fetch.transfer import DownloadError, RetryPolicy, Transfer, http_client

if TYPE_CHECKING:
    import httpx

ANSWER_S = 15.0
ALL_S = 50.0
AT_ONCE = 24

State = Literal["works", "login", "page", "other file", "dead", "busy", "silent", "not asked"]
"""`page`: a web page in place of the file. `other file`: not the recorded length. `busy`: try later. `not asked`: an object
store, or nothing to ask."""


@dataclass(frozen=True)
class Mirror:
    """One address of one file, and what it answered.

    Attributes:
        archive: The archive's name in params.yaml.
        file: The file's name.
        url: The address.
        state: See `State`.
        detail: Length, type and whether ranges are answered; or what is wrong.
    """

    archive: str
    file: str
    url: str
    state: State
    detail: str

    @property
    def usable(self) -> bool:
        """Whether a fetch can be expected to work, as far as was asked."""
        return self.state in ("works", "not asked")


def ask_all(archives: Mapping[str, ArchiveSpec], *, limit_s: float = ALL_S) -> list[Mirror]:
    """Ask every mirror for its headers, side by side.

    A request is a GET of the first byte, as downloads are: some servers answer HEAD otherwise, or
    not at all. Bodies are not read.

    Args:
        archives: By name.
        limit_s: Whoever has not answered by then is `silent`.

    Returns:
        In the order of the archives, their files and mirrors.
    """
    jobs = [
        (name, file, url) for name, s in archives.items() for file in s.files for url in file.urls
    ]
    answers: queue.Queue[tuple[int, State, str]] = queue.Queue()
    turn = threading.Semaphore(AT_ONCE)

    def work(number: int, file: ArchiveFile, url: str) -> None:
        with turn:
            answers.put((number, *ask(file, url)))

    for number, (_, file, url) in enumerate(jobs):
        threading.Thread(target=work, args=(number, file, url), daemon=True).start()
    found: dict[int, tuple[State, str]] = {}
    end = time.monotonic() + limit_s
    while len(found) < len(jobs):
        try:
            number, state, detail = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        found[number] = (state, detail)
    late: tuple[State, str] = ("silent", f"no answer within {limit_s:g} s")
    return [
        Mirror(name, file.name, url, *found.get(number, late))
        for number, (name, file, url) in enumerate(jobs)
    ]


def ask(file: ArchiveFile, url: str) -> tuple[State, str]:
    """What one mirror answers.

    Args:
        file: Whose recorded length is compared.
        url: One of its addresses.
    """
    scheme = urlsplit(url).scheme
    if scheme == "file":
        return ("dead", "no such file on this machine") if is_absent(url) else ("works", "is here")
    if scheme == "embedded":
        return "works", "written by this checkout"
    if scheme not in ("http", "https", "gdrive"):
        by_hand = "for a file that you put into the drop folder" * (scheme == "drop")
        return "not asked", by_hand or "an object store; the fetch stage says if it fails"
    if scheme == "gdrive":
        file_id = url.partition("://")[2]
        url = f"{DRIVE}?{urlencode({'id': file_id, 'export': 'download', 'confirm': 't'})}"
    import httpx

    try:
        how = Transfer(policy=RetryPolicy(timeout_s=ANSWER_S))
        with (
            http_client(how) as client,
            client.stream("GET", url, headers={"Range": "bytes=0-0"}) as answer,
        ):
            return judged(answer, file)
    except httpx.TimeoutException:
        return "silent", f"no answer within {ANSWER_S:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, DownloadError, OSError) as error:
        return "dead", f"{type(error).__name__}: {error}"


def judged(answer: httpx.Response, file: ArchiveFile) -> tuple[State, str]:
    """What an answer to a request for the first byte means."""
    status, kind = answer.status_code, answer.headers.get("Content-Type", "").partition(";")[0]
    if status in (401, 403, 407) or re.search(r"log-?in|sign-?in|/auth\b", answer.url.path):
        return "login", f"status {status} at {answer.url.host}: it wants a login or terms accepted"
    if status in (408, 425, 429) or status >= 500:
        return "busy", f"status {status}: the server has trouble or too many requests; try later"
    if status not in (200, 206):
        return "dead", f"status {status}"
    if kind in ("text/html", "application/xhtml+xml") and not file.name.endswith(".html"):
        return "page", "a web page in place of the file: a login, a form or a quota"
    length = _length(answer)
    if file.bytes is not None and length not in (None, file.bytes) and not file.only_named_in:
        return "other file", f"{length:,} bytes, {file.bytes:,} are recorded"
    size = "length unknown" if length is None else f"{length:,} bytes"
    ranges = "ranges" if status == 206 else "no ranges: a broken download begins anew"
    return "works", f"{size}, {kind or 'no type'}, {ranges}"


def _length(answer: httpx.Response) -> int | None:
    """The whole file's length, if the answer tells it."""
    if answer.status_code == 206:
        found = re.fullmatch(r"bytes \d+-\d+/(\d{1,18})", answer.headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    text = answer.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def unreachable(mirrors: Iterable[Mirror], archives: Mapping[str, ArchiveSpec]) -> list[str]:
    """Files that are needed and that no mirror gives, as `archive/file`."""
    good = {(mirror.archive, mirror.file) for mirror in mirrors if mirror.usable}
    return [
        f"{name}/{file.name}"
        for name, spec in archives.items()
        for file in spec.files
        if not file.optional and (name, file.name) not in good
    ]
