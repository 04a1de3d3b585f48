"""The plan of augmented views and their prompts, written as shards that join the image shards by key and order.

A view is a flip, a large-scale jitter (resize the long side to s x image_size, s uniform in
`scale`; crop; pad right and bottom), as in the official loader. The plan holds numbers only;
`apply_view` rebuilds the pixels. All draws of a view come from one generator seeded by (key, view,
seed), so no view depends on another, on order or on workers.

Crops that show fewer than `min_foreground` pixels of the object are drawn again, at most
`max_redraws` times; then the whole picture is taken. Which prompts are drawn is the option
`prompts`; how, and for which views, each kind's file says (`hqsam_datasets/prompts/`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from hqsam_base.atomic import atomic_folder, write_json
from hqsam_base.errors import UserError
from hqsam_base.processes import ordered_map, worker_count
from hqsam_base.progress import Progress
from hqsam_datasets import prompts
from hqsam_datasets.formats import images
from hqsam_datasets.formats.masks import FOREGROUND, decode_mask
from hqsam_datasets.formats.resize import resize_bilinear
from hqsam_datasets.formats.tar import iterate_samples, read_index
from hqsam_datasets.formats.tar_writer import ShardWriter
from hqsam_datasets.prompts.base import Target
from hqsam_datasets.prompts.box import mask_box
from hqsam_datasets.sample import mask_extension

T = TypeVar("T")

VERSION = 1
PAD_IMAGE = 128
"""Grey of the padding, as in the official loader (inference pads with zero after normalisation)."""
_VIEWS_WORTH_A_PROCESS = 2000
_ROUNDING = 0.01


class AugmentOptions(BaseModel):
    """Section `augment` of params.yaml.

    Attributes:
        views: augmented views per sample.
        prompts: kinds of prompts, files of `hqsam_datasets/prompts`: each view gets all of them,
            and is trained with one.
        image_size: side of a view in pixels: the network's input size.
        mask_input_size: side of the mask prompt in pixels.
        points: points of the point prompt.
        scale: bounds of the jitter factor.
        min_foreground: a crop with fewer pixels above 128 is drawn again.
        max_redraws: how often; then the whole picture is the view.
        box_noise: scale of DN-DETR noise on the box prompt; 0 as in the official recipe.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    views: int = Field(default=1, ge=1)
    prompts: tuple[str, ...] = prompts.DEFAULT
    image_size: int = Field(default=1024, ge=16)
    mask_input_size: int = Field(default=256, ge=8)
    points: int = Field(default=10, ge=1)
    scale: tuple[float, float] = (0.1, 2.0)
    min_foreground: int = Field(default=10, ge=1)
    max_redraws: int = Field(default=16, ge=0)
    box_noise: float = Field(default=0.0, ge=0.0, lt=1.0)

    @field_validator("scale")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 < value[0] <= value[1]:
            raise ValueError("scale must be two positive numbers in order")
        return value

    @field_validator("prompts")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - set(prompts.names()))
        if unknown or not value or len(set(value)) < len(value):
            problem = (
                f"there is no kind {unknown[0]}" if unknown else "name at least one kind, each once"
            )
            raise ValueError(f"prompts: {problem}; the kinds are {', '.join(prompts.names())}")
        return value


class Jitter(TypedDict):
    """Large-scale jitter of one view: resize to height x width, then cut crop_h x crop_w at (crop_y, crop_x)."""

    scale: float
    height: int
    width: int
    crop_y: int
    crop_x: int
    crop_h: int
    crop_w: int


class ViewPlan(TypedDict):
    """One entry of `views` in a plan, beside what each kind of prompt adds; coordinates are pixels of the view."""

    view: int
    seed: int
    instance: int
    image_size: int
    flip: bool
    jitter: Jitter
    n_foreground: int
    prompt: str
    redraws: int


