"""Bring your own data: folders, label maps, COCO and LVIS files, several instances per image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hqsam_base.errors import UserError
from hqsam_datasets.formats import manifest, tar
from hqsam_datasets.sample import Sample, parse_sample
from hqsam_datasets.sources.base import SourceOptions
from tests import REPOSITORY
from tests.datasets.trees import encoded, fault_count, jpeg, photo, put, run, shape


def samples(out: Path) -> dict[str, Sample]:
    return {
        key: parse_sample(key, files)
        for path in sorted(out.glob("samples-*.tar"))
        for key, files in tar.iterate_samples(path)
    }


def test_folders_of_any_format(tmp_path: Path) -> None:
    root = put(
        tmp_path / "in",
        {
            "birds/photos/a.JPEG": jpeg(1),
            "birds/photos/sub dir/b.png": encoded(photo(2)),
            "birds/photos/c.webp": encoded(photo(3), "WEBP"),
            "birds/masks/a.png": encoded(shape() // 255),
            "birds/masks/sub dir/b.bmp": encoded(shape(), "BMP"),
            "birds/masks/c/1.png": encoded(shape()),
            "birds/masks/c/2.png": encoded(shape()[::-1].copy()),
            "birds/masks/.DS_Store": b"",
            "birds/readme.txt": b"",
        },
    )
    result = run(
        "birds", root, tmp_path / "out", kind="folder", images="photos", masks="masks", expected=3
    )
    found = samples(tmp_path / "out")
    assert result["n_rejects"] == 0 and list(found) == ["birds_a", "birds_c", "birds_sub-dir-b"]
    assert [len(sample.instances) for sample in found.values()] == [1, 2, 1]
    assert found["birds_a"].instances[0].foreground.sum() == (shape() > 0).sum()


def test_names_with_dots_stay_apart(tmp_path: Path) -> None:
    """Readers of tar samples take what follows the first dot of a name for the member's kind."""
    names = ("a.1", "a.2", "b.jpg")
    files = {f"images/{name}.jpg": jpeg(n) for n, name in enumerate(names)}
    files |= {f"masks/{name}.png": encoded(shape()) for name in names}
    assert (
        run("own", put(tmp_path / "in", files), tmp_path / "out", kind="folder")["n_samples"] == 3
    )
    assert not any("." in key for key in samples(tmp_path / "out"))


def test_long_names_get_short_keys(tmp_path: Path) -> None:
    names = (
        "x" * 180 + "1",
        "x" * 180 + "2",
        "ä" * 110,
        "/".join(["folder" * 3] * 9),
        "y" * 70,
        "z" * 70 + "#",
        "z" * 70 + "&",
    )
    files = {f"images/{name}.jpg": jpeg(i) for i, name in enumerate(names)}
    files |= {f"masks/{name}.png": encoded(shape()) for name in names}
    run("own", put(tmp_path / "in", files), tmp_path / "out", kind="folder", expected=len(names))
    found = list(samples(tmp_path / "out"))
    assert len(found) == len(names) and max(map(len, found)) == 83 and f"own_{'y' * 70}" in found


