"""Random sets, scored by this package, by the official programs, and by their definitions written down plainly.

A dozen sets of each by default, 2,000 with `make test-all`. Among them are the kinds of file on
which readers go wrong: annotations marked `ignore`, crowds in LVIS, detections with a box and no
pixel, label pictures of every depth, lists that name a sequence twice or with spaces, frames whose
names share a stem, refined tubes, ids that are texts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hqsam_base.errors import UserError
from hqsam_base.rle import encode_rle
from hqsam_metrics.reference import coco_reference, lvis_reference
from hqsam_metrics.scores.coco import score_coco_files
from hqsam_metrics.scores.davis import score_davis_folders
from hqsam_metrics.scores.lvis import score_lvis_files
from hqsam_metrics.scores.ytvis import score_ytvis_files
from tests import FULL
from tests.metrics import definitions as plain
from tests.metrics.synthetic import detections, label_png, random_masks

BLOCKS, BLOCK = (20, 100) if FULL else (1, 12)
blocks = pytest.mark.parametrize("block", range(BLOCKS))
Json = dict[str, Any]
COCO_LIMITS = {"1": 1, "10": 10, "100": 100, "s": 100, "m": 100, "l": 100}


def seeds(block: int):
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        yield seed, np.random.default_rng([17, seed])


def marked(rng: np.random.Generator, truth: Json, rows: list[Json]) -> None:
    """Marks some annotations `ignore` and gives the detections boxes, some without a side, some around nothing."""
    for row in truth["annotations"]:
        if rng.random() < 0.2:
            row["ignore"] = int(rng.random() < 0.7)
        row["area"] = float(rng.choice([row["area"], row["area"], row["area"], 1024.0, 9216.0]))
    for row in rows:
        sides = rng.choice([0.0, 5.0, 32.0, 40.5, 96.0, 120.0], 2).tolist()
        row["bbox"] = [1.0, 2.0, *sides]
        if rng.random() < 0.1:
            row["segmentation"] = encode_rle(np.zeros(row["segmentation"]["size"], bool))


def federated(rng: np.random.Generator) -> tuple[Json, list[Json]]:
    """A random LVIS set: negative and not exhaustive categories, all three frequencies, crowds, annotations without area."""
    truth, rows = detections(rng, images=5, categories=4)
    marked(rng, truth, rows)
    ids = [category["id"] for category in truth["categories"]]
    for image in truth["images"]:
        there = {
            row["category_id"] for row in truth["annotations"] if row["image_id"] == image["id"]
        }
        image["neg_category_ids"] = [i for i in ids if i not in there and rng.random() < 0.5]
        image["not_exhaustive_category_ids"] = [i for i in there if rng.random() < 0.3]
    for category, letter in zip(truth["categories"], "rcff", strict=True):
        category |= {"frequency": letter, "image_count": 1, "instance_count": 1}
    for row in truth["annotations"]:
        row["bbox"] = [0, 0, 1, 1]
        row["area"] = 0.0 if rng.random() < 0.1 else row["area"]
        row["iscrowd"] = int(rng.random() < 0.4)
        again = {key: row[key] for key in ("image_id", "category_id", "segmentation", "bbox")}
        rows += [again | {"score": 1.0}] * (2 * row["iscrowd"])  # a crowd may be matched often
    return truth, rows


def written(folder: Path, truth: Json, rows: list[Json]) -> dict[str, Path]:
    files = {"gt": folder / "gt.json", "pred": folder / "dt.json"}
    files["gt"].write_text(json.dumps(truth))
    files["pred"].write_text(json.dumps(rows))
    return files


def same(function: Any, want: Json, where: Any, **arguments: Any) -> None:
    """The evaluator gives the wanted numbers; where nothing counts, it says so."""
    if all(value in (None, -1) for name, value in want.items() if name.startswith("AP")):
        with pytest.raises(UserError, match=r"no object that counts|no annotations"):
            function(**arguments)
        return
    got = function(**arguments).metrics
    for name, value in want.items():
        assert (-1 if got[name] is None else got[name]) == pytest.approx(
            -1 if value is None else value, abs=1e-9
        ), (
            where,
            name,
        )


def things(
    truth: Json, rows: list[Json], boxed: bool, *, boundary: bool
) -> tuple[dict[Any, plain.Thing], list[plain.Thing]]:
    """Annotations and detections as the definitions take them."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    gt = {
        row["id"]: plain.Thing(
            [plain.decode(row["segmentation"], *sizes[row["image_id"]])],
            row["area"],
            ignore=bool(row.get("iscrowd")) or bool(row.get("ignore")),
            crowd=bool(row.get("iscrowd")),
        )
        for row in truth["annotations"]
    }
    dt = []
    for row in rows:
        mask = plain.decode(row["segmentation"], *sizes[row["image_id"]])
        area = row["bbox"][2] * row["bbox"][3] if boxed else float(mask.sum())
        dt.append(plain.Thing([mask], area, row["score"]))
    return gt, dt


