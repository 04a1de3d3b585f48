"""The planted copies are where `planted_pairs` says, in each disguise, and nothing else is shared."""

from __future__ import annotations

import io
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from hqsam_datasets.embedded import names, plants, training
from hqsam_datasets.embedded.plants import PLANTS, planted_pairs
from hqsam_datasets.formats.images import decode_image
from hqsam_datasets.formats.manifest import read_rows
from hqsam_datasets.overlap.hashing import digest, hash_image
from tests.datasets.embedded_tree import fetched, indexed

ZIPS = {
    "dis5k": ("dis5k", "DIS5K.zip"),
    "thinobject5k": ("thin_object_detection", "thin_object_detection.zip"),
}


def published(source: str, origin: str) -> bytes:
    archive, name = ZIPS.get(source, ("cascade_psp", "cascade_psp.zip"))
    with zipfile.ZipFile(fetched(archive) / name) as file:
        (member,) = [n for n in file.namelist() if n.rsplit("/", 1)[-1] == origin]
        return file.read(member)


def test_every_kind_is_planted() -> None:
    kinds = Counter(p.kind for p in PLANTS)
    assert set(kinds) == {
        "exact",
        "jpeg",
        "resize",
        "mirror",
        "rotate90",
        "brightness",
        "grey",
        "crop70",
        "composite",
        "foreground",
    }
    assert kinds["composite"] >= 5
    assert {p.dataset for p in PLANTS if p.kind == "composite"} == {"hrsod", "coco", "lvis"}
    assert {p.source for p in PLANTS} == set(names.TRAINING_COUNTS)


def test_plants_take_different_places() -> None:
    assert len({(p.source, p.index) for p in PLANTS}) == len(PLANTS)
    assert len({(p.dataset, p.photo) for p in PLANTS}) == len(PLANTS)
    assert all(0 <= p.index < names.TRAINING_COUNTS[p.source] for p in PLANTS)


def test_pairs_name_published_files_and_indexed_keys() -> None:
    for pair in planted_pairs():
        assert published(pair.source, pair.origin)
        assert pair.key in {
            row["key"] for row in read_rows(indexed(pair.benchmark) / "images.parquet", ["key"])
        }


def test_pairs_list_every_place_of_a_shared_photograph() -> None:
    pairs = planted_pairs()
    assert len(pairs) > len(PLANTS)
    pixels = {
        (name, row["key"]): row["pixel_digest"]
        for name in {p.benchmark for p in pairs}
        for row in read_rows(indexed(name) / "images.parquet", ["key", "pixel_digest"])
    }
    listed: dict[str, set[tuple[str, str]]] = {}
    for pair in pairs:
        listed.setdefault(pair.origin, set()).add((pair.benchmark, pair.key))
    for places in listed.values():
        shown = {pixels[place] for place in places}
        assert len(shown) == 1
        assert {place for place, digest in pixels.items() if digest in shown} == places


@pytest.mark.parametrize("plant", PLANTS, ids=lambda p: f"{p.kind}-{p.source}-{p.index}")
def test_disguise(plant: plants.Plant) -> None:
    origin = f"{names.stems_of(plant.source)[plant.index]}.jpg"
    copy = decode_image(published(plant.source, origin))
    original = decode_image(plants.photos_of(plant.dataset)[plant.photo].file())
    made = training.pair(plant.source, plant.index)
    assert made.alpha.shape == np.asarray(Image.open(io.BytesIO(made.image))).shape[:2]
    assert made.alpha.max() > 0.9
    same = hash_image(copy).pixel_digest == hash_image(original).pixel_digest
    assert same == (plant.kind == "exact")
    if plant.kind == "foreground":
        inside = made.alpha > 0.99
        assert np.median(np.abs(copy[inside].astype(int) - original[inside].astype(int))) < 12
        assert np.median(np.abs(copy[~inside].astype(int) - original[~inside].astype(int))) > 20
        return
    assert difference(copy, original, plant.kind) < (45 if plant.kind == "brightness" else 12)


def difference(copy: np.ndarray, original: np.ndarray, kind: str) -> float:
    """Median grey-level difference after taking the disguise off (zero for crops: the window is not public)."""
    grey = [np.asarray(Image.fromarray(a).convert("L")) for a in (copy, original)]
    if kind == "mirror":
        grey[0] = grey[0][:, ::-1]
    if kind == "rotate90":
        grey[0] = np.rot90(grey[0], -1)
    if kind == "crop70":
        assert max(copy.shape) < max(original.shape)
        return 0.0
    if kind == "resize":
        assert max(copy.shape) < max(original.shape)
        grey[0] = np.asarray(
            Image.fromarray(grey[0]).resize(grey[1].shape[::-1], Image.Resampling.BILINEAR)
        )
    return float(np.median(np.abs(grey[0].astype(int) - grey[1].astype(int))))


def test_no_other_training_image_is_an_evaluation_image() -> None:
    evaluated = {
        row["pixel_digest"]
        for name in ("dis_vd", "coift", "hrsod", "thinobject5k_test", "big", "coco", "lvis")
        for row in read_rows(indexed(name) / "images.parquet", ["pixel_digest"])
    }
    copies, seen = [], set()
    for archive, name in [*ZIPS.values(), ("cascade_psp", "cascade_psp.zip")]:
        with zipfile.ZipFile(fetched(archive) / name) as file:
            for member in file.namelist():
                if member.endswith(".jpg") and not any(
                    part in member for part in ("DIS-VD", "COIFT", "HRSOD", "_test")
                ):
                    pixels = digest(decode_image(file.read(member)).data)
                    assert pixels not in seen
                    seen.add(pixels)
                    copies += [member.rsplit("/", 1)[-1]] if pixels in evaluated else []
    assert sorted(copies) == sorted({p.origin for p in planted_pairs() if p.kind == "exact"})
