"""Fetching a whole archive: mirrors, verification, what is kept, and what is said."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hqsam_base.errors import UserError
from hqsam_datasets.fetch import first_use
from hqsam_datasets.fetch.archive import fetch
from hqsam_datasets.fetch.spec import ArchiveSpec
from tests.datasets.fetch.archives import QUICK, a_zip, get, left_over, quiet, spec
from tests.datasets.fetch.server import Behaviour, serving


def test_plain_download_is_verified_and_recorded(tmp_path: Path) -> None:
    body = a_zip()
    digest = hashlib.sha256(body).hexdigest()
    with serving({"/set.zip": Behaviour(body)}) as base:
        facts = {"sha256": digest, "bytes": len(body), "md5": hashlib.md5(body).hexdigest()}
        result = get(spec(f"{base}/set.zip", **facts), tmp_path / "set")
    assert (tmp_path / "set" / "set.zip").read_bytes() == body
    assert json.loads((tmp_path / "set" / "fetch.json").read_bytes()) == result
    record = {
        "name": "set.zip",
        "bytes": len(body),
        "sha256": digest,
        "checked_by": ["md5", "sha256"],
    }
    assert result["files"] == [record]
    assert left_over(tmp_path) == []


def test_a_file_of_another_archive_is_not_downloaded_again(tmp_path: Path) -> None:
    """With a digest known beforehand, by its name; another file of the same name is passed over."""
    body = a_zip()
    facts = {"sha1": hashlib.sha1(body).hexdigest()}
    with serving({"/set.zip": Behaviour(body)}) as base:
        get(spec(f"{base}/set.zip", **facts), tmp_path / "coco")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "set.zip").write_bytes(a_zip(seed=3))
        nowhere = f"{base}/not-there.zip"
        get(spec(nowhere, **facts), tmp_path / "lvis")
        with pytest.raises(UserError, match="not-there"):
            get(spec(nowhere), tmp_path / "other")
    assert (tmp_path / "lvis" / "set.zip").read_bytes() == body


def test_what_another_archive_has_from_the_same_address_is_not_downloaded_again(
    tmp_path: Path,
) -> None:
    """Without a known digest, under any name; but no other bytes than were recorded at first use."""
    digests, file = tmp_path / first_use.FILE, Behaviour(a_zip())
    with serving({"/set.zip": file, "/b": Behaviour(a_zip(seed=3))}) as base:
        one = spec(f"{base}/set.zip")
        two = spec(f"{base}/b", f"{base}/set.zip", name="images.zip")
        others = {"one": one, "two": two, "three": spec(f"{base}/set.zip")}

        def fetched(name: str) -> bytes:
            words = {"progress": quiet, "policy": QUICK, "sleep": lambda s: None}
            fetch(others[name], tmp_path / name, digests=digests, others=others, **words)
            return (tmp_path / name / others[name].files[0].name).read_bytes()

        assert fetched("one") == fetched("two") == file.body and len(file.requests) == 1
        digests.write_text(f"{hashlib.sha256(file.body).hexdigest()}  three/set.zip\n")
        (tmp_path / "one" / "set.zip").write_bytes(a_zip(seed=5))
        (tmp_path / "two" / "images.zip").unlink()
        assert fetched("three") == file.body and len(file.requests) == 2


@pytest.mark.parametrize("told", [True, False])
def test_two_archives_that_name_the_same_file_at_the_same_time_download_it_once(
    tmp_path: Path, told: bool
) -> None:
    """The second waits, and takes what lies verified in the staging folder of the first, which is not complete yet."""
    body, rest = a_zip(), a_zip(seed=3)
    facts = {"sha1": hashlib.sha1(body).hexdigest()} if told else {}
    waiting = threading.Event()

    def slowly(request: int) -> int:
        waiting.wait(10)
        return 200

    first_file = Behaviour(body)
    with serving({"/set.zip": first_file, "/rest.zip": Behaviour(rest, status=slowly)}) as base:
        one = spec(f"{base}/set.zip", **facts)
        more = spec(f"{base}/rest.zip").files[0].model_copy(update={"name": "rest.zip"})
        two = one.model_copy(update={"files": (*one.files, more)})
        others = {"coco": two, "lvis": one}
        with ThreadPoolExecutor() as pool:
            coco = pool.submit(get, two, tmp_path / "coco", others=others)
            lvis = pool.submit(get, one, tmp_path / "lvis", others=others)
            lvis.result(timeout=30)
            waiting.set()
            coco.result(timeout=30)
    assert len(first_file.requests) == 1
    assert (tmp_path / "lvis" / "set.zip").read_bytes() == body
    assert not list(tmp_path.glob(".*.lock"))


def test_the_second_mirror_helps(tmp_path: Path) -> None:
    body = a_zip()
    digest = hashlib.sha256(body).hexdigest()
    page = b"<!DOCTYPE html><html><body>Quota exceeded: too many users</body></html>"
    routes = {
        "/gone": Behaviour(body, status=lambda n: 403),
        "/html": Behaviour(page, headers={"Content-Type": "text/html"}),
        "/other": Behaviour(a_zip(seed=5)),
        "/good": Behaviour(body),
    }
    with serving(routes) as base:
        urls = [f"{base}/{name}" for name in ("missing", "gone", "html", "other", "good")]
        get(spec(*urls, sha256=digest), tmp_path / "set")
    assert (tmp_path / "set" / "set.zip").read_bytes() == body
    assert len(routes["/other"].requests) == 2, (
        "a wrong digest is tried once more from the first byte"
    )


def test_all_mirrors_failing_says_what_each_one_said(tmp_path: Path) -> None:
    page = b"  <html><body>sorry, the download quota is used up</body></html>"
    routes = {
        "/html": Behaviour(page),
        "/short": Behaviour(a_zip()[:-30]),
        "/empty": Behaviour(b""),
        "/wrong": Behaviour(a_zip(seed=9)),
    }
    with serving(routes) as base:
        urls = [f"{base}/{name}" for name in ("nothing", "html", "short", "empty", "wrong")]
        with pytest.raises(UserError) as caught:
            get(spec(*urls, md5="0" * 32), tmp_path / "set")
    text = str(caught.value)
    for said in (
        "HTTP 404",
        "quota exceeded instead of the file",
        "the file is empty",
        "md5 is",
        "drop/set/set.zip",
    ):
        assert said in text, said
    assert "archives.set" in text and not (tmp_path / "set").exists()


def test_first_use_is_trusted_and_remembered(tmp_path: Path) -> None:
    first, second = a_zip(seed=1), a_zip(seed=2)
    out = tmp_path / "set"
    with serving({"/x": Behaviour(first)}) as base:
        assert get(spec(f"{base}/x"), out)["files"][0]["checked_by"] == ["first-use"]
    (out / "set.zip").write_bytes(b"damaged later")
    with (
        serving({"/x": Behaviour(second)}) as base,
        pytest.raises(UserError, match="recorded at first use"),
    ):
        get(spec(f"{base}/x"), out)
    with serving({"/x": Behaviour(first)}) as base:
        get(spec(f"{base}/x"), out)
    assert (out / "set.zip").read_bytes() == first


def test_a_complete_archive_is_left_alone(tmp_path: Path) -> None:
    served = Behaviour(a_zip())
    with serving({"/x": served}) as base:
        get(spec(f"{base}/x"), tmp_path / "set")
        before = (tmp_path / "set" / "set.zip").stat().st_mtime_ns
        get(spec(f"{base}/x"), tmp_path / "set")
        assert (tmp_path / "set" / "set.zip").stat().st_mtime_ns == before
        assert len(served.requests) == 1
        digest = hashlib.sha256(served.body).hexdigest()
        checked = get(spec(f"{base}/x", sha256=digest), tmp_path / "set")
        assert checked["files"][0]["checked_by"] == ["sha256"] and len(served.requests) == 1
        with pytest.raises(UserError, match="sha256 is"):
            get(spec(f"{base}/x", sha256="0" * 64), tmp_path / "set")
    assert len(served.requests) == 3, (
        "a digest that was not checked yet is compared with the file; fetched if it differs"
    )


def test_finished_files_of_an_interrupted_archive_are_not_fetched_again(tmp_path: Path) -> None:
    one, two = Behaviour(a_zip(1)), Behaviour(a_zip(2), status=lambda n: 404 if n == 0 else 200)
    with serving({"/1": one, "/2": two}) as base:
        both = ArchiveSpec.model_validate(
            {
                "files": [
                    {"name": "1.zip", "urls": [f"{base}/1"]},
                    {"name": "2.zip", "urls": [f"{base}/2"]},
                ]
            }
        )
        with pytest.raises(UserError, match="HTTP 404"):
            get(both, tmp_path / "set")
        assert not (tmp_path / "set").exists()
        get(both, tmp_path / "set")
    assert len(one.requests) == 1 and len(two.requests) == 2
    assert left_over(tmp_path) == []


def test_not_enough_space_is_said_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with (
        serving({"/x": Behaviour(a_zip())}) as base,
        pytest.raises(UserError, match="not enough disk space"),
    ):
        get(spec(f"{base}/x"), tmp_path / "set")


def test_known_lengths_are_added_up_before_the_first_request(tmp_path: Path) -> None:
    served = Behaviour(a_zip())
    with serving({"/x": served}) as base, pytest.raises(UserError, match="not enough disk space"):
        get(spec(f"{base}/x", bytes=1 << 60), tmp_path / "set")
    assert served.requests == []


def test_what_is_there_already_needs_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another licence text writes the record again, on a disk that is all but full by now."""
    from collections import namedtuple

    body, usage = a_zip(), namedtuple("usage", "total used free")
    with serving({"/x": Behaviour(body)}) as base:
        wanted = spec(f"{base}/x", bytes=len(body))
        get(wanted, tmp_path / "set")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
        again = get(wanted.model_copy(update={"licence": "other terms"}), tmp_path / "set")
    assert again["licence"] == "other terms" and (tmp_path / "set" / "set.zip").read_bytes() == body


