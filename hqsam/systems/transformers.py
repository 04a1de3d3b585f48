"""Promptable models of the ``transformers`` library: SAM, SAM 2 and 2.1, EdgeTAM, SAM 3's tracker.

systems:
sam_hq: {kind: sam_hq}
sam2: {kind: transformers, model: ../models/sam2.1-hiera-tiny}

Only tensors reach the model: prompts are grouped by the pass and never padded, because a padded
point moves the masks. A mask prompt goes through with one copy of the image's embedding per prompt,
because the library adds one mask per image, not per prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from hqsam import pretrained
from hqsam.model.options import Resize
from hqsam.systems.base import (
    U8,
    Context,
    Decoded,
    Entry,
    Promptable,
    SystemKind,
    SystemOptions,
)
from hqsam_base.digest import sha256_file
from hqsam_base.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from hqsam.model.preprocess import Frame
    from hqsam.prediction.options import PredictOptions
    from hqsam.prediction.postprocess import MaskCodes, MaskPatch
    from hqsam.prediction.prompt import Prompt

Embedding = list["Tensor"]
_CONCEPT = (
    "this is a concept model: it finds what a text names, and gives no mask per box",
    "give a folder whose config.json says sam3_video or sam3_tracker",
)
REFUSED = {
    "sam_hq": (
        "the library's SamHQModel does not compute HQ-SAM: its decoder drops what the transformer "
        "made of the image (seen in 5.23 and 5.24)",
        "give the authors' sam_hq_vit_*.pth as a checkpoint: `hqsam evaluate --model FILE`",
    ),
    "sam3": _CONCEPT,
    "sam3_lite_text": _CONCEPT,
}
"""Model types that look as if they fitted: why they do not, and what to give."""


class TransformersOptions(SystemOptions):
    """``systems.<name>`` of this kind.

    Attributes:
        model: A folder with the model's ``config.json``, ``*.safetensors`` and processor; or
            its name on the hub.
        revision: The commit of a name on the hub, 40 hex digits: a branch would be another model
            tomorrow.
        choose: ``family``: the one mask that the library itself chooses (``multimask_output``
            False); ``best_iou``: of its three, the one with the highest predicted IoU.
    """

    model: str
    revision: str | None = None
    choose: Literal["family", "best_iou"] = "family"


@dataclass(frozen=True)
class Family:
    """Models of the library that are used in one way.

    Attributes:
        model: Name of the library's class.
        pixels: Name of the class of its image processor.
        resize: How an image lies in the input square.
        iou: Range of the predicted IoU: an AP that is ranked by it is comparable within one range
            only.
        double: Whether the library scales coordinates in float64; float32 otherwise.
    """

    model: str
    pixels: str
    resize: Resize = "stretch"
    iou: Literal["linear", "sigmoid"] = "sigmoid"
    double: bool = False


_SAM2 = Family("Sam2Model", "Sam2ImageProcessor")
_EDGETAM = Family("EdgeTamModel", "Sam2ImageProcessor")
_SAM3 = Family("Sam3TrackerModel", "Sam3ImageProcessor")
FAMILIES: Mapping[str, Family] = {
    "sam": Family("SamModel", "SamImageProcessor", "longest_side", "linear", double=True),
    "sam2": _SAM2,
    "sam2_video": _SAM2,
    "edgetam": _EDGETAM,
    "edgetam_video": _EDGETAM,
    "sam3_tracker": _SAM3,
    "sam3_video": _SAM3,
}
"""Supported values of ``model_type`` in a model's config.json."""


class TransformersKind(SystemKind):
    """See the module."""

    def files(self, entry: Entry) -> list[Path]:
        """See `SystemKind.files`; a commit of the hub's is its name, and has none yet."""
        source = _source(entry)
        folder = source.checked()
        return [] if folder is None else _files(folder, source.key)

    def inputs(self, entry: Entry) -> dict[str, str]:
        """See `SystemKind.inputs`; a model of the hub is fetched."""
        source = _source(entry)
        return {path.name: sha256_file(path) for path in _files(source.folder(), source.key)}

    def open(self, entry: Entry, context: Context) -> Promptable:
        """Load the model in float32, all of its weights; code that comes with it is never run."""
        source, options = _source(entry), cast(TransformersOptions, entry.options)
        digests, folder = self.inputs(entry), source.folder()
        model_type = str(pretrained.read_config(folder, source.key)["model_type"])
        family, library = FAMILIES[model_type], source.library()
        local = {"local_files_only": True, "trust_remote_code": False}
        with source.opening():
            model, loading = getattr(library, family.model).from_pretrained(
                folder,
                config=library.AutoConfig.from_pretrained(folder, **local),
                output_loading_info=True,
                local_files_only=True,
                use_safetensors=True,
                dtype="float32",
            )
            pixels = getattr(library, family.pixels).from_pretrained(folder, local_files_only=True)
        source.check_whole(loading)
        files = {"model_type": model_type, "files": digests}
        return TransformersModel(
            entry.name, family, model.eval(), pixels, options, context.options, files
        )


