"""Predict the prompts of benchmark images with every system of a run.

Images are read ahead, encoded in batches and decoded in passes; masks are upscaled on threads.
`benchmark` turns this into the files of a stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hqsam.model.prompt_inputs import group
from hqsam.prediction import clicks
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.postprocess import MaskPatch
from hqsam.prediction.prompt import Prompt
from hqsam.systems import Derived, Promptable
from hqsam_base import rle
from hqsam_base.atomic import read_json
from hqsam_base.errors import UserError
from hqsam_datasets.formats import manifest
from hqsam_datasets.formats.images import ImageError, decode_image
from hqsam_datasets.formats.tar import TarReader

Row = dict[str, Any]
_PARTS = {"box": "x0", "points": "points", "mask": "rle"}
"""Parts of a prompt and the column of ``prompts.parquet`` that tells whether it is there."""


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
        self._images = sorted(
            manifest.read_rows(folder / "images.parquet", columns), key=lambda row: str(row["key"])
        )
        self._prompts = manifest.read_table(folder / "prompts.parquet").sort_by(
            [("key", "ascending")]
        )
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
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for reader in self._readers.values():
            reader.close()

    def __len__(self) -> int:
        return len(self._images)

    @property
    def n_prompts(self) -> int:
        """Number of prompts of all images."""
        return int(self._prompts.num_rows)

    @cached_property
    def parts(self) -> dict[str, frozenset[str]]:
        """The parts that the prompts of each set have: ``box``, ``points``, ``mask``."""
        sets = self._prompts.column("prompt_set").to_numpy(zero_copy_only=False)
        there = {
            part: self._prompts.column(name).is_valid().to_numpy() for part, name in _PARTS.items()
        }
        return {
            str(name): frozenset(part for part, valid in there.items() if valid[sets == name].any())
            for name in np.unique(sets)
        }

    @cached_property
    def clicks(self) -> dict[str, int]:
        """Interactive prompt sets, and how many clicks an object gets."""
        found: dict[str, int] = read_json(self._folder / "index.json").get("clicks", {})
        return found

    @cached_property
    def _truths(self) -> dict[str, list[Row]]:
        """Objects by image; read only where somebody clicks at them."""
        columns = ["key", "instance_id", "rle", "height", "width"]
        found: dict[str, list[Row]] = {}
        for row in manifest.read_rows(self._folder / "instances.parquet", columns):
            found.setdefault(str(row["key"]), []).append(row)
        return found

    def masks(self, key: str) -> dict[str, npt.NDArray[np.bool_]]:
        """The objects of an image by their instance id, bool ``[H, W]``."""
        return {
            str(row["instance_id"]): rle.decode(
                row["rle"], height=row["height"], width=row["width"]
            )
            for row in self._truths.get(key, ())
        }

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
            raise UserError(
                f"{len(orphans)} keys of prompts.parquet have no image",
                file=self._folder,
                key=orphans[0],
            )


@dataclass(frozen=True)
class _Prepared:
    """A task whose image was read.

    Attributes:
        task: the image and its prompts.
        prompts: the prompts, checked.
        pixels: uint8 ``[H, W, 3]``; None where nobody needs them any more.
        inputs: what each promptable system made of the pixels.
    """

    task: Task
    prompts: list[Prompt]
    pixels: npt.NDArray[np.uint8] | None
    inputs: list[Any]


class Engine:
    """The systems of a run, ready to predict.

    Args:
        opened: The systems, those that change other systems' masks after these.
        options: How.
    """

    def __init__(
        self, opened: Sequence[tuple[str, Promptable | Derived]], options: PredictOptions
    ) -> None:
        self.options = options
        self._promptable = [one for _, one in opened if isinstance(one, Promptable)]
        self._derived = [(name, one) for name, one in opened if isinstance(one, Derived)]

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
                yield from self._predict_batch(images, batch, pool)

    def _read(self, images: BenchmarkImages, number: int) -> _Prepared | None:
        task = images.task(number)
        if not task.prompts:
            return None
        pixels = images.pixels(task.image)
        inputs = [one.prepare(pixels) for one in self._promptable]
        prompts = [Prompt.from_row(row) for row in task.prompts]
        return _Prepared(task, prompts, pixels if self._derived else None, inputs)

    def _predict_batch(
        self, images: BenchmarkImages, batch: Sequence[_Prepared | None], pool: ThreadPoolExecutor
    ) -> Iterator[list[Row]]:
        found = [item for item in batch if item is not None]
        encoded = [
            one.encode([item.inputs[k] for item in found]) if found else []
            for k, one in enumerate(self._promptable)
        ]
        turns = iter(range(len(found)))
        for item in batch:
            if item is None:
                yield []
                continue
            turn = next(turns)
            futures = [
                future
                for k, one in enumerate(self._promptable)
                for future in self._decode(one, encoded[k][turn], item, images, pool)
            ]
            rows = [future.result() for future in futures]
            for name in images.clicks:
                rows += self._clicked(name, images, item, [image[turn] for image in encoded])
            for name, derived in self._derived:
                rows += _refined(name, derived, item, rows)
            yield rows

    def _decode(
        self,
        one: Promptable,
        image: Any,
        item: _Prepared,
        images: BenchmarkImages,
        pool: ThreadPoolExecutor,
    ) -> Iterator[Future[Row]]:
        """The rows of one opened model for one image, in passes; of sets that it can use all prompts of."""
        sets: dict[str, list[int]] = {}
        for n, row in enumerate(item.task.prompts):
            name = str(row["prompt_set"])
            if images.parts[name] <= one.takes and name not in images.clicks:
                sets.setdefault(name, []).append(n)
        # Each set on its own: the last bits depend on what shares a pass, and must not depend on
        # which other sets a run has.
        alike = [
            [mine[place] for place in places]
            for mine in sets.values()
            for places in group([item.prompts[n] for n in mine])
        ]
        for numbers in alike:
            for start in range(0, len(numbers), self.options.prompts_per_pass):
                some = numbers[start : start + self.options.prompts_per_pass]
                for system, decoded in one.decode(image, [item.prompts[n] for n in some]).items():
                    for n, values, iou in zip(some, decoded.values, decoded.iou, strict=True):
                        yield pool.submit(
                            _row,
                            item.task.prompts[n],
                            system,
                            partial(one.to_image, image, values),
                            iou,
                        )

    def _clicked(
        self, prompt_set: str, images: BenchmarkImages, item: _Prepared, encoded: Sequence[Any]
    ) -> Iterator[Row]:
        """The rows of an interactive set for one image."""
        mine = [row for row in item.task.prompts if row["prompt_set"] == prompt_set]
        targets = clicks.of_rows(mine, images.masks(str(item.task.image["key"]))) if mine else []
        size = self.options.prompts_per_pass
        for one, image in zip(self._promptable, encoded, strict=True):
            if targets and images.parts[prompt_set] <= one.takes:
                for row, system, patch, iou in clicks.predictions(
                    one, image, targets, per_pass=size
                ):
                    yield _row(dict(row), system, partial(_same, patch), iou)


def _same(patch: MaskPatch) -> MaskPatch:
    return patch


def _refined(name: str, derived: Derived, item: _Prepared, rows: Sequence[Row]) -> list[Row]:
    """The rows of a system that changes another one's masks."""
    found = []
    for row in [row for row in rows if row["system"] == derived.of]:
        mask = rle.decode(row["rle"], height=row["height"], width=row["width"])
        assert item.pixels is not None
        better = derived.refine(item.pixels, mask)
        found.append(
            {**row, "system": name, "rle": rle.encode(better), "mask_area": int(better.sum())}
        )
    return found


def _row(prompt: Row, system: str, to_image: Callable[[], MaskPatch], iou: float) -> Row:
    patch = to_image()
    return {
        "prompt_id": prompt["prompt_id"],
        "key": prompt["key"],
        "prompt_set": prompt["prompt_set"],
        "system": system,
        "rle": patch.rle(),
        "height": patch.height,
        "width": patch.width,
        "iou_pred": round(iou, 6),  # the last bits depend on how many prompts share a pass
        "mask_area": patch.area,
    }
