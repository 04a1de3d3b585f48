"""Detectors of the ``transformers`` library whose boxes are prompts: of DETR's kind, and Grounding DINO.

benchmarks:
  coco:
    index: {prompt_sets: [detector_box], prompts: {detector: ../models/rt-detr, threshold: 0.05}}

A detector of DETR's kind has classes of its own, which are mapped to the set's by name; Grounding
DINO gets the set's names as text. Images go through one at a time: beside a larger neighbour an
image is padded, and its boxes move. Shape letters: Q queries; C categories; T tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hqsam import pretrained
from hqsam_base.digest import sha256_file
from hqsam_base.errors import UserError

if TYPE_CHECKING:
    from hqsam_datasets.benchmarks.base import DetectorOptions
    from hqsam_datasets.benchmarks.detected import Opened

VERSION = 1
GROUNDING = ("grounding-dino", "mm-grounding-dino")
"""Values of ``model_type`` that take text."""

_Image = np.ndarray[Any, np.dtype[np.uint8]]
_Boxes = tuple[Any, Any, Any]
"""Index of the category int64 [n], box xyxy in pixels float64 [n, 4], score float64 [n]."""


class Detector:
    """A detector that is opened only when an image needs it.

    Args:
        options: ``benchmarks.<name>.index.prompts``.
        key: Of params.yaml, for messages.

    Raises:
        UserError: There is no such folder, and no commit of the hub's; or transformers is missing.
    """

    def __init__(self, options: DetectorOptions, key: str) -> None:
        self._options, self._key = options, key
        self._source = pretrained.Source(options.detector, options.revision, key, "detector")
        folder = self._source.checked()
        try:
            installed = {name: metadata.version(name) for name in ("transformers", "torch")}
        except metadata.PackageNotFoundError as error:
            raise UserError(
                f"detectors need the module {error.name!r}",
                cure="pip install 'hqsam-pipeline[detector]'",
            ) from error
        # A folder is its content, wherever it lies; a commit of the hub's is its name.
        model = {"name": options.detector, "revision": options.revision}
        if folder is not None:
            model = {"digest": _digest(folder)}
        self.head: Mapping[str, Any] = {
            "version": VERSION,
            "detector": model,
            "libraries": installed,
            "threshold": options.threshold,
            "per_image": options.per_image,
        }

    def open(self, names: Sequence[str], *, any_class: bool) -> Opened:
        """Load the model.

        Args:
            names: The set's categories.
            any_class: Boxes of all classes count, as of the first category.

        Raises:
            UserError: It cannot be opened, is of another kind, or shares no class with the set.
        """
        from hqsam.model.device import pick_device
        from hqsam_datasets.benchmarks.detected import Opened

        library, folder = self._source.library(), self._source.folder()
        kind = check(folder, self._key)
        by_text = kind in GROUNDING
        with self._source.opening():
            reader = library.AutoProcessor if by_text else library.AutoImageProcessor
            # without the word, the library asks at the terminal whether it may run code
            processor = reader.from_pretrained(folder, trust_remote_code=False)
            cls = (
                library.AutoModelForZeroShotObjectDetection
                if by_text
                else library.AutoModelForObjectDetection
            )
            model, loading = cls.from_pretrained(
                folder, output_loading_info=True, use_safetensors=True, trust_remote_code=False
            )
        self._source.check_whole(loading)
        model = model.eval().to(pick_device(self._options.device))
        find: Callable[[_Image], _Boxes]
        without: list[str] = []
        if by_text:
            texts = _texts(names, processor.tokenizer, model.config.max_text_len, self._key)
            find = _Grounded(model, processor, texts, any_class)
        else:
            places, without = _by_name(model.config.id2label, names, any_class, self._key)
            find = _Classed(model, processor, places, self._options.threshold)
        return Opened(lambda image: self._best(find(image), image), without)

    def _best(self, found: _Boxes, image: _Image) -> list[tuple[int, tuple[float, ...], float]]:
        """The best boxes, cut to the image; equal scores in the order of the model."""
        category, boxes, scores = found
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise UserError(
                "the detector gave a box or score that is not a finite number",
                key=self._key,
                cure="download it again, or use another",
            )
        height, width = image.shape[:2]
        boxes = np.clip(boxes, 0, [width, height, width, height])
        good = (scores >= self._options.threshold) & (boxes[:, :2] < boxes[:, 2:]).all(1)
        order = np.flatnonzero(good)[np.argsort(-scores[good], kind="stable")]
        return [
            (int(category[i]), tuple(boxes[i].tolist()), float(scores[i]))
            for i in order[: self._options.per_image]
        ]


def _digest(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's files, hidden ones left out."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            total.update(f"{name.as_posix()}\0{sha256_file(path)}\n".encode())
    return total.hexdigest()


def check(folder: Path, key: str) -> str:
    """Check that a folder holds a detector of a supported family; gives the family.

    Raises:
        UserError: See `hqsam.pretrained.check_folder`.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES as CLASSED,
    )

    return pretrained.check_folder(folder, key, known=sorted({*CLASSED, *GROUNDING}))


