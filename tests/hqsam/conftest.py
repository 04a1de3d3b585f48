import os

# Before torch is imported anywhere: its thread pool reads this once.
os.environ.setdefault("OMP_NUM_THREADS", "1")


import pytest
import torch

from hqsam.model.backbones import bundled_weights
from hqsam.model.build import build_model
from hqsam.model.hq_sam import HQSam
from hqsam.model.options import ModelOptions
from tests.hqsam.models import randomise, small_model


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model() -> HQSam:
    return small_model()


@pytest.fixture(scope="session")
def nano() -> HQSam:
    """The pretrained miniature with random HQ weights: well conditioned, unlike an all-random model."""
    weights = bundled_weights("nano")
    assert weights is not None
    model = build_model(ModelOptions(backbone="nano", checkpoint=weights)).eval()
    randomise(model.head, 0)
    return model
