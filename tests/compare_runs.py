"""Compare what two runs of the pipeline left, file by file: `python tests/compare_runs.py CHECKOUT_A CHECKOUT_B`.

For changes that must move nothing: exit status 0 if data/, models/ and reports/metrics are the same
bytes.
`data/code` (digests of the code itself) is left out.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

FOLDERS = ("data", "models", "reports/metrics")
LEFT_OUT = "data/code/"


def digests(checkout: Path) -> dict[str, str]:
    """Path relative to the checkout -> SHA-256 of every output."""
    files = (
        path for folder in FOLDERS for path in (checkout / folder).rglob("*") if path.is_file()
    )
    found = {path.relative_to(checkout).as_posix(): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(found.items())
        if not name.startswith(LEFT_OUT)
    }


def main(a: Path, b: Path) -> int:
    """Print the files that differ or are on one side only."""
    left, right = digests(a), digests(b)
    differing = sorted(
        name for name in left.keys() | right.keys() if left.get(name) != right.get(name)
    )
    for name in differing:
        state = (
            "differs" if name in left and name in right else f"only in {a if name in left else b}"
        )
        print(f"{name}: {state}")
    print(f"{len(left)} and {len(right)} files, {len(differing)} differ")
    return int(bool(differing) or not left)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
