"""Parts over processes and Ray nodes, the scheduler's own cost a part, and how long a large job takes where.

python -m perf pipelines/scaling
python -m perf.pipelines.bench_scaling --full            # 10,000 parts
python -m perf.pipelines.bench_scaling --only plan --gpus 64 --masks 1e9

`scheduler`: empty parts through `hqsam_base.ray_parts` on three local nodes of one CPU, of which one is
killed in the middle and some processes kill themselves; the driver's processor time a part, and
that each part came back once. `parts`: work of 50 ms a part in 1 and 2 processes and on 1, 2 and 3
nodes. `plan`: arithmetic from measured figures (docs/benchmarks.md) and assumptions, which are all
arguments.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before Ray's import: loopback only

from hqsam_base import ray_parts
from hqsam_base.processes import run_parts
from hqsam_pipelines.config import env
from perf.pipelines import bench_scaling  # the parts' functions by a name that nodes can import
from perf.table import Row, finish

LIMIT_MS = 10.0
"""Processor time of the driver a part, at most."""
_NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """A head without CPUs and nodes with one each; the environment names it."""
    import ray
    from ray.cluster_utils import Cluster

    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = _NODE | {"num_cpus": 0, "include_dashboard": False, "_system_config": soon}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        made.workers = [made.add_node(**_NODE) for _ in range(nodes)]
        made.wait_for_nodes()
        os.environ |= {"HQSAM_EXECUTOR": "ray", "RAY_ADDRESS": made.address}
        yield made
    finally:
        del os.environ["HQSAM_EXECUTOR"], os.environ["RAY_ADDRESS"]
        ray.shutdown()
        made.shutdown()


def empty(job: tuple[Path, int], number: int) -> int:
    """A part that does nothing; every so many-th kills its process the first time."""
    marks, every = job
    if number % every == every - 1:
        try:
            (marks / str(number)).touch(exist_ok=False)
        except FileExistsError:
            return number
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def busy(seconds: float, number: int) -> int:
    """A part of so much processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return number


def scheduler(parts: int, deaths: int) -> list[Row]:
    """The driver's cost of many empty parts of which some die."""
    with tempfile.TemporaryDirectory() as marks, cluster(3) as made:
        tasks = ray_parts.Tasks(bench_scaling.empty, (Path(marks), parts // deaths))
        tasks.result(tasks.start(0))  # the connection and the first process are no part's
        wall, cpu, found = time.perf_counter(), time.process_time(), []
        for number in tasks.as_done(range(parts)):
            found.append(number)
            if len(found) == parts // 2:
                made.remove_node(made.workers.pop(), allow_graceful=False)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        killed = len(list(Path(marks).iterdir()))
    right = sorted(found) == list(range(parts))
    each = 1000 * cpu / parts
    label = f"{parts} parts, {killed} processes and one of three nodes killed"
    return [
        Row.at_most(f"{label}: driver's processor time a part", each, LIMIT_MS, "ms"),
        Row(f"{label}: time a part", f"{1000 * wall / parts:.2f} ms"),
        Row(f"{label}: each part came back once", "yes" if right else "NO", "yes", right),
    ]


def throughput(parts: int) -> list[Row]:
    """Time of the same parts in processes and on nodes."""
    rows = []
    for workers in (1, 2):
        start = time.perf_counter()
        list(run_parts(bench_scaling.busy, 0.05, parts, workers=workers, progress=lambda *_: None))
        rows.append(_rate(f"{workers} processes", parts, time.perf_counter() - start))
    for nodes in (1, 2, 3):
        with cluster(nodes):
            tasks = ray_parts.Tasks(bench_scaling.busy, 0.05)
            list(tasks.as_done(range(2 * nodes)))  # the start of the nodes' processes
            start = time.perf_counter()
            list(tasks.as_done(range(parts)))
            rows.append(_rate(f"{nodes} Ray nodes", parts, time.perf_counter() - start))
    return rows


def _rate(label: str, parts: int, seconds: float) -> Row:
    return Row(f"{label}, {parts} parts of 50 ms", f"{parts / seconds:.1f} parts a second")


def plan(given: argparse.Namespace) -> list[Row]:
    """Hours of each resource for the job, were it the only one that is short; the longest is the job's."""
    images = given.masks / (given.prompts * given.systems)
    passes = images * -(-given.prompts // given.prompts_per_pass)
    cores = given.gpus * given.cores_per_gpu
    seconds = {
        "decode images (assumed)": images * given.decode_ms / 1e3 / cores,
        "encoder (assumed)": images / given.encoder_images_per_s / given.gpus,
        "decoder passes (assumed)": passes * given.pass_ms / 1e3 / given.gpus,
        "masks, rows and Parquet (measured)": given.masks * given.mask_ms / 1e3 / cores,
        "object store, in and out (assumed rate)": (
            images * given.image_kb + given.masks * given.row_bytes / 1e3
        )
        * 8e-6
        / given.store_gbit_s,
        "scheduler, one driver (measured)": images / given.images_per_part * given.part_ms / 1e3,
        "scoring, one process (measured)": given.masks * given.score_us / 1e6,
        "intervals, one process (measured)": given.masks * given.interval_us / 1e6,
    }
    label = f"{given.masks:.0f} masks, {given.gpus} GPUs"
    return [Row(f"{label}: {what}", f"{value / 3600:.2f} h") for what, value in seconds.items()]


def main() -> int:
    """Print the tables; 1 if the scheduler costs more than promised, or a part was lost or doubled."""
    env.prepare()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", choices=("scheduler", "parts", "plan"))
    numbers = parser.add_argument_group("the plan's job, and figures that are assumed or measured")
    for name, value, text in (
        ("gpus", 64, "devices"),
        ("masks", 1e9, "masks that are predicted"),
        ("prompts", 300, "an image"),
        ("systems", 3, "masks a prompt"),
        ("prompts-per-pass", 16, "of the decoder"),
        ("images-per-part", 64, "as in params.yaml"),
        ("cores-per-gpu", 8, "assumed"),
        ("encoder-images-per-s", 20.0, "of one GPU: assumed, measure yours with bench_gpu"),
        ("pass-ms", 3.0, "a decoder pass of all systems on one GPU: assumed"),
        ("decode-ms", 10.0, "a picture, one core: assumed"),
        ("image-kb", 200.0, "a picture's file: assumed"),
        ("store-gbit-s", 10.0, "the object store's rate for the whole job: assumed"),
        ("mask-ms", 0.082, "74 ms for 900 masks, bench_waiting"),
        ("row-bytes", 240.0, "a mask's row in a part: the sample's COCO and LVIS sets"),
        ("part-ms", LIMIT_MS, "the driver's time a part: the limit of this benchmark"),
        ("score-us", 49.0, "4.9 min for 6,000,000 detections, bench_lvis"),
        ("interval-us", 3.1, "18.8 s for 6,000,000 detections, bench_intervals"),
    ):
        numbers.add_argument(f"--{name}", type=type(value), default=value, help=text)
    given = parser.parse_args()
    rows = []
    if given.only in (None, "scheduler"):
        rows += scheduler(10_000, 20) if given.full else scheduler(1_000, 5)
    if given.only in (None, "parts"):
        rows += throughput(200 if given.full else 60)
    if given.only in (None, "plan"):
        rows += plan(given)
    return finish(rows, given.json)


if __name__ == "__main__":
    raise SystemExit(main())
