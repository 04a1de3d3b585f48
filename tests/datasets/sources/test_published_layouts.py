"""Layouts as other people publish them, put together from the descriptions of the sets and not by this project's generator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hqsam_base.errors import UserError
from hqsam_base.sginw import SETS
from hqsam_datasets.benchmarks.base import BenchmarkOptions
from hqsam_datasets.formats.manifest import read_rows
from hqsam_datasets.prepare.index import index
from hqsam_datasets.sources import load
from hqsam_datasets.sources.base import SourceOptions
from tests.datasets.trees import encoded, jpeg, put, quiet, run, shape

OUTLINE = [[10.0, 10, 30, 10, 30, 24, 10, 24]]
BOX = [10, 10, 20, 14]


def indexed(name: str, root: Path, out: Path, *prompt_sets: str) -> dict[str, Any]:
    options = BenchmarkOptions(prompt_sets=prompt_sets)  # type: ignore[arg-type]
    return index(name, root=root, out=out, options=options, progress=quiet, workers=1)


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def instances(images: list[dict[str, Any]], category: int, categories: list[int]) -> dict[str, Any]:
    sized = [{**image, "height": 40, "width": 52} for image in images]
    found = [
        {
            "id": n,
            "image_id": image["id"],
            "category_id": category,
            "segmentation": OUTLINE,
            "bbox": BOX,
            "area": 280.0,
            "iscrowd": 0,
        }
        for n, image in enumerate(images)
    ]
    return {
        "images": sized,
        "annotations": found,
        "categories": [{"id": n, "name": f"c{n}"} for n in categories],
    }


# ---- FSS-1000: nobody wrote down how the flat repack calls its files ----

CLASSES = {
    "bamboo_slip": 7,
    "peregine_falcon": 8,
    "rubber_eraser": 8,
    "shower_curtain": 3,
    "crt_screen": 6,
    "rocking_chair": 9,
    "screw": 8,
    "ruler": 10,
}
STRAYS = {
    "beam_bridge": 10,
    "banana_boat": 1,
    "flying_geckos": 1,
    "har_gow": 4,
    "pteropus": 9,
    "wandering_albatross": 6,
}


def flat_fss(root: Path, scheme: str) -> Path:
    files = {}
    for number, (name, n) in enumerate(
        [*CLASSES.items(), *STRAYS.items(), ("abe's_flyingfish", 2)]
    ):
        stem = scheme.format(name=name, n=n, number=number)
        files[f"cascade_psp/fss_all/{stem}.jpg"] = jpeg(number)
        mask = shape() * (name != "bamboo_slip")
        picture = np.random.default_rng(1).integers(0, 256, (48, 96, 3), dtype=np.uint8)
        files[f"cascade_psp/fss_all/{stem}.png"] = encoded(
            picture if name == "peregine_falcon" else mask
        )
        if name in STRAYS:
            files[f"cascade_psp/fss_all/{stem}.jpeg"] = jpeg(100 + number)
    return put(root, files)


@pytest.mark.parametrize(
    "scheme", ["{name}_{n}", "{name}{n}", "{n}_{name}", "{name}-{n}", "{name}#{n}"]
)
def test_bad_files_of_the_flat_fss_are_known_by_class_and_number(
    scheme: str, tmp_path: Path
) -> None:
    done = run("fss1000", flat_fss(tmp_path / "in", scheme), tmp_path / "out", expected=7)
    assert done["rejects_by_reason"] == {"known_bad": 8, "stray_file": 6}


def test_fss_under_running_numbers_loses_only_what_cannot_be_read(tmp_path: Path) -> None:
    done = run("fss1000", flat_fss(tmp_path / "in", "{number:05d}"), tmp_path / "out", expected=13)
    assert done["rejects_by_reason"] == {"empty_mask": 1, "not_a_mask": 1, "stray_file": 6}
    assert "`expected: 9998`" in load("fss1000").sheet.notes


def test_a_mask_whose_image_is_no_jpg_is_still_an_orphan(tmp_path: Path) -> None:
    root = flat_fss(tmp_path / "in", "{name}_{n}")
    put(
        root,
        {
            "cascade_psp/fss_all/zebra_1.jpeg": jpeg(1),
            "cascade_psp/fss_all/zebra_1.png": encoded(shape()),
        },
    )
    with pytest.raises(
        UserError, match=r"1 files of fss1000 have no partner(?s:.*)zebra_1\.png has no"
    ):
        run("fss1000", root, tmp_path / "out")


def test_what_a_list_names_must_be_there(tmp_path: Path) -> None:
    files = {
        f"ThinObject5K/{folder}/{name}": data
        for name, folder, data in (
            ("a.b.jpg", "images", jpeg(1)),
            ("a.b.png", "masks", encoded(shape())),
        )
    }
    root = put(
        tmp_path / "in", {**files, "ThinObject5K/list/train.txt": b"a.b.png\r\ngone.png\r\n"}
    )
    with pytest.raises(
        UserError, match=r"images/gone\.jpg is named in .*list/train\.txt and is not there"
    ):
        run("thinobject5k", root, tmp_path / "out")
    options = SourceOptions(archive="x", skip=("gone",))
    assert [
        pair.name for pair in load("thinobject5k").scan("thinobject5k", root, options).pairs
    ] == ["a.b"]


def test_names_of_evaluation_images_that_give_one_key_are_told_apart(tmp_path: Path) -> None:
    """Nobody can rename the files of a published archive."""
    stems = ["wire (1)", "wire 1", "wire2"]
    files = {f"ThinObject5K/images_test/{stem}.jpg": jpeg(n) for n, stem in enumerate(stems)}
    files |= {f"ThinObject5K/masks_test/{stem}.png": encoded(shape()) for stem in stems}
    indexed("thinobject5k_test", put(tmp_path / "in", files), tmp_path / "out", "gt_box")
    keys = [row["key"] for row in read_rows(tmp_path / "out" / "images.parquet")]
    assert len(set(keys)) == 3 and keys[2] == "thinobject5k_test_wire2"
    assert all(key.startswith("thinobject5k_test_wire-1-") for key in keys[:2])


# ---- BIG ----


def test_coarse_masks_of_big_may_lie_beside_copies_of_the_pairs(tmp_path: Path) -> None:
    files = {}
    for part in ("test", "val"):
        for n in (1, 2)[: 2 if part == "test" else 1]:
            name = f"2007_00000{n}_aeroplane_{n}"
            pair = {f"{name}_im.jpg": jpeg(n), f"{name}_gt.png": encoded(shape())}
            files |= {f"BIG/BIG/{part}/{file}": data for file, data in pair.items()}
            files |= {f"BIG_coarse/pspnet/{part}/{file}": data for file, data in pair.items()}
            files[f"BIG_coarse/pspnet/{part}/{name}_seg.png"] = encoded(shape())
    root = put(tmp_path / "in", files)
    found = indexed("big", root, tmp_path / "out", "gt_box", "coarse_mask")
    assert found["n_images"] == 2 and found["n_prompts"] == {"gt_box": 2, "coarse_mask": 2}
    put(
        root,
        {
            name.replace("BIG/BIG", "BIG/copy"): data
            for name, data in files.items()
            if "BIG/BIG" in name
        },
    )
    with pytest.raises(
        UserError,
        match=r"lie in BIG/BIG/test and BIG/copy/test, one `test` expected(?s:.*)cure: keep",
    ):
        indexed("big", root, tmp_path / "again", "gt_box")


# ---- boxes ----


def coco(root: Path, found: list[dict[str, Any]], name: str = "coco") -> Path:
    truth = instances([{"id": 139, "file_name": "000000000139.jpg"}], 90, [1, 2, 90])
    results = {"coco": "coco_instances_results.json"}[name]
    return put(
        root,
        {
            "val2017/000000000139.jpg": jpeg(1),
            results: text(found),
            "annotations_trainval2017/annotations/instances_val2017.json": text(truth),
        },
    )


def test_classes_that_are_numbered_by_another_list_are_refused(tmp_path: Path) -> None:
    """0 to 79 in place of COCO's 1 to 90 with gaps: the boxes are right, and every AP would be wrong."""
    box = {"image_id": 139, "bbox": BOX, "score": 0.5}
    with pytest.raises(
        UserError,
        match=r"1 category_id that the annotations do not have, first 79; they have 1 to 90",
    ):
        indexed(
            "coco",
            coco(tmp_path / "in", [{**box, "category_id": 79}]),
            tmp_path / "out",
            "detector_box",
        )
    root = coco(tmp_path / "right", [{**box, "category_id": 90}])
    assert indexed("coco", root, tmp_path / "out", "detector_box")["n_prompts"] == {
        "detector_box": 1
    }


