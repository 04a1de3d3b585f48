"""Predict the prompts of benchmark images with every system of a run.

Images are read ahead, encoded in batches and decoded in passes; masks are made on threads
meanwhile. `benchmark` turns this into the files of a stage.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
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
from hqsam.prediction.postprocess import MaskCodes
from hqsam.prediction.prompt import Prompt
from hqsam.prediction.rows import MaskRows, Row
from hqsam.prediction.tracks import Tracks
from hqsam.systems import Derived, Promptable
from hqsam.systems.base import Decoded
from hqsam_base import rle
from hqsam_base.atomic import read_json
from hqsam_base.errors import UserError
from hqsam_base.runs import RleBatch
from hqsam_base.terminal import say
from hqsam_datasets.formats import manifest
from hqsam_datasets.formats.image_files import ImageError
from hqsam_datasets.formats.images import decode_image
from hqsam_datasets.formats.tar import TarReader

_AHEAD = 2  # batches of images that are read before they are needed
_PENDING = 4  # calls a thread that wait for their masks: logits of 16 prompts are 4 MB
_SIZES = ("batch_images", "prompts_per_pass")
"""Options that are halved when the device's memory is too small."""
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
        columns = ["key", "member", "shard", "height", "width", "video"]
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
    def tracked(self) -> list[str]:
        """Prompt sets in which each system follows its own masks through a video."""
        found: list[str] = read_json(self._folder / "index.json").get("tracked", [])
        return found

    @property
    def units(self) -> list[str | None] | None:
        """The video of each image, where frames are predicted one after the other; None: images stand alone."""
        return [row["video"] for row in self._images] if self.tracked else None

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

    def key(self, number: int) -> str:
        """The key of the image of that number in key order."""
        return str(self._images[number]["key"])

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


