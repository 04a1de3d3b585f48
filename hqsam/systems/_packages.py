"""What the kinds share whose models come from a package of their authors' with a predictor of SAM's shape.

The package prepares and encodes an image, and embeds and decodes prompts. Prompts are brought to
its square here, many of an image go through together, and one of three masks is chosen before any
is upscaled.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

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


class PackageOptions(SystemOptions):
    """``systems.<name>`` of these kinds.

    Attributes:
        checkpoint: The file of weights as published.
        choose: ``family``: the one mask that the model itself chooses (``multimask_output``
            False); ``best_iou``: of its three, the one with the highest predicted IoU.
    """

    checkpoint: Path
    choose: Literal["family", "best_iou"] = "family"


@dataclass(frozen=True)
class Rules:
    """How a family of models is used.

    Attributes:
        side: Pixels of the square that prompts are scaled to.
        mask_side: Side of low-resolution masks, m.
        resize: How an image lies in the square.
        iou: Range of the predicted IoU: an AP that is ranked by it is comparable within one range
            only.
        clamp: Largest absolute logit of a mask that is fed back; None: as it is.
    """

    side: int
    mask_side: int
    resize: Resize
    iou: Literal["linear", "sigmoid"]
    clamp: float | None = None


@dataclass(frozen=True)
class _Image:
    frame: Frame
    features: Any


class PackageModel(Promptable):
    """An opened model of a package.

    Args:
        name: Of the system.
        predictor: The package's, with its model in eval mode on the device.
        rules: Of the family.
        choose: See `PackageOptions`.
        options: How it is predicted.
        own: What else moves the numbers, for the protocol block.
    """

    def __init__(
        self,
        name: str,
        predictor: Any,
        rules: Rules,
        choose: str,
        options: PredictOptions,
        own: Mapping[str, Any],
    ) -> None:
        self.predictor, self.rules = predictor, rules
        self._name, self._choose, self._options = name, choose, options
        self.protocol = {
            **own,
            "torch": metadata.version("torch"),
            "resize": rules.resize,
            "input_side": rules.side,
            "low_res_side": rules.mask_side,
            "coordinates": "scaled to the input square, plus 0.5 of its pixels",
            "mask_threshold": 0.0,
            "holes_and_sprinkles": "as they are",
            "choose": choose,
            "mask_prompt": "logits",
            "no_points": "as the package embeds it",
            "iou_scale": rules.iou,
        }

    @property
    def model(self) -> Any:
        """The package's model."""
        return self.predictor.model

    def prepare(self, image: U8) -> tuple[Frame, U8]:
        """See `Promptable.prepare`: the package resizes the image itself, when it is encoded."""
        from hqsam.model.preprocess import Frame

        return Frame(image.shape[0], image.shape[1], self.rules.side, self.rules.resize), image

    def encode(self, prepared: Sequence[tuple[Frame, U8]]) -> Sequence[_Image]:
        """See `Promptable.encode`."""
        import torch

        low = self._options.precision == "bfloat16"
        found = []
        for frame, image in prepared:
            with (
                torch.inference_mode(),
                torch.autocast(self.predictor.device.type, torch.bfloat16, enabled=low),
            ):
                self.predictor.set_image(image)
            found.append(_Image(frame, self.features()))
        return found

    def features(self) -> Any:
        """Give what the predictor made of its image, in float32."""
        return self.predictor.features.float()

    def decode(self, image: _Image, prompts: Sequence[Prompt]) -> Mapping[str, Decoded]:
        """See `Promptable.decode`."""
        import torch

        first, device = prompts[0], self.predictor.device
        boxes = points = labels = masks = None
        if first.box is not None:
            given = torch.tensor([prompt.box for prompt in prompts], dtype=torch.float32)
            boxes = self._scaled(given.reshape(-1, 2, 2), image.frame).to(device)
        if first.points:
            given = torch.tensor([prompt.points for prompt in prompts], dtype=torch.float32)
            points = self._scaled(given, image.frame).to(device)
            labels = torch.tensor([prompt.labels for prompt in prompts]).to(device)
        drawn = [self._mask(image.frame, prompt) for prompt in prompts]
        if drawn[0] is not None:
            masks = torch.stack([torch.from_numpy(mask) for mask in drawn])[:, None].to(device)
        with torch.inference_mode():
            logits, iou = self.ask(image.features, boxes, points, labels, masks)
        best = iou.float().argmax(1)
        rows = torch.arange(len(prompts), device=best.device)
        chosen = logits[rows, best].float().cpu().numpy()
        return {self._name: Decoded(chosen, iou[rows, best].float().cpu().tolist())}

    @property
    def multimask(self) -> bool:
        """Whether the model is asked for three masks."""
        return self._choose == "best_iou"

    def ask(
        self,
        features: Any,
        boxes_K22: Tensor | None,
        points_KN2: Tensor | None,
        labels_KN: Tensor | None,
        masks_K1mm: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Decode prompts in the square's pixels; gives logits [K, C, m, m] and predicted IoUs [K, C]."""
        model = self.model
        sparse, dense = model.prompt_encoder(
            points=None if points_KN2 is None else (points_KN2, labels_KN),
            boxes=None if boxes_K22 is None else boxes_K22.reshape(-1, 4),
            masks=masks_K1mm,
        )
        found: tuple[Tensor, Tensor] = model.mask_decoder(
            image_embeddings=features,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=self.multimask,
        )
        return found

    def _scaled(self, xy: Tensor, frame: Frame) -> Tensor:
        """Coordinates [..., 2] in the square, in float32 as the packages scale them."""
        height, width = frame.resized
        xy = xy.clone()
        xy[..., 0] *= width / frame.width
        xy[..., 1] *= height / frame.height
        return xy

    def _mask(self, frame: Frame, prompt: Prompt) -> Any:
        if prompt.mask is None:
            return prompt.mask_input
        return frame.mask_prompt(prompt.mask, side=self.rules.mask_side, encoding="logits")

    def as_input(self, values: Any) -> Any:
        """See `Promptable.as_input`."""
        limit = self.rules.clamp
        return values if limit is None else values.clip(-limit, limit)

    def to_image(self, image: _Image, values: Any) -> MaskPatch:
        """See `Promptable.to_image`."""
        from hqsam.prediction.postprocess import mask_patch

        return mask_patch(values, image.frame)

    def to_codes(self, image: _Image, values: Any) -> MaskCodes:
        """See `Promptable.to_codes`."""
        from hqsam.prediction.postprocess import mask_codes

        return mask_codes(values, image.frame) or super().to_codes(image, values)


@dataclass(frozen=True)
class PackageKind(SystemKind):
    """A kind whose models come from a package.

    Attributes:
        modules: names under which the package can be imported; the first that is there is used.
        install: what to say to pip.
    """

    modules: ClassVar[tuple[str, ...]]
    install: ClassVar[str]

    def files(self, entry: Entry) -> list[Path]:
        """See `SystemKind.files`."""
        self.module(entry)
        path = cast(PackageOptions, entry.options).checkpoint
        if not path.is_file():
            raise UserError(
                "there is no such file",
                file=path,
                key=f"systems.{entry.name}.checkpoint",
                cure="correct the path",
            )
        return [path]

    def module(self, entry: Entry) -> str:
        """Find the package's module.

        Raises:
            UserError: It is not installed.
        """
        found = next((m for m in self.modules if importlib.util.find_spec(m) is not None), None)
        if found is None:
            raise UserError(
                f"the package {self.modules[0]} is not installed",
                key=f"systems.{entry.name}.kind",
                cure=f"pip install {self.install}",
            )
        return found

    def open(self, entry: Entry, context: Context) -> PackageModel:
        """Build the model with the package and load the file, all of its weights."""
        from hqsam.model._torchvision import ensure_torchvision
        from hqsam.model.device import pick_device

        module, options = self.module(entry), cast(PackageOptions, entry.options)
        [path], device = self.files(entry), pick_device(context.options.device)
        ensure_torchvision()
        model, own = self.build(module, options, f"systems.{entry.name}")
        load_whole(model, path, f"systems.{entry.name}.checkpoint")
        names = metadata.packages_distributions().get(module, [module])
        own = {
            "library": f"{names[0]} {metadata.version(names[0])}",
            "files": {path.name: sha256_file(path)},
            **own,
        }
        return self.opened(
            module, entry.name, model.eval().to(device), options.choose, context.options, own
        )

    @abstractmethod
    def build(self, module: str, options: Any, key: str) -> tuple[Any, dict[str, Any]]:
        """Build the package's model without weights; gives it and what the protocol block says of it.

        Args:
            module: Of the package.
            options: The entry's.
            key: Of the entry in params.yaml.
        """

    @abstractmethod
    def opened(
        self,
        module: str,
        name: str,
        model: Any,
        choose: str,
        options: PredictOptions,
        own: Mapping[str, Any],
    ) -> PackageModel:
        """Wrap the loaded model, see `PackageModel`."""


def load_whole(model: Any, path: Path, key: str) -> None:
    """Load a file into a model, every tensor of both; code in the file is never run.

    Raises:
        UserError: It is no file of weights, or of another model.
    """
    from hqsam.model.weight_files import read_tensors

    state, _ = read_tensors(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        line = next((n for n in str(error).splitlines()[1:]), str(error)).strip()
        raise UserError(
            f"the file is of another model: {line[:200]}",
            file=path,
            key=key,
            cure="give the file that was published for this model",
        ) from error
