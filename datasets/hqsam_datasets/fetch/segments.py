"""Large files over several connections at once.

Segment k grows in `<part>.seg<k>`; `<part>.segments.json` says what they belong to. So a kill loses
nothing: the next run asks for the rest of each segment. When all are whole they are joined into the
part, in an order that a kill can interrupt anywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hqsam_base.atomic import disk_full_is_user_error, write_json
from hqsam_datasets.fetch.transfer import (
    CHUNK,
    CONTENT_RANGE,
    SPACE_CURE,
    DownloadError,
    RetryError,
    Transfer,
    check_encoding,
    check_status,
    http_client,
    persist,
    size_of,
    validator_of,
)

if TYPE_CHECKING:
    import httpx


class _NoSegmentsError(Exception):
    """The server answered a range with something else: the file changed, or ranges were a promise only."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a file is cut: address, validator ("" if a digest is compared later), length, number of segments."""

    url: str
    validator: str
    total: int
    count: int

    def bounds(self, number: int) -> tuple[int, int]:
        """First byte of a segment, and the one after its last."""
        size = -(-self.total // self.count)
        return min(number * size, self.total), min((number + 1) * size, self.total)


def worth_segments(response: httpx.Response, how: Transfer) -> bool:
    """Whether a 200 answer is for a large file from a server that offers ranges of a file that it can identify."""
    total = int(response.headers.get("Content-Length") or 0)
    offers = response.headers.get("Accept-Ranges", "").strip().lower() == "bytes"
    known = bool(validator_of(response)) or how.verified_later
    return how.segments > 1 and offers and known and total >= how.segments * how.segment_bytes


def segments_begun(part: Path) -> bool:
    """Whether an earlier run fetched this file in segments."""
    return _state_file(part).exists()


def segments_url(part: Path) -> str:
    """The address that an earlier run fetched this file from in segments, or nothing."""
    earlier = _earlier(part)
    return "" if earlier is None else earlier.url


def download_segments(url: str, part: Path, how: Transfer) -> bool:
    """Fetch `url` into `part` over `how.segments` connections, resuming segments that are there.

    Returns:
        False if the server does not go along; nothing is left then, and one connection has to do.

    Raises:
        DownloadError: if a segment fails too often.
        UserError: if the disk is full.
    """
    with http_client(how) as client:
        try:
            plan = _plan(client, url, part, how)
            _fetch_all(client, plan, part, how)
        except _NoSegmentsError:
            _discard(part)
            return False
    _join(plan, part)
    return True


def _plan(client: httpx.Client, url: str, part: Path, how: Transfer) -> _Plan:
    """The plan of the earlier run if it is for this address, else a new one from a request for one byte."""
    earlier = _earlier(part)
    if earlier is not None and earlier.url == url:
        return earlier
    _discard(part)
    found: list[_Plan] = []

    def ask() -> None:
        with client.stream("GET", url, headers={"Range": "bytes=0-0"}) as response:
            check_status(response, 0)
            total = _total_of(response, 0)
            found.append(_Plan(url, validator_of(response), total, how.segments))

    persist(ask, part, how)
    plan = found[-1]
    if not plan.validator and not how.verified_later:
        raise _NoSegmentsError
    write_json(
        _state_file(part),
        {"url": url, "validator": plan.validator, "total": plan.total, "count": plan.count},
    )
    return plan


def _fetch_all(client: httpx.Client, plan: _Plan, part: Path, how: Transfer) -> None:
    if part.exists():
        return  # joining had begun: every segment was whole
    told = _Sum(plan.total, how)
    with ThreadPoolExecutor(plan.count) as pool:
        tasks = [
            pool.submit(_fetch_one, client, plan, number, part, how, told)
            for number in range(plan.count)
        ]
        errors = [task.exception() for task in tasks]
    for error in errors:
        if isinstance(error, _NoSegmentsError):
            raise error
    for error in errors:
        if error is not None:
            raise error


def _fetch_one(
    client: httpx.Client, plan: _Plan, number: int, part: Path, how: Transfer, told: _Sum
) -> None:
    path, (first, end) = _segment(part, number), plan.bounds(number)

    def attempt() -> None:
        have = size_of(path)
        told.set(number, have)
        if have < end - first:
            _request(client, plan, path, (first + have, end), lambda n: told.set(number, have + n))

    persist(attempt, path, how)


def _request(
    client: httpx.Client,
    plan: _Plan,
    path: Path,
    bounds: tuple[int, int],
    progress: Callable[[int], None],
) -> None:
    start, end = bounds
    headers = {"Range": f"bytes={start}-{end - 1}"}
    if plan.validator:
        headers["If-Range"] = plan.validator
    with client.stream("GET", plan.url, headers=headers) as response:
        check_status(response, start)
        check_encoding(response)
        if _total_of(response, start) != plan.total:
            raise _NoSegmentsError
        done = 0
        with disk_full_is_user_error(path, SPACE_CURE), path.open("ab") as file:
            try:
                for chunk in response.iter_raw():
                    done += len(chunk)
                    if start + done > end:
                        raise _NoSegmentsError
                    file.write(chunk)
                    progress(done)
            finally:
                file.flush()
                os.fsync(file.fileno())
    if start + done != end:
        raise RetryError(f"a segment ended after {done} of {end - start} bytes")


def _total_of(response: httpx.Response, start: int) -> int:
    """Length of the whole file by the answer to a range that begins at `start`."""
    match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if response.status_code != 206 or not match or int(match[1]) != start or match[3] == "*":
        raise _NoSegmentsError
    return int(match[3])


class _Sum:
    """Bytes of all segments together, for the progress report."""

    def __init__(self, total: int, how: Transfer) -> None:
        self._total, self._how = total, how
        self._done: dict[int, int] = {}
        self._lock = threading.Lock()

    def set(self, number: int, done: int) -> None:
        """Segment `number` has `done` bytes."""
        with self._lock:
            self._done[number] = done
            self._how.progress(sum(self._done.values()), self._total)


def _join(plan: _Plan, part: Path) -> None:
    """Append the segments to the first one, which becomes the part; remove each once it is flushed."""
    if not part.exists():
        _segment(part, 0).rename(part)
    with disk_full_is_user_error(part, SPACE_CURE), part.open("r+b") as target:
        for number in range(1, plan.count):
            source = _segment(part, number)
            if not source.exists():
                continue
            target.seek(plan.bounds(number)[0])
            with source.open("rb") as segment:
                shutil.copyfileobj(segment, target, CHUNK)
            target.flush()
            os.fsync(target.fileno())
            source.unlink()
    if size_of(part) != plan.total:
        _discard(part)
        raise DownloadError(
            f"the joined segments have {size_of(part)} bytes, {plan.total} were expected"
        )
    _state_file(part).unlink()


def _earlier(part: Path) -> _Plan | None:
    try:
        found = json.loads(_state_file(part).read_bytes())
        return _Plan(
            str(found["url"]), str(found["validator"]), int(found["total"]), int(found["count"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _segment(part: Path, number: int) -> Path:
    return part.with_name(f"{part.name}.seg{number}")


def _state_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.segments.json")


def _discard(part: Path) -> None:
    for path in part.parent.glob(f"{part.name}*"):
        path.unlink(missing_ok=True)
