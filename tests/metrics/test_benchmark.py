"""`score_benchmark`: tables as the pipeline writes them in, goldens out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from hqsam_base import processes
from hqsam_base.rle import encode_rle
from hqsam_base.sginw import SETS
from hqsam_metrics import UserError
from hqsam_metrics.ap import decoding, detection
from hqsam_metrics.ap.resample import Matches, deletions, weighted_ap
from hqsam_metrics.base import score_options
from hqsam_metrics.benchmark import score_benchmark
from hqsam_metrics.masks import one_to_one
from hqsam_metrics.matches_file import MATCHES, TRUTH, read_matches
from hqsam_metrics.scores import davis
from hqsam_metrics.scores.coco import score_coco_files
from tests.metrics.benchmark_set import (
    Rows,
    Set,
    coco_like,
    davis_like,
    masks_like,
    numbered_through,
    ytvis_like,
)
from tests.metrics.golden import read_golden
from tests.metrics.synthetic import detections


def metrics(content, system="sam"):
    (row,) = [r for r in content["results"] if r["system"] == system]
    return row["metrics"]


def units(one: Set) -> Rows:
    return pq.read_table(one.root / "scores" / "instances.parquet").to_pylist()


def matches_of(one: Set, content: dict[str, Any], system: str = "sam") -> Matches:
    """The matches that were written; every AP that they are of is the metric's when each image counts once."""
    files = {name: one.root / "scores" / name for name in (MATCHES, TRUTH)}
    found = read_matches(files, "boxes", system, "scores")
    once = np.ones((1, len(found.truth.ids)))
    for name, want in metrics(content, system).items():
        if name in found.hit:
            assert weighted_ap(found, name, once) == pytest.approx(
                np.nan if want is None else want, nan_ok=True, abs=1e-12
            )
    return found


@pytest.fixture
def masks_set(tmp_path, golden_masks, golden_pairs) -> Set:
    return masks_like(tmp_path, golden_masks, golden_pairs)


def check(metrics: dict[str, Any], stats: dict[str, float], suffix: str) -> None:
    for name, value in stats.items():
        got = metrics[name[:2] + suffix + name[2:] if name[0] == "A" else name]
        assert (-1 if got is None else got) == pytest.approx(value, abs=1e-9), name


def test_masks(masks_set, golden_pairs):
    content = masks_set.score(metric="masks", strict_dilation_ratio=0.01)
    pairs = list(golden_pairs.values())[:24]
    found = metrics(content)
    defined = [p for p in pairs if p["union"]]
    assert found["mIoU"] == pytest.approx(
        np.mean([p["mask_iou"]["coco"] for p in defined]), abs=1e-9
    )
    for name, ratio in (("mBIoU", "0.02"), ("mBIoU_strict", "0.01")):
        assert found[name] == pytest.approx(
            np.mean([p["boundary"][ratio]["iou_api"] for p in defined]), abs=1e-9
        )
    row = content["results"][0]
    assert (row["n_expected"], row["n_scored"]) == (24, len(defined))
    wanted = {
        "resize",
        "prompt_set",
        "prompts_digest",
        "score_rule",
        "system",
        "output",
        "dilation_ratio",
    }
    assert wanted | {"empty_mask_rule", "dataset_version", "evaluator", "evaluator_version"} <= set(
        row["protocol"]
    )
    table = units(masks_set)
    assert len(table) == 48 and list(table[0]) == [
        "prompt_set",
        "system",
        "key",
        "cluster",
        "unit",
        "iou",
        "biou",
    ]
    for got, pair in zip([r for r in table if r["system"] == "sam"], pairs, strict=True):
        assert got["iou"] == (
            pytest.approx(pair["mask_iou"]["coco"], abs=1e-9) if pair["union"] else None
        )


