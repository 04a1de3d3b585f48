"""Builds the embedded archives once per test run and extracts them as the pipeline does."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import yaml

from hqsam_base import atomic
from hqsam_datasets.benchmarks.base import BenchmarkOptions
from hqsam_datasets.embedded import archives
from hqsam_datasets.fetch.extract import extracted
from hqsam_datasets.prepare.index import index
from tests import REPOSITORY


@functools.cache
def _home() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="embedded-")


@functools.cache
def fetched(name: str) -> Path:
    """The folder of an archive's published files, with the record that the fetch stage writes."""
    folder = Path(_home().name) / "archives" / name
    for file in archives.files(name):
        archives.write(name, file, folder / file)
    record = [
        {"name": p.name, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()}
        for p in sorted(folder.iterdir())
    ]
    atomic.write_json(folder / "fetch.json", {"files": record})
    return folder


@functools.cache
def tree(name: str) -> Path:
    """The extracted tree."""
    return extracted(fetched(name), Path(_home().name) / "extracted")


@functools.cache
def indexed(name: str) -> Path:
    """``data/benchmarks/<name>`` of the sample profile."""
    section = params()["benchmarks"][name]
    out = Path(_home().name) / "benchmarks" / name
    index(
        name,
        root=tree(section["archive"]),
        out=out,
        options=BenchmarkOptions(**section["index"]),
        progress=lambda done, total, what: None,
    )
    return out


def params() -> dict[str, Any]:
    """The sample profile."""
    profile = REPOSITORY / "configs" / "sample.yaml"
    values = yaml.safe_load(
        (profile if profile.exists() else REPOSITORY / "params.yaml").read_text()
    )
    assert isinstance(values, dict)
    return values
