"""Masks that another program made: COCO, LVIS and YouTube-VIS results, folders of PNGs, DAVIS folders.

systems:
sam_hq: {kind: sam_hq}
theirs: {kind: predictions, path: ../their_results.json}

What the file must be follows from the kind of the benchmark (`hqsam_metrics.given`); `benchmarks` of
the entry says which ones it is of.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from hqsam.systems.base import Entry, Given, GivenKind, SystemOptions
from hqsam_base.errors import UserError


class PredictionsOptions(SystemOptions):
    """``systems.<name>`` of this kind.

    Attributes:
        path: The file, or the folder.
        benchmarks: Names of the benchmarks that it is of; default: all.
    """

    path: Path
    benchmarks: tuple[str, ...] = ()


class PredictionsKind(GivenKind):
    """See the module."""

    def files(self, entry: Entry) -> list[Path]:
        """See `SystemKind.files`."""
        from hqsam_metrics import given

        path = cast(PredictionsOptions, entry.options).path
        with _key(entry):
            given.check(path)
        return sorted(path.rglob("*.png")) if path.is_dir() else [path]

    def inputs(self, entry: Entry) -> dict[str, str]:
        """See `SystemKind.inputs`; one digest, of all pictures of a folder together."""
        from hqsam_metrics import given

        self.files(entry)
        path = cast(PredictionsOptions, entry.options).path
        return {path.name: given.digest(path)}

    def check(self, entry: Entry, benchmark: str, kind: str, folder: Path | None) -> None:
        """See `GivenKind.check`: every record, once the benchmark is there; else what each must have."""
        from hqsam_metrics import given
        from hqsam_metrics.benchmark_data import Benchmark

        options = cast(PredictionsOptions, entry.options)
        if options.benchmarks and benchmark not in options.benchmarks:
            return
        with _key(entry):
            if folder is None:
                given.check_records(options.path, kind)
                return
            data = Benchmark(folder)
            for prompt_set in answered(data.index):
                given.read(options.path, data, prompt_set)

    def write(self, entry: Entry, benchmark: Path, out: Path) -> Given:
        """See `GivenKind.write`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from hqsam.prediction.rows import SCHEMA
        from hqsam_base.runs import decode_runs
        from hqsam_datasets.formats import manifest
        from hqsam_metrics import given
        from hqsam_metrics.benchmark_data import Benchmark, own_prompts

        data = Benchmark(benchmark)
        options = cast(PredictionsOptions, entry.options)
        every = [str(name) for name in data.index["prompt_sets"]]
        mine = answered(data.index)
        if options.benchmarks and data.index["benchmark"] not in options.benchmarks:
            mine = []
        prompt_schema = pq.read_schema(benchmark / "prompts.parquet")
        rows: list[dict[str, Any]] = []
        prompts: list[dict[str, Any]] = []
        for prompt_set in mine:
            found = given.read(options.path, data, prompt_set)
            areas = decode_runs(found.masks).areas().tolist()
            for n, key in enumerate(found.key):
                size = {"height": int(found.masks.heights[n]), "width": int(found.masks.widths[n])}
                # In the order of the file, which decides between equal scores.
                prompt_id = found.prompt[n] or f"{entry.name}-{prompt_set}-{n:09d}"
                rows.append(
                    {
                        "prompt_id": prompt_id,
                        "key": key,
                        "prompt_set": prompt_set,
                        "system": entry.name,
                        "rle": found.masks.string(n).decode("ascii"),
                        **size,
                        "iou_pred": 1.0,
                        "mask_area": areas[n],
                    }
                )
                if found.prompt[n] is None:
                    own = {"prompt_id": prompt_id, "key": key, "prompt_set": prompt_set, **size}
                    own |= {"kind": "none", "score": found.score[n]}
                    own |= {"category_id": found.category[n], "track_id": found.track[n]}
                    prompts.append({**dict.fromkeys(prompt_schema.names), **own})
            if None in found.prompt or not found.key:
                prompts_file = out / own_prompts(entry.name)
                table = pa.Table.from_pylist(prompts, schema=prompt_schema)
                manifest.write_table(prompts_file, table, sort_by=("prompt_id",))
        if rows:
            part = out / f"part-given-{entry.name}.parquet"
            order = ("key", "prompt_id", "system")
            manifest.write_table(part, rows, schema=SCHEMA, sort_by=order)
        files = {"predictions": options.path.name, "sha256": given.digest(options.path)}
        protocol = {**files, "resize": "unknown", "precision": "unknown", "device": "unknown"}
        return Given(protocol, tuple(name for name in every if name not in mine))


def answered(index: Mapping[str, Any]) -> list[str]:
    """List the prompt sets that masks can answer which exist already: no click, no box follows them."""
    own = {*index.get("clicks", {}), *index.get("tracked", [])}
    return [str(name) for name in index["prompt_sets"] if name not in own]


@contextlib.contextmanager
def _key(entry: Entry) -> Iterator[None]:
    """Have every message name the entry's path."""
    try:
        yield
    except UserError as error:
        key = error.key or f"systems.{entry.name}.path"
        raise error.amended(key=key) from error


SYSTEM = PredictionsKind("predictions", PredictionsOptions, int8=True)
