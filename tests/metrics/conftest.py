from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import GOLDEN
from tests.metrics.golden import read_golden


@pytest.fixture(scope="session")
def golden_masks() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "masks" / "masks.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="session")
def golden_pairs() -> dict[str, Any]:
    return read_golden("masks/expected.json")["pairs"]
