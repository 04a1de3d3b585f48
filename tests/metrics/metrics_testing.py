"""Helpers of the metrics tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden"


def read_golden(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())
