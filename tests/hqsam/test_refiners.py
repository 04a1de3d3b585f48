"""Refiners, and `hqsam refine` on predictions that exist."""

import importlib.util
import json
import sys

import cv2
import numpy as np
import pytest
import torch

from hqsam import refiners
from hqsam.prediction import refine
from hqsam.refiners import RefinerOptions, crm
from hqsam.refiners._base import Opened
from hqsam_base import atomic, rle
from hqsam_base.errors import UserError
from hqsam_datasets.formats import manifest
from hqsam_datasets.formats.images import encode_png
from hqsam_datasets.formats.tar_writer import write_tar
from hqsam_metrics.base import score_options
from hqsam_pipelines import cli

HEIGHT, WIDTH = 90, 120
BOOTSTRAP = 200


def scene(seed: int):
    """A noisy picture with a bluish ellipse, its exact mask, and a coarse one (a grid of 12 pixels)."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(mask, (55 + 3 * seed, 45), (34, 22 + 2 * seed), 20 * seed, 0, 360, 1, -1)
    image = np.where(mask[..., None] == 1, (60, 90, 170), (170, 150, 120)) + rng.normal(
        0, 8, (HEIGHT, WIDTH, 3)
    )
    small = cv2.resize(
        mask.astype(np.float32), (WIDTH // 12, HEIGHT // 12), interpolation=cv2.INTER_AREA
    )
    coarse = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST) > 0.4
    return np.clip(image, 0, 255).astype(np.uint8), mask.astype(bool), coarse


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def opened(name, **options):
    return refiners.load(name).open(RefinerOptions(**options))


def test_grabcut_finds_the_border_and_touches_nothing_else():
    image, truth, coarse = scene(0)
    refiner = opened("grabcut")
    found = refiner.refine(image=image, mask=coarse)
    assert iou(found, truth) > 0.97 > 0.93 > iou(coarse, truth)
    distance = cv2.distanceTransform(coarse.astype(np.uint8), cv2.DIST_L2, 5)
    distance += cv2.distanceTransform(1 - coarse.astype(np.uint8), cv2.DIST_L2, 5)
    assert distance[found != coarse].max() <= 0.02 * np.hypot(HEIGHT, WIDTH) + 1
    assert (refiner.refine(image=image, mask=coarse) == found).all(), "the same bits every time"
    speck = np.zeros_like(coarse)
    speck[40, 40] = True
    assert (refiner.refine(image=image, mask=speck) == speck).all()


def test_an_empty_mask_stays_and_a_probability_counts_above_one_half():
    image, _, coarse = scene(1)
    turned = Opened(lambda _image, mask: ~mask, {})
    assert not turned.refine(image=image, mask=np.zeros_like(coarse)).any()
    assert (turned.refine(image=image, mask=np.where(coarse, 0.51, 0.5)) == ~coarse).all()
    for wrong in (coarse[1:], coarse.astype(np.uint8)):
        with pytest.raises(ValueError, match="mask"):
            turned.refine(image=image, mask=wrong)


needs_cascadepsp = pytest.mark.skipif(
    importlib.util.find_spec("segmentation_refinement") is None,
    reason="segmentation-refinement is not installed (extra `refine`)",
)


@pytest.fixture(scope="module")
def cascadepsp_weights(tmp_path_factory):
    """Random weights of the real network, saved as the published ones are, whose answer depends on the picture."""
    from hqsam.model._torchvision import ensure_torchvision

    ensure_torchvision()
    from segmentation_refinement.main import RefinementModule

    torch.manual_seed(0)
    net = RefinementModule().eval()
    image, _, coarse = scene(2)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None, :, :88, :96] / 128 - 1
    with torch.inference_mode():
        answer = net(pixels, torch.from_numpy(coarse[None, None, :88, :96] * 2.0 - 1).float())[
            "out_224"
        ]
        net.final_21.bias -= answer.median()
    folder = tmp_path_factory.mktemp("cascadepsp")
    torch.save(
        {f"module.{name}": value for name, value in net.state_dict().items()}, folder / "model"
    )
    return folder / "model"


@needs_cascadepsp
def test_cascadepsp_is_the_authors_package(cascadepsp_weights):
    import segmentation_refinement

    image, _, coarse = (array[4:76, 10:106] for array in scene(2))
    refiner = opened("cascadepsp", weights=cascadepsp_weights, device="cpu", long_side=96)
    found = refiner.refine(image=image, mask=coarse)
    theirs = segmentation_refinement.Refiner(
        "cpu", str(cascadepsp_weights.parent), download_and_check_model=False
    )
    wanted = theirs.refine(image, coarse.astype(np.uint8) * 255, L=96) > 127
    assert (found == wanted).all()
    assert 0.02 < found.mean() < 0.98, "random weights, but no constant"
    assert refiner.protocol["weights_published"] is False
    assert refiner.protocol["package"] == "segmentation-refinement 0.6"


@needs_cascadepsp
def test_cascadepsp_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match=r"weights are not given(.|\n)*releases/download/v1.0/model"
    ):
        opened("cascadepsp")
    with pytest.raises(UserError, match="do not exist"):
        opened("cascadepsp", weights=tmp_path / "none")
    torch.save({"module.x": torch.zeros(1)}, tmp_path / "model")
    with pytest.raises(UserError, match="not weights of CascadePSP"):
        opened("cascadepsp", weights=tmp_path / "model")
    monkeypatch.setitem(sys.modules, "segmentation_refinement", None)
    with pytest.raises(UserError, match=r"hqsam-pipeline\[refine\]"):
        opened("cascadepsp")


STAND_IN = """
import torch
from torch.nn import functional as F

