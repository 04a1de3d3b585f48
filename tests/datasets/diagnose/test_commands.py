"""`hqsam data show`, `hqsam data sheet` and `hqsam doctor data`, called as a user calls them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks.base import BenchmarkOptions
from hqsam_datasets.formats import labelme, masks
from hqsam_datasets.prepare.augment import AugmentOptions, write_prompts
from hqsam_datasets.prepare.index import index
from hqsam_datasets.prepare.shards import ShardOptions, write_shards
from hqsam_pipelines.cli import run as hqsam
from tests.datasets.trees import contents, encoded, jpeg, photo, put, quiet, run, shape

LEGEND = 32  # one line of it


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    for i in range(1, 5):
        put(home / "in", {f"ecssd/{i:04d}.jpg": jpeg(i), f"ecssd/{i:04d}.png": encoded(shape())})
    run("ecssd", home / "in", home / "samples" / "ecssd")
    (home / "exclusions.jsonl").write_text('{"key": "ecssd_0004"}\n')
    write_shards(
        samples={"ecssd": home / "samples" / "ecssd"},
        exclusions=home / "exclusions.jsonl",
        out=home / "shards",
        options=ShardOptions(),
        progress=quiet,
    )
    options = AugmentOptions(views=2, image_size=64, mask_input_size=32)
    write_prompts(
        shards=home / "shards", out=home / "prompts", options=options, seed=0, progress=quiet
    )
    return home


def test_show_draws_a_sample_and_its_views(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, record = tmp_path / "x.png", tmp_path / "x.json"
    arguments = [
        "data",
        "show",
        "ecssd_0002",
        "--data",
        str(data),
        "--out",
        str(target),
        "--json",
        str(record),
    ]
    assert hqsam(arguments) == 0
    drawing = np.asarray(Image.open(target))
    assert drawing.shape == (3 * (512 + 8) + LEGEND, 3 * 512 + 16, 3), (
        "one row for the sample, two for the views"
    )
    assert len(np.unique(drawing.reshape(-1, 3), axis=0)) > 1000
    told = json.loads(record.read_bytes())
    assert told["manifest"]["origin_image"] == "ecssd/0002.jpg" and len(told["views"]) == 2
    assert "view 1: prompt" in capsys.readouterr().out


def test_show_finds_excluded_samples_and_suggests_keys(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        hqsam(["data", "show", "ecssd_0004", "--data", str(data), "--out", str(tmp_path / "x.png")])
        == 0
    )
    assert np.asarray(Image.open(tmp_path / "x.png")).shape[0] == 512 + 8 + LEGEND, (
        "no views: the sample is not in the shards"
    )
    assert hqsam(["data", "show", "ecssd_002", "--data", str(data)]) == 1
    assert "similar keys: ecssd_0002" in capsys.readouterr().err
    assert hqsam(["data", "show", "x", "--data", str(tmp_path)]) == 1
    assert "run the normalise or the index stage" in capsys.readouterr().err


def test_show_draws_an_evaluation_image_with_its_prompts(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "images/a.jpg": jpeg(1),
        "masks/a/1.png": encoded(shape()),
        "masks/a/2.png": encoded(shape()[::-1].copy()),
    }
    index(
        "birds",
        root=put(tmp_path / "in", files),
        out=data / "benchmarks" / "birds",
        progress=quiet,
        kind="folder",
        options=BenchmarkOptions(prompt_sets=("gt_box",)),
    )
    target, record = tmp_path / "x.png", tmp_path / "x.json"
    arguments = [
        "data",
        "show",
        "birds_a",
        "--data",
        str(data),
        "--out",
        str(target),
        "--json",
        str(record),
    ]
    assert hqsam(arguments) == 0
    assert "2 ground-truth object(s), 2 gt_box" in capsys.readouterr().out
    assert json.loads(record.read_bytes())["prompts"] == {"gt_box": 2}
    drawn = np.asarray(Image.open(target))
    assert drawn.shape == (512 + LEGEND, 3 * 512 + 16, 3), (
        "the image, its ground truth, one set of prompts"
    )
    plain, truth, boxes = (drawn[:, k * 520 : k * 520 + 512].astype(int) for k in range(3))
    inside = np.asarray(Image.fromarray(shape()).resize((512, 394), Image.Resampling.NEAREST)) > 128
    changed = np.abs(truth - plain).sum(axis=2)[: len(inside)] > 0
    assert changed[inside].mean() > 0.95
    assert 0 < (np.abs(boxes - plain).sum(axis=2) > 0).mean() < 0.1, "outlines only"
    (data / "benchmarks" / "birds" / "prompts.parquet").write_bytes(b"")
    assert hqsam(arguments) == 1
    assert (
        "prompts.parquet" in (said := capsys.readouterr().err)
        and "run the index stage again" in said
    )
    assert hqsam(["data", "show", "birds_b", "--data", str(data)]) == 1
    assert "similar keys: birds_a" in capsys.readouterr().err


def test_doctor_passes_what_the_normalise_stage_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"images/{i}.jpg": jpeg(i) for i in range(3)} | {
        f"masks/{i}.png": encoded(shape()) for i in range(3)
    }
    folder = put(tmp_path / "mine", files)
    assert hqsam(["doctor", "data", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "3 pairs" in out and "{kind: folder, archive: NAME, images: images, masks: masks}" in out
    assert (
        run("own", folder, tmp_path / "out", kind="folder", images="images", masks="masks")[
            "n_samples"
        ]
        == 3
    )


def test_doctor_says_of_a_picture_what_the_normalise_stage_does_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """12-bit values in 16-bit files, grey and colour: nearly black for a model; a 32-bit one has no range at all."""
    grey, masks = (
        photo(0)[..., 0].astype(np.uint16) * 16,
        {f"masks/{n}.png": encoded(shape()) for n in "abcd"},
    )
    files = {
        "images/a.png": encoded(grey),
        "images/b.tif": cv2.imencode(".tif", np.dstack([grey] * 3))[1].tobytes(),
        "images/c.tif": cv2.imencode(".tif", grey.astype(np.float32))[1].tobytes(),
        "images/d.png": encoded(photo(1)),
    }
    folder = put(tmp_path / "mine", files | masks)
    assert hqsam(["doctor", "data", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "3 images have an unsupported pixel type" in out
    for stem, text in (
        ("a", "nearly black"),
        ("b", "nearly black"),
        ("c", "scale its values to 0..255"),
    ):
        assert [
            line
            for line in out.splitlines()
            if line.strip().startswith(f"{stem}:") and text in line
        ], out
    rejects = run("own", folder, tmp_path / "out", kind="folder", images="images", masks="masks")[
        "rejects_by_reason"
    ]
    assert rejects == {"unsupported_mode": 3}


def test_doctor_names_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    speck = np.zeros((400, 520), np.uint8)
    speck[5:9, 5:9] = 255
    pairs = {
        "good": (jpeg(1), encoded(shape())),
        "same": (jpeg(1), encoded(shape())),
        "black": (jpeg(2), encoded(shape() // 255)),
        "size": (jpeg(3), encoded(shape(20, 20))),
        "picture": (jpeg(4), encoded(photo(5))),
        "values": (jpeg(5), encoded(shape() // 255 * 7)),
        "empty": (jpeg(6), encoded(np.zeros((40, 52), np.uint8))),
        "cut": (jpeg(7)[:200], encoded(shape())),
        "html": (jpeg(8), b"<html></html>"),
        "inverted": (jpeg(9), encoded(255 - shape())),
        "speck": (jpeg(10, height=400, width=520), encoded(speck)),
        "turned": (encoded(photo(11), "JPEG", exif=exif.tobytes()), encoded(np.rot90(shape(), -1))),
        "grey": (encoded(photo(12)[..., 0], "JPEG"), encoded(shape())),
        "white": (jpeg(15), encoded(np.full((40, 52), 255, np.uint8))),
        "stamp": (jpeg(16, height=31, width=90), encoded(shape(31, 90))),
    }
    files = {f"im/{stem}.jpg": image for stem, (image, _) in pairs.items()}
    files |= {f"gt/{stem}.png": mask for stem, (_, mask) in pairs.items()}
    files |= {
        "im/alone.jpg": jpeg(13),
        "im/Bird.jpg": jpeg(14),
        "gt/bird_mask.png": encoded(shape()),
        "im/a.txt": b"",
    }
    folder = put(tmp_path / "mine", files)
    assert hqsam(["doctor", "data", str(folder), "--json", str(tmp_path / "f.json")]) == 1
    found = {f["text"]: f for f in json.loads((tmp_path / "f.json").read_bytes())["findings"]}
    expected = {
        "2 images have no mask in gt/": ("error", ["Bird.jpg", "alone.jpg"]),
        "1 masks have no image in im/": ("error", ["bird_mask.png"]),
        "1 masks do not have the size of their image": ("error", ["size: image 52x40, mask 20x20"]),
        "1 masks have no foreground (no value above 128)": ("error", ["empty"]),
        "2 masks are white along the border: inverted?": ("warning", ["inverted", "white"]),
        "1 masks cover less than 0.1% of their image: the quality gate stops there (params "
        "quality)": (
            "warning",
            ["speck"],
        ),
        "1 masks cover more than 98% of their image: the quality gate stops there (params quality)": (
            "warning",
            ["white"],
        ),
        "1 images have a side of less than 32 pixels: the quality gate stops there (params "
        "quality)": (
            "warning",
            ["stamp"],
        ),
        "1 groups of images have exactly the same pixels": ("warning", ["good = same"]),
        "1 images are stored turned (EXIF); they are turned upright here": ("note", ["turned"]),
        "1 images are L, not RGB; they are converted": ("note", ["grey"]),
        "1 files are neither images nor masks and are left alone": ("note", ["a.txt"]),
    }
    for text, (level, names) in expected.items():
        assert (found[text]["level"], found[text]["files"]) == (level, names)
    for start, names in {
        "1 masks are pictures": ["picture"],
        "1 masks have values that do not say": ["values"],
        "1 images cannot be read": ["cut"],
        "1 masks cannot be read": ["html"],
        "1 masks are 0/1": ["black"],
        "1 of the unpaired names differ only": ["bird_mask"],
    }.items():
        match = [f for text, f in found.items() if text.startswith(start)]
        assert len(match) == 1 and [name.split(":")[0] for name in match[0]["files"]] == names, (
            start
        )
    assert capsys.readouterr().out.startswith("error")


def test_doctor_reads_label_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.where(shape() > 0, 2, 0).astype(np.uint8)
    folder = put(tmp_path / "mine", {"images/a.jpg": jpeg(1), "masks/a.png": encoded(labels)})
    assert hqsam(["doctor", "data", str(folder)]) == 1
    assert "label maps: --kind label_maps" in capsys.readouterr().out
    assert hqsam(["doctor", "data", str(folder), "--kind", "label_maps"]) == 0
    assert "{kind: label_maps, archive: NAME" in capsys.readouterr().out
    put(folder, {"masks/a.png": encoded(photo(1))})
    assert hqsam(["doctor", "data", str(folder), "--kind", "label_maps"]) == 1
    assert "mode RGB holds no label indices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (("images/a.jpg", "masks/a.jpg.png"), "differ only in case or by an ending"),
        (
            ("images/a.jpg", "masks/a_1.png", "masks/a_2.png"),
            "several masks of a.jpg go into a folder a/",
        ),
        (("all/a.png", "all/a_mask.png"), "only JPEG and WebP files count as images"),
    ],
)
def test_doctor_guesses_what_was_meant(files: tuple[str, ...], says: str, tmp_path: Path) -> None:
    put(
        tmp_path / "mine",
        {name: encoded(shape(), "JPEG" if name.endswith("jpg") else "PNG") for name in files},
    )
    assert any(says in text for text in findings(tmp_path / "mine", tmp_path))


POLYGON = [[5, 5, 25, 5, 25, 15, 5, 15]]


def coco_folder(tmp_path: Path, shape_of_b: Any = POLYGON, height: int = 40) -> Path:
    images = [{"id": i, "file_name": f"{i}.jpg", "height": height, "width": 52} for i in (1, 2)]
    listed = [
        {"id": 7, "image_id": 1, "segmentation": POLYGON},
        {"id": 8, "image_id": 2, "segmentation": shape_of_b},
    ]
    record = json.dumps({"images": images, "annotations": listed}).encode()
    return put(
        tmp_path / "mine",
        {"train/1.jpg": jpeg(1), "train/2.jpg": jpeg(2), "notes/inst.json": record},
    )


def test_doctor_reads_annotation_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = coco_folder(tmp_path)
    assert hqsam(["doctor", "data", str(folder)]) == 1
    assert "--annotations notes/inst.json" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    for given in (
        "notes/inst.json",
        "mine/notes/inst.json",
        str(folder / "notes/inst.json"),
        "inst.json",
    ):
        assert hqsam(["doctor", "data", "mine", "--annotations", given, "--images", "train"]) == 0
        out = capsys.readouterr().out
        assert "2 objects on 2 images" in out
        entry = out.partition("{")[2].partition("}")[0]
        options = dict(word.split(": ") for word in entry.replace('"', "").split(", "))
        assert run("own", folder, tmp_path / "out", **options)["n_samples"] == 2
    for wrong in ("/etc/hostname", "../x.json", "none.json"):
        assert hqsam(["doctor", "data", "mine", "--annotations", wrong, "--images", "train"]) == 1
        assert capsys.readouterr().err.startswith("Error: ")


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"height": 80}, "2 images do not have the size that the file says"),
        ({"shape_of_b": {"size": [40, 52], "counts": "PP"}}, "1 annotations cannot be drawn"),
        (
            {"shape_of_b": [[60, 60, 61, 60, 61, 61]]},
            "1 masks lie outside their image or are empty",
        ),
    ],
)
def test_doctor_names_what_is_wrong_with_annotations(
    broken: dict[str, Any], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = coco_folder(tmp_path, **broken)
    assert (
        hqsam(
            ["doctor", "data", str(folder), "--annotations", "notes/inst.json", "--images", "train"]
        )
        == 1
    )
    assert says in capsys.readouterr().out


def test_doctor_says_what_is_left_out_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the normalise stage: an object without a mask costs no image. CVAT marks every brush mask as a crowd."""
    folder = coco_folder(tmp_path, shape_of_b=[])
    command = [
        "doctor",
        "data",
        str(folder),
        "--annotations",
        "notes/inst.json",
        "--images",
        "train",
    ]
    assert hqsam(command) == 0
    assert (
        "1 annotations have no mask (segmentation is empty) and are left out"
        in capsys.readouterr().out
    )
    assert (
        run(
            "own",
            folder,
            tmp_path / "out",
            kind="coco_json",
            images="train",
            annotations="notes/inst.json",
        )["n_samples"]
        == 1
    )
    record = json.loads((folder / "notes/inst.json").read_text())
    for row in record["annotations"]:
        row |= {"iscrowd": 1, "segmentation": POLYGON}
    (folder / "notes/inst.json").write_text(json.dumps(record))
    assert hqsam(command) == 1
    assert (
        "all 2 annotations are crowd regions: if they are objects, set iscrowd to 0"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("named", "there"), [("d%C3%A9 1", "d\u00e9 1"), ("d\u00e9 1", "d%C3%A9%201")]
)
def test_images_are_found_by_percent_encoded_names(named: str, there: str, tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    (folder / "train/1.jpg").rename(folder / "train" / f"{there}.jpg")
    text = (folder / "notes/inst.json").read_text()
    (folder / "notes/inst.json").write_text(
        text.replace('"1.jpg"', json.dumps(f"train/{named}.jpg"))
    )
    assert (
        hqsam(
            ["doctor", "data", str(folder), "--annotations", "notes/inst.json", "--images", "train"]
        )
        == 0
    )


def labelme_folder(tmp_path: Path) -> Path:
    """Two images: two polygons that are one object, a rectangle, a circle, a point; and a mask."""
    head = {"version": "5.4.1", "imageHeight": 40, "imageWidth": 52}
    parts = [
        {
            "label": "cat",
            "group_id": 3,
            "shape_type": "polygon",
            "points": [[x, 5], [x + 8, 5], [x + 8, 15]],
        }
        for x in (5, 25)
    ]
    shapes = [
        *parts,
        {"label": "dog", "shape_type": "rectangle", "points": [[10, 20], [30, 35]]},
        {"label": "dog", "shape_type": "circle", "points": [[40, 30], [40, 36]], "group_id": None},
        {
            "label": "dog",
            "shape_type": "rotation",
            "points": [[10, 20], [20, 10], [30, 20], [20, 30]],
        },
        {"label": "eye", "shape_type": "point", "points": [[4, 4]]},
    ]
    drawn = base64.b64encode(encoded(np.full((6, 9), 255, np.uint8))).decode()
    mask = [{"label": "dog", "shape_type": "mask", "points": [[3, 4], [11, 9]], "mask": drawn}]
    files = {f"photos/{n}.jpg": jpeg(n) for n in (1, 2)}
    for n, some in ((1, shapes), (2, mask)):
        content = head | {"imagePath": f"C:\\data\\{n}.jpg", "shapes": some}
        files[f"photos/{n}.json"] = b"\xef\xbb\xbf" + json.dumps(content).encode()
    return put(tmp_path / "mine", files)


@pytest.mark.parametrize(
    ("changed", "shape"),
    [
        ({"imageHeight": 10**400}, {}),
        ({"imageHeight": 10**7, "imageWidth": 10**7}, {}),
        ({"imageWidth": -1}, {}),
        ({}, {"points": [[10**400, 1], [2, 2], [3, 3]]}),
        ({}, {"points": [[1, 1], [float("nan"), 2], [3, 3]]}),
        ({}, {"points": [[1, 1], [1e9, 2], [3, 3]]}),
        ({}, {"points": [[1, 1], [1e12, 1]], "shape_type": "circle"}),
    ],
)
def test_numbers_beyond_all_images_are_one_message(
    tmp_path: Path, changed: dict[str, Any], shape: dict[str, Any]
) -> None:
    triangle = {"label": "cat", "points": [[1, 1], [5, 1], [5, 5]], "shape_type": "polygon"}
    content = {"imagePath": "1.jpg", "imageHeight": 20, "imageWidth": 20, **changed}
    (tmp_path / "1.json").write_text(json.dumps({**content, "shapes": [{**triangle, **shape}]}))
    with pytest.raises(UserError, match="a malformed file of labelme") as error:
        labelme.convert(tmp_path)
    assert error.value.file == str(tmp_path / "1.json")


@pytest.mark.parametrize("around", [True, False])
def test_a_labelme_folder_becomes_a_coco_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], around: bool
) -> None:
    folder = labelme_folder(tmp_path)
    given = folder if around else folder / "photos"
    assert hqsam(["doctor", "data", str(given)]) == 1
    said = capsys.readouterr().err
    assert "the objects are in 2 files of labelme" in said
    command = said.partition("hqsam data labelme ")[2].partition(";")[0]
    assert hqsam(["data", "labelme", *command.split()]) == 0
    assert (
        "5 objects on 2 images" in (out := capsys.readouterr().out)
        and "1 shapes of type point" in out
    )
    content = json.loads((given / "coco.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["cat", "dog"]
    assert [round(row["area"]) for row in content["annotations"][1:]] == [
        300,
        pytest.approx(113, abs=6),
        200,
        54,
    ]
    assert content["annotations"][4]["bbox"] == [3, 4, 9, 6]
    options = {"kind": "coco_json", "annotations": "coco.json"} | (
        {"images": "photos"} if around else {}
    )
    assert run("own", given, tmp_path / "out", **options)["n_samples"] == 2
    (folder / "photos/1.json").write_text('{"shapes": [{}], "imagePath": "1.jpg"}')
    assert hqsam(["data", "labelme", str(given), str(tmp_path / "x.json")]) == 1
    assert (
        "a malformed file of labelme" in capsys.readouterr().err
        and not (tmp_path / "x.json").exists()
    )


def test_doctor_names_yolo_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "images/1.jpg": jpeg(1),
        "labels/1.txt": b"0 0.1 0.1 0.5 0.1 0.5 0.5\n",
        "notes.txt": b"see 3 below",
    }
    assert hqsam(["doctor", "data", str(put(tmp_path / "mine", files))]) == 1
    assert "1 files of YOLO" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tool", "name", "content"),
    [
        ("VGG Image Annotator", "via.json", {"1.jpg9": {"filename": "1.jpg", "regions": []}}),
        ("Datumaro", "annotations/default.json", {"categories": {}, "items": []}),
        ("Supervisely", "ann/1.jpg.json", {"size": {"height": 40, "width": 52}, "objects": []}),
        ("Label Studio", "tasks.json", [{"id": 1, "data": {"image": "1.jpg"}, "annotations": []}]),
        ("CVAT", "annotations.xml", "<?xml version='1.0'?>\n<annotations>\n"),
    ],
)
def test_doctor_names_the_tool_of_a_file_that_is_not_read(
    tool: str, name: str, content: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    folder = put(tmp_path / "mine", {"img/1.jpg": jpeg(1), name: text.encode()})
    for more in ([], ["--annotations", name]):
        assert hqsam(["doctor", "data", str(folder), *more]) == 1
        assert (
            f"the format of {tool}, which is not read" in (said := capsys.readouterr().err)
            and "as COCO" in said
        )


def test_commands_look_first_at_where_they_are_going_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, taken = coco_folder(tmp_path), tmp_path / "taken"
    taken.write_text("")
    for command in (["doctor", "data", str(folder)], ["data", "show", "key"]):
        assert hqsam([*command, "--json", str(taken / "x.json")]) == 1
        assert "the file cannot be written" in capsys.readouterr().err


def test_doctor_asks_where_things_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = put(tmp_path / "mine", {"a/1.jpg": jpeg(1), "b/1.png": encoded(shape())})
    assert hqsam(["doctor", "data", str(folder)]) == 1
    assert "the folder holds a, b" in capsys.readouterr().err
    assert hqsam(["doctor", "data", str(folder), "--images", "a", "--masks", "b"]) == 0
    assert hqsam(["doctor", "data", str(folder / "nothing")]) == 1
    flat = put(tmp_path / "flat", {"1.jpg": jpeg(1), "1.png": encoded(shape())})
    assert hqsam(["doctor", "data", str(flat)]) == 0


def findings(folder: Path, tmp_path: Path) -> dict[str, tuple[str, list[str]]]:
    hqsam(["doctor", "data", str(folder), "--json", str(tmp_path / "f.json")])
    return {
        f["text"]: (f["level"], f["files"])
        for f in json.loads((tmp_path / "f.json").read_bytes())["findings"]
    }


def test_doctor_pairs_as_the_normalise_stage_does(tmp_path: Path) -> None:
    """Several masks an image, names in two Unicode forms, a folder around everything."""
    files = {
        "my set/images/a.jpg": jpeg(1),
        "my set/masks/a/1.png": encoded(shape()),
        "my set/masks/a/2.png": encoded(shape()[::-1].copy()),
        "my set/images/Vo\u0308gel 2#1.JPG": jpeg(2),  # as macOS writes it
        "my set/masks/V\u00f6gel 2#1.PNG": encoded(shape()),
        "my set/masks/._V\u00f6gel 2#1.PNG": b"junk",
        "__MACOSX/my set/images/._a.jpg": b"junk",
    }
    folder = put(tmp_path / "mine", files)
    found = findings(folder, tmp_path)
    assert found["1 images have several masks: each becomes an instance"] == ("note", ["a"])
    assert found["2 pairs of image and mask with the same name"][0] == "ok"
    usable = (
        "usable as a training source: {kind: folder, archive: NAME, images: my set/images, masks: "
        "my set/masks}"
    )
    assert usable in found and not any(level == "error" for level, _ in found.values())
    result = run(
        "own", folder, tmp_path / "out", kind="folder", images="my set/images", masks="my set/masks"
    )
    assert (result["n_samples"], result["n_rejects"]) == (2, 0)


def test_doctor_names_tiffs_whose_0_is_white(tmp_path: Path) -> None:
    """The same mask, written with either tag; depths that are inverted on reading and one that is not."""
    files = {}
    for name, mode, tag in (("a", "L", 0), ("b", "L", 1), ("c", "1", 0), ("d", "I;16", 0)):
        values = shape().astype(np.uint16) * 257 if mode == "I;16" else shape()
        image = Image.fromarray(values) if mode != "1" else Image.fromarray(values).convert("1")
        image.save(buffer := io.BytesIO(), "TIFF", tiffinfo={262: tag})
        files |= {f"images/{name}.jpg": jpeg(1), f"masks/{name}.tif": buffer.getvalue()}
    found = findings(put(tmp_path / "tiff", files), tmp_path)
    ((text, (level, names)),) = ((t, f) for t, f in found.items() if "MINISWHITE" in t)
    assert (level, names) == ("warning", ["a", "c", "d"])
    assert text.startswith("3 images or masks") and "convert it to PNG" in text


def test_doctor_on_what_people_have_lying_around(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voc = Image.fromarray((shape() // 255 + (shape()[::-1] // 255) * 2).astype(np.uint8), "P")
    voc.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    voc.save(tmp_path / "voc.png")
    files = {
        "JPEGImages/a.jpg": jpeg(1),
        "SegmentationObject/a.png": (tmp_path / "voc.png").read_bytes(),
        "JPEGImages/new.heic": b"x",
    }
    folder = put(tmp_path / "voc", files)
    (folder / "JPEGImages" / "gone.jpg").symlink_to("/nowhere/gone.jpg")
    found = findings(folder, tmp_path)
    assert found["1 links lead nowhere"] == ("error", ["gone.jpg"])
    assert found[
        "1 files have a format that is not read: convert images to JPEG or PNG, masks to PNG"
    ][1] == ["new.heic"]
    labels = (
        "masks hold several labels, here taken for one object: kind label_maps makes an instance "
        "of each"
    )
    assert found[f"1 {labels}"] == ("note", ["a"])
    content = b'{"images": [], "annotations": []}'
    coco = put(tmp_path / "coco", {"train/a.jpg": jpeg(1), "annotations/inst.json": content})
    assert hqsam(["doctor", "data", str(coco)]) == 1
    assert "--annotations annotations/inst.json" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert hqsam(["doctor", "data", str(tmp_path / "empty")]) == 1
    assert "the folder is empty" in capsys.readouterr().err
    colon = put(
        tmp_path / "colon", {"a: b/images/1.jpg": jpeg(1), "a: b/masks/1.png": encoded(shape())}
    )
    assert any('images: "a: b/images"' in text for text in findings(colon, tmp_path))


def test_sheets(capsys: pytest.CaptureFixture[str]) -> None:
    assert hqsam(["data", "sheet"]) == 0
    assert "dis5k" in capsys.readouterr().out
    assert hqsam(["data", "sheet", "fss1000"]) == 0
    out = capsys.readouterr().out
    assert "peregine_falcon/8" in out and "none stated" in out
    assert hqsam(["data", "sheet", "nope"]) == 1


def test_masks_are_drawn_in_colour() -> None:
    from hqsam_datasets.diagnose.drawing import tinted

    image = np.zeros((40, 52, 3), np.uint8)
    drawn = tinted(image, shape(), (255, 0, 0))
    assert (drawn[shape() <= masks.FOREGROUND] == 0).all()
    assert (drawn[10, 13:26] == (255, 0, 0)).all() and drawn[15, 20, 0] == int(255 * 0.45)


def test_the_crop_is_what_the_view_shows(data: Path) -> None:
    """Beside the padding, a view is that part of the image, resized and perhaps mirrored."""
    from hqsam_datasets.diagnose import lookup
    from hqsam_datasets.diagnose.drawing import crop_box
    from hqsam_datasets.prepare.augment import apply_view

    seen = 0
    for key in ("ecssd_0001", "ecssd_0002", "ecssd_0003"):
        found = lookup.find_sample(key, data)
        height, width = found.sample.image.shape[:2]
        for view in found.views:
            x0, y0, x1, y1 = crop_box(view, (height, width))
            assert -1e-6 <= x0 < x1 <= width + 1e-6 and -1e-6 <= y0 < y1 <= height + 1e-6
            shown, _ = apply_view(
                image=found.sample.image, mask=found.sample.instances[0].mask, view=view
            )
            shown = shown[
                : view["jitter"]["crop_h"], : view["jitter"]["crop_w"]
            ]  # below and right of it is padding
            part = found.sample.image[round(y0) : round(y1), round(x0) : round(x1)]
            part = part[:, ::-1] if view["flip"] else part
            expected = np.asarray(
                Image.fromarray(part).resize(shown.shape[1::-1], Image.Resampling.BILINEAR), float
            )
            assert (
                np.abs(expected - shown).mean() < 10 < np.abs(expected - shown[:, ::-1]).mean()
            ), view
            seen += 1
    assert seen == 6


def test_push_and_pull_through_a_folder_url(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = (tmp_path / "store").as_uri()
    for folder in ("shards", "prompts"):
        assert hqsam(["data", "push", str(data / folder), f"{url}/{folder}"]) == 0
        assert hqsam(["data", "pull", f"{url}/{folder}", str(tmp_path / folder)]) == 0
        assert contents(tmp_path / folder) == contents(data / folder)
    assert hqsam(["data", "push", str(data / "shards"), f"{url}/shards"]) == 0
    assert "0 shards sent" in capsys.readouterr().out
    assert hqsam(["data", "pull", f"{url}/nothing", str(tmp_path / "x")]) == 1
    assert "no complete set of shards" in capsys.readouterr().err
