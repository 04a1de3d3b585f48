"""One encoding of each image serves all models with one encoder: the same bytes, and nothing is encoded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hqsam.model import checkpoint
from hqsam.model.build import build_model
from hqsam.model.hq_sam import HQSam
from hqsam.prediction.benchmark import predict
from hqsam.prediction.options import PredictOptions
from tests.hqsam.test_predict import _quiet, shared  # noqa: F401  (the fixture of the predict stage's tests)

VARIANTS = ("hq", "fusion_mask", "lora_encoder")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images SAM's own encoder saw, call by call."""
    seen: list[int] = []
    before = HQSam.encode_sam

    def counted(self: HQSam, inputs: Any) -> Any:
        seen.append(len(inputs))
        return before(self, inputs)

    monkeypatch.setattr(HQSam, "encode_sam", counted)
    return seen


def _predict(
    given: Any, folder: Path, variant: str, encodings: Path | None, **options: Any
) -> dict[str, bytes]:
    model = given["model"].model_copy(update={"variant": variant})
    head = folder / variant
    if not head.exists():
        built = build_model(model, seed=0)
        checkpoint.save_head(
            head / "hq_head.safetensors",
            built.head,
            metadata={"backbone": "nano", "variant": variant},
        )
    out = folder / f"{'shared' if encodings else 'alone'}-{variant}" / "toy-nano"
    predict(
        benchmark=given["benchmark"],
        model=model,
        head=head,
        options=PredictOptions(threads=1, batch_images=2, **options),
        out=out,
        progress=_quiet,
        encodings=encodings,
    )
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_other_heads_encode_nothing_and_write_the_same_bytes(shared, tmp_path, encoded) -> None:  # noqa: F811
    alone = {variant: _predict(shared, tmp_path, variant, None) for variant in VARIANTS}
    each = sum(encoded) // len(VARIANTS)
    assert each == 4, "the image without prompts is left out"
    encoded.clear()
    place = tmp_path / "encodings"
    for variant in VARIANTS:
        assert _predict(shared, tmp_path, variant, place) == alone[variant], variant
    assert sum(encoded) == each, "once for all of them; an encoder that a head tunes is its own"

    [folder] = place.iterdir()
    files = sorted(folder.iterdir())
    assert len(files) == 2
    files[0].write_bytes(b"damaged")
    encoded.clear()
    assert _predict(shared, tmp_path, "hq", place) == alone["hq"]
    assert sum(encoded) == 2, "what was damaged is encoded again"


def test_they_keep_to_their_room(shared, tmp_path, encoded) -> None:  # noqa: F811
    _predict(shared, tmp_path, "hq", tmp_path / "ample")
    size = next((tmp_path / "ample").rglob("*.safetensors")).stat().st_size
    room = 1.5 * size / 1e9  # for one of the two batches

    place = tmp_path / "encodings"
    stale = place / "another" / "x.safetensors"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(bytes(size))
    _predict(shared, tmp_path, "hq", place, encodings_gb=room)
    assert not stale.parent.exists()
    [folder] = place.iterdir()
    assert len(list(folder.iterdir())) == 1
    encoded.clear()
    _predict(shared, tmp_path, "fusion_mask", place, encodings_gb=room)
    assert sum(encoded) == 2, "half of the images are there"
    _predict(shared, tmp_path / "none", "hq", tmp_path / "other", encodings_gb=0)
    assert not (tmp_path / "other").exists()