from models.helper import GAIN


class CRMNet(torch.nn.Module):
    def __init__(self, backend="resnet34", pretrained=True):
        super().__init__()
        assert backend == "resnet50" and not pretrained
        self.gain = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, seg, coord, cell, transferCoord=None, transferFeat=None):
        assert x.shape[-2:] == seg.shape[-2:] and coord.shape == cell.shape
        fresh = transferFeat is None
        feat = seg if fresh else transferFeat
        corners = coord / (1 - cell / 2)  # from pixel centres to the aligned corners of the resized mask
        sampled = F.grid_sample(feat, corners.flip(-1)[:, None], align_corners=True, padding_mode="border")
        found = {"pred_224": torch.sigmoid(self.gain * GAIN * sampled[:, 0, 0, :, None])}
        return (found, coord, feat) if fresh else found
"""


@pytest.fixture
def crm_checkout(tmp_path):
    """A network of CRM's interface that answers with the mask that it is given, in CRM's place on disk."""
    folder = tmp_path / "checkout" / "models" / "network"
    folder.mkdir(parents=True)
    (folder / "crm_transferCoord_transferFeat.py").write_text(STAND_IN)
    (folder.parent / "helper.py").write_text("GAIN = 2.0\n")
    torch.save({"module.gain": torch.tensor([4.0])}, tmp_path / "weights")
    return {"repository": tmp_path / "checkout", "weights": tmp_path / "weights", "device": "cpu"}


def test_crm_asks_for_every_pixel_in_its_place(crm_checkout, monkeypatch):
    image, truth, _ = scene(1)
    truth = np.roll(truth, (-18, 22), axis=(0, 1))
    whole = opened("crm", **crm_checkout).refine(image=image, mask=truth)
    assert whole.shape == truth.shape
    assert iou(whole, truth) > 0.85, "the first round sees one pixel in eight"
    assert max(iou(whole[:, ::-1], truth), iou(whole[::-1], truth)) < 0.6, (
        "the mask is not symmetric"
    )
    monkeypatch.setattr(crm, "CHUNK", 1000)
    assert (opened("crm", **crm_checkout).refine(image=image, mask=truth) == whole).all()
    assert "models" not in sys.modules


def test_crm_says_what_is_missing(crm_checkout, tmp_path):
    with pytest.raises(UserError, match=r"code of CRM is not given(.|\n)*--repository"):
        opened("crm")
    with pytest.raises(UserError, match="not a checkout of CRM's code"):
        opened("crm", repository=tmp_path)
    with pytest.raises(UserError, match="weights are not given"):
        opened("crm", repository=crm_checkout["repository"])
    torch.save({"module.other": torch.zeros(1)}, tmp_path / "wrong")
    with pytest.raises(UserError, match="not weights of CRM"):
        opened("crm", **crm_checkout | {"weights": tmp_path / "wrong"})
    (crm_checkout["repository"] / "models" / "helper.py").unlink()
    with pytest.raises(UserError, match="cannot be imported"):
        opened("crm", **crm_checkout)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A repository of the sample profile in which COIFT is four ellipses and the predictions are coarse."""
    from tests.hqsam.test_predict import _prompt

    root = tmp_path_factory.mktemp("checkout")
    benchmark, predictions = (
        root / "data" / "benchmarks" / "coift",
        root / "data" / "predictions" / "coift-nano",
    )
    for folder in (benchmark, predictions):
        folder.mkdir(parents=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_bytes(
        (cli._COMMANDS.parents[2] / "configs" / "sample.yaml").read_bytes()
    )
    images, instances, prompts, found, members = [], [], [], [], []
    for n in range(4):
        image, truth, coarse = scene(n)
        key, size = f"img_{n}", {"height": HEIGHT, "width": WIDTH}
        members.append((f"{key}.png", encode_png(image)))
        images.append(
            {
                "key": key,
                "member": f"{key}.png",
                "shard": "images-00000.tar",
                **size,
                "image_id": n + 1,
                "video": None,
                "video_id": None,
                "frame": None,
                "pixel_digest": "0",
                "pdq": b"",
                "pdq_quality": 0,
                "tiles": b"",
            }
        )
        instances.append(
            {
                "instance_id": key,
                "key": key,
                "image_id": n + 1,
                "category_id": 1,
                "track_id": None,
                "iscrowd": 0,
                "area": float(truth.sum()),
                "rle": rle.encode(truth),
                **size,
            }
        )
        prompts.append(
            _prompt(key, 0, "box", HEIGHT, WIDTH, instance_id=key) | {"prompt_set": "gt_box"}
        )
        found += [
            {
                "prompt_id": prompts[-1]["prompt_id"],
                "key": key,
                "prompt_set": "gt_box",
                "system": system,
                **size,
                "rle": rle.encode(mask),
                "iou_pred": 0.9,
                "mask_area": int(mask.sum()),
            }
            for system, mask in (("sam", coarse), ("hq_token", truth))
        ]
    write_tar(benchmark / "images-00000.tar", members)
    for name, rows in {"images": images, "instances": instances, "prompts": prompts}.items():
        manifest.write_rows(benchmark / f"{name}.parquet", name, rows)
    index = {
        "version": 1,
        "benchmark": "coift",
        "kind": "masks",
        "prompt_sets": ["gt_box"],
        "dataset_version": "1",
    }
    atomic.write_json(benchmark / "index.json", index)
    import pyarrow as pa

    for part in (0, 1):
        manifest.write_table(
            predictions / f"part-{part:05d}.parquet",
            pa.Table.from_pylist(found[4 * part : 4 * part + 4]),
        )
    atomic.write_json(
        predictions / "predict.json",
        {"model": "nano", "systems": ["sam", "hq_token"], "resize": "stretch"},
    )
    return root


def tree(root):
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path: path.read_bytes() for path in files if ".hqsam" not in path.parts}


