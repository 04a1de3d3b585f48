"""Mirrors that are neither plain HTTP nor local: Google Drive, and object stores through fsspec."""

from __future__ import annotations

import html.parser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from hqsam_base.atomic import disk_full_is_user_error
from hqsam_datasets.fetch.http import download, part_state, remember, state_file
from hqsam_datasets.fetch.segments import segments_url
from hqsam_datasets.fetch.transfer import (
    CHUNK,
    SPACE_CURE,
    DownloadError,
    Transfer,
    check_length,
    http_client,
    persist,
    size_of,
)
from hqsam_datasets.formats.stores import is_of_driver

STORE_CURE = (
    "are the credentials in the environment (AWS_ACCESS_KEY_ID, ...; FSSPEC_S3_ANON=true for a "
    "public bucket)?"
)
DRIVE = "https://drive.usercontent.google.com/download"


def download_from_drive(file_id: str, part: Path, how: Transfer, *, endpoint: str = DRIVE) -> None:
    """Download a public Google Drive file by its id, past the page that asks to confirm a large file.

    Resumes like any HTTP download. A quota page raises DownloadError("got quota exceeded ...").
    """
    url = f"{endpoint}?{urlencode({'id': file_id, 'export': 'download', 'confirm': 't'})}"
    begun = segments_url(part) or part_state(part)["url"]
    if begun.startswith(f"{endpoint}?") and parse_qs(urlsplit(begun).query).get("id") == [file_id]:
        # of the earlier run, perhaps from behind the page: another address would begin anew
        url = begun
    try:
        download(url, part, how)
    except DownloadError as error:
        confirmed = (
            _confirmed_url(url, endpoint, part, how)
            if "instead of the file" in str(error)
            else None
        )
        if confirmed is None:
            raise
        download(confirmed, part, how)


def _confirmed_url(url: str, endpoint: str, part: Path, how: Transfer) -> str | None:
    """The address behind the confirmation form, or None if the page has no such form (quota, login)."""
    form = _HiddenFields()

    def read() -> None:
        with client.stream("GET", url) as page:
            form.feed(
                next(page.iter_text(CHUNK), "")
            )  # should it be the file this time, one chunk is enough

    with http_client(how) as client:
        persist(read, part, how)
    if "confirm" not in form.fields:
        return None
    return f"{endpoint}?{urlencode(form.fields)}"


class _HiddenFields(html.parser.HTMLParser):
    """Collect the hidden inputs of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember `<input type="hidden" name=... value=...>`."""
        given = dict(attrs)
        if tag == "input" and given.get("type") == "hidden" and given.get("name"):
            self.fields[str(given["name"])] = given.get("value") or ""


@contextmanager
def object_store(url: str) -> Iterator[tuple[Any, str]]:
    """The file system behind an address (`s3://bucket/key`, `gs://`, `az://`), and the path in it.

    Credentials and endpoints come from the store's own environment variables.

    Raises:
        DownloadError: for what the driver raises inside the block, but for plain input and output
            errors.
    """
    import fsspec  # type: ignore[import-untyped]

    try:
        system, path = fsspec.core.url_to_fs(url)
        yield system, path
    except ImportError as error:
        raise DownloadError(f"no driver for this kind of address: {error}") from error
    except (FileNotFoundError, PermissionError) as error:
        raise DownloadError(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        if not is_of_driver(error):
            raise
        raise DownloadError(
            f"{type(error).__name__}: {' '.join(str(error).split())}; {STORE_CURE}"
        ) from error


def version_of(info: dict[str, Any]) -> str:
    """What identifies this version of an object, by what its store tells."""
    told = (
        info.get(key) for key in ("ETag", "etag", "LastModified", "mtime", "last_modified", "size")
    )
    return " ".join(str(value) for value in told if value is not None)


def download_with_fsspec(url: str, part: Path, how: Transfer) -> None:
    """Copy an object (`s3://bucket/key`, `gs://`, `az://`) to `part`, resuming by byte offset if it is the same object.

    Raises:
        DownloadError: if the driver is not installed, the object is missing, or it fails too often.
        UserError: if the disk is full.
    """
    failures = 0
    while True:
        before = size_of(part)
        try:
            with object_store(url) as (system, path):
                _copy_rest(system, path, url, part, how)
        except OSError as error:
            failures = 1 if size_of(part) > before else failures + 1
            if failures >= how.policy.attempts:
                raise DownloadError(
                    f"gave up after {failures} failures in a row: {error}"
                ) from error
            how.sleep(how.policy.wait(failures))
        else:
            state_file(part).unlink(missing_ok=True)
            return


def _copy_rest(system: Any, path: str, url: str, part: Path, how: Transfer) -> None:
    system.invalidate_cache()
    info = system.info(path)
    total, version = int(info["size"]), version_of(info)
    if part_state(part) != {"url": url, "validator": version} or size_of(part) > total:
        part.unlink(missing_ok=True)
    remember(part, url, version)
    start = size_of(part)
    check_length(part, total - start, how)
    with (
        disk_full_is_user_error(part, SPACE_CURE),
        system.open(path, "rb", block_size=8 * CHUNK) as source,
        part.open("ab") as target,
    ):
        source.seek(start)
        while chunk := source.read(8 * CHUNK):
            target.write(chunk)
            start += len(chunk)
            how.progress(start, total)
    if start != total:
        raise OSError(f"the object ended after {start} of {total} bytes")
