"""Predict the prompts of benchmark images: reading, encoding in batches, decoding in passes, upscaling on threads.

`predict` turns this into the files of a stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from hqsam.model.hq_sam import Encoded, HQSam
from hqsam.model.preprocess import Frame, MaskEncoding, Resize
from hqsam.model.prompt_inputs import group
from hqsam.prediction.postprocess import mask_patch
from hqsam.prediction.prompt import Prompt, embed
from hqsam_base.errors import UserError
from hqsam_datasets.formats import manifest
from hqsam_datasets.formats.images import ImageError, decode_image
from hqsam_datasets.formats.tar import TarReader

SYSTEMS = ("sam", "hq_token", "hq_sum")
Row = dict[str, Any]
MaskPrompt = Literal["as_trained", "binary_255", "logits"]


class PredictOptions(BaseModel):
    """``predict`` and ``benchmarks.<name>.predict`` of params.yaml together.

    Attributes:
        resize: ``stretch``: to the input square, aspect not kept (protocol of the four HQ sets); ``longest_side``:
            SAM's own resizing with padding.
        mask_prompt: What a mask prompt becomes. ``as_trained``: for each decoder what it was trained on, that is logits
            for SAM and 0/255 for the HQ decoder; ``binary_255`` or ``logits``: the same for both.
        precision: Of the image encoder; ``bfloat16`` is for GPUs.
        device: ``auto`` takes a GPU if there is one.
        batch_images: Images per encoder call.
        prompts_per_pass: Prompts per decoder call: bounds the memory of images with hundreds of prompts.
        images_per_part: Images per part file: what a killed run loses at most.
        threads: Compute threads; fixed, because the last bits of a sum depend on it. 0: leave torch's setting.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: Resize = "longest_side"
    mask_prompt: MaskPrompt = "as_trained"
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_images: int = Field(default=8, ge=1)
    prompts_per_pass: int = Field(default=16, ge=1)
    images_per_part: int = Field(default=64, ge=1)
    threads: int = Field(default=2, ge=0)

    def mask_encoding(self, decoder: Literal["sam", "hq"]) -> MaskEncoding:
        """What a mask prompt becomes for one of the two decoders."""
        if self.mask_prompt != "as_trained":
            return self.mask_prompt
        return "logits" if decoder == "sam" else "binary_255"


@dataclass(frozen=True)
class Task:
    """An image and its prompts, as the tables have them."""

    image: Row
    prompts: list[Row]


