"""Atomic files and folders, deterministic archives and tables."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqsam_base import atomic
from hqsam_base.errors import UserError
from hqsam_base.locks import locked
from hqsam_datasets.formats import manifest, tar_writer
from hqsam_datasets.formats import tar as tario


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    atomic.write_json(path, {"b": 1, "a": [1.5, None]})
    assert path.read_bytes() == b'{\n "a": [\n  1.5,\n  null\n ],\n "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        atomic.write_json(path, float("nan"))

    def half_written() -> None:
        with atomic.atomic_file(path) as file:
            file.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        half_written()
    assert atomic.read_json(path) == {"a": [1.5, None], "b": 1} and hidden(tmp_path) == []


def test_folders_replace_each_other_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("one", "two"):
        with atomic.atomic_folder(out) as folder:
            (folder / name).write_text(name)
            if name == "two":
                assert (out / "one").exists(), "the old one stays until the new one is whole"
    assert [p.name for p in out.iterdir()] == ["two"] and hidden(tmp_path) == []


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    atomic.write_bytes(tmp_path / "x", b"1")
    assert (tmp_path / "x").stat().st_mode == plain.stat().st_mode


HOLD = """
import sys, time
from pathlib import Path
from hqsam_base import atomic
with atomic.atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"x" * 1000)
    print("ready", flush=True)
    time.sleep(60)
"""


def test_temporaries_of_the_dead_are_cleared_and_those_of_the_living_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    assert atomic.clear_stale(out) == [] and len(hidden(tmp_path)) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    with atomic.atomic_folder(out) as folder:
        (folder / "whole").touch()
    assert hidden(tmp_path) == [] and [p.name for p in out.iterdir()] == ["whole"]


COUNT = """
import sys
from pathlib import Path
from hqsam_base.locks import locked
folder = Path(sys.argv[1])
for _ in range(100):
    with locked(folder / ".lock", remove=True):
        number = int((folder / "n").read_text())
        (folder / "n").write_text(str(number + 1))
