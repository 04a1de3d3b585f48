"""Recall and precision of the overlap gate on planted copies and composites.

Scenes are rendered (the embedded sample's families, and "dead leaves" with 1/f textures, whose
statistics are nearer to photographs'); each becomes an evaluation image. Training images are
disguised copies of them, composites that share only the background or only the foreground, and as
many unrelated scenes of the same families. The real gate runs on real folders.

    python perf/data/overlap_recall.py [--scenes 60] [--full] [--json FILE]

`--full`: 520 scenes. The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator, default_rng

from hqsam_datasets.embedded.scenes import (
    EVAL_FAMILIES,
    TRAIN_FAMILIES,
    Scene,
    compose,
    render_scene,
)
from hqsam_datasets.formats.manifest import read_rows
from hqsam_datasets.overlap.gate import find_overlap
from hqsam_datasets.overlap.options import OverlapOptions
from perf.data.overlap_folders import (
    Image,
    Mask,
    Picture,
    cropped,
    quiet,
    resized,
    write_benchmark,
    write_source,
)

Disguise = Callable[[Generator, Image, Mask], tuple[Image, Mask, int]]
SIZES = ((240, 320), (300, 300), (360, 270), (250, 400))


# ---- scenes ----


def texture(rng: Generator, height: int, width: int) -> Image:
    """Coloured noise with a 1/f^a spectrum, stretched along one axis."""
    fy = np.fft.fftfreq(height)[:, None] * rng.uniform(0.4, 2.5)
    frequency = np.hypot(fy, np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / frequency ** rng.uniform(0.8, 2.0)
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (height, width))
    colour = rng.normal(size=3) * rng.uniform(5, 40)
    tinted = rng.uniform(20, 235, 3) + (field / (field.std() + 1e-9))[..., None] * colour
    return np.clip(tinted, 0, 255).astype(np.uint8)


def dead_leaves(rng: Generator, height: int, width: int) -> tuple[Image, Mask]:
    """Textured polygons of all sizes over each other; the last one, of at least about 1 % of the picture, is the foreground."""
    canvas = texture(rng, height, width).astype(np.float32)
    surfaces = [texture(rng, height, width) for _ in range(3)]
    alpha = np.zeros((height, width), np.float32)
    for left in range(int(rng.integers(5, 40)), -1, -1):
        size = rng.uniform(0.05 if left else 0.4, 1)
        alpha = _leaf(rng, height, width, 3 + 0.5 * min(height, width) * size**2)
        surface = np.roll(surfaces[int(rng.integers(3))], tuple(rng.integers(0, height, 2)), (0, 1))
        tint = rng.normal(size=3).astype(np.float32) * 40
        canvas += (np.clip(surface + tint, 0, 255) - canvas) * alpha[..., None]
    canvas += rng.normal(0, rng.uniform(1, 5), canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8), alpha > 0.5


def _leaf(rng: Generator, height: int, width: int, radius: float) -> Any:
    centre = rng.uniform((0.1 * width, 0.1 * height), (0.9 * width, 0.9 * height))
    n = int(rng.integers(3, 12))
    angles = np.sort(rng.uniform(0, 2 * np.pi, n))
    corners = centre + (radius * rng.uniform(0.4, 1.2, n))[:, None] * np.stack(
        [np.cos(angles), np.sin(angles)], 1
    )
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [corners.astype(np.int32)], 255, cv2.LINE_AA)
    return cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.4, 1.5)).astype(np.float32) / 255


def scene(seed: tuple[int, ...], families: tuple[str, ...]) -> tuple[Image, Mask, Scene | None]:
    """Image, foreground, and the scene if it is one of the sample's; every fourth is dead leaves."""
    rng = default_rng(seed)
    height, width = SIZES[int(rng.integers(len(SIZES)))]
    if seed[-1] % 4 == 3:
        return *dead_leaves(rng, height, width), None
    made = render_scene(rng=rng, families=families, height=height, width=width, fill=(0.4, 0.85))
    return made.image, made.objects[0].alpha > 0.5, made


# ---- disguises ----


def _crop(rng: Generator, image: Image, mask: Mask) -> tuple[Image, Mask, int]:
    return *resized(*cropped(image, mask, rng, 0.7), float(rng.uniform(0.7, 1.0))), 80


def _composite(rng: Generator, image: Image, mask: Mask) -> tuple[Image, Mask, int]:
    """A training object on the picture, which is cropped a little or not at all."""
    height, width = image.shape[:2]
    guest = render_scene(
        rng=rng, families=TRAIN_FAMILIES, height=height, width=width, fill=(0.45, 0.7), clutter=0
    )
    pasted = compose(background=image, objects=guest.objects), guest.objects[0].alpha > 0.5
    return *(cropped(*pasted, rng, 0.85) if rng.random() < 0.5 else pasted), 85


def _foreground(rng: Generator, image: Image, mask: Mask) -> tuple[Image, Mask, int]:
    """The picture's object, scaled, moved and perhaps mirrored, on a background of its own."""
    height, width = image.shape[:2]
    host = scene((int(rng.integers(2**31)), 0), TRAIN_FAMILIES)[0]
    host = cv2.resize(host, (width, height), interpolation=cv2.INTER_AREA)
    scale = rng.uniform(0.75, 1.15)
    shift = rng.uniform(-0.06, 0.06, 2) * (width, height) + (1 - scale) / 2 * np.array(
        [width, height]
    )
    move = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.6)
    alpha = cv2.warpAffine(soft, move, (width, height))[..., None]
    object_ = cv2.warpAffine(image, move, (width, height))
    mixed = np.rint(host * (1 - alpha) + object_ * alpha).astype(np.uint8), alpha[..., 0] > 0.5
    if rng.random() < 0.5:
        mixed = np.ascontiguousarray(mixed[0][:, ::-1]), np.ascontiguousarray(mixed[1][:, ::-1])
    return *mixed, 88