def test_same_bytes_again_and_whatever_the_parts(masks_set):
    masks_set.score(metric="masks")
    files = [masks_set.root / "b-m.json", *sorted((masks_set.root / "scores").iterdir())]
    assert [f.name for f in files] == [
        "b-m.json",
        "diagnosis.json",
        "instances.parquet",
        "scores.json",
    ]
    before = [f.read_bytes() for f in files]
    np.random.default_rng(0).shuffle(masks_set.predictions)
    np.random.default_rng(1).shuffle(masks_set.instances)
    masks_set.score(metric="masks")
    assert [f.read_bytes() for f in files] == before
    assert not [p for p in masks_set.root.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("kind", ["masks", "coco", "ytvis", "davis"])
def test_same_bytes_for_one_process_and_for_several(
    kind, tmp_path, golden_masks, golden_pairs, monkeypatch
):
    one = {
        "masks": lambda: masks_like(tmp_path, golden_masks, golden_pairs),
        "coco": lambda: coco_like(tmp_path, "coco", "results_perturbed.json"),
        "ytvis": lambda: ytvis_like(tmp_path),
        "davis": lambda: davis_like(tmp_path),
    }[kind]()
    pools = []

    class Pool(processes.ProcessPoolExecutor):
        def __init__(self, workers, *rest, **more):
            pools.append(workers)
            super().__init__(workers, *rest, **more)

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Pool)
    monkeypatch.setenv("HQSAM_COMPILED", "0")
    found = []
    for workers in ("1", "2"):
        monkeypatch.setenv(processes.WORKERS_VARIABLE, workers)
        one.score(metric=kind)
        found.append([p.read_bytes() for p in sorted(one.root.rglob("*")) if p.is_file()])
        for module, name in ((decoding, "_WORTH"), (davis, "_WORTH"), (one_to_one, "_CHUNK")):
            monkeypatch.setattr(module, name, 1)
        monkeypatch.setattr(detection, "_CHUNK_MASKS", 50)
    assert found[0] == found[1] and set(pools) == {2}


def diagnosed(one: Set, system: str = "sam") -> dict[str, Any]:
    (row,) = [
        row
        for row in json.loads((one.root / "scores" / "diagnosis.json").read_text())["results"]
        if row["system"] == system
    ]
    return row


@pytest.mark.parametrize("metric", ["coco", "lvis"])
def test_errors_start_from_the_official_ap50(metric, tmp_path):
    one = coco_like(
        tmp_path, metric, "results_perturbed.json" if metric == "coco" else "results.json"
    )
    official = metrics(one.score(metric=metric))
    found = diagnosed(one)
    for kind, name in (("mask", "AP50"), ("boundary", "AP_B50")):
        assert found["errors"][kind]["ap50"] == pytest.approx(official[name], abs=1e-12)
        assert np.mean(found["precision"][kind]["0.50"]) == pytest.approx(official[name], abs=1e-12)
    for name in ("AP", "AP_B"):
        each = [c[name] for c in found["classes"]]
        assert np.mean(each) == pytest.approx(official[name], abs=1e-12)
    assert sum(c["objects"] for c in found["classes"]) == found["errors"]["mask"]["objects"]


def test_masks_are_set_beside_their_predicted_iou(masks_set):
    masks_set.score(metric="masks")
    found, ious = diagnosed(masks_set)["calibration"], [u["iou"] for u in units(masks_set)]
    defined = [iou for iou, u in zip(ious, units(masks_set), strict=True) if u["system"] == "sam"]
    defined = [iou for iou in defined if iou is not None]
    assert found["n"] == len(defined)
    assert sum(b["n"] * b["real"] for b in found["bins"]) == pytest.approx(sum(defined))


def test_coco(tmp_path):
    one = coco_like(tmp_path, "coco", "results_perturbed.json")
    arguments = {
        "metric": "coco",
        "score_rule": "detector_x_iou",
        "strict_dilation_ratio": 0.01,
        "max_dets": 100,
    }
    content = one.score(**arguments)
    expected = read_golden("coco/expected.json")["files"]["results_perturbed.json"]["expected"]
    names = {"": "segm", "_B": "boundary_0.02", "_B_strict": "boundary_0.01"}
    for suffix, kind in names.items():
        check(metrics(content, "hq_sum"), expected[f"{kind}/class_aware"]["stats"], suffix)
    agnostic = one.score(**arguments, class_agnostic=True)
    assert agnostic["results"][0]["protocol_hash"] != content["results"][0]["protocol_hash"]
    table = units(one)
    assert len(table) == 2 * (839 - 9) and {r["cluster"] for r in table} <= {
        r["key"] for r in one.images
    }
    assert all(0 <= r["iou"] <= 1 and 0 <= r["biou"] <= 1 for r in table)


def test_lvis(tmp_path):
    one = coco_like(tmp_path, "lvis", "results.json")
    content = one.score(
        metric="lvis", score_rule="detector", max_dets=300, strict_dilation_ratio=0.01
    )
    expected = read_golden("lvis/expected.json")["expected"]
    check(metrics(content), expected["lvis_api/segm"]["stats"], "")
    check(metrics(content), expected["boundary_iou_api/boundary_0.02"]["stats"], "_B")
    check(metrics(content), expected["boundary_iou_api/boundary_0.01"]["stats"], "_B_strict")
    assert len(units(one)) == 2 * 977
    assert {"AP", "AP_Bs", "AP_B_strict"} <= set(matches_of(one, content).hit)