def view_seed(key: str, view: int, seed: int) -> int:
    """Seed of a view's generator: 48 bits of a SHA-256 over (seed, key, view), exact in any JSON reader."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}/{view}".encode()).digest()[:6])


def jitter_of(
    *,
    height: int,
    width: int,
    image_size: int,
    scale: float,
    offsets: tuple[int, int] | None,
    rng: np.random.Generator | None,
) -> Jitter:
    """The jitter for a factor `scale`; crop offsets are given as (y, x), or drawn, y first.

    Rounding is to the nearest even number at halves. Source: SysCV/sam-hq,
    train/utils/dataloader.py,
    `LargeScaleJitter`.
    """
    side = round(image_size * scale)
    factor = min(side / height, side / width)
    new_height, new_width = max(1, round(height * factor)), max(1, round(width * factor))
    margin_y, margin_x = max(0, new_height - image_size), max(0, new_width - image_size)
    if offsets is None:
        if rng is None:
            raise ValueError("give the offsets or a generator")
        offsets = int(rng.integers(0, margin_y + 1)), int(rng.integers(0, margin_x + 1))
    return Jitter(
        scale=scale,
        height=new_height,
        width=new_width,
        crop_y=offsets[0],
        crop_x=offsets[1],
        crop_h=min(new_height, image_size),
        crop_w=min(new_width, image_size),
    )


def render(
    values: NDArray[np.uint8], *, flip: bool, jitter: Jitter, image_size: int, pad: int
) -> NDArray[np.float32]:
    """Flip, resize, crop and pad [H, W] or [H, W, C] values; float32 [image_size, image_size(, C)]."""
    if flip:
        values = values[:, ::-1]
    resized = resize_bilinear(values, jitter["height"], jitter["width"])
    y, x = jitter["crop_y"], jitter["crop_x"]
    crop = resized[y : y + jitter["crop_h"], x : x + jitter["crop_w"]]
    canvas = np.full((image_size, image_size, *values.shape[2:]), pad, dtype=np.float32)
    canvas[: crop.shape[0], : crop.shape[1]] = crop
    return canvas


def apply_view(
    *,
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    view: Mapping[str, Any],
    image_size: int | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Rebuild a view from its plan.

    Args:
        image: uint8 [H, W, 3] RGB.
        mask: soft uint8 [H, W], 0..255: the instance `view["instance"]`.
        view: an entry of the plan's `views`.
        image_size: side of the view; by default the plan's own.

    Returns:
        The image, uint8 [S, S, 3], truncated to whole numbers as the official code does; and the
        soft mask, uint8 [S, S], rounded to the nearest such that exactly the pixels above 128
        before rounding are above 128 after it.
    """
    size = int(view["image_size"]) if image_size is None else image_size
    flip, jitter = bool(view["flip"]), view["jitter"]
    pixels = render(image, flip=flip, jitter=jitter, image_size=size, pad=PAD_IMAGE)
    # 255 x (1 - w) + 255 x w may come out a hair below 255: truncation must not turn that into 254.
    whole = np.minimum(pixels + np.float32(_ROUNDING), 255).astype(np.uint8)
    return whole, render_mask(mask, flip=flip, jitter=jitter, image_size=size)


def render_mask(
    mask: NDArray[np.uint8], *, flip: bool, jitter: Jitter, image_size: int
) -> NDArray[np.uint8]:
    """The mask of a view; see `apply_view`."""
    values = render(mask, flip=flip, jitter=jitter, image_size=image_size, pad=0)
    rounded = np.rint(values)
    rounded[(values > FOREGROUND) & (rounded == FOREGROUND)] = FOREGROUND + 1
    return rounded.astype(np.uint8)


