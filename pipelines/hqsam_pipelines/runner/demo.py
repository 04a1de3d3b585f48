"""What `make demo` runs: the whole pipeline on the active profile, then the result table and the answer.

The same work as `dvc repro`; around it the total in reports/provenance.json, the table, and no
server left behind.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

from hqsam_base import own_code
from hqsam_base.errors import UserError
from hqsam_base.terminal import say
from hqsam_pipelines.config import dvc_site, env, preflight
from hqsam_pipelines.runner import dvc_locks, host_client, provenance, server


def main() -> int:
    """Run, print, clean up; the exit status is DVC's."""
    if own_code.use_here():
        return int(importlib.import_module("hqsam_pipelines.runner.demo").main())
    env.prepare()
    root = env.repository_root()
    try:
        preflight.pipeline(root)
        dvc_site.configure(root)
    except UserError as error:
        say(str(error), err=True, lines=True)
        return 1
    before = provenance.read(root)["stages"]
    found = server.status(root)
    begin = time.monotonic()
    try:
        # The stages' commands say `python`: this one must come first on PATH.
        path = os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        )
        command = [sys.executable, "-m", "dvc", "repro"]
        with dvc_locks.queued(root, "make demo"):
            begin = time.monotonic()
            status = subprocess.run(
                command,
                cwd=root,
                env=dvc_site.environment(root, {**os.environ, "PATH": path}),
                check=False,
            ).returncode
    except UserError as error:  # another run did not end in time
        say(str(error), err=True, lines=True)
        return 1
    finally:
        host_client.stop(root)
        if found is None:  # a server that ran before is somebody else's to stop
            server.stop(root)
    if status:
        say(f"dvc repro ended with status {status}; the message of the stage is above", err=True)
        return status
    seconds = time.monotonic() - begin
    after = provenance.read(root)["stages"]
    ran = [name for name, cost in after.items() if cost != before.get(name)]
    if ran:
        provenance.record_run(root, "demo", wall_s=seconds, stages=ran)
    return _show(root, seconds)


def _show(root: Path, seconds: float) -> int:
    from hqsam_pipelines.report.run import print_summary
    from hqsam_pipelines.runner.last_line import last_line

    try:
        print_summary(root)
    except UserError as error:
        say(error, err=True, lines=True)
        return 1
    say(f"\n{seconds:.0f} s. {last_line(root)}", lines=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