def test_one_folder_for_both(tmp_path: Path) -> None:
    root = put(
        tmp_path / "in", {"x/1.jpg": jpeg(1), "x/1.png": encoded(shape()), "x/2.jpg": jpeg(2)}
    )
    with pytest.raises(UserError, match="has no mask") as caught:
        run("own", root, tmp_path / "out", kind="folder", images="x", masks="x")
    assert "2.jpg" in str(caught.value) and "sources.own.skip" in str(caught.value)
    assert (
        run("own", root, tmp_path / "out", kind="folder", images="x", masks="x", skip=["2"])[
            "n_samples"
        ]
        == 1
    )
    put(root, {"x/1.jpeg": jpeg(1)})
    with pytest.raises(UserError, match="have the same stem"):
        run("own", root, tmp_path / "out", kind="folder", images="x", masks="x", skip=["2"])


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        (["写真"], "鳥"),
        (["a_1"], "a-1"),
        (["a-1.jpg"], "a_1"),
        (["img 1.1"], "img11"),
        (["sub/x"], "x"),
        (["a\u0308"], "鳥"),
    ],
)
def test_skip_means_the_files_that_it_names(tmp_path: Path, skip: list[str], left: str) -> None:
    names = ["写真", "鳥", "a_1", "a-1", "a1", "img 1.1", "img11", "x", "sub/x", "ä"]
    files = {f"images/{name}.jpg": jpeg(i) for i, name in enumerate(names)}
    root = put(tmp_path / "in", files | {f"masks/{name}.png": encoded(shape()) for name in names})
    run("own", root, tmp_path / "out", kind="folder", expected=len(names) - 1, skip=skip)
    origins = {
        row["origin_image"] for row in manifest.read_rows(tmp_path / "out" / "manifest.parquet")
    }
    assert f"images/{left}.jpg" in origins and f"images/{skip[0]}.jpg" not in origins


def test_a_mask_of_several_is_left_out_by_its_whole_path_only(tmp_path: Path) -> None:
    files = {"images/1.jpg": jpeg(1), "images/a.jpg": jpeg(2), "masks/1.png": encoded(shape())}
    root = put(tmp_path / "in", files | {f"masks/a/{n}.png": encoded(shape()) for n in (1, 2)})
    run("own", root, tmp_path / "image", kind="folder", skip=["1"])
    assert [len(sample.instances) for sample in samples(tmp_path / "image").values()] == [2]
    run("own", root, tmp_path / "mask", kind="folder", skip=["a/1"])
    assert [len(sample.instances) for sample in samples(tmp_path / "mask").values()] == [1, 1]


def test_an_entry_of_skip_that_meets_no_file_is_named(tmp_path: Path) -> None:
    root = put(tmp_path / "in", {"images/a.jpg": jpeg(1), "masks/a.png": encoded(shape())})
    with pytest.raises(UserError, match=r"(?s)no file is called own_a.*sources\.own\.skip"):
        run("own", root, tmp_path / "out", kind="folder", skip=["own_a"])


def test_all_files_without_partner_are_named(tmp_path: Path) -> None:
    files = {f"images/{i}.jpg": jpeg(i) for i in range(8)} | {
        f"masks/m{i}.png": encoded(shape()) for i in range(8)
    }
    with pytest.raises(UserError, match="16 files of own have no partner") as caught:
        run("own", put(tmp_path / "in", files), tmp_path / "out", kind="folder")
    assert "7.jpg has no mask" in str(caught.value) and "and 6 more" in str(caught.value)