def plan_view(
    masks: list[NDArray[np.uint8]], *, key: str, view: int, seed: int, options: AugmentOptions
) -> tuple[dict[str, Any], dict[str, NDArray[np.uint8]]]:
    """Draw one view and its prompts.

    Args:
        masks: soft uint8 [H, W], one per instance; a view shows one of them.
        key: sample key.
        view: number of the view.
        seed: the run's seed.
        options: sizes and bounds.

    Returns:
        The plan's entry, a `ViewPlan` with what the kinds of prompts add, and their pictures by
        name.

    Raises:
        UserError: none of the kinds gives a prompt for this view.
    """
    number = view_seed(key, view, seed)
    rng = np.random.default_rng(number)
    instance = int(rng.integers(len(masks))) if len(masks) > 1 else 0
    flip = bool(rng.random() >= 0.5)
    jitter, shown, redraws = _draw_crop(masks[instance], flip, rng, options)
    target = Target(
        shown=shown,
        n_foreground=int(np.count_nonzero(shown > FOREGROUND)),
        place=partial(_projected_box, masks[instance], flip, jitter),
    )
    # Kinds share the view's generator: their turns fix the order, whatever the order of the option.
    kinds = sorted(
        (prompts.load(name) for name in options.prompts), key=lambda kind: (kind.turn, kind.name)
    )
    drawn = {kind.name: kind.plan(target, rng=rng, options=options) for kind in kinds}
    offered = [name for name in options.prompts if drawn[name].offered]
    if not offered:
        cure = "name a kind in augment.prompts that every view has: box"
        raise UserError(
            f"view {view} has none of the prompts {', '.join(drawn)}", key=key, cure=cure
        )
    plan = ViewPlan(
        view=view,
        seed=number,
        instance=instance,
        image_size=options.image_size,
        flip=flip,
        jitter=jitter,
        n_foreground=target.n_foreground,
        prompt=offered[int(rng.integers(len(offered)))],
        redraws=redraws,
    )
    values = [dict(plan), *(dict(one.values) for one in drawn.values())]
    return _united(values), _united([dict(one.pictures) for one in drawn.values()])


def _united(parts: list[dict[str, T]]) -> dict[str, T]:
    found: dict[str, T] = {}
    for part in parts:
        if found.keys() & part.keys():
            raise ValueError(f"two kinds of prompts write {sorted(found.keys() & part.keys())}")
        found |= part
    return found


def _draw_crop(
    mask: NDArray[np.uint8], flip: bool, rng: np.random.Generator, options: AugmentOptions
) -> tuple[Jitter, NDArray[np.uint8], int]:
    height, width = mask.shape
    low, high = options.scale
    for redraws in range(options.max_redraws + 1):
        scale = low + (high - low) * float(rng.random())
        jitter = jitter_of(
            height=height,
            width=width,
            image_size=options.image_size,
            scale=scale,
            offsets=None,
            rng=rng,
        )
        shown = render_mask(mask, flip=flip, jitter=jitter, image_size=options.image_size)
        if np.count_nonzero(shown > FOREGROUND) >= options.min_foreground:
            return jitter, shown, redraws
    whole = jitter_of(
        height=height,
        width=width,
        image_size=options.image_size,
        scale=1.0,
        offsets=(0, 0),
        rng=None,
    )
    shown = render_mask(mask, flip=flip, jitter=whole, image_size=options.image_size)
    return whole, shown, options.max_redraws + 1


def _projected_box(
    mask: NDArray[np.uint8], flip: bool, jitter: Jitter
) -> tuple[int, int, int, int]:
    height, width = mask.shape
    box = mask_box(mask[:, ::-1] if flip else mask) or (0, 0, width - 1, height - 1)
    scale_x, scale_y = jitter["width"] / width, jitter["height"] / height
    x0, x1 = (int(x * scale_x) - jitter["crop_x"] for x in (box[0], box[2]))
    y0, y1 = (int(y * scale_y) - jitter["crop_y"] for y in (box[1], box[3]))
    limit_x, limit_y = jitter["crop_w"] - 1, jitter["crop_h"] - 1
    return (
        max(0, min(x0, limit_x)),
        max(0, min(y0, limit_y)),
        max(0, min(x1, limit_x)),
        max(0, min(y1, limit_y)),
    )


@dataclass(frozen=True, slots=True)
class _Task:
    """One prompt shard's work."""

    shard: Path
    folder: Path
    number: int
    options: AugmentOptions
    seed: int


@dataclass(slots=True)
class _Done:
    """What came of one shard."""

    shard: dict[str, object] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


