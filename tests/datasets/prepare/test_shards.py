"""Shards and prompt shards: content, mix, exclusions, determinism, interoperation."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hqsam_base.errors import UserError
from hqsam_datasets.formats import tar, tar_writer
from hqsam_datasets.prepare import augment, shards
from hqsam_datasets.prepare.augment import AugmentOptions, write_prompts
from hqsam_datasets.prepare.shards import ShardOptions, write_shards
from hqsam_datasets.sample import parse_sample
from tests.datasets.trees import contents, encoded, jpeg, put, quiet, run, shape

OPTIONS = AugmentOptions(views=2, image_size=48, mask_input_size=24)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("sources")
    for i in range(30):
        put(home / "in", {f"ecssd/{i:04d}.jpg": jpeg(i), f"ecssd/{i:04d}.png": encoded(shape())})
    for i in range(12):
        put(
            home / "in", {f"MSRA_10K/{i}.jpg": jpeg(100 + i), f"MSRA_10K/{i}.png": encoded(shape())}
        )
    return {name: _run(name, home) for name in ("ecssd", "msra10k")}


def _run(name: str, home: Path) -> Path:
    run(name, home / "in", home / name)
    return home / name


def write(
    sources: dict[str, Path], home: Path, *, excluded: tuple[str, ...] = (), **options: Any
) -> dict[str, Any]:
    home.mkdir(exist_ok=True)
    lines = [json.dumps({"key": key, "reason": "exact", "pair": "p"}) for key in excluded]
    (home / "exclusions.jsonl").write_text("".join(line + "\n" for line in lines))
    return write_shards(
        samples=sources,
        exclusions=home / "exclusions.jsonl",
        out=home / "shards",
        options=ShardOptions.model_validate({"samples_per_shard": 10, **options}),
        progress=quiet,
        workers=1,
    )


def test_shards_hold_every_sample_once_but_the_excluded(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    index = write(sources, tmp_path, excluded=("ecssd_0003", "msra10k_5", "ecssd_0003"))
    keys = [key for shard in index["shards"] for key in shard["keys"]]
    assert len(keys) == len(set(keys)) == index["n_samples"] == 40
    assert index["excluded"] == ["ecssd_0003", "msra10k_5"] and not set(index["excluded"]) & set(
        keys
    )
    assert index["by_source"] == {"ecssd": 29, "msra10k": 11}
    assert [shard["n"] for shard in index["shards"]] == [10, 10, 10, 10]
    for shard in index["shards"]:
        path = tmp_path / "shards" / shard["name"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
        assert path.stat().st_size == shard["bytes"]
        with tar.TarReader(path) as reader:
            for key, _, offset, end in tar.places({"shards": [shard]}):
                found, files = reader.read_sample(offset, end)
                assert found == key and parse_sample(key, files).source == key.split("_")[0]
                assert sorted(files) == ["jpg", "json", "mask.png"]


def test_every_shard_mixes_the_sources_in_proportion(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    index = write(sources, tmp_path)
    for shard in index["shards"][:4]:
        share = sum(key.startswith("msra10k") for key in shard["keys"]) / shard["n"]
        assert abs(share - 12 / 42) <= 0.1
    runs = "".join(
        "m" if key.startswith("msra") else "e" for s in index["shards"] for key in s["keys"]
    )
    assert "mmm" not in runs and "eeeee" not in runs
    other = write(sources, tmp_path / "b", seed=1)
    assert other["shards"][0]["keys"] != index["shards"][0]["keys"] and other["n_samples"] == 42


def test_shards_are_the_same_bytes_for_any_number_of_workers(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    write(sources, tmp_path / "a")
    write_shards(
        samples=dict(reversed(sources.items())),
        exclusions=tmp_path / "a" / "exclusions.jsonl",
        out=tmp_path / "two",
        options=ShardOptions(samples_per_shard=10),
        progress=quiet,
        workers=2,
    )
    assert contents(tmp_path / "a" / "shards") == contents(tmp_path / "two")


def test_webdataset_reads_shards_and_prompts(sources: dict[str, Path], tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    index = write(sources, tmp_path)
    write_prompts(
        shards=tmp_path / "shards",
        out=tmp_path / "prompts",
        options=OPTIONS,
        seed=0,
        progress=quiet,
    )
    expected = [key for shard in index["shards"] for key in shard["keys"]]
    for name, members in (
        ("shards", {"jpg", "json", "mask.png"}),
        ("prompts", {"json", "noise0.png", "noise1.png"}),
    ):
        urls = [str(path) for path in sorted((tmp_path / name).glob("*.tar"))]
        rows = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False))
        assert [row["__key__"] for row in rows] == expected
        assert all(members <= set(row) for row in rows)
    row = rows[0]
    assert np.asarray(Image.open(io.BytesIO(row["noise1.png"]))).shape == (24, 24)


def test_wrong_inputs_are_user_errors(sources: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an exclusion names no sample") as caught:
        write(sources, tmp_path, excluded=("ecssd_9999",))
    assert "ecssd_9999" in str(caught.value)
    everything = tuple(f"msra10k_{i}" for i in range(12))
    with pytest.raises(UserError, match="no training sample is left"):
        write({"msra10k": sources["msra10k"]}, tmp_path, excluded=everything)
    with pytest.raises(UserError, match="two sources have the same key"):
        write({"a": sources["ecssd"], "b": sources["ecssd"]}, tmp_path)
    with pytest.raises(UserError, match="run the normalise stage of gone"):
        write({"gone": tmp_path / "gone"}, tmp_path)
    with pytest.raises(UserError, match="run the shard stage"):
        write_prompts(
            shards=tmp_path / "none", out=tmp_path / "p", options=OPTIONS, seed=0, progress=quiet
        )
    assert not (tmp_path / "shards").exists() and not (tmp_path / "p").exists()


@pytest.mark.parametrize("at", [100, 513, 1100, 1537, 3000, -1])
def test_a_shard_that_does_not_read_back_is_an_error(at: int, tmp_path: Path) -> None:
    samples = {"k": {"json": b"{}"}, "l": {"json": b"[]"}}
    for prefix in ("samples", "train"):
        with tar_writer.ShardWriter(tmp_path, prefix=prefix, samples_per_shard=3) as writer:
            for key, files in samples.items():
                writer.add(key, files)
    with tar.TarReader(tmp_path / "samples-00000.tar") as source:
        written = [source.read_span(*span) for span in source.spans().values()]
    path = tmp_path / "train-00000.tar"
    shards._verify(path, writer.shards[0], written)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="does not read back"):
        shards._verify(path, writer.shards[0], written)
    path.write_bytes(bytes(data) + bytes(512))
    with pytest.raises(UserError, match="does not read back"):
        shards._verify(path, writer.shards[0], written)


@pytest.fixture(scope="module")
def planned(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("planned")
    write(sources, home)
    write_prompts(
        shards=home / "shards",
        out=home / "prompts",
        options=OPTIONS,
        seed=0,
        progress=quiet,
        workers=1,
    )
    return home


def test_prompt_shards_join_the_image_shards(planned: Path) -> None:
    images = json.loads((planned / "shards" / "index.json").read_bytes())
    plans = json.loads((planned / "prompts" / "index.json").read_bytes())
    assert [s["keys"] for s in plans["shards"]] == [s["keys"] for s in images["shards"]]
    assert [s["name"] for s in plans["shards"]] == [f"prompts-{i:05d}.tar" for i in range(5)]
    assert sum(plans["prompts"].values()) == 2 * 42 == 2 * plans["n_samples"]
    assert (plans["image_size"], plans["mask_input_size"], plans["views"]) == (48, 24, 2)
    for shard, plan in zip(images["shards"], plans["shards"], strict=True):
        both = zip(
            tar.iterate_samples(planned / "shards" / shard["name"]),
            tar.iterate_samples(planned / "prompts" / plan["name"]),
            strict=True,
        )
        for (key, files), (plan_key, members) in both:
            record = json.loads(members["json"])
            assert key == plan_key == record["key"] and len(record["views"]) == 2
            sample = parse_sample(key, files)
            for view in record["views"]:
                image, mask = augment.apply_view(
                    image=sample.image, mask=sample.instances[0].mask, view=view
                )
                assert (
                    image.shape == (48, 48, 3)
                    and np.count_nonzero(mask > 128) == view["n_foreground"]
                )
                noise = np.asarray(Image.open(io.BytesIO(members[f"noise{view['view']}.png"])))
                assert set(np.unique(noise)) <= {0, 255}


def test_plans_do_not_depend_on_workers_or_on_other_samples(
    sources: dict[str, Path], planned: Path, tmp_path: Path
) -> None:
    write_prompts(
        shards=planned / "shards",
        out=tmp_path / "two",
        options=OPTIONS,
        seed=0,
        progress=quiet,
        workers=2,
    )
    assert contents(planned / "prompts") == contents(tmp_path / "two")
    write(sources, tmp_path, excluded=("ecssd_0001",), samples_per_shard=7, seed=3)
    write_prompts(
        shards=tmp_path / "shards", out=tmp_path / "p", options=OPTIONS, seed=0, progress=quiet
    )

    def plans(folder: Path) -> dict[str, bytes]:
        return {
            key: files["json"] + files["noise0.png"] + files["noise1.png"]
            for path in sorted(folder.glob("*.tar"))
            for key, files in tar.iterate_samples(path)
        }

    before, after = plans(planned / "prompts"), plans(tmp_path / "p")
    assert len(after) == 41 and all(before[key] == after[key] for key in after)


def test_a_damaged_shard_names_the_key(planned: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for path in (planned / "shards").iterdir():
        (tmp_path / "shards" / path.name).write_bytes(path.read_bytes())
    first = tmp_path / "shards" / "train-00000.tar"
    with tar.TarReader(first) as reader:
        name = next(name for name in reader.members if name.endswith(".mask.png"))
        member = reader.members[name]
    data = bytearray(first.read_bytes())
    data[member.data_offset + 40] ^= 255
    first.write_bytes(data)
    with pytest.raises(UserError, match="the sample is damaged") as caught:
        write_prompts(
            shards=tmp_path / "shards", out=tmp_path / "p", options=OPTIONS, seed=0, progress=quiet
        )
    assert name.partition(".")[0] in str(caught.value)
