"""Training steps for the benchmarks: this project's, and the authors' as their train.py takes it.

Inputs are the same in both: random pictures, one blob each as the label, a box prompt for the first
and a noisy mask for the second. Weights are random. No code of theirs is copied: the step is put
together from the classes of their package
`segment-anything-hq`, in the order of their loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from hqsam.model._torchvision import ensure_torchvision
from hqsam.model.build import build_model
from hqsam.model.options import ModelOptions
from hqsam.training.batch import Batch, View, collate
from hqsam.training.feed import encode
from hqsam.training.group import Group
from hqsam.training.loss import mask_loss
from hqsam.training.options import TrainOptions
from hqsam.training.state import RunState, TrainProgress
from hqsam.training.step import Step
from hqsam_datasets.prompts import PromptArrays

POINTS = 12544


def views(n: int, size: int) -> Batch:
    """`n` views with prompts in turn: box, noisy mask."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(n):
        ys, xs = np.mgrid[:size, :size]
        y, x = rng.uniform(0.4, 0.6, 2) * size
        inside = (ys - y) ** 2 + (xs - x) ** 2 < (0.2 * size) ** 2
        box = np.array(
            [xs[inside].min(), ys[inside].min(), xs[inside].max(), ys[inside].max()], np.float32
        )
        mask = inside.astype(np.uint8) * np.uint8(255)
        made.append(
            View(
                key=str(number),
                view=0,
                image=rng.integers(0, 256, (size, size, 3), np.uint8),
                mask=mask,
                prompt=("box", "noise_mask")[number % 2],
                given=(PromptArrays(box=box), PromptArrays(mask=mask[::4, ::4]))[number % 2],
            )
        )
    return collate(made)


class Ours:
    """The step of `hqsam.training`.

    Args:
        backbone: name.
        device: where.
        changes: of `TrainOptions`.
    """

    def __init__(self, backbone: str, device: str = "cpu", **changes: Any) -> None:
        self.options = TrainOptions(points=POINTS, **changes)
        self.model = build_model(ModelOptions(backbone=backbone), seed=0).to(device).train()
        self.step = Step(self.model, self.options, Group(0, 1, torch.device(device)), 0)
        parameters = self.model.trainable()
        adam = torch.optim.Adam(parameters.values(), lr=1e-3)
        self.state = RunState(parameters, adam, torch.Generator().manual_seed(0), TrainProgress())

    def encode(self, batch: Batch) -> Any:
        """The frozen part."""
        return encode(self.model, batch, bf16=self.options.precision == "bf16")

    def learn(self, batch: Batch, encoded: Any) -> float:
        """The rest of the step; the loss."""
        loss, _ = self.step.take(self.state, batch, encoded, ())
        return float(loss.total)


class Theirs:
    """The authors' step.

    Args:
        backbone: `vit_b`, `vit_l` or `vit_h`.
    """

    def __init__(self, backbone: str) -> None:
        ensure_torchvision()
        from segment_anything.modeling import MaskDecoder, TwoWayTransformer
        from segment_anything_hq import sam_model_registry

        torch.manual_seed(0)
        self.sam = sam_model_registry[backbone]().eval()
        self.net = self.sam.mask_decoder.train()
        transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
        self.decoder = MaskDecoder(transformer_dim=256, transformer=transformer).eval()
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad = name.startswith(("hf_", "compress_vit", "embedding_"))
        self.adam = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.generator = torch.Generator().manual_seed(0)

    def learn(self, batch: Batch) -> float:
        """One step; the loss."""
        images = batch.image_B3SS.float().permute(0, 2, 3, 1).cpu().numpy()
        prompts, outputs = self._vanilla(images, batch)
        masks = torch.cat([self._decode(outputs, prompts, n) for n in range(len(batch))])
        loss = mask_loss(masks, batch.label_B1SS, n_points=POINTS, generator=self.generator)
        self.adam.zero_grad()
        loss.total.backward()
        self.adam.step()
        return float(loss.total.detach())

    @torch.no_grad()
    def _vanilla(self, images: Any, batch: Batch) -> tuple[list[Any], tuple[Any, Any]]:
        """The whole vanilla SAM, whose masks nobody uses: encoder, prompts, decoder image by image, masks at full size."""
        inputs = [
            torch.as_tensor(image.astype(np.uint8)).permute(2, 0, 1).contiguous()
            for image in images
        ]
        embeddings, early = self.sam.image_encoder(
            torch.stack([self.sam.preprocess(x) for x in inputs])
        )
        prompts = []
        for n in range(len(batch)):
            given = batch.given[n]
            box = None if given.box is None else torch.from_numpy(given.box)[None]
            noise = (
                None
                if given.mask is None
                else torch.from_numpy(given.mask.astype(np.float32))[None, None]
            )
            sparse, dense = self.sam.prompt_encoder(points=None, boxes=box, masks=noise)
            low, _ = self.decoder(
                image_embeddings=embeddings[n : n + 1],
                image_pe=self.sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            functional.interpolate(low, images.shape[1:3], mode="bilinear", align_corners=False) > 0  # noqa: B015
            prompts.append((sparse, dense))
        return prompts, (embeddings, early)

    def _decode(self, outputs: tuple[Any, Any], prompts: list[Any], n: int) -> torch.Tensor:
        embeddings, early = outputs
        sparse, dense = prompts[n]
        masks, _ = self.net.predict_masks(
            image_embeddings=embeddings[n : n + 1],
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            hq_features=self._fused(embeddings, early, n),
        )
        return masks[:, -1:]

    def _fused(self, embeddings: Any, early: Any, n: int) -> torch.Tensor:
        """The HQ features of the batch, computed with its first image."""
        if n == 0:
            self._features = self.net.embedding_encoder(embeddings) + self.net.compress_vit_feat(
                early[0].permute(0, 3, 1, 2)
            )
        return self._features[n : n + 1]
