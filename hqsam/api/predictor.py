"""``SamHQPredictor``: ``segment_anything``'s ``SamPredictor`` with HQ-SAM's masks, and a batch interface.

Shape letters: B prompts of one image; C masks per prompt; N points; S input side; m side of
low-resolution masks; H, W original image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hqsam.api.inputs import (
    check_batch,
    check_choices,
    check_counts,
    check_encoded,
    check_image,
    checked_prompt,
)
from hqsam.api.transforms import ResizeLongestSide
from hqsam.errors import InputError
from hqsam.model.hq_decoder import Prompts, SamMasks, best_mask
from hqsam.model.hq_sam import Encoded, HQSam
from hqsam.model.options import MaskEncoding, Resize
from hqsam.model.outputs import Output, OutputName
from hqsam.model.preprocess import Frame
from hqsam.model.prompt_inputs import group
from hqsam.model.tensor_input import PromptTensors, check_transformed
from hqsam.prediction.postprocess import MaskPatch, mask_patch
from hqsam.prediction.prompt import Prompt, embed

Arrays = tuple[npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.float32]]
Tensors = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Prediction:
    """One prompt's mask, from ``SamHQPredictor.predict_batch``.

    Attributes:
        image: Index of the image.
        prompt: Index of the prompt among that image's prompts.
        frame: The image's place in the input square.
        iou: SAM's predicted IoU of the mask.
        low_res: float32 ``[m, m]`` logits, usable as ``Prompt.mask_input``.
    """

    image: int
    prompt: int
    frame: Frame
    iou: float
    low_res: npt.NDArray[np.float32]

    @property
    def mask(self) -> MaskPatch:
        """The mask at the image's size; ``.full()`` is bool ``[H, W]``, ``.rle()`` COCO's compressed counts.

        Computed anew each time: a list of hundreds of predictions on a large image holds logits
        only.
        """
        return mask_patch(self.low_res, self.frame)


class SamHQPredictor:
    """Encode an image once, then predict masks for prompts: drop-in for ``SamPredictor``.

    Differences: ``predict`` and ``predict_torch`` take ``hq_token_only``, and
    ``multimask_output=True`` returns one mask, the best of SAM's three plus the HQ token's, as
    HQ-SAM does. Bad input raises ``InputError`` (a ``ValueError``).

    Args:
        sam_model: Of ``build_sam_hq``.

    Raises:
        InputError: Another object, e.g. ``segment_anything``'s own ``Sam``.

    Attributes:
        prompts_per_call: Prompts per decoder call of ``predict_torch``; bounds the memory, changes
            no mask.
    """

    prompts_per_call = 4

    def __init__(self, sam_model: HQSam) -> None:
        if not hasattr(sam_model, "decode_hq"):
            raise InputError(
                f"the model is a {type(sam_model).__name__}", cure="give one of hqsam.build_sam_hq"
            )
        self.model = sam_model
        self.transform = ResizeLongestSide(sam_model.backbone.image_size)
        self.reset_image()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def reset_image(self) -> None:
        """Forget the image."""
        self.is_image_set = False
        self.features: Tensor | None = None
        self.interm_features: list[Tensor] | None = None
        self.original_size: tuple[int, int] | None = None
        self.input_size: tuple[int, int] | None = None
        self._encoded: Encoded | None = None
        self._fused: Tensor | None = None

    def set_image(self, image: npt.NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode an image.

        Args:
            image: uint8 ``[H, W, 3]``, values 0..255; see ``check_image`` for what else is
                accepted.
            image_format: Order of the channels, ``RGB`` or ``BGR``.

        Raises:
            InputError: The image or the format cannot be used.
        """
        if image_format not in ("RGB", "BGR"):
            raise InputError(f"image_format is {image_format!r}", cure="use 'RGB' or 'BGR'")
        image = check_image(image)
        if image_format == "BGR":
            image = image[..., ::-1]
        frame = Frame(image.shape[0], image.shape[1], self.model.backbone.image_size)
        self.set_torch_image(frame.image(image)[None].to(self.device), image.shape[:2])

    @torch.no_grad()
    def set_torch_image(
        self, transformed_image: Tensor, original_image_size: Sequence[int]
    ) -> None:
        """Encode an image that is resized already.

        Args:
            transformed_image: ``[1, 3, h, w]``, values 0..255, longest side S
                (``transform.apply_image``).
            original_image_size: (H, W) before resizing.

        Raises:
            InputError: Another shape or range of values; or the model overflows in the type that it
                was moved to.
        """
        size = (int(original_image_size[0]), int(original_image_size[1]))
        check_transformed(transformed_image, size, self.model.backbone.image_size)
        self.reset_image()
        self.original_size = size
        self.input_size = (transformed_image.shape[2], transformed_image.shape[3])
        self._encoded = self.model.encode(self.model.preprocess(transformed_image))
        check_encoded(self._encoded.final_BCHW)
        self._fused = self.model.fuse(self._encoded)
        self.features = self._encoded.final_BCHW
        self.interm_features = [self._encoded.early_BVHW.permute(0, 2, 3, 1)]
        self.is_image_set = True

    def predict(
        self,
        point_coords: npt.NDArray[Any] | None = None,
        point_labels: npt.NDArray[Any] | None = None,
        box: npt.NDArray[Any] | None = None,
        mask_input: npt.NDArray[np.float32] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        hq_token_only: bool = False,
    ) -> Arrays:
        """Predict the mask of one object in the image that was set.

        Args:
            point_coords: ``[N, 2]`` (x, y) in pixels of the original image.
            point_labels: ``[N]``, 1 foreground, 0 background.
            box: ``[4]`` xyxy in pixels of the original image.
            mask_input: ``[1, m, m]`` low-resolution logits, typically of an earlier prediction.
            multimask_output: Whether SAM's part is the best of its three masks instead of its
                single one.
            return_logits: Logits instead of a thresholded mask.
            hq_token_only: The HQ token's mask alone (best for single objects) instead of its sum
                with SAM's.

        Returns:
            Masks bool (or float32 logits) ``[1, H, W]``; SAM's predicted IoU ``[1]``;
            low-resolution logits ``[1, m, m]``.

        Raises:
            RuntimeError: No image was set.
            InputError: The prompt makes no sense for this image.
        """
        prompt = checked_prompt(point_coords, point_labels, box, mask_input)
        self._image()
        assert self.original_size is not None
        frame = Frame(*self.original_size, self.model.backbone.image_size)
        prompt.check_inside(frame)
        with torch.no_grad():
            embedded = embed(self.model, frame, [prompt], mask_encoding="logits")
            low, iou = self._decode(
                embedded, multimask_output, hq_token_only, self.prompts_per_call
            )
            masks = self.enlarged(low, return_logits=return_logits)
        # NumPy knows no bfloat16, which a model or an autocast region of that type gives.
        return masks[0].cpu().numpy(), iou[0].float().cpu().numpy(), low[0].float().cpu().numpy()

    @torch.no_grad()
    def predict_torch(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        hq_token_only: bool = False,
    ) -> Tensors:
        """Predict masks of B objects; like ``predict`` with tensors that are in the network's frame already.

        Args:
            point_coords: ``[B, N, 2]`` (x, y), transformed with ``transform.apply_coords_torch``.
            point_labels: ``[B, N]``; -1 pads.
            boxes: ``[B, 4]`` xyxy, transformed with ``transform.apply_boxes_torch``.
            mask_input: ``[B, 1, m, m]``.
            multimask_output: As in ``predict``.
            return_logits: As in ``predict``.
            hq_token_only: As in ``predict``.

        Returns:
            ``[B, 1, H, W]``, ``[B, 1]``, ``[B, 1, m, m]``.

        Raises:
            RuntimeError: No image was set.
            InputError: A prompt that makes no sense for this image.
        """
        prompts = PromptTensors(point_coords, point_labels, boxes, mask_input)
        low, iou = self.decode_torch(
            prompts, multimask_output=multimask_output, hq_token_only=hq_token_only
        )
        return self.enlarged(low, return_logits=return_logits), iou, low

    @torch.no_grad()
    def decode_torch(
        self,
        prompts: PromptTensors,
        *,
        multimask_output: bool = True,
        hq_token_only: bool = False,
        prompts_per_call: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``predict_torch`` without upscaling: logits ``[B, 1, m, m]`` and predicted IoUs ``[B, 1]``."""
        self._image()
        assert self.input_size is not None
        prompts.check(size=self.input_size, mask_size=self.model.backbone.mask_size)
        embedded = self.model.embed_prompts(
            points_PN2=prompts.points,
            labels_PN=prompts.labels,
            boxes_P4=prompts.boxes,
            masks_P1hw=prompts.masks,
        )
        return self._decode(
            embedded, multimask_output, hq_token_only, prompts_per_call or self.prompts_per_call
        )

    def enlarged(self, low_res: Tensor, *, return_logits: bool = True) -> Tensor:
        """Upscale logits ``[B, 1, m, m]`` to the image's size ``[B, 1, H, W]``, as logits or bool masks."""
        self._image()
        size = (0, 1, *(self.original_size or ()))
        parts = []
        for n in range(len(low_res)):
            # One at a time: floats of the original size exist for one mask only.
            mask: Tensor = self.model.sam.postprocess_masks(
                low_res[n : n + 1].float(), self.input_size, self.original_size
            )
            parts.append(mask if return_logits else mask > self.model.sam.mask_threshold)
        return (
            torch.cat(parts)
            if parts
            else low_res.new_zeros(size, dtype=torch.float if return_logits else torch.bool)
        )

    def get_image_embedding(self) -> Tensor:
        """The image embedding ``[1, C, E, E]`` (256 x 64 x 64 for the published models).

        Raises:
            RuntimeError: No image was set.
        """
        return self._image()[0].final_BCHW

    @torch.inference_mode()
    def predict_batch(
        self,
        images: Sequence[npt.NDArray[np.uint8]],
        prompts: Sequence[Sequence[Prompt]],
        *,
        output: OutputName = "hq_sum",
        multimask: bool = False,
        resize: Resize = "longest_side",
        mask_encoding: MaskEncoding | None = None,
        images_per_call: int = 8,
        prompts_per_call: int = 4,
    ) -> Iterator[Prediction]:
        """Predict many prompts of any kind on many images; the image set with ``set_image`` is not touched.

        Args:
            images: RGB, see ``check_image``.
            prompts: For each image, its prompts.
            output: ``hq_sum`` SAM + HQ logits, ``hq_token`` the HQ token alone, ``sam`` vanilla
                SAM.
            multimask: The best of SAM's three masks instead of its single one.
            resize: See ``Frame``.
            mask_encoding: What ``Prompt.mask`` becomes; None: what the decoder was trained on
                (logits for SAM, 0/255 for HQ).
            images_per_call: Images per encoder call.
            prompts_per_call: Prompts per decoder call; bounds the memory.

        Yields:
            One per prompt, image by image, prompts in the order given.

        Raises:
            InputError: An image or a prompt makes no sense (the message gives its index), or an
                unknown option.
        """
        check_batch(images, prompts)
        check_choices(output=(output, OutputName), resize=(resize, Resize))
        check_counts(images_per_call=images_per_call, prompts_per_call=prompts_per_call)
        encoding: MaskEncoding = mask_encoding or (
            "logits" if output == Output.sam else "binary_255"
        )
        check_choices(mask_encoding=(encoding, MaskEncoding))
        wanted = _Wanted(output, multimask, encoding, prompts_per_call)
        for start in range(0, len(images), images_per_call):
            some = range(start, min(start + images_per_call, len(images)))
            pixels = [_with_index(n, check_image, images[n]) for n in some]
            frames = [
                Frame(p.shape[0], p.shape[1], self.model.backbone.image_size, resize)
                for p in pixels
            ]
            for n, frame in zip(some, frames, strict=True):
                for prompt in prompts[n]:
                    _with_index(n, prompt.check_inside, frame)
            inputs = [
                self.model.preprocess(f.image(p)[None]) for f, p in zip(frames, pixels, strict=True)
            ]
            encoded = self.model.encode(torch.cat(inputs))
            check_encoded(encoded.final_BCHW)
            for row, (n, frame) in enumerate(zip(some, frames, strict=True)):
                yield from self._of_image(n, frame, encoded[row : row + 1], prompts[n], wanted)

    def _of_image(
        self, image: int, frame: Frame, encoded: Encoded, prompts: Sequence[Prompt], wanted: _Wanted
    ) -> Iterator[Prediction]:
        fused = None if wanted.output == Output.sam else self.model.fuse(encoded)
        found: dict[int, tuple[npt.NDArray[np.float32], float]] = {}
        for numbers in group(prompts):
            for start in range(0, len(numbers), wanted.prompts_per_call):
                some = numbers[start : start + wanted.prompts_per_call]
                embedded = embed(
                    self.model, frame, [prompts[n] for n in some], mask_encoding=wanted.encoding
                )
                masks = decode(
                    self.model,
                    encoded,
                    embedded,
                    wanted.output,
                    multimask=wanted.multimask,
                    fused_BFhw=fused,
                )
                logits = masks.logits_PKhw.float().cpu().numpy()
                found.update(
                    {n: (logits[k, 0], float(masks.iou_PK[k, 0])) for k, n in enumerate(some)}
                )
        for number in range(len(prompts)):
            low, iou = found.pop(number)
            yield Prediction(image, number, frame, iou, low)

    def _image(self) -> tuple[Encoded, Tensor]:
        if self._encoded is None or self._fused is None:
            raise RuntimeError("no image is set: call set_image(...) first")
        return self._encoded, self._fused

    def _decode(
        self, prompts: Prompts, multimask: bool, hq_token_only: bool, prompts_per_call: int
    ) -> tuple[Tensor, Tensor]:
        """Logits ``[P, 1, m, m]`` and predicted IoUs ``[P, 1]`` of all prompts."""
        encoded, fused = self._image()
        output: OutputName = "hq_token" if hq_token_only else "hq_sum"
        if not len(prompts):
            side = self.model.backbone.mask_size
            return encoded.final_BCHW.new_zeros(0, 1, side, side), encoded.final_BCHW.new_zeros(
                0, 1
            )
        found = []
        for start in range(0, len(prompts), prompts_per_call):
            part = prompts[start : start + prompts_per_call]
            found.append(
                decode(self.model, encoded, part, output, multimask=multimask, fused_BFhw=fused)
            )
        return torch.cat([part.logits_PKhw for part in found]), torch.cat(
            [part.iou_PK for part in found]
        )


@dataclass(frozen=True)
class _Wanted:
    output: OutputName
    multimask: bool
    encoding: MaskEncoding
    prompts_per_call: int


def decode(
    model: HQSam,
    encoded: Encoded,
    prompts: Prompts,
    output: OutputName,
    *,
    multimask: bool = False,
    fused_BFhw: Tensor | None = None,
) -> SamMasks:
    """One mask per prompt from the system asked for.

    Args:
        model: The model.
        encoded: One image for all prompts, or one row per prompt.
        prompts: P embedded prompts.
        output: Which system.
        multimask: The best of SAM's three masks instead of its single one.
        fused_BFhw: ``model.fuse(encoded)`` if already known.

    Returns:
        Logits ``[P, 1, m, m]`` and SAM's predicted IoUs ``[P, 1]``.
    """
    if output == Output.sam:
        return best_mask(model.decode_sam(encoded, prompts, multimask=multimask))
    hq = model.decode_hq(encoded, prompts, multimask=multimask, fused_BFhw=fused_BFhw)
    return SamMasks(
        hq.hq_P1hw if output == Output.hq_token else hq.sum_P1hw, best_mask(hq.sam).iou_PK
    )


def _with_index(number: int, check: Any, value: Any) -> Any:
    try:
        return check(value)
    except InputError as error:
        raise InputError(f"{error.problem} (image {number})", cure=error.cure) from error