@pytest.mark.parametrize(
    "wrong",
    [
        {"files": []},
        {"files": [{"name": "../x.zip"}]},
        {"files": [{"name": "x.zip", "urls": ["ftp://example.org/x"]}]},
        {"files": [{"name": "x.zip", "sha256": "abc"}]},
        {"files": [{"name": "x.zip"}, {"name": "X.ZIP"}]},
        {"files": [{"name": "x.zip", "mirror": "http://example.org"}]},
    ],
)
def test_wrong_specifications_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"validation error"):
        ArchiveSpec.model_validate(wrong)


def test_generated_files_follow_the_code_that_generates_them(tmp_path: Path) -> None:
    """Trust on first use is for downloads: an archive that an older checkout generated is not kept, nor an error."""
    generated = ArchiveSpec.model_validate(
        {"files": [{"name": "UVO_frame_val.json", "urls": ["embedded://uvo/UVO_frame_val.json"]}]}
    )
    out = tmp_path / "uvo"
    today = get(generated, out)
    written = (out / "UVO_frame_val.json").read_bytes()
    older = b"[]"
    record = {**today["files"][0], "bytes": len(older), "sha256": hashlib.sha256(older).hexdigest()}
    (out / "UVO_frame_val.json").write_bytes(older)
    (out / "fetch.json").write_text(json.dumps({**today, "files": [record]}))
    assert get(generated, out) == today
    assert (out / "UVO_frame_val.json").read_bytes() == written


