"""The overlap gate on the embedded sample, archives to exclusions: exactly the planted pairs."""

from __future__ import annotations

from pathlib import Path

from hqsam_datasets.embedded.plants import planted_pairs
from hqsam_datasets.formats.manifest import read_rows
from hqsam_datasets.overlap.gate import find_overlap
from hqsam_datasets.overlap.options import OverlapOptions
from hqsam_datasets.prepare.normalise import normalise
from hqsam_datasets.sources.base import SourceOptions
from perf.data.overlap_folders import quiet
from tests.datasets.embedded_tree import indexed, params, tree

KIND_OF = {
    "exact": "exact",
    "crop70": "crop",
    "composite": "background",
    "foreground": "foreground",
}


def test_finds_exactly_the_planted_pairs(tmp_path: Path) -> None:
    sections = params()
    samples = {}
    for name, section in sections["sources"].items():
        samples[name] = tmp_path / "samples" / name
        normalise(
            name,
            root=tree(section["archive"]),
            out=samples[name],
            options=SourceOptions(**section),
            progress=quiet,
        )
    benchmarks = {name: indexed(name) for name in sections["benchmarks"]}
    summary = find_overlap(
        samples=samples,
        benchmarks=benchmarks,
        out=tmp_path / "out",
        options=OverlapOptions(**sections["overlap"]),
        progress=quiet,
    )
    origin = {
        row["key"]: Path(row["origin_image"]).name
        for folder in samples.values()
        for row in read_rows(folder / "manifest.parquet", ["key", "origin_image"])
    }
    rows = [row for row in read_rows(tmp_path / "out" / "pairs.parquet") if row["scope"] == "eval"]
    found = {
        (origin[row["train_key"]], row["source"], row["group"], row["key"]): row["kind"]
        for row in rows
    }
    planted = {
        (p.origin, p.source, p.benchmark, p.key): KIND_OF.get(p.kind, "near")
        for p in planted_pairs()
    }
    assert found == planted
    assert summary["n_excluded"] == len({row["train_key"] for row in rows})
    assert sum(summary["train_train"].values()) == 0
