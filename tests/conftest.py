"""What every test begins with, and what is left to `make test-all`."""

from __future__ import annotations

import gc
import sys

import pytest

from tests import FULL


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `full`, with the reason: a skip is shown by pytest-xdist too, a deselected test is not."""
    for item in items:
        mark = item.get_closest_marker("full")
        if mark is not None and not FULL:
            item.add_marker(pytest.mark.skip(reason=f"left to `make test-all`: {mark.args[0]}"))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking all imported libraries, a million objects, again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Give random weights the same values in every run: a constructor's draw may be a model whose masks are all full."""
    # Before any fixture, so that models that a module shares have them too; tests without torch do not import it.
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