def sginw(root: Path, results: dict[str, Any]) -> Path:
    files = {}
    for name in SETS:
        truth = instances([{"id": 0, "file_name": "1_jpg.rf.0a.jpg"}], 0, [0])
        files[f"seginw/{name}/valid/1_jpg.rf.0a.JPG"] = jpeg(len(name))  # as cameras write it
        files[f"seginw/{name}/valid/_annotations_min1cat.coco.json"] = text(truth)
        files[f"sginw_detections/seginw-{name}_val.json"] = text(
            [{"image_id": 0, "score": 0.5, **results}]
        )
    return put(root, files)


def test_published_results_of_sginw_hold_masks_and_are_no_prompts(tmp_path: Path) -> None:
    counts = {"size": [40, 52], "counts": "o10000"}
    with pytest.raises(UserError, match=r"KeyError\('bbox'\)(?s:.*)results without boxes"):
        root = sginw(tmp_path / "masks", {"category_id": 0, "segmentation": counts})
        indexed("sginw", root, tmp_path / "out", "detector_box")
    with pytest.raises(UserError, match="first 1; they have 0 to 0"):
        root = sginw(tmp_path / "other", {"category_id": 1, "bbox": BOX})
        indexed("sginw", root, tmp_path / "out", "detector_box")
    root = sginw(tmp_path / "boxes", {"category_id": 0, "bbox": BOX})
    assert indexed("sginw", root, tmp_path / "out", "detector_box")["n_prompts"] == {
        "detector_box": 25
    }


