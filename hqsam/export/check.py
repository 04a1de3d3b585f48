"""ONNX files against PyTorch: the same inputs through onnxruntime and through the code that the predictor runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hqsam.api.predictor import decode
from hqsam.export.parts import DecoderOptions, decoder_inputs, decoder_outputs
from hqsam.model.hq_sam import Encoded, HQSam
from hqsam.model.preprocess import Frame

Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Difference:
    """How far a file's results are from PyTorch's.

    Attributes:
        largest: Largest absolute difference of any output.
        scale: Largest absolute value of that output.
    """

    largest: float
    scale: float

    @property
    def share(self) -> float:
        """The difference, relative to the largest value where that is above 1."""
        return self.largest / max(1.0, self.scale)


@dataclass(frozen=True)
class PromptCase:
    """Prompts of one kind, P of them.

    Attributes:
        points: Points of each prompt.
        boxes: Whether each has a box.
        masks: Whether each has a mask input.
        prompts: P.
        size: (H, W) of the original image.
    """

    points: int
    boxes: bool
    masks: bool
    prompts: int
    size: tuple[int, int]


CASES = (
    PromptCase(points=0, boxes=True, masks=False, prompts=3, size=(300, 451)),
    PromptCase(points=2, boxes=False, masks=False, prompts=1, size=(97, 64)),
    PromptCase(points=3, boxes=True, masks=True, prompts=2, size=(120, 400)),
    PromptCase(points=0, boxes=False, masks=True, prompts=2, size=(80, 80)),
    PromptCase(points=12, boxes=True, masks=False, prompts=5, size=(33, 200)),
)
"""Boxes, points, masks and mixtures; one and several prompts; several sizes and aspect ratios."""


def session(path: Path) -> Any:
    """Open an onnxruntime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # warnings about initialisers that its own optimiser removes
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def compare_encoder(model: HQSam, path: Path) -> Difference:
    """Encode one image both ways."""
    side = model.backbone.image_size
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    expected = model.encode(image)
    found = session(path).run(["image_embeddings", "early_features"], {"image": image.numpy()})
    return _worst(found, [expected.final_BCHW, expected.early_BVHW])


def compare_decoder(model: HQSam, path: Path, options: DecoderOptions) -> Difference:
    """Decode every one of ``CASES`` both ways."""
    runtime = session(path)
    encoded = random_features(model)
    found = [
        compare_case(model, runtime, encoded, case, options, seed)
        for seed, case in enumerate(CASES)
    ]
    return max(found, key=lambda difference: difference.share)


@torch.no_grad()
def compare_case(
    model: HQSam,
    runtime: Any,
    encoded: Encoded,
    case: PromptCase,
    options: DecoderOptions,
    seed: int,
) -> Difference:
    """Run one case through the file and through prompt encoder, decoder and ``postprocess_masks``.

    Args:
        model: What the file was made of.
        runtime: Of ``session``.
        encoded: Features of one image.
        case: The prompts.
        options: Of the file.
        seed: Of the prompts' coordinates.
    """
    prompts = _random_prompts(model, case, seed)
    embedded = model.embed_prompts(**prompts)
    masks = decode(model, encoded, embedded, options.output, multimask=options.multimask)
    expected = [masks.iou_PK, masks.logits_PKhw]
    if not options.low_res_only:
        resized = Frame(case.size[0], case.size[1], model.backbone.image_size).resized
        expected.insert(0, model.sam.postprocess_masks(masks.logits_PKhw, resized, case.size))
    feeds = onnx_inputs(encoded, model.backbone.mask_size, case.size, **prompts)
    given = {name: feeds[name] for name in decoder_inputs(options)}
    return _worst(runtime.run(list(decoder_outputs(options)), given), expected)


def onnx_inputs(
    encoded: Encoded,
    mask_size: int,
    size: tuple[int, int],
    *,
    points_PN2: Tensor | None = None,
    labels_PN: Tensor | None = None,
    boxes_P4: Tensor | None = None,
    masks_P1hw: Tensor | None = None,
) -> Arrays:
    """Return the arguments of ``HQSam.embed_prompts`` as inputs of a decoder file.

    Args:
        encoded: Features of one image.
        mask_size: m.
        size: (H, W) of the original image.
        points_PN2: As in ``embed_prompts``, likewise the rest.
        labels_PN: Labels.
        boxes_P4: Boxes.
        masks_P1hw: Mask inputs.
    """
    p = next(len(t) for t in (points_PN2, boxes_P4, masks_P1hw) if t is not None)
    xy, labels = [torch.zeros(p, 0, 2)], [torch.zeros(p, 0)]
    if points_PN2 is not None and labels_PN is not None:
        xy, labels = [points_PN2], [labels_PN.float()]
        if boxes_P4 is None:
            xy.append(torch.zeros(p, 1, 2))
            labels.append(-torch.ones(p, 1))
    if boxes_P4 is not None:
        xy.append(boxes_P4.reshape(p, 2, 2))
        labels.append(torch.tensor([2.0, 3.0]).expand(p, 2))
    tensors = {
        "image_embeddings": encoded.final_BCHW,
        "early_features": encoded.early_BVHW,
        "point_coords": torch.cat(xy, dim=1),
        "point_labels": torch.cat(labels, dim=1),
        "mask_input": torch.zeros(p, 1, mask_size, mask_size) if masks_P1hw is None else masks_P1hw,
        "has_mask_input": torch.full((p,), float(masks_P1hw is not None)),
        "orig_im_size": torch.tensor(size, dtype=torch.float32),
    }
    return {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}


def random_features(model: HQSam) -> Encoded:
    """Return random features of the size that a neck with layer norm gives."""
    backbone, generator = model.backbone, torch.Generator().manual_seed(0)
    side = backbone.embedding_size
    shapes = ((1, backbone.decoder_dim, side, side), (1, backbone.vit_dim, side, side))
    final, early = (torch.randn(shape, generator=generator) for shape in shapes)
    return Encoded(final, early)


def _random_prompts(model: HQSam, case: PromptCase, seed: int) -> dict[str, Tensor | None]:
    generator, p = torch.Generator().manual_seed(seed), case.prompts
    side, small = model.backbone.image_size, model.backbone.mask_size
    corners = (torch.rand(p, 2, 2, generator=generator) * side).sort(dim=1).values
    return {
        "points_PN2": torch.rand(p, case.points, 2, generator=generator) * side
        if case.points
        else None,
        "labels_PN": torch.randint(0, 2, (p, case.points), generator=generator)
        if case.points
        else None,
        "boxes_P4": corners.reshape(p, 4) if case.boxes else None,
        "masks_P1hw": 5 * torch.randn(p, 1, small, small, generator=generator)
        if case.masks
        else None,
    }


def _worst(found: list[npt.NDArray[np.float32]], expected: list[Tensor]) -> Difference:
    pairs = [
        (np.asarray(f, np.float64), e.double().numpy())
        for f, e in zip(found, expected, strict=True)
    ]
    wrong = [(f.shape, e.shape) for f, e in pairs if f.shape != e.shape]
    if wrong:
        raise ValueError(f"shape {wrong[0][0]} instead of {wrong[0][1]}")
    gaps = [Difference(float(np.abs(f - e).max()), float(np.abs(e).max())) for f, e in pairs]
    return max(gaps, key=lambda gap: gap.share)
