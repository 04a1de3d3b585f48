"""HTTP downloads that survive bad networks and bad servers.

A body is appended to `<name>.part`; `<name>.part.json` remembers the validator (ETag or
Last-Modified) it belongs to. After a cut, or a kill, the next request asks for the rest with
`Range` and `If-Range`: a server whose file has changed, or that knows no ranges, answers 200 with
the whole file and the part is begun anew.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hqsam_base.atomic import disk_full_is_user_error, write_json
from hqsam_datasets.fetch.segments import download_segments, segments_begun, worth_segments
from hqsam_datasets.fetch.transfer import (
    CONTENT_RANGE,
    SPACE_CURE,
    ByteProgress,
    DownloadError,
    RetryError,
    Transfer,
    check_encoding,
    check_length,
    check_status,
    http_client,
    persist,
    size_of,
    validator_of,
)

if TYPE_CHECKING:
    import httpx


class _LargeFile(Exception):  # noqa: N818  (a turn in the way, not an error)
    """The server would give this file in segments."""


def download(url: str, part: Path, how: Transfer) -> None:
    """Bring `part` up to the whole body of `url`, resuming what is there; `<part>.json` tells what that is.

    Raises:
        DownloadError: if the mirror refuses, sends something else (HTML, another length), or fails
            too often.
        UserError: if the disk is full.
    """
    if segments_begun(part):
        if download_segments(url, part, how):
            return
        _discard(part)
    with http_client(how) as client:
        try:
            persist(lambda: _request(client, url, part, how), part, how)
        except _LargeFile:
            pass
        else:
            state_file(part).unlink(missing_ok=True)
            return
    if not download_segments(url, part, how):
        download(url, part, replace(how, segments=1))


def _request(client: httpx.Client, url: str, part: Path, how: Transfer) -> None:
    # Bytes that can be kept: all of the part if it came from this URL and mixing versions would
    # be noticed
    state = part_state(part)
    start = (
        size_of(part) if state["url"] == url and (state["validator"] or how.verified_later) else 0
    )
    headers = {}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator := part_state(part)["validator"]:
            headers["If-Range"] = validator
    with client.stream("GET", url, headers=headers) as response:
        check_status(response, start)
        if response.status_code == 416:
            told = response.headers.get("Content-Range", "").strip()
            if (match := re.fullmatch(r"bytes \*/([0-9]{1,18})", told)) and int(match[1]) == start:
                return  # everything was there already
            _discard(part)
            raise RetryError("the server has no bytes where the part ends")
        check_encoding(response)
        start, total = _placement(response, start, part, how.expected_bytes)
        check_length(part, max(0, total - start), how)
        if start == 0 and response.status_code == 200 and worth_segments(response, how):
            raise _LargeFile
        remember(part, url, validator_of(response))
        _receive(response, part, start, total, how.progress)
    if total and size_of(part) != total:
        raise RetryError(f"the body ended after {size_of(part)} of {total} bytes")


def _placement(
    response: httpx.Response, start: int, part: Path, expected: int | None
) -> tuple[int, int]:
    """Where the body goes (0 for a whole one) and how long the file is in all (0 if the server does not say)."""
    if response.status_code == 206:
        match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if not match or int(match[1]) != start:
            _discard(part)
            raise RetryError("the server answered with another range than the one asked for")
        total = 0 if match[3] == "*" else int(match[3])
    else:
        start, total = 0, int(response.headers.get("Content-Length") or 0)
    if expected and total and total != expected:
        _discard(part)
        raise DownloadError(f"the file is {total} bytes long there, {expected} were expected")
    return start, total or expected or 0


def _receive(
    response: httpx.Response, part: Path, start: int, total: int, progress: ByteProgress
) -> None:
    done = start
    # "r+b" keeps what a resumed part already holds; a whole body begins at 0 and cuts the rest off.
    with (
        disk_full_is_user_error(part, SPACE_CURE),
        part.open("r+b" if part.exists() else "xb") as file,
    ):
        file.truncate(start)
        file.seek(start)
        try:
            # No chunk size: httpx would hold back what does not fill a chunk, and a cut would lose
            # it.
            for chunk in response.iter_raw():
                if done == 0:
                    _refuse_html(response, chunk, part)
                if total and done + len(chunk) > total:
                    raise RetryError(
                        f"the server sends more than the {total} bytes that it announced"
                    )
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
        finally:
            file.flush()
            os.fsync(file.fileno())


def _refuse_html(response: httpx.Response, chunk: bytes, part: Path) -> None:
    """A login, quota or error page in place of the file: 200 and HTML, the commonest way of a mirror to fail."""
    name = part.name.removesuffix(".part")
    head = chunk[:2048].lstrip().lower()
    looks_html = head.startswith((b"<!doctype html", b"<html", b"<head", b"<script"))
    if looks_html and not name.endswith((".html", ".htm")):
        text = re.sub(rb"<[^>]*>|\s+", b" ", chunk[:65536]).decode("utf-8", "replace").lower()
        why = "quota exceeded" if "quota" in text or "too many users" in text else "a web page"
        _discard(part)
        raise DownloadError(
            f"got {why} instead of the file ({response.headers.get('Content-Type', 'no type')})"
        )


def remember(part: Path, url: str, validator: str) -> None:
    """Note which version of which file the part holds."""
    state = {"url": url, "validator": validator}
    if not state_file(part).exists() or part_state(part) != state:
        write_json(state_file(part), state)


def part_state(part: Path) -> dict[str, str]:
    """What `remember` noted: address and validator, both empty if nothing was."""
    try:
        found = json.loads(state_file(part).read_bytes())
        return {"url": str(found["url"]), "validator": str(found["validator"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"url": "", "validator": ""}


def state_file(part: Path) -> Path:
    """Where `remember` writes."""
    return part.with_name(part.name + ".json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    state_file(part).unlink(missing_ok=True)
