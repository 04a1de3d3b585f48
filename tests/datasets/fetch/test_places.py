"""Places that are not a plain web server: drop folder, Google Drive, object stores, a person."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from hqsam_base.errors import UserError
from hqsam_datasets.fetch import cloud
from hqsam_datasets.fetch.archive import fetch
from hqsam_datasets.fetch.http import remember
from hqsam_datasets.fetch.spec import ArchiveSpec
from hqsam_datasets.fetch.transfer import DownloadError, Transfer
from tests.datasets.fetch.archives import QUICK, a_zip, get, quiet, spec
from tests.datasets.fetch.server import Behaviour, serving


def test_drop_folder_and_file_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = a_zip()
    drop = tmp_path / "drop folder"
    (drop / "set").mkdir(parents=True)
    (drop / "set" / "set.zip").write_bytes(body)
    monkeypatch.setenv("HQSAM_DROP_DIR", str(drop))
    get(spec("http://127.0.0.1:9/nobody"), tmp_path / "out" / "set")
    assert (tmp_path / "out" / "set" / "set.zip").read_bytes() == body
    monkeypatch.delenv("HQSAM_DROP_DIR")
    get(spec((drop / "set" / "set.zip").as_uri()), tmp_path / "out" / "other")
    assert (drop / "set" / "set.zip").read_bytes() == body, "the user's file stays"
    with pytest.raises(UserError, match="there is no file"):
        get(spec("file:///no/such/file.zip"), tmp_path / "out" / "third")


@pytest.mark.parametrize("dropped", [True, False])
def test_a_file_of_this_machine_that_has_changed_is_taken_again(
    tmp_path: Path, dropped: bool
) -> None:
    source = tmp_path / ("drop/set/set.zip" if dropped else "my set #1 %.zip")
    source.parent.mkdir(parents=True, exist_ok=True)
    wanted, out, told = (
        spec("drop://set.zip" if dropped else f"file://{source}"),
        tmp_path / "archives/set",
        list[str](),
    )
    for body, notices in ((a_zip(1), 0), (a_zip(1), 0), (a_zip(2), 1), (a_zip(2, size=70_000), 2)):
        source.write_bytes(body)
        fetch(wanted, out, progress=quiet, notice=told.append)
        assert (out / "set.zip").read_bytes() == body and len(told) == notices
    source.unlink()  # what was fetched stays
    fetch(wanted, out, progress=quiet)
    assert (out / "set.zip").read_bytes() == body


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file://set.zip", "three slashes"),
        ("file:set.zip", "three slashes"),
        ("file:///tmp", "is a folder"),
    ],
)
def test_file_urls_that_are_none(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        get(spec(url), tmp_path / "archives" / "set")


def test_files_that_only_a_person_can_get(tmp_path: Path) -> None:
    wanted = spec("drop://BIG (1).zip", name="BIG.zip")
    out = tmp_path / "data" / "archives" / "big"
    with pytest.raises(UserError, match="a person has to put it into the drop folder") as caught:
        get(wanted, out)
    folder = tmp_path / "data" / "drop" / "big"
    assert str(folder / "BIG.zip") in str(caught.value)
    assert f"{folder}/\n        BIG.zip" in str(caught.value), "the expected tree"
    (tmp_path / "data" / "drop").mkdir()
    (tmp_path / "data" / "drop" / "BIG (1).zip").write_bytes(a_zip())
    get(wanted, out)
    assert (out / "BIG.zip").read_bytes() == a_zip()


def test_gated_archives_show_the_instructions(tmp_path: Path) -> None:
    wanted = {
        "files": [{"name": "v.zip", "urls": []}],
        "instructions": "sign in at example.org and accept the terms",
    }
    with pytest.raises(UserError, match=r"sign in at example\.org"):
        get(ArchiveSpec.model_validate(wanted), tmp_path / "ytvis")


def test_google_drive_confirmation_page(tmp_path: Path) -> None:
    body = a_zip()
    form = (
        b'<!DOCTYPE html><html><form action="x"><input type="hidden" name="id" value="F1">'
        b'<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" '
        b'value="u-1"></form></html>'
    )
    answers: dict[str, Behaviour] = {"/download": Behaviour(form)}

    class Answers(dict[str, Behaviour]):
        def get(self, path: str, default: Any = None) -> Any:
            what = answers["/download"]
            if len(what.requests) == 2:  # the page was seen, and read for its form
                what.body = body
            return what

    with serving(Answers()) as base:
        cloud.download_from_drive(
            "F1", tmp_path / "x.zip.part", Transfer(policy=QUICK), endpoint=f"{base}/download"
        )
    assert (tmp_path / "x.zip.part").read_bytes() == body


def test_object_stores_through_fsspec(tmp_path: Path) -> None:
    import fsspec

    body = a_zip()
    with fsspec.open("memory://bucket/set.zip", "wb") as file:
        file.write(body)
    get(spec("memory://bucket/set.zip"), tmp_path / "set")
    assert (tmp_path / "set" / "set.zip").read_bytes() == body
    with pytest.raises(UserError, match="FileNotFoundError"):
        get(spec("memory://bucket/other.zip"), tmp_path / "other")


def test_google_drive_goes_on_behind_the_page_in_the_next_run(tmp_path: Path) -> None:
    """Each visit of the page gives another address; one that was begun is gone on with."""
    body, part = a_zip(), tmp_path / "x.zip.part"
    begun = "id=F1&confirm=t&uuid=u-1"
    part.write_bytes(body[:20_000])
    served = Behaviour(body)
    with serving({"/download": served}) as base:
        remember(part, f"{base}/download?{begun}", f'"{hashlib.md5(body).hexdigest()}"')
        cloud.download_from_drive("F1", part, Transfer(policy=QUICK), endpoint=f"{base}/download")
        assert part.read_bytes() == body and served.requests[0]["Range"] == "bytes=20000-"
        remember(part, f"{base}/download?{begun}", "")
        cloud.download_from_drive("F2", part, Transfer(policy=QUICK), endpoint=f"{base}/download")
    assert "Range" not in served.requests[-1]


def test_google_drive_quota_page_is_named(tmp_path: Path) -> None:
    page = (
        b"<!DOCTYPE html><html><body>Sorry, too many users have viewed or downloaded this file "
        b"recently.</body></html>"
    )
    with (
        serving({"/download": Behaviour(page)}) as base,
        pytest.raises(DownloadError, match="got quota exceeded"),
    ):
        cloud.download_from_drive(
            "F1", tmp_path / "x.zip.part", Transfer(policy=QUICK), endpoint=f"{base}/download"
        )
    assert list(tmp_path.iterdir()) == []


def test_google_drive_downloads_are_resumed(tmp_path: Path) -> None:
    body = a_zip()
    served = Behaviour(body, cut=lambda n: 20_000 if n == 0 else None)
    how = Transfer(policy=QUICK, sleep=lambda s: None)
    with serving({"/download": served}) as base:
        cloud.download_from_drive("F1", tmp_path / "x.zip.part", how, endpoint=f"{base}/download")
    assert (tmp_path / "x.zip.part").read_bytes() == body and served.requests[1][
        "Range"
    ] == "bytes=20000-"
