"""Output: 300 boxes on a 4000 x 6000 image, masks as COCO RLE; peak memory and time.

    python -m perf.model.bench_output [--json FILE] [--full]

Each part runs in a fresh process with random weights. Target for each: its peak stays under 3 GB.

masks      300 low-resolution logits of smooth blobs, upscaled to 24 megapixels and encoded; the plain way (interpolate to float,
           threshold, encode) is timed in turn on a few of them, and must give the same RLE
predictor  ViT-B: `SamHQPredictor.predict_batch` with 300 boxes, all predictions kept, the RLE of each (60 boxes unless `--full`)
command    `hqsam predict` of one box on such an image, with a ViT-B checkpoint, mask, overlay and JSON
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perf.model.measure import in_child, peak_mb, processor
from perf.table import Row, finish

TARGET_GB = 3.0
MASKS, HEIGHT, WIDTH = 300, 4000, 6000
_PLAIN_EVERY = 60


def _blob(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Logits of one object: a soft blob with ragged edges, a few per cent to half of the image."""
    import cv2

    y, x = np.mgrid[:256, :256].astype(np.float32)
    centre, radius = rng.uniform(30, 180, 2), rng.uniform(8, 70)
    shape = radius - np.hypot(y - centre[0] * 2 / 3, x - centre[1])
    noise = (
        cv2.GaussianBlur(rng.normal(0, 1, (256, 256)).astype(np.float32), (0, 0), 2) * radius / 2
    )
    return np.asarray((shape + noise).clip(-20, 20), np.float32)


def _plain(logits: npt.NDArray[np.float32], resized: tuple[int, int]) -> str:
    """As `Sam.postprocess_masks` has it, then pycocotools' encoder."""
    import torch
    from torch.nn.functional import interpolate

    from hqsam_base import rle

    square = interpolate(torch.from_numpy(logits)[None, None], (1024, 1024), mode="bilinear")
    full = interpolate(square[..., : resized[0], : resized[1]], (HEIGHT, WIDTH), mode="bilinear")
    return rle.encode((full[0, 0] > 0).numpy())


def masks(count: int) -> dict[str, Any]:
    """Encode the masks, every so often one of them both ways; the peak is read before the plain way first runs."""
    import torch

    from hqsam.model.preprocess import Frame
    from hqsam.prediction.postprocess import mask_patch

    torch.set_num_threads(1)
    frame, rng = Frame(HEIGHT, WIDTH, 1024), np.random.default_rng(0)
    logits = [_blob(rng) for _ in range(count)]
    found = [mask_patch(one, frame).rle() for one in logits]
    peak = peak_mb()
    ours, theirs, equal = [], [], 0
    for one, mine in list(zip(logits, found, strict=True))[::_PLAIN_EVERY]:
        start = time.process_time()
        again = mask_patch(one, frame).rle()
        middle = time.process_time()
        plain = _plain(one, frame.resized)
        ours.append(1000 * (middle - start))
        theirs.append(1000 * (time.process_time() - middle))
        equal += again == mine == plain
    return {
        "masks": count,
        "peak_mb": peak,
        "ms": ours,
        "plain_ms": theirs,
        "equal": equal,
        "compared": len(ours),
    }


def predictor(boxes: int) -> dict[str, Any]:
    """The whole way with ViT-B: encode, decode, upscale, RLE."""
    from hqsam.api.predictor import SamHQPredictor
    from hqsam.model.build import build_sam_hq
    from hqsam.prediction.prompt import Prompt

    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    corners = np.sort(rng.uniform(0, [WIDTH, HEIGHT], (boxes, 2, 2)), axis=1).reshape(boxes, 4)
    prompts = [Prompt(box=(b[0], b[1], b[2], b[3])) for b in corners]
    start = time.process_time()
    found = list(SamHQPredictor(build_sam_hq("vit_b")).predict_batch([image], [prompts]))
    sizes = [len(one.mask.rle()) for one in found]
    seconds = time.process_time() - start
    return {"boxes": len(sizes), "seconds": seconds, "peak_mb": peak_mb(), "characters": sum(sizes)}


def command(folder: str) -> dict[str, Any]:
    """`hqsam predict` in a process of its own; its peak is this process's largest child's."""
    work = Path(folder)
    words = ["predict", str(work / "image.png"), "--checkpoint", str(work / "vit_b.safetensors")]
    words += ["--box", "800", "700", "4900", "3500", "--out", str(work / "mask.png")]
    words += ["--overlay", str(work / "overlay.png"), "--json", str(work / "mask.json")]
    subprocess.run(
        [sys.executable, "-m", "hqsam_pipelines.cli", *words], check=True, stdout=sys.stderr
    )
    return {"peak_mb": peak_mb(resource.RUSAGE_CHILDREN)}


def command_files(folder: str) -> dict[str, Any]:
    """The picture and the checkpoint that `command` needs."""
    from hqsam.model.build import build_sam_hq
    from hqsam.model.convert import write
    from hqsam_datasets.formats.images import encode_png

    pixels = np.random.default_rng(2).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    large = pixels.repeat(8, axis=0).repeat(8, axis=1)
    (Path(folder) / "image.png").write_bytes(encode_png(large))
    write(build_sam_hq("vit_b"), Path(folder) / "vit_b.safetensors", "hq_sam")
    return {}


PARTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "masks": lambda count: masks(int(count)),
    "predictor": lambda boxes: predictor(int(boxes)),
    "command": command,
    "command_files": command_files,
}


def measure(boxes: int) -> dict[str, Any]:
    """All parts, each in a fresh process."""
    module = "perf.model.bench_output"
    with tempfile.TemporaryDirectory() as folder:
        in_child(module, "command_files", folder)
        return {
            "masks": in_child(module, "masks", str(MASKS)),
            "predictor": in_child(module, "predictor", str(boxes)),
            "command": in_child(module, "command", folder),
        }


def main() -> int:
    """Print the rows; 1 if the memory target is missed or a mask differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(PARTS[options.child[0]](options.child[1])))
        return 0
    result = measure(MASKS if options.full else MASKS // 5)
    m, p, size = result["masks"], result["predictor"], f"{HEIGHT} x {WIDTH}"
    ours, plain = (
        sum(m[name]) / m["compared"] for name in ("ms", "plain_ms")
    )  # masks of all sizes: not medians
    rows = [
        Row.at_most(
            f"{m['masks']} masks of {size} as RLE: peak memory",
            m["peak_mb"] / 1000,
            TARGET_GB,
            "GB",
        ),
        Row.at_least(
            f"time a mask of {size}",
            plain / ours,
            0,
            peer=f"interpolating to floats: {plain:.0f} ms",
            now=f"{ours:.0f} ms",
        ),
        Row.at_most(
            f"masks whose RLE differs from the plain way, of {m['compared']}",
            m["compared"] - m["equal"],
            0,
            "",
        ),
        Row.at_most(
            f"predict_batch, vit_b, {p['boxes']} boxes on {size}, RLE: peak memory",
            p["peak_mb"] / 1000,
            TARGET_GB,
            "GB",
        ),
        Row.at_most(
            f"hqsam predict, vit_b, one box on {size}: peak memory",
            result["command"]["peak_mb"] / 1000,
            TARGET_GB,
            "GB",
        ),
    ]
    return finish(rows, options.json, results=result, cpu=processor())


if __name__ == "__main__":
    sys.exit(main())