def test_sginw_is_the_mean_of_the_sets_scored_alone(tmp_path):
    rng = np.random.default_rng(12)
    sets: dict[str, tuple[Any, Rows]] = {}
    while len(sets) < len(SETS):
        truth, rows = detections(rng, images=2, ties=False)
        if any(not row["iscrowd"] for row in truth["annotations"]):
            sets[SETS[len(sets)]] = truth, rows
    want: dict[str, list[float | None]] = {"AP": [], "AP_B": []}
    for truth, rows in sets.values():
        for name, content in (("gt", truth), ("dt", rows)):
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        files = {"pred": tmp_path / "dt.json", "gt": tmp_path / "gt.json"}
        want["AP"].append(score_coco_files(**files).metrics["AP"])
        want["AP_B"].append(score_coco_files(**files, iou_type="boundary").metrics["AP"])
    truth, rows = numbered_through(sets)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    one = Set("coco", tmp_path, ground_truth=tmp_path / "truth.json")
    for image in truth["images"]:
        size = {"height": image["height"], "width": image["width"]}
        one.images.append({"key": f"k{image['id']}", "image_id": image["id"]} | size)
    for n, row in enumerate(rows):
        code, rest = row["segmentation"], {"score": row["score"], "category_id": row["category_id"]}
        one.add(f"{n:06d}", f"k{row['image_id']}", code["counts"], tuple(code["size"]), **rest)
    content = one.score(metric="sginw", score_rule="detector")
    found, matches = metrics(content), matches_of(one, content)
    assert [np.unique(part).size for part in np.split(matches.truth.stratum, len(SETS))] == [
        1
    ] * len(SETS)
    left_out, sets = deletions(matches.truth)  # each set on its own
    assert [len(rows) for rows in sets] == [2] * len(SETS) and (left_out.sum(axis=1) == 49).all()
    for name, values in want.items():
        assert found[name] == pytest.approx(np.mean(values), abs=1e-12)
        each = [found[f"{name}/{one_set}"] for one_set in SETS]
        assert each == pytest.approx(values, abs=1e-12)
    # The mean over categories is another number: sets have one to three of them with ground truth.
    assert metrics(one.score(metric="coco", score_rule="detector"))["AP"] != pytest.approx(
        found["AP"], abs=1e-3
    )
    truth["categories"] = [row for row in truth["categories"] if row["supercategory"] != "Rail"]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises(UserError, match="sets missing: Rail"):
        one.score(metric="sginw", score_rule="detector")
    with pytest.raises(TypeError, match="class_agnostic"):
        one.score(metric="sginw", class_agnostic=True)


def test_ytvis(tmp_path):
    one = ytvis_like(tmp_path)
    content = one.score(metric="ytvis", score_rule="detector")
    expected = read_golden("video_ytvis/expected.json")["expected"]
    check(metrics(content), expected["tube_mask/class_aware"]["stats"], "")
    check(metrics(content), expected["tube_boundary/class_aware"]["stats"], "_B")
    videos = {row["video_id"] for row in one.images}
    assert {r["cluster"] for r in units(one)} == {f"v{i}" for i in videos}
    assert matches_of(one, content).truth.ids == [str(i) for i in sorted(videos)]
    with pytest.raises(UserError, match="fixed at"):
        one.score(metric="ytvis", dilation_ratio=0.01)
    tracks = [prompt["track_id"] for prompt in one.prompts]
    twice = next(n for n, track in enumerate(tracks) if tracks.count(track) > 1)
    one.prompts[twice]["category_id"] = 1 + one.prompts[twice]["category_id"] % 5
    with pytest.raises(UserError, match="several categories"):
        one.score(metric="ytvis", score_rule="detector")
    last = one.images.pop()["key"]
    for rows in (one.prompts, one.predictions):
        rows[:] = [row for row in rows if row["key"] != last]
    with pytest.raises(UserError, match=r"has 17 frames, gt.json says 18"):
        one.score(metric="ytvis")


@pytest.fixture
def davis_set(tmp_path) -> Set:
    return davis_like(tmp_path)


def test_davis(davis_set):
    content = davis_set.score(metric="davis")
    found = metrics(content)
    for name, value in read_golden("davis/expected.json")["global"].items():
        assert found[name.removesuffix("_mean")] == pytest.approx(value, abs=1e-9)
    table = [r for r in units(davis_set) if r["system"] == "sam"]
    assert len(table) == 9 and np.mean([r["j"] for r in table]) == pytest.approx(
        found["J"], abs=1e-12
    )
    assert np.mean([r["f"] for r in table]) == pytest.approx(found["F"], abs=1e-12)
    # An object that the first frame does not have is tolerated and counted.
    first = davis_set.prompts[0]
    davis_set.add(
        "more", first["key"], encode_rle(np.ones((1, 1), bool))["counts"], (1, 1), track_id=200
    )
    size = davis_set.images[0]["height"], davis_set.images[0]["width"]
    for row in davis_set.predictions[-2:]:
        row |= {
            "rle": encode_rle(np.ones(size, bool))["counts"],
            "height": size[0],
            "width": size[1],
        }
    again = davis_set.score(metric="davis")
    assert metrics(again) == found and "1 masks of objects" in again["results"][0]["warnings"][0]