def test_a_folder_that_is_there_twice_is_no_guess(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for split in ("train", "val"):
        files |= {
            f"{split}/Images/{split}.jpg": jpeg(1),
            f"{split}/masks/{split}.png": encoded(shape()),
        }
    root = put(tmp_path / "in", files)
    with pytest.raises(UserError, match="the archive holds train/Images, val/Images"):
        run("own", root, tmp_path / "out", kind="folder")
    run("own", root, tmp_path / "out", kind="folder", images="val/images", masks="val/masks")
    assert list(samples(tmp_path / "out")) == ["own_val"]


def test_images_or_annotations_that_are_there_twice_are_no_guess(tmp_path: Path) -> None:
    record = json.dumps(annotations()).encode()
    files = {f"{split}/photos/{name}.jpg": jpeg(1) for split in ("train", "val") for name in "ab"}
    root = put(tmp_path / "in", {**files, "train/inst.json": record})
    with pytest.raises(
        UserError, match=r"(?s)the archive holds train/photos, val/photos.*sources\.own\.images"
    ):
        run(
            "own",
            root,
            tmp_path / "out",
            kind="coco_json",
            images="photos",
            annotations="inst.json",
        )
    (root / "val" / "inst.json").write_bytes(record)
    with pytest.raises(
        UserError,
        match=r"(?s)the archive holds train/inst.json, val/inst.json.*own\.annotations.*folder",
    ):
        run(
            "own",
            root,
            tmp_path / "out",
            kind="coco_json",
            images="photos",
            annotations="inst.json",
        )
    places = {"images": "val/photos", "annotations": "val/inst.json"}
    run("own", root, tmp_path / "out", kind="coco_json", **places)
    assert list(samples(tmp_path / "out")) == ["own_a", "own_b"]


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    root = put(tmp_path / "in", {"x/1.jpg": jpeg(1)})
    for wrong in ({"images": "y"}, {"images": "x", "masks": "z"}):
        with pytest.raises(UserError, match=r"set images and masks under sources\.own"):
            run("own", root, tmp_path / "out", kind="folder", **wrong)
    with pytest.raises(UserError, match="there is no training source 'own'"):
        run("own", root, tmp_path / "out")


@pytest.mark.parametrize("path", ["/home/me/photos", "../photos", "~/photos", "C:\\photos", ""])
@pytest.mark.parametrize("option", ["images", "masks", "annotations"])
def test_paths_outside_the_archive_are_refused(option: str, path: str) -> None:
    with pytest.raises(ValueError, match="is not a path inside the archive"):
        SourceOptions.model_validate({"archive": "a", option: path})


def test_label_maps_become_one_instance_per_label(tmp_path: Path) -> None:
    labels = np.zeros((40, 52), np.uint8)
    labels[2:12, 5:25], labels[20:30, 5:25], labels[35:, :] = 1, 14, 255
    image = Image.fromarray(labels, "P")
    image.putpalette([value % 256 for value in range(0, 768 * 37, 37)])
    image.save(tmp_path / "map.png")
    root = put(
        tmp_path / "in",
        {
            "JPEGImages/a.jpg": jpeg(1),
            "Seg/a.png": (tmp_path / "map.png").read_bytes(),
            "JPEGImages/b.jpg": jpeg(2),
            "Seg/b.png": encoded(np.zeros((40, 52), np.uint8)),
        },
    )
    result = run("voc", root, tmp_path / "out", kind="label_maps", images="JPEGImages", masks="Seg")
    sample = samples(tmp_path / "out")["voc_a"]
    assert [instance.category for instance in sample.instances] == ["1", "14"]
    assert np.array_equal(sample.instances[1].foreground, labels == 14)
    assert result["rejects_by_reason"] == {"empty_mask": 1}
    row = manifest.read_rows(tmp_path / "out" / "manifest.parquet")[0]
    assert (row["n_instances"], row["mask_encoding"]) == (2, "palette") and row[
        "fg_fraction"
    ] == 200 / labels.size


def test_label_maps_of_16_bits(tmp_path: Path) -> None:
    labels = np.zeros((40, 52), np.uint16)
    labels[2:12], labels[20:30] = 1, 254
    root = put(tmp_path / "in", {"images/a.jpg": jpeg(1), "masks/a.png": encoded(labels)})
    assert run("own", root, tmp_path / "out", kind="label_maps")["n_samples"] == 1
    assert [i.category for i in samples(tmp_path / "out")["own_a"].instances] == ["1", "254"]
    put(root, {"masks/a.png": encoded(labels * 2)})
    with pytest.raises(UserError, match="labels up to 508: number them 1 to 254"):
        run("own", root, tmp_path / "out", kind="label_maps")


POLYGON = [[5.0, 5.0, 25.0, 5.0, 25.0, 15.0, 5.0, 15.0]]


def annotations(**extra: Any) -> dict[str, Any]:
    dense = np.zeros((40, 52), np.uint8)
    dense[20:30, 10:40] = 1
    compressed = coco_mask.encode(np.asfortranarray(dense))
    counts = {"size": [40, 52], "counts": compressed["counts"].decode()}
    return {
        "categories": [{"id": 7, "name": "bird"}, {"id": 90, "name": "kite"}],
        "images": [
            {"id": 2, "file_name": "b.jpg", "height": 40, "width": 52},
            {"id": 1, "file_name": "a.jpg", "height": 40, "width": 52},
            {"id": 3, "file_name": "none.jpg", "height": 40, "width": 52},
        ],
        "annotations": [
            {"id": 12, "image_id": 1, "category_id": 90, "segmentation": counts},
            {"id": 11, "image_id": 1, "category_id": 7, "segmentation": POLYGON, "iscrowd": 0},
            {
                "id": 13,
                "image_id": 2,
                "category_id": 7,
                "segmentation": [*POLYGON, [1.0, 1.0, 2.0, 2.0]],
            },
            {"id": 14, "image_id": 2, "category_id": 7, "segmentation": [[1.0, 1.0, 2.0, 2.0]]},
            {"id": 15, "image_id": 2, "category_id": 7, "segmentation": counts, "iscrowd": 1},
            {
                "id": 16,
                "image_id": 2,
                "category_id": 7,
                "segmentation": [[60.0, 60.0, 61.0, 60.0, 61.0, 61.0]],
            },
        ],
        **extra,
    }


def test_coco_files(tmp_path: Path) -> None:
    files = {"set/train/a.jpg": jpeg(1), "set/train/b.jpg": jpeg(2)}
    root = put(tmp_path / "in", {**files, "set/inst.json": json.dumps(annotations()).encode()})
    result = run(
        "own", root, tmp_path / "out", kind="coco_json", images="train", annotations="inst.json"
    )
    found = samples(tmp_path / "out")
    assert list(found) == ["own_a", "own_b"]
    assert [i.category for i in found["own_a"].instances] == ["bird", "kite"]
    rle = coco_mask.merge(coco_mask.frPyObjects(POLYGON, 40, 52))
    assert np.array_equal(
        found["own_a"].instances[0].foreground, coco_mask.decode(rle).astype(bool)
    )
    assert len(found["own_b"].instances) == 1
    assert result["rejects_by_reason"] == {
        "crowd": 1,
        "empty_mask": 1,
        "invalid_annotation": 1,
        "no_object": 1,
    }


def test_lvis_files_without_file_names(tmp_path: Path) -> None:
    record = annotations()
    record["images"] = [
        {
            "id": 1,
            "coco_url": "http://images.example.org/train2017/a.jpg",
            "height": 40,
            "width": 52,
        }
    ]
    record["annotations"] = [a for a in record["annotations"] if a["image_id"] == 1]
    root = put(
        tmp_path / "in", {"train2017/a.jpg": jpeg(1), "lvis.json": json.dumps(record).encode()}
    )
    assert (
        run("own", root, tmp_path / "out", kind="lvis_json", annotations="lvis.json")["n_samples"]
        == 1
    )
    assert list(samples(tmp_path / "out")) == ["own_train2017-a"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "not a COCO-type annotation file"),
        (b"[]", "not a COCO-type annotation file"),
        (json.dumps({"images": []}).encode(), "the file has no annotations"),
        (
            json.dumps(annotations(images=[{"id": 1, "file_name": "zzz.jpg"}])).encode(),
            r"1 annotated image\(s\) not there: zzz\.jpg",
        ),
        (
            json.dumps(annotations(annotations=[{"image_id": 1}])).encode(),
            "a malformed entry: KeyError: 'id'",
        ),
        (json.dumps(annotations(images=[5])).encode(), "a malformed entry"),
        (json.dumps(annotations(images=[{"id": 1}])).encode(), "neither file_name nor coco_url"),
    ],
)
def test_wrong_annotation_files_are_user_errors(tmp_path: Path, data: bytes, says: str) -> None:
    root = put(tmp_path / "in", {"train/a.jpg": jpeg(1), "x.json": data})
    with pytest.raises(UserError, match=says):
        run("own", root, tmp_path / "out", kind="coco_json", images="train", annotations="x.json")


