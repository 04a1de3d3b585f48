"""A DVC remote on S3, over a line that is cut in the middle of a file: a real S3 API and DVC's own commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets.trees import contents
from tests.pipelines.servers import Line, s3_server
from tests.pipelines.working_copy import bare_repository, git, run

MEGABYTE = 1 << 20
STAGES = """
stages:
  shard:
    cmd: mkdir data && for n in 0 1 2 3; do yes $n | head -c 2097152 > data/$n.tar; done
    deps: [in]
    outs: [data]
  report:
    cmd: sha256sum data/* > report.txt
    deps: [data]
    outs: [report.txt]
"""


@pytest.mark.full("seven runs of DVC, ten seconds, to see its own driver mend a line")
def test_a_fresh_clone_pulls_over_a_line_that_is_cut_and_has_nothing_to_do(
    tmp_path: Path,
) -> None:
    pytest.importorskip("dvc_s3")
    root = bare_repository(tmp_path / "home")
    git(root, "init", "-q")
    assert run(root, "dvc", "init", "-q").returncode == 0
    (root / "dvc.yaml").write_text(STAGES)
    remote = "[core]\n    remote = store\n['remote \"store\"']\n    url = s3://team/dvc\n"
    (root / ".dvc" / "config").write_text(remote)
    (root / "in").write_text("what is committed")
    with s3_server("team") as given:
        for verb in ("repro", "push"):
            done = run(root, "dvc", verb, "-q", **given)
            assert done.returncode == 0, done.stderr
        git(root, "add", "-A")
        git(root, "commit", "-qm", "run")
        git(tmp_path, "clone", "-q", str(root), "fresh")
        fresh = tmp_path / "fresh"
        line = Line(int(given["AWS_ENDPOINT_URL"].rpartition(":")[2]))
        over = {**given, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}"}
        line.cut_at = 5 * MEGABYTE
        first = run(fresh, "dvc", "pull", "--jobs", "1", **over)
        again = run(fresh, "dvc", "pull", "--jobs", "1", **over)
        assert again.returncode == 0, first.stderr + again.stderr
        assert line.cuts == 1 and line.passed < 8 * MEGABYTE + 3 * MEGABYTE, line.passed
        line.close()
    assert contents(fresh / "data") == contents(root / "data")
    assert (fresh / "report.txt").read_bytes() == (root / "report.txt").read_bytes()
    assert "up to date" in run(fresh, "dvc", "repro").stdout
    assert git(fresh, "status", "--porcelain") == ""
