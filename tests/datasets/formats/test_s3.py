"""Shards and archives on S3: a real S3 API server on this machine, spoken to over HTTP by the real driver."""

from __future__ import annotations

import io
import json
import random
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hqsam_base.errors import UserError
from hqsam_datasets.fetch import cloud
from hqsam_datasets.fetch.archive import fetch
from hqsam_datasets.fetch.http import remember
from hqsam_datasets.fetch.spec import ArchiveSpec
from hqsam_datasets.fetch.transfer import Transfer
from hqsam_datasets.formats import remote
from hqsam_datasets.prepare import shards
from tests.datasets.trees import contents, ecssd, quiet, run
from tests.pipelines.servers import Line

pytest.importorskip("s3fs")
motoserver = pytest.importorskip("moto.server")
BUCKET = "s3://bucket"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = motoserver.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket, reached through the environment as a user would."""
    import s3fs

    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("bucket")
    yield system
    system.rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of two samples."""
    here = tmp_path_factory.mktemp("local")
    run("ecssd", ecssd(here / "in", n=6), here / "samples", expected=6)
    (here / "exclusions.jsonl").touch()
    options = shards.ShardOptions(samples_per_shard=2)
    shards.write_shards(
        samples={"ecssd": here / "samples"},
        exclusions=here / "exclusions.jsonl",
        out=here / "shards",
        options=options,
        progress=quiet,
    )
    return here / "shards"


def test_shards_go_to_s3_and_come_back_the_same(s3: Any, local: Path, tmp_path: Path) -> None:
    url = f"{BUCKET}/sets/hqseg"
    assert remote.push(local, url, progress=quiet) == 3
    assert sorted(Path(name).name for name in s3.ls("bucket/sets/hqseg")) == sorted(contents(local))
    assert remote.pull(url, tmp_path / "back", progress=quiet)["n_samples"] == 6
    assert contents(tmp_path / "back") == contents(local)
    assert remote.push(local, url, progress=quiet) == 0


def test_webdataset_reads_a_shard_from_s3(s3: Any, local: Path) -> None:
    from webdataset import tariterators

    remote.push(local, BUCKET, progress=quiet)
    with s3.open("bucket/train-00000.tar", "rb") as file:
        found = [
            sample["__key__"]
            for sample in tariterators.group_by_keys(
                tariterators.tar_file_expander(
                    [{"url": "train-00000.tar", "stream": io.BytesIO(file.read())}]
                )
            )
        ]
    assert len(found) == 2 and all(key.startswith("ecssd_") for key in found)


