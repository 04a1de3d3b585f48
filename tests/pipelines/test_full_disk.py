"""A full disk is one message with file and cure: real file systems of a megabyte, mounted for one process."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hqsam_pipelines.runner import host_client, server
from tests.pipelines.working_copy import dvc_repository, environment

BIG = "stages:\n  big:\n    cmd: head -c 3000000 /dev/urandom > out\n    outs: [out]\n"
IN_STAGE = """
import sys
from hqsam_pipelines.runner.stage import Stage, main

def run(job):
    (job.root / "data" / "out").write_bytes(bytes(3_000_000))

sys.exit(main(Stage("big", (), run, on_server=False), sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        (".dvc/cache", "hqsam repro"),
        (".hqsam", "hqsam repro"),
        ("data", "python stage.py"),
    ],
)
def test_a_full_disk_is_one_message(
    tmp_path: Path, database: Path, folder: str, words: str
) -> None:
    root = dvc_repository(tmp_path / "full", BIG, database)
    (root / "stage.py").write_text(IN_STAGE)
    place = root / folder
    place.mkdir(parents=True, exist_ok=True)
    ballast = f"cat /dev/zero > {place}/ballast 2>/dev/null;" if folder == ".hqsam" else ""
    script = f"mount -t tmpfs -o size=1m,mode=700 none {place} || exit 77; {ballast} {words}"
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
            cwd=root,
            env=environment(root, HQSAM_HOST="0"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        host_client.stop(root)
        server.stop(root)
    said = done.stdout + done.stderr
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this machine lets no user mount a file system")
    assert done.returncode == 1, said
    assert said.count("the disk is full\n") == 1 and "Traceback" not in said, said
    assert f"file: {place}" in said and "cure: free some space" in said
