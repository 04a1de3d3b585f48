"""Fixtures of the pipeline tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local server's home with its tables made: making them takes most of a server's first start."""
    from hqsam_pipelines.runner import server
    from tests.pipelines.working_copy import bare_repository

    root = bare_repository(tmp_path_factory.mktemp("database"))
    server.ensure(root, idle_minutes=1)
    assert server.stop(root)
    return server.home(root)


@pytest.fixture(autouse=True)
def _no_given_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """These tests start servers of their own, whatever the environment of the test run names."""
    for name in list(os.environ):
        if name.startswith(("PREFECT_API", "HQSAM_SERVER")):
            monkeypatch.delenv(name)
    yield


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can enter, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory(prefix="hqsam-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
