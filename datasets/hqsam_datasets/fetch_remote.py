"""Mirrors that are neither plain HTTP nor local: Google Drive, and object stores through fsspec."""

from __future__ import annotations

import html.parser
from pathlib import Path
from urllib.parse import urlencode

from hqsam_datasets.fetch_http import download
from hqsam_datasets.fetch_transfer import CHUNK, DownloadError, Progress, Transfer

DRIVE = "https://drive.usercontent.google.com/download"


def download_from_drive(file_id: str, part: Path, how: Transfer, *, endpoint: str = DRIVE) -> None:
    """Download a public Google Drive file by its id, past the page that asks to confirm a large file.

    Resumes like any HTTP download. A quota page raises DownloadError("got quota exceeded ...").
    """
    url = f"{endpoint}?{urlencode({'id': file_id, 'export': 'download', 'confirm': 't'})}"
    try:
        download(url, part, how)
    except DownloadError as error:
        confirmed = _confirmed_url(url, endpoint) if "instead of the file" in str(error) else None
        if confirmed is None:
            raise
        download(confirmed, part, how)


def _confirmed_url(url: str, endpoint: str) -> str | None:
    """The address behind the confirmation form, or None if the page has no such form (quota, login)."""
    import httpx

    page = httpx.get(url, follow_redirects=True, timeout=60.0)
    form = _HiddenFields()
    form.feed(page.text)
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


def download_with_fsspec(url: str, part: Path, how: Transfer) -> None:
    """Copy an object (`s3://bucket/key`, `gs://`, `az://`) to `part`, resuming by byte offset.

    Credentials and endpoints come from the store's own environment variables.

    Raises:
        DownloadError: if the driver is not installed, the object is missing, or it fails too often.
    """
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _copy_rest(url, part, how.progress)
        except ImportError as error:
            raise DownloadError(f"no driver for this kind of address: {error}") from error
        except (FileNotFoundError, PermissionError) as error:
            raise DownloadError(f"{type(error).__name__}: {error}") from error
        except OSError as error:
            grown = part.exists() and part.stat().st_size > before
            failures = 1 if grown else failures + 1
            if failures >= how.policy.attempts:
                raise DownloadError(f"gave up after {failures} failures in a row: {error}") from error
            how.sleep(how.policy.wait(failures))
        else:
            return


def _copy_rest(url: str, part: Path, progress: Progress) -> None:
    import fsspec  # type: ignore[import-untyped]

    system, path = fsspec.core.url_to_fs(url)
    total = int(system.info(path)["size"])
    start = part.stat().st_size if part.exists() else 0
    if start > total:
        part.unlink()
        start = 0
    with system.open(path, "rb", block_size=8 * CHUNK) as source, part.open("ab") as target:
        source.seek(start)
        while chunk := source.read(8 * CHUNK):
            target.write(chunk)
            start += len(chunk)
            progress(start, total)