def test_malformed_segmentations_are_rejects(tmp_path: Path) -> None:
    record = annotations()
    record["annotations"][0]["segmentation"] = {"size": [3, 3], "counts": "garbage\u00ff"}
    record["annotations"] = record["annotations"][:1] + record["annotations"][2:3]
    root = put(
        tmp_path / "in",
        {"train/a.jpg": jpeg(1), "train/b.jpg": jpeg(2), "x.json": json.dumps(record).encode()},
    )
    result = run(
        "own", root, tmp_path / "out", kind="coco_json", images="train", annotations="x.json"
    )
    assert result["n_samples"] == 1 and result["rejects_by_reason"]["invalid_annotation"] == 1


def test_fuzzed_annotation_files_are_samples_rejects_or_user_errors(tmp_path: Path) -> None:
    import random

    good = json.dumps(annotations()).encode()
    dice, wrong = random.Random(6), 0
    put(tmp_path / "in", {"train/a.jpg": jpeg(1), "train/b.jpg": jpeg(2)})
    rounds = fault_count(200, 1000)
    for _ in range(rounds):
        data = bytearray(good)
        for _ in range(dice.choice((1, 2, 5))):
            data[dice.randrange(len(data))] = dice.choice(b'0123456789{}[],:" aeiou-')
        put(tmp_path / "in", {"x.json": bytes(data)})
        try:
            result = run(
                "own",
                tmp_path / "in",
                tmp_path / "out",
                kind="coco_json",
                images="train",
                annotations="x.json",
            )
            assert result["n_samples"] > 0
        except UserError:
            wrong += 1
    assert rounds // 4 < wrong < rounds


