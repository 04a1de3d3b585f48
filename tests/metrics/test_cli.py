"""`hqsam score`: the JSON that other people's scripts read, exit codes, messages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from hqsam_base.rle import encode_rle
from hqsam_base.sginw import SETS
from hqsam_metrics import UserError, boundary_iou, mask_iou
from hqsam_metrics.base import protocol_hash
from hqsam_metrics.masks.png import read_index_png, read_mask_png
from hqsam_pipelines.commands.score import app
from tests import FULL, GOLDEN
from tests.metrics.golden import read_golden
from tests.metrics.synthetic import detections, random_masks

BASE = {"metrics", "n_expected", "n_scored", "protocol", "protocol_hash", "warnings"}


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def result(tmp_path, *words):
    out = tmp_path / "out" / "out.json"
    done = run(*words, "--json", out)
    assert done.exit_code == 0, done.output
    content = json.loads(out.read_text())
    assert set(content) >= BASE
    assert content["protocol_hash"] == protocol_hash(content["protocol"])
    assert content["protocol"]["evaluator_version"] >= 1
    return content


def write_masks(folder, masks, value=255):
    folder.mkdir(parents=True)
    for name, mask in masks.items():
        assert cv2.imwrite(str(folder / f"{name}.png"), mask.astype(np.uint8) * value)


@pytest.fixture
def pairs(tmp_path):
    rng = np.random.default_rng(7)
    found, real = (
        {f"{k:02d}": m for k, m in enumerate(random_masks(rng, 6, (90, 120)))} for _ in range(2)
    )
    found["empty"] = real["empty"] = np.zeros((40, 50), bool)
    write_masks(tmp_path / "pred", found)
    write_masks(tmp_path / "gt", real)
    return found, real


def test_masks(tmp_path, pairs):
    found, real = pairs
    words = ("masks", "--pred", tmp_path / "pred", "--gt", tmp_path / "gt")
    content = result(tmp_path, *words)
    assert set(content) == BASE | {"per_item"}
    assert [row["key"] for row in content["per_item"]] == sorted(found)
    ious, bious = [], []
    for row in content["per_item"]:
        pair = {"pred": found[row["key"]], "target": real[row["key"]]}
        for name, value in (("iou", mask_iou(**pair)), ("biou", boundary_iou(**pair))):
            assert row[name] == (None if np.isnan(value) else value)
        ious.append(mask_iou(**pair))
        bious.append(boundary_iou(**pair))
    assert content["metrics"]["mIoU"] == pytest.approx(np.nanmean(ious), abs=1e-12)
    assert content["metrics"]["mBIoU"] == pytest.approx(np.nanmean(bious), abs=1e-12)
    undefined = int(np.isnan(ious).sum())
    assert (content["n_expected"], content["n_scored"]) == (7, 7 - undefined) and undefined >= 1
    assert content["protocol"]["dilation_ratio"] == 0.02 and content["protocol"]["empty_mask_rule"]
    assert result(tmp_path, *words, "--workers", 2) == content
    strict = result(tmp_path, *words, "--dilation-ratio", 0.01, "--cascadepsp", "--recall-curve")
    assert strict["metrics"]["mIoU"] == content["metrics"]["mIoU"]
    assert strict["protocol_hash"] != content["protocol_hash"]
    assert set(strict["metrics"]) == {"mIoU", "mBIoU", "IoU_pooled", "mBA"}
    assert strict["recall_curve"]["thresholds"][2] == 0.6
    pooled = sum((found[k] & real[k]).sum() for k in found) / sum(
        (found[k] | real[k]).sum() for k in found
    )
    assert strict["metrics"]["IoU_pooled"] == pytest.approx(pooled, abs=1e-12)


def test_masks_refuse(tmp_path, pairs):
    def message(*more):
        done = run("masks", "--pred", tmp_path / "pred", "--gt", tmp_path / "gt", *more)
        assert done.exit_code == 1 and "Traceback" not in done.output
        assert done.output.count("error:") == 1
        return done.output

    assert "between 0 and 1" in message("--dilation-ratio", "0")
    (tmp_path / "pred" / "00.png").rename(tmp_path / "kept.png")
    assert "00.png: has no partner" in message()
    (tmp_path / "kept.png").rename(tmp_path / "pred" / "00.png")
    (tmp_path / "pred" / "more.png").write_bytes((tmp_path / "pred" / "00.png").read_bytes())
    assert "more.png: has no partner" in message()
    (tmp_path / "pred" / "more.png").unlink()
    (tmp_path / "pred" / "01.png").write_bytes(b"")
    assert "01.png" in message()
    cv2.imwrite(str(tmp_path / "pred" / "01.png"), np.ones((90, 120), np.uint8))
    assert "0/1, not 0/255" in message()
    cv2.imwrite(str(tmp_path / "pred" / "01.png"), np.eye(90, 120, dtype=np.uint8) * 2)
    assert (
        "0..2, not 0/255" in (said := message())
        and "one mask for each object" in said
        and "Multiply" not in said
    )
    cv2.imwrite(str(tmp_path / "pred" / "01.png"), np.full((9, 12), 255, np.uint8))
    assert "9 x 12" in message("--workers", "2")
    assert run("masks", "--pred", tmp_path / "none", "--gt", tmp_path / "gt").exit_code == 1
    assert run("masks", "--pred", tmp_path / "gt").exit_code == 2


def test_pictures(tmp_path):
    labels = (np.arange(12, dtype=np.uint8) % 4).reshape(3, 4)
    from PIL import Image

    palette = Image.fromarray(labels, "P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    for bits in (2, 4, 8):
        palette.save(tmp_path / "p.png", bits=bits)
        assert (read_index_png(tmp_path / "p.png") == labels).all(), bits
    palette.save(tmp_path / "t.png", transparency=bytes([0, 255, 255, 255]))
    assert (read_index_png(tmp_path / "t.png") == labels).all()
    Image.fromarray(labels).save(tmp_path / "g.png")
    assert (read_index_png(tmp_path / "g.png") == labels).all()
    soft = np.array([[0, 127, 128, 129, 255]], np.uint8)
    for name, array in {
        "grey": soft,
        "rgb": np.dstack([soft] * 3),
        "wide": soft.astype(np.uint16) * 257,
    }.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), array)
        assert read_mask_png(tmp_path / f"{name}.png").tolist() == [
            [False, False, False, True, True]
        ], name
    alpha = np.dstack([np.zeros_like(soft)] * 3 + [soft])
    cv2.imwrite(str(tmp_path / "a.png"), alpha)
    assert read_mask_png(tmp_path / "a.png").sum() == 2
    Image.fromarray(soft > 128).save(tmp_path / "one.png")
    assert read_mask_png(tmp_path / "one.png").sum() == 2
    # Values of 8 bits in a file of 16.
    cv2.imwrite(str(tmp_path / "w.png"), soft.astype(np.uint16))
    assert read_mask_png(tmp_path / "w.png").sum() == 2
    cv2.imwrite(str(tmp_path / "w.png"), labels.astype(np.uint16))
    assert (read_index_png(tmp_path / "w.png") == labels).all()
    cv2.imwrite(str(tmp_path / "w.png"), np.eye(4, dtype=np.uint16))
    with pytest.raises(UserError, match="0/1, not 0/255"):
        read_mask_png(tmp_path / "w.png")


@pytest.mark.parametrize("name", ["dt.json", "gt.json"])
def test_the_result_does_not_replace_what_was_scored(tmp_path, name):
    truth, rows = detections(np.random.default_rng(5))
    (tmp_path / "dt.json").write_text(json.dumps(rows))
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    before = (tmp_path / name).read_bytes()
    done = run(
        "coco",
        "--pred",
        tmp_path / "dt.json",
        "--gt",
        tmp_path / "gt.json",
        "--json",
        tmp_path / "." / name,
    )
    assert (
        done.exit_code == 1
        and "this file is the input already" in done.output
        and name in done.output
    )
    assert (tmp_path / name).read_bytes() == before
    done = run(
        "coco", "--pred", tmp_path / "dt.json", "--gt", tmp_path / "gt.json", "--json", tmp_path
    )
    assert done.exit_code == 1 and "is a folder" in done.output and "AP " not in done.output
    below = tmp_path / name / "out.json"
    done = run(
        "coco", "--pred", tmp_path / "dt.json", "--gt", tmp_path / "gt.json", "--json", below
    )
    assert (
        done.exit_code == 1 and f"cannot be written (File exists)\n  file: {below}" in done.output
    )
    assert "AP " not in done.output, "found out before the work"


def test_coco_lvis_ytvis(tmp_path):
    for command, folder, kind, key in [
        ("coco", "coco", "segm", "results_fake.json"),
        ("coco", "coco", "boundary", "results_fake.json"),
        ("lvis", "lvis", "boundary", "results.json"),
        ("ytvis", "video_ytvis", "boundary", "results.json"),
    ]:
        at = GOLDEN / folder
        content = result(
            tmp_path, command, "--pred", at / key, "--gt", at / "gt.json", "--iou-type", kind
        )
        assert set(content) == BASE
        want = read_golden(f"{folder}/expected.json")
        expected = want["files"][key]["expected"] if "files" in want else want["expected"]
        place = {
            "coco": f"{'segm' if kind == 'segm' else 'boundary_0.02'}/class_aware",
            "lvis": "boundary_iou_api/boundary_0.02",
            "ytvis": "tube_boundary/class_aware",
        }[command]
        assert set(content["metrics"]) == set(expected[place]["stats"])
        assert content["metrics"]["AP"] == pytest.approx(expected[place]["stats"]["AP"], abs=1e-9)
        assert content["protocol"]["iou_type"] == kind
        assert content["n_expected"] == content["n_scored"] > 0


def test_cross_check(tmp_path, monkeypatch):
    """It checks the rule and the measure in use: size areas by box, other limits, boundaries in LVIS."""
    own, others = [], ["--max-dets", 7, "--area-rule", "bbox"]
    for command, kind, sentence, chosen in [
        (
            "coco",
            "boundary",
            "COCOeval gives the same numbers",
            (own, others) if FULL else (others,),
        ),
        (
            "lvis",
            "segm",
            "lvis-api gives the same numbers",
            (own, others) if FULL else (own,),
        ),  # seconds each
        (
            "lvis",
            "boundary",
            "lvis-api gives the same numbers",
            (own, others) if FULL else (),  # the checker is that of the two above
        ),
    ]:
        at = GOLDEN / command
        rows = read_golden(
            f"{command}/{'results' if command == 'lvis' else 'results_perturbed'}.json"
        )
        (tmp_path / "dt.json").write_text(
            json.dumps([row | {"bbox": [0, 0, n % 150, 40]} for n, row in enumerate(rows)])
        )
        words = (
            command,
            "--pred",
            tmp_path / "dt.json",
            "--gt",
            at / "gt.json",
            "--iou-type",
            kind,
            "--cross-check",
        )
        for rules in chosen:
            done = run(*words, *rules)
            assert done.exit_code == 0 and sentence in done.output, done.output
    # What the reference programs stop at: an annotation of id 0, no `iscrowd`, no area, ids that
    # are texts.
    truth = read_golden("coco/gt.json")
    truth["annotations"] = [
        row | {"id": n} for n, row in enumerate(truth["annotations"]) if not row["iscrowd"]
    ]
    for row in truth["annotations"]:
        row["image_id"] = str(row["image_id"])
        del row["iscrowd"], row["area"]
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    at = GOLDEN / "coco" / "results_fake.json"
    done = run("coco", "--pred", at, "--gt", tmp_path / "gt.json", "--cross-check")
    assert (
        done.exit_code == 0 and "annotation id 0" in done.output and "same numbers" in done.output
    ), done.output
    from hqsam_metrics import reference

    monkeypatch.setattr(
        reference, "lvis_reference", lambda gt, rows, **rules: {"AP": 0.5, "AP50": 0.5}
    )
    done = run(*words)
    assert done.exit_code == 1 and "other numbers" in done.output


def test_davis(tmp_path):
    at = GOLDEN / "davis"
    content = result(
        tmp_path, "davis", "--pred", at / "results", "--gt", at / "DAVIS", "--split", "val"
    )
    assert set(content) == BASE | {"per_object"}
    assert {"J&F", "J", "F"} <= set(content["metrics"])
    assert set(content["per_object"][0]) == {
        "sequence",
        "object",
        "J_mean",
        "J_recall",
        "J_decay",
        "F_mean",
        "F_recall",
        "F_decay",
    }
    for words in (["--split", "none"], ["--gt", at]):
        done = run("davis", "--pred", at / "results", "--gt", at / "DAVIS", *words)
        assert done.exit_code == 1 and "ImageSets" in done.output


def test_davis_refuses(tmp_path):
    import shutil

    root = tmp_path / "results"
    shutil.copytree(GOLDEN / "davis" / "results", root)

    def message():
        done = run("davis", "--pred", root, "--gt", GOLDEN / "davis" / "DAVIS")
        assert done.exit_code == 1 and "Traceback" not in done.output
        return done.output

    frame = root / "loading" / "00003.png"
    keep = frame.read_bytes()
    frame.unlink()
    assert "00003.png: no such result" in message()
    cv2.imwrite(str(frame), np.zeros((5, 5), np.uint8))
    assert "frame 00003" in message()
    shape = read_index_png(
        GOLDEN / "davis" / "DAVIS" / "Annotations" / "480p" / "loading" / "00003.png"
    ).shape
    cv2.imwrite(str(frame), np.full(shape, 9, np.uint8))
    assert "object 9" in message()
    frame.write_bytes(keep[: len(keep) // 2])
    assert "00003.png" in message()


def test_sginw(tmp_path):
    rng = np.random.default_rng(11)
    aps = []
    for name in SETS:
        truth, rows = detections(rng, images=2)
        while not any(not a["iscrowd"] for a in truth["annotations"]):
            truth, rows = detections(rng, images=2)
        (tmp_path / name / "valid").mkdir(parents=True)
        (tmp_path / name / "valid" / "_annotations_min1cat.coco.json").write_text(json.dumps(truth))
        (tmp_path / f"seginw-{name}_val.json").write_text(json.dumps(rows))
        at = (
            tmp_path / f"seginw-{name}_val.json",
            tmp_path / name / "valid" / "_annotations_min1cat.coco.json",
        )
        aps.append(result(tmp_path, "coco", "--pred", at[0], "--gt", at[1])["metrics"]["AP"])
    content = result(tmp_path, "sginw", "--pred", tmp_path, "--gt", tmp_path)
    assert content["metrics"]["AP"] == pytest.approx(np.mean(aps), abs=1e-12)
    (tmp_path / "seginw-Rail_val.json").unlink()
    assert "seginw-Rail_val.json" in run("sginw", "--pred", tmp_path, "--gt", tmp_path).output


HEAVY = {
    "cv2",
    "dvc",
    "numpy",
    "pandas",
    "PIL",
    "prefect",
    "pyarrow",
    "pycocotools",
    "pydantic",
    "scipy",
    "torch",
}


def imported(code):
    """Runs `code` in a fresh interpreter and returns the heavy modules that it brought in."""
    code += f"; import sys; print(*({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_import_is_light():
    # Its time is measured by `python -m perf metrics/import`.
    assert imported("import hqsam_metrics") == set()
    assert imported("from hqsam_metrics import boundary_band, boundary_iou, mask_iou") == {"numpy"}
    assert imported("from hqsam_metrics.scores import coco") == set()


def test_commands_need_the_base_install_only(tmp_path):
    """Scoring imports nothing but what the base install has, by the console script's own way in."""
    rng = np.random.default_rng(2)
    truth, rows = detections(rng)
    for image in truth["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for category in truth["categories"]:
        category["frequency"] = "f"
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(rows))
    (tmp_path / "none.json").write_text("[]")
    write_masks(tmp_path / "masks", {"a": np.eye(9, dtype=bool)})
    files = ["--pred", tmp_path / "dt.json", "--gt", tmp_path / "gt.json", "--iou-type", "boundary"]
    video = GOLDEN / "video_ytvis"
    commands = [
        ["coco", *files, "--workers", 2, "--cross-check"],
        ["lvis", *files],
        [
            "ytvis",
            "--pred",
            video / "results.json",
            "--gt",
            video / "gt.json",
            "--json",
            tmp_path / "out.json",
        ],
        ["masks", "--pred", tmp_path / "masks", "--gt", tmp_path / "masks", "--cascadepsp"],
        ["coco", *files, "--against", tmp_path / "none.json", "--overlays", tmp_path / "drawn"],
        ["davis", "--pred", GOLDEN / "davis" / "results", "--gt", GOLDEN / "davis" / "DAVIS"],
    ]
    code = """
import importlib.abc, json, sys
class Guard(importlib.abc.MetaPathFinder):
    banned = set(sys.argv[2].split())
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.banned:
            raise ModuleNotFoundError(f"{name} is not in the base install", name=name)
sys.meta_path.insert(0, Guard())
from hqsam_pipelines.cli import run
for words in json.loads(sys.argv[1]):
    assert run(["score", *words]) == 0, words
"""
    words = json.dumps([[str(w) for w in command] for command in commands])
    command = [sys.executable, "-c", code, words, " ".join(sorted(not_in_base_install()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("scored") == len(commands)
    assert list((tmp_path / "drawn").glob("01-*.png"))


def not_in_base_install():
    """Top-level modules of every installed distribution that the base install does not bring."""
    owners = metadata.packages_distributions()
    base = requirements("hqsam-pipeline")
    return {
        module
        for module, names in owners.items()
        if not {name.lower().replace("_", "-") for name in names} & base
    }


def requirements(name):
    """A distribution and all that it needs without extras."""
    found, todo = set(), [name]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            lines = [line for line in metadata.requires(name) or [] if "extra ==" not in line]
            todo += [
                re.match(r"[\w.-]+", line)[0].lower().replace("_", "-")
                for line in lines
                if here(line)
            ]
    return found


def here(line):
    try:
        metadata.version(re.match(r"[\w.-]+", line)[0])
    except metadata.PackageNotFoundError:  # for another platform or Python
        return False
    return True


def readme_examples():
    """(command line, lines of its output) of every `$ hqsam score` in the README."""
    text = (GOLDEN.parents[1] / "README.md").read_text(encoding="utf-8")
    for block in text.split("    $ hqsam score ")[1:]:
        line, *shown = block.partition("\n\n")[0].splitlines()
        yield line, [row.strip() for row in shown]


@pytest.mark.parametrize(
    ("line", "shown"), readme_examples(), ids=lambda value: str(value).split()[0]
)
def test_the_readme_shows_real_output(tmp_path, monkeypatch, golden_masks, line, shown):
    for side in ("pred", "gt") if line.startswith("masks") else ():
        masks = {
            name.partition("_")[2]: mask
            for name, mask in golden_masks.items()
            if name.startswith(side)
        }
        write_masks(tmp_path / side, masks)
    (tmp_path / "tests").symlink_to(GOLDEN.parent)
    monkeypatch.chdir(tmp_path)
    done = run(*line.split())
    assert done.exit_code == 0 and len(shown) > 3, done.output
    printed = done.output.splitlines()
    missing = [row for row in shown if row != "..." and row not in printed]
    assert not missing
    assert "..." in shown or len(shown) == len(printed)


def test_encoded_masks_are_what_the_results_format_wants():
    assert encode_rle(np.zeros((2, 3), bool)) == {"size": [2, 3], "counts": "6"}
