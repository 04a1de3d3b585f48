"""DVC's command line as a function, so that the stage host can fork a run of it: `python -m hqsam_pipelines.runner.dvc_run ARGS`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from hqsam_base import own_code
from hqsam_pipelines.config import dvc_site, env
from hqsam_pipelines.runner import host_client


def main(argv: Sequence[str]) -> int:
    """Run `dvc <argv>` in the checkout's host, or here if there is none. Returns DVC's exit status."""
    if own_code.use_here():
        return int(importlib.import_module("hqsam_pipelines.runner.dvc_run").main(argv))
    env.prepare()
    root = env.repository_root()
    os.environ.update(dvc_site.environment(root, os.environ))
    status = host_client.run(root, "hqsam_pipelines.runner.dvc_run:run_here", argv)
    return status if status is not None else run_here(argv)


def run_here(argv: Sequence[str]) -> int:
    """Run `dvc <argv>` in this process. Returns DVC's exit status."""
    from dvc.cli import main as dvc_main

    return int(dvc_main(list(argv)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
