"""What `hqsam doctor` says of variables, GPU, Ray, DVC's cache and remote: what is wrong, and what to do."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from hqsam_base.errors import UserError
from hqsam_pipelines.config import variables
from hqsam_pipelines.runner import doctor_operations as operations
from hqsam_pipelines.runner.finding import Finding
from tests import REPOSITORY
from tests.pipelines.servers import free_port, s3_server
from tests.pipelines.working_copy import bare_repository, git, run


def test_the_list_of_variables_is_that_of_the_code() -> None:
    """A variable that the code reads and the list lacks would be called unknown."""
    sources = [
        p
        for f in ("datasets", "hqsam", "metrics", "pipelines")
        for p in (REPOSITORY / f).rglob("*.py")
    ]
    found = {n for p in sources for n in re.findall(r"\bHQSAM_([A-Z_]+)\b", p.read_text("utf-8"))}
    assert found - {*variables.USERS, *variables.OWN} == set()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HQSAM_CHEKOUT", "/srv", "did you mean HQSAM_CHECKOUT?"),
        ("HQSAM_FOO", "1", "no such variable: unset it"),
        ("HQSAM_EXECUTOR", "dask", "one of: threads, ray"),
        ("HQSAM_WORKERS", "0", "a whole number, 1 or more"),
        ("HQSAM_WAIT_HOURS", "nan", "a number, 0 or more"),
        ("HQSAM_CHECKOUT", "/nowhere", "a folder that is there"),
        ("HQSAM_CHECKOUT", "/", "dvc.yaml"),
        ("HQSAM_WEBHOOK_ON", "success,late", "success, failure, regression"),
        ("HQSAM_WEBHOOK_URL", "hooks.example.org/T0/token", "https://"),
    ],
)
def test_a_variable_that_does_nothing_is_a_failure_with_a_cure(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    for other in [other for other in os.environ if other.startswith("HQSAM_")]:
        monkeypatch.delenv(other)
    assert [found.level for found in operations.variables()] == ["ok"]
    monkeypatch.setenv(name, value)
    [found] = [found for found in operations.variables() if found.level == "fail"]
    assert name in found.detail and said in found.detail and "token" not in found.detail


def test_a_number_that_is_none_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    assert variables.number("HQSAM_WAIT_HOURS", 24) == 24
    monkeypatch.setenv("HQSAM_WAIT_HOURS", "1.5")
    assert variables.number("HQSAM_WAIT_HOURS", 24) == 1.5
    monkeypatch.setenv("HQSAM_WAIT_HOURS", "a day")
    with pytest.raises(UserError, match="'a day' is not a number") as caught:
        variables.number("HQSAM_WAIT_HOURS", 24)
    assert caught.value.key == "HQSAM_WAIT_HOURS"


def test_dvcs_cache_and_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = bare_repository(tmp_path / "root")
    git(root, "init", "-q")
    assert run(root, "dvc", "init", "-q").returncode == 0

    def look(remote: str = "") -> dict[str, Finding]:
        text = f"[core]\n    remote = store\n['remote \"store\"']\n    url = {remote}\n" * bool(
            remote
        )
        (root / ".dvc" / "config.local").write_text(text)
        return {found.what: found for found in operations.dvc(root)}

    assert [found.level for found in look().values()] == ["ok"] * 3
    monkeypatch.setattr(operations, "CACHE_GB", 1e9)
    found = look(str(tmp_path / "not mounted" / "store"))
    assert found["cache"].level == "warn" and "`dvc gc" in found["cache"].detail
    assert found["remote"].level == "fail" and "neither it nor its folder" in found["remote"].detail
    with s3_server("bucket") as given:
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        assert look("s3://bucket/some/place")["remote"].level == "ok"
        found = look("s3://another/place")
        assert found["remote"].level == "fail" and "neither it nor" in found["remote"].detail
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # its client tries several times
    found = look("s3://bucket/some/place")
    assert found["remote"].level == "fail" and "credentials" in found["remote"].detail
    (root / "dvc.yaml").write_text("stages: [")
    assert [found.level for found in look().values()] == ["fail"]


def test_ray_of_another_release_or_behind_a_closed_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert [found.level for found in operations.ray(REPOSITORY)] == ["ok"]
    (tmp_path / "constraints.txt").write_text("ray==1.0.0  # long ago\n")
    [found] = operations.ray(tmp_path)
    assert found.level == "warn" and "1.0.0 is pinned" in found.detail
    for address in (f"127.0.0.1:{free_port()}", f"ray://127.0.0.1:{free_port()}"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        *_, found = operations.ray(REPOSITORY)
        assert found.level == "fail" and f"{address} does not answer" in found.detail


@pytest.mark.full("it imports torch once more, for one message")
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_a_gpu_that_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in the place of NVIDIA's, which is not to be had without a GPU."""
    [found] = operations.gpu(tmp_path)
    assert found.level == "ok"
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 570.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    [found] = operations.gpu(tmp_path)
    assert found.level == "fail" and "NVIDIA H200" in found.detail
    assert "build for CPUs" in found.detail or "update the driver" in found.detail
    tool.write_text("#!/bin/sh\necho 'Failed to initialize NVML' >&2; exit 9\n")
    [found] = operations.gpu(tmp_path)
    assert found.level == "fail" and "Failed to initialize NVML" in found.detail
