"""Features of all planned views, encoded once: what that costs, and files that outlive a process.

The features are 16 bits a number, in memory or, when they are many or several processes share them,
in memory-mapped files. Each process encodes its part of the views. A run that was killed finds what
it had encoded: `done.bin` holds one byte per chunk, `cache.json` says what the features are of.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqsam.model.hq_sam import HQSam
from hqsam.training.batch import View, collate
from hqsam.training.feed import CachedFeed, decoding_threads, encode, without_image
from hqsam.training.group import Group
from hqsam.training.loader import Item, epoch_items, prefetch
from hqsam.training.options import TrainOptions
from hqsam.training.ready import Ready
from hqsam_base.atomic import disk_full_is_user_error, json_bytes, write_bytes
from hqsam_base.errors import UserError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
MARK, DONE = "cache.json", "done.bin"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class CachePlan:
    """What a cache costs.

    Attributes:
        n_views: views that are encoded.
        bytes: of all features.
        in_memory: whether they stay in memory.
        free: bytes free on the disk that they go to otherwise.
        passes: encoder passes over the views that training online would take, as a multiple of the
            cache's one.
    """

    n_views: int
    bytes: int
    in_memory: bool
    free: int
    passes: float

    def text(self, seconds_per_view: float) -> str:
        """The estimate, one line: what it takes, and whether it saves time."""
        place = "memory" if self.in_memory else f"disk ({self.free / 2**30:.1f} GiB free)"
        encode_s = self.n_views * seconds_per_view
        verdict = (
            "worth it"
            if self.passes > 1
            else "online would encode no more: train.feed: online needs no space"
        )
        return (
            f"cached features: {self.n_views} views, {self.bytes / 2**30:.2f} GiB in {place}; "
            f"encoding takes about "
            f"{encode_s:.0f} s once, {encode_s * self.passes:.0f} s in all online: {verdict}"
        )

    def check(self, folder: Path) -> None:
        """Refuse a cache that does not fit.

        Raises:
            UserError: the disk has not enough room.
        """
        # A cache that was begun is not counted twice.
        occupied = sum(path.stat().st_blocks * 512 for path in folder.glob("*.bin"))
        if not self.in_memory and self.bytes > self.free + occupied:
            raise UserError(
                f"the cached features of {self.n_views} views take {self.bytes / 2**30:.1f} GiB, "
                f"the disk has "
                f"{self.free / 2**30:.1f} GiB free",
                file=folder,
                key="train.feed",
                cure="set train.feed to online, plan fewer views (augment.views), or free some "
                "space",
            )


def plan_cache(
    model: HQSam, items: Sequence[Item], options: TrainOptions, folder: Path, *, online: int
) -> CachePlan:
    """Size of a cache.

    Args:
        model: whose features.
        items: the views.
        options: the `train` section.
        folder: where large ones go.
        online: views that all epochs together show.
    """
    size = sum(2 * int(np.prod(shape)) for shape in _shapes(model, len(items)))
    free = shutil.disk_usage(folder).free
    return CachePlan(
        len(items), size, size <= options.cache_gib * 2**30, free, online / max(1, len(items))
    )


def _shapes(model: HQSam, n: int) -> list[tuple[int, ...]]:
    b = model.backbone
    return [(n, c, b.embedding_size, b.embedding_size) for c in (b.decoder_dim, b.vit_dim)]


def _mapped(path: Path, dtype: type, shape: tuple[int, ...]) -> NDArray[np.generic]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with disk_full_is_user_error(path), path.open("ab") as file:
        file.truncate(size)
        if hasattr(
            os, "posix_fallocate"
        ):  # a hole that finds no room on the disk later kills the process: SIGBUS
            os.posix_fallocate(file.fileno(), 0, size)
    return np.memmap(path, dtype, "r+", shape=shape)


def _array(shape: tuple[int, ...], path: Path | None, dtype: torch.dtype) -> Tensor:
    if path is None:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(_mapped(path, np.int16, shape)).view(dtype)


def cached_feed(
    ready: Ready, options: TrainOptions, *, scratch: Path, identity: Mapping[str, object]
) -> CachedFeed:
    """Encode every view that any epoch will ask for once, or as far as that was not done before.

    The estimate of what that costs is told before the bulk is encoded.

    Args:
        ready: the run.
        options: its `train` section, with the number of threads and views per encoder call found
            out.
        scratch: folder for the memory-mapped files when the features exceed `cache_gib` or several
            processes need them; they are the caller's to remove.
        identity: what the features are of; a cache of another one is thrown away.

    Raises:
        UserError: the features do not fit on the disk.
    """
    data, model, group = ready.data, ready.model, ready.group
    items = epoch_items(ready.samples, views=ready.views, cycle=False, epoch=0)
    plan = plan_cache(model, items, options, scratch, online=options.epochs * len(ready.items(0)))
    plan.check(scratch)
    dtype = DTYPES[options.cache_dtype]
    kept = None if plan.in_memory and group.size == 1 else scratch
    chunks = [
        range(i, min(i + options.encode_batch, len(items)))
        for i in range(0, len(items), options.encode_batch)
    ]
    done = _done(kept, identity, len(chunks), group)
    final, early = (
        _array(s, None if kept is None else kept / f"features-{n}.bin", dtype)
        for s, n in zip(_shapes(model, len(items)), ("final", "early"), strict=True)
    )
    views: dict[Item, View] = {}
    mine = [n for n in range(group.rank, len(chunks), group.size) if not done[n]]
    loaded = prefetch(
        lambda n: [data.view(items[i]) for i in chunks[n]],
        mine,
        workers=options.workers,
        ahead=2 * options.workers,
    )
    encoders = _encoders(options, group)
    features = prefetch(
        lambda found: (found, encode(model, collate(found), bf16=options.precision == "bf16")),
        loaded,
        workers=encoders,
        ahead=encoders,
    )
    begin = time.perf_counter()
    for number, (found, encoded) in zip(mine, features, strict=True):
        at = slice(chunks[number].start, chunks[number].stop)
        final[at], early[at] = (
            encoded.final_BCHW.to(dtype).cpu(),
            encoded.early_BVHW.to(dtype).cpu(),
        )
        done[number] = 1
        if kept is None:
            views |= {
                items[i]: without_image(v) for i, v in zip(chunks[number], found, strict=True)
            }
        if number == mine[0]:
            ready.say(plan.text((time.perf_counter() - begin) / len(found) / group.size / encoders))
        ready.progress(at.stop, len(items), "encode")
    group.wait()
    rows = {item: n for n, item in enumerate(items)}
    return CachedFeed(data, rows, views, final, early, model.device, options.workers)


def _encoders(options: TrainOptions, group: Group) -> int:
    """Chunks that are encoded side by side: on a CPU, whose cores a pass of `threads` threads does not fill."""
    if group.device.type == "cuda":
        return 1
    return min(options.workers, max(1, decoding_threads(0) // torch.get_num_threads()))


def _done(
    folder: Path | None, identity: Mapping[str, object], n_chunks: int, group: Group
) -> NDArray[np.generic]:
    """One byte per chunk: whether its features are there. Shared by the processes.

    Files of another run are removed, and those of before a restart of the machine: what was not
    written out yet is lost then, and nothing tells which chunks that concerns.
    """
    if folder is None:
        return np.zeros(n_chunks, np.uint8)
    boot = _BOOT.read_text().strip() if _BOOT.is_file() else ""
    mark = json_bytes({**identity, "boot": boot})
    if group.leads and not ((folder / MARK).is_file() and (folder / MARK).read_bytes() == mark):
        for path in folder.iterdir():
            path.unlink()
        write_bytes(folder / MARK, mark)
    group.wait()
    return _mapped(folder / DONE, np.uint8, (n_chunks,))