def coco_boundary(truth: Json, rows: list[Json], *, boxed: bool, agnostic: bool) -> Json:
    gt, dt = things(truth, rows, boxed, boundary=True)
    groups = []
    for image in sorted(image["id"] for image in truth["images"]):
        mine = [row for row in truth["annotations"] if row["image_id"] == image]
        found = [
            (row, thing) for row, thing in zip(rows, dt, strict=True) if row["image_id"] == image
        ]
        ids = sorted(category["id"] for category in truth["categories"])
        some = [
            plain.Group(
                c,
                [t for r, t in found if r["category_id"] == c],
                [gt[r["id"]] for r in mine if r["category_id"] == c],
            )
            for c in ids
        ]
        if agnostic:
            some = [
                plain.Group(0, [d for g in some for d in g.dt], [a for g in some for a in g.gt])
            ]
        groups += some
    iou = plain.with_boundary(plain.crowd_iou, 0.02)
    return plain.summary(
        plain.tables(groups, iou, plain.Bins(32**2, 96**2), limit=100), COCO_LIMITS
    )


@blocks
def test_coco_masks_equal_pycocotools(tmp_path, block):
    for seed, rng in seeds(block):
        truth, rows = detections(rng)
        marked(rng, truth, rows)
        if seed % 3 == 0:  # ids that are file names; pycocotools takes them in the order of texts
            for row in (*truth["annotations"], *rows):
                row["image_id"] = f"bus_{row['image_id'] * 7}"
            for image in truth["images"]:
                image["id"] = f"bus_{image['id'] * 7}"
        if not rows:
            continue
        files = written(tmp_path, truth, rows)
        for rule in ("mask", "bbox"):
            for agnostic in (False, True):
                want = coco_reference(truth, rows, class_agnostic=agnostic, area_rule=rule)
                named = {"class_agnostic": agnostic, "area_rule": rule}
                same(score_coco_files, want, (seed, named), **files, **named)


@blocks
def test_coco_boundaries_equal_the_definition(tmp_path, block):
    for seed, rng in seeds(block):
        truth, rows = detections(rng, images=3)
        marked(rng, truth, rows)
        if not rows:
            continue
        files = written(tmp_path, truth, rows)
        agnostic, boxed = seed % 2 == 0, seed % 4 < 2
        want = coco_boundary(truth, rows, boxed=boxed, agnostic=agnostic)
        named = {"class_agnostic": agnostic, "area_rule": "bbox" if boxed else "mask"}
        same(score_coco_files, want, (seed, named), **files, **named, iou_type="boundary")
        # The cross-check is a third reading.
        theirs = coco_reference(truth, rows, dilation_ratio=0.02, **named)
        assert theirs == pytest.approx(
            {name: -1 if v is None else v for name, v in want.items()}, abs=1e-9
        ), seed


@blocks
def test_lvis_masks_equal_lvis_api(tmp_path, block):
    for seed, rng in seeds(block):
        truth, rows = federated(rng)
        if not rows:
            continue
        files = written(tmp_path, truth, rows)
        for rule in ("mask", "bbox"):
            want = lvis_reference(files["gt"], rows, area_rule=rule)
            same(score_lvis_files, want, (seed, rule), **files, area_rule=rule)


