"""How far a predicted IoU can be believed: predicted against real IoU, bin by bin."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10


def reliability(predicted: NDArray[np.float64], real: NDArray[np.float64]) -> dict[str, Any]:
    """Compares the IoU that a model predicts for its masks with the IoU that they have.

    Args:
        predicted: float64 [n]; a model's estimate may leave 0 to 1, its bin is then the nearest.
        real: float64 [n], 0 to 1. Masks where either is undefined are left out.

    Returns:
        ``{"n", "error", "bins": [{"n", "predicted", "real"}]}``: bins of equal width that hold a
        mask, with the means of both; ``error``: the expected calibration error (Naeini et al.,
        AAAI 2015), the mean distance of the two means, weighted by the masks of each bin; None
        without any.
    """
    known = np.isfinite(predicted) & np.isfinite(real)
    predicted, real = predicted[known], real[known]
    place = np.clip((predicted * BINS).astype(np.int64), 0, BINS - 1)
    bins = [
        {
            "n": int((place == b).sum()),
            "predicted": float(predicted[place == b].mean()),
            "real": float(real[place == b].mean()),
        }
        for b in np.unique(place)
    ]
    n = len(predicted)
    error = sum(b["n"] * abs(b["predicted"] - b["real"]) for b in bins) / n if n else None
    return {"n": n, "error": error, "bins": bins}
