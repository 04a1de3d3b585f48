"""One's own data through DVC: a params entry of each kind, `dvc repro`, and nothing but that entry's stages."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from hqsam_pipelines.runner import host_client, server
from tests import FULL
from tests.pipelines.working_copy import clone, run

SOURCES: dict[str, dict[str, Any]] = {
    "own_labels": {"kind": "label_maps", "images": "photos", "masks": "labels"},
    "own_coco": {"kind": "coco_json", "images": "photos", "annotations": "instances.json"},
}
# every kind is read in tests/datasets/sources/test_own.py; here it is DVC that reads the entries
if FULL:
    SOURCES |= {
        "own_folder": {"kind": "folder", "images": "photos", "masks": "masks"},
        "own_lvis": {"kind": "lvis_json", "images": "photos", "annotations": "lvis.json"},
    }
BENCHMARK = {
    "kind": "label_maps",
    "archive": "own",
    "index": {"prompt_sets": ["gt_box"], "images": "photos", "masks": "labels"},
    "predict": {"resize": "longest_side"},
    "score": {"metric": "masks", "version": 1, "output": "hq_token", "dilation_ratio": 0.02},
}
BOX = [[10.0, 10.0, 40.0, 10.0, 40.0, 30.0, 10.0, 30.0]]


def png(array: Any) -> bytes:
    return bytes(cv2.imencode(".png", array)[1].tobytes())


def annotation_file(image: dict[str, Any]) -> str:
    return json.dumps(
        {
            "images": [{"id": 1, "height": 48, "width": 64, **image}],
            "categories": [{"id": 1, "name": "bird"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": BOX}
            ],
        }
    )


def pack(path: Path) -> None:
    """One archive that every kind can read."""
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    labels = np.zeros((48, 64), np.uint8)
    labels[10:30, 10:40] = 1
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photos/a.png", png(photo))
        archive.writestr("masks/a.png", png(labels * 255))
        archive.writestr("labels/a.png", png(labels))
        archive.writestr("instances.json", annotation_file({"file_name": "a.png"}))
        archive.writestr(
            "lvis.json", annotation_file({"coco_url": "http://nowhere.test/photos/a.png"})
        )


def change(path: Path) -> None:
    """As somebody does who packs the archive again."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment += b"another day"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Path]:
    """A clone whose params.yaml has an own archive, own sources and an evaluation set; and an archive that somebody brings."""
    folder = tmp_path_factory.mktemp("own")
    root = clone(folder / "clone")
    shutil.copytree(database, server.home(root))
    pack(folder / "own.zip")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["archives"]["own"] = {
        "files": [{"name": "own.zip", "urls": [(folder / "own.zip").as_uri()]}]
    }
    params["archives"]["brought"] = {"files": [{"name": "own.zip", "urls": ["drop://own.zip"]}]}
    params["sources"] |= {
        name: {"archive": "own", "expected": 1, **entry} for name, entry in SOURCES.items()
    }
    params["benchmarks"]["own_test"] = BENCHMARK
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    yield root
    host_client.stop(root)
    server.stop(root)


def test_archives_can_come_from_a_folder_of_the_user(own: Path) -> None:
    if FULL:  # test_paper_profile.py sees the sentence in DVC's output
        done = run(own, "python", "-m", "hqsam_pipelines.stages.fetch", "brought")
        place = own / "data" / "drop" / "brought"
        assert done.returncode == 1 and f"{place}/\n        own.zip" in done.stdout + done.stderr
    done = run(own, "hqsam", "repro", "fetch@brought", "--from-dir", str(own.parent))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    fetched = own / "data" / "archives" / "brought" / "own.zip"
    change(own.parent / "own.zip")
    done = run(own, "hqsam", "repro", "fetch@brought", "--from-dir", str(own.parent))
    assert done.returncode == 0 and fetched.read_bytes() == (own.parent / "own.zip").read_bytes()
    if FULL:
        done = run(own, "hqsam", "repro", "fetch@brought", "--from-dir", str(own.parent))
        assert done.returncode == 0 and "fetch@brought] Running" not in done.stdout, (
            "what is the same is not taken again"
        )


def test_dvc_repro_takes_an_entry_of_each_kind(own: Path) -> None:
    stages = [*(f"normalise@{name}" for name in SOURCES), "index@own_test"]
    done = run(own, "dvc", "repro", *stages)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert set(re.findall(r"Running stage '([^']+)'", done.stdout)) - {"code"} == {
        "fetch@own",
        *stages,
    }
    for name in SOURCES:
        result = json.loads((own / "data" / "samples" / name / "normalise.json").read_text())
        assert (result["source"], result["n_samples"], result["n_rejects"]) == (name, 1, 0)
    found = json.loads((own / "data" / "benchmarks" / "own_test" / "index.json").read_text())
    assert (found["benchmark"], found["n_images"], found["n_prompts"]) == (
        "own_test",
        1,
        {"gt_box": 1},
    )
    change(own.parent / "own.zip")
    said = " ".join(run(own, "hqsam", "doctor").stdout.split())
    assert f"own: {own.parent / 'own.zip'} is newer than what was fetched" in said
    # The code of one kind is the business of its own entries only.
    adapter = own / "datasets" / "hqsam_datasets" / "sources" / "label_maps.py"
    adapter.write_text(adapter.read_text() + "# changed\n")
    status = json.loads(run(own, "dvc", "status", "--json", *stages).stdout)
    assert set(status) == {"normalise@own_labels"}
    adapter = own / "datasets" / "hqsam_datasets" / "benchmarks" / "label_maps.py"
    adapter.write_text(adapter.read_text() + "# changed\n")
    status = json.loads(run(own, "dvc", "status", "--json", *stages).stdout)
    assert set(status) == {"normalise@own_labels", "index@own_test"}