def lvis_boundary(truth: Json, rows: list[Json], *, boxed: bool) -> Json:
    gt, dt = things(truth, rows, boxed, boundary=True)
    groups = []
    for image in sorted(truth["images"], key=lambda image: image["id"]):
        mine = [r for r in truth["annotations"] if r["image_id"] == image["id"] and r["area"] > 0]
        pairs = [(r, t) for r, t in zip(rows, dt, strict=True) if r["image_id"] == image["id"]]
        best = sorted(range(len(pairs)), key=lambda n: -pairs[n][0]["score"])[:300]
        found = [pair for n, pair in enumerate(pairs) if n in best and pair[1].area > 0]
        there = {r["category_id"] for r in mine}
        for category in sorted(c["id"] for c in truth["categories"]):
            some = [t for r, t in found if r["category_id"] == category]
            if category not in there and category not in image["neg_category_ids"]:
                some = []
            for thing in some:
                thing.lenient = category in image["not_exhaustive_category_ids"]
            groups.append(
                plain.Group(
                    category, some, [gt[r["id"]] for r in mine if r["category_id"] == category]
                )
            )
    iou = plain.with_boundary(plain.crowd_iou, 0.02)
    found = plain.tables(groups, iou, plain.Bins(32**2, 96**2, closed=False))
    limits = {"@300": 10**9, "s@300": 10**9, "m@300": 10**9, "l@300": 10**9}
    out = plain.summary(found, limits)
    for letter in "rcf":
        ids = [c["id"] for c in truth["categories"] if c["frequency"] == letter]
        out[f"AP{letter}"] = plain.summary(found, {}, ids)["AP"]
    return out


@blocks
def test_lvis_boundaries_equal_the_definition(tmp_path, block):
    for seed, rng in seeds(block):
        truth, rows = federated(rng)
        if not rows:
            continue
        files = written(tmp_path, truth, rows)
        boxed = seed % 2 == 0
        rule = "bbox" if boxed else "mask"
        want = lvis_boundary(truth, rows, boxed=boxed)
        same(score_lvis_files, want, (seed, rule), **files, area_rule=rule, iou_type="boundary")
        theirs = lvis_reference(files["gt"], rows, dilation_ratio=0.02, area_rule=rule)
        assert theirs == pytest.approx(
            {name: -1 if v is None else v for name, v in want.items()}, abs=1e-9
        ), seed


def code(rng: np.random.Generator, mask: np.ndarray) -> Any:
    """A frame: null, compressed or uncompressed."""
    if not mask.any() and rng.random() < 0.5:
        return None
    if rng.random() < 0.5:
        return encode_rle(mask)
    flat = np.concatenate([[False], mask.T.reshape(-1)])
    edges = np.flatnonzero(np.append(flat[1:] != flat[:-1], True))
    return {"size": list(mask.shape), "counts": np.diff(edges, prepend=0).tolist()}


def tube_set(rng: np.random.Generator) -> tuple[Json, list[Json]]:
    """Videos with tubes of random lengths, some with refined masks, crowds and equal scores."""
    truth: Json = {"videos": [], "categories": [{"id": 4}, {"id": 2}], "annotations": []}
    rows: list[Json] = []
    for video in (9, 5):
        frames, shape = (
            int(rng.integers(1, 5)),
            (int(rng.integers(5, 60)), int(rng.integers(5, 80))),
        )
        truth["videos"].append(
            {"id": video, "height": shape[0], "width": shape[1], "length": frames}
        )
        for _ in range(int(rng.integers(0, 4))):
            real = random_masks(rng, frames, shape)
            row: Json = {
                "id": len(truth["annotations"]) + 1,
                "video_id": video,
                "category_id": int(rng.choice([2, 4])),
            }
            row |= {
                "iscrowd": int(rng.random() < 0.2),
                "ignore": 1,
                "segmentations": [code(rng, m) for m in real],
            }
            if rng.random() < 0.8:
                row["areas"] = [float(m.sum()) or None for m in real]
            if rng.random() < 0.4:
                refined = [m & (rng.random(shape) < 0.9) for m in real]
                row["segmentations_refined"] = [code(rng, m) for m in refined]
            truth["annotations"].append(row)
            for _ in range(int(rng.integers(0, 4))):
                found = [
                    np.roll(m, int(rng.integers(-2, 3)), 1)
                    for m in real[: int(rng.integers(1, frames + 1))]
                ]
                rows.append(
                    {
                        "video_id": video,
                        "category_id": row["category_id"] if rng.random() < 0.8 else 2,
                        "score": float(rng.integers(1, 5)) / 4,
                        "segmentations": [code(rng, m) for m in found],
                    }
                )
    return truth, [rows[i] for i in rng.permutation(len(rows))]


def tube(row: Json, size: tuple[int, int]) -> plain.Thing:
    masks = [plain.decode(frame, *size) for frame in row["segmentations"]]
    refined = row.get("segmentations_refined")
    areas = [a for a in row.get("areas", [float(m.sum()) for m in masks]) if a]
    crowd = bool(row.get("iscrowd"))
    return plain.Thing(
        masks,
        float(np.mean(areas)) if areas else 0.0,
        row.get("score", 0.0),
        ignore=crowd,
        crowd=crowd,
        banded=None if refined is None else [plain.decode(frame, *size) for frame in refined],
    )


