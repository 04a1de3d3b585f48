"""Searches for training images that show what an evaluation image shows, and proves each hit on the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Literal

import numpy as np

from hqsam_base.processes import worker_count
from hqsam_base.progress import Progress
from hqsam_datasets.overlap.candidates import Candidate, pdq_candidates
from hqsam_datasets.overlap.options import OverlapOptions
from hqsam_datasets.overlap.pair import Pair
from hqsam_datasets.overlap.shapes import Cutout, compare_outlines, is_same_object, shape_candidates
from hqsam_datasets.overlap.store import ImageList
from hqsam_datasets.overlap.tiles import TileTable, tile_candidates
from hqsam_datasets.overlap.verify import Evidence, Kind, View, compare, judge

KINDS: tuple[Kind, ...] = ("exact", "near", "crop", "background", "foreground")
"""From the strongest to the weakest claim."""


def search(
    train: ImageList, other: ImageList, options: OverlapOptions, progress: Progress
) -> tuple[list[Pair], dict[str, int]]:
    """Return all proved pairs in a fixed order, and how many candidates each search gave."""
    pairs, counts = [], {}
    exact = list(_exact(train, other, "eval"))
    known = {(pair.train, pair.other) for pair in exact}
    found = {"pdq": pdq_candidates(train.pdq, other.pdq, radius=options.hamming), "tiles": []}
    tables = [TileTable.of(side.tiles, side.height, side.width) for side in (train, other)]
    for done, candidates in tile_candidates(*tables, min_tiles=options.min_tiles):
        found["tiles"] += candidates
        progress(done, len(train), "local features")
    shapes = train.shapes(lambda done, total: progress(done, total, "training outlines"))
    to = other.shapes(lambda done, total: progress(done, total, "evaluation outlines"))
    longest = np.maximum(train.width, train.height)
    frame = np.stack([256 * train.width / longest, 256 * train.height / longest], 1)
    found["mask"] = shape_candidates(shapes, to, frame, radius=options.shape_hamming)
    counts = {name: len(candidates) for name, candidates in found.items()}
    open_ = [
        c for candidates in found.values() for c in candidates if (c.train, c.other) not in known
    ]
    pairs += exact + _verified(open_, train, other, "eval", progress)

    twins = list(_exact(train, train, "train"))
    known = {(pair.train, pair.other) for pair in twins}
    within = pdq_candidates(train.pdq, train.pdq, radius=options.hamming, same=True)
    counts["train_pdq"] = len(within)
    open_ = [c for c in within if (c.train, c.other) not in known]
    pairs += twins + _verified(open_, train, train, "train", progress)
    return sorted(pairs, key=lambda p: (p.scope, KINDS.index(p.kind), p.train, p.other)), counts


def _exact(train: ImageList, other: ImageList, scope: Literal["eval", "train"]) -> Iterator[Pair]:
    """Yield pairs with the same decoded pixels."""
    places: dict[tuple[str, int, int], list[int]] = {}
    for column, key in enumerate(
        zip(other.pixels, other.height.tolist(), other.width.tolist(), strict=True)
    ):
        places.setdefault(key, []).append(column)
    for row, key in enumerate(
        zip(train.pixels, train.height.tolist(), train.width.tolist(), strict=True)
    ):
        for column in places.get(key, []):
            if scope == "eval" or column > row:
                candidate = Candidate(row, column, 0, "pixels", hamming=0)
                yield Pair(scope, row, column, "exact", candidate, Evidence.of_exact())


def _verified(
    candidates: list[Candidate],
    train: ImageList,
    other: ImageList,
    scope: Literal["eval", "train"],
    progress: Progress,
) -> list[Pair]:
    """Return the candidates that the pixels prove, one per pair of images: the first that holds."""
    by_train: dict[int, dict[int, list[Candidate]]] = {}
    for candidate in candidates:
        by_train.setdefault(candidate.train, {}).setdefault(candidate.other, []).append(candidate)
    judge_ = _Judge(train, other)

    def check(row: int) -> list[Pair]:
        found = (judge_.first_proof(rivals) for _, rivals in sorted(by_train[row].items()))
        return [
            Pair(scope, row, proof[0].other, proof[1], proof[0], proof[2])
            for proof in found
            if proof
        ]

    pairs: list[Pair] = []
    rows = sorted(by_train)
    what = "pairs compared" if scope == "eval" else "training twins compared"
    with ThreadPoolExecutor(worker_count(len(rows), worth=4)) as pool:
        for done, found in enumerate(pool.map(check, rows), start=1):
            pairs += found
            progress(done, len(rows), what)
    return pairs


class _Judge:
    """Looks at the pixels of candidates; keeps the small views of the images seen last."""

    def __init__(self, train: ImageList, other: ImageList) -> None:
        self._train, self._other = train, other
        self._train_view = lru_cache(maxsize=16)(
            lambda row: View.of(train.image(row), train.foreground(row))
        )
        self._other_view = lru_cache(maxsize=2048)(lambda row: View.of(other.image(row)))

    def first_proof(self, rivals: list[Candidate]) -> tuple[Candidate, Kind, Evidence] | None:
        """Return the first candidate of one pair of images with evidence that proves something."""
        for candidate in rivals:
            kind: Kind | None
            if candidate.masks is None:
                evidence = compare(
                    self._train_view(candidate.train), self._other_view(candidate.other), candidate
                )
                same_hash = candidate.found_by == "pdq"
                kind = None if evidence is None else judge(evidence, same_hash=same_hash)
            else:
                sides = (
                    (self._train, candidate.train, candidate.masks[0]),
                    (self._other, candidate.other, candidate.masks[1]),
                )
                first, second = (
                    Cutout(side.image(row), side.masks(row)[number]) for side, row, number in sides
                )
                evidence = compare_outlines(first, second, candidate)
                same = evidence is not None and is_same_object(evidence)
                kind = "foreground" if same else None
            if evidence is not None and kind is not None:
                return candidate, kind, evidence
        return None
