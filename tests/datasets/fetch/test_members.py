"""Only the images that LVIS names are taken out of a remote zip, whatever the server does."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hqsam_base.errors import UserError
from hqsam_datasets.fetch.archive import fetch
from hqsam_datasets.fetch.extract import extracted
from hqsam_datasets.fetch.members import download_members
from hqsam_datasets.fetch.spec import ArchiveSpec
from hqsam_datasets.fetch.transfer import DownloadError, RetryPolicy, Transfer
from tests.datasets.fetch.server import Behaviour, serving

QUICK = RetryPolicy(attempts=4, base_s=0.0, timeout_s=5.0)
NAMED = sorted(random.Random(0).sample(range(300), 40))


def body_of(number: int) -> bytes:
    dice = random.Random(number)
    return dice.randbytes(3000) if number % 2 else bytes(dice.choices(b"ab", k=9000))


def images_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in random.Random(1).sample(range(300), 300):
            how = zipfile.ZIP_STORED if number % 2 else zipfile.ZIP_DEFLATED
            info = zipfile.ZipInfo(f"train2017/{number:012d}.jpg")
            info.extra = b"\x99\x99\x04\x00abcd" if number % 3 else b""
            archive.writestr(info, body_of(number), how)
    return buffer.getvalue()


def lvis_zip(extra: tuple[int, ...] = ()) -> bytes:
    base = "http://images.cocodataset.org"
    images = [{"id": n, "coco_url": f"{base}/train2017/{n:012d}.jpg"} for n in (*NAMED, *extra)]
    images.append(
        {"id": 999, "coco_url": f"{base}/val2017/{999:012d}.jpg"}
    )  # lies in another archive
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("lvis_v1_val.json", json.dumps({"images": images, "annotations": []}))
    return buffer.getvalue()


def get(base: str, out: Path, *, url: str | None = None) -> dict[str, Any]:
    spec = {
        "files": [
            {"name": "lvis.json.zip", "urls": [f"{base}/lvis.json.zip"]},
            {
                "name": "train2017.tar",
                "urls": [url or f"{base}/train2017.zip"],
                "only_named_in": "lvis.json.zip",
            },
        ]
    }
    return fetch(
        ArchiveSpec.model_validate(spec),
        out,
        progress=lambda *_: None,
        policy=QUICK,
        sleep=lambda seconds: None,
    )


def routes(**behaviour: Any) -> dict[str, Behaviour]:
    return {
        "/lvis.json.zip": Behaviour(lvis_zip()),
        "/train2017.zip": Behaviour(images_zip(), **behaviour),
    }


def test_only_the_named_members_come(tmp_path: Path) -> None:
    served = routes()
    with serving(served) as base:
        get(base, tmp_path / "archives" / "lvis")
        root = extracted(tmp_path / "archives" / "lvis", tmp_path / "extracted")
    found = {path.name: path.read_bytes() for path in root.rglob("*.jpg")}
    assert found == {f"{n:012d}.jpg": body_of(n) for n in NAMED}
    # One request for the length, one for the directory, one a member.
    assert len(served["/train2017.zip"].requests) == 2 + len(NAMED)
    assert all("Range" in request for request in served["/train2017.zip"].requests)


def test_cuts_and_busy_servers_leave_the_same_bytes(tmp_path: Path) -> None:
    dice = random.Random(3)
    faults = {n: dice.random() for n in range(2000)}
    with serving(routes()) as base:
        get(base, tmp_path / "undisturbed")
    worse = routes(
        cut=lambda n: dice.randrange(2000) if faults[n] < 0.2 else None,
        status=lambda n: 503 if faults[n] > 0.9 else 200,
    )
    with serving(worse) as base:
        for _ in range(30):  # a run gives up after four failures in a row; the next goes on
            try:
                get(base, tmp_path / "disturbed")
                break
            except UserError as error:
                assert "gave up after" in str(error)
    same = (tmp_path / "undisturbed" / "train2017.tar").read_bytes()
    assert (tmp_path / "disturbed" / "train2017.tar").read_bytes() == same
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".download")] == []
    assert len(worse["/train2017.zip"].requests) > 2 + len(NAMED)


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [({"ranges": False}, "gives no ranges"), ({"status": lambda n: 404}, "404")],
)
def test_servers_that_cannot_are_named(
    behaviour: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with serving(routes(**behaviour)) as base, pytest.raises(UserError, match=says):
        get(base, tmp_path / "set")


def test_damaged_and_missing_members_are_named(tmp_path: Path) -> None:
    served = routes()
    data = bytearray(served["/train2017.zip"].body)
    place = data.index(body_of(next(n for n in NAMED if n % 2)))
    data[place] ^= 1
    served["/train2017.zip"].body = bytes(data)
    with (
        serving(served) as base,
        pytest.raises(UserError, match="not those of the zip's directory"),
    ):
        get(base, tmp_path / "damaged")
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(f"train2017/{NAMED[0]:012d}.jpg".encode()))
    data[entry + 20 : entry + 24] = (1 << 30).to_bytes(4, "little")  # of what is read into memory
    served["/train2017.zip"].body = bytes(data)
    with (
        serving(served) as base,
        pytest.raises(UserError, match="1073741824 bytes are not an image"),
    ):
        get(base, tmp_path / "huge")
    served = routes()
    served["/lvis.json.zip"].body = lvis_zip(extra=(301,))
    with serving(served) as base, pytest.raises(UserError, match="lacks 1 of the named files"):
        get(base, tmp_path / "missing")


def test_a_whole_zip_from_the_drop_folder_does_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    (drop / "train2017.zip").write_bytes(images_zip())
    monkeypatch.setenv("HQSAM_DROP_DIR", str(drop))
    with serving({"/lvis.json.zip": Behaviour(lvis_zip())}) as base:
        get(base, tmp_path / "from_drop")
    monkeypatch.delenv("HQSAM_DROP_DIR")
    with serving(routes()) as base:
        get(base, tmp_path / "from_net")
    tars = [(tmp_path / name / "train2017.tar").read_bytes() for name in ("from_drop", "from_net")]
    assert tars[0] == tars[1]


def test_a_damaged_list_of_names_is_fetched_anew(tmp_path: Path) -> None:
    served = routes()
    whole = served["/lvis.json.zip"].body
    place = whole.index(b"images.cocodataset")
    served["/lvis.json.zip"].body = whole[:place] + b"X" + whole[place + 1 :]
    with serving(served) as base:
        with pytest.raises(
            UserError,
            match=r"(?s)the zip is damaged: BadZipFile.*lvis\.json\.zip.*run the stage again",
        ):
            get(base, tmp_path / "set")
        served["/lvis.json.zip"].body = whole
        get(base, tmp_path / "set")
    assert (tmp_path / "set" / "train2017.tar").is_file()


@pytest.mark.parametrize("fault", ["damaged", "gone"])
def test_a_zip_of_this_machine_that_is_damaged_or_gone_is_one_message(
    fault: str, tmp_path: Path
) -> None:
    place, body = tmp_path / "train2017.zip", bytearray(images_zip())
    body[body.index(body_of(next(n for n in NAMED if n % 2)))] ^= 1
    if fault == "damaged":
        place.write_bytes(body)
    says = {"damaged": "not those of the zip's directory", "gone": "No such file"}[fault]
    with (
        serving({"/lvis.json.zip": Behaviour(lvis_zip())}) as base,
        pytest.raises(UserError, match=says),
    ):
        get(base, tmp_path / "set", url=place.as_uri())


def test_a_member_without_a_name_is_passed_over(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("x"), b"nothing")
        archive.infolist()[0].filename = ""
        archive.writestr("d/0.jpg", body_of(1))
    url = (tmp_path / "a.zip").as_uri()
    with pytest.raises(DownloadError, match=r"d/1\.jpg"):
        download_members(url, {"d/0.jpg", "d/1.jpg"}, tmp_path / "a.tar", Transfer())


@pytest.mark.parametrize(
    "wrong",
    [
        {"only_named_in": "later.json"},
        {"only_named_in": "a.json", "sha1": "0" * 40},
        {"only_named_in": "a.json", "name": "x.zip"},
    ],
)
def test_wrong_specifications_are_refused(wrong: dict[str, Any]) -> None:
    files = [{"name": "a.json"}, {"name": "x.tar", **wrong}, {"name": "later.json"}]
    with pytest.raises(ValueError, match=r"only_named_in|part of a zip"):
        ArchiveSpec.model_validate({"files": files})
