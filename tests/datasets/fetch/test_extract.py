"""Extraction: layouts, damage, and archives that want to do harm."""

from __future__ import annotations

import hashlib
import io
import lzma
import multiprocessing
import stat
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from hqsam_base import atomic
from hqsam_base.errors import UserError
from hqsam_datasets.fetch import tar_headers
from hqsam_datasets.fetch.extract import extracted
from hqsam_datasets.fetch.tree import find_root
from hqsam_datasets.sources import load
from hqsam_datasets.sources.base import SourceOptions
from tests.datasets.trees import encoded, fault_count, jpeg, run, shape

Members = dict[str, bytes]


def zip_of(members: Members, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            out.writestr(info, data)
    return buffer.getvalue()


def put(folder: Path, files: dict[str, bytes]) -> Path:
    """An archive folder as `fetch` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    records = [{"name": n, "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()]
    atomic.write_json(folder / "fetch.json", {"files": records})
    return folder


def tree(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_layout_rules(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        info = tarfile.TarInfo("x/y.txt")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"ok"))
    source = put(
        tmp_path / "set",
        {
            "DIS5K.zip": zip_of(
                {
                    "DIS5K/DIS-TR/im/a#1.jpg": b"1",
                    "__MACOSX/DIS5K/._a": b"x",
                    "DIS5K/.DS_Store": b"",
                }
            ),
            "cascade_psp.zip": zip_of({"ecssd/1.jpg": b"2", "ecssd/1.png": b"3"}),
            "lvis_v1_val.json.zip": zip_of({"lvis_v1_val.json": b"{}"}),
            "gt.json": b"[]",
            "more.tar.gz": inner.getvalue(),
        },
    )
    root = extracted(source, tmp_path / "extracted")
    assert tree(root) == [
        ".complete.json",
        "DIS5K/DIS-TR/im/a#1.jpg",
        "cascade_psp/ecssd/1.jpg",
        "cascade_psp/ecssd/1.png",
        "gt.json",
        "lvis_v1_val.json",
        "more/x/y.txt",
    ]
    assert find_root(root, "DIS-TR/im") == root / "DIS5K"
    assert find_root(root, "nothing", "ecssd") == root / "cascade_psp"
    with pytest.raises(UserError, match="its top level holds"):
        find_root(root, "nothing")


def test_extraction_is_done_once_and_again_when_the_archive_changes(tmp_path: Path) -> None:
    source = put(tmp_path / "set", {"a.zip": zip_of({"x.txt": b"1"})})
    root = extracted(source, tmp_path / "e")
    (root / "mark").touch()
    assert extracted(source, tmp_path / "e") == root and (root / "mark").exists()
    put(tmp_path / "set", {"a.zip": zip_of({"x.txt": b"2"})})
    extracted(source, tmp_path / "e")
    assert not (root / "mark").exists() and (root / "a" / "x.txt").read_bytes() == b"2"
    assert [p.name for p in (tmp_path / "e").iterdir()] == ["set"]


def test_an_interrupted_extraction_is_not_complete(tmp_path: Path) -> None:
    source = put(tmp_path / "set", {"a.zip": zip_of({"x.txt": b"1"})})
    root = extracted(source, tmp_path / "e")
    (root / ".complete.json").unlink()
    (root / "a" / "x.txt").unlink()
    extracted(source, tmp_path / "e")
    assert (root / "a" / "x.txt").read_bytes() == b"1"


def _extract(arguments: tuple[Path, Path]) -> str:
    return str(extracted(*arguments))


def test_several_processes_share_one_extraction(tmp_path: Path) -> None:
    members = {f"f/{i}.bin": bytes([i % 251]) * 5000 for i in range(300)}
    source = put(tmp_path / "set", {"a.zip": zip_of(members)})
    with multiprocessing.get_context("fork").Pool(3) as pool:
        roots = pool.map(_extract, [(source, tmp_path / "e")] * 6)
    assert len(set(roots)) == 1 and len(tree(Path(roots[0]))) == 301
    assert [p.name for p in (tmp_path / "e").iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"../evil.txt": b"x"}, "leaves the folder"),
        ({"a/../../evil.txt": b"x"}, "leaves the folder"),
        ({"/etc/evil": b"x"}, "absolute or foreign"),
        ({"C:/evil": b"x"}, "absolute or foreign"),
        ({"a\\..\\evil": b"x"}, "absolute or foreign"),
        ({"Readme.txt": b"1", "README.txt": b"2"}, "falls together"),
        ({"e\u0301.txt": b"1", "\u00e9.txt": b"2"}, "falls together"),
        ({"a": b"1", "a/b": b"2"}, "a file and a folder"),
        ({}, "the archive is empty"),
    ],
)
def test_unsafe_zips_are_refused(tmp_path: Path, members: Members, says: str) -> None:
    source = put(tmp_path / "set", {"a.zip": zip_of(members)})
    with pytest.raises(UserError, match=says) as caught:
        extracted(source, tmp_path / "e")
    assert "a.zip" in str(caught.value)
    assert list((tmp_path / "e").iterdir()) == [] and not (tmp_path / "evil.txt").exists()


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(info, "/etc/passwd")
    for name, kind in (
        ("hard", tarfile.LNKTYPE),
        ("soft", tarfile.SYMTYPE),
        ("pipe", tarfile.FIFOTYPE),
    ):
        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        with pytest.raises(UserError, match="link or a device"):
            extracted(put(tmp_path / name, {"a.tar": inner.getvalue()}), tmp_path / "e")
    with pytest.raises(UserError, match="link or a device"):
        extracted(put(tmp_path / "set", {"a.zip": buffer.getvalue()}), tmp_path / "e")


def test_bombs_and_encryption_are_refused(tmp_path: Path) -> None:
    bomb = zip_of({"zeros": bytes(100 << 20)})
    assert len(bomb) < 200_000
    with pytest.raises(UserError, match="expands from"):
        extracted(put(tmp_path / "bomb", {"a.zip": bomb}), tmp_path / "e")
    secret = bytearray(zip_of({"x": b"1"}, zipfile.ZIP_STORED))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = secret.find(signature) + offset
        secret[at : at + 2] = struct.pack("<H", 1)
    with pytest.raises(UserError, match="encrypted"):
        extracted(put(tmp_path / "secret", {"a.zip": bytes(secret)}), tmp_path / "e")


def test_damage_anywhere_is_noticed(tmp_path: Path) -> None:
    good = zip_of(
        {f"d/{i}.bin": hashlib.sha256(bytes([i])).digest() * 40 for i in range(20)},
        zipfile.ZIP_STORED,
    )
    for cut in (10, len(good) // 2, len(good) - 5):
        with pytest.raises(UserError, match="run the fetch stage again"):
            extracted(put(tmp_path / f"cut{cut}", {"a.zip": good[:cut]}), tmp_path / "e")
    damaged = bytearray(good)
    damaged[len(good) // 3] ^= 255
    with pytest.raises(UserError, match="run the fetch stage again"):
        extracted(put(tmp_path / "flip", {"a.zip": bytes(damaged)}), tmp_path / "e")
    (tmp_path / "cut10" / "a.zip").unlink()
    with pytest.raises(UserError, match="a fetched file is missing"):
        extracted(tmp_path / "cut10", tmp_path / "e")
    assert list((tmp_path / "e").iterdir()) == []


def test_fuzzed_zips_give_a_user_error_or_the_right_bytes(tmp_path: Path) -> None:
    import random

    members = {f"d/{i}.bin": hashlib.sha256(bytes([i])).digest() * 9 for i in range(6)}
    good = zip_of(members)
    dice, refused = random.Random(4), 0
    for number in range(rounds := fault_count(150, 1000)):
        damaged = bytearray(good)
        for _ in range(dice.choice((1, 1, 4))):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            root = extracted(put(tmp_path / f"{number}", {"a.zip": bytes(damaged)}), tmp_path / "e")
        except UserError:
            refused += 1
        else:
            contents = {p.read_bytes() for p in root.rglob("*.bin")}
            assert contents <= set(members.values())
    assert refused > rounds // 5


def test_zips_made_on_windows_may_part_folders_by_backslashes(tmp_path: Path) -> None:
    def windows_zip(*names: str) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as out:
            for name in names:
                info = zipfile.ZipInfo(name)
                info.create_system = 0
                out.writestr(info, b"" if name.endswith("\\") else b"1")
        return buffer.getvalue()

    source = put(
        tmp_path / "set",
        {"mine.zip": windows_zip("photos\\", "photos\\a b.jpg", "masks\\Thumbs.db", "x.txt")},
    )
    assert tree(extracted(source, tmp_path / "extracted")) == [
        ".complete.json",
        "mine/photos/a b.jpg",
        "mine/x.txt",
    ]
    for number, name in enumerate(("..\\evil", "a\\..\\..\\evil", "C:\\evil", "\\\\server\\evil")):
        source = put(tmp_path / f"bad{number}", {"mine.zip": windows_zip(name)})
        with pytest.raises(UserError, match="is refused"):
            extracted(source, tmp_path / "extracted")
    source = put(tmp_path / "twice", {"mine.zip": windows_zip("a\\b.jpg", "A\\B.jpg")})
    with pytest.raises(UserError, match="falls together"):
        extracted(source, tmp_path / "extracted")


def test_a_method_that_python_lacks_is_not_called_damage(tmp_path: Path) -> None:
    """Windows Explorer packs what is larger than 2 GB as Deflate64."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive_file:
        archive_file.writestr("a/b.txt", b"text" * 100)
    body = bytearray(buffer.getvalue())
    for header, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        body[body.index(header) + offset] = 9
    with pytest.raises(UserError, match=r"(?s)not supported.*cure: unpack it with another program"):
        extracted(put(tmp_path / "set", {"a.zip": bytes(body)}), tmp_path / "e")


@pytest.mark.parametrize("name", ["a.7z", "a.RAR", "a.tar.zst"])
def test_kinds_of_archives_without_reader_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"(?s)no reader for this kind.*{name}.*cure: unpack it, pack the files"
    ):
        extracted(put(tmp_path / "set", {name: b"x"}), tmp_path / "e")