def write_prompts(
    *,
    shards: Path,
    out: Path,
    options: AugmentOptions,
    seed: int,
    progress: Progress,
    workers: int | None = None,
) -> dict[str, Any]:
    """Write `data/prompts/`: one prompt shard per training shard, same keys, same order (see docs/formats.md).

    Args:
        shards: folder of the shard stage.
        out: folder to write.
        options: section `augment`.
        seed: the run's seed.
        progress: told about every finished shard.
        workers: processes; None: as many as pay off. It changes no byte.

    Returns:
        The content of `index.json`. Beside the shards it counts views per prompt (`prompts`), crops
        drawn again (`redraws`), views that fell back to the whole picture (`fallbacks`) and views
        without any foreground left (`empty`).

    Raises:
        UserError: if the shards are missing or damaged.
    """
    index = read_index(shards)
    workers = workers or worker_count(
        index["n_samples"] * options.views, worth=_VIEWS_WORTH_A_PROCESS
    )
    counts: Counter[str] = Counter()
    records = []
    with atomic_folder(out) as folder:
        tasks = [
            _Task(shards / s["name"], folder, n, options, seed)
            for n, s in enumerate(index["shards"])
        ]
        for shard, done in zip(
            index["shards"], ordered_map(_write_shard, tasks, workers=workers), strict=True
        ):
            if done.shard["keys"] != shard["keys"]:
                cure = "run the shard stage again"
                raise UserError(
                    "the shard does not hold the keys of its index",
                    file=shards / shard["name"],
                    cure=cure,
                )
            records.append(done.shard)
            counts += done.counts
            progress(counts["samples"], index["n_samples"], "samples with prompts")
        result = _index(records, counts, options, seed)
        write_json(folder / "index.json", result)
    return result


def _index(
    records: list[dict[str, object]], counts: Counter[str], options: AugmentOptions, seed: int
) -> dict[str, Any]:
    digest = hashlib.sha256(
        "\n".join(str(record["sha256"]) for record in records).encode()
    ).hexdigest()
    return {
        "version": VERSION,
        "n_samples": counts["samples"],
        "views": options.views,
        "image_size": options.image_size,
        "mask_input_size": options.mask_input_size,
        "seed": seed,
        "prompts": {kind: counts[kind] for kind in sorted(options.prompts)},
        "redraws": counts["redraws"],
        "fallbacks": counts["fallbacks"],
        "empty": counts["empty"],
        "shards": records,
        "digest": digest,
    }


def _write_shard(task: _Task) -> _Done:
    cv2.setNumThreads(1)
    done = _Done()
    with ShardWriter(
        task.folder, prefix="prompts", samples_per_shard=1 << 40, first_shard=task.number
    ) as writer:
        for key, files in iterate_samples(task.shard):
            writer.add(key, _plan_sample(task, key, files, done.counts))
    done.shard = writer.shards[0].as_json()
    return done


def _plan_sample(
    task: _Task, key: str, files: Mapping[str, bytes], counts: Counter[str]
) -> dict[str, bytes]:
    try:
        n_instances = len(json.loads(files["json"])["instances"])
        masks = [decode_mask(files[mask_extension(i)]).mask for i in range(n_instances)]
    except (KeyError, ValueError) as error:
        cure = "run the shard stage again"
        raise UserError(
            f"the sample is damaged: {error}", file=task.shard, key=key, cure=cure
        ) from error
    members: dict[str, bytes] = {}
    plans = []
    for view in range(task.options.views):
        plan, pictures = plan_view(masks, key=key, view=view, seed=task.seed, options=task.options)
        plans.append(plan)
        members |= {
            f"{name}{view}.png": images.encode_png(picture) for name, picture in pictures.items()
        }
        counts[plan["prompt"]] += 1
        counts["redraws"] += plan["redraws"]
        counts["fallbacks"] += plan["redraws"] > task.options.max_redraws
        counts["empty"] += plan["n_foreground"] == 0
    counts["samples"] += 1
    members["json"] = json.dumps({"key": key, "views": plans}, sort_keys=True).encode() + b"\n"
    return members