@dataclass
class Figures:
    """How fast a stage predicted; adds up over processes.

    Attributes:
        images: decoded, those without prompts included.
        prompts: of these images.
        wall_s: from the first image's reading to the last part's writing.
        device_s: of it, inside the systems' own calls: encoding, decoding, refining.
        halved: options that the memory was too small for, and what they came down to.
    """

    images: int = 0
    prompts: int = 0
    wall_s: float = 0.0
    device_s: float = 0.0
    halved: dict[str, int] = field(default_factory=dict)

    def add(self, other: Figures) -> None:
        """Take in the figures of another process, or of another part."""
        for name in ("images", "prompts", "wall_s", "device_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, size in other.halved.items():
            self.halved[name] = min(size, self.halved.get(name, size))

    @contextlib.contextmanager
    def on_device(self) -> Iterator[None]:
        """Time a call of a system."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.device_s += time.perf_counter() - start

    def rates(self, processes: int = 1) -> dict[str, float]:
        """Say what people ask for: images and prompts a second, and the share of time that the device waited."""
        wall = max(self.wall_s, 1e-9)
        return {
            "images_per_s": round(processes * self.images / wall, 3),
            "prompts_per_s": round(processes * self.prompts / wall, 3),
            "device_waited": round(1 - self.device_s / wall, 4),
        }


class Engine:
    """The systems of a run, ready to predict.

    Reading, the systems' own calls and the making of masks overlap: images are read ahead, and
    masks are made on threads while the next passes are decoded. At most `_PENDING` passes a thread
    wait for their masks, at most `_AHEAD` batches of images for the systems.

    Args:
        opened: The systems, those that change other systems' masks after these.
        options: How.
        threads: For reading and for masks; by default one per core.
    """

    def __init__(
        self,
        opened: Sequence[tuple[str, Promptable | Derived]],
        options: PredictOptions,
        threads: int | None = None,
    ) -> None:
        self.options = options
        self.figures = Figures()
        self._threads = threads or max(2, len(os.sched_getaffinity(0)))
        self._promptable = [one for _, one in opened if isinstance(one, Promptable)]
        self._derived = [(name, one) for name, one in opened if isinstance(one, Derived)]
        self._tracks: dict[tuple[str, int], Tracks] = {}
        self._sizes = {name: getattr(options, name) for name in _SIZES}

    def run(
        self, images: BenchmarkImages, spans: Iterable[Sequence[int]]
    ) -> Generator[list[MaskRows], None, None]:
        """The rows of some images, image by image in the order asked for, as soon as they are decoded.

        Images without prompts are not read. No batch reaches over the end of a span.
        """
        size = self.options.batch_images
        self._tracks = {}
        batches = [span[n : n + size] for span in spans for n in range(0, len(span), size)]
        with ThreadPoolExecutor(self._threads) as pool:
            read = partial(self._read, images)
            ahead = deque([pool.submit(read, n) for n in batch] for batch in batches[:_AHEAD])
            makers = _Makers(pool, _PENDING * self._threads)
            for following in [*batches[_AHEAD:], *[()] * _AHEAD][: len(batches)]:
                batch = [future.result() for future in ahead.popleft()]
                ahead.append([pool.submit(read, n) for n in following])
                yield from self._predict_batch(images, batch, makers)

    def _read(self, images: BenchmarkImages, number: int) -> _Prepared | None:
        task = images.task(number)
        if not task.prompts:
            return None
        pixels = images.pixels(task.image)
        inputs = [one.prepare(pixels) for one in self._promptable]
        prompts = [Prompt.from_row(row) for row in task.prompts]
        return _Prepared(task, prompts, pixels if self._derived else None, inputs)

    def _predict_batch(
        self, images: BenchmarkImages, batch: Sequence[_Prepared | None], makers: _Makers
    ) -> Iterator[list[MaskRows]]:
        found = [item for item in batch if item is not None]
        with self.figures.on_device():
            encoded = [
                [
                    image
                    for _, batch in self._in_memory(
                        "batch_images", one.encode, [item.inputs[k] for item in found]
                    )
                    for image in batch
                ]
                for k, one in enumerate(self._promptable)
            ]
        turns = iter(range(len(found)))
        for item in batch:
            self.figures.images += 1
            if item is None:
                yield []
                continue
            turn = next(turns)
            self.figures.prompts += len(item.prompts)
            rows = [
                rows
                for k, one in enumerate(self._promptable)
                for rows in self._decode(one, encoded[k][turn], item, images, makers)
            ]
            for name in images.clicks:
                features = [image[turn] for image in encoded]
                rows += self._clicked(name, images, item, features, makers)
            for name in images.tracked:
                for k, one in enumerate(self._promptable):
                    rows += self._followed(name, k, one, encoded[k][turn], images, item, makers)
            for name, derived in self._derived:
                rows += [
                    self._refined(name, derived, item, of) for of in rows if of.system == derived.of
                ]
            yield rows

    def _decode(
        self,
        one: Promptable,
        image: Any,
        item: _Prepared,
        images: BenchmarkImages,
        makers: _Makers,
    ) -> Iterator[MaskRows]:
        """The rows of one opened model for one image, in passes; of sets that it can use all prompts of."""
        sets: dict[str, list[int]] = {}
        for n, row in enumerate(item.task.prompts):
            name = str(row["prompt_set"])
            own = name in images.clicks or name in images.tracked
            if images.parts[name] <= one.takes and not own:
                sets.setdefault(name, []).append(n)
        # Each set on its own: the last bits depend on what shares a pass, and must not depend on
        # which other sets a run has.
        alike = [
            [mine[place] for place in places]
            for mine in sets.values()
            for places in group([item.prompts[n] for n in mine])
        ]
        for numbers in alike:
            decode = partial(self._decoded, one, image, item)
            for some, found in self._in_memory("prompts_per_pass", decode, numbers):
                rows = [item.task.prompts[n] for n in some]
                for system, decoded in found.items():
                    masks = makers.start(partial(one.to_codes, image, decoded.values))
                    yield MaskRows(rows, system, decoded.iou, masks)

    def _decoded(
        self, one: Promptable, image: Any, item: _Prepared, numbers: Sequence[int]
    ) -> Mapping[str, Decoded]:
        with self.figures.on_device():
            return one.decode(image, [item.prompts[n] for n in numbers])

    def _in_memory(
        self, option: str, call: Callable[[list[Any]], Any], items: Sequence[Any]
    ) -> Iterator[tuple[list[Any], Any]]:
        """Call a system with at most as many items as `option` says; gives the items and the result of each call.

        When the device's memory is too small, with half as many from then on.

        Raises:
            torch.OutOfMemoryError: it is too small for one item.
        """
        start = 0
        while start < len(items):
            some = list(items[start : start + self._sizes[option]])
            try:
                found = call(some)
            except torch.OutOfMemoryError:
                if len(some) == 1:
                    raise
                found = None  # what the error holds of the failed pass is given back first
            if found is None:
                self._halve(option, len(some))
                continue
            yield some, found
            start += len(some)

    def _halve(self, option: str, size: int) -> None:
        self._sizes[option] = self.figures.halved[option] = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        say(
            f"out of memory with predict.{option} = {size}: {size // 2} from here on; the last bits "
            f"of a mask may depend on it",
            err=True,
        )

    def _clicked(
        self,
        prompt_set: str,
        images: BenchmarkImages,
        item: _Prepared,
        encoded: Sequence[Any],
        makers: _Makers,
    ) -> Iterator[MaskRows]:
        """The rows of an interactive set for one image; the next click waits for the mask of the last."""
        mine = [row for row in item.task.prompts if row["prompt_set"] == prompt_set]
        targets = clicks.of_rows(mine, images.masks(str(item.task.image["key"]))) if mine else []
        size, watch = self.options.prompts_per_pass, self.figures.on_device
        for one, image in zip(self._promptable, encoded, strict=True):
            if targets and images.parts[prompt_set] <= one.takes:
                for row, system, patch, iou in clicks.predictions(
                    one, image, targets, per_pass=size, on_device=watch
                ):
                    masks = makers.start(partial(MaskCodes.of, [patch]))
                    yield MaskRows([dict(row)], system, [iou], masks)

    def _followed(
        self,
        prompt_set: str,
        number: int,
        one: Promptable,
        image: Any,
        images: BenchmarkImages,
        item: _Prepared,
        makers: _Makers,
    ) -> Iterator[MaskRows]:
        """The rows of a set in which each system follows its own masks, for one frame."""
        mine = [row for row in item.task.prompts if row["prompt_set"] == prompt_set]
        if not mine or not images.parts[prompt_set] <= one.takes:
            return
        tracks = self._tracks.setdefault((prompt_set, number), Tracks())
        for row, system, patch, iou in tracks.predictions(
            one,
            image,
            item.task.image["video"],
            mine,
            per_pass=self.options.prompts_per_pass,
            on_device=self.figures.on_device,
        ):
            yield MaskRows([dict(row)], system, [iou], makers.start(partial(MaskCodes.of, [patch])))

    def _refined(self, name: str, derived: Derived, item: _Prepared, of: MaskRows) -> MaskRows:
        """The rows of a system that changes another one's masks."""
        assert item.pixels is not None
        codes = of.masks().codes
        found = []
        for n in range(len(codes)):
            height, width = int(codes.heights[n]), int(codes.widths[n])
            mask = rle.decode(codes.string(n), height=height, width=width)
            with self.figures.on_device():
                found.append(derived.refine(item.pixels, mask))
        strings = [rle.encode(mask).encode("ascii") for mask in found]
        areas = np.array([int(mask.sum()) for mask in found], np.int64)
        made = MaskCodes(RleBatch.of(strings, codes.heights, codes.widths), areas)
        return replace(of, system=name, masks=lambda: made)


class _Makers:
    """Threads that make masks; whoever has more to do than `limit` calls waits."""

    def __init__(self, pool: ThreadPoolExecutor, limit: int) -> None:
        self._pool = pool
        self._room = threading.Semaphore(limit)

    def start(self, make: Callable[[], MaskCodes]) -> Callable[[], MaskCodes]:
        """Have masks made; gives what waits for them."""
        self._room.acquire()
        future = self._pool.submit(make)
        future.add_done_callback(lambda _: self._room.release())
        return future.result
