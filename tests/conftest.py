"""What is left to `make test-all`."""

from __future__ import annotations

import pytest

from tests import FULL


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `full`, with the reason: a skip is shown by pytest-xdist too, a deselected test is not."""
    for item in items:
        mark = item.get_closest_marker("full")
        if mark is not None and not FULL:
            item.add_marker(pytest.mark.skip(reason=f"left to `make test-all`: {mark.args[0]}"))