class BenchmarkImages:
    """The images of a benchmark in key order, each with its prompts; pixels are read on demand, from any thread.

    Args:
        folder: ``data/benchmarks/<benchmark>``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        columns = ["key", "member", "shard", "height", "width"]
        self._images = sorted(manifest.read_rows(folder / "images.parquet", columns), key=lambda row: str(row["key"]))
        self._prompts = manifest.read_table(folder / "prompts.parquet").sort_by([("key", "ascending")])
        keys = self._prompts.column("key").to_numpy(zero_copy_only=False).astype(str)
        self._check_keys(keys)
        self._first = np.searchsorted(keys, [row["key"] for row in self._images], side="left")
        self._stop = np.searchsorted(keys, [row["key"] for row in self._images], side="right")
        self._readers = {row["shard"]: TarReader(folder / row["shard"]) for row in self._images}
        for reader in self._readers.values():
            _ = reader.members  # built once, here, rather than by two threads at a time

    def __enter__(self) -> BenchmarkImages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers.values():
            reader.close()

    def __len__(self) -> int:
        return len(self._images)

    @property
    def n_prompts(self) -> int:
        """Number of prompts of all images."""
        return int(self._prompts.num_rows)

    def task(self, number: int) -> Task:
        """The image of that number in key order and its prompts in the order of their ids."""
        first, stop = int(self._first[number]), int(self._stop[number])
        prompts = self._prompts.slice(first, stop - first).to_pylist()
        return Task(self._images[number], sorted(prompts, key=lambda row: str(row["prompt_id"])))

    def pixels(self, image: Row) -> npt.NDArray[np.uint8]:
        """Decode an image to uint8 ``[H, W, 3]`` RGB, upright.

        Raises:
            UserError: It is not there, damaged, or not of the size that the ground truth has.
        """
        path = self._folder / image["shard"]
        try:
            pixels = decode_image(self._readers[image["shard"]].read(image["member"]))
        except (KeyError, ImageError) as error:
            raise UserError(
                f"the image {image['member']} cannot be read ({error})",
                file=path,
                key=image["key"],
                cure="run the index stage again (`dvc repro -f index`)",
            ) from error
        if pixels.shape[:2] != (image["height"], image["width"]):
            expected = f"{image['width']} x {image['height']}"
            raise UserError(
                f"the image is {pixels.shape[1]} x {pixels.shape[0]}, its ground truth {expected}",
                file=path,
                key=image["key"],
            )
        return pixels

    def _check_keys(self, keys: npt.NDArray[np.str_]) -> None:
        orphans = sorted(set(keys.tolist()) - {str(row["key"]) for row in self._images})
        if orphans:
            raise UserError(f"{len(orphans)} keys of prompts.parquet have no image", file=self._folder, key=orphans[0])


@dataclass(frozen=True)
class _Prepared:
    """A task whose image was read: its place in the input square and the resized pixels."""

    task: Task
    prompts: list[Prompt]
    frame: Frame
    pixels_3hw: Tensor


class Engine:
    """A model, ready to predict.

    Args:
        model: In eval mode; moved to the device of the options.
        options: How.
    """

    def __init__(self, model: HQSam, options: PredictOptions) -> None:
        self.options = options
        self.model = model.to(pick_device(options.device))

    def run(self, images: BenchmarkImages, numbers: Iterable[int]) -> Iterator[list[Row]]:
        """The rows of some images, image by image in the order asked for; one row per prompt and system.

        Images without prompts are not read. The next batch is read while this one is computed.
        """
        numbers = list(numbers)
        size = self.options.batch_images
        with ThreadPoolExecutor(max(2, torch.get_num_threads())) as pool:
            read = partial(self._read, images)
            ahead = [pool.submit(read, n) for n in numbers[:size]]
            for start in range(0, len(numbers), size):
                batch = [future.result() for future in ahead]
                ahead = [pool.submit(read, n) for n in numbers[start + size : start + 2 * size]]
                yield from self._predict_batch(batch, pool)

    def _read(self, images: BenchmarkImages, number: int) -> _Prepared | None:
        task = images.task(number)
        if not task.prompts:
            return None
        pixels = images.pixels(task.image)
        frame = Frame(pixels.shape[0], pixels.shape[1], self.model.backbone.image_size, self.options.resize)
        return _Prepared(task, [Prompt.from_row(row) for row in task.prompts], frame, frame.image(pixels))

    def _predict_batch(self, batch: Sequence[_Prepared | None], pool: ThreadPoolExecutor) -> Iterator[list[Row]]:
        found = [item for item in batch if item is not None]
        encoded = self._encode([item.pixels_3hw for item in found]) if found else None
        number = 0
        for item in batch:
            if item is None or encoded is None:
                yield []
                continue
            yield self._decode(item, encoded[number : number + 1], pool)
            number += 1

    @torch.inference_mode()
    def _encode(self, images_3hw: Sequence[Tensor]) -> Encoded:
        # Padding is part of preprocess, so images of different sizes meet at the input square.
        inputs = torch.cat([self.model.preprocess(image[None]) for image in images_3hw])
        low = self.options.precision == "bfloat16"
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=low):
            encoded = self.model.encode(inputs)
        return encoded.float()

    @torch.inference_mode()
    def _decode(self, item: _Prepared, encoded: Encoded, pool: ThreadPoolExecutor) -> list[Row]:
        fused = self.model.fuse(encoded)
        futures: list[Future[Row]] = []
        for numbers in group(item.prompts):
            for start in range(0, len(numbers), self.options.prompts_per_pass):
                some = numbers[start : start + self.options.prompts_per_pass]
                results = self._pass(item.frame, encoded, fused, [item.prompts[n] for n in some])
                for system, (logits, iou) in results.items():
                    rows = [item.task.prompts[n] for n in some]
                    futures += [
                        pool.submit(_row, row, system, item.frame, logits[k, 0], float(iou[k, 0]))
                        for k, row in enumerate(rows)
                    ]
        return [future.result() for future in futures]

    def _pass(
        self, frame: Frame, encoded: Encoded, fused: Tensor, prompts: Sequence[Prompt]
    ) -> dict[str, tuple[npt.NDArray[np.float32], Tensor]]:
        """Low-resolution logits ``[P, 1, m, m]`` and predicted IoUs ``[P, 1]`` of every system."""
        for_sam = embed(self.model, frame, prompts, mask_encoding=self.options.mask_encoding("sam"))
        for_hq = embed(self.model, frame, prompts, mask_encoding=self.options.mask_encoding("hq"))
        sam = self.model.decode_sam(encoded, for_sam)
        hq = self.model.decode_hq(encoded, for_hq, fused_BFhw=fused)
        results = {
            "sam": (sam.logits_PKhw, sam.iou_PK),
            "hq_token": (hq.hq_P1hw, hq.sam.iou_PK),
            "hq_sum": (hq.sum_P1hw, hq.sam.iou_PK),
        }
        return {name: (logits.float().cpu().numpy(), iou.float().cpu()) for name, (logits, iou) in results.items()}


def pick_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device of that name; ``auto``: a GPU if there is one.

    Raises:
        UserError: ``cuda`` was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available", key="device", cure="use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _row(prompt: Row, system: str, frame: Frame, logits: npt.NDArray[np.float32], iou: float) -> Row:
    patch = mask_patch(logits, frame)
    return {
        "prompt_id": prompt["prompt_id"],
        "key": prompt["key"],
        "prompt_set": prompt["prompt_set"],
        "system": system,
        "rle": patch.rle(),
        "height": frame.height,
        "width": frame.width,
        "iou_pred": round(iou, 6),  # the last bits depend on how many prompts share a pass
        "mask_area": patch.area,
    }