def _scaled(rng: Generator, image: Image, mask: Mask) -> tuple[Image, Mask, int]:
    return *resized(image, mask, float(rng.uniform(0.4, 1.6))), 85


def _brighter(rng: Generator, image: Image, mask: Mask) -> tuple[Image, Mask, int]:
    gain, offset = (
        (rng.uniform(1.1, 1.3), rng.uniform(5, 25))
        if rng.random() < 0.5
        else (rng.uniform(0.55, 0.85), 0.0)
    )
    return np.clip(image * gain + offset, 0, 255).astype(np.uint8), mask, 88


def _grey(rng: Generator, image: Image, mask: Mask) -> tuple[Image, Mask, int]:
    return (
        np.asarray(
            cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8
        ),
        mask,
        88,
    )


DISGUISES: dict[str, Disguise] = {
    "exact": lambda rng, image, mask: (image, mask, 0),
    "jpeg": lambda rng, image, mask: (image, mask, int(rng.integers(25, 75))),
    "resize": _scaled,
    "crop70": _crop,
    "mirror": lambda rng, image, mask: (image[:, ::-1], mask[:, ::-1], 85),
    "rotate90": lambda rng, image, mask: (np.rot90(image), np.rot90(mask), 85),
    "brightness": _brighter,
    "grey": _grey,
    "background": _composite,
    "foreground": _foreground,
}
COMPOSITES = ("background", "foreground")
TARGETS = {"recall_copies": 0.99, "recall_composites": 0.9, "precision": 0.99}


# ---- measurement ----


def measure(n_scenes: int, folder: Path, first: int = 0) -> dict[str, Any]:
    """Plant, search, and count.

    Args:
        n_scenes: evaluation images.
        folder: where the data go.
        first: number of the first scene.

    Returns:
        `recall` per disguise, `recall_copies`, `recall_composites`, `precision` (share of the
        reported pairs that were planted), the false pairs, and seconds for the search.
    """
    originals = [
        (f"eval_{i:04d}", *scene((1, first + i), EVAL_FAMILIES)[:2]) for i in range(n_scenes)
    ]
    planted = {
        (f"train_{name}-{i:04d}", f"eval_{i:04d}"): name
        for name in DISGUISES
        for i in range(n_scenes)
    }
    evaluation = (Picture(key, image, mask) for key, image, mask in originals)
    benchmarks = {"eval": write_benchmark(folder / "benchmarks" / "eval", "eval", evaluation)}
    training = itertools.chain(_disguised(originals, first), _unrelated(n_scenes, first))
    samples = {"train": write_source(folder / "samples" / "train", "train", training)}
    del originals
    start = time.perf_counter()
    out = folder / "overlap"
    summary = find_overlap(
        samples=samples, benchmarks=benchmarks, out=out, options=OverlapOptions(), progress=quiet
    )
    seconds = time.perf_counter() - start
    rows = [row for row in read_rows(out / "pairs.parquet") if row["scope"] == "eval"]
    return _score(rows, planted, n_scenes) | {
        "seconds": round(seconds, 1),
        "candidates": summary["candidates"],
    }


def _disguised(originals: list[tuple[str, Image, Mask]], first: int) -> Iterator[Picture]:
    """Every original in every disguise."""
    for number, (name, disguise) in enumerate(DISGUISES.items()):
        for i, (_, image, mask) in enumerate(originals):
            made, made_mask, quality = disguise(default_rng((3, number, first + i)), image, mask)
            yield Picture(
                f"train_{name}-{i:04d}", np.ascontiguousarray(made), made_mask.copy(), quality
            )


def _unrelated(n_scenes: int, first: int) -> Iterator[Picture]:
    """As many scenes of the evaluation's own families that have nothing to do with it."""
    for i in range(n_scenes):
        yield Picture(f"train_other-{i:04d}", *scene((2, first + i), EVAL_FAMILIES)[:2], 90)


def _score(
    rows: list[dict[str, Any]], planted: dict[tuple[str, str], str], n_scenes: int
) -> dict[str, Any]:
    found = {(row["train_key"], row["key"]): row for row in rows}
    hits = dict.fromkeys(DISGUISES, 0)
    for pair, name in planted.items():
        hits[name] += pair in found
    copies = [name for name in DISGUISES if name not in COMPOSITES]
    false = [row for pair, row in sorted(found.items()) if pair not in planted]
    return {
        "n_scenes": n_scenes,
        "n_planted": len(planted),
        "recall": {name: hits[name] / n_scenes for name in DISGUISES},
        "recall_copies": sum(hits[name] for name in copies) / (n_scenes * len(copies)),
        "recall_composites": sum(hits[name] for name in COMPOSITES) / (n_scenes * len(COMPOSITES)),
        "precision": 1 - len(false) / max(1, len(found)),
        "false_pairs": [
            {k: row[k] for k in row if k not in ("affine", "scope", "source", "group")}
            for row in false
        ],
        "missed": sorted(pair[0] for pair in planted if pair not in found),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--full", action="store_true", help="520 scenes")
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        help="number of the first scene: other numbers, other scenes",
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder to write the data to and leave them")
    arguments = parser.parse_args()
    n_scenes = 520 if arguments.full else arguments.scenes
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(n_scenes, arguments.keep or Path(temporary), arguments.first)
    text = json.dumps(result, indent=1)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    return int(any(result[name] < target for name, target in TARGETS.items()))


if __name__ == "__main__":
    sys.exit(main())