def _source(entry: Entry) -> pretrained.Source:
    options = cast(TransformersOptions, entry.options)
    key = f"systems.{entry.name}.model"
    return pretrained.Source(options.model, options.revision, key, "systems")


def _files(folder: Path, key: str) -> list[Path]:
    """What of a folder is read, once everything in it that can be wrong was looked at."""
    pretrained.check_folder(folder, key, known=FAMILIES, refused=REFUSED)
    paths = [folder / "config.json", *(folder / name for name in pretrained.PROCESSORS)]
    return [path for path in [*paths, *sorted(folder.glob("*.safetensors"))] if path.is_file()]


@dataclass(frozen=True)
class _Image:
    """An image in the model: where it lies in the input square, and its embeddings [1, ...]."""

    frame: Frame
    embeddings: Embedding


class TransformersModel(Promptable):
    """An opened model of the library.

    Args:
        name: Of the system.
        family: What its family does in its own way.
        model: In eval mode; moved to the device of the options.
        pixels: The image processor.
        own: The entry's options.
        options: How it is predicted.
        files: Model type, and digests of the files that it was loaded from.

    Raises:
        UserError: Model and processor are made for images of different sizes.
    """

    def __init__(
        self,
        name: str,
        family: Family,
        model: Any,
        pixels: Any,
        own: TransformersOptions,
        options: PredictOptions,
        files: Mapping[str, Any],
    ) -> None:
        import torch

        from hqsam.model.device import pick_device

        self._name, self._family, self._own = name, family, own
        self._device = pick_device(options.device)
        self._model, self._pixels, self._options = model.to(self._device), pixels, options
        prompts = model.config.prompt_encoder_config
        self.side, self.mask_side = prompts.image_size, 4 * prompts.image_size // prompts.patch_size
        made = self._prepared(torch.zeros(3, 8, 8, dtype=torch.uint8).permute(1, 2, 0).numpy())
        if made.shape[-2:] != (self.side, self.side):
            raise UserError(
                f"the processor makes images of {made.shape[-1]} x {made.shape[-2]}, the model "
                f"takes {self.side} x {self.side}",
                key=f"systems.{name}.model",
                cure="use the processor that was published with the model",
            )
        self.protocol = self._rules(files)

    def _rules(self, files: Mapping[str, Any]) -> dict[str, Any]:
        decoder, pixels = self._model.config.mask_decoder_config, self._pixels
        stable = {
            name: getattr(decoder, f"dynamic_multimask_{name}")
            for name in ("via_stability", "stability_delta", "stability_thresh")
            if hasattr(decoder, f"dynamic_multimask_{name}")
        }
        return {
            "library": f"transformers {metadata.version('transformers')}",
            "torch": metadata.version("torch"),
            "model_class": self._family.model,
            **files,
            "resize": self._family.resize,
            "input_side": self.side,
            "low_res_side": self.mask_side,
            "image_processor": type(pixels).__name__,
            "image_resample": str(getattr(pixels.resample, "name", pixels.resample)).lower(),
            "image_mean": list(pixels.image_mean),
            "image_std": list(pixels.image_std),
            "coordinates": "scaled to the input square, plus 0.5 of its pixels",
            "mask_threshold": 0.0,
            "holes_and_sprinkles": "as they are",
            "choose": self._own.choose,
            "dynamic_multimask": stable or None,
            # What a mask prompt becomes, whatever `predict.mask_prompt` says of HQ-SAM's.
            "mask_prompt": "logits",
            "no_points": "as the library embeds it",
            "iou_scale": self._family.iou,
            "object_score": "not used",
        }

    def prepare(self, image: U8) -> tuple[Frame, Tensor]:
        """See `Promptable.prepare`: the library's own image processor."""
        from hqsam.model.preprocess import Frame

        frame = Frame(image.shape[0], image.shape[1], self.side, self._family.resize)
        return frame, self._prepared(image)

    def _prepared(self, image: U8) -> Tensor:
        found: Tensor = self._pixels(images=[image], return_tensors="pt")["pixel_values"]
        return found

    def encode(self, prepared: Sequence[tuple[Frame, Tensor]]) -> Sequence[_Image]:
        """See `Promptable.encode`."""
        import torch

        low = self._options.precision == "bfloat16"
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=low),
        ):
            pixels = torch.cat([one for _, one in prepared]).to(self._device)
            found = self._model.get_image_embeddings(pixels)
        levels = found if isinstance(found, list) else [found]
        return [
            _Image(frame, [level[n : n + 1].float() for level in levels])
            for n, (frame, _) in enumerate(prepared)
        ]

    def decode(self, image: _Image, prompts: Sequence[Prompt]) -> Mapping[str, Decoded]:
        """See `Promptable.decode`."""
        import torch

        given = self._arrays(image.frame, prompts)
        embeddings = image.embeddings
        if "input_masks" in given:  # one image per prompt: [1, K, ...] becomes [K, 1, ...]
            embeddings = [level.expand(len(prompts), *level.shape[1:]) for level in embeddings]
            given = {
                name: value if name == "input_masks" else value.transpose(0, 1)
                for name, value in given.items()
            }
        with torch.inference_mode():
            found = self._model(
                image_embeddings=embeddings if len(embeddings) > 1 else embeddings[0],
                multimask_output=self._own.choose == "best_iou",
                **{name: value.to(self._device) for name, value in given.items()},
            )
        masks = found.pred_masks.flatten(0, 1).float()
        iou = found.iou_scores.flatten(0, 1).float()
        best = iou.argmax(1)
        rows = torch.arange(len(prompts), device=best.device)
        chosen = masks[rows, best].cpu().numpy()
        return {self._name: Decoded(chosen, iou[rows, best].cpu().tolist())}

    def _arrays(self, frame: Frame, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """Prompts of one signature as the model's arguments, [1, K, ...]; masks [K, 1, m, m]."""
        import torch

        first, given = prompts[0], {}
        if first.box is not None:
            boxes = torch.tensor([prompt.box for prompt in prompts], dtype=torch.float32)
            given["input_boxes"] = self._scaled(boxes.reshape(-1, 2, 2), frame).reshape(1, -1, 4)
        if first.points:
            points = torch.tensor([prompt.points for prompt in prompts], dtype=self._dtype)
            given["input_points"] = self._scaled(points, frame)[None]
            given["input_labels"] = torch.tensor([[prompt.labels for prompt in prompts]])
        masks = [self._mask(frame, prompt) for prompt in prompts]
        if masks[0] is not None:
            given["input_masks"] = torch.stack([torch.from_numpy(mask) for mask in masks])[:, None]
        return given

    @cached_property
    def _dtype(self) -> Any:
        import torch

        return torch.float64 if self._family.double else torch.float32

    def _scaled(self, xy: Tensor, frame: Frame) -> Tensor:
        """Coordinates [..., 2] in the input square, as the library's processor scales them."""
        height, width = frame.resized
        xy = xy.to(self._dtype).clone()
        xy[..., 0] *= width / frame.width
        xy[..., 1] *= height / frame.height
        return xy

    def _mask(self, frame: Frame, prompt: Prompt) -> Any:
        from hqsam.model.preprocess import Frame

        if prompt.mask is None:
            return prompt.mask_input
        # Four input pixels a cell, whatever the model's patches are: SAM 3's 1008 pixels would give
        # 3.5.
        square = Frame(frame.height, frame.width, 4 * self.mask_side, frame.resize)
        return square.mask_prompt(prompt.mask, side=self.mask_side, encoding="logits")

    def as_input(self, values: Any) -> Any:
        """See `Promptable.as_input`: the logits as they are."""
        return values

    def to_image(self, image: _Image, values: Any) -> MaskPatch:
        """See `Promptable.to_image`: one bilinear step, or two with the padding cut off between."""
        from hqsam.prediction.postprocess import mask_patch

        return mask_patch(values, image.frame)

    def to_codes(self, image: _Image, values: Any) -> MaskCodes:
        """See `Promptable.to_codes`."""
        from hqsam.prediction.postprocess import mask_codes

        return mask_codes(values, image.frame) or super().to_codes(image, values)


SYSTEM = TransformersKind("transformers", TransformersOptions)
