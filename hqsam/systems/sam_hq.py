"""SAM and HQ-SAM from one encoding of the image: the systems ``sam``, ``hq_token`` and ``hq_sum``.

SAM's masks come from its own decoder, HQ-SAM's from its own pass; what a mask prompt becomes
differs (`PredictOptions`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hqsam.model.outputs import Output
from hqsam.systems.base import U8, Context, Decoded, Entry, Promptable, System, SystemKind
from hqsam_base.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from hqsam.model.hq_sam import Encoded, HQSam
    from hqsam.model.preprocess import Frame
    from hqsam.prediction.encodings import Encodings
    from hqsam.prediction.options import PredictOptions
    from hqsam.prediction.postprocess import MaskCodes, MaskPatch
    from hqsam.prediction.prompt import Prompt


@dataclass(frozen=True)
class _Image:
    """An image in the model: its place in the input square, its features, and the fused HQ features."""

    frame: Frame
    encoded: Encoded
    fused: Tensor


class SamHQ(Promptable):
    """The opened model.

    Args:
        model: In eval mode; moved to the device of the options.
        options: How.
        encodings: What models with the same encoder share; None: nobody else needs it.
    """

    def __init__(
        self, model: HQSam, options: PredictOptions, encodings: Encodings | None = None
    ) -> None:
        from hqsam.model.device import pick_device
        from hqsam.model.precision import use_int8

        if options.precision == "int8":
            if model.head.changes_encoder:
                raise UserError(
                    f"{model.variant} changes the image encoder, and 8-bit integers cannot be changed",
                    key="predict.precision",
                    cure="use float32 or bfloat16 for this model",
                )
            use_int8(model.sam.image_encoder)
        self.model = model.to(pick_device(options.device))
        self._options = options
        self._encodings = encodings

    def prepare(self, image: U8) -> tuple[Frame, Tensor]:
        """See `Promptable.prepare`."""
        from hqsam.model.preprocess import Frame

        frame = Frame(
            image.shape[0], image.shape[1], self.model.backbone.image_size, self._options.resize
        )
        return frame, frame.image(image)

    def encode(self, prepared: Sequence[tuple[Frame, Tensor]]) -> Sequence[_Image]:
        """See `Promptable.encode`."""
        import torch

        # Padding is part of preprocess, so images of different sizes meet at the input square.
        with torch.inference_mode():
            inputs = torch.cat([self.model.preprocess(pixels[None]) for _, pixels in prepared])
            if self._encodings is None:
                encoded = self._low(self.model.encode, inputs)
            else:
                encoded = self._encodings.get(inputs, partial(self._low, self.model.encode_sam))
                if self.model.head.changes_encoder:
                    own = self._low(self.model.encode_hq, inputs)
                    encoded = replace(encoded, hq=own)
            mine = [encoded[n : n + 1] for n in range(len(prepared))]
            return [
                _Image(frame, one, self.model.fuse(one))
                for (frame, _), one in zip(prepared, mine, strict=True)
            ]

    def _low(self, encode: Callable[[Tensor], Encoded], inputs: Tensor) -> Encoded:
        """Encode in the precision of the options; features in float32."""
        import torch

        low = self._options.precision == "bfloat16"
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=low):
            return encode(inputs).float()

    def decode(self, image: _Image, prompts: Sequence[Prompt]) -> Mapping[str, Decoded]:
        """See `Promptable.decode`."""
        import torch

        from hqsam.prediction.prompt import embed

        with torch.inference_mode():
            embedded = [
                embed(
                    self.model,
                    image.frame,
                    prompts,
                    mask_encoding=self._options.mask_encoding(decoder),
                )
                for decoder in ("sam", "hq")
            ]
            sam = self.model.decode_sam(image.encoded, embedded[0])
            hq = self.model.decode_hq(image.encoded, embedded[1], fused_BFhw=image.fused)
        masks = {
            Output.sam: (sam.logits_PKhw, sam.iou_PK),
            Output.hq_token: (hq.hq_P1hw, hq.sam.iou_PK),
            Output.hq_sum: (hq.sum_P1hw, hq.sam.iou_PK),
        }
        return {
            name.value: Decoded(
                logits[:, 0].float().cpu().numpy(), iou.float().cpu()[:, 0].tolist()
            )
            for name, (logits, iou) in masks.items()
        }

    def as_input(self, values: Any) -> Any:
        """See `Promptable.as_input`: the logits as they are, as `SamPredictor` takes them."""
        return values

    def to_image(self, image: _Image, values: Any) -> MaskPatch:
        """See `Promptable.to_image`."""
        from hqsam.prediction.postprocess import mask_patch

        return mask_patch(values, image.frame)

    def to_codes(self, image: _Image, values: Any) -> MaskCodes:
        """See `Promptable.to_codes`."""
        from hqsam.prediction.postprocess import mask_codes

        return mask_codes(values, image.frame) or super().to_codes(image, values)


class SamHQKind(SystemKind):
    """See the module."""

    def systems(self, entry: Entry) -> tuple[System, ...]:
        """List the three; the entry's own name is not theirs."""
        sam = Output.sam.value
        return (
            System(name=sam, label="SAM", owner="SAM"),
            System(name=Output.hq_token.value, label="HQ token", owner="HQ-SAM", versus=sam),
            System(name=Output.hq_sum.value, label="SAM + HQ", owner="HQ-SAM", versus=sam),
        )

    def open(self, entry: Entry, context: Context) -> Promptable:
        """Build the model with its trained head."""
        from hqsam.model.build import build_model
        from hqsam.prediction.encodings import Encodings

        assert context.model is not None  # `every_model`: it is predicted for a model
        model = build_model(context.model, head=context.head).eval()
        room = int(context.options.encodings_gb * 1e9)
        shared = None if context.encodings is None else Encodings(context.encodings, room)
        return SamHQ(model, context.options, shared)


SYSTEM = SamHQKind("sam_hq", every_model=True, int8=True)
