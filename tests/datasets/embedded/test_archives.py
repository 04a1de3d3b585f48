"""The embedded archives have the published layouts, quirks included, and the same bytes in every process."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_datasets.embedded import archives, evaluation, hq_ytvis, names, uvo
from hqsam_datasets.embedded.families import EVAL_FAMILIES, EVERYDAY_FAMILIES, TRAIN_FAMILIES
from hqsam_datasets.formats.image_files import ImageError
from hqsam_datasets.formats.images import decode_image
from hqsam_datasets.formats.masks import decode_mask
from tests import FULL, REPOSITORY
from tests.datasets.embedded_tree import fetched, params


def unzip(archive: str, name: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(fetched(archive) / name)


def members(archive: str, name: str) -> list[str]:
    return [n for n in unzip(archive, name).namelist() if not n.endswith("/")]


def load(archive: str, name: str) -> object:
    return json.loads((fetched(archive) / name).read_bytes())


def mode(data: bytes) -> str:
    return Image.open(io.BytesIO(data)).mode


def test_every_embedded_url_of_the_sample_and_its_ablations_can_be_written() -> None:
    overlay = yaml.safe_load((REPOSITORY / "configs" / "ablations" / "_sample.yaml").read_text())[
        "archives"
    ]
    wanted = {
        url.removeprefix("embedded://")
        for archive in [*params()["archives"].values(), *filter(None, overlay.values())]
        for file in archive["files"]
        for url in file["urls"]
        if url.startswith("embedded://")
    }
    assert wanted == {
        f"{archive}/{file}" for archive in archives.names() for file in archives.files(archive)
    }


@pytest.mark.parametrize(
    ("archive", "file"), [("dis6k", "DIS5K.zip"), ("dis5k", "DIS6K.zip"), ("scenes", "x")]
)
def test_unknown_archive_or_file_is_named_with_what_exists(
    archive: str, file: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="use one of") as error:
        archives.write(archive, file, tmp_path / "out.zip")
    assert error.value.key is not None
    assert list(tmp_path.iterdir()) == []


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    chosen = [
        "coco",
        "dis5k",
        "davis",
        "big",
    ]  # photographs with annotations, pairs, a video, large pictures
    chosen += ["hq_ytvis", "lvis", "uvo"] if FULL else []
    code = (
        "import sys; from pathlib import Path; from hqsam_datasets.embedded import archives\n"
        f"for a in {chosen[::-1]!r}:\n"
        "  for f in archives.files(a)[::-1]: archives.write(a, f, Path(sys.argv[1]) / a / f)"
    )
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
        "PYTHONPATH": str(REPOSITORY / "datasets"),
    }
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    for archive in chosen:
        for file in archives.files(archive):
            here, there = (
                (base / archive / file).read_bytes() for base in (fetched(archive).parent, tmp_path)
            )
            assert hashlib.sha256(here).hexdigest() == hashlib.sha256(there).hexdigest(), (
                f"{archive}/{file}"
            )


def test_training_and_evaluation_families_are_disjoint() -> None:
    assert not set(TRAIN_FAMILIES) & {*EVAL_FAMILIES, *EVERYDAY_FAMILIES}
    assert {*evaluation.COCO_FAMILIES, *evaluation.OPEN_WORLD_FAMILIES} <= {
        *EVAL_FAMILIES,
        *EVERYDAY_FAMILIES,
    }


def test_detection_sets_show_solid_things_for_the_larger_part() -> None:
    """As the real ones do: two thirds of the kinds, more than half of the objects, none of a training family."""
    pictures = {
        evaluation.COCO_FAMILIES: [photo.scene() for photo in evaluation.coco_val()],
        evaluation.OPEN_WORLD_FAMILIES: [
            *(photo.scene() for photo in evaluation.lvis_train()),
            *(clip.scenes()[0] for clip in uvo._clips()),
        ],
        tuple(hq_ytvis._CATEGORIES): [clip.scenes()[0] for clip in hq_ytvis._clips()],
    }
    for families, scenes in pictures.items():
        shown = [o.family for scene in scenes for o in scene.objects]
        assert set(shown) <= set(families)
        assert np.mean([family in EVERYDAY_FAMILIES for family in families]) == pytest.approx(
            2 / 3, abs=0.05
        )
        assert np.mean([family in EVERYDAY_FAMILIES for family in shown]) > 0.5
        assert set(shown) & set(EVAL_FAMILIES), "thin things too"
        assert not set(shown) & set(TRAIN_FAMILIES)


def test_dis5k_layout() -> None:
    found = members("dis5k", "DIS5K.zip")
    folders = Counter("/".join(n.split("/")[:-1]) for n in found)
    assert folders == {
        "DIS5K": 1,
        "DIS5K/DIS-TR/im": 60,
        "DIS5K/DIS-TR/gt": 60,
        "DIS5K/DIS-VD/im": 16,
        "DIS5K/DIS-VD/gt": 16,
    }
    stems = {n.rsplit("/", 1)[1].rsplit(".", 1)[0] for n in found if "/im/" in n}
    assert all(s.count("#") == 4 and s.endswith("_o") for s in stems)


def test_dis5k_masks_are_soft_and_fit_the_upright_image() -> None:
    archive = unzip("dis5k", "DIS5K.zip")
    turned = 0
    for name in members("dis5k", "DIS5K.zip"):
        if "/im/" in name:
            data = archive.read(name)
            mask = decode_mask(archive.read(name.replace("/im/", "/gt/").replace(".jpg", ".png")))
            assert mask.encoding == "soft"
            assert decode_image(data).shape[:2] == mask.mask.shape
            turned += Image.open(io.BytesIO(data)).getexif().get(0x0112, 1) != 1
    assert turned == 3


def test_thin_object_layout() -> None:
    folders = Counter(
        n.rsplit("/", 1)[0] for n in members("thin_object_detection", "thin_object_detection.zip")
    )
    assert folders == {
        "COIFT/images": 12,
        "COIFT/masks": 12,
        "HRSOD/images": 12,
        "HRSOD/masks_max255": 12,
        "ThinObject5K/images_test": 16,
        "ThinObject5K/masks_test": 16,
        "ThinObject5K/images_train": 70,
        "ThinObject5K/masks_train": 70,
    }


@pytest.mark.parametrize(
    ("folder", "encoding"),
    [
        ("COIFT/masks/", "0/255"),
        ("HRSOD/masks_max255/", "0/255"),
        ("ThinObject5K/masks_test/", "soft"),
    ],
)
def test_thin_object_mask_values(folder: str, encoding: str) -> None:
    archive = unzip("thin_object_detection", "thin_object_detection.zip")
    found = {
        decode_mask(archive.read(n)).encoding for n in archive.namelist() if n.startswith(folder)
    }
    assert found == {encoding}


def test_one_hrsod_photograph_is_stored_turned() -> None:
    archive = unzip("thin_object_detection", "thin_object_detection.zip")
    turned = []
    for name in archive.namelist():
        if name.startswith("HRSOD/images/"):
            data = archive.read(name)
            mask = decode_mask(
                archive.read(name.replace("images", "masks_max255").replace(".jpg", ".png"))
            ).mask
            assert decode_image(data).shape[:2] == mask.shape
            if decode_image(data, apply_exif=False).shape[:2] != mask.shape:
                turned.append(name)
    assert len(turned) == 1


def test_cascade_psp_layout() -> None:
    folders = Counter(
        (n.split("/")[0], n.rsplit(".", 1)[1]) for n in members("cascade_psp", "cascade_psp.zip")
    )
    counts = names.TRAINING_COUNTS
    assert folders == {
        ("DUTS-TR", "jpg"): 48,
        ("DUTS-TR", "png"): 48,
        ("DUTS-TE", "jpg"): 22,
        ("DUTS-TE", "png"): 22,
        ("ecssd", "jpg"): counts["ecssd"],
        ("ecssd", "png"): counts["ecssd"],
        ("MSRA_10K", "jpg"): counts["msra10k"] + 1,
        ("MSRA_10K", "png"): counts["msra10k"] + 1,
        ("fss_all", "jpg"): counts["fss1000"] + 8,
        ("fss_all", "png"): counts["fss1000"] + 8,
        ("fss_all", "jpeg"): 6,
    }


def test_cascade_psp_known_bad_files() -> None:
    archive = unzip("cascade_psp", "cascade_psp.zip")
    with pytest.raises(ImageError) as error:
        decode_mask(archive.read("fss_all/peregine_falcon_8.png"))
    assert error.value.reason == "not_a_mask"
    assert not np.asarray(Image.open(io.BytesIO(archive.read("fss_all/bamboo_slip_7.png")))).any()
    for (name, number), (width, height) in names.FSS_ODD_MASKS.items():
        mask = decode_mask(archive.read(f"fss_all/{name}_{number}.png")).mask
        assert mask.shape == (height, width)
    assert "MSRA_10K/97915.jpg" in archive.namelist()


def test_cascade_psp_encodings() -> None:
    archive = unzip("cascade_psp", "cascade_psp.zip")
    fss = {
        n: mode(archive.read(n))
        for n in archive.namelist()
        if n.startswith("fss_all/") and n.endswith(".png")
    }
    assert set(fss.values()) == {"RGB", "RGBA"}
    assert any("'" in n for n in fss)
    msra = Counter(
        decode_mask(archive.read(n)).encoding
        for n in archive.namelist()
        if n.startswith("MSRA") and n.endswith("png")
    )
    assert msra == {"0/255": 60, "0/1": 1}
    modes = Counter(
        mode(archive.read(n))
        for n in archive.namelist()
        if n.startswith(("DUTS", "ecssd")) and n.endswith("jpg")
    )
    assert modes["L"] == 3
    assert modes["CMYK"] == 1


def coco_truth(tmp_path: Path) -> COCO:
    path = tmp_path / "instances_val2017.json"
    path.write_bytes(
        unzip("coco", "annotations_trainval2017.zip").read("annotations/instances_val2017.json")
    )
    return COCO(path)


def test_coco_annotations_are_read_by_pycocotools_and_fit_the_scenes(tmp_path: Path) -> None:
    truth = coco_truth(tmp_path)
    photos = {int(p.name): p for p in evaluation.coco_val()}
    assert sorted(truth.imgs) == sorted(photos)
    assert set(members("coco", "val2017.zip")) == {
        f"val2017/{i['file_name']}" for i in truth.imgs.values()
    }
    assert len(truth.cats) == 80
    assert max(truth.cats) == 90
    for annotation in truth.anns.values():
        photo = photos[annotation["image_id"]]
        drawn = truth.annToMask(annotation).astype(bool)
        assert annotation["area"] == drawn.sum()
        scene = photo.scene()
        if annotation["iscrowd"]:
            assert isinstance(annotation["segmentation"]["counts"], list)
            continue
        shares = [
            np.logical_and(drawn, o.alpha > 0.5).sum() / np.logical_or(drawn, o.alpha > 0.5).sum()
            for o in scene.objects
        ]
        assert max(shares) > 0.85, (photo.name, annotation["id"])
    assert sum(a["iscrowd"] for a in truth.anns.values()) == 2


def test_coco_has_a_grey_photograph_and_sparse_ids(tmp_path: Path) -> None:
    archive = unzip("coco", "val2017.zip")
    assert Counter(mode(archive.read(n)) for n in members("coco", "val2017.zip")) == {
        "RGB": 19,
        "L": 1,
    }
    ids = [a["id"] for a in coco_truth(tmp_path).anns.values()]
    assert len(set(ids)) == len(ids)
    assert max(ids) > 100 * len(ids)


def test_detector_results_load_into_pycocotools(tmp_path: Path) -> None:
    truth = coco_truth(tmp_path)
    results = load("coco", "coco_instances_results.json")
    assert isinstance(results, list)
    assert set(results[0]) == {"image_id", "category_id", "bbox", "score"}
    loaded = truth.loadRes(results)
    hits = 0
    for annotation in truth.anns.values():
        if not annotation["iscrowd"]:
            mine = [
                d
                for d in loaded.anns.values()
                if d["image_id"] == annotation["image_id"]
                and d["category_id"] == annotation["category_id"]
            ]
            hits += any(box_iou(d["bbox"], annotation["bbox"]) > 0.7 for d in mine)
    wanted = sum(not a["iscrowd"] for a in truth.anns.values())
    assert 0.75 * wanted < hits < len(results)


def box_iou(a: list[float], b: list[float]) -> float:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(0.0, w) * max(0.0, h)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def test_lvis_layout() -> None:
    truth = json.loads(unzip("lvis", "lvis_v1_val.json.zip").read("lvis_v1_val.json"))
    files = {*members("lvis", "val2017.zip"), *members("lvis", "train2017.zip")}
    wanted = {"/".join(i["coco_url"].split("/")[-2:]) for i in truth["images"]}
    assert len(truth["images"]) == 18
    assert wanted < files
    assert not any("file_name" in i for i in truth["images"])
    assert {w.split("/")[0] for w in wanted} == {"val2017", "train2017"}
    assert {c["frequency"] for c in truth["categories"]} == {"r", "c", "f"}
    assert any(i["not_exhaustive_category_ids"] for i in truth["images"])
    shown = {
        i["id"]: {a["category_id"] for a in truth["annotations"] if a["image_id"] == i["id"]}
        for i in truth["images"]
    }
    for image in truth["images"]:
        assert image["neg_category_ids"]
        assert not shown[image["id"]] & set(image["neg_category_ids"])
        assert set(image["not_exhaustive_category_ids"]) <= shown[image["id"]]
    known = {c["id"] for c in truth["categories"]}
    assert {r["category_id"] for r in load("lvis", "lvis_instances_results.json")} <= known  # type: ignore[attr-defined]


def test_lvis_val2017_is_coco_s() -> None:
    assert (fetched("lvis") / "val2017.zip").read_bytes() == (
        fetched("coco") / "val2017.zip"
    ).read_bytes()


def test_uvo_layout() -> None:
    truth = load("uvo", "UVO_frame_val.json")
    assert isinstance(truth, dict)
    assert [c["name"] for c in truth["categories"]] == ["object"]
    files = {f"uvo_videos_sparse_frames/{i['file_name']}" for i in truth["images"]}
    assert files == set(members("uvo", "uvo_videos_sparse_frames.zip"))
    assert Counter(i["file_name"].split("/")[0] for i in truth["images"]).most_common(1)[0][1] == 3
    assert all(isinstance(a["segmentation"]["counts"], str) for a in truth["annotations"])


def test_big_layout() -> None:
    found = members("big", "BIG.zip")
    test = sorted(n for n in found if n.startswith("BIG/test/") and n.endswith("_gt.png"))
    assert len(test) == 8
    assert any(n.startswith("BIG/val/") for n in found)
    photos = Counter(unzip("big", "BIG.zip").read(n.replace("_gt.png", "_im.jpg")) for n in test)
    assert sorted(photos.values()) == [1, 1, 1, 1, 2, 2]
    coarse = unzip("big", "BIG_coarse.zip")
    for name in test:
        exact = decode_mask(unzip("big", "BIG.zip").read(name))
        stem = name.rsplit("/", 1)[1].removesuffix("_gt.png")
        rough = decode_mask(coarse.read(f"pspnet/{stem}_seg.png"))
        assert exact.encoding == rough.encoding == "0/255"
        both = np.logical_and(exact.foreground, rough.foreground).sum()
        iou = both / np.logical_or(exact.foreground, rough.foreground).sum()
        assert 0.15 < iou < 0.95, name


def test_hq_ytvis_layout() -> None:
    truth = load("hq_ytvis", "ytvis_hq-test.json")
    assert isinstance(truth, dict)
    files = set(members("hq_ytvis", "train_all_frames.zip"))
    named = {f"train_all_frames/JPEGImages/{n}" for v in truth["videos"] for n in v["file_names"]}
    assert named < files
    assert len(named) == 32
    videos = {v["id"]: v for v in truth["videos"]}
    nulls = 0
    for tube in truth["annotations"]:
        video = videos[tube["video_id"]]
        assert (
            len(tube["segmentations"])
            == len(tube["areas"])
            == len(tube["bboxes"])
            == video["length"]
        )
        for mask, area in zip(tube["segmentations"], tube["areas"], strict=True):
            nulls += mask is None
            if mask is not None:
                assert isinstance(mask["counts"], list)
                counts = rle.from_segmentation(mask, height=video["height"], width=video["width"])
                assert rle.area(counts, height=video["height"], width=video["width"]) == area
    assert nulls > 0
    results = load("hq_ytvis", "mask2former_results.json")
    assert isinstance(results, list)
    assert {r["video_id"] for r in results} == set(videos)
    assert all(len(r["segmentations"]) == videos[r["video_id"]]["length"] for r in results)


def test_davis_layout() -> None:
    archive = unzip("davis", "DAVIS-2017-trainval-480p.zip")
    sequences = archive.read("DAVIS/ImageSets/2017/val.txt").decode().split()
    assert len(sequences) == 3
    results = unzip("davis", "xmem_results.zip")
    void = 0
    for sequence in sequences:
        for frame in range(8):
            picture = Image.open(
                io.BytesIO(archive.read(f"DAVIS/Annotations/480p/{sequence}/{frame:05d}.png"))
            )
            tracked = Image.open(io.BytesIO(results.read(f"{sequence}/{frame:05d}.png")))
            assert picture.mode == tracked.mode == "P"
            assert picture.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # type: ignore[index]
            void += 255 in np.asarray(picture)
            if frame == 0:
                assert np.array_equal(np.asarray(picture), np.asarray(tracked))
    assert void == 1