def coco(
    tmp_path: Path, listing: list[Any], entries: list[Any], files: dict[str, bytes], **more: Any
) -> dict[str, Any]:
    """Normalise a COCO set; images lie in set/train, `entries` are (image id, segmentation)."""
    listed = [
        {"id": i, "image_id": image, "category_id": 7, "segmentation": s}
        for i, (image, s) in enumerate(entries)
    ]
    record = {"images": listing, "annotations": listed, "categories": [{"id": 7, "name": "bird"}]}
    root = put(
        tmp_path / "in", {**files, "set/inst.json": b"\xef\xbb\xbf" + json.dumps(record).encode()}
    )
    return run(
        "own",
        root,
        tmp_path / "out",
        kind="coco_json",
        annotations="inst.json",
        **{"images": "train", **more},
    )


def entry(number: int, file_name: str, height: int = 40, width: int = 52) -> dict[str, Any]:
    return {"id": number, "file_name": file_name, "height": height, "width": width}


AB = {"set/train/a.jpg": jpeg(1), "set/train/b.jpg": jpeg(2)}


def rejected(tmp_path: Path) -> dict[str, tuple[str, str]]:
    lines = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    return {
        record["origin"]: (record["reason"], record["detail"]) for record in map(json.loads, lines)
    }


def test_run_lengths_that_do_not_fill_the_image_are_rejects(tmp_path: Path) -> None:
    coco(
        tmp_path,
        [entry(1, "a.jpg"), entry(2, "b.jpg")],
        [(1, POLYGON), (2, {"size": [40, 52], "counts": ""})],
        AB,
    )
    reason, detail = rejected(tmp_path)["set/train/b.jpg"]
    assert reason == "invalid_annotation" and detail.startswith("annotation 1: ")


