"""What a remote folder may say to `hqsam data pull`: nothing is written outside its folder, and nothing is left of a failure."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hqsam_base.errors import UserError
from hqsam_base.foreign_names import NameRefusedError, PlainName
from hqsam_datasets.fetch.spec import ArchiveSpec
from hqsam_datasets.formats import remote, shard_index
from hqsam_datasets.prepare.shards import ShardOptions
from tests.datasets.fetch.server import Behaviour, serving
from tests.datasets.trees import contents, quiet

BODY = b"a shard" * 9000


def record(name: object = "train-00000.tar", **other: object) -> dict[str, Any]:
    digest = hashlib.sha256(BODY).hexdigest()
    return {
        "name": name,
        "n": 1,
        "bytes": len(BODY),
        "sha256": digest,
        "keys": ["k"],
        "offsets": [0],
        **other,
    }


def store(folder: Path, *shards: object) -> str:
    """A remote folder whose every shard can be read, whatever its name."""
    (folder / "deep" / "set").mkdir(parents=True)
    for name in ("deep/set/train-00000.tar", "deep/set/Train-00000.TAR", "outside.tar"):
        (folder / name).write_bytes(BODY)
    (folder / "deep" / "set" / "index.json").write_text(json.dumps({"shards": shards}))
    return f"file://{folder}/deep/set"


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "name",
    [
        "../outside.tar",
        "../../outside.tar",
        "a/../../outside.tar",
        "a/train.tar",
        "./train-00000.tar",
        "train-00000.tar/",
        "..",
        ".",
        "",
        ".hidden",
        "index.json",
        "INDEX.JSON",
        "..\\outside.tar",
        "c:outside.tar",
        "a\0b",
        "a\nb",
        "a\x1b[2Jb",
        "n" * 300,
        7,
        None,
        ["train-00000.tar"],
        {"a": 1},
    ],
)
def test_a_shard_is_a_plain_file_name_or_nothing_is_written(tmp_path: Path, name: object) -> None:
    url = store(tmp_path / "store", record(), record(name))
    (tmp_path / "here").mkdir()
    before = everything(tmp_path)
    with pytest.raises(UserError, match="not a shard index") as caught:
        remote.pull(url, tmp_path / "here" / "new" / "set", progress=quiet)
    assert caught.value.file == f"{url}/index.json" and caught.value.key and caught.value.cure
    assert everything(tmp_path) == before


def test_an_absolute_name_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.tar"
    url = store(tmp_path / "store", record(str(target)))
    with pytest.raises(UserError, match="absolute"):
        remote.pull(url, tmp_path / "set", progress=quiet)
    assert not target.exists() and not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "shards",
    [
        (record(), record()),
        (record(), record("Train-00000.TAR")),
        (record(bytes=-1),),
        (record(bytes="7"),),
        (record(bytes=True),),
        (record(sha256="0" * 63),),
        (record(sha256=None),),
        (record(keys="k"),),
        (record(offsets=[0, 1]),),
        ("train-00000.tar",),
        (None,),
    ],
)
def test_the_whole_index_is_checked_before_the_first_write(
    tmp_path: Path, shards: tuple[object, ...]
) -> None:
    url = store(tmp_path / "store", *shards)
    before = everything(tmp_path)
    with pytest.raises(UserError, match="not a shard index"):
        remote.pull(url, tmp_path / "set", progress=quiet)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"shards": 1}', "{", "[" * 100_000, '"\ud800"', "nan"]
)
def test_what_is_no_index_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "index.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match="not a shard index"):
        remote.pull(f"file://{tmp_path}/store", tmp_path / "set", progress=quiet)
    assert not (tmp_path / "set").exists()


def test_an_index_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_index, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="larger than"):
        remote.pull(store(tmp_path / "store", record()), tmp_path / "set", progress=quiet)


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 64}, {"bytes": len(BODY) - 1}, {"bytes": len(BODY) + 1}]
)
def test_nothing_is_left_of_other_bytes(tmp_path: Path, wrong: dict[str, object]) -> None:
    (tmp_path / "store" / "deep" / "set").mkdir(parents=True)
    (tmp_path / "set").mkdir()
    for name in ("a.tar", "b.tar"):
        (tmp_path / "store" / "deep" / "set" / name).write_bytes(BODY)
    index = {"shards": [record("a.tar"), record("b.tar", **wrong)]}
    (tmp_path / "store" / "deep" / "set" / "index.json").write_text(json.dumps(index))
    before = everything(tmp_path)
    with pytest.raises(UserError, match="not the one of its index"):
        remote.pull(f"file://{tmp_path}/store/deep/set", tmp_path / "set", progress=quiet)
    assert everything(tmp_path) == before


def test_nothing_is_left_of_a_cut_connection_and_another_try_is_whole(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    cut = Behaviour(BODY, cut=lambda request: 1000 if request < 3 else None)
    index = json.dumps({"shards": [record()]}).encode()
    with serving({"/set/index.json": Behaviour(index), "/set/train-00000.tar": cut}) as base:
        with pytest.raises(UserError, match=r"store refused the request|not the one of its index"):
            remote.pull(f"{base}/set", tmp_path / "set", progress=quiet)
        assert everything(tmp_path) == set()
        cut.cut = lambda request: None
        remote.pull(f"{base}/set", tmp_path / "set", progress=quiet)
    assert contents(tmp_path / "set").keys() == {"index.json", "train-00000.tar"}


def test_a_folder_with_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years")
    url = store(tmp_path / "store", record())
    with pytest.raises(UserError, match="files other than shards"):
        remote.pull(url, tmp_path / "thesis", progress=quiet)
    assert (tmp_path / "thesis" / "thesis.tex").read_text() == "years"
    for _ in range(2):  # an earlier copy is replaced
        remote.pull(url, tmp_path / "set", progress=quiet)


def test_push_sends_no_file_from_outside_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "secret").write_bytes(BODY)
    (tmp_path / "set" / "index.json").write_text(json.dumps({"shards": [record("../secret")]}))
    with pytest.raises(UserError, match="not a shard index"):
        remote.push(tmp_path / "set", f"file://{tmp_path}/store", progress=quiet)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "name", ["../a.zip", "a\\b.zip", "a\0.zip", "c:a.zip", "..", ".a", "a\n.zip"]
)
def test_names_of_archives_pass_the_same_type(name: str) -> None:
    with pytest.raises(NameRefusedError):
        PlainName(name)
    with pytest.raises(ValidationError, match="not a plain file name"):
        ArchiveSpec.model_validate({"files": [{"name": name}]})


@pytest.mark.parametrize(
    ("url", "lacks"),
    [
        ("s3://", "bucket"),
        ("s3:///shards", "bucket"),
        ("gs://", "bucket"),
        ("az:///x", "container"),
        ("https:///x", "host"),
        ("http://:80/x", "host"),
        ("gdrive://", "file"),
        ("http://[::1/x", "cannot be read"),
        ("http://me:pa55/word@host/x", "port"),
        ("https://host:99999/x", "port"),
        ("s3://me:word@bucket/x", "user or password"),
        ("gs://me:word@bucket", "user or password"),
    ],
)
def test_an_address_without_a_place_is_one_message(tmp_path: Path, url: str, lacks: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "index.json").write_text(json.dumps({"shards": []}))
    for call in (
        lambda: remote.pull(url, tmp_path / "new", progress=quiet),
        lambda: remote.push(tmp_path / "set", url, progress=quiet),
    ):
        with pytest.raises(UserError, match=lacks) as caught:
            call()
        assert caught.value.file == url and caught.value.key and caught.value.cure
        assert "word@" not in str(caught.value) and "pa55" not in str(caught.value)
    with pytest.raises(ValidationError, match=lacks):
        ArchiveSpec.model_validate({"files": [{"name": "a.zip", "urls": [url]}]})
    with pytest.raises(ValidationError, match=lacks):
        ShardOptions(copy_to=url)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_a_server_that_does_not_answer_is_no_incomplete_set(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/set"
        with pytest.raises(UserError, match="the server does not answer: Cannot connect"):
            remote.pull(url, tmp_path / "new", progress=quiet)
    with serving({"/busy/index.json": Behaviour(b"", status=lambda request: 503)}) as base:
        with pytest.raises(UserError, match="the server refuses: 503"):
            remote.pull(f"{base}/busy", tmp_path / "new", progress=quiet)
        with pytest.raises(UserError, match="no complete set of shards"):
            remote.pull(f"{base}/none", tmp_path / "new", progress=quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_driver_that_takes_an_address_apart_tells_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of GitHub asks `https://api.github.com/repos/me/PASSWORD`; here a proxy that is not there keeps it off the net."""
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the object store refused the request") as caught:
        remote.pull("github://me:pa55word@org/repo", tmp_path / "new", progress=quiet)
    assert "pa55word" not in str(caught.value) and "/me/***" in str(caught.value)


def test_a_file_that_is_no_archive_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match="store refused the request"):
        remote.pull(f"zip://shards::file://{tmp_path}/a.zip", tmp_path / "new", progress=quiet)
