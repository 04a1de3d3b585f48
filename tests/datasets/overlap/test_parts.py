"""The parts of the overlap search: tile geometry, the inverted file, outlines, verdicts, pictures."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from hqsam_datasets.embedded.scenes import EVAL_FAMILIES
from hqsam_datasets.overlap import gallery
from hqsam_datasets.overlap import tiles as overlap_tiles
from hqsam_datasets.overlap.candidates import Candidate, pdq_candidates, variant_image
from hqsam_datasets.overlap.hashing import hash_image
from hqsam_datasets.overlap.shapes import (
    Cutout,
    compare_outlines,
    complexity_of,
    is_same_object,
    shape_of,
)
from hqsam_datasets.overlap.tiles import TileTable, tile_candidates
from hqsam_datasets.overlap.verify import View, compare, judge, pixel_affine
from perf.data.overlap_recall import scene

SCENES = [scene((41, i), EVAL_FAMILIES)[:2] for i in range(12)]


def tiles_of(images: list[np.ndarray]) -> TileTable:
    sizes = np.array([image.shape[:2] for image in images])
    return TileTable.of(
        [hash_image(np.ascontiguousarray(i)).tiles for i in images], sizes[:, 0], sizes[:, 1]
    )


def candidates(train: TileTable, other: TileTable, min_tiles: int = 3) -> list[Candidate]:
    return [c for _, batch in tile_candidates(train, other, min_tiles=min_tiles) for c in batch]


def crop(image: np.ndarray, top: float, left: float, side: float) -> np.ndarray:
    height, width = image.shape[:2]
    y, x = round(top * height), round(left * width)
    return image[y : y + round(side * height), x : x + round(side * width)]


def test_tile_candidates_give_the_geometry() -> None:
    images = [image for image, _ in SCENES]
    crops = [variant_image(crop(image, 0.2, 0.1, 0.7), i % 8) for i, image in enumerate(images)]
    found = {(c.train, c.other): c for c in candidates(tiles_of(crops), tiles_of(images))}
    assert sum((i, i) in found for i in range(len(images))) >= len(images) - 1
    undo = {5: 6, 6: 5}
    for i, image in enumerate(images):
        if (i, i) in found:
            candidate = found[i, i]
            assert candidate.variant == undo.get(i % 8, i % 8)
            assert candidate.transform is not None
            scale, _, x, y = candidate.transform
            longest = max(image.shape)
            assert scale == pytest.approx(0.7, rel=0.1)
            assert x * longest / 256 == pytest.approx(0.1 * image.shape[1], abs=0.05 * longest)
            assert y * longest / 256 == pytest.approx(0.2 * image.shape[0], abs=0.05 * longest)


def test_the_inverted_file_finds_what_exhaustive_search_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [image for image, _ in SCENES] * 2
    rng = np.random.default_rng(0)
    noisy = [np.clip(i + rng.normal(0, 6, i.shape), 0, 255).astype(np.uint8) for i in images[:12]]
    train, other = tiles_of(noisy), tiles_of(images)
    inverted = {(c.train, c.other) for c in candidates(train, other, 8)}
    monkeypatch.setattr(overlap_tiles, "_FLAT_UP_TO", 10**9)
    exhaustive = {(c.train, c.other) for c in candidates(train, other, 8)}
    assert {(i, i) for i in range(12)} <= exhaustive
    assert exhaustive <= inverted | set()


def test_tiles_of_images_without_features() -> None:
    flat = np.full((90, 120, 3), 77, np.uint8)
    assert candidates(tiles_of([flat]), tiles_of([SCENES[0][0]])) == []
    assert candidates(tiles_of([SCENES[0][0]]), tiles_of([flat])) == []


def test_pdq_candidates_are_exhaustive() -> None:
    rng = np.random.default_rng(1)
    train, other = (rng.integers(0, 256, (60, 32), np.uint8) for _ in range(2))
    other[5] = train[7] ^ np.frombuffer(bytes([1, 128] + 30 * [0]), np.uint8)
    train[9] = train[8]
    close = {(c.train, c.other): c.hamming for c in pdq_candidates(train, other, radius=2)}
    assert close == {(7, 5): 2}
    assert pdq_candidates(train, other, radius=1) == []
    twins = pdq_candidates(train, train, radius=0, same=True)
    assert [(c.train, c.other, c.variant) for c in twins] == [(8, 9, 0)]
    wide = pdq_candidates(train, other, radius=96)
    plain = np.unpackbits(train[:, None] ^ other[None], axis=2).sum(2)
    assert {(int(i), int(j)) for i, j in np.argwhere(plain <= 96)} <= {
        (c.train, c.other) for c in wide
    }


def test_unrelated_pictures_prove_nothing_even_when_told_they_match() -> None:
    for (image, mask), (other, _) in itertools.pairwise(SCENES):
        for variant in (0, 5):
            evidence = compare(
                View.of(image, mask), View.of(other), Candidate(0, 0, variant, "pdq", hamming=0)
            )
            assert evidence is None or judge(evidence) is None


def test_a_straight_edge_in_common_is_no_overlap() -> None:
    rng = np.random.default_rng(2)
    halves = []
    for _ in range(2):
        image = np.full((200, 300, 3), 60, np.uint8)
        image[80:] = 190
        halves.append(np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8))
    evidence = compare(View.of(halves[0]), View.of(halves[1]), Candidate(0, 0, 0, "pdq", hamming=0))
    assert evidence is None or judge(evidence) is None


def test_pixel_affine_undoes_every_variant() -> None:
    image, mask = SCENES[0]
    for variant in range(8):
        copy = variant_image(image, variant)
        back = {5: 6, 6: 5}.get(variant, variant)
        candidate = Candidate(0, 0, back, "pdq", hamming=0)
        evidence = compare(View.of(copy, variant_image(mask, variant)), View.of(image), candidate)
        assert evidence is not None
        assert judge(evidence) == "near"
        affine = pixel_affine(evidence, back, copy.shape, image.shape)
        marks = np.zeros(image.shape[:2])
        marks[50, 70] = 1
        (y, x), *_ = np.argwhere(variant_image(marks, variant))
        assert np.allclose(affine @ [x, y, 1], [70, 50], atol=0.6)


def star(n: int, size: int = 160, turn: float = 0.3) -> np.ndarray:
    """A star with n thin rays."""
    mask = np.zeros((size, size), np.uint8)
    for k in range(n):
        angle = 2 * np.pi * k / n + turn
        end = (
            round(size / 2 * (1 + 0.9 * np.cos(angle))),
            round(size / 2 * (1 + 0.9 * np.sin(angle))),
        )
        cv2.line(mask, (size // 2, size // 2), end, 255, 5)
    return mask > 0


def painted(mask: np.ndarray, background: np.ndarray, colour: tuple[int, int, int]) -> Cutout:
    image = cv2.resize(background, mask.shape[::-1])
    image[mask] = colour
    return Cutout(image, mask)


def test_outlines_prove_the_same_object_whatever_lies_behind() -> None:
    mask = star(9)
    small = (
        cv2.resize(mask.astype(np.uint8), None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA) > 0
    )
    mirrored = np.ascontiguousarray(np.pad(small, ((5, 0), (0, 9)))[:, ::-1])
    first = painted(mask, SCENES[0][0], (200, 40, 40))
    second = painted(mirrored, SCENES[1][0], (190, 50, 45))
    evidence = compare_outlines(first, second, Candidate(0, 0, 1, "mask"))
    assert evidence is not None
    assert evidence.outline > 0.9
    assert is_same_object(evidence)
    other = painted(star(8), SCENES[1][0], (200, 40, 40))
    evidence = compare_outlines(first, other, Candidate(0, 0, 0, "mask"))
    assert evidence is not None
    assert not is_same_object(evidence)


def test_simple_outlines_prove_nothing_alone() -> None:
    disc = np.zeros((120, 120), np.uint8)
    cv2.circle(disc, (60, 60), 50, 255, -1)
    assert complexity_of(disc > 0) < 2
    assert complexity_of(star(9)) > 5
    cutouts = [
        painted(disc > 0, SCENES[i][0], colour)
        for i, colour in enumerate([(200, 40, 40), (60, 80, 200)])
    ]
    evidence = compare_outlines(*cutouts, Candidate(0, 0, 0, "mask"))
    assert evidence is not None
    assert evidence.outline > 0.95
    assert not is_same_object(evidence)


def grid(step: int, size: int = 160) -> np.ndarray:
    """A net of lines `step` apart."""
    mask = np.zeros((size, size), np.bool_)
    for start in range(0, size - 3, step):
        mask[start : start + 3] = True
        mask[:, start : start + 3] = True
    return mask


def test_outlines_of_two_nets_agree_by_chance_only() -> None:
    """Wherever two dense nets are laid, most of one is near the other: that much is no agreement."""
    nets = [painted(grid(step), SCENES[0][0], (200, 40, 40)) for step in (10, 11)]
    other = compare_outlines(nets[0], nets[1], Candidate(0, 0, 0, "mask"))
    same = compare_outlines(
        nets[0], painted(grid(10), SCENES[1][0], (190, 50, 45)), Candidate(0, 0, 0, "mask")
    )
    assert other is not None and same is not None
    assert other.outline < 0.5 < 0.95 < same.outline
    assert not is_same_object(other) and is_same_object(same)


def test_outlines_of_nothing_and_of_everything() -> None:
    assert shape_of(np.zeros((50, 50), np.bool_)) is None
    assert shape_of(np.ones((50, 50), np.bool_)) is None
    speck = np.zeros((50, 50), np.bool_)
    speck[10:15, 10:15] = True
    assert shape_of(speck) is None


def test_gallery_takes_kinds_in_turn() -> None:
    kinds = ["near"] * 30 + ["crop"] * 2 + ["background"]
    rows = gallery.choose(kinds, 24)
    assert len(rows) == 24
    assert {30, 31, 32} <= set(rows)
    assert gallery.choose(kinds, 3) == [0, 30, 32]
    assert gallery.choose([], 3) == []


def test_pictures_are_png_of_bounded_size_with_the_same_bytes() -> None:
    def draw() -> bytes:
        wide = np.zeros((100, 2000, 3), np.uint8)
        affine = np.array([[1e6, 0, 0], [0, 1e6, 0]])
        region = np.ones((3, 5), np.bool_)
        return gallery.picture(SCENES[0][0], wide, affine=affine, region=region, lines=("a", "b"))

    data = draw()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert 200 < image.shape[0] < 320
    assert image.shape[1] < 1000
    assert data == draw()


def proofs(train: list[np.ndarray], other: list[np.ndarray]) -> dict[tuple[int, int], str]:
    """What the local features find and the pixels prove."""
    views, others = [View.of(image) for image in train], [View.of(image) for image in other]
    kinds: dict[tuple[int, int], str] = {}
    for c in candidates(tiles_of(train), tiles_of(other)):
        evidence = compare(views[c.train], others[c.other], c)
        kind = None if evidence is None else judge(evidence)
        if kind is not None:
            kinds[c.train, c.other] = kind
    return kinds


def test_an_evaluation_image_cut_from_a_training_image_is_found() -> None:
    images = [image for image, _ in SCENES]
    found = proofs(images, [np.ascontiguousarray(crop(image, 0.25, 0.1, 0.65)) for image in images])
    assert {pair for pair in found if pair[0] != pair[1]} == set()
    assert len(found) >= len(images) - 1
    assert sum(kind == "crop" for kind in found.values()) >= len(found) - 1


def test_disguises_on_top_of_each_other_are_seen_through() -> None:
    images = [image for image, _ in SCENES]
    disguised = []
    for image in images:
        part = np.ascontiguousarray(crop(image, 0.1, 0.15, 0.75)[:, ::-1])
        part = cv2.resize(part, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        darker = (grey * 0.8).astype(np.uint8)
        encoded = cv2.imencode(".jpg", darker, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        disguised.append(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    found = proofs(disguised, images)
    assert {pair for pair in found if pair[0] != pair[1]} == set()
    assert len(found) >= len(images) - 2
