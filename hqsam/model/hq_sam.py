"""HQ-SAM: a frozen ``segment_anything`` SAM plus the HQ head, with one image encoding for both.

Shape letters: P prompts; B images; S input side; C decoder width; V early width; H, W embedding
side; h = 4H, w = 4W. See ``hq_decoder`` for the rest.
"""

# ruff: noqa: N802, N815 -- shape suffixes are the house style, attributes included
from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hqsam.errors import InputError
from hqsam.model.attention import fuse_attention
from hqsam.model.backbones.base import Backbone
from hqsam.model.head import Head
from hqsam.model.hq_decoder import HQHead, Prompts, SamMasks, best_mask, run_transformer, sam_masks
from hqsam.model.tensor_input import PromptTensors, check_transformed

_PROMPT_KEYS = ("point_coords", "point_labels", "boxes", "mask_inputs")
_TAP: ContextVar[list[Tensor] | None] = ContextVar("hqsam_early_feature", default=None)


def _tap(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
    """Forward hook of the early block: hand its output to the ``encode`` call of this thread, if any."""
    taps = _TAP.get()
    if taps is not None:
        taps.append(output)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def _exact(x: Tensor) -> Tensor:
    """Coordinates in more than half precision, in which neighbouring pixels are one."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _in_float32(module: nn.Module, *inputs: Any, **named: Any) -> Any:
    """Call a module in float32 whatever type the model was moved to.

    SAM's prompt encoder makes its grids and coordinates in float32 itself and fails with weights of
    another type. It is tiny.
    """
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    if all(value.dtype == torch.float32 for value in state.values()):
        return module(*inputs, **named)
    exact = {name: value.float() for name, value in state.items()}
    return torch.func.functional_call(module, exact, inputs, named)


@dataclass(frozen=True)
class Encoded:
    """What the image encoder computes once per image.

    Attributes:
        final_BCHW: Image embedding.
        early_BVHW: Output of the first global-attention block.
        hq: The same images through the HQ system's own encoder, if it has one
            (``changes_encoder``).
    """

    final_BCHW: Tensor
    early_BVHW: Tensor
    hq: Encoded | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.final_BCHW)

    def __getitem__(self, index: slice | Tensor) -> Encoded:
        """Images by slice or index tensor, e.g. one row per prompt."""
        hq = None if self.hq is None else self.hq[index]
        return Encoded(self.final_BCHW[index], self.early_BVHW[index], hq=hq)

    def float(self) -> Encoded:
        """The same in float32."""
        return self.to(torch.float32)

    def to(self, dtype: torch.dtype) -> Encoded:
        """The same in another type."""
        hq = None if self.hq is None else self.hq.to(dtype)
        return Encoded(self.final_BCHW.to(dtype), self.early_BVHW.to(dtype), hq=hq)

    @property
    def for_hq(self) -> Encoded:
        """The features that the HQ decoder sees."""
        return self if self.hq is None else self.hq


@dataclass(frozen=True)
class HQMasks:
    """HQ-SAM's prediction at low resolution.

    Attributes:
        hq_P1hw: Logits of the HQ token alone.
        sam: SAM's masks from the same pass. Close to, but not, vanilla SAM: the HQ token took part
            in attention.
        own_token: Whether ``hq_P1hw`` comes from a token beside SAM's. Where SAM's own (tuned)
            token predicts the mask there is nothing to add to it.
    """

    hq_P1hw: Tensor
    sam: SamMasks
    own_token: bool = True

    @property
    def sum_P1hw(self) -> Tensor:
        """Logits of SAM's (best) mask plus the HQ token's: the paper's default output (section 3.3)."""
        best = best_mask(self.sam).logits_PKhw
        return best + self.hq_P1hw if self.own_token else best


class HQSam(nn.Module):
    """A frozen SAM and a trainable head: HQ-SAM's, or another variant's.

    ``sam`` never trains: its parameters do not require gradients and it stays in eval mode.
    Gradients still flow *through* its transformer to the HQ token.

    Attributes:
        backbone: The description that the SAM was built from.
        sam: ``segment_anything`` ``Sam``; its encoder's attention runs fused (see ``attention``:
            same parameters, same result).
        head_loaded: Whether the head's parameters came from a file; untrained ones mean nothing.
        head: What trains; for ``hq``, ``head.state_dict()`` has the published key names. A variant
            that copies parts of SAM copies them here, so SAM's weights must be loaded before.
    """

    def __init__(self, *, backbone: Backbone, sam: Any, head: Head | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.sam = sam.requires_grad_(False).eval()
        self.head_loaded = False
        self.head: Head = head or HQHead.of(backbone)
        fuse_attention(self.sam.image_encoder)
        self.sam.image_encoder.get_submodule(backbone.early).register_forward_hook(_tap)
        self.head.attach(self.sam)

    def train(self, mode: bool = True) -> HQSam:
        """Switch the head only; SAM stays in eval mode."""
        super().train(mode)
        self.sam.eval()
        return self

    @property
    def variant(self) -> str:
        """Name of the system, a file of ``hqsam/model/variants``."""
        return self.head.variant

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name: what the optimiser gets, a head file holds and a count counts."""
        return dict(self.head.named_parameters())

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.head.parameters()).device

    @property
    def dense_pe_1CHW(self) -> Tensor:
        """Positional encoding of the image grid."""
        encoder = self.sam.prompt_encoder
        pe: Tensor = _in_float32(encoder.pe_layer, encoder.image_embedding_size).unsqueeze(0)
        return self._for_decoder(pe)

    def _as(self, module: nn.Module, x: Tensor) -> Tensor:
        """Cast a tensor to a module's floating-point type; inside autocast, which casts itself, leave it."""
        return x if torch.is_autocast_enabled(x.device.type) else x.to(_dtype(module))

    def _for_decoder(self, x: Tensor) -> Tensor:
        return self._as(self.sam.mask_decoder, x)

    @property
    def image_encoder(self) -> Any:
        """SAM's, for scripts that ask it for ``img_size``."""
        return self.sam.image_encoder

    @property
    def mask_threshold(self) -> float:
        """Logit above which a pixel is foreground."""
        return float(self.sam.mask_threshold)

    @property
    def image_format(self) -> str:
        """Order of the channels that ``preprocess`` expects."""
        return str(self.sam.image_format)

    @torch.no_grad()
    def forward(
        self,
        batched_input: Sequence[Mapping[str, Any]],
        multimask_output: bool,
        hq_token_only: bool = False,
    ) -> list[dict[str, Tensor]]:
        """Segment several images end to end, as calling ``segment_anything``'s ``Sam`` does.

        Args:
            batched_input: For each image a dict with ``image``, ``[3,h,w]``, values 0..255, resized
                to the longest side S;
                ``original_size``, (H, W) before; and prompts as ``predict_torch`` takes them, in
                the resized frame:
                ``point_coords`` with ``point_labels``, ``boxes``, ``mask_inputs``.
            multimask_output: Whether SAM's part is the best of its three masks instead of its
                single one.
            hq_token_only: The HQ token's mask alone instead of its sum with SAM's.

        Returns:
            For each image a dict with ``masks`` bool ``[P,1,H,W]``, ``iou_predictions`` ``[P,1]``
            and
            ``low_res_logits`` ``[P,1,h,w]``.

        Raises:
            InputError: An image of another size or range of values, without prompts, or with
                prompts that make no sense.
        """
        for record in batched_input:
            check_transformed(
                record["image"][None], tuple(record["original_size"]), self.backbone.image_size
            )
        encoded = self.encode(
            torch.cat([self.preprocess(record["image"][None]) for record in batched_input])
        )
        return [
            self._segment(record, encoded[n : n + 1], multimask_output, hq_token_only)
            for n, record in enumerate(batched_input)
        ]

    def _segment(
        self, record: Mapping[str, Any], encoded: Encoded, multimask: bool, hq_token_only: bool
    ) -> dict[str, Tensor]:
        given = PromptTensors(*(record.get(name) for name in _PROMPT_KEYS))
        size = tuple(record["image"].shape[-2:])
        given.check(size=size, mask_size=self.backbone.mask_size)
        prompts = self.embed_prompts(
            points_PN2=given.points,
            labels_PN=given.labels,
            boxes_P4=given.boxes,
            masks_P1hw=given.masks,
        )
        found = self.decode_hq(encoded, prompts, multimask=multimask)
        logits = found.hq_P1hw if hq_token_only else found.sum_P1hw
        masks = (
            self.sam.postprocess_masks(logits.float(), size, tuple(record["original_size"]))
            > self.mask_threshold
        )
        return {
            "masks": masks,
            "iou_predictions": best_mask(found.sam).iou_PK,
            "low_res_logits": logits,
        }

    def preprocess(self, image_B3HW: Tensor) -> Tensor:
        """Normalise colours, then zero-pad right and bottom to S x S: ``Sam.preprocess``.

        Args:
            image_B3HW: RGB, any dtype, values 0..255, sides at most S.

        Returns:
            ``[B,3,S,S]`` of the image encoder's type, float32 by default.
        """
        x: Tensor = self.sam.preprocess(image_B3HW.to(self.device))
        return self._as(self.sam.image_encoder, x)

    def encode(self, input_B3SS: Tensor) -> Encoded:
        """Encode images once, for SAM and HQ-SAM; twice if the variant changes the encoder.

        Args:
            input_B3SS: Output of ``preprocess``.

        Returns:
            Final and early features. No gradients are needed by the frozen encoder: callers that
            only predict wrap this in ``torch.inference_mode`` or ``torch.no_grad``.

        Raises:
            InputError: Only one of the decoder and the head was moved to another floating-point
                type.
        """
        encoded = self.encode_sam(input_B3SS)
        return (
            replace(encoded, hq=self.encode_hq(input_B3SS))
            if self.head.changes_encoder
            else encoded
        )

    def encode_sam(self, input_B3SS: Tensor) -> Encoded:
        """Encode images with SAM's own encoder alone: the part that all heads of one SAM share; see `encode`."""
        decoder, head = _dtype(self.sam.mask_decoder), _dtype(self.head)
        if decoder != head:
            raise InputError(
                f"SAM's decoder is {decoder}, the head {head}",
                cure="move the whole model (model.to(torch.bfloat16)), or keep it and predict "
                "inside torch.autocast",
            )
        return self._features(self.sam.image_encoder, input_B3SS)

    def encode_hq(self, input_B3SS: Tensor) -> Encoded:
        """Encode images for ``decode_hq`` only: what training needs. Gradients reach an encoder that is tuned."""
        return self._features(functools.partial(self.head.encode, self.sam), input_B3SS)

    def _features(self, encoder: Callable[[Tensor], Tensor], input_B3SS: Tensor) -> Encoded:
        taps: list[Tensor] = []
        token = _TAP.set(taps)
        try:
            final = encoder(input_B3SS)
        finally:
            _TAP.reset(token)
        if len(taps) != 1:
            raise RuntimeError(
                f"{self.backbone.name}: module {self.backbone.early!r} ran {len(taps)} times, not "
                f"once"
            )
        early = taps[0]
        if self.backbone.early_layout == "BHWC":
            early = early.permute(0, 3, 1, 2)
        return Encoded(self._for_decoder(final), self._for_decoder(early))

    def embed_prompts(
        self,
        *,
        points_PN2: Tensor | None = None,
        labels_PN: Tensor | None = None,
        boxes_P4: Tensor | None = None,
        masks_P1hw: Tensor | None = None,
    ) -> Prompts:
        """Embed P prompts of one kind (points, box, mask, or a mixture that all P share).

        Args:
            points_PN2: (x, y) in pixels of the S x S network input, not of the original image.
            labels_PN: 1 foreground, 0 background, -1 padding.
            boxes_P4: xyxy, same frame.
            masks_P1hw: Low-resolution mask prompts (logits or whatever the head was trained with).

        Returns:
            Embedded prompts; the dense part has batch 1 when there are no masks.
        """
        points = None if points_PN2 is None else (_exact(points_PN2), labels_PN)
        boxes_P4 = None if boxes_P4 is None else _exact(boxes_P4)
        masks_P1hw = None if masks_P1hw is None else masks_P1hw.float()
        encoders = (self.sam.prompt_encoder, self.head.use_prompt_encoder(self.sam))

        def embed(encoder: Any) -> Prompts:
            sparse, dense = _in_float32(encoder, points=points, boxes=boxes_P4, masks=masks_P1hw)
            dense = dense if masks_P1hw is not None else dense[:1]
            return Prompts(self._for_decoder(sparse), self._for_decoder(dense))

        return replace(
            embed(encoders[0]), hq=None if encoders[0] is encoders[1] else embed(encoders[1])
        )

    def decode_sam(
        self, encoded: Encoded, prompts: Prompts, *, multimask: bool = False
    ) -> SamMasks:
        """Vanilla SAM: its own decoder, without the HQ token.

        Args:
            encoded: One image for all prompts (B = 1) or one row per prompt (B = P).
            prompts: P prompts.
            multimask: SAM's three masks instead of one.

        Returns:
            Low-resolution logits ``[P,1 or 3,h,w]`` and predicted IoUs.
        """
        output = run_transformer(
            self.sam.mask_decoder,
            image_BCHW=encoded.final_BCHW,
            pe_1CHW=self.dense_pe_1CHW,
            prompts=prompts,
        )
        return sam_masks(self.sam.mask_decoder, output, multimask=multimask)

    def fuse(self, encoded: Encoded) -> Tensor:
        """The prompt-independent HQ feature ``[B,F,h,w]``; compute it once per image when decoding in chunks."""
        seen = encoded.for_hq
        return self.head.fuse(final_BCHW=seen.final_BCHW, early_BVHW=seen.early_BVHW)

    def decode_hq(
        self,
        encoded: Encoded,
        prompts: Prompts,
        *,
        multimask: bool = False,
        fused_BFhw: Tensor | None = None,
    ) -> HQMasks:
        """HQ-SAM's decoder: SAM's transformer with the HQ token among the output tokens.

        Args:
            encoded: One image for all prompts (B = 1) or one row per prompt (B = P).
            prompts: P prompts.
            multimask: Which of SAM's masks comes along: the single one, or all three.
            fused_BFhw: ``fuse(encoded)`` if already known.

        Returns:
            HQ logits and SAM's masks of the same pass.
        """
        decoder = self.head.use_mask_decoder(self.sam)
        output = run_transformer(
            decoder,
            image_BCHW=encoded.for_hq.final_BCHW,
            pe_1CHW=self.dense_pe_1CHW,
            prompts=prompts.for_hq,
            extra_KC=self.head.extra_tokens(),
        )
        masks = sam_masks(decoder, output, multimask=multimask)
        hq = self.head.hq_logits(
            output=output, fused_BFhw=self.fuse(encoded) if fused_BFhw is None else fused_BFhw
        )
        if hq is not None:
            return HQMasks(hq, masks)
        single = sam_masks(decoder, output, multimask=False) if multimask else masks
        return HQMasks(single.logits_PKhw, masks, own_token=False)
