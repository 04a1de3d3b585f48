"""Steps and predictions on a device that is not the host's: torch's `meta` stands for a GPU, which has the same rule.

Its tensors have shapes and no values, so nothing is computed; but whatever is left on the host and
meets one of them is an error, as beside a GPU. The attention takes the form that it has there.
"""

import contextlib

import numpy as np
import pytest
import torch
from torch.fx.experimental import _config

from hqsam.api.predictor import SamHQPredictor
from hqsam.model import backbones, variants
from hqsam.model.hq_sam import HQSam
from hqsam.training import step as steps
from hqsam.training.batch import Batch
from hqsam.training.feed import encode
from hqsam.training.group import Group
from hqsam.training.options import TrainOptions
from hqsam.training.state import RunState, TrainProgress
from hqsam_datasets.prompts import PromptArrays

META = torch.device("meta")


@pytest.fixture(autouse=True)
def _without_values(monkeypatch):
    """What needs values to be decided: whether the loss is finite, and which labels there are (all kinds)."""
    monkeypatch.setattr(steps, "_check_finite", lambda *_: None)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(
        torch, "is_autocast_enabled", lambda _device: False
    )  # torch knows no autocast for `meta`
    with _config.patch(meta_nonzero_assume_all_nonzero=True):
        yield


def model_of(backbone: str, variant: str) -> HQSam:
    found = backbones.load(backbone)
    return HQSam(backbone=found, sam=found.build(), head=variants.build(variant, found)).to(META)


def host_batch(model: HQSam, n: int) -> Batch:
    """A batch where the loader leaves it on a CPU: every kind of prompt."""
    side, small = model.backbone.image_size, model.backbone.mask_size
    kinds = {
        "box": PromptArrays(box=np.ones(4, np.float32)),
        "point": PromptArrays(points=np.ones((10, 2), np.float32), labels=np.ones(10, np.int64)),
        "noise_mask": PromptArrays(mask=np.zeros((small, small), np.uint8)),
    }
    names = tuple(list(kinds)[i % 3] for i in range(n))
    return Batch(
        keys=tuple(map(str, range(n))),
        image_B3SS=torch.zeros(n, 3, side, side, dtype=torch.uint8),
        label_B1SS=torch.zeros(n, 1, side, side),
        prompts=names,
        given=tuple(kinds[name] for name in names),
    )


# The default, one that trains SAM's own decoder, one that changes the encoder, and the other kind
# of encoder.
TAKEN = [("nano", "hq"), ("nano", "finetune_sam"), ("nano", "lora_encoder"), ("vit_tiny", "hq")]
MORE = pytest.mark.full("a variant's parameters move with those of the head that it extends")
LEFT = [
    pytest.param("nano", name, marks=MORE)
    for name in variants.names()
    if ("nano", name) not in TAKEN
]


@pytest.mark.parametrize("backbone, variant", [*TAKEN, *LEFT])
def test_a_step_keeps_to_the_models_device(backbone, variant):
    model = model_of(backbone, variant).train()
    parameters = model.trainable()
    state = RunState(
        parameters, torch.optim.Adam(parameters.values()), torch.Generator(), TrainProgress()
    )
    options = TrainOptions(
        points=64, loss_region="boundary", supervise="both", mask_prompt="logits", ema=0.5
    )
    step, batch = steps.Step(model, options, Group(0, 1, META), 2), host_batch(model, 3)
    features = None if model.head.changes_encoder else encode(model, batch)
    for _ in range(2):
        loss, _answers = step.take(state, batch, features)
    assert loss.bce.device == META
    assert {value.device for value in state.average.values()} == {META}


@pytest.mark.parametrize("variant", ["hq", "finetune_sam"])
@torch.no_grad()
def test_a_prediction_keeps_to_the_models_device(variant):
    model = model_of("nano", variant).eval()
    side, small = model.backbone.image_size, model.backbone.mask_size
    encoded = model.encode(model.preprocess(torch.zeros(1, 3, side, side, dtype=torch.uint8)))
    fused = model.fuse(encoded)
    for given in (
        {"boxes_P4": torch.ones(3, 4, device=META)},
        {
            "points_PN2": torch.ones(3, 2, 2, device=META),
            "labels_PN": torch.ones(3, 2, device=META),
        },
        {"masks_P1hw": torch.ones(3, 1, small, small, device=META)},
    ):
        prompts = model.embed_prompts(**given)
        for multimask in (False, True):
            hq = model.decode_hq(encoded, prompts, multimask=multimask, fused_BFhw=fused)
            sam = model.decode_sam(encoded, prompts, multimask=multimask)
            assert {hq.sum_P1hw.device, hq.hq_P1hw.device, sam.logits_PKhw.device} == {META}
    predictor = SamHQPredictor(model)
    predictor.set_torch_image(
        torch.zeros(1, 3, side, side, dtype=torch.uint8, device=META), (side, side)
    )
    assert predictor.enlarged(torch.zeros(2, 1, small, small, device=META)).device == META
    assert predictor.enlarged(torch.zeros(0, 1, small, small, device=META)).device == META
