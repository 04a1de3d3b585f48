"""The overlap gate: no training image may show what a benchmark is evaluated on.

Every training image is compared with every evaluation image, in three searches over stored
fingerprints (`hqsam_datasets.overlap.candidates`): whole pictures (PDQ, all pairs), parts of
pictures (local features: crops, composites) and outlines of foregrounds (an object pasted on
another background). Each hit is then proved or dismissed on the pixels
(`hqsam_datasets.overlap.verify`). What is proved is written down with its evidence, and the policy
decides: drop the training images, stop, or keep them and say so.

Training images that are copies of each other are reported too; they are never dropped.

A profile that trains nothing has no training images: then nothing is compared, and the gate says
``no training data`` rather than ``clean``.

Outputs (docs/formats.md): ``pairs.parquet``, ``exclusions.jsonl``, ``gallery/*.png``, and last
``overlap.json``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from hqsam_base.atomic import atomic_folder, write_bytes, write_json, write_jsonl
from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_datasets.overlap import gallery
from hqsam_datasets.overlap.candidates import VARIANTS
from hqsam_datasets.overlap.options import OverlapOptions
from hqsam_datasets.overlap.pair import Pair
from hqsam_datasets.overlap.search import KINDS, search
from hqsam_datasets.overlap.store import ImageList
from hqsam_datasets.overlap.tables import write_pairs
from hqsam_datasets.overlap.verify import pixel_affine

VERSION = 2


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
        samples: `data/samples/<source>` folders by source name; none where nothing trains.
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
        pairs, candidates = search(train, other, options, progress) if samples else ([], {})
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
            for g in sorted(set(other.group) if train.group else ())  # else nothing was compared
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
        "gate": _verdict(train, left, excluded),
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


def _verdict(train: ImageList, left: set[str], excluded: set[str]) -> str:
    if not train.group:
        return "no training data"
    return "kept" if left else "excluded" if excluded else "clean"


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
            left, right = train.image(pair.train), second.image(pair.other)
            evidence = pair.evidence
            measures = (
                f"ncc {evidence.ncc:.3f}, textured area matched {evidence.matched_fraction:.2f}"
            )
            if np.isfinite(evidence.outline):
                measures = f"outlines agree to {evidence.outline:.2f}"
            variant = pair.candidate.variant
            drawn = gallery.picture(
                left,
                right,
                affine=pixel_affine(evidence, variant, left.shape, right.shape),
                region=evidence.region,
                lines=(
                    f"{pair.kind}: {train.key[pair.train]}",
                    f"{second.group[pair.other]}: {second.key[pair.other]}",
                    f"{VARIANTS[variant]}, found by {pair.candidate.found_by}, {measures}",
                ),
            )
            write_bytes(folder / name, drawn)
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
