"""The tests. They are a package, so that helpers come in by name: `from tests.datasets.trees import jpeg`."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY / "tests" / "golden"
