"""Models of their authors' packages as systems: the package's own masks and scores, and what is refused.

The packages themselves are run where they are installed; SAM's own package, whose predictor
MobileSAM's and EfficientViT-SAM's copy, is always there.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hqsam import systems
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.prompt import Prompt
from hqsam.systems._packages import PackageModel, Rules, load_whole
from hqsam.systems.base import Context, Entry
from hqsam_base.errors import UserError
from tests.hqsam import hub_models
from tests.hqsam.models import picture

OPTIONS = PredictOptions(device="cpu")
IMAGE = picture(48, 96)
BOXES = ((10.0, 5.0, 60.0, 40.0), (3.0, 2.0, 20.5, 30.0))
POINTS = (((30.0, 20.0), (60.0, 30.0)), ((12.5, 9.0), (70.0, 40.0)))
LABELS = ((1, 0), (1, 1))
KINDS = {"mobile_sam": "mobile_sam", "efficientvit_sam": "efficientsam", "sam2": "sam2"}


def masks(one: PackageModel, prompts: list[Prompt], image: Any = IMAGE) -> tuple[Any, list[float]]:
    [encoded] = one.encode([one.prepare(image)])
    [found] = one.decode(encoded, prompts).values()
    return np.stack([one.to_image(encoded, v).full() for v in found.values]), list(found.iou)


def check(one: PackageModel, choose: str) -> None:
    """Equal masks and scores as the package's predictor gives, one prompt at a time; and a model that sees its image."""
    multi = choose == "best_iou"
    low = np.random.default_rng(0).normal(size=(one.rules.mask_side,) * 2).astype(np.float32)
    cases: list[tuple[list[Prompt], str, list[Any]]] = [
        ([Prompt(box=b) for b in BOXES], "box", [np.array(b) for b in BOXES]),
        (
            [Prompt(points=p, labels=n) for p, n in zip(POINTS, LABELS, strict=True)],
            "point_coords",
            [np.array(p) for p in POINTS],
        ),
        ([Prompt(box=BOXES[0], mask_input=low)], "box", [np.array(BOXES[0])]),
    ]
    seen = []
    for prompts, name, values in cases:
        found, iou = masks(one, prompts)
        one.predictor.set_image(IMAGE)
        for n, value in enumerate(values):
            given: dict[str, Any] = {name: value, "multimask_output": multi}
            if name == "point_coords":
                given["point_labels"] = np.array(LABELS[n])
            if prompts[n].mask_input is not None:
                given["mask_input"] = low[None]
            theirs, scores, _ = one.predictor.predict(**given)
            best = int(np.argmax(scores))
            assert iou[n] == pytest.approx(float(scores[best]), abs=2e-5)
            assert (found[n] != theirs[best].astype(bool)).mean() <= 1e-3
        seen.append(found[0])
    assert any(0.01 < mask.mean() < 0.99 for mask in seen)
    other, _ = masks(one, cases[0][0], picture(48, 96, seed=5))
    assert (other[0] != seen[0]).any() and (seen[2] != seen[0]).any()
    assert {"resize", "input_side", "iou_scale", "choose"} <= one.protocol.keys()


@pytest.mark.parametrize("choose", ["family", "best_iou"])
def test_the_predictors_own_masks_and_scores(choose: str) -> None:
    from segment_anything import SamPredictor
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        TwoWayTransformer,
    )

    from hqsam.model.sam_api import Sam

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = ImageEncoderViT(
            img_size=64, patch_size=16, embed_dim=32, depth=1, num_heads=2, out_chans=32
        )
        prompt = PromptEncoder(32, (4, 4), (64, 64), 16)
        transformer = TwoWayTransformer(depth=2, embedding_dim=32, num_heads=2, mlp_dim=32)
        decoder = MaskDecoder(transformer_dim=32, transformer=transformer)
        sam = Sam(encoder, prompt, decoder).eval()
    hub_models.redrawn(sam)
    rules = Rules(64, 16, "longest_side", "linear")
    check(PackageModel("x", SamPredictor(sam), rules, choose, OPTIONS, {}), choose)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {"image_encoder.x": torch.zeros(2)}}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="another model") as error:
        load_whole(torch.nn.Linear(2, 2), tmp_path / "x.pt", "systems.x.checkpoint")
    assert error.value.key == "systems.x.checkpoint" and error.value.cure


def entry(kind: str, path: Path, **more: Any) -> Entry:
    if kind == "efficientvit_sam":
        more = {"model": "efficientvit-sam-l0", **more}
    options = systems.load(kind).options
    return Entry("x", options.model_validate({"kind": kind, "checkpoint": path, **more}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_that_is_not_installed_is_named(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="is not installed") as error:
        systems.load(kind).files(entry(kind, tmp_path / "x.pt"))
    assert "pip install" in str(error.value.cure) and error.value.key == "systems.x.kind"


@pytest.mark.full("models of full size, and packages that this project does not install")
@pytest.mark.parametrize("choose", ["family", "best_iou"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_package(kind: str, choose: str, tmp_path: Path) -> None:
    from hqsam.model._torchvision import ensure_torchvision

    ensure_torchvision()
    pytest.importorskip(KINDS[kind])
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    found = systems.load(kind)
    one = entry(kind, path, choose=choose)
    model, _ = found.build(importlib.import_module(KINDS[kind]).__name__, one.options, "systems.x")
    hub_models.redrawn(model)
    torch.save(model.state_dict() if kind != "sam2" else {"model": model.state_dict()}, path)
    opened = found.open(one, Context(None, None, OPTIONS))
    assert isinstance(opened, PackageModel)
    check(opened, choose)
