"""Masks: from low-resolution logits to run-length codes, against the build before kernels were compiled.

    python -m perf.model.bench_masks [--before REVISION] [--rounds 3] [--json FILE] [--quick]

Masks of a 480 x 640 image with 430, 4,900 and 41,000 pixels of foreground. Both builds in turn, each
in fresh processes; time is the processor time of one thread, the best of a process's rounds, the
median over processes. Codes must be equal. Two threads against one: masks a second of wall time less
what the threads waited for a core, the median of several. The
import of numba and the kernel's cached machine code is not counted: a stage pays it once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perf.model import measure
from perf.revisions import BEFORE, checkout
from perf.table import Row, finish

RADII = {430: 4.65, 4_900: 15.7, 41_000: 45.6}
"""Pixels of foreground, about, and the radius of such a blob in the logits."""
EACH, MEAN, THREADS = 6.0, 9.0, 1.8
MASKS, REPEATS = 32, 5
F32 = npt.NDArray[np.float32]


def blobs(radius: float) -> F32:
    """Logits of soft blobs with ragged edges in different places: ``[MASKS, 256, 256]``."""
    import cv2

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256].astype(np.float32)
    found = []
    for n in range(MASKS):
        noise = cv2.GaussianBlur(rng.normal(0, 1, (256, 256)).astype(np.float32), (0, 0), 2)
        shape = radius - np.hypot(y - 90 - n % 5, x - 120 - n % 7) + noise * radius / 2
        found.append(shape.clip(-20, 20))
    return np.asarray(found, np.float32)


def _encoder() -> Callable[[F32], list[tuple[bytes, int]]]:
    """This build's way, or the one before it; each gives codes and areas."""
    from hqsam.model.preprocess import Frame
    from hqsam.prediction import postprocess

    frame = Frame(480, 640, 1024)
    if not hasattr(postprocess, "mask_codes"):

        def one_by_one(logits: F32) -> list[tuple[bytes, int]]:
            patches = [postprocess.mask_patch(one, frame) for one in logits]
            return [(patch.rle().encode(), patch.area) for patch in patches]

        return one_by_one
    from hqsam_base import compiled

    if (why := compiled.fill(postprocess.KERNELS)) is not None:
        raise SystemExit(f"{postprocess.KERNELS}: {why}")
    postprocess._WORTH = 0

    def together(logits: F32) -> list[tuple[bytes, int]]:
        made = postprocess.mask_codes(logits, frame)
        assert made is not None
        return [(made.codes.string(n), int(made.areas[n])) for n in range(len(logits))]

    return together


def child() -> dict[str, Any]:
    """Milliseconds a mask and a digest of codes and areas, by size; how two threads compare with one."""
    encode = _encoder()
    found: dict[str, Any] = {"ms": {}, "digest": {}, "pixels": {}}
    for size, radius in RADII.items():
        logits = blobs(radius)
        made = encode(logits)
        found["digest"][size] = hashlib.sha256(repr(made).encode()).hexdigest()
        found["pixels"][size] = round(sum(area for _, area in made) / MASKS)
        times = []
        for _ in range(REPEATS):
            start = time.process_time()
            encode(logits)
            times.append(1000 * (time.process_time() - start) / MASKS)
        found["ms"][size] = min(times)
    found["threads"] = _threads(encode, blobs(RADII[4_900]))
    return found


def _threads(encode: Callable[[F32], Any], logits: F32) -> float:
    """Masks a second of two threads over those of one; 16 masks a call, as a pass has.

    What a thread waits for a core that other programs hold is not counted, what it waits for the
    interpreter's lock is.
    """
    calls = [logits[n : n + 16] for n in range(0, MASKS, 16)] * 60

    def seconds(_: int) -> float:
        start, queued = time.perf_counter(), _queued()
        for one in calls:
            encode(one)
        return time.perf_counter() - start - (_queued() - queued)

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(2) as two:
        pairs = [(max(one.map(seconds, [0])), max(two.map(seconds, [0, 1]))) for _ in range(7)]
    return measure.median([2 * alone / both for alone, both in pairs])


def _queued() -> float:
    """Seconds that this thread has waited for a core; 0 where the system does not tell."""
    path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    return int(path.read_text().split()[1]) / 1e9 if path.is_file() else 0.0


def rows(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[Row]:
    """The table."""
    found, ratios = [], []
    for size in map(str, RADII):
        old, new = (measure.median([run["ms"][size] for run in runs]) for runs in (before, now))
        ratios.append(old / new)
        what = f"logits to RLE, {now[0]['pixels'][size]:,} pixels of foreground of 480 x 640"
        told = {"before": f"{old:.3f} ms a mask", "now": f"{new:.3f} ms"}
        found.append(Row.at_least(what, ratios[-1], EACH, **told))
    differ = sum(now[0]["digest"][size] != before[0]["digest"][size] for size in map(str, RADII))
    was, threads = (measure.median([run["threads"] for run in runs]) for runs in (before, now))
    return [
        *found,
        Row.at_least("logits to RLE, mean of the ratios", sum(ratios) / len(ratios), MEAN),
        Row.at_most(f"logits to RLE, sizes whose codes differ, {MASKS} masks each", differ, 0, ""),
        Row.at_least(
            "logits to RLE, masks a second, two threads against one",
            threads,
            THREADS,
            before=f"{was:.2f} x",
        ),
    ]


def main() -> int:
    """Print the rows; 1 if a target is missed or a mask differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", default=BEFORE, metavar="REVISION")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child()))
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    module, before, now = "perf.model.bench_masks", [], []
    with checkout(options.before) as tree:
        for _ in range(1 if options.quick else options.rounds):
            before.append(measure.in_child(module, tree=tree))
            now.append(measure.in_child(module))
    results = {"before": before, "now": now}
    return finish(rows(before, now), options.json, results=results, cpu=measure.processor())


if __name__ == "__main__":
    sys.exit(main())