"""


def test_locks_exclude_other_processes(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "n").read_text() == "300" and hidden(tmp_path) == []


def test_broken_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n[2]\n')
    for call, says in (
        (lambda: atomic.read_json(tmp_path / "x.json"), "not valid JSON"),
        (lambda: atomic.read_json(tmp_path / "y.json", cure="run it"), "cure: run it"),
        (lambda: atomic.read_jsonl(tmp_path / "x.jsonl"), "line 2"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            call()
        assert str(tmp_path) in str(caught.value)


def test_user_errors_survive_a_process_border() -> None:
    error = UserError("broken", file="a.tar", key="k", cure="mend it")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "broken\n  file: a.tar\n  key: k\n  cure: mend it"
    assert (copy.file, copy.key, copy.cure) == ("a.tar", "k", "mend it")


NAMES = st.text("abcdefgh0123_-./", min_size=1, max_size=180).filter(
    lambda n: not n.startswith("/") and "//" not in n and not n.endswith("/")
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=6))
def test_archives_are_what_tar_writes_and_read_back(
    tmp_path_factory: pytest.TempPathFactory, members: Any
) -> None:
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    try:
        digest = tar_writer.write_tar(path, members.items())
    except ValueError as error:
        assert "too long" in str(error)
        return
    import hashlib

    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    with tarfile.open(path) as tar:
        infos = tar.getmembers()
        assert [info.name for info in infos] == sorted(members)
        for info in infos:
            stream = tar.extractfile(info)
            assert stream is not None and stream.read() == members[info.name]
            assert (info.mtime, info.uid, info.gid, info.mode, info.uname, info.isreg()) == (
                0,
                0,
                0,
                0o644,
                "",
                True,
            )
    with tario.TarReader(path) as reader:
        assert {name: reader.read(name) for name in reader.members} == members
    assert path.stat().st_size % 10240 == 0


def test_our_archives_are_byte_for_byte_those_of_the_standard_library(tmp_path: Path) -> None:
    members = [("a.jpg", b"1" * 700), ("a.json", b"{}"), ("b/" + "c" * 120 + "/d.png", b"")]
    tar_writer.write_tar(tmp_path / "ours.tar", members)
    with tarfile.open(tmp_path / "theirs.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            import io

            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_shards_and_random_access(tmp_path: Path) -> None:
    with tar_writer.ShardWriter(tmp_path, prefix="s", samples_per_shard=3, first_shard=2) as writer:
        for i in range(7):
            writer.add(f"k{i}", {"json": b"{}", "jpg": bytes([i]) * (400 * i), "mask.png": b"m"})
    assert [info.name for info in writer.shards] == ["s-00002.tar", "s-00003.tar", "s-00004.tar"]
    assert [len(info.keys) for info in writer.shards] == [3, 3, 1]
    for info in writer.shards:
        with tario.TarReader(tmp_path / info.name) as reader:
            for key, _, offset, end in tario.places({"shards": [info.as_json()]}):
                found, files = reader.read_sample(offset, end)
                assert found == key and list(files) == ["jpg", "json", "mask.png"]
                assert offset == 0 or (found, files) == reader.read_sample(*reader.spans()[key])
                assert len(files["jpg"]) == 400 * int(key[1])
            assert list(reader.spans()) == info.keys
            for wrong in (
                (0, info.bytes),
                (512, 2048),
                (info.bytes - 1024, info.bytes),
                (0, info.bytes + 1),
            ):
                if len(info.keys) > 1 or wrong[0]:
                    with pytest.raises(UserError):
                        reader.read_sample(*wrong)
        assert (tmp_path / info.name).stat().st_size == info.bytes
    samples = [s for info in writer.shards for s in tario.iterate_samples(tmp_path / info.name)]
    assert [key for key, _ in samples] == [f"k{i}" for i in range(7)]


def test_no_samples_no_shard_and_no_duplicates(tmp_path: Path) -> None:
    with tar_writer.ShardWriter(tmp_path, prefix="s", samples_per_shard=3) as writer:
        pass
    assert writer.shards == [] and list(tmp_path.iterdir()) == []
    with tar_writer.ShardWriter(tmp_path, prefix="s", samples_per_shard=9) as writer:
        writer.add("k", {"json": b""})
        with pytest.raises(ValueError, match="already in the archive"):
            writer.add("k", {"json": b""})


def test_damaged_archives_are_user_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    tar_writer.write_tar(path, [("a", b"1" * 3000), ("b", b"2")])
    good = path.read_bytes()
    for data, says in (
        (good[:1500], "truncated"),
        (good[:100], "truncated"),
        (b"x" + good[1:], "damaged tar header"),
        (good[:130] + b"9" + good[131:], "damaged tar header"),
        (b"\0" * 0 + b"q" * 2048, "damaged tar header"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=says), tario.TarReader(path) as reader:
            assert reader.members
    with pytest.raises(UserError, match="does not exist"):
        tario.TarReader(tmp_path / "none.tar")


def row(key: str, **values: Any) -> dict[str, Any]:
    base = {
        "key": key,
        "source": "s",
        "shard": "x.tar",
        "n_instances": 1,
        "height": 2,
        "width": 3,
        "image_digest": "",
        "pixel_digest": "",
        "mask_encoding": "0/255",
        "image_mode": "RGB",
        "exif_orientation": 1,
        "soft_fraction": 0.0,
        "fg_fraction": 0.5,
        "origin_image": "",
        "origin_mask": "",
        "pdq": b"\x01" * 32,
        "pdq_quality": 5,
        "tiles": b"T1",
    }
    return {**base, **values}


def test_tables_are_sorted_and_have_the_same_bytes(tmp_path: Path) -> None:
    rows = [row("b"), row("a", width=7), row("c")]
    manifest.write_rows(tmp_path / "1.parquet", "samples", rows)
    manifest.write_rows(tmp_path / "2.parquet", "samples", rows[::-1])
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    assert manifest.read_rows(tmp_path / "1.parquet") == [row("a", width=7), row("b"), row("c")]
    assert manifest.read_rows(tmp_path / "1.parquet", ["key"]) == [
        {"key": "a"},
        {"key": "b"},
        {"key": "c"},
    ]
    manifest.write_rows(tmp_path / "0.parquet", "samples", [])
    assert manifest.read_rows(tmp_path / "0.parquet") == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"width": "wide"}, "does not fit"),
        ({"width": 2**40}, "does not fit"),
        ({"width": None}, "width holds a null"),
        ({"colour": 1}, "missing or unknown: .'colour'"),
    ],
)
def test_wrong_rows_are_refused(tmp_path: Path, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        manifest.write_rows(tmp_path / "x.parquet", "samples", [row("a", **wrong)])
    assert list(tmp_path.iterdir()) == []


def test_damaged_tables_are_user_errors(tmp_path: Path) -> None:
    manifest.write_rows(tmp_path / "x.parquet", "samples", [row("a")])
    data = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(data[:-20])
    for path, columns in ((tmp_path / "x.parquet", None), (tmp_path / "none.parquet", None)):
        with pytest.raises(UserError, match="the table"):
            manifest.read_table(path, columns)


def test_reasons_are_counted() -> None:
    rejects = [
        manifest.Reject(source="s", origin=str(i), reason="empty_mask", detail="") for i in range(3)
    ]
    rejects.append(manifest.Reject(source="s", origin="x", reason="known_bad", detail=""))
    assert json.dumps(manifest.count_by_reason(rejects)) == '{"empty_mask": 3, "known_bad": 1}'


def test_a_dead_holder_does_not_block_the_lock(tmp_path: Path) -> None:
    code = "import sys,time\nfrom pathlib import Path\nfrom hqsam_base.locks import locked\n"
    code += (
        "with locked(Path(sys.argv[1]), remove=True):\n    print('ready', flush=True)\n    "
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ".lock")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    start = time.monotonic()
    with locked(tmp_path / ".lock", remove=True):
        pass
    assert time.monotonic() - start < 5 and hidden(tmp_path) == []
