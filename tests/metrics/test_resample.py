"""AP of resamples from matches, and the files that hold them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hqsam_base.errors import UserError
from hqsam_metrics import matches_file
from hqsam_metrics.ap import accumulate, detection
from hqsam_metrics.ap.instances import parse_ground_truth
from hqsam_metrics.ap.resample import Matches, deletions, differences, matches_of, weighted_ap
from hqsam_metrics.ap.results import parse_results
from hqsam_metrics.matches_file import MATCHES, TRUTH, MatchesWriter, read_matches
from hqsam_metrics.scores import coco
from tests.metrics.synthetic import detections

IMAGES = 10


def scored(seed: int, images: int = IMAGES) -> tuple[detection.Scored, detection.Plan, list[int]]:
    content, rows = detections(np.random.default_rng(seed), images=images)
    gt = parse_ground_truth(content, "gt")
    plan = coco.make_plan((None, 0.02), class_agnostic=False, max_dets=None, per_instance=False)
    return (
        detection.score_detections(gt, parse_results([rows], gt, "dt"), plan),
        plan,
        gt.images.ids.tolist(),
    )


def packed(
    seed: int,
    partials: tuple[accumulate.Partial, ...] | None = None,
    images: int = IMAGES,
    **more: object,
) -> Matches:
    found, plan, ids = scored(seed, images)
    named = dict(zip(("AP", "AP_B"), partials or found.partials, strict=True))
    at = {"limit": plan.limits[-1], "ids": ids, "cluster": np.arange(len(ids))} | more
    return matches_of(named, plan.measures[0].bins, **at)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_without_resampling_it_is_the_evaluators_ap_of_every_size(seed: int) -> None:
    found, matches = scored(seed)[0], packed(seed)
    for name, tables in zip(("AP", "AP_B"), found.tables, strict=True):
        for size in ("", "s", "m", "l"):
            (value,) = weighted_ap(matches, name + size, np.ones((1, IMAGES)))
            want = tables.ap(bin_name=size)
            assert value == pytest.approx(np.nan if want is None else want, abs=1e-12, nan_ok=True)


def copied(partial: accumulate.Partial, weights: np.ndarray) -> accumulate.Partial:
    """The matches of a set in which image i stands weights[i] times."""
    parts = []
    for place, i in enumerate(np.repeat(np.arange(len(weights)), weights)):
        rows, real = np.flatnonzero(partial.image == i), np.flatnonzero(partial.gt_image == i)
        active = np.flatnonzero(np.isin(partial.active, rows))
        own = {
            "image": np.full(len(rows), place),
            "active": np.searchsorted(rows, partial.active[active]),
        }
        own |= {name: getattr(partial, name)[rows] for name in ("category", "score", "rank")}
        own |= {name: getattr(partial, name)[:, active] for name in ("matched", "ignored")}
        own |= {"outside": partial.outside[:, rows], "gt_counts": partial.gt_counts[:, real]}
        own |= {"gt_image": np.full(len(real), place), "gt_category": partial.gt_category[real]}
        parts.append(accumulate.Partial(**own))
    return accumulate.merge(parts)


def test_a_resample_is_what_the_evaluator_gives_for_copied_images() -> None:
    (found, plan, _), matches = scored(1), packed(1)
    rng = np.random.default_rng(5)
    bins, classes = plan.measures[0].bins, int(max(p.gt_category.max() for p in found.partials)) + 1
    for name, partial in zip(("AP", "AP_B"), found.partials, strict=True):
        for _ in range(5):
            weights = rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES))
            tables = accumulate.finish(
                copied(partial, weights), n_categories=classes, limits=plan.limits, bins=bins
            )
            (value,) = weighted_ap(matches, name, weights[None].astype(float))
            # Two copies of a detection are two points of the evaluator's curve, one here.
            assert value == pytest.approx(tables.ap(), abs=1e-2)


def test_detections_that_match_nothing_give_zero_and_no_ground_truth_nothing() -> None:
    partial = accumulate.Partial(
        image=np.arange(3),
        category=np.zeros(3, int),
        score=np.array([0.9, 0.8, 0.7]),
        rank=np.zeros(3, int),
        outside=np.zeros((4, 3), bool),
        active=np.zeros(0, int),
        matched=np.zeros((4, 0), np.uint16),
        ignored=np.zeros((4, 0), np.uint16),
        gt_image=np.zeros(1, int),
        gt_category=np.zeros(1, int),
        gt_counts=np.ones((4, 1), bool),
    )
    matches = packed(0, (partial, partial), ids=[1, 2, 3], cluster=np.arange(3))
    values = weighted_ap(matches, "AP", np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0]]))
    assert values[0] == 0.0 and np.isnan(values[1])


def test_a_difference_is_antisymmetric_and_zero_against_itself() -> None:
    a = packed(2, images=200)
    b = dataclasses.replace(
        a, hit={name: bits & 0x1F for name, bits in a.hit.items()}
    )  # worse above 0.7
    forth, back = differences(a, b, ["AP", "AP_B", "none"]), differences(b, a, ["AP", "AP_B"])
    assert list(forth) == ["AP", "AP_B"]
    for name, found in forth.items():
        assert found.mean < 0 and found.clusters == 200 and not found.too_few
        assert (found.low, found.high) == pytest.approx((-back[name].high, -back[name].low))
    assert all(
        (d.mean, d.low, d.high, d.differing) == (0, 0, 0, 0)
        for d in differences(a, a, ["AP", "AP_B"]).values()
    )
    with pytest.raises(ValueError, match="same images"):
        differences(a, packed(2, ids=range(1, IMAGES + 1)), ["AP"])


def test_every_part_of_a_set_is_drawn_on_its_own_and_weighs_the_same() -> None:
    whole = packed(3)
    # Images 0..2 with their own categories, the others with theirs: two sets in one file.
    part = np.where(np.arange(IMAGES) < 3, 0, 1)
    doubled = {
        field: getattr(whole, field) * 2 + part[whole.image].astype(np.int32)
        for field in ("category",)
    }
    truth = dataclasses.replace(
        whole.truth,
        stratum=part.astype(np.int32),
        category=whole.truth.category * 2 + part[whole.truth.image],
    )
    order = np.argsort(doubled["category"], kind="stable")
    sides = ("hit", "void")
    two = Matches(
        truth,
        whole.image[order],
        doubled["category"][order],
        *({name: bits[order] for name, bits in getattr(whole, side).items()} for side in sides),
    )
    left_out, sets = deletions(truth)
    assert [len(rows) for rows in sets] == [3, IMAGES - 3]
    np.testing.assert_array_equal(left_out, 1 - np.eye(IMAGES)[np.argsort(part, kind="stable")])
    alone = [
        weighted_ap(
            dataclasses.replace(two, truth=dataclasses.replace(truth, stratum=0 * part)),
            "AP",
            (part == p)[None].astype(float),
        )
        for p in (0, 1)
    ]
    assert weighted_ap(two, "AP", np.ones((1, IMAGES))) == pytest.approx(np.mean(alone), abs=1e-12)


def test_files_hold_the_matches_of_each_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = packed(2)
    b = dataclasses.replace(
        a,
        **{f: getattr(a, f)[:5] for f in ("image", "category")},
        **{f: {n: v[:5] for n, v in getattr(a, f).items()} for f in ("hit", "void")},
    )
    digests = set()
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        with MatchesWriter(folder) as writer:
            writer.add("box", "sam", a)
            writer.add("box", "hq", b)
        digests.add(
            tuple(hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in (MATCHES, TRUTH))
        )
    assert len(digests) == 1
    files = {name: tmp_path / "one" / name for name in (MATCHES, TRUTH)}
    for system, want in (("sam", a), ("hq", b)):
        found = read_matches(files, "box", system, "scores")
        for field in ("image", "category"):
            np.testing.assert_array_equal(getattr(found, field), getattr(want, field))
        for side in ("hit", "void"):
            assert list(getattr(found, side)) == [
                "AP",
                "APs",
                "APm",
                "APl",
                "AP_B",
                "AP_Bs",
                "AP_Bm",
                "AP_Bl",
            ]
            for name, bits in getattr(want, side).items():
                np.testing.assert_array_equal(getattr(found, side)[name], bits)
        assert found.truth.ids == a.truth.ids
        weights = deletions(a.truth)[0]
        np.testing.assert_array_equal(
            weighted_ap(found, "AP", weights), weighted_ap(want, "AP", weights)
        )
    assert pq.ParquetFile(files[MATCHES]).num_row_groups == 2
    with monkeypatch.context() as patch, pytest.raises(UserError, match="rows, the limit is 1"):
        patch.setattr(matches_file, "_MOST_ROWS", 1)
        read_matches(files, "box", "sam", "scores")
    table = pq.read_table(files[MATCHES])
    for wrong in (
        table.set_column(2, "image", pa.array(np.full(len(table), IMAGES, np.int32))),
        table.set_column(2, "image", pa.array([None] * len(table), pa.int32())),
        table.set_column(3, "category", pa.array(np.arange(len(table), dtype=np.int32)[::-1])),
        table.set_column(4, "AP", pa.array(["1"] * len(table))),
        table.drop_columns(["AP_void"]),
        table.set_column(0, "prompt_set", pa.array(np.zeros(len(table)))),
        table.append_column("note", pa.array(["x"] * len(table))),
        b"PAR1 cut off",
    ):
        if isinstance(wrong, bytes):
            files[MATCHES].write_bytes(wrong)
        else:
            pq.write_table(wrong, files[MATCHES])
        with pytest.raises(UserError, match="matches cannot be read"):
            read_matches(files, "box", "sam", "scores")
