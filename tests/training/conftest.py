"""A small real training set: scenes, shards and prompts as the pipeline writes them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hqsam_base.atomic import atomic_folder, write_json
from hqsam_datasets.embedded.scenes import TRAIN_FAMILIES, render_scene
from hqsam_datasets.formats.images import encode_png
from hqsam_datasets.formats.tar_writer import ShardWriter
from hqsam_datasets.prepare import augment
from hqsam_datasets.sample import sample_json
from tests import REPOSITORY

WEIGHTS = REPOSITORY / "hqsam" / "model" / "backbones" / "nano.safetensors"


def quiet(_done, _total, _what):
    pass


def write_shards(folder: Path, *, n: int, per_shard: int = 5) -> Path:
    """Shards of `n` scenes in the layout of docs/formats.md."""
    with atomic_folder(folder) as tmp:
        with ShardWriter(tmp, prefix="train", samples_per_shard=per_shard) as writer:
            for i in range(n):
                rng = np.random.default_rng([21, i])
                scene = render_scene(
                    rng=rng, families=TRAIN_FAMILIES, height=100 + 8 * (i % 4), width=140
                )
                key = f"test_{i:03d}"
                record = sample_json(
                    key=key,
                    source="test",
                    height=scene.image.shape[0],
                    width=140,
                    categories=(None,),
                    origin_image="",
                    origin_mask="",
                )
                mask = np.rint(scene.objects[0].alpha * 255).astype(np.uint8)
                writer.add(
                    key,
                    {"png": encode_png(scene.image), "mask.png": encode_png(mask), "json": record},
                )
            shards = [s.as_json() for s in writer.close()]
        index = {
            "version": 1,
            "n_samples": n,
            "by_source": {"test": n},
            "excluded": [],
            "shards": shards,
            "digest": "d",
        }
        write_json(tmp / "index.json", index)
    return folder


@pytest.fixture(scope="session")
def augment_options():
    return augment.AugmentOptions(
        views=2,
        image_size=128,
        mask_input_size=64,
        points=10,
        scale=(0.5, 1.5),
        min_foreground=10,
        max_redraws=16,
    )


@pytest.fixture(scope="session")
def training_set(tmp_path_factory, augment_options):
    """Folders of 14 samples with 2 views each: (shards, prompts)."""
    root = tmp_path_factory.mktemp("training")
    shards = write_shards(root / "shards", n=14)
    augment.write_prompts(
        shards=shards, out=root / "prompts", options=augment_options, seed=0, progress=quiet
    )
    assert json.loads((root / "prompts" / "index.json").read_text())["shards"]
    return shards, root / "prompts"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