def test_masks_drawn_on_another_size_are_rejects(tmp_path: Path) -> None:
    images = [entry(1, "a.jpg", 80, 104), entry(2, "b.jpg"), entry(3, "b2.jpg", 10**9, 10**9)]
    coco(
        tmp_path,
        images,
        [(1, POLYGON), (2, POLYGON), (3, POLYGON)],
        {**AB, "set/train/b2.jpg": jpeg(3)},
    )
    assert list(samples(tmp_path / "out")) == ["own_b"]
    assert rejected(tmp_path)["set/train/a.jpg"] == (
        "size_mismatch",
        "image 52x40, the annotation file says 104x80",
    )


def test_masks_drawn_on_the_unturned_photograph_are_turned_with_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = {"set/train/a.jpg": encoded(photo(1), "JPEG", exif=exif.tobytes())}
    coco(tmp_path, [entry(1, "a.jpg")], [(1, POLYGON)], turned)
    sample = samples(tmp_path / "out")["own_a"]
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(POLYGON, 40, 52))).astype(bool)
    assert sample.image.shape == (52, 40, 3) and np.array_equal(
        sample.instances[0].foreground, np.rot90(drawn, -1)
    )


@pytest.mark.parametrize("images", ["train", None])
@pytest.mark.parametrize(
    "folder", ["train/", "/home/someone/train/", "C:\\data\\train\\", "../up/train/", "./train//"]
)
def test_paths_of_another_machine(tmp_path: Path, folder: str, images: str | None) -> None:
    names = [entry(1, f"{folder}a.jpg"), entry(2, f"{folder}b.jpg")]
    result = coco(tmp_path, names, [(1, POLYGON), (2, POLYGON)], AB, images=images)
    rows = manifest.read_rows(tmp_path / "out" / "manifest.parquet")
    assert result["n_samples"] == 2 and [r["origin_image"] for r in rows] == [
        "set/train/a.jpg",
        "set/train/b.jpg",
    ]


def test_no_file_outside_the_archive_is_read(tmp_path: Path) -> None:
    put(tmp_path, {"secret.jpg": jpeg(9)})
    for name in (str(tmp_path / "secret.jpg"), "../../../secret.jpg"):
        with pytest.raises(UserError, match=r"annotated image\(s\) not there"):
            coco(tmp_path, [entry(1, name)], [(1, POLYGON)], AB)


def test_annotations_of_no_image_are_counted(tmp_path: Path) -> None:
    coco(tmp_path, [entry(1, "a.jpg")], [(1, POLYGON), (77, POLYGON)], AB)
    assert rejected(tmp_path) == {
        "set/inst.json#1": ("invalid_annotation", "its image 77 is not among the images")
    }


def test_an_image_listed_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.jpg and b\.jpg have the same id(.|\n)*key: image 1"):
        coco(tmp_path, [entry(1, "a.jpg"), entry(1, "b.jpg")], [(1, POLYGON)], AB)
    with pytest.raises(
        UserError, match=r"x/a\.jpg and y/a\.jpg of the annotation file are one image"
    ):
        coco(tmp_path, [entry(1, "x/a.jpg"), entry(2, "y/a.jpg")], [(1, POLYGON), (2, POLYGON)], AB)


def test_a_wrong_entry_is_named(tmp_path: Path) -> None:
    for wrong in (POLYGON[0], [[1, 2, 3, "x", None, 6]], 5):
        try:
            coco(tmp_path, [entry(1, "a.jpg"), entry(2, "b.jpg")], [(1, POLYGON), (2, wrong)], AB)
        except UserError as error:
            assert error.key == "annotation 1"
        else:
            assert "annotation 1: " in rejected(tmp_path)["set/train/b.jpg"][1]
    with pytest.raises(UserError, match="key: annotation 0"):
        coco(tmp_path, [entry(1, "a.jpg")], [(1.5, POLYGON)], AB)


