"""Compiled kernels: used only where they pay off and their cache is this user's; else the plain path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hqsam_base import compiled

MODULE = "kernels_of_a_test"
TEXT = """
from hqsam_base.compiled import jit

@jit("int64(int64[::1])")
def total(values):
    out = 0
    for value in values:
        out += value
    return out
"""
USE = f"""
import numpy as np
from hqsam_base import compiled
assert compiled.ready("{MODULE}", size=2, worth=2) and not compiled.ready("{MODULE}", size=1, worth=2)
import {MODULE} as kernels
assert kernels.total(np.arange(4)) == 6
print(sum(kernels.total.stats.cache_hits.values()))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel module that nobody has compiled, and a cache of its own."""
    source = tmp_path / "source" / f"{MODULE}.py"
    source.parent.mkdir()
    source.write_text(TEXT)
    monkeypatch.syspath_prepend(str(source.parent))
    monkeypatch.setenv(compiled.FOLDER, str(tmp_path / "cache"))
    monkeypatch.delenv(compiled.SWITCH, raising=False)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    compiled._usable.cache_clear()
    return source


def ready() -> bool:
    compiled._usable.cache_clear()
    return compiled.ready(MODULE, size=2, worth=2)


def test_a_kernel_is_compiled_once_and_then_read_by_every_process(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not ready()  # nothing is compiled on the way
    before = os.umask(0o002)
    try:
        assert compiled.fill(MODULE) is None and ready()
    finally:
        os.umask(before)
    paths = os.pathsep.join([str(module.parent), *sys.path])
    again = subprocess.run(
        [sys.executable, "-c", USE], env=os.environ | {"PYTHONPATH": paths}, capture_output=True
    )
    assert again.stdout.split() == [b"1"], again.stderr.decode()
    monkeypatch.setenv(compiled.SWITCH, "0")
    assert not ready()
    monkeypatch.delenv(compiled.SWITCH)
    module.write_text(TEXT.replace("out = 0", "out = 1"))
    assert not ready()  # machine code belongs to its text


def test_the_plain_path_is_taken_where_there_is_no_compiler_or_no_folder(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Path(os.environ[compiled.FOLDER])
    cache.write_text("")
    assert "cannot be written" in str(compiled.fill(MODULE)) and not ready()
    cache.unlink()
    assert compiled.fill(MODULE) is None and ready()
    cache.chmod(0o777)
    assert not ready() and "written by others" in str(compiled.fill(MODULE))
    cache.chmod(0o700)
    cache.parent.chmod(0o777)  # anybody could put another folder in the cache's place
    assert not ready()
    cache.parent.chmod(0o1777)
    assert ready()
    cache.parent.chmod(0o700)
    if os.getuid() == 0:
        os.chown(cache.parent, 65534, 65534)
        assert not ready()
        os.chown(cache.parent, 0, 0)
    # A link is what it leads to.
    shared = cache.parent / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (place,) = cache.iterdir()
    place.rename(shared / place.name)
    place.symlink_to(shared / place.name)
    assert not ready()
    place.unlink()
    (shared / place.name).rename(place)
    assert ready()
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(
        compiled.importlib.util,
        "find_spec",
        lambda name, found=compiled.importlib.util.find_spec: (
            None if name == "numba" else found(name)
        ),
    )
    assert "not installed" in str(compiled.fill(MODULE)) and not ready()
