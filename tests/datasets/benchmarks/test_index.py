"""The index stage on the published layouts: counts, contents, other roots, damaged input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_datasets import benchmarks
from hqsam_datasets.benchmarks.base import BenchmarkOptions
from hqsam_datasets.formats.images import decode_image
from hqsam_datasets.formats.manifest import read_rows
from hqsam_datasets.formats.masks import decode_labels, decode_mask
from hqsam_datasets.formats.tar import TarReader
from hqsam_datasets.prepare.index import index
from hqsam_datasets.sample import KEY_PATTERN
from tests.datasets.embedded_tree import indexed, params, tree

SECTIONS = params()["benchmarks"]
NAMES = sorted(SECTIONS)
MASK_SETS = ["big", "coift", "dis_vd", "hrsod", "thinobject5k_test"]


def run(name: str, root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    options = BenchmarkOptions(**{**SECTIONS[name]["index"], **changes})
    return index(name, root=root, out=out, options=options, progress=lambda done, total, what: None)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    """A private copy of an archive's tree, to damage."""

    def make(name: str) -> Path:
        return Path(
            shutil.copytree(
                tree(SECTIONS[name]["archive"]), tmp_path / "tree" / SECTIONS[name]["archive"]
            )
        )

    return make


def one(root: Path, pattern: str) -> Path:
    return sorted(root.rglob(pattern))[0]


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_tars_agree(name: str) -> None:
    folder = indexed(name)
    summary = json.loads((folder / "index.json").read_text())
    images, instances, prompts = (
        read_rows(folder / f"{t}.parquet") for t in ("images", "instances", "prompts")
    )
    assert summary["n_images"] == len(images) == SECTIONS[name]["index"]["expected_images"]
    assert summary["n_instances"] == len(instances)
    assert sum(summary["n_prompts"].values()) == len(prompts)
    sizes = {row["key"]: (row["height"], row["width"]) for row in images}
    assert all(KEY_PATTERN.fullmatch(key) for key in sizes)
    for row in [*instances, *prompts]:
        assert (row["height"], row["width"]) == sizes[row["key"]]
    members = {}
    for shard in {row["shard"] for row in images}:
        with TarReader(folder / shard) as reader:
            members.update({member: reader.read(member) for member in reader.members})
    assert set(members) == {row["member"] for row in images}
    for row in images:
        assert decode_image(members[row["member"]]).shape[:2] == sizes[row["key"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_second_run_writes_the_same_bytes(name: str, tmp_path: Path) -> None:
    run(name, tree(SECTIONS[name]["archive"]), tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(indexed(name))


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    drawn = ("box_noise_0.2", "points_3", "coarse_polygon_2")
    options = BenchmarkOptions(prompt_sets=("gt_box", *drawn))
    what = {
        "root": tree("thin_object_detection"),
        "options": options,
        "progress": lambda done, total, what: None,
    }
    for workers in (1, 2):
        index("hrsod", out=tmp_path / str(workers), workers=workers, **what)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


@pytest.mark.parametrize("name", NAMES)
def test_published_image_bytes_are_kept(name: str) -> None:
    published = {
        p.read_bytes()
        for p in tree(SECTIONS[name]["archive"]).rglob("*")
        if p.suffix in (".jpg", ".png")
    }
    for shard in indexed(name).glob("images-*.tar"):
        with TarReader(shard) as reader:
            assert all(reader.read(member) in published for member in reader.members)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [1, -1])
def test_the_root_folder_does_not_matter(name: str, depth: int, tmp_path: Path) -> None:
    """With one more folder around everything, and with each archive's own root folder taken off."""
    root = tmp_path / "tree"
    source = tree(SECTIONS[name]["archive"])
    if depth > 0:
        shutil.copytree(source, root / "repack" / "v2")
    else:
        for child in sorted(source.iterdir()):
            lone = [child] if child.is_file() else sorted(child.iterdir())
            keep = (
                child.name in ("val2017", "train2017", "uvo_videos_sparse_frames")
                or child.is_file()
            )
            for entry in [child] if keep else lone:
                target = root / entry.name
                shutil.copytree(entry, target) if entry.is_dir() else (
                    root.mkdir(exist_ok=True),
                    shutil.copy(entry, target),
                )
    run(name, root, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(indexed(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_case_of_folders_does_not_matter(
    name: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    """People unpack and pack again; only DAVIS's sequences, whose results are found by name, keep theirs."""
    root = copy(name)
    for folder in sorted((p for p in root.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts)):
        if name != "davis" or (folder.parent.name != "480p" and not list(folder.glob("*.png"))):
            folder.rename(folder.with_name(folder.name.swapcase()))
    run(name, root, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(indexed(name))


@pytest.mark.parametrize("name", MASK_SETS)
def test_ground_truth_boxes_are_the_masks_inclusive_extent(name: str) -> None:
    truths = {row["instance_id"]: row for row in read_rows(indexed(name) / "instances.parquet")}
    boxes = [
        row for row in read_rows(indexed(name) / "prompts.parquet") if row["prompt_set"] == "gt_box"
    ]
    assert {row["instance_id"] for row in boxes} == set(truths)
    for row in boxes:
        truth = truths[row["instance_id"]]
        mask = rle.decode(truth["rle"], height=truth["height"], width=truth["width"])
        ys, xs = np.nonzero(mask)
        assert (row["x0"], row["y0"], row["x1"], row["y1"]) == (
            xs.min(),
            ys.min(),
            xs.max(),
            ys.max(),
        )
        assert truth["area"] == mask.sum()


def test_soft_masks_are_cut_above_128() -> None:
    root = tree("dis5k")
    rows = {row["key"]: row for row in read_rows(indexed("dis_vd") / "instances.parquet")}
    for path in sorted((root / "DIS5K" / "DIS-VD" / "gt").iterdir()):
        values = decode_mask(path.read_bytes()).mask
        assert ((values > 0) & (values < 255)).sum() > 0
        (row,) = [r for key, r in rows.items() if key.endswith(path.stem.split("#")[-1].lower())]
        assert np.array_equal(
            rle.decode(row["rle"], height=row["height"], width=row["width"]), values > 128
        )


def test_big_has_a_coarse_mask_for_every_object() -> None:
    rows = [
        r for r in read_rows(indexed("big") / "prompts.parquet") if r["prompt_set"] == "coarse_mask"
    ]
    assert len(rows) == 8
    for row in rows:
        assert (row["kind"], row["x0"], row["instance_id"]) == ("mask", None, row["key"])
        path = one(tree("big"), f"{row['key'].removeprefix('big_')}_seg.png")
        rough = rle.decode(row["rle"], height=row["height"], width=row["width"])
        assert np.array_equal(rough, decode_mask(path.read_bytes()).foreground)


def test_big_takes_pspnet_where_several_networks_are_there(
    copy: Callable[[str], Path], tmp_path: Path
) -> None:
    root = copy("big")
    other = root / "BIG_coarse" / "deeplab"
    shutil.copytree(root / "BIG_coarse" / "pspnet", other)
    for path in other.glob("*_seg.png"):
        shutil.copy(one(root, f"test/{path.name.replace('_seg', '_gt')}"), path)
    run("big", root, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(indexed("big"))


@pytest.mark.parametrize(("name", "file"), [("coco", "coco"), ("lvis", "lvis"), ("uvo", "uvo")])
def test_detector_boxes_keep_order_class_and_score(name: str, file: str) -> None:
    published = json.loads(one(tree(name), f"{file}_instances_results.json").read_text())
    images = {row["key"]: row["image_id"] for row in read_rows(indexed(name) / "images.parquet")}
    found: dict[int, list[Any]] = {}
    for row in read_rows(indexed(name) / "prompts.parquet"):
        box = [row["x0"], row["y0"], row["x1"] - row["x0"], row["y1"] - row["y0"]]
        found.setdefault(images[row["key"]], []).append((row["category_id"], box, row["score"]))
    for image_id in images.values():
        mine = [r for r in published if r["image_id"] == image_id]
        wanted = [(r["category_id"], pytest.approx(r["bbox"], abs=1e-9), r["score"]) for r in mine]
        assert found.get(image_id, []) == wanted


@pytest.mark.parametrize("name", ["coco", "lvis", "uvo", "hq_ytvis"])
def test_gt_json_is_the_published_annotation_file_in_one_form(name: str) -> None:
    """Masks in compressed run-length codes, the rest as published."""
    pattern = {
        "coco": "instances_val2017.json",
        "lvis": "lvis_v1_val.json",
        "uvo": "UVO_frame_val.json",
    }
    published = one(tree(SECTIONS[name]["archive"]), pattern.get(name, "ytvis_hq-test.json"))
    got, want = (json.loads(path.read_bytes()) for path in (indexed(name) / "gt.json", published))
    masks = ("segmentation", "segmentations")
    for mine, theirs in zip(got.pop("annotations"), want.pop("annotations"), strict=True):
        plain = {key: value for key, value in mine.items() if key not in masks}
        assert plain == {"iscrowd": 0} | {
            key: value for key, value in theirs.items() if key not in masks
        }
        (codes, drawn) = (
            [row.get("segmentation")] if "segmentation" in row else row["segmentations"]
            for row in (mine, theirs)
        )
        for code, shape in zip(codes, drawn, strict=True):
            assert (code is None) == (shape is None)
            if code is not None:
                assert isinstance(code["counts"], str)
                assert code["counts"] == rle.from_segmentation(
                    shape, height=code["size"][0], width=code["size"][1]
                )
    assert got == want


def test_crowds_and_areas_of_coco() -> None:
    published = json.loads(one(tree("coco"), "instances_val2017.json").read_text())["annotations"]
    rows = {row["instance_id"]: row for row in read_rows(indexed("coco") / "instances.parquet")}
    assert set(rows) == {str(a["id"]) for a in published}
    for annotation in published:
        row = rows[str(annotation["id"])]
        assert (row["iscrowd"], row["category_id"], row["area"]) == (
            annotation["iscrowd"],
            annotation["category_id"],
            annotation["area"],
        )


def test_lvis_images_come_from_both_coco_folders() -> None:
    truth = json.loads((indexed("lvis") / "gt.json").read_text())
    rows = {row["image_id"]: row for row in read_rows(indexed("lvis") / "images.parquet")}
    with TarReader(indexed("lvis") / "images-00000.tar") as reader:
        for image in truth["images"]:
            path = tree("lvis") / "/".join(image["coco_url"].split("/")[-2:])
            assert reader.read(rows[image["id"]]["member"]) == path.read_bytes()


def test_video_columns() -> None:
    for name, n_videos in (("hq_ytvis", 4), ("davis", 3)):
        rows = read_rows(indexed(name) / "images.parquet")
        assert (
            len({row["video"] for row in rows})
            == len({row["video_id"] for row in rows})
            == n_videos
        )
        for video in {row["video"] for row in rows}:
            assert [row["frame"] for row in rows if row["video"] == video] == list(range(8))
    assert len({row["video"] for row in read_rows(indexed("uvo") / "images.parquet")}) == 6
    assert {row["video"] for row in read_rows(indexed("coco") / "images.parquet")} == {None}


def test_davis_rows_follow_the_label_images() -> None:
    images = {row["key"]: row for row in read_rows(indexed("davis") / "images.parquet")}
    instances = read_rows(indexed("davis") / "instances.parquet")
    prompts = read_rows(indexed("davis") / "prompts.parquet")
    for key, image in images.items():
        stem = f"{image['video']}/{image['frame']:05d}.png"
        labels = decode_labels(one(tree("davis"), f"Annotations/480p/{stem}").read_bytes())
        tracked = decode_labels(one(tree("davis"), f"xmem_results/{stem}").read_bytes())
        mine = {row["track_id"]: row for row in instances if row["key"] == key}
        assert set(mine) == set(np.unique(labels).tolist()) - {0, 255}
        for number, row in mine.items():
            mask = rle.decode(row["rle"], height=row["height"], width=row["width"])
            assert np.array_equal(mask, labels == number)
        boxes = {
            row["track_id"]: (row["x0"], row["y0"], row["x1"], row["y1"])
            for row in prompts
            if row["key"] == key
        }
        assert boxes == {
            n: rle.tight_box(tracked == n) for n in set(np.unique(tracked).tolist()) - {0}
        }


def test_ytvis_boxes_follow_the_tracks() -> None:
    results = json.loads(one(tree("hq_ytvis"), "mask2former_results.json").read_text())
    images = {row["key"]: row for row in read_rows(indexed("hq_ytvis") / "images.parquet")}
    found = {}
    for row in read_rows(indexed("hq_ytvis") / "prompts.parquet"):
        image = images[row["key"]]
        found[image["video_id"], row["track_id"], image["frame"]] = row
    wanted = 0
    for video in {image["video_id"] for image in images.values()}:
        for track, result in enumerate(r for r in results if r["video_id"] == video):
            for frame, mask in enumerate(result["segmentations"]):
                height, width = mask["size"]
                box = rle.tight_box(rle.decode(mask["counts"], height=height, width=width))
                row = found.get((video, track, frame))
                assert (row is None) == (box is None)
                if row is not None:
                    wanted += 1
                    assert (row["x0"], row["y0"], row["x1"], row["y1"]) == box
                    assert (row["score"], row["category_id"]) == (
                        result["score"],
                        result["category_id"],
                    )
    assert wanted == len(found)


def test_an_image_turned_without_its_mask_is_stored_as_the_mask_has_it(
    copy: Callable[[str], Path], tmp_path: Path
) -> None:
    """HRSOD's photographs may carry a tag that the masks ignore: the pixels as stored are then the right ones."""
    from PIL import Image

    root = copy("hrsod")
    turned = [
        p
        for p in sorted(root.rglob("HRSOD/images/*.jpg"))
        if Image.open(p).getexif().get(0x0112, 1) == 6
    ]
    mask_path = Path(str(turned[0]).replace("images", "masks_max255")).with_suffix(".png")
    stored = np.rot90(decode_mask(mask_path.read_bytes()).mask)
    Image.fromarray(np.ascontiguousarray(stored)).save(mask_path)
    run("hrsod", root, tmp_path / "out")
    (row,) = [
        r for r in read_rows(tmp_path / "out" / "images.parquet") if r["member"].endswith(".png")
    ]
    assert (row["height"], row["width"]) == stored.shape
    with TarReader(tmp_path / "out" / row["shard"]) as reader:
        data = reader.read(row["member"])
    assert np.array_equal(
        decode_image(data), decode_image(turned[0].read_bytes(), apply_exif=False)
    )


def test_unknown_benchmark_lists_what_exists() -> None:
    with pytest.raises(UserError, match="coift") as error:
        benchmarks.load("results")
    assert error.value.key == "benchmarks.results"


def lose(root: Path, pattern: str) -> None:
    one(root, pattern).unlink()


def cut(root: Path, pattern: str) -> None:
    path = one(root, pattern)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_mask(root: Path, source: str, target: str) -> None:
    shutil.copy(one(root, f"COIFT/masks/{source}"), one(root, f"COIFT/masks/{target}"))


def edit(root: Path, pattern: str, change: Callable[[Any], Any]) -> None:
    path = one(root, pattern)
    value = json.loads(path.read_text())
    path.write_text(json.dumps(change(value) or value))


def foreign_detection(rows: list[Any]) -> None:
    rows.append({**rows[0], "image_id": 999_999_999})


def wrong_size(truth: dict[str, Any]) -> None:
    truth["images"][0]["height"] += 1


def no_segmentation(truth: dict[str, Any]) -> None:
    del truth["annotations"][0]["segmentation"]


def double_annotation(truth: dict[str, Any]) -> None:
    truth["annotations"].append(dict(truth["annotations"][0]))


def double_image(truth: dict[str, Any]) -> None:
    truth["images"].append(dict(truth["images"][0]))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("coift", lambda r: lose(r, "COIFT/masks/bird01.png"), "bird01.jpg has no bird01.png"),
        ("coift", lambda r: lose(r, "COIFT/images/bird01.jpg"), "bird01.png has no bird01.jpg"),
        ("coift", lambda r: shutil.rmtree(one(r, "COIFT")), "COIFT/images"),
        ("coift", lambda r: cut(r, "COIFT/images/bird02.jpg"), "bird02"),
        ("coift", lambda r: cut(r, "COIFT/masks/bird02.png"), "bird02"),
        ("coift", lambda r: other_mask(r, "bird02.png", "bird03.png"), "coift_bird03"),
        ("big", lambda r: lose(r, "pspnet/*_seg.png"), "has no coarse mask"),
        ("coco", lambda r: lose(r, "val2017/*.jpg"), "does not exist"),
        ("coco", lambda r: cut(r, "instances_val2017.json"), "not valid JSON"),
        ("coco", lambda r: cut(r, "coco_instances_results.json"), "coco_instances_results.json"),
        ("coco", lambda r: edit(r, "coco_instances_results.json", foreign_detection), "999999999"),
        ("coco", lambda r: edit(r, "instances_val2017.json", wrong_size), "its ground truth"),
        ("coco", lambda r: edit(r, "instances_val2017.json", no_segmentation), "segmentation"),
        (
            "coco",
            lambda r: edit(r, "instances_val2017.json", double_annotation),
            "two entries of annotations have the same id",
        ),
        ("coco", lambda r: edit(r, "instances_val2017.json", double_image), "same key"),
        ("lvis", lambda r: shutil.rmtree(one(r, "train2017")), "train2017"),
        (
            "uvo",
            lambda r: edit(r, "uvo_instances_results.json", lambda rows: {"results": rows}),
            "not a list",
        ),
        ("hq_ytvis", lambda r: cut(r, "mask2former_results.json"), "not valid JSON"),
        ("hq_ytvis", lambda r: shutil.rmtree(one(r, "JPEGImages")), "JPEGImages"),
        ("davis", lambda r: lose(r, "xmem_results/*/00003.png"), "00003.png"),
        ("davis", lambda r: lose(r, "Annotations/480p/dogs-jump/00003.png"), "00003.png"),
        ("davis", lambda r: lose(r, "ImageSets/2017/val.txt"), "val.txt"),
    ],
)
def test_damage_is_named_and_nothing_is_written(
    name: str,
    damage: Callable[[Path], None],
    message: str,
    copy: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    root = copy(name)
    damage(root)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError) as error:
        run(name, root, tmp_path / "out" / name)
    assert message in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_another_number_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 12 images, expected 11") as error:
        run("coift", tree("thin_object_detection"), tmp_path / "out", expected_images=11)
    assert error.value.key == "benchmarks.coift.index.expected_images"


def test_a_prompt_set_that_the_benchmark_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="coift cannot have the prompts tracker_box"):
        run(
            "coift",
            tree("thin_object_detection"),
            tmp_path / "out",
            prompt_sets=["gt_box", "tracker_box"],
        )


def test_shards_hold_at_most_the_given_number(tmp_path: Path) -> None:
    run("coift", tree("thin_object_detection"), tmp_path / "out", images_per_shard=5)
    assert [p.name for p in sorted((tmp_path / "out").glob("*.tar"))] == [
        f"images-{k:05d}.tar" for k in range(3)
    ]
    counts = [row["shard"] for row in read_rows(tmp_path / "out" / "images.parquet")]
    assert [counts.count(f"images-{k:05d}.tar") for k in range(3)] == [5, 5, 2]