def test_missing_images_are_all_named(tmp_path: Path) -> None:
    images = [entry(1, "a.jpg"), *(entry(i, f"{i}.jpg") for i in range(10, 13))]
    with pytest.raises(
        UserError, match=r"3 annotated image\(s\) not there: 10\.jpg, 11\.jpg, 12\.jpg"
    ):
        coco(tmp_path, images, [(r["id"], POLYGON) for r in images], AB)
    assert (
        coco(tmp_path, images, [(r["id"], POLYGON) for r in images], AB, skip=["10", "11", "12"])[
            "n_samples"
        ]
        == 1
    )


def test_sa1b_subset(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for i in range(8):
        masks = []
        for k in range(5):
            dense = np.zeros((40, 52), np.uint8)
            dense[2 + 6 * k : 7 + 6 * k, 5:30] = 1
            counts = coco_mask.encode(np.asfortranarray(dense))["counts"].decode()
            masks.append({"id": 100 * i + k, "segmentation": {"size": [40, 52], "counts": counts}})
        files[f"sa_000000/sa_{i}.jpg"] = jpeg(i)
        files[f"sa_000000/sa_{i}.json"] = json.dumps(
            {"image": {"image_id": i}, "annotations": masks}
        ).encode()
    root = put(tmp_path / "in", files)
    assert (
        run("sa1b", root, tmp_path / "out", limit=5, max_instances=2, expected=5)["n_samples"] == 5
    )
    found = samples(tmp_path / "out")
    assert all(len(sample.instances) == 2 for sample in found.values())
    run("sa1b", root, tmp_path / "one", max_instances=1)
    firsts = samples(tmp_path / "one")
    assert len(firsts) == 8
    for key, sample in found.items():
        assert np.array_equal(sample.instances[0].mask, firsts[key].instances[0].mask)
    put(root, {"sa_000000/sa_3.json": b"[]"})
    assert run("sa1b", root, tmp_path / "bad")["rejects_by_reason"] == {"invalid_annotation": 1}
    (root / "sa_000000/sa_4.json").unlink()
    with pytest.raises(UserError, match=r"has no sa_4\.json"):
        run("sa1b", root, tmp_path / "bad")


def test_dut_omron_in_two_archives(tmp_path: Path) -> None:
    files = {
        "DUT-OMRON-image/im_1.jpg": jpeg(1),
        "DUT-OMRON-image/img_561715398.jpg": jpeg(2),
    }
    root = put(tmp_path / "in", {**files, "gt/pixelwiseGT-new-PNG/im_1.png": encoded(shape())})
    result = run("dut_omron", root, tmp_path / "out")
    assert result["n_samples"] == 1 and result["rejects_by_reason"] == {"known_bad": 1}


def test_the_guide_is_true(tmp_path: Path) -> None:
    """The entries of docs/own-data.md are valid, and the first one works from archive to samples."""
    import re
    import shutil

    import yaml

    from hqsam_datasets.fetch.archive import fetch
    from hqsam_datasets.fetch.extract import extracted
    from hqsam_datasets.fetch.spec import ArchiveSpec
    from tests.datasets.trees import quiet

    text = (REPOSITORY / "docs" / "own-data.md").read_text()
    for entry in re.findall(r"`(\{kind: .*?\})`", text):
        SourceOptions.model_validate(yaml.safe_load(entry))
    block = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    put(tmp_path / "birds", {"photos/a.jpg": jpeg(1), "masks/a.png": encoded(shape())})
    packed = shutil.make_archive(str(tmp_path / "my_birds"), "zip", tmp_path / "birds")
    spec = block["archives"]["my_birds"]
    spec["files"][0]["urls"] = [Path(packed).as_uri()]
    fetch(ArchiveSpec.model_validate(spec), tmp_path / "archives" / "my_birds", progress=quiet)
    root = extracted(tmp_path / "archives" / "my_birds", tmp_path / "extracted")
    options = {**block["sources"]["my_birds"], "expected": 1}
    assert run("my_birds", root, tmp_path / "out", **options)["n_samples"] == 1