@blocks
def test_tubes_equal_the_definition(tmp_path, block):
    for seed, rng in seeds(block):
        truth, rows = tube_set(rng)
        files = written(tmp_path, truth, rows)
        sizes = {video["id"]: (video["height"], video["width"]) for video in truth["videos"]}
        agnostic, groups = seed % 2 == 0, []
        for video in sorted(sizes):
            mine, found = (
                [(row, tube(row, sizes[video])) for row in side if row["video_id"] == video]
                for side in (truth["annotations"], rows)
            )
            some = [
                plain.Group(
                    c, *([t for r, t in side if r["category_id"] == c] for side in (found, mine))
                )
                for c in (2, 4)
            ]
            if agnostic:
                some = [
                    plain.Group(0, [d for g in some for d in g.dt], [a for g in some for a in g.gt])
                ]
            groups += some
        for kind, iou in (
            ("segm", plain.mask_iou),
            ("boundary", plain.with_boundary(plain.mask_iou, 0.02)),
        ):
            want = plain.summary(
                plain.tables(groups, iou, plain.Bins(128**2, 256**2), limit=100), COCO_LIMITS
            )
            named = {"iou_type": kind, "class_agnostic": agnostic}
            same(score_ytvis_files, want, (seed, kind), **files, **named)


def davis_set(rng: np.random.Generator, root: Path) -> dict[str, list[dict[str, float]]]:
    """Sequences on the disk, and what the definition gives for each."""
    names = ["goat", "dogs jump"]
    listed = "\n".join([*names, "goat", ""])
    (root / "D" / "ImageSets" / "2017").mkdir(parents=True, exist_ok=True)
    (root / "D" / "ImageSets" / "2017" / "val.txt").write_bytes(
        listed.encode(["utf-8", "utf-8-sig", "utf-16"][int(rng.integers(3))])
    )
    want = {}
    for name in names:
        depth = int(rng.choice([1, 2, 4, 8, 16]))
        most = int(min(3, (1 << depth) - 1))
        shape, palette = (
            (int(rng.integers(4, 24)), int(rng.integers(4, 24))),
            bool(rng.random() < 0.5),
        )
        stems = ["img", *(f"img-{k}" for k in range(1, int(rng.integers(4, 7))))]
        sides: list[list[np.ndarray]] = [[], []]
        for k, stem in enumerate(sorted(stems, key=lambda stem: f"{stem}.png")):
            real = sum(
                m * np.uint8(rng.integers(0, most + 1)) for m in random_masks(rng, 2, shape)
            ).clip(0, most)
            if k == 0:
                real.flat[0] = most
            found = np.minimum(np.roll(real, 1, 1), sides[0][0].max() if k else most)
            if depth >= 8 and rng.random() < 0.3:
                real.flat[-1] = 255
            for folder, labels, side in (("D/Annotations/480p", real, 0), ("P", found, 1)):
                path = root / folder / name / f"{stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(label_png(labels, depth, palette=palette and depth <= 8))
                path.with_name(f"._{stem}.png").write_bytes(b"companion")
                sides[side].append(labels)
        want[name] = plain.davis(*sides)
    return want


@blocks
def test_davis_equals_the_definition(tmp_path, block):
    for seed, rng in seeds(block):
        want = davis_set(rng, tmp_path / str(seed))
        result = score_davis_folders(pred=tmp_path / str(seed) / "P", gt=tmp_path / str(seed) / "D")
        rows = result.details["per_object"]
        assert [row["sequence"] for row in rows] == [
            name for name, found in want.items() for _ in found
        ], seed
        flat = [row for found in want.values() for row in found]
        for row, values in zip(rows, flat, strict=True):
            assert {name: row[name] for name in values} == pytest.approx(values, abs=1e-12), seed
        assert result.metrics["J"] == pytest.approx(
            np.mean([row["J_mean"] for row in flat]), abs=1e-12
        )


def test_the_label_pictures_are_what_pillow_reads():
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 2
    for depth in (1, 2, 4, 8):
        for palette in (False, True):
            import io

            read = np.asarray(Image.open(io.BytesIO(label_png(labels, depth, palette=palette))))
            stretched = 255 // ((1 << depth) - 1) if depth in (2, 4) and not palette else 1
            assert (read.astype(int) == labels * stretched).all(), (depth, palette)
