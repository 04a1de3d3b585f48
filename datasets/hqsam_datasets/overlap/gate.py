"""The overlap gate: no training image may show what a benchmark is evaluated on.

Every training image is compared with every evaluation image, in three searches over stored
fingerprints (`hqsam_datasets.overlap.candidates`): whole pictures (PDQ, all pairs), parts of
pictures (local features: crops, composites) and outlines of foregrounds (an object pasted on
another background). Each hit is then proved or dismissed on the pixels
(`hqsam_datasets.overlap.verify`). What is proved is written down with its evidence, and the policy
decides: drop the training images, stop, or keep them and say so.

Training images that are copies of each other are reported too; they are never dropped.

Outputs (docs/formats.md): ``pairs.parquet``, ``exclusions.jsonl``, ``gallery/*.png``, and last
``overlap.json``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from hqsam_base.atomic import atomic_folder, write_bytes, write_json, write_jsonl
from hqsam_base.errors import UserError
from hqsam_base.processes import worker_count
from hqsam_base.progress import Progress
from hqsam_datasets.overlap import gallery
from hqsam_datasets.overlap.candidates import VARIANTS, Candidate, pdq_candidates
from hqsam_datasets.overlap.pair import Pair
from hqsam_datasets.overlap.shapes import Cutout, compare_outlines, is_same_object, shape_candidates
from hqsam_datasets.overlap.store import ImageList
from hqsam_datasets.overlap.tables import write_pairs
from hqsam_datasets.overlap.tiles import TileTable, tile_candidates
from hqsam_datasets.overlap.verify import Evidence, Kind, View, compare, judge, pixel_affine

VERSION = 2
KINDS: tuple[Kind, ...] = ("exact", "near", "crop", "background", "foreground")
"""From the strongest to the weakest claim."""


class OverlapOptions(BaseModel):
    """Section `overlap` of params.yaml.

    Attributes:
        hamming: PDQ bits of 256 that may differ before two pictures are compared on their pixels.
        min_tiles: local features that must agree on one geometry before two pictures are compared
            on their pixels.
        shape_hamming: PDQ bits of 256 in which the outlines of two foregrounds may differ before
            they are compared.
        unresolved: what happens to training images that share content with an evaluation image and
            are listed neither in `keep` nor in `drop`: `exclude` drops them, `stop` ends the run,
            `keep` keeps them and says so.
        keep: keys of training images that a person has looked at and that stay.
        drop: keys of training images that a person has looked at and that go, whatever `unresolved`
            says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hamming: int = Field(default=31, ge=0, le=96)
    min_tiles: int = Field(default=3, ge=3, le=32)
    shape_hamming: int = Field(default=64, ge=0, le=96)
    unresolved: Literal["exclude", "stop", "keep"] = "exclude"
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


