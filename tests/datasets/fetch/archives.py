"""Small archives, and fetching them without waiting."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path
from typing import Any

from hqsam_datasets.fetch.archive import fetch
from hqsam_datasets.fetch.spec import ArchiveSpec
from hqsam_datasets.fetch.transfer import RetryPolicy

QUICK = RetryPolicy(attempts=4, base_s=0.0, timeout_s=5.0)


def quiet(done: int, total: int, what: str) -> None:
    """Report nothing."""


def blob(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def a_zip(seed: int = 0, size: int = 50_000) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a/b.bin"), blob(size, seed))
    return buffer.getvalue()


def spec(*urls: str, name: str = "set.zip", **facts: Any) -> ArchiveSpec:
    return ArchiveSpec.model_validate({"files": [{"name": name, "urls": list(urls), **facts}]})


def get(
    spec: ArchiveSpec, out: Path, waits: list[float] | None = None, **more: Any
) -> dict[str, Any]:
    waits = [] if waits is None else waits
    return fetch(spec, out, progress=quiet, policy=QUICK, sleep=waits.append, **more)


def left_over(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))
