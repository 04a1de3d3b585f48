"""The tests. They are a package, so that helpers come in by name: `from tests.datasets.trees import jpeg`."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY / "tests" / "golden"
# Whether everything runs, at full sizes and counts (`make test-all`), or what `make test` runs.
FULL = os.environ.get("HQSAM_TEST_ALL") == "1"