def plain(name: str) -> str:
    """A category's name without what differs between files: `Traffic_Light` is `traffic light`."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _by_name(
    labels: Mapping[Any, str], names: Sequence[str], any_class: bool, key: str
) -> tuple[dict[int, int], list[str]]:
    """The index of the category for each class of the detector, and the categories without one."""
    if any_class:
        return dict.fromkeys(map(int, labels), 0), []
    wanted = {plain(name): place for place, name in enumerate(names)}
    places = {
        int(label): wanted[plain(str(name))]
        for label, name in labels.items()
        if plain(str(name)) in wanted
    }
    if not places:
        raise UserError(
            f"no class of the detector has the name of a category: it has "
            f"{_some(list(labels.values()))}; the annotation file has {_some(names)}",
            key=key,
            cure="use a detector trained on these classes, or Grounding DINO, which takes names",
        )
    there = set(places.values())
    return places, [name for place, name in enumerate(names) if place not in there]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(str, names[:5])) + more


@dataclass(frozen=True)
class _Classed:
    """A detector with classes of its own."""

    model: Any
    processor: Any
    places: Mapping[int, int]
    threshold: float

    def __call__(self, image: _Image) -> _Boxes:
        import torch

        inputs = self.processor(image, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            outputs = self.model(**inputs)
        (found,) = self.processor.post_process_object_detection(
            outputs, threshold=self.threshold, target_sizes=[image.shape[:2]]
        )
        category = np.array([self.places.get(int(label), -1) for label in found["labels"]], int)
        boxes = found["boxes"].double().cpu().numpy().reshape(-1, 4)
        keep = category >= 0
        return category[keep], boxes[keep], found["scores"].double().cpu().numpy()[keep]


@dataclass(frozen=True)
class _Text:
    """As many category names as the model takes at once.

    Attributes:
        text: The names, each ended by a full stop.
        weights: float64 [c, T]: for each of them 1 / n on its n tokens.
        first: Index of the first category.
    """

    text: str
    weights: Any
    first: int


def _texts(names: Sequence[str], tokenizer: Any, limit: int, key: str) -> list[_Text]:
    """Pack the names into texts of at most `limit` tokens."""
    spelled = [plain(name.replace(".", " ")) for name in names]
    # Each name with its full stop; two tokens more begin and end a text.
    lengths = [len(tokenizer(f"{name}.", add_special_tokens=False).input_ids) for name in spelled]
    for name, length in zip(names, lengths, strict=True):
        if not 2 <= length <= limit - 2:
            raise UserError(
                f"the category name {name!r} has {length - 1} tokens; Grounding DINO takes 1 to "
                f"{limit - 3}",
                key=key,
                cure="rename the category in the annotation file",
            )
    texts, first = [], 0
    while first < len(names):
        last, used = first, 2
        while last < len(names) and used + lengths[last] <= limit:
            used += lengths[last]
            last += 1
        weights, at = np.zeros((last - first, limit)), 1
        for row, length in enumerate(lengths[first:last]):
            weights[row, at : at + length - 1] = 1 / (length - 1)
            at += length
        texts.append(_Text(" ".join(f"{name}." for name in spelled[first:last]), weights, first))
        first = last
    return texts


@dataclass(frozen=True)
class _Grounded:
    """Grounding DINO: a category's score is the mean over the tokens of its name, as in its authors' evaluation on COCO."""

    model: Any
    processor: Any
    texts: Sequence[_Text]
    any_class: bool

    def __call__(self, image: _Image) -> _Boxes:
        parts = [self._ask(image, text) for text in self.texts]
        category, boxes, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        return category, boxes, scores

    def _ask(self, image: _Image, text: _Text) -> _Boxes:
        import torch

        inputs = self.processor(images=image, text=text.text, return_tensors="pt")
        with torch.inference_mode():
            found = self.model(**inputs.to(self.model.device))
        probabilities_QT = found.logits[0].double().sigmoid().cpu().numpy()
        scores_QC = probabilities_QT @ text.weights[:, : probabilities_QT.shape[1]].T
        x, y, w, h = found.pred_boxes[0].double().cpu().numpy().T
        height, width = image.shape[:2]
        boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
        boxes *= [width, height, width, height]
        if self.any_class:
            return np.zeros(len(boxes), int), boxes, scores_QC.max(1)
        query, category = (axis.reshape(-1) for axis in np.indices(scores_QC.shape))
        return category + text.first, boxes[query], scores_QC.reshape(-1)