def test_sginw_without_the_boxes_that_nobody_published_still_has_its_images(tmp_path: Path) -> None:
    root = sginw(tmp_path / "in", {})
    for path in root.glob("sginw_detections/*"):
        path.unlink()
    put(root, {".complete.json": text({"missing": {"sginw_detections.zip": "run the detector"}})})
    found = indexed("sginw", root, tmp_path / "out", "detector_box")
    assert found["n_images"] == 25 and found["prompt_sets"] == []
    assert found["missing"]["files"] == {"sginw_detections.zip": "run the detector"}


# ---- video ----


@pytest.mark.parametrize(
    "folder", ["uvo_videos_sparse_frames", "uvo_videos_sparse_frames/collect_val_images"]
)
def test_frames_of_uvo_in_both_packings(folder: str, tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"-aB_{n}/30.png"} for n in range(2)]
    files = {f"{folder}/{image['file_name']}": jpeg(n) for n, image in enumerate(images)}
    truth = text(instances(images, 1, [1]))
    boxes = text([{"image_id": 0, "category_id": 17, "bbox": BOX, "score": 0.5}])
    root = put(
        tmp_path / "in", {**files, "UVO_frame_val.json": truth, "uvo_instances_results.json": boxes}
    )
    found = indexed("uvo", root, tmp_path / "out", "detector_box")
    assert found["n_images"] == 2 and found["n_prompts"] == {"detector_box": 1}
    assert {row["video"] for row in read_rows(tmp_path / "out" / "images.parquet")} == {
        "-aB_0",
        "-aB_1",
    }


@pytest.mark.parametrize("wrong", ["ytvis_hq-test.json", "mask2former_results.json"])
def test_a_mask_for_each_frame_of_a_video(wrong: str, tmp_path: Path) -> None:
    names = [f"0043f083b5/{n:05d}.jpg" for n in (0, 5)]
    masks = [{"size": [40, 52], "counts": [0, 40 * 52]}, None]
    video = {"id": 1, "width": 52, "height": 40, "length": 2, "file_names": names}
    track = {"video_id": 1, "category_id": 1, "segmentations": masks}
    truth = {
        "videos": [video],
        "annotations": [{**track, "id": 1}],
        "categories": [{"id": 1, "name": "person"}],
    }
    files = {f"train/JPEGImages/{name}": jpeg(1) for name in names}
    tables = {"ytvis_hq-test.json": truth, "mask2former_results.json": [{**track, "score": 0.5}]}
    root = put(tmp_path / "in", files | {name: text(value) for name, value in tables.items()})
    assert indexed("hq_ytvis", root, tmp_path / "out", "tracker_box")["n_instances"] == 1
    put(root, {wrong: text(tables[wrong]).replace(b", null]", b"]")})
    with pytest.raises(
        UserError, match=rf"1 segmentations, but video 1 has 2 frames(?s:.*){wrong}"
    ):
        indexed("hq_ytvis", root, tmp_path / "again", "tracker_box")