def test_archives_inside_an_archive_are_named_where_the_layout_is_missed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive_file:
        archive_file.writestr("shared folder/DIS5K.zip", b"x")
    root = extracted(put(tmp_path / "set", {"a.zip": buffer.getvalue()}), tmp_path / "e")
    for look in (
        lambda: find_root(root, "DIS-TR"),
        lambda: load("dis5k").scan("dis5k", root, SourceOptions(archive="a")),
    ):
        with pytest.raises(
            UserError, match=r"holds archives itself \(a/shared folder/DIS5K\.zip\): unpack those"
        ):
            look()


def test_names_in_other_alphabets_encodings_make_samples_too(tmp_path: Path) -> None:
    files = {
        "images/测试.jpg": jpeg(1),
        "masks/测试.png": encoded(shape()),
        "images/b.jpg": jpeg(2),
        "masks/b.png": encoded(shape()),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", encoding="gbk", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    root = extracted(put(tmp_path / "set", {"mine.tar": buffer.getvalue()}), tmp_path / "e")
    found = run("own", root, tmp_path / "out", kind="folder", images="images", masks="masks")
    assert found["n_samples"] == 2 and found["rejects_by_reason"] == {}


def tar_of(*parts: bytes, end: bytes = bytes(1024)) -> bytes:
    return b"".join(parts) + end


def member(name: str, data: bytes = b"", **facts: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in facts.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def pax(records: bytes, size: int | None = None) -> bytes:
    return member("x", records, type=tarfile.XHDTYPE, **({} if size is None else {"size": size}))


HARMFUL_TARS = {
    "expands": (tar_of(member("a", bytes(2 << 20))), "implausibly large"),
    "says that it expands": (tar_of(member("a", b"x", size=1 << 50)), "implausibly large"),
    "a large header": (
        tar_of(pax(b"6 a=b\n" * 20_000), member("a", b"x")),
        "an extended header of",
    ),
    "a header that claims to be large": (
        tar_of(pax(b"6 a=b\n", size=1 << 40), member("a", b"x")),
        "an extended header of",
    ),
    "a long name": (
        tar_of(member("@", b"n" * 40_000, type=tarfile.GNUTYPE_LONGNAME)),
        "an extended header of",
    ),
    "a name too long for a file": (tar_of(member("n" * 300, b"x")), "its name is too long"),
    "very many folders": (tar_of(member("a/" * 400 + "b", b"x")), "its name is too long"),
    "damage in the middle": (
        tar_of(member("a", b"x"), b"\xff" * 512, member("b", b"y")),
        "a damaged header at byte 1024",
    ),
    "cut in a header": (
        tar_of(member("a", b"x"), member("b", b"y")[:300], end=b""),
        "a damaged header at byte 1024",
    ),
    "no end": (tar_of(member("a", b"x"), end=b""), "or the archive is cut off there"),
}


# The tar that expands has all of its bytes as long as it is not packed.
@pytest.mark.parametrize(
    ("name", "suffix"),
    [(n, s) for n in HARMFUL_TARS for s in ("tar", "tar.xz") if (n, s) != ("expands", "tar")],
)
def test_a_tar_that_asks_for_too_much_is_one_message(
    name: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_headers, "RATIO_APPLIES_ABOVE", 1 << 20)
    body, says = HARMFUL_TARS[name]
    packed = body if suffix == "tar" else lzma.compress(body, preset=0)
    begin = time.process_time()
    with pytest.raises(UserError, match=says):
        extracted(put(tmp_path / "set", {f"a.{suffix}": packed}), tmp_path / "e")
    assert time.process_time() - begin < 1.0
    assert list((tmp_path / "e").iterdir()) == []


def test_a_length_that_leads_backwards_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with a file: old releases of `tarfile` read such a one without an end."""
    (tmp_path / "a.tar").write_bytes(tar_of(*(member(name, b"x") for name in "abc")))
    with tar_headers.opened(tmp_path / "a.tar") as archive:
        found = tar_headers.members(archive, tmp_path / "a.tar")
        assert [next(found).name, next(found).name] == ["a", "b"]
        archive.offset = 1024  # where the second began
        with pytest.raises(ValueError, match="a length that leads backwards"):
            next(found)
    negative = tarfile.TarInfo("a")
    negative.size = -512
    monkeypatch.setattr(tarfile.TarInfo, "frombuf", classmethod(lambda cls, *given: negative))
    with pytest.raises(ValueError, match="a header with a negative length"):
        tar_headers.Header.frombuf(b"", "utf-8", "strict")


def test_a_zip_whose_members_share_their_bytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them expands by less than the limit; all of them together do not."""
    monkeypatch.setattr(tar_headers, "RATIO_APPLIES_ABOVE", 1 << 20)
    good = bytearray(zip_of({"a": bytes(400_000)}))
    start = good.index(b"PK\x01\x02")
    entry, end = (
        bytes(good[start : good.index(b"PK\x05\x06")]),
        bytearray(good[good.index(b"PK\x05\x06") :]),
    )
    entries = b"".join(entry[:46] + bytes([97 + n]) + entry[47:] for n in range(9))
    struct.pack_into("<HHLL", end, 8, 9, 9, len(entries), start)
    with pytest.raises(UserError, match=r"its members have 3,600,000, the limit is 1,048,576"):
        extracted(
            put(tmp_path / "set", {"a.zip": bytes(good[:start]) + entries + bytes(end)}),
            tmp_path / "e",
        )


def test_a_name_that_no_file_can_have_is_one_message_in_a_zip_too(tmp_path: Path) -> None:
    for name in ("n" * 300, "ä" * 200, "a/" * 100 + "b"):
        with pytest.raises(UserError, match="its name is too long") as told:
            extracted(put(tmp_path / "set", {"a.zip": zip_of({name: b"x"})}), tmp_path / "e")
        assert len(str(told.value)) < 400
    extracted(put(tmp_path / "fits", {"a.zip": zip_of({"n" * 255: b"x"})}), tmp_path / "e")
