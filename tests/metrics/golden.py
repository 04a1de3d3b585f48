"""Reads reference values."""

from __future__ import annotations

import json
from typing import Any

from tests import GOLDEN


def read_golden(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())
