"""From shards and prompt shards to views, by a seeded plan.

The plan says which (sample, view) pairs each step of each rank sees; it is a function of the seed,
the epoch and the world size alone. Shards are read at random by the offsets of their index, so
there is nothing to shuffle approximately and nothing to resume but two numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsam.training.batch import View
from hqsam_base.errors import UserError
from hqsam_base.processes import keep_freed_memory
from hqsam_datasets import prompts as prompt_kinds
from hqsam_datasets.formats.tar import TarReader, places, read_index
from hqsam_datasets.prepare import augment
from hqsam_datasets.sample import Sample, parse_sample

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample's members begin and end in its shard and in its prompt shard."""

    key: str
    shard: str
    offset: int
    end: int
    prompt_shard: str
    prompt_offset: int
    prompt_end: int


@dataclass(frozen=True, slots=True)
class Item:
    """One planned view: number of the sample in the index and number of the view."""

    sample: int
    view: int


class TrainingSet:
    """Random access to the samples of `data/shards` with their plans of `data/prompts`.

    Args:
        shards: folder with `index.json` and `train-*.tar`.
        prompts: folder with `index.json` and `prompts-*.tar`, same keys in the same order.

    Raises:
        UserError: a folder is incomplete, or the two do not belong together.
    """

    def __init__(self, *, shards: Path, prompts: Path) -> None:
        self.shards, self.prompts = shards, prompts
        images, plans = read_index(shards), read_index(prompts, stage="augment")
        self.digests = {
            "shards": str(images.get("digest", "")),
            "prompts": str(plans.get("digest", "")),
        }
        self.mask_input_size = plans.get("mask_input_size")
        self.by_source: dict[str, int] = dict(images.get("by_source", {}))
        samples, planned = list(places(images)), list(places(plans))
        if [i[0] for i in samples] != [p[0] for p in planned]:
            odd = sorted({i[0] for i in samples} ^ {p[0] for p in planned})
            raise UserError(
                "shards and prompts do not hold the same samples in the same order",
                file=self.prompts / "index.json",
                key=odd[0] if odd else None,
                cure="run the augment stage again",
            )
        self.places = [Place(*i, *p[1:]) for i, p in zip(samples, planned, strict=True)]
        self._images = {
            shard["name"]: TarReader(shards / shard["name"]) for shard in images["shards"]
        }
        self._plans = {
            shard["name"]: TarReader(prompts / shard["name"]) for shard in plans["shards"]
        }

    def __len__(self) -> int:
        return len(self.places)

    def of_sources(self, sources: Sequence[str]) -> list[int]:
        """Numbers of the samples of some training sources; of all if none is named.

        Raises:
            UserError: a source without a sample in the shards.
        """
        empty = [name for name in sources if not self.by_source.get(name)]
        if empty:
            have = ", ".join(sorted(self.by_source))
            raise UserError(
                f"the shards hold no sample of {', '.join(empty)}",
                file=self.shards / "index.json",
                key="train.sources",
                cure=f"name some of: {have}",
            )
        return [
            n
            for n, place in enumerate(self.places)
            if not sources or self.source_of(place.key) in sources
        ]

    def source_of(self, key: str) -> str:
        """The source of a sample: the longest name of one that its key begins with."""
        return max(
            (name for name in self.by_source if key.startswith(f"{name}_")), key=len, default=""
        )

    def close(self) -> None:
        """Close the shards."""
        for reader in (*self._images.values(), *self._plans.values()):
            reader.close()

    def sample(self, number: int) -> Sample:
        """The decoded sample; raises UserError naming shard and key if it is damaged."""
        place = self.places[number]
        reader = self._images[place.shard]
        key, files = reader.read_sample(place.offset, place.end)
        self._same_key(key, place.key, reader.path)
        return parse_sample(key, files)

    def plan(self, number: int) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The plan (`<key>.json`) of a sample and its other members, e.g. `noise0.png`."""
        place = self.places[number]
        reader = self._plans[place.prompt_shard]
        path = reader.path
        key, files = reader.read_sample(place.prompt_offset, place.prompt_end)
        self._same_key(key, place.key, path)
        try:
            plan = json.loads(files["json"])
            if not plan["views"]:
                raise ValueError("no views")
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"the plan is damaged: {error}",
                file=path,
                key=key,
                cure="run the augment stage again",
            ) from None
        return plan, files

    def view(self, item: Item) -> View:
        """One view: image and label rebuilt from the plan, and its prompts."""
        sample, (plan, files) = self.sample(item.sample), self.plan(item.sample)
        place = self.places[item.sample]
        try:
            record = plan["views"][item.view]
            kind = prompt_kinds.load(record["prompt"])
            given = kind.planned(record, lambda name: _grey(files[f"{name}{item.view}.png"]))
            image, mask = augment.apply_view(
                image=sample.image, mask=sample.instances[record["instance"]].mask, view=record
            )
            return View(
                key=place.key, view=item.view, image=image, mask=mask, prompt=kind.name, given=given
            )
        except (KeyError, IndexError, ValueError, UserError) as error:
            raise UserError(
                f"view {item.view} of the plan cannot be used: {error!r}",
                file=self.prompts / place.prompt_shard,
                key=place.key,
                cure="run the augment stage again",
            ) from error

    @staticmethod
    def _same_key(found: str, wanted: str, path: Path) -> None:
        if found != wanted:
            raise UserError(
                f"the index says {wanted}, the shard holds {found}",
                file=path,
                key=wanted,
                cure="write the shards again",
            )


def _grey(data: bytes) -> NDArray[np.uint8]:
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if array is None:
        raise ValueError("the picture of the prompt is not a PNG")
    return np.asarray(array, np.uint8)


def held_out(keys: Sequence[str], *, share: float, most: int) -> set[str]:
    """The validation slice: the `share` of the keys with the smallest hash, at most `most`.

    By the keys alone, so that the slice hardly moves when samples come or go.
    """
    count = min(most, round(share * len(keys)))
    return set(sorted(keys, key=lambda k: hashlib.sha256(k.encode()).digest())[:count])


def n_views(data: TrainingSet) -> int:
    """Views per sample, read from the first plan."""
    return len(data.plan(0)[0]["views"])


def epoch_items(samples: Sequence[int], *, views: int, cycle: bool, epoch: int) -> list[Item]:
    """The views of an epoch in index order: all of each sample, or number `epoch % views`."""
    chosen = [epoch % views] if cycle else range(views)
    return [Item(s, v) for s in samples for v in chosen]


def epoch_steps(n_items: int, *, batch_size: int, world: int) -> int:
    """Steps of an epoch of `n_items` views; see `epoch_plan`."""
    return n_items // (min(batch_size, n_items // world) * world)


def epoch_plan(
    items: Sequence[Item], *, seed: int, epoch: int, batch_size: int, rank: int = 0, world: int = 1
) -> list[list[Item]]:
    """The batches of one rank in one epoch.

    All ranks get the same number of steps and no view occurs twice; what does not fill a step of
    all ranks is left out of this epoch (another part each epoch). Fewer views than one step holds
    make one smaller step.

    Args:
        items: the epoch's views.
        seed: of the run.
        epoch: counted from 0.
        batch_size: views per step and rank.
        rank: this process.
        world: number of processes.

    Returns:
        One list of views per step.

    Raises:
        UserError: more ranks than views.
    """
    if len(items) < world:
        raise UserError(
            f"{len(items)} training views for {world} processes", cure="start fewer processes"
        )
    order = np.random.default_rng([seed, epoch]).permutation(len(items))
    size = min(batch_size, len(items) // world)
    steps = epoch_steps(len(items), batch_size=batch_size, world=world)
    mine = order[: steps * size * world].reshape(steps, world, size)[:, rank]
    return [[items[i] for i in step] for step in mine]


def prefetch(
    function: Callable[[In], Out], inputs: Iterable[In], *, workers: int, ahead: int
) -> Iterator[Out]:
    """Map in threads, in order, at most `ahead` results early; an exception comes out at its place."""
    keep_freed_memory()
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            for value in inputs:
                waiting.append(pool.submit(function, value))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