def find_overlap(
    *,
    samples: dict[str, Path],
    benchmarks: dict[str, Path],
    out: Path,
    options: OverlapOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Compare all training images with all evaluation images, write the evidence and the exclusions.

    Args:
        samples: `data/samples/<source>` folders by source name.
        benchmarks: `data/benchmarks/<benchmark>` folders by benchmark name.
        out: folder to write; appears whole or not at all.
        options: section `overlap` of the parameters.
        progress: called with (done, total, what).

    Returns:
        The content of `overlap.json`.

    Raises:
        UserError: if an input is missing or damaged, if `keep` or `drop` name unknown keys, or if
            pairs are left and
            `unresolved` is `stop`. In the last case the evidence is written to the sibling folder
            `<out>-unresolved`.
    """
    train, other = ImageList.of_samples(samples), ImageList.of_benchmarks(benchmarks)
    _check_lists(options, train)
    try:
        pairs, candidates = _search(train, other, options, progress)
        open_keys = _overlapping(pairs, train) - set(options.keep) - set(options.drop)
        excluded = set(options.drop) | (open_keys if options.unresolved == "exclude" else set())
        stopped = options.unresolved == "stop" and bool(open_keys)
        folder = out.with_name(f"{out.name}-unresolved") if stopped else out
        with atomic_folder(folder) as tmp:
            unseen = sorted(set(benchmarks) - set(other.group))
            summary = _write(tmp, pairs, train, other, options, excluded, candidates, unseen)
    finally:
        train.close()
        other.close()
    if stopped:
        lines = [
            f"{train.key[p.train]} ~ {other.group[p.other]}/{other.key[p.other]} ({p.kind})"
            for p in pairs
            if p.scope == "eval" and train.key[p.train] in open_keys
        ]
        more = f" and {len(lines) - 10} more pairs" if len(lines) > 10 else ""
        raise UserError(
            f"{len(open_keys)} training images share content with evaluation images: "
            f"{'; '.join(lines[:10])}{more}",
            file=folder,
            key=sorted(open_keys)[0],
            cure="look at its gallery, then list each key under overlap.drop or overlap.keep, "
            "or set overlap.unresolved to exclude or keep",
        )
    return summary


# ---- search ----


def _search(
    train: ImageList, other: ImageList, options: OverlapOptions, progress: Progress
) -> tuple[list[Pair], dict[str, int]]:
    """Return all proved pairs in a fixed order, and how many candidates each search gave."""
    pairs, counts = [], {}
    exact = list(_exact(train, other, "eval"))
    known = {(pair.train, pair.other) for pair in exact}
    found = {
        "pdq": pdq_candidates(train.pdq, other.pdq, radius=options.hamming),
        "tiles": _tile_search(train, other, options, progress),
        "mask": _shape_search(train, other, options, progress),
    }
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


def _tile_search(
    train: ImageList, other: ImageList, options: OverlapOptions, progress: Progress
) -> list[Candidate]:
    tables = [TileTable.of(side.tiles, side.height, side.width) for side in (train, other)]
    found: list[Candidate] = []
    for done, candidates in tile_candidates(*tables, min_tiles=options.min_tiles):
        found += candidates
        progress(done, len(train), "local features")
    return found


def _shape_search(
    train: ImageList, other: ImageList, options: OverlapOptions, progress: Progress
) -> list[Candidate]:
    shapes = train.shapes(lambda done, total: progress(done, total, "training outlines"))
    to = other.shapes(lambda done, total: progress(done, total, "evaluation outlines"))
    longest = np.maximum(train.width, train.height)
    frame = np.stack([256 * train.width / longest, 256 * train.height / longest], 1)
    return shape_candidates(shapes, to, frame, radius=options.shape_hamming)


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
            evidence = self._look(candidate)
            kind = None if evidence is None else self._verdict(candidate, evidence)
            if evidence is not None and kind is not None:
                return candidate, kind, evidence
        return None

    def _look(self, candidate: Candidate) -> Evidence | None:
        if candidate.masks is None:
            return compare(
                self._train_view(candidate.train), self._other_view(candidate.other), candidate
            )
        sides = (
            (self._train, candidate.train, candidate.masks[0]),
            (self._other, candidate.other, candidate.masks[1]),
        )
        cutouts = [Cutout(side.image(row), side.masks(row)[number]) for side, row, number in sides]
        return compare_outlines(cutouts[0], cutouts[1], candidate)

    def _verdict(self, candidate: Candidate, evidence: Evidence) -> Kind | None:
        if candidate.masks is None:
            return judge(evidence, same_hash=candidate.found_by == "pdq")
        return "foreground" if is_same_object(evidence) else None


# ---- policy ----


def _check_lists(options: OverlapOptions, train: ImageList) -> None:
    for name in ("keep", "drop"):
        unknown = sorted(set(getattr(options, name)) - set(train.key))
        if unknown:
            raise UserError(
                f"overlap.{name} names training images that do not exist",
                file="params.yaml",
                key=", ".join(unknown[:5]),
                cure=f"remove them from overlap.{name} or correct them",
            )
    both = sorted(set(options.keep) & set(options.drop))
    if both:
        raise UserError(
            "training images are listed in overlap.keep and in overlap.drop",
            file="params.yaml",
            key=", ".join(both[:5]),
            cure="decide for one of the two",
        )


def _overlapping(pairs: Iterable[Pair], train: ImageList) -> set[str]:
    return {train.key[pair.train] for pair in pairs if pair.scope == "eval"}


# ---- output ----


def _write(
    folder: Path,
    pairs: list[Pair],
    train: ImageList,
    other: ImageList,
    options: OverlapOptions,
    excluded: set[str],
    candidates: dict[str, int],
    unseen: list[str],
) -> dict[str, Any]:
    write_pairs(folder / "pairs.parquet", pairs, train, other, excluded)
    write_jsonl(folder / "exclusions.jsonl", _exclusions(pairs, train, other, excluded))
    shown = _write_gallery(folder / "gallery", pairs, train, other)
    outside = [pair for pair in pairs if pair.scope == "eval"]
    within = [pair for pair in pairs if pair.scope == "train"]
    left = _overlapping(pairs, train) - excluded
    summary = {
        "version": VERSION,
        "n_train": len(train),
        "n_eval": len(other),
        "n_pairs": len(outside),
        "counts": _counts(outside),
        "by_benchmark": {
            g: _counts(p for p in outside if other.group[p.other] == g)
            for g in sorted(set(other.group))
        },
        "by_source": {
            g: _counts(p for p in outside if train.group[p.train] == g)
            for g in sorted(set(train.group))
        },
        "train_train": _counts(within),
        "n_excluded": len(excluded),
        "n_kept": len(left),
        "kept": sorted(left),
        "policy": options.model_dump(mode="json"),
        "gate": "kept" if left else "excluded" if excluded else "clean",
        "candidates": candidates,
        "gallery": shown,
    }
    if unseen:  # benchmarks with unavailable archives
        summary["not_compared"] = unseen
    digest = hashlib.sha256()
    for name in ("pairs.parquet", "exclusions.jsonl"):
        digest.update((folder / name).read_bytes())
    summary["digest"] = digest.hexdigest()
    write_json(folder / "overlap.json", summary)
    return summary


def _exclusions(
    pairs: list[Pair], train: ImageList, other: ImageList, excluded: set[str]
) -> list[dict[str, str]]:
    """Return one line per excluded image with its strongest pair.

    `drop` may name images without one.
    """
    lines: dict[str, dict[str, str]] = {}
    for pair in pairs:
        key = train.key[pair.train]
        if pair.scope == "eval" and key in excluded and key not in lines:
            lines[key] = {
                "key": key,
                "reason": pair.kind,
                "pair": f"{other.group[pair.other]}/{other.key[pair.other]}",
            }
    for key in excluded - lines.keys():
        lines[key] = {"key": key, "reason": "listed", "pair": ""}
    return [lines[key] for key in sorted(lines)]


def _counts(pairs: Iterable[Pair]) -> dict[str, int]:
    counts = Counter(pair.kind for pair in pairs)
    return {kind: counts[kind] for kind in KINDS}


def _write_gallery(
    folder: Path, pairs: list[Pair], train: ImageList, other: ImageList
) -> list[dict[str, str]]:
    """Draw at most `gallery.MAX_PICTURES` pictures, training twins only where room is left."""
    folder.mkdir()
    by_scope = [[p for p in pairs if p.scope == scope] for scope in ("eval", "train")]
    shown: list[dict[str, str]] = []
    for subset in by_scope:
        for row in gallery.choose([p.kind for p in subset], gallery.MAX_PICTURES - len(shown)):
            pair = subset[row]
            second = other if pair.scope == "eval" else train
            name = f"{len(shown):02d}_{pair.kind}.png"
            write_bytes(folder / name, _picture(pair, train, second))
            shown.append(
                {
                    "file": name,
                    "scope": pair.scope,
                    "kind": pair.kind,
                    "train_key": train.key[pair.train],
                    "group": second.group[pair.other],
                    "key": second.key[pair.other],
                }
            )
    return shown


def _picture(pair: Pair, train: ImageList, other: ImageList) -> bytes:
    left, right = train.image(pair.train), other.image(pair.other)
    evidence = pair.evidence
    measures = f"ncc {evidence.ncc:.3f}, textured area matched {evidence.matched_fraction:.2f}"
    if np.isfinite(evidence.outline):
        measures = f"outlines agree to {evidence.outline:.2f}"
    lines = (
        f"{pair.kind}: {train.key[pair.train]}",
        f"{other.group[pair.other]}: {other.key[pair.other]}",
        f"{VARIANTS[pair.candidate.variant]}, found by {pair.candidate.found_by}, {measures}",
    )
    affine = pixel_affine(evidence, pair.candidate.variant, left.shape, right.shape)
    region: NDArray[np.bool_] = evidence.region
    return gallery.picture(left, right, affine=affine, region=region, lines=lines)
