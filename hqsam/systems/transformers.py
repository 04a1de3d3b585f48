"""Promptable models of the ``transformers`` library: SAM, SAM 2 and 2.1, EdgeTAM, SAM 3's tracker.

systems:
sam_hq: {kind: sam_hq}
sam2: {kind: transformers, model: ../models/sam2.1-hiera-tiny}

Only tensors go to the model: the library's processors pad what is ragged, and drop what they do not
know, without a word. Shape letters: K prompts; N points; m side of the low-resolution masks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from hqsam import pretrained
from hqsam.systems.base import (
    U8,
    Context,
    Decoded,
    Entry,
    Promptable,
    SystemKind,
    SystemOptions,
)
from hqsam_base.errors import UserError

if TYPE_CHECKING:
    from hqsam.model.options import Resize
    from hqsam.model.preprocess import Frame
    from hqsam.prediction.options import PredictOptions
    from hqsam.prediction.postprocess import MaskPatch
    from hqsam.prediction.prompt import Prompt


@dataclass(frozen=True)
class _Family:
    """Classes of the library that serve a ``model_type``, and how they resize."""

    model: str
    processor: str
    resize: Resize


_SAM2 = _Family("Sam2Model", "Sam2Processor", "stretch")
_SAM3 = _Family("Sam3TrackerModel", "Sam3TrackerProcessor", "stretch")
FAMILIES: Mapping[str, _Family] = {
    "sam": _Family("SamModel", "SamProcessor", "longest_side"),
    "sam2": _SAM2,
    "sam2_video": _SAM2,
    "edgetam": _Family("EdgeTamModel", "Sam2Processor", "stretch"),
    "sam3_tracker": _SAM3,
    "sam3_video": _SAM3,
}
"""Supported values of ``model_type`` in a model's config.json."""


class TransformersOptions(SystemOptions):
    """``systems.<name>`` of this kind.

    Attributes:
        model: A folder that ``save_pretrained`` wrote, with its processor; or a name on the hub,
            ``owner/name``, with ``revision``.
        revision: Commit of the hub's repository: a name alone can mean other weights tomorrow.
        choose: ``family``: the library's own single mask (``multimask_output=False``); ``best_iou``:
            of the three masks the one with the highest predicted IoU.
    """

    model: str
    revision: str | None = None
    choose: Literal["family", "best_iou"] = "family"


@dataclass(frozen=True)
class _Image:
    """An encoded image: its place in the input square and what ``get_image_embeddings`` gave."""

    frame: Frame
    embeddings: Any


