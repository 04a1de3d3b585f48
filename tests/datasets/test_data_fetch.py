"""Fetching from real servers that misbehave, from folders, and from other places."""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
from data_server import Behaviour, serving
from hqsam_datasets import fetch_remote
from hqsam_datasets.archive import ArchiveSpec, fetch
from hqsam_datasets.errors import UserError
from hqsam_datasets.fetch_http import download
from hqsam_datasets.fetch_transfer import DownloadError, RetryPolicy, Transfer

QUICK = RetryPolicy(attempts=4, base_s=0.0, timeout_s=5.0)


def quiet(done: int, total: int, what: str) -> None:
    """Report nothing."""


def blob(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def a_zip(seed: int = 0, size: int = 50_000) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a/b.bin"), blob(size, seed))
    return buffer.getvalue()


def spec(*urls: str, name: str = "set.zip", **facts: Any) -> ArchiveSpec:
    return ArchiveSpec.model_validate({"files": [{"name": name, "urls": list(urls), **facts}]})


def get(spec: ArchiveSpec, out: Path, waits: list[float] | None = None) -> dict[str, Any]:
    waits = [] if waits is None else waits
    return fetch(spec, out, report=quiet, policy=QUICK, sleep=waits.append)


def left_over(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_plain_download_is_verified_and_recorded(tmp_path: Path) -> None:
    body = a_zip()
    digest = hashlib.sha256(body).hexdigest()
    with serving({"/set.zip": Behaviour(body)}) as base:
        facts = {"sha256": digest, "bytes": len(body), "md5": hashlib.md5(body).hexdigest()}
        result = get(spec(f"{base}/set.zip", **facts), tmp_path / "set")
    assert (tmp_path / "set" / "set.zip").read_bytes() == body
    assert json.loads((tmp_path / "set" / "fetch.json").read_bytes()) == result
    record = {"name": "set.zip", "bytes": len(body), "sha256": digest, "checked_by": ["md5", "sha256"]}
    assert result["files"] == [record]
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_fifty_cuts_at_random_places(tmp_path: Path, ranges: bool) -> None:
    body = a_zip(size=400_000)
    dice = random.Random(1)
    # Without ranges every request starts anew: the cuts must come later and later for progress to be made.
    cuts = [dice.randrange(1, 9000) if ranges else 7000 * (i + 1) for i in range(50)]
    served = Behaviour(body, ranges=ranges, cut=lambda n: cuts[n] if n < 50 else None)
    with serving({"/set.zip": served}) as base:
        get(spec(f"{base}/set.zip"), tmp_path / "set")
    assert (tmp_path / "set" / "set.zip").read_bytes() == body
    assert len(served.requests) == 51
    assert sum("Range" in request for request in served.requests) == 50
    assert left_over(tmp_path) == []


def test_a_server_without_ranges_that_always_cuts_is_given_up(tmp_path: Path) -> None:
    served = Behaviour(a_zip(), ranges=False, cut=lambda n: 1000)
    with serving({"/set.zip": served}) as base, pytest.raises(UserError, match="gave up after 4 failures"):
        get(spec(f"{base}/set.zip"), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_resume_after_the_process_died(tmp_path: Path) -> None:
    body = a_zip()
    part = tmp_path / "set.zip.part"
    served = Behaviour(body, cut=lambda n: 20_000 if n == 0 else None)
    with serving({"/x": served}) as base:
        with pytest.raises(DownloadError):
            download(f"{base}/x", part, Transfer(policy=RetryPolicy(attempts=1)))
        assert part.read_bytes() == body[:20_000]
        download(f"{base}/x", part, Transfer(policy=QUICK))
    assert part.read_bytes() == body
    assert served.requests[1]["Range"] == "bytes=20000-" and "If-Range" in served.requests[1]
    assert not (tmp_path / "set.zip.part.json").exists()


def test_a_file_that_changed_is_begun_anew(tmp_path: Path) -> None:
    old, new = a_zip(seed=1), a_zip(seed=2)
    part = tmp_path / "p.part"
    with serving({"/x": Behaviour(old, cut=lambda n: 30_000)}) as base, pytest.raises(DownloadError):
        download(f"{base}/x", part, Transfer(policy=RetryPolicy(attempts=1)))
    state = json.loads((tmp_path / "p.part.json").read_bytes())
    with serving({"/x": Behaviour(new)}) as base:
        (tmp_path / "p.part.json").write_text(json.dumps({**state, "url": f"{base}/x"}))
        download(f"{base}/x", part, Transfer(policy=QUICK))
    assert part.read_bytes() == new


def test_no_validator_means_no_resume_unless_a_digest_is_known(tmp_path: Path) -> None:
    body = a_zip()
    for known, expected in ((False, None), (True, "bytes=20000-")):
        served = Behaviour(body, etag=None, cut=lambda n: 20_000 if n == 0 else None)
        part = tmp_path / f"{known}.part"
        with serving({"/x": served}) as base:
            download(f"{base}/x", part, Transfer(verified_later=known, policy=QUICK, sleep=lambda s: None))
        assert part.read_bytes() == body
        assert served.requests[1].get("Range") == expected


def test_a_weak_etag_is_not_used_for_resuming(tmp_path: Path) -> None:
    served = Behaviour(a_zip(), etag='W/"1"', cut=lambda n: 20_000 if n == 0 else None)
    with serving({"/x": served}) as base:
        download(f"{base}/x", tmp_path / "p.part", Transfer(policy=QUICK, sleep=lambda s: None))
    assert "Range" not in served.requests[1]


def test_busy_servers_are_asked_again_and_retry_after_is_honoured(tmp_path: Path) -> None:
    body, waits = a_zip(), []
    statuses = [503, 429, 500]
    served = Behaviour(body, status=lambda n: statuses[n] if n < 3 else 200, headers={"Retry-After": "7"})
    with serving({"/set.zip": served}) as base:
        get(spec(f"{base}/set.zip"), tmp_path / "set", waits)
    assert (tmp_path / "set" / "set.zip").read_bytes() == body
    assert len(waits) == 3 and min(waits) >= 7


def test_waits_grow_and_differ() -> None:
    policy = RetryPolicy(base_s=1.0, cap_s=20.0)
    for failures, bound in ((1, 1.0), (2, 2.0), (5, 16.0), (9, 20.0)):
        waits = [policy.wait(failures) for _ in range(50)]
        assert bound / 2 <= min(waits) and max(waits) <= bound and len(set(waits)) > 1


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
    assert len(routes["/other"].requests) == 2, "a wrong digest is tried once more from the first byte"


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
    for said in ("HTTP 404", "quota exceeded instead of the file", "the file is empty", "md5 is", "drop/set/set.zip"):
        assert said in text, said
    assert "archives.set" in text and not (tmp_path / "set").exists()


def test_truncated_files_without_digest_are_noticed(tmp_path: Path) -> None:
    for name, body in (("set.zip", a_zip()[:-100]), ("a.json", b'[{"image_id": 1, "sco'), ("b.json", b"oops")):
        with serving({"/x": Behaviour(body)}) as base, pytest.raises(UserError, match="not "):
            get(spec(f"{base}/x", name=name), tmp_path / name)


def test_a_length_that_is_too_large_is_a_cut(tmp_path: Path) -> None:
    body = a_zip()
    honest = Behaviour(body, announced=len(body) + 5000)
    with serving({"/x": honest}) as base:
        get(spec(f"{base}/x"), tmp_path / "set")
    assert (tmp_path / "set" / "set.zip").read_bytes() == body, "asked for the rest, it says that there is none"
    stubborn = Behaviour(body, announced=len(body) + 5000, ranges=False)
    with serving({"/x": stubborn}) as base, pytest.raises(UserError, match="gave up"):
        get(spec(f"{base}/x"), tmp_path / "other")


def test_a_length_that_is_too_small_fails_the_check(tmp_path: Path) -> None:
    body = a_zip()
    with (
        serving({"/x": Behaviour(body, announced=len(body) - 5000)}) as base,
        pytest.raises(UserError, match="truncated"),
    ):
        get(spec(f"{base}/x"), tmp_path / "set")


def test_an_announced_length_that_is_not_the_expected_one_is_refused_at_once(tmp_path: Path) -> None:
    served = Behaviour(a_zip())
    with serving({"/x": served}) as base, pytest.raises(UserError, match="were expected"):
        get(spec(f"{base}/x", bytes=10), tmp_path / "set")
    assert len(served.requests) == 1


def test_first_use_is_trusted_and_remembered(tmp_path: Path) -> None:
    first, second = a_zip(seed=1), a_zip(seed=2)
    out = tmp_path / "set"
    with serving({"/x": Behaviour(first)}) as base:
        assert get(spec(f"{base}/x"), out)["files"][0]["checked_by"] == ["first-use"]
    (out / "set.zip").write_bytes(b"damaged later")
    with serving({"/x": Behaviour(second)}) as base, pytest.raises(UserError, match="recorded at first use"):
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
        get(spec(f"{base}/x", sha256=hashlib.sha256(served.body).hexdigest()), tmp_path / "set")
    assert len(served.requests) == 2, "a digest that was not checked yet makes the stage look again"


def test_finished_files_of_an_interrupted_archive_are_not_fetched_again(tmp_path: Path) -> None:
    one, two = Behaviour(a_zip(1)), Behaviour(a_zip(2), status=lambda n: 404 if n == 0 else 200)
    with serving({"/1": one, "/2": two}) as base:
        both = ArchiveSpec.model_validate(
            {"files": [{"name": "1.zip", "urls": [f"{base}/1"]}, {"name": "2.zip", "urls": [f"{base}/2"]}]}
        )
        with pytest.raises(UserError, match="HTTP 404"):
            get(both, tmp_path / "set")
        assert not (tmp_path / "set").exists()
        get(both, tmp_path / "set")
    assert len(one.requests) == 1 and len(two.requests) == 2
    assert left_over(tmp_path) == []


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
    wanted = {"files": [{"name": "v.zip", "urls": []}], "instructions": "sign in at example.org and accept the terms"}
    with pytest.raises(UserError, match=r"sign in at example\.org"):
        get(ArchiveSpec.model_validate(wanted), tmp_path / "ytvis")


def test_not_enough_space_is_said_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with serving({"/x": Behaviour(a_zip())}) as base, pytest.raises(UserError, match="not enough disk space"):
        get(spec(f"{base}/x"), tmp_path / "set")


BYTES = {"Accept-Ranges": "bytes"}
SEGMENTS = Transfer(policy=QUICK, sleep=lambda s: None, segments=3, segment_bytes=10_000)


def only_part(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_large_files_come_over_several_connections(tmp_path: Path) -> None:
    body = blob(100_001)
    served = Behaviour(body, headers=BYTES)
    seen: list[tuple[int, int]] = []
    how = Transfer(
        policy=QUICK, segments=3, segment_bytes=10_000, progress=lambda done, total: seen.append((done, total))
    )
    with serving({"/x": served}) as base:
        download(f"{base}/x", tmp_path / "p", how)
    assert (tmp_path / "p").read_bytes() == body and only_part(tmp_path) == ["p"]
    ranges = {request.get("Range") for request in served.requests}
    assert ranges == {None, "bytes=0-0", "bytes=0-33333", "bytes=33334-66667", "bytes=66668-100000"}
    assert seen[-1] == (100_001, 100_001) and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_segments_survive_random_cuts(tmp_path: Path) -> None:
    body, dice = blob(300_000), random.Random(2)
    cuts = [dice.randrange(1, 9000) for _ in range(60)]
    served = Behaviour(body, headers=BYTES, cut=lambda n: cuts[n] if 2 <= n < 60 else None)
    with serving({"/x": served}) as base:
        download(f"{base}/x", tmp_path / "p", SEGMENTS)
    assert (tmp_path / "p").read_bytes() == body and only_part(tmp_path) == ["p"]


def test_segments_are_resumed_by_the_next_run(tmp_path: Path) -> None:
    body = blob(90_000)
    served = Behaviour(body, headers=BYTES, cut=lambda n: 5000 if n >= 2 else None)
    with serving({"/x": served}) as base:
        hasty = Transfer(policy=RetryPolicy(attempts=1), segments=3, segment_bytes=10_000)
        with pytest.raises(DownloadError):
            download(f"{base}/x", tmp_path / "p", hasty)
        kept = {p.name: p.stat().st_size for p in tmp_path.glob("p.seg[0-9]")}
        assert kept == {"p.seg0": 5000, "p.seg1": 5000, "p.seg2": 5000}
        served.cut = lambda n: None
        before = len(served.requests)
        download(f"{base}/x", tmp_path / "p", SEGMENTS)
    assert (tmp_path / "p").read_bytes() == body and only_part(tmp_path) == ["p"]
    asked = {request["Range"] for request in served.requests[before:]}
    assert asked == {"bytes=5000-29999", "bytes=35000-59999", "bytes=65000-89999"}


def test_joining_can_be_interrupted_anywhere(tmp_path: Path) -> None:
    body = blob(90_000)
    state = {"validator": '"v"', "total": 90_000, "count": 3}
    cases = {
        "not begun": (None, (0, 1, 2)),
        "renamed": (30_000, (1, 2)),
        "half of one": (41_234, (1, 2)),
        "one joined": (60_000, (1, 2)),
        "one removed": (60_000, (2,)),
        "all joined": (90_000, (2,)),
        "all removed": (90_000, ()),
    }
    with serving({"/x": Behaviour(body, headers=BYTES)}) as base:
        for name, (joined, left) in cases.items():
            folder = tmp_path / name
            folder.mkdir()
            (folder / "p.segments.json").write_text(json.dumps({**state, "url": f"{base}/x"}))
            if joined is not None:
                (folder / "p").write_bytes(body[:joined])
            for number in left:
                (folder / f"p.seg{number}").write_bytes(body[30_000 * number : 30_000 * (number + 1)])
            download(f"{base}/x", folder / "p", SEGMENTS)
            assert (folder / "p").read_bytes() == body, name
            assert only_part(folder) == ["p"], name


def test_a_promise_of_ranges_that_is_not_kept(tmp_path: Path) -> None:
    body = blob(100_000)
    served = Behaviour(body, headers=BYTES, ranges=False)
    with serving({"/x": served}) as base:
        download(f"{base}/x", tmp_path / "p", SEGMENTS)
    assert (tmp_path / "p").read_bytes() == body and only_part(tmp_path) == ["p"]


def test_a_file_that_changes_between_segments(tmp_path: Path) -> None:
    old, new = blob(90_000, 1), blob(90_000, 2)
    served = Behaviour(old, headers=BYTES, cut=lambda n: 5000 if n >= 2 else None)
    with serving({"/x": served}) as base:
        hasty = Transfer(policy=RetryPolicy(attempts=1), segments=3, segment_bytes=10_000)
        with pytest.raises(DownloadError):
            download(f"{base}/x", tmp_path / "p", hasty)
        served.body, served.cut = new, lambda n: None
        download(f"{base}/x", tmp_path / "p", SEGMENTS)
    assert (tmp_path / "p").read_bytes() == new and only_part(tmp_path) == ["p"]


def test_compressed_transfers_are_refused(tmp_path: Path) -> None:
    served = Behaviour(a_zip(), headers={"Content-Encoding": "gzip"})
    with serving({"/x": served}) as base, pytest.raises(UserError, match="sends the file compressed"):
        get(spec(f"{base}/x"), tmp_path / "set")


def test_known_lengths_are_added_up_before_the_first_request(tmp_path: Path) -> None:
    served = Behaviour(a_zip())
    with serving({"/x": served}) as base, pytest.raises(UserError, match="not enough disk space"):
        get(spec(f"{base}/x", bytes=1 << 60), tmp_path / "set")
    assert served.requests == []


def test_google_drive_confirmation_page(tmp_path: Path) -> None:
    body = a_zip()
    form = (
        b'<!DOCTYPE html><html><form action="x"><input type="hidden" name="id" value="F1">'
        b'<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="u-1"></form></html>'
    )
    answers: dict[str, Behaviour] = {"/download": Behaviour(form)}

    class Answers(dict[str, Behaviour]):
        def get(self, path: str, default: Any = None) -> Any:
            what = answers["/download"]
            if len(what.requests) == 2:  # the page was seen, and read for its form
                what.body = body
            return what

    with serving(Answers()) as base:
        fetch_remote.download_from_drive(
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
