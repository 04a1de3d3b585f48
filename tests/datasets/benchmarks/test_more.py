"""Evaluation sets that the sample profile does not have, on small trees in their published layouts."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_base.sginw import SETS
from hqsam_datasets import benchmarks
from hqsam_datasets.benchmarks.base import BenchmarkOptions
from hqsam_datasets.fetch.archive import fetch
from hqsam_datasets.fetch.extract import extracted
from hqsam_datasets.fetch.spec import ArchiveSpec
from hqsam_datasets.formats.manifest import read_rows
from hqsam_datasets.prepare.index import index
from hqsam_pipelines.config import overlays
from tests import REPOSITORY
from tests.datasets.embedded_tree import tree

RNG = np.random.default_rng(5)


def run(name: str, root: Path, out: Path, prompt_set: str) -> dict[str, Any]:
    options = BenchmarkOptions(prompt_sets=(prompt_set,))  # type: ignore[arg-type]
    return index(name, root=root, out=out, options=options, progress=lambda done, total, what: None)


def picture(height: int, width: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def put(path: Path, data: bytes | Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())


@pytest.mark.parametrize("part", [1, 2, 3, 4])
def test_dis_te(part: int, tmp_path: Path) -> None:
    shutil.copytree(
        tree("dis5k") / "DIS5K" / "DIS-VD", tmp_path / "root" / "DIS5K" / f"DIS-TE{part}"
    )
    summary = run(f"dis_te{part}", tmp_path / "root", tmp_path / "out", "gt_box")
    assert (summary["n_images"], summary["n_prompts"]) == (16, {"gt_box": 16})


@pytest.mark.parametrize("private", [None, "absent"])
def test_ytvis19_has_prompts_but_no_ground_truth(private: str | None, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tree("hq_ytvis"), tmp_path / "root"))
    truth = json.loads((root / "ytvis_hq-test.json").read_text())
    truth["annotations"] = None
    if private == "absent":
        del truth["annotations"]
    put(root / "valid.json", truth)
    (root / "train_all_frames").rename(root / "valid")
    (root / "train" / "JPEGImages" / "0043f083b5").mkdir(parents=True)
    summary = run("ytvis19", root, tmp_path / "out", "tracker_box")
    assert (summary["n_images"], summary["n_instances"]) == (32, 0)
    assert summary["n_prompts"]["tracker_box"] > 30


def via(name: str, regions: Any) -> dict[str, Any]:
    return {
        f"{name}123": {"filename": name, "size": 123, "regions": regions, "file_attributes": {}}
    }


def polygon(xs: list[int], ys: list[int]) -> dict[str, Any]:
    shape = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
    return {
        "shape_attributes": shape,
        "region_attributes": {"species": "BND", "id": "1", "out of focus": "false"},
    }


def ndd20_tree(root: Path) -> Path:
    square = polygon([10, 30, 30, 10], [5, 5, 25, 25])
    above = via("1.jpg", [square, polygon([1, 9], [1, 9]), polygon([40, 60, 50], [10, 10, 40])])
    put(root / "NDD20" / "ABOVE_LABELS.json", above)
    put(root / "NDD20" / "BELOW_LABELS.json", {"_via_img_metadata": via("1.jpg", {"0": square})})
    put(root / "NDD20" / "ABOVE" / "1.jpg", picture(48, 64))
    put(root / "NDD20" / "BELOW" / "1.jpg", picture(32, 40))
    return root


def test_ndd20(tmp_path: Path) -> None:
    root = ndd20_tree(tmp_path / "root")
    assert run("ndd20", root, tmp_path / "out", "gt_box")["n_instances"] == 3
    rows = read_rows(tmp_path / "out" / "instances.parquet")
    assert [row["instance_id"] for row in rows] == [
        "ndd20_above-1-000",
        "ndd20_above-1-002",
        "ndd20_below-1-000",
    ]
    mask = rle.decode(rows[0]["rle"], height=48, width=64)
    assert mask[5:25, 10:30].all()
    assert mask.sum() == 400
    (prompt,) = [
        r
        for r in read_rows(tmp_path / "out" / "prompts.parquet")
        if r["instance_id"] == "ndd20_above-1-000"
    ]
    assert (prompt["x0"], prompt["y0"], prompt["x1"], prompt["y1"]) == (10, 5, 29, 24)


def sginw_tree(root: Path) -> Path:
    for number, name in enumerate(SETS):
        folder = root / "seginw" / name / "valid"
        images, annotations, results = [], [], []
        for i in range(1 + number % 3):
            put(folder / f"photo {i}.jpg", picture(40, 50))
            images.append({"id": i, "file_name": f"photo {i}.jpg", "height": 40, "width": 50})
            box = [5 + i, 6, 20, 12]
            outline = [[5.0 + i, 6, 25 + i, 6, 25 + i, 18, 5 + i, 18]]
            what = {"image_id": i, "category_id": i % 2, "bbox": box}
            annotations.append(
                {**what, "id": i, "area": 240, "iscrowd": 0, "segmentation": outline}
            )
            results.append({**what, "score": 0.9 - 0.1 * i})
        categories = [
            {"id": k, "name": n, "supercategory": "none"}
            for k, n in enumerate(["caorau", "people"])
        ]
        put(
            folder / "_annotations_min1cat.coco.json",
            {"images": images, "annotations": annotations, "categories": categories},
        )
        put(folder / "_annotations.coco.json", {"images": [], "annotations": [], "categories": []})
        put(root / "grounded" / f"seginw-{name}_val.json", results)
    return root


def test_sginw_becomes_one_benchmark(tmp_path: Path) -> None:
    summary = run("sginw", sginw_tree(tmp_path / "root"), tmp_path / "out", "detector_box")
    assert len(SETS) == 25
    wanted = sum(1 + k % 3 for k in range(25))
    assert (
        summary["n_images"]
        == summary["n_instances"]
        == summary["n_prompts"]["detector_box"]
        == wanted
    )
    truth = COCO(tmp_path / "out" / "gt.json")
    assert len(truth.imgs) == len(truth.anns) == wanted
    assert {c["supercategory"] for c in truth.cats.values()} == set(SETS)
    prompts = {row["key"]: row for row in read_rows(tmp_path / "out" / "prompts.parquet")}
    for row in read_rows(tmp_path / "out" / "instances.parquet"):
        annotation = truth.anns[int(row["instance_id"])]
        prompt = prompts[row["key"]]
        assert row["image_id"] == annotation["image_id"]
        assert row["category_id"] == annotation["category_id"] == prompt["category_id"]
        x, y, w, h = annotation["bbox"]
        assert (prompt["x0"], prompt["y0"], prompt["x1"], prompt["y1"]) == (x, y, x + w, y + h)


def test_sginw_names_the_set_that_is_missing(tmp_path: Path) -> None:
    root = sginw_tree(tmp_path / "root")
    shutil.rmtree(root / "seginw" / "Rail")
    with pytest.raises(UserError, match="Rail/valid"):
        run("sginw", root, tmp_path / "out", "detector_box")


def test_every_adapter_opens_with_a_data_sheet() -> None:
    import importlib

    for name in benchmarks.names():
        adapter = benchmarks.load(name)
        assert adapter.name == name
        sheet = importlib.import_module(f"hqsam_datasets.benchmarks.{name}").__doc__ or ""
        sheet = " ".join(sheet.split())
        for word in ("Source", "ayout", "Known bad files"):
            assert word in sheet, (name, word)


def packed(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as out:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            out.write(path, path.relative_to(folder).as_posix())


def test_archives_of_the_profile_paper_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives of the published names, fetched, extracted and indexed as `hqsam profile paper_all` has them."""
    profile = yaml.safe_load(overlays.compose(REPOSITORY, "paper_all"))
    drop = tmp_path / "drop"
    sginw = sginw_tree(tmp_path / "sginw")
    packed(sginw / "seginw", drop / "sginw" / "seginw.zip")
    packed(sginw / "grounded", drop / "sginw" / "sginw_detections.zip")
    packed(ndd20_tree(tmp_path / "ndd20") / "NDD20", drop / "ndd20" / "NDD20.zip")
    for part in ("TR", "VD", "TE1", "TE2", "TE3", "TE4"):
        source = tree("dis5k") / "DIS5K" / ("DIS-TR" if part == "TR" else "DIS-VD")
        shutil.copytree(source, tmp_path / "dis" / "DIS5K" / f"DIS-{part}")
    packed(tmp_path / "dis", drop / "dis5k" / "DIS5K.zip")
    monkeypatch.setenv("HQSAM_DROP_DIR", str(drop))
    counts = {}
    for name in ("dis_vd", "dis_te1", "dis_te2", "dis_te3", "dis_te4", "sginw", "ndd20"):
        archive_name = profile["benchmarks"][name]["archive"]
        spec = profile["archives"][archive_name]
        spec["files"] = [
            {k: v for k, v in file.items() if k in ("name", "urls")} for file in spec["files"]
        ]
        folder = tmp_path / "archives" / archive_name
        fetch(ArchiveSpec.model_validate(spec), folder, progress=lambda done, total, what: None)
        root = extracted(folder, tmp_path / "extracted")
        (prompt_set,) = profile["benchmarks"][name]["index"]["prompt_sets"]
        counts[name] = run(name, root, tmp_path / "out" / name, prompt_set)["n_images"]
    te = {f"dis_te{part}": 16 for part in (1, 2, 3, 4)}
    assert counts == {"dis_vd": 16, **te, "sginw": sum(1 + k % 3 for k in range(25)), "ndd20": 2}