def test_davis_overlaps_go_to_the_higher_predicted_iou(tmp_path):
    one = Set("davis", tmp_path)
    a, b = np.zeros((2, 20, 20), bool)
    a[:, :12] = b[:, 12:] = True
    for frame in range(3):
        size = {"height": 20, "width": 20}
        one.images.append(
            {"key": f"f{frame}", "image_id": frame, "video": "v", "video_id": 1, "frame": frame}
            | size
        )
        for label, mask in ((1, a), (2, b)):
            code = {"rle": encode_rle(mask)["counts"], "track_id": label}
            one.instances.append(
                {"instance_id": f"f{frame}-{label}", "key": f"f{frame}"} | size | code
            )
        # Object 1 is predicted over everything, with the lower quality.
        both = [(1, np.ones_like(a), 0.4), (2, b, 0.9)]
        for label, mask, quality in both:
            name = f"f{frame}-{label}"
            one.add(
                name,
                f"f{frame}",
                encode_rle(mask)["counts"],
                (20, 20),
                track_id=label,
                iou_pred=quality,
            )
    assert metrics(one.score(metric="davis"))["J"] == 1
    for row in one.predictions:
        row["iou_pred"] = 1 - row["iou_pred"]
    worse = metrics(one.score(metric="davis"))
    assert worse["J"] == pytest.approx((0.6 + 0) / 2)


def refuse(one, words, **options):
    before = sorted(p.name for p in one.root.iterdir())
    with pytest.raises(UserError, match=words):
        one.score(**{"metric": "masks"} | options)
    left = [
        p.name for p in one.root.iterdir() if p.name not in (*before, "benchmark", "predictions")
    ]
    assert not left


def test_bad_predictions(masks_set):
    one = masks_set
    kept = one.predictions[5]
    one.predictions[5] = kept | {"prompt_id": "nobody"}
    refuse(one, "prompt nobody is not in the benchmark")
    one.predictions[5] = kept | {"rle": None}
    refuse(one, "no `rle`")
    one.predictions[5] = kept | {"rle": "zz"}
    refuse(one, "malformed")
    one.predictions[5] = kept | {"height": 3}
    refuse(one, "its image")
    one.predictions[5] = kept
    one.predictions.append(kept)
    refuse(one, "more than once")
    del one.predictions[-1], one.predictions[5]
    refuse(one, r"has no prediction \(1 of 24\)")
    one.predictions.append(kept)
    one.prompts[0]["instance_id"] = "gone"
    refuse(one, "no ground truth")
    one.prompts[0] |= {"instance_id": None}
    one.instances.append(one.instances[0] | {"instance_id": "second"})
    refuse(one, "exactly one instance")


def test_bad_options_and_folders(masks_set):
    refuse(masks_set, "version is 7, the code of metric 'masks' is version 1", version=7)
    refuse(masks_set, "unknown metric 'iou'", metric="iou")
    refuse(masks_set, "of kind 'masks'", metric="coco")
    at = masks_set.write()
    out = {"out_json": masks_set.root / "x.json", "out": masks_set.root / "x"}
    options = score_options({"metric": "masks", "version": 1})
    for victim in ("benchmark/prompts.parquet", "predictions/predict.json", "benchmark/index.json"):
        path = masks_set.root / victim
        kept = path.read_bytes()
        for content in (None, b"", b"{}"):
            path.unlink() if content is None else path.write_bytes(content)
            with pytest.raises(UserError, match=path.name):
                score_benchmark(**at, **out, options=options, progress=lambda *words: None)
        path.write_bytes(kept)
    for part in at["predictions"].glob("part-*"):
        part.unlink()
    with pytest.raises(UserError, match="run the predict stage"):
        score_benchmark(**at, **out, options=options, progress=lambda *words: None)
    assert not (masks_set.root / "x.json").exists()


def test_score_rule_needs_scores(tmp_path):
    one = coco_like(tmp_path, "coco", "results_fake.json")
    one.prompts[3]["score"] = None
    refuse(one, "prompt 000003 has no finite score", metric="coco", score_rule="detector")
