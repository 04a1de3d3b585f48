"""The process environment that every entry point sets before it imports anything heavy.

Standard library only: it runs first in each of about fifty short processes.
"""

from __future__ import annotations

import os
from pathlib import Path

from hqsam_base import own_code
from hqsam_base.errors import UserError

# Libraries that would otherwise report usage to their makers. `setdefault`: a user may switch one back on.
QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}

# What the console shows is the stage's own lines and errors; Prefect's go to its server.
PREFECT_CLIENT = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}

# Idle OpenMP threads sleep instead of spinning: two programs with two spinning threads each on two cores slow each other
# down five to ten times. NumPy's products are small here, one per image, in several processes or threads: waking its
# own threads costs more than they save (2.5 times on free cores, 200 times on busy ones). PyTorch does not use these.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}

STATE_DIR = ".hqsam"

PACKAGES = {
    "hqsam": ".",
    "hqsam_base": "datasets",
    "hqsam_datasets": "datasets",
    "hqsam_metrics": "metrics",
    "hqsam_pipelines": "pipelines",
}
"""The packages of a checkout and the folder that holds each."""


def prepare() -> None:
    """Set the defaults above in `os.environ`; call before importing prefect, dvc, ray or great_expectations."""
    for name, value in {**QUIET, **PREFECT_CLIENT, **THREADS}.items():
        os.environ.setdefault(name, value)


def keep_ray_local() -> None:
    """Have a Ray that is started here, for want of `RAY_ADDRESS`, listen to this machine alone; call before importing it.

    It takes commands from whoever reaches it, and by default it listens on all interfaces. The setting is made for Windows
    and macOS but has this effect everywhere (checked with Ray 2.60).
    """
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def repository_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: the current one) that holds both `dvc.yaml` and `params.yaml`.

    Args:
        start: An absolute or relative folder.

    Raises:
        UserError: no such folder up to the file system's root.
    """
    here = start or Path.cwd()
    root = own_code.repository_of(here)
    if root is None:
        cure = "run this inside the repository"
        raise UserError("no dvc.yaml and params.yaml here or above", file=here.resolve(), cure=cure)
    return root


def state_dir(root: Path) -> Path:
    """`<root>/.hqsam`, created if needed: locks, the local server's home and its log. Not under version control.

    Raises:
        UserError: it cannot be created.
    """
    folder = root / STATE_DIR
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        cure = "run this in a checkout that can be written"
        raise UserError(f"the folder cannot be made ({error.strerror})", file=folder, cure=cure) from error
    return folder
