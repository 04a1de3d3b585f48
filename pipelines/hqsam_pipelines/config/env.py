"""The process environment that every entry point sets before it imports anything heavy.

Standard library only: it runs first in each of about fifty short processes.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from hqsam_base import own_code
from hqsam_base.errors import UserError

# Libraries that would otherwise report usage to their makers. `setdefault`: a user may switch one
# back on.
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

# Idle OpenMP threads sleep instead of spinning: two programs with two spinning threads each on two
# cores slow each other down five to ten times. NumPy's products are small here, one per image, in
# several processes or threads: waking its own threads costs more than they save (2.5 times on free
# cores, 200 times on busy ones). PyTorch does not use these.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}

# OpenCV's own limit is 2^30 pixels, and a few kilobytes can stand for them; `hqsam_base.png` looks
# at the header of a PNG itself, and is too heavy to be imported here.
DECODERS = {"OPENCV_IO_MAX_IMAGE_PIXELS": "178000000"}

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
    for name, value in {**QUIET, **PREFECT_CLIENT, **THREADS, **DECODERS}.items():
        os.environ.setdefault(name, value)
    keep_loopback_direct()


def keep_ray_local() -> None:
    """Have a Ray that is started here, for want of `RAY_ADDRESS`, listen to this machine alone; call before importing it.

    It takes commands from whoever reaches it, and by default it listens on all interfaces. The
    setting is made for Windows and macOS but has this effect everywhere (checked with Ray 2.60).
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
    """`<root>/.hqsam`: locks, the local server's home, its password and log. Not under version control, and perhaps not there.

    Whoever starts something makes it (`make_state_dir`). Who reads, watches or ends does not: the
    checkout may be on its way out, as at the end of `dvc exp run --temp`, and a folder that comes
    back cannot be removed with it.
    """
    return root / STATE_DIR


def make_state_dir(root: Path) -> Path:
    """`state_dir`, created if needed. It is this user's alone (mode 0700): whoever writes there decides what runs.

    Raises:
        UserError: it cannot be created, or belongs to somebody who is neither this user nor the
            owner of the checkout.
    """
    folder = state_dir(root)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat()
        if found.st_uid == os.geteuid() and found.st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        cure = "run this in a checkout that can be written"
        raise UserError(
            f"the folder cannot be made ({error.strerror})", file=folder, cure=cure
        ) from error
    if found.st_uid not in (os.geteuid(), root.stat().st_uid) or not os.access(
        folder, os.W_OK | os.X_OK
    ):
        cure = (
            "work in a clone of your own; if this one is yours, take the folder away after a look "
            "at who made it"
        )
        raise UserError(
            f"the folder belongs to another user (number {found.st_uid})", file=folder, cure=cure
        )
    return folder


LOOPBACK = ("localhost", "127.0.0.1", "::1")


def keep_loopback_direct() -> None:
    """Have no program ask a proxy for this machine's own servers; other hosts go the way that the environment says.

    A proxy for all addresses (HTTPS_PROXY without NO_PROXY) is common where the archives are behind
    one, and none of them can reach the 127.0.0.1 that the local server listens on.
    """
    if not any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in os.environ):
        return
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in LOOPBACK if host not in hosts]
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(
            hosts
        )  # programs read the one or the other


def is_loopback(host: str) -> bool:
    """Whether a host of an address is this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
