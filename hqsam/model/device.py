"""Which device a model computes on."""

from __future__ import annotations

from typing import Literal

import torch

from hqsam_base.errors import UserError


def pick_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device of that name; ``auto``: a GPU if there is one.

    Raises:
        UserError: ``cuda`` was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available", key="device", cure="use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