class TransformersModel(Promptable):
    """An opened model.

    Args:
        name: The system's name.
        model: The library's model, in eval mode on its device.
        processor: Its processor.
        choose: See `TransformersOptions`.
        options: How.
    """

    def __init__(
        self, name: str, model: Any, processor: Any, choose: str, options: PredictOptions
    ) -> None:
        self._name = name
        self._model = model
        self._processor = processor
        self._choose = choose
        self._options = options
        self._family = FAMILIES[model.config.model_type]
        prompts = model.config.prompt_encoder_config
        side = int(model.prompt_encoder.image_embedding_size[0] * prompts.patch_size)
        self._side = side
        images = processor.image_processor
        self.protocol = {
            "library": f"transformers {metadata.version('transformers')}",
            "model_type": model.config.model_type,
            "weights": _digest(model),
            "side": side,
            "resize": self._family.resize,
            "image_processor": type(images).__name__,
            "mean": list(images.image_mean),
            "std": list(images.image_std),
            "choose": choose,
            "stability": [
                getattr(
                    model.config.mask_decoder_config, f"dynamic_multimask_stability_{key}", None
                )
                for key in ("delta", "thresh")
            ],
            "iou_scale": "linear" if self._family.resize == "longest_side" else "sigmoid",
            # What a mask prompt becomes, whatever `predict.mask_prompt` says of HQ-SAM's.
            "mask_prompt": "logits",
        }

    def prepare(self, image: U8) -> tuple[Frame, Any]:
        """See `Promptable.prepare`."""
        from hqsam.model.preprocess import Frame

        pixels = self._processor.image_processor(image, return_tensors="pt")["pixel_values"]
        return Frame(image.shape[0], image.shape[1], self._side, self._family.resize), pixels

    def encode(self, prepared: Sequence[tuple[Frame, Any]]) -> Sequence[_Image]:
        """See `Promptable.encode`."""
        import torch

        device = self._model.device
        low = self._options.precision == "bfloat16"
        with torch.inference_mode():
            inputs = torch.cat([pixels for _, pixels in prepared]).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=low):
                found = self._model.get_image_embeddings(inputs)
        levels = found if isinstance(found, list) else [found]
        images = []
        for n, (frame, _) in enumerate(prepared):
            mine = [level[n : n + 1].float() for level in levels]
            images.append(_Image(frame, mine if isinstance(found, list) else mine[0]))
        return images

    def decode(self, image: _Image, prompts: Sequence[Prompt]) -> Mapping[str, Decoded]:
        """See `Promptable.decode`."""
        import torch

        first = prompts[0]
        masked = first.mask is not None or first.mask_input is not None
        inputs: dict[str, Any] = {}
        if first.box is not None:
            inputs["input_boxes"] = self._scaled(image.frame, [p.box for p in prompts])[None]
        if first.points:
            inputs["input_points"] = self._scaled(image.frame, [p.points for p in prompts])[None]
            inputs["input_labels"] = torch.tensor([[p.labels for p in prompts]])
        embeddings = image.embeddings
        if masked:
            # The library adds one mask prompt to an image, not to a prompt: each prompt gets the
            # image of its own.
            inputs = {key: value.transpose(0, 1) for key, value in inputs.items()}
            inputs["input_masks"] = torch.tensor(
                np.stack([self._mask_input(image.frame, prompt) for prompt in prompts])[:, None]
            )
            levels = embeddings if isinstance(embeddings, list) else [embeddings]
            many = [level.expand(len(prompts), *level.shape[1:]) for level in levels]
            embeddings = many if isinstance(embeddings, list) else many[0]
        with torch.inference_mode():
            found = self._model(
                image_embeddings=embeddings,
                multimask_output=self._choose == "best_iou",
                **{key: value.to(self._model.device) for key, value in inputs.items()},
            )
            logits_KChw = found.pred_masks.float().flatten(0, 1).cpu()
            iou_KC = found.iou_scores.float().flatten(0, 1).cpu()
            best = iou_KC.argmax(1)
        rows = range(len(prompts))
        return {
            self._name: Decoded(
                [logits_KChw[k, best[k]].numpy() for k in rows],
                [float(iou_KC[k, best[k]]) for k in rows],
            )
        }

    def to_image(self, image: _Image, values: Any) -> MaskPatch:
        """See `Promptable.to_image`."""
        from hqsam.prediction.postprocess import mask_patch

        return mask_patch(values, image.frame)

    def _scaled(self, frame: Frame, coordinates: Any) -> Any:
        """Coordinates ``[..., 2n]`` as the library's processor scales them, without a shift by half a pixel.

        Float32 whatever the weights are: bfloat16 would move a corner by two pixels.
        """
        import torch

        values = np.asarray(coordinates, np.float64)
        h, w = frame.resized
        pairs = values.reshape(*values.shape[:-1], -1, 2) * [w / frame.width, h / frame.height]
        return torch.tensor(pairs.reshape(values.shape), dtype=torch.float32)

    def _mask_input(self, frame: Frame, prompt: Prompt) -> Any:
        """Low-resolution logits ``[m, m]``: the prompt's own, or those of its mask."""
        if prompt.mask_input is not None:
            return prompt.mask_input
        assert prompt.mask is not None
        from hqsam.model.preprocess import Frame

        m = 4 * self._model.prompt_encoder.image_embedding_size[0]
        # SAM 3's input side is 3.5 times its mask's: a stretched image can take the next multiple.
        square = Frame(frame.height, frame.width, m * (self._side // m), frame.resize)
        return square.mask_prompt(prompt.mask, side=m, encoding="logits")


def _digest(model: Any) -> str:
    """SHA-256 of all weights by name: the same for every way that they were stored."""
    found = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        found.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.float().cpu().numpy().tobytes())
    return found.hexdigest()


class TransformersKind(SystemKind):
    """See the module."""

    def open(self, entry: Entry, context: Context) -> Promptable:
        """Load the model and its processor; code of the hub's is never run."""
        options = cast(TransformersOptions, entry.options)
        key = f"systems.{entry.name}.model"
        revision = pretrained.pinned(options.model, options.revision, key)
        library = pretrained.library("systems of transformers", "systems")
        with pretrained.opening(options.model, key):
            # The raw dictionary: a config of an unknown family does not get as far as its type.
            config, _ = library.PretrainedConfig.get_config_dict(options.model, **revision)
            family = _family_of(config.get("model_type"), options.model, key)
            processor = getattr(library, family.processor).from_pretrained(
                options.model, **revision
            )
            model, loading = getattr(library, family.model).from_pretrained(
                options.model, output_loading_info=True, use_safetensors=True, **revision
            )
        pretrained.check_whole(loading, options.model, key)
        from hqsam.model.device import pick_device

        model = model.eval().to(pick_device(context.options.device))
        return TransformersModel(entry.name, model, processor, options.choose, context.options)


def _family_of(model_type: Any, model: str, key: str) -> _Family:
    if model_type == "sam_hq":
        raise UserError(
            f"{model} is HQ-SAM, which transformers does not compute as published: its SamHQModel "
            "drops the image half of the decoder's transformer",
            key=key,
            cure="evaluate HQ-SAM by `kind: sam_hq`",
        )
    if model_type not in FAMILIES:
        raise UserError(
            f"{model} is of the family {model_type!r}, which is not supported",
            key=key,
            cure=f"use a model of one of: {', '.join(FAMILIES)}",
        )
    return FAMILIES[model_type]


SYSTEM = TransformersKind("transformers", TransformersOptions)
