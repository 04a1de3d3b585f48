"""What `hqsam doctor` finds out about the machine and what is installed on it, whatever the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from hqsam_base import compiled
from hqsam_pipelines.config import origin
from hqsam_pipelines.runner import provenance


@dataclass(frozen=True)
class Finding:
    """One line of the examination: `fail` means that a run would fail, `warn` that it may disappoint."""

    level: Literal["ok", "warn", "fail"]
    what: str
    detail: str

    @property
    def mark(self) -> str:
        """The level as it is printed."""
        return {"ok": "ok", "warn": "WARN", "fail": "FAIL"}[self.level]


def software() -> Iterator[Finding]:
    """Yield the findings about Python and the libraries."""
    level: Literal["ok", "fail"] = "ok" if sys.version_info >= (3, 11) else "fail"
    yield Finding(
        level, "python", f"{sys.version.split()[0]} at {sys.executable} (3.11 or newer is needed)"
    )
    python = shutil.which("python")
    if python is None or Path(python).resolve() != Path(sys.executable).resolve():
        detail = (
            f"`python` is {python or 'not on PATH'}, this is {sys.executable}: activate the "
            f"environment before `dvc repro`"
        )
        yield Finding("warn", "python", detail)
    found = provenance.libraries()
    missing = [name for name in provenance.LIBRARIES if name not in found]
    if missing:
        yield Finding(
            "fail",
            "libraries",
            f"not installed: {', '.join(missing)}; pip install -c constraints.txt '.[pipeline]'",
        )
    yield Finding(
        "ok", "libraries", ", ".join(f"{name} {version}" for name, version in found.items())
    )
    try:
        metadata.version("lightning")
    except metadata.PackageNotFoundError:
        return
    yield Finding(
        "warn",
        "libraries",
        "`lightning` is installed; releases of 2026-04 were malicious, check its version",
    )


def hardware() -> Iterator[Finding]:
    """Yield the findings about processor, memory and GPU; compiles the kernels for this processor."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    level: Literal["ok", "warn"] = "ok" if memory >= 6 else "warn"
    yield Finding(
        level,
        "machine",
        f"{origin.host()['cores']} cores, {memory:.0f} GB memory (the sample needs 4)",
    )
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield Finding("ok", "gpu", "none found; the sample needs none")
    else:
        query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
        yield Finding(
            "ok" if done.returncode == 0 else "warn",
            "gpu",
            "; ".join((done.stdout or done.stderr).split("\n")).strip("; "),
        )
    for module in compiled.MODULES:
        why = compiled.fill(module)
        name = module.removeprefix("hqsam_")
        if why is None:
            yield Finding("ok", "kernels", f"{name} is compiled for this processor")
        else:
            yield Finding("warn", "kernels", f"{name} runs uncompiled, with equal numbers: {why}")