def test_the_command_scores_both_and_changes_nothing(checkout, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(checkout)
    before = tree(checkout)
    assert (
        cli.run(
            [
                "refine",
                "coift",
                "nano",
                "--refiner",
                "grabcut",
                "--json",
                str(tmp_path / "out.json"),
            ]
        )
        == 0
    )
    assert tree(checkout) == before
    out = json.loads((tmp_path / "out.json").read_text())
    assert (out["benchmark"], out["model"], out["system"], out["refiner"]["name"]) == (
        "coift",
        "nano",
        "sam",
        "grabcut",
    )
    [result] = out["results"]
    original, refined = result["original"], result["refined"]
    want = [iou(scene(n)[2], scene(n)[1]) for n in range(4)]
    assert original["metrics"]["mIoU"] == pytest.approx(np.mean(want))
    assert refined["metrics"]["mBIoU"] > original["metrics"]["mBIoU"] + 0.1
    difference = result["differences"]["iou"]
    assert difference["difference"] == pytest.approx(
        refined["metrics"]["mIoU"] - original["metrics"]["mIoU"]
    )
    assert difference["low"] is None  # four images are too few to tell
    assert difference["n_clusters"] == 4
    assert refined["protocol"]["refiner"] == out["refiner"]
    assert refined["protocol_hash"] != original["protocol_hash"]
    assert {
        k for k in refined["protocol"] if refined["protocol"][k] != original["protocol"].get(k)
    } == {"refiner"}
    shown = capsys.readouterr().out
    assert "sam + grabcut" in shown
    assert f"mIoU {100 * original['metrics']['mIoU']:.1f}" in shown


def test_what_is_missing_is_one_message(checkout, capsys, monkeypatch):
    monkeypatch.chdir(checkout)
    for words, message in {
        ("coift", "nano", "--refiner", "grabcat"): "one of cascadepsp, crm, grabcut",
        ("coift", "nano", "--refiner", "crm"): "--repository",
        ("coift", "nano", "--refiner", "grabcut", "--system", "hq_sum"): "no predictions of hq_sum",
        ("hrsod", "nano", "--refiner", "grabcut"): "dvc repro predict",
        ("coifd", "nano", "--refiner", "grabcut"): "did you mean coift",
    }.items():
        assert cli.run(["refine", *words]) == 1
        assert message in capsys.readouterr().err


def test_no_difference_is_none(checkout):
    same = Opened(lambda _image, mask: mask, {"name": "same"})
    data = checkout / "data"
    found = refine.evaluate(
        benchmark=data / "benchmarks" / "coift",
        predictions=data / "predictions" / "coift-nano",
        system="hq_token",
        opened=same,
        options=score_options({"metric": "masks", "version": 1}),
        progress=lambda *_: None,
        draws=BOOTSTRAP,
    )
    [result] = found["results"]
    assert (
        result["original"]["metrics"] == result["refined"]["metrics"] == {"mIoU": 1.0, "mBIoU": 1.0}
    )
    assert [d["difference"] for d in result["differences"].values()] == [0.0, 0.0]
