"""Keys of samples whose names differ only in what a key cannot hold."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from hqsam_datasets.sample import make_key


def distinct_keys(source: str, names: Sequence[str], told_by: Sequence[str]) -> list[str]:
    """The key of each name (`make_key`); where several names give one key, each gets a part of a digest added.

    Args:
        source: Name of the training source or benchmark.
        names: What the keys are made of.
        told_by: Of each name, the text whose digest is added: its path in the archive, or the name
            itself.
    """
    keys = [make_key(source, name) for name in names]
    times = Counter(keys)
    return [
        key if times[key] == 1 else f"{key}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        for key, text in zip(keys, told_by, strict=True)
    ]
