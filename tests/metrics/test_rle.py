"""Run-length codes: agreement with pycocotools on good ones, an error and nothing else on bad ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from hqsam_base.rle import decode_rle, encode_rle, polygons_to_rle, rle_string, segmentation_string
from hqsam_base.runs import RleBatch, RleError, Runs, decode_runs, encode_lengths
from hqsam_metrics.masks.packed import Shapes
from tests.metrics.synthetic import random_masks

SEEDS = st.integers(0, 2**32 - 1)
MASKS = st.builds(
    lambda seed, h, w: random_masks(np.random.default_rng(seed), 1, (h, w))[0],
    SEEDS,
    st.integers(1, 90),
    st.integers(1, 90),
)


@given(MASKS)
def test_strings_are_those_of_pycocotools(mask):
    code = encode_rle(mask)
    theirs = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
    assert code["counts"].encode() == theirs["counts"]
    assert code["size"] == theirs["size"]
    runs = decode_runs(RleBatch.of([theirs["counts"]], [mask.shape[0]], [mask.shape[1]]))
    assert runs.areas()[0] == coco_mask.area(theirs)
    x0, y0, x1, y1 = Shapes.of(runs).boxes[0].tolist()
    assert [x0, y0, x1 - x0, y1 - y0] == coco_mask.toBbox(theirs).tolist()


@given(MASKS)
def test_uncompressed_codes(mask):
    code = encode_rle(mask)
    flat = np.append(mask.T.reshape(-1), ~mask[-1, -1])
    lengths = np.diff(
        np.concatenate([[0], np.flatnonzero(np.diff(flat, prepend=False)), [mask.size]])
    ).tolist()
    plain = {"size": code["size"], "counts": lengths[: -1 if lengths[-1] == 0 else None]}
    assert rle_string(plain) == (code["counts"].encode(), *code["size"])
    assert (decode_rle(plain) == mask).all()
    assert (decode_rle({"size": code["size"], "counts": code["counts"].encode()}) == mask).all()


@given(
    st.lists(
        st.lists(st.one_of(st.integers(0, 40), st.integers(0, 2**33)), max_size=12), max_size=5
    )
)
@example([[3], [], [0, 7, 0, 0, 2], [5, 0, 0, 0]])
def test_any_lengths_survive_the_string(lists):
    """Several strings in one batch, with zero lengths: the runs are those of the plain definition."""
    tall = 1 << 20
    lists = [[*lengths, -sum(lengths) % tall] for lengths in lists]
    lengths = np.array([v for one in lists for v in one], np.int64)
    offsets = np.cumsum([0, *map(len, lists)])
    data, places = encode_lengths(lengths, offsets)
    sizes = np.array([sum(one) // tall for one in lists], np.int64)
    runs = decode_runs(RleBatch(data, places, np.full(len(lists), tall), sizes))
    for n, one in enumerate(lists):
        want: list[list[int]] = []
        ends = np.cumsum(one).tolist()
        for length, end in list(zip(one, ends, strict=True))[1::2]:
            if length and want and want[-1][1] == end - length:
                want[-1][1] = end
            elif length:
                want.append([end - length, end])
        part = slice(runs.offsets[n], runs.offsets[n + 1])
        assert np.stack([runs.starts[part], runs.ends[part]], 1).tolist() == want


def test_empty_strings():
    runs = decode_runs(RleBatch.of([b"", b"12", b""], [0, 3, 4], [5, 1, 0]))
    assert runs.offsets.tolist() == [0, 0, 1, 1] and runs.areas().tolist() == [0, 2, 0]
    with pytest.raises(RleError, match="empty") as caught:
        decode_runs(RleBatch.of([b"12", b""], [3, 1], [1, 1]))
    assert caught.value.index == 1
    with pytest.raises(RleError, match="negative") as caught:
        decode_runs(RleBatch.of([b"", b"12", b"oN"], [0, 3, 3], [5, 1, 1]))
    assert caught.value.index == 2
    with pytest.raises(RleError, match="image size"):
        decode_runs(RleBatch.of([b"12"], [-3], [-1]))


def test_zero_length_runs_are_joined():
    runs = decode_runs(_batch_of_lengths([2, 3, 0, 4, 1, 0, 2], 3, 4))
    assert runs.starts.tolist() == [2] and runs.ends.tolist() == [9]
    assert decode_rle({"size": [3, 4], "counts": [2, 3, 0, 4, 1, 0, 2]}).sum() == 7


def _batch_of_lengths(lengths, height, width):
    data, _ = encode_lengths(np.array(lengths, np.int64), np.array([0, len(lengths)]))
    return RleBatch.of([data.tobytes()], [height], [width])


def test_batch_selection():
    masks = random_masks(np.random.default_rng(1), 9, (20, 30))
    batch = RleBatch.of([encode_rle(m)["counts"].encode() for m in masks], [20] * 9, [30] * 9)
    for index in ([3, 4, 5], [8, 0, 0, 2], []):
        part = batch.take(np.array(index, np.int64))
        assert [part.string(i) for i in range(len(part))] == [batch.string(i) for i in index]
        assert decode_runs(part).areas().tolist() == [int(masks[i].sum()) for i in index]
    joined = RleBatch.concat([batch.take(np.array([7])), batch])
    assert decode_runs(joined).areas()[0] == masks[7].sum()
    assert isinstance(decode_runs(RleBatch.concat([])), Runs)


@settings(max_examples=800)
@given(st.binary(max_size=300), st.integers(0, 60), st.integers(0, 60))
@example(b"", 4, 4)
@example(b"\xff" * 9, 4, 4)
@example(b"oooooooooooo", 4, 4)
@example(b"P" * 40, 2, 2)
@example(b"`0", 4, 4)
def test_any_bytes_decode_or_raise(data, height, width):
    _decode(RleBatch.of([data], [height], [width]))


@settings(max_examples=800)
@given(
    st.text(alphabet=[chr(c) for c in range(48, 112)], max_size=200),
    st.integers(0, 99),
    st.integers(0, 99),
)
def test_any_code_letters_decode_or_raise(text, height, width):
    _decode(RleBatch.of([text.encode()], [height], [width]))


def _decode(batch):
    try:
        runs = decode_runs(batch)
    except RleError as error:
        assert error.reason and 0 <= error.index < len(batch)
        return 0
    sizes = batch.heights * batch.widths
    assert (
        (runs.starts >= 0).all()
        and (runs.ends <= sizes[runs.owner()]).all()
        and (runs.starts < runs.ends).all()
    )
    return len(batch)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_broken_good_codes(seed):
    """A valid code with one byte changed, cut or put in, many thousand times."""
    rng = np.random.default_rng(seed)
    mask = random_masks(rng, 1, (40, 50))[0]
    good = encode_rle(mask)["counts"].encode()
    for _ in range(300):
        data = bytearray(good)
        at = int(rng.integers(0, max(1, len(data))))
        if rng.random() < 0.4 and data:
            data[at % len(data)] = int(rng.integers(0, 256))
        elif rng.random() < 0.5:
            del data[at:]
        else:
            data.insert(at, int(rng.integers(40, 120)))
        _decode(RleBatch.of([bytes(data)], [40], [50]))


def test_millions_of_bytes_of_noise():
    rng = np.random.default_rng(0)
    good = 0
    for letters in (256, 64):
        noise = rng.integers(0, letters, 3_000_000, np.uint8) + (48 if letters == 64 else 0)
        for piece in np.array_split(noise.astype(np.uint8), 400):
            good += _decode(RleBatch.of([piece.tobytes()], [480], [640]))
    assert good == 0


def test_the_wrong_one_of_many_is_named():
    good = encode_rle(np.eye(7, dtype=bool))["counts"].encode()
    for bad, reason in [
        (b"\x07", "not of the code"),
        (good[:-1] + b"o", "cut off"),
        (good + b"1", "add up"),
        (b"", "add up"),
        (b"PPPPPPPP1", "longer than any image"),
        (b"oN", "negative"),
    ]:
        with pytest.raises(RleError, match=reason) as caught:
            decode_runs(RleBatch.of([good, good, bad, good], [7] * 4, [7] * 4))
        assert caught.value.index == 2


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ({"size": [2, -1], "counts": "04"}, "size"),
        ({"size": [2, 2.5], "counts": "04"}, "size"),
        ({"size": [2, 2]}, "counts"),
        ({"size": [2, 2], "counts": [1, -1, 4]}, "not negative"),
        ({"size": [2, 2], "counts": [1, 2**70]}, "not negative"),
        ({"size": [2, 2], "counts": [1, 1]}, "add up"),
        ({"size": [2, 2], "counts": [1, 1, True, 1]}, "not negative"),
        ({"size": [2, 2], "counts": "ä"}, "ASCII"),
        ([[0, 0, 1]], "three points"),
        ([[0, 0, 1, 1, float("nan"), 2]], "not a number"),
        ([[0, 0, 1, 1, 1e300, 2]], "far outside"),
        ([["a", 0, 1, 1, 2, 2]], "numbers"),
        ([[[0, 0], [1, 1], [2, 2]]], "flat"),
        ([], "three points"),
        (None, "no `segmentation`: masks are wanted"),
        ({"size": [3, 2], "counts": [6]}, "its image is 2 x 2"),
    ],
)
def test_bad_segmentations(code, reason):
    with pytest.raises(RleError, match=reason):
        segmentation_string(code, 2, 2)


def test_polygons_as_pycocotools_draws_them():
    two = [[0, 0, 5, 0, 5, 5, 0, 5], [10, 10, 28, 11, 19, 25.5]]
    shapes = [[[1.5, 1, 20.2, 3, 15, 18.7]], two, [[-4, -3, 40, 8, 9, 60]]]
    for polygons in shapes:
        parts = coco_mask.frPyObjects(polygons, 30, 25)
        assert polygons_to_rle(polygons, 30, 25) == coco_mask.merge(parts)["counts"]