def test_the_first_digest_holds_in_every_clone(tmp_path: Path) -> None:
    """What nobody publishes a digest of: the second clone and the second user do not trust anew."""
    told: list[str] = []

    def fetched(clone: str, *urls: str, **facts: Any) -> dict[str, Any]:
        out = tmp_path / clone / "data/archives/set"
        words = {"progress": quiet, "policy": QUICK, "sleep": lambda s: None, "notice": told.append}
        return fetch(spec(*urls, **facts), out, digests=tmp_path / clone / first_use.FILE, **words)

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    served, other = Behaviour(a_zip(1)), Behaviour(a_zip(2))
    digest = hashlib.sha256(served.body).hexdigest()
    with serving({"/x": served, "/y": other}) as base:
        first = fetched("one", f"{base}/x")
        assert (
            f"set/set.zip: that of this download is in {first_use.FILE} now; commit it" in told[0]
        )
        noted = (tmp_path / "one" / first_use.FILE).read_bytes()
        assert noted.decode().splitlines()[1:] == [f"{digest}  set/set.zip"]
        (tmp_path / "two" / first_use.FILE).write_bytes(noted)
        assert fetched("two", f"{base}/y", f"{base}/x") == first, (
            "the mirror that has another file is passed over"
        )
        assert len(told) == 1 and (tmp_path / "two" / first_use.FILE).read_bytes() == noted

        (tmp_path / "one" / first_use.FILE).write_text(f"{'0' * 64}  set/set.zip\n")
        assert first_use.others(
            first_use.read(tmp_path / "one" / first_use.FILE), tmp_path / "one/data/archives"
        ) == ["set/set.zip"]
        with pytest.raises(
            UserError, match=r"(?s)was recorded at first use.*cure: if its publisher has replaced"
        ) as error:
            fetched("one", f"{base}/x")
        assert f"delete the line `set/set.zip` of {first_use.FILE}" in str(error.value)

        known = {"sha256": hashlib.sha256(other.body).hexdigest()}
        fetched("one", f"{base}/y", **known)
    assert len(told) == 1, "a published digest is the only one that counts"


def test_a_damaged_list_of_first_digests_is_one_message(tmp_path: Path) -> None:
    for content in (
        "x  a/b\n",
        f"{'0' * 64}  a/../b\n",
        f"{'0' * 64}  ../b\n",
        f"{'0' * 64}  a/b\n{'1' * 64}  a/b\n",
        "\xff",
    ):
        (tmp_path / first_use.FILE).write_bytes(content.encode("latin-1"))
        with pytest.raises(UserError, match=r"line \d (is no|gives)"):
            first_use.read(tmp_path / first_use.FILE)
    (tmp_path / first_use.FILE).unlink()
    assert first_use.add(tmp_path / first_use.FILE, {"b/2": "1" * 64, "a/1": "0" * 64}) == [
        "a/1",
        "b/2",
    ]
    assert first_use.add(tmp_path / first_use.FILE, {"b/2": "2" * 64}) == []
    assert list(first_use.read(tmp_path / first_use.FILE).items()) == [
        ("a/1", "0" * 64),
        ("b/2", "1" * 64),
    ]
