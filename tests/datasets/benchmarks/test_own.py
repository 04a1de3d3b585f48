"""Evaluation on one's own data: every kind of files, and what is said where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks.base import BenchmarkOptions
from hqsam_datasets.formats.manifest import read_rows
from hqsam_datasets.prepare.index import index
from hqsam_metrics import exports, given
from hqsam_metrics.base import load_score, score_options
from hqsam_metrics.benchmark import score_benchmark
from hqsam_metrics.benchmark_data import Benchmark, load_predictions
from tests import REPOSITORY
from tests.datasets.benchmarks.test_scored import oracle
from tests.datasets.trees import encoded, jpeg, photo, put, shape

GUIDE = REPOSITORY / "docs" / "own-data.md"
HEIGHT, WIDTH = shape().shape


def run(
    root: Path, out: Path, kind: str, prompt_set: str = "gt_box", **options: Any
) -> dict[str, Any]:
    chosen = BenchmarkOptions.model_validate({"prompt_sets": [prompt_set], **options})
    return index("birds", root=root, out=out, options=chosen, progress=lambda *_: None, kind=kind)


def scored(folder: Path, tmp_path: Path, metric: str) -> dict[str, Any]:
    """What perfect predictions get."""
    oracle(folder, tmp_path / "predictions")
    score_benchmark(
        benchmark=folder,
        predictions=tmp_path / "predictions",
        out_json=tmp_path / "metrics.json",
        out=tmp_path / "scores",
        options=score_options({"metric": metric, "version": load_score(metric).version}),
        progress=lambda *_: None,
    )
    (result,) = json.loads((tmp_path / "metrics.json").read_text())["results"]
    return dict(result)


def foreground(folder: Path) -> dict[str, int]:
    rows = read_rows(folder / "instances.parquet")
    return {
        row["instance_id"]: int(rle.area(row["rle"], height=row["height"], width=row["width"]))
        for row in rows
    }


def test_folders_with_several_masks_an_image(tmp_path: Path) -> None:
    root = put(
        tmp_path / "in",
        {
            "x/photos/a.JPEG": jpeg(1),
            "x/photos/b.webp": encoded(photo(3), "WEBP"),
            "x/masks/a.png": encoded(shape() // 255),
            "x/masks/b/1.png": encoded(shape()),
            "x/masks/b/2.bmp": encoded(shape()[::-1].copy(), "BMP"),
            "x/masks/b/3.png": encoded(np.zeros_like(shape())),
        },
    )
    summary = run(
        root, tmp_path / "out", "folder", images="photos", masks="masks", expected_images=2
    )
    n = int((shape() > 128).sum())
    assert foreground(tmp_path / "out") == {
        "birds_a-000": n,
        "birds_b-000": n,
        "birds_b-001": n,
        "birds_b-002": 0,
    }
    assert (summary["benchmark"], summary["kind"], summary["n_prompts"]) == (
        "birds",
        "masks",
        {"gt_box": 3},
    )
    prompts = read_rows(tmp_path / "out" / "prompts.parquet")
    ys, xs = np.nonzero(shape() > 128)
    assert [prompts[0][name] for name in ("x0", "y0", "x1", "y1")] == [
        xs.min(),
        ys.min(),
        xs.max(),
        ys.max(),
    ]
    result = scored(tmp_path / "out", tmp_path, "masks")
    assert (result["metrics"]["mIoU"], result["metrics"]["mBIoU"], result["n_scored"]) == (
        1.0,
        1.0,
        3,
    )


def test_label_maps_are_one_object_a_label(tmp_path: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[5:20, 5:25], labels[30:40, 10:30], labels[0, 0] = 1, 7, 255
    root = put(tmp_path / "in", {"images/a.jpg": jpeg(1), "masks/a.png": encoded(labels)})
    run(root, tmp_path / "out", "label_maps")
    assert foreground(tmp_path / "out") == {"birds_a-000": 300, "birds_a-001": 200}


def coco(place: str = "file_name", where: str = "a.jpg", **more: Any) -> bytes:
    image = {
        "id": 5,
        "height": HEIGHT,
        "width": WIDTH,
        place: where,
        "neg_category_ids": [],
        "not_exhaustive_category_ids": [],
    }
    box = [[5.0, 5.0, 25.0, 5.0, 25.0, 20.0, 5.0, 20.0]]
    annotation = {
        "id": 3,
        "image_id": 5,
        "category_id": 2,
        "segmentation": box,
        "area": 300.0,
        "bbox": [5, 5, 20, 15],
    }
    categories = [{"id": 2, "name": "bird", "frequency": "f"}]
    return json.dumps(
        {"images": [image], "annotations": [annotation], "categories": categories} | more
    ).encode()


@pytest.mark.parametrize(
    ("kind", "place", "where"),
    [("coco_json", "file_name", "a.jpg"), ("lvis_json", "coco_url", "http://x.test/val/a.jpg")],
)
def test_annotation_files_with_and_without_detections(
    tmp_path: Path, kind: str, place: str, where: str
) -> None:
    inner = "val/a.jpg" if kind == "lvis_json" else "a.jpg"
    boxes = [{"image_id": 5, "category_id": 2, "bbox": [6, 5, 20, 15], "score": 0.9}]
    root = put(
        tmp_path / "in",
        {
            f"photos/{inner}": jpeg(1),
            "gt/inst.json": coco(place, where),
            "boxes.json": json.dumps(boxes).encode(),
        },
    )
    named = {"images": "photos", "annotations": "gt/inst.json"}
    summary = run(root, tmp_path / "boxes", kind, **named)
    assert (summary["kind"], summary["n_prompts"]) == ("masks", {"gt_box": 1})
    assert foreground(tmp_path / "boxes") == {
        f"birds_{inner.replace('/', '-').removesuffix('.jpg')}-000": 300
    }
    summary = run(
        root, tmp_path / "detected", kind, "detector_box", detections="boxes.json", **named
    )
    metric = kind.partition("_")[0]
    assert (summary["kind"], summary["benchmark"], summary["n_prompts"]) == (
        metric,
        "birds",
        {"detector_box": 1},
    )
    assert scored(tmp_path / "detected", tmp_path, metric)["metrics"]["AP"] == pytest.approx(1.0)


def test_a_turned_photograph_and_a_mask_drawn_on_either_side_of_the_turn(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(photo(1), "JPEG", exif=exif)
    for name, mask in (("upright", np.rot90(shape(), -1).copy()), ("stored", shape())):
        root = put(tmp_path / name, {"images/a.jpg": turned, "masks/a.png": encoded(mask)})
        run(root, tmp_path / f"out-{name}", "folder")
        (image,) = read_rows(tmp_path / f"out-{name}" / "images.parquet")
        assert (image["height"], image["width"]) == mask.shape


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        (
            {"masks/a.png": encoded(shape()[:-3])},
            {},
            ["images/a.jpg is 52x40, its mask 52x37", "/masks/a.png\n", "index.skip"],
        ),
        ({"masks/a.png": b"\x89PNG nothing"}, {}, ["/masks/a.png\n", "key: birds_a", "index.skip"]),
        ({"images/a.jpg": jpeg(1)[:200]}, {}, ["file: images/a.jpg", "key: birds_a"]),
        (
            {"images/b.jpg": jpeg(2)},
            {},
            ["b.jpg", "has no mask", "key: benchmarks.birds.index.skip"],
        ),
        ({}, {"images": "pictures"}, ["pictures", "images and masks under benchmarks.birds.index"]),
        (
            {},
            {"prompt_sets": ["detector_box"]},
            ["made from the ground truth", "benchmarks.birds.index.prompt_sets", "[gt_box]"],
        ),
        ({}, {"skip": ["a"]}, ["no image has ground truth", "key: benchmarks.birds.index"]),
        ({}, {"skip": ["a", "b"]}, ["no file is called b", "key: benchmarks.birds.index.skip"]),
        ({}, {"detections": "boxes.json"}, ["kind folder has no detections", "coco_json"]),
        ({}, {"annotations": "inst.json"}, ["kind folder has no annotations"]),
        ({}, {"expected_images": 2}, ["birds has 1 images, expected 2"]),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, files: Any, options: dict[str, Any], words: list[str]
) -> None:
    root = put(tmp_path / "in", {"images/a.jpg": jpeg(1), "masks/a.png": encoded(shape()), **files})
    with pytest.raises(UserError) as caught:
        run(root, tmp_path / "out", "folder", **options)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


def detected(
    tmp_path: Path, files: dict[str, bytes], kind: str = "coco_json", **options: Any
) -> dict[str, Any]:
    """The index of a set with detections beside an annotation file."""
    boxes = [{"image_id": 5, "category_id": 2, "bbox": [6, 5, 20, 15], "score": 0.9}]
    root = put(
        tmp_path / "in", {"inst.json": coco(), "boxes.json": json.dumps(boxes).encode(), **files}
    )
    named = {"annotations": "inst.json", "detections": "boxes.json", **options}
    return run(root, tmp_path / "out", kind, "detector_box", **named)


@pytest.mark.parametrize(
    ("files", "options"),
    [
        ({"val/a.jpg": jpeg(1), "masks/png/val/a.png": b""}, {"images": "val/"}),
        ({"a.jpg": jpeg(1)}, {}),
        ({"in/a.JPG": jpeg(1)}, {"images": "in"}),
        ({"in/a.jpg": jpeg(1), "inst.json": coco(where="C:\\data\\in\\a.jpg")}, {"images": "in"}),
        ({"in/a.jpg": jpeg(1), "inst.json": coco(where="/home/me/in/a.jpg")}, {"images": "in"}),
        (
            {"val/a.jpg": jpeg(1), "inst.json": coco("coco_url", "http://x.test/val/a.jpg")},
            {"images": "val"},
        ),
        ({"in/ä.jpg": jpeg(1), "inst.json": coco(where="a\u0308.jpg")}, {"images": "in"}),
    ],
)
def test_images_of_a_set_with_detections_are_found_as_without(
    tmp_path: Path, files: dict[str, bytes], options: dict[str, Any]
) -> None:
    assert detected(tmp_path, files, **options)["n_prompts"] == {"detector_box": 1}
    assert (
        run(tmp_path / "in", tmp_path / "plain", "coco_json", annotations="inst.json", **options)[
            "n_images"
        ]
        == 1
    )


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        (
            {"train/images/a.jpg": jpeg(2), "val/images/a.jpg": jpeg(1)},
            {"images": "images"},
            ["the archive holds train/images, val/images", "key: benchmarks.birds.index.images"],
        ),
        (
            {"a.jpg": jpeg(1), "train/inst.json": coco(), "val/inst.json": coco()},
            {"annotations": "inst.json"},
            [
                "the archive holds train/inst.json, val/inst.json",
                "key: benchmarks.birds.index.annotations",
            ],
        ),
        (
            {
                "a.jpg": jpeg(1),
                "inst.json": coco(),
                "train/boxes.json": b"[]",
                "val/boxes.json": b"[]",
            },
            {"annotations": "inst.json"},
            [
                "the archive holds train/boxes.json, val/boxes.json",
                "key: benchmarks.birds.index.detections",
            ],
        ),
    ],
)
def test_what_is_there_once_for_each_split_is_no_guess(
    tmp_path: Path, files: dict[str, bytes], options: dict[str, str], words: list[str]
) -> None:
    boxes = {} if any("boxes" in name for name in files) else {"boxes.json": b"[]"}
    truth = {} if any("inst" in name for name in files) else {"inst.json": coco()}
    root = put(tmp_path / "in", {**boxes, **truth, **files})
    named = {"annotations": "inst.json", "detections": "boxes.json", **options}
    with pytest.raises(UserError) as caught:
        run(root, tmp_path / "out", "coco_json", "detector_box", **named)
    assert [word for word in words if word not in str(caught.value)] == []


def test_what_ap_needs_and_the_file_lacks_is_filled_in(tmp_path: Path) -> None:
    box = [[5.0, 5.0, 25.0, 5.0, 25.0, 20.0, 5.0, 20.0]]
    sparse = {
        "images": [{"id": 5, "file_name": "a.jpg"}],
        "annotations": [{"id": 3, "image_id": 5, "category_id": 2, "segmentation": box}],
        "categories": [{"id": 2, "name": "bird"}],
    }
    detected(tmp_path, {"a.jpg": jpeg(1), "inst.json": json.dumps(sparse).encode()})
    truth = json.loads((tmp_path / "out" / "gt.json").read_text())
    (annotation,), (image,) = truth["annotations"], truth["images"]
    assert (annotation["area"], annotation["iscrowd"]) == (300.0, 0)
    assert (image["height"], image["width"]) == (HEIGHT, WIDTH)
    assert scored(tmp_path / "out", tmp_path, "coco")["metrics"]["AP"] == pytest.approx(1.0)


BOX = [[5.0, 5.0, 25.0, 5.0, 25.0, 20.0, 5.0, 20.0]]
DRAWN = rle.decode(
    rle.from_segmentation(BOX, height=HEIGHT, width=WIDTH), height=HEIGHT, width=WIDTH
)
COUNTS = rle.to_uncompressed(DRAWN)["counts"]
WAYS: dict[str, dict[str, Any]] = {
    "a stray piece": {"segmentation": [*BOX, [7.0, 7.0, 9.0, 9.0]]},
    "an odd value": {"segmentation": [[*BOX[0], 3.0]]},
    "a point far outside": {"segmentation": [[*BOX[0][:4], 25.0, 5000.0, *BOX[0][6:]]]},
    "no size": {"segmentation": {"counts": rle.encode(DRAWN)}},
    "lengths as floats": {
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": [float(n) for n in COUNTS]}
    },
    "texts for numbers": {"image_id": "5", "category_id": "2", "id": "3"},
    "nulls": {"iscrowd": None, "ignore": None, "area": None},
    "a crowd": {"iscrowd": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_what_index_takes_the_scorer_takes(way: str, tmp_path: Path) -> None:
    """gt.json has one form; the scorer refused it after the whole of predict."""
    plain = {"image_id": 5, "category_id": 2, "segmentation": BOX, "iscrowd": 0, "area": 300.0}
    odd = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": str(HEIGHT), "width": float(WIDTH)}],
        "annotations": [{"id": 4} | plain, {"id": 3} | plain | WAYS[way]],
        "categories": [{"id": "2", "name": "bird"}],
    }
    detected(tmp_path, {"a.jpg": jpeg(1), "inst.json": json.dumps(odd).encode()})
    truth = json.loads((tmp_path / "out" / "gt.json").read_text())
    assert {
        type(row[key])
        for row in truth["annotations"]
        for key in ("id", "image_id", "category_id", "iscrowd")
    } == {int}
    assert {type(row["segmentation"]["counts"]) for row in truth["annotations"]} == {str}
    assert {type(row["area"]) for row in truth["annotations"]} == {float}
    assert [truth["images"][0][side] for side in ("height", "width")] == [HEIGHT, WIDTH]
    assert scored(tmp_path / "out", tmp_path, "coco")["metrics"]["AP"] > 0


def test_ids_that_are_names_are_numbered_and_objects_without_a_mask_left_out(
    tmp_path: Path,
) -> None:
    plain = {"category_id": "bird", "segmentation": BOX}
    named = {
        "images": [{"id": name, "file_name": f"{name}.jpg"} for name in ("bus 3", "000139")],
        "annotations": [
            {"id": "x", "image_id": "000139"} | plain,
            {"id": "y", "image_id": "bus 3"} | plain,
            {"id": "z", "image_id": "bus 3"} | plain | {"segmentation": []},
        ],
        "categories": [{"id": "bird", "name": "bird"}],
    }
    boxes = [{"image_id": "bus 3", "category_id": "bird", "bbox": [5, 5, 20, 15], "score": 0.9}]
    files = {f"{row['file_name']}": jpeg(1) for row in named["images"]}
    files |= {"inst.json": json.dumps(named).encode(), "boxes.json": json.dumps(boxes).encode()}
    made = run(
        put(tmp_path / "in", files),
        tmp_path / "out",
        "coco_json",
        "detector_box",
        annotations="inst.json",
        detections="boxes.json",
    )
    assert made["left_out"] == {"annotations without a mask": 1}
    rows = read_rows(tmp_path / "out" / "images.parquet")
    assert [row["image_id"] for row in rows] == [1, 2]
    truth = json.loads((tmp_path / "out" / "gt.json").read_text())
    assert {image["id"]: image["file_name"] for image in truth["images"]} == {
        1: "000139.jpg",
        2: "bus 3.jpg",
    }
    assert [(row["id"], row["image_id"], row["category_id"]) for row in truth["annotations"]] == [
        (1, 1, 1),
        (2, 2, 1),
    ]
    (prompt,) = read_rows(tmp_path / "out" / "prompts.parquet")
    assert prompt["category_id"] == 1 and "000000000002" in prompt["key"]
    # Results for the file go by its own ids, on the way in and on the way out.
    oracle(tmp_path / "out", tmp_path / "predictions")
    data = load_predictions(
        Benchmark(tmp_path / "out"), tmp_path / "predictions", "detector_box", "hq_token"
    )
    exports.load("coco").write(
        data,
        score_options({"metric": "coco", "version": load_score("coco").version}),
        tmp_path / "theirs.json",
    )
    (row,) = json.loads((tmp_path / "theirs.json").read_text())
    assert (row["image_id"], row["category_id"]) == ("bus 3", "bird")
    found = given.read(tmp_path / "theirs.json", data.benchmark, "detector_box")
    assert (found.key, found.category) == ([prompt["key"]], [1])


def test_skip_leaves_out_the_image_its_objects_and_its_detections(tmp_path: Path) -> None:
    other = {"id": 6, "height": HEIGHT, "width": WIDTH, "file_name": "b.jpg"}
    whole = json.loads(coco())
    whole["images"].append(other)
    whole["annotations"].append({**whole["annotations"][0], "id": 4, "image_id": 6})
    boxes = [
        {"image_id": n, "category_id": 2, "bbox": [6, 5, 20, 15], "score": 0.9} for n in (5, 6)
    ]
    files = {
        "a.jpg": jpeg(1),
        "b.jpg": b"damaged",
        "inst.json": json.dumps(whole).encode(),
        "boxes.json": json.dumps(boxes).encode(),
    }
    with pytest.raises(UserError, match="cannot be used"):
        detected(tmp_path, files)
    summary = detected(tmp_path, files, skip=["b.jpg"])
    assert (summary["n_images"], summary["n_instances"], summary["n_prompts"]) == (
        1,
        1,
        {"detector_box": 1},
    )
    assert summary["left_out"] == {"listed in skip": 1}
    truth = json.loads((tmp_path / "out" / "gt.json").read_text())
    assert ([i["id"] for i in truth["images"]], [a["id"] for a in truth["annotations"]]) == (
        [5],
        [3],
    )


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ([30, 20, 45, 35], ["corners", "[x, y, width, height]"]),
        ([30, 20, -10, -10], ["negative side", "record 0"]),
        ([0.1, 0.2, 0.5, 0.5], ["fractions", "pixels"]),
        ([60, 60, 40, 30], ["1 of 1 boxes reach beyond", "in the size"]),
        ([10, 10, WIDTH - 9, HEIGHT - 9], None),
    ],
)
def test_boxes_in_other_units_are_named(
    tmp_path: Path, box: list[float], words: list[str] | None
) -> None:
    """Each prompt would be wrong, and nothing would say so; a pixel beyond the image is rounding."""
    boxes = json.dumps([{"image_id": 5, "category_id": 2, "bbox": box, "score": 0.9}]).encode()
    files = {"a.jpg": jpeg(1), "boxes.json": boxes}
    if words is None:
        assert detected(tmp_path, files)["n_prompts"] == {"detector_box": 1}
        return
    with pytest.raises(UserError) as caught:
        detected(tmp_path, files)
    assert not [word for word in (*words, "boxes.json") if word not in str(caught.value)]


def test_a_set_of_crowds_alone_is_told_before_anything_is_predicted(tmp_path: Path) -> None:
    truth = json.loads(coco())
    truth["annotations"][0]["iscrowd"] = 1
    with pytest.raises(UserError, match=r"all 1 annotations .* crowd regions(.|\n)*iscrowd to 0"):
        detected(tmp_path, {"a.jpg": jpeg(1), "inst.json": json.dumps(truth).encode()})


@pytest.mark.parametrize("annotations", [None, "absent", []])
def test_the_file_of_a_test_split_is_told_for_what_it_is(tmp_path: Path, annotations: Any) -> None:
    truth = json.loads(coco()) | {"annotations": annotations}
    if annotations == "absent":
        del truth["annotations"]
    root = put(tmp_path / "in", {"a.jpg": jpeg(1), "inst.json": json.dumps(truth).encode()})
    with pytest.raises(UserError, match=r"(?s)annotations|ground truth.*test splits"):
        run(root, tmp_path / "out", "coco_json", annotations="inst.json")


@pytest.mark.parametrize(
    ("name", "file", "cure"),
    [
        ("https://x.test/u/a.jpg?X-Sign=1/2&x=b.png", "a.jpg", None),
        ("a.jpg", "a.jpeg", "a.jpeg is there"),
        ("a+b .jpg", "a b.png", "a b.png is there"),
        ("c.jpg", "a.jpg", "name the folder"),
    ],
)
def test_names_of_images_that_differ_a_little(
    tmp_path: Path, name: str, file: str, cure: str | None
) -> None:
    root = put(tmp_path / "in", {f"p/{file}": jpeg(1), "inst.json": coco(where=name)})
    options = {"images": "p", "annotations": "inst.json"}
    if cure is None:
        assert run(root, tmp_path / "out", "coco_json", **options)["n_images"] == 1
        return
    with pytest.raises(UserError) as caught:
        run(root, tmp_path / "out", "coco_json", **options)
    assert cure in str(caught.value)


OF_NO_IMAGE = {"id": 1, "image_id": 9, "category_id": 2, "segmentation": [[0.0] * 6]}
PLAIN = {"id": 5, "height": HEIGHT, "width": WIDTH, "file_name": "a.jpg"}


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"categories": []}, "coco_json", ["no categories", "inst.json"]),
        ({"annotations": [OF_NO_IMAGE]}, "coco_json", ["annotations of images"]),
        ({"annotations": None}, "coco_json", ["no list of annotations", "test splits"]),
        ({"images": [PLAIN]}, "lvis_json", ["neg_category_ids", "image 5", "coco_json"]),
        ({"categories": [{"id": 2, "name": "bird"}]}, "lvis_json", ["frequency", "category 2"]),
    ],
)
def test_an_annotation_file_that_cannot_be_scored_is_named(
    tmp_path: Path, change: dict[str, Any], kind: str, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        detected(tmp_path, {"a.jpg": jpeg(1), "inst.json": coco(**change)}, kind)
    for word in (*words, "inst.json"):
        assert word in str(caught.value)


def test_unusable_annotations_stop_the_stage_and_crowds_are_counted(tmp_path: Path) -> None:
    whole = json.loads(coco())
    whole["images"].append({"id": 6, "height": HEIGHT, "width": WIDTH, "file_name": "b.jpg"})
    crowd = {
        "id": 7,
        "image_id": 5,
        "category_id": 2,
        "iscrowd": 1,
        "segmentation": {"size": [1, 1], "counts": [1]},
    }
    whole["annotations"].append(crowd)
    root = put(
        tmp_path / "in",
        {"a.jpg": jpeg(1), "b.jpg": jpeg(2), "inst.json": json.dumps(whole).encode()},
    )
    summary = run(root, tmp_path / "out", "coco_json", annotations="inst.json")
    assert summary["left_out"] == {"crowds": 1, "images without object": 1}
    for bad in ({"image_id": 99}, {"image_id": 6, "segmentation": [[1.0, 1.0, 2.0, 2.0]]}):
        wrong = {
            **whole,
            "annotations": [*whole["annotations"], {**whole["annotations"][0], "id": 9, **bad}],
        }
        put(root, {"inst.json": json.dumps(wrong).encode()})
        with pytest.raises(UserError, match=r"1 annotations cannot be used(?s:.*)inst\.json#9"):
            run(root, tmp_path / "out", "coco_json", annotations="inst.json")


def test_one_mask_of_several_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    root = put(
        tmp_path / "in",
        {"images/a.jpg": jpeg(1), "masks/a/1.png": encoded(shape()), "masks/a/2.png": b"damaged"},
    )
    with pytest.raises(UserError, match=r"file: .*masks/a/2\.png"):
        run(root, tmp_path / "out", "folder")
    assert run(root, tmp_path / "out", "folder", skip=["a/2"])["n_instances"] == 1


def test_without_an_optional_archive_the_set_is_left_out(tmp_path: Path) -> None:
    for kind, options in (("folder", {}), ("coco_json", {"annotations": "inst.json"})):
        root = put(tmp_path / kind, {".complete.json": b""})
        (root / ".complete.json").write_text(
            json.dumps({"missing": {"my.zip": "log in and drop it"}})
        )
        assert run(root, tmp_path / f"{kind}-out", kind, **options)["missing"]["files"] == {
            "my.zip": "log in and drop it"
        }


def test_published_sets_keep_their_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)missing.*benchmarks\.birds\.index\.annotations"):
        run(tmp_path, tmp_path / "out", "coco_json", "detector_box", detections="b.json")
    with pytest.raises(UserError, match=r"(?s)coco is a published set.*benchmarks\.birds\.kind"):
        run(tmp_path, tmp_path / "out", "coco")
    options = BenchmarkOptions(prompt_sets=("gt_box",), masks="masks")
    with pytest.raises(
        UserError, match=r"(?s)only own data have this key.*benchmarks\.coift\.index\.masks"
    ):
        index(
            "coift",
            root=tmp_path,
            out=tmp_path / "out",
            options=options,
            progress=lambda *_: None,
        )
    with pytest.raises(ValueError, match="not a path inside the archive"):
        BenchmarkOptions.model_validate({"prompt_sets": ["gt_box"], "detections": "../boxes.json"})


def test_the_guide_is_true() -> None:
    """Every evaluation entry of the guide is one that the stages take."""
    text = GUIDE.read_text().partition("## Evaluate on own data")[2]
    entries = [
        yaml.safe_load(block)["benchmarks"]
        for block in text.split("```yaml\n")[1:]
        for block in [block.split("```")[0]]
    ]
    assert len(entries) == 2
    for name, entry in (item for found in entries for item in found.items()):
        BenchmarkOptions.model_validate(entry["index"])
        assert score_options(entry["score"]).metric == (
            "masks" if "gt_box" in entry["index"]["prompt_sets"] else "coco"
        ), name