def test_an_interrupted_copy_is_not_complete_and_goes_on(
    s3: Any, local: Path, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        remote.push(local, BUCKET, progress=stop)
    with pytest.raises(UserError, match="no complete set of shards"):
        remote.pull(BUCKET, tmp_path / "back", progress=quiet)
    assert remote.push(local, BUCKET, progress=quiet) == 1
    assert remote.pull(BUCKET, tmp_path / "back", progress=quiet)["n_samples"] == 6


def test_a_line_that_is_cut_in_the_middle_of_a_shard_goes_on(
    s3: Any, endpoint: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.push(local, BUCKET, progress=quiet)
    total = sum(map(len, contents(local).values()))
    line = Line(int(endpoint.rpartition(":")[2]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
    type(s3).clear_instance_cache()
    line.cut_at = total // 2
    assert remote.pull(BUCKET, tmp_path / "back", progress=quiet)["n_samples"] == 6
    assert line.cuts == 1 and contents(tmp_path / "back") == contents(local)
    line.close()
    type(s3).clear_instance_cache()


def test_damage_on_the_store_is_noticed_and_mended(s3: Any, local: Path, tmp_path: Path) -> None:
    remote.push(local, BUCKET, progress=quiet)
    data = bytearray((local / "train-00001.tar").read_bytes())
    data[700] ^= 1
    s3.pipe_file("bucket/train-00001.tar", bytes(data))
    with pytest.raises(UserError, match="not the one of its index"):
        remote.pull(BUCKET, tmp_path / "back", progress=quiet)
    assert not (tmp_path / "back").exists()
    assert remote.push(local, BUCKET, progress=quiet) == 1
    remote.pull(BUCKET, tmp_path / "back", progress=quiet)
    assert contents(tmp_path / "back") == contents(local)


def test_the_shard_stage_can_copy_its_result(s3: Any, local: Path, tmp_path: Path) -> None:
    (tmp_path / "exclusions.jsonl").touch()
    shards.write_shards(
        samples={"ecssd": local.parent / "samples"},
        exclusions=tmp_path / "exclusions.jsonl",
        out=tmp_path / "shards",
        options=shards.ShardOptions(samples_per_shard=2, copy_to=f"{BUCKET}/copy"),
        progress=quiet,
    )
    assert contents(tmp_path / "shards") == contents(local)
    assert {Path(name).name for name in s3.ls("bucket/copy")} == set(contents(local))


def a_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("d/1.bin", random.Random(1).randbytes(40_000))
    return buffer.getvalue()


def test_archives_are_fetched_from_s3(s3: Any, tmp_path: Path) -> None:
    body = a_zip()
    s3.pipe_file("bucket/mirror/set.zip", body)
    spec = {
        "files": [
            {"name": "set.zip", "urls": [f"{BUCKET}/mirror/gone.zip", f"{BUCKET}/mirror/set.zip"]}
        ]
    }
    part = tmp_path / ".set.download" / "set.zip.part"
    part.parent.mkdir()
    part.write_bytes(
        bytes(9000)
    )  # what another mirror, now gone, has left: no digest would tell a mixture
    fetch(ArchiveSpec.model_validate(spec), tmp_path / "set", progress=quiet)
    assert (tmp_path / "set" / "set.zip").read_bytes() == body
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_object_is_resumed_as_long_as_it_is_the_same(s3: Any, tmp_path: Path) -> None:
    url, part, body = f"{BUCKET}/a.bin", tmp_path / "a.bin.part", random.Random(2).randbytes(50_000)
    s3.pipe_file("bucket/a.bin", body)
    remember(part, url, cloud.version_of(s3.info("bucket/a.bin")))
    part.write_bytes(bytes(9000))  # so that it shows what was kept
    cloud.download_with_fsspec(url, part, Transfer())
    assert part.read_bytes() == bytes(9000) + body[9000:]
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin.part"]
    remember(part, url, cloud.version_of(s3.info("bucket/a.bin")))
    part.write_bytes(bytes(9000))
    s3.pipe_file("bucket/a.bin", body[::-1])
    cloud.download_with_fsspec(url, part, Transfer())
    assert part.read_bytes() == body[::-1]


def test_single_members_of_a_zip_on_s3(s3: Any, tmp_path: Path) -> None:
    images = {f"train2017/{n:012d}.jpg": random.Random(n).randbytes(2000) for n in range(40)}
    base = "http://images.cocodataset.org/train2017"
    named = [{"id": n, "coco_url": f"{base}/{n:012d}.jpg"} for n in (3, 5, 8)]
    for name, files in (
        ("train2017", images),
        (
            "lvis",
            {"__MACOSX/._lvis.json": b"junk", "lvis.json": json.dumps({"images": named}).encode()},
        ),
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for member, data in files.items():
                archive.writestr(member, data)
        s3.pipe_file(f"bucket/{name}.zip", buffer.getvalue())
    spec = {
        "files": [
            {"name": "lvis.zip", "urls": [f"{BUCKET}/lvis.zip"]},
            {
                "name": "train2017.tar",
                "urls": [f"{BUCKET}/train2017.zip"],
                "only_named_in": "lvis.zip",
            },
        ]
    }
    fetch(ArchiveSpec.model_validate(spec), tmp_path / "lvis", progress=quiet)
    with tarfile.open(tmp_path / "lvis" / "train2017.tar") as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert found == {
        f"train2017/{n:012d}.jpg": images[f"train2017/{n:012d}.jpg"] for n in (3, 5, 8)
    }


@pytest.mark.parametrize("url", [f"{BUCKET}/set.zip", "s3://Not_A_Bucket!/set.zip"])
def test_a_store_without_credentials_is_a_mirror_that_fails(
    s3: Any, url: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    spec = {"files": [{"name": "set.zip", "urls": [url]}]}
    with pytest.raises(
        UserError, match=r"(Credentials|Validation)Error(?s:.*)FSSPEC_S3_ANON(?s:.*)drop folder"
    ):
        fetch(ArchiveSpec.model_validate(spec), tmp_path / "set", progress=quiet)
    with pytest.raises(UserError, match="store refused the request"):
        remote.push(local, url, progress=quiet)
    s3fs.S3FileSystem.clear_instance_cache()


def test_missing_buckets_and_drivers_are_one_message(s3: Any, local: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no complete set of shards"):
        remote.pull("s3://nowhere/x", tmp_path / "back", progress=quiet)
    with pytest.raises(UserError, match="store refused the request"):
        remote.push(local, "nosuchstore://x", progress=quiet)
