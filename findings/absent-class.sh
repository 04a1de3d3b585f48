#!/usr/bin/env bash
# torchmetrics 1.9.0, kornia 0.9.0: a class that occurs neither in prediction nor in ground truth has five different scores.
# Guess: NaN from all, or left out; at least the same answer inside one package.
# What happens: torchmetrics: MeanIoU -1, DiceScore NaN, GeneralizedDiceScore 0, JaccardIndex 0. kornia: mean_iou 1.
# Seen: scores of classes 2 and 3, which occur nowhere: -1, nan, 0, 0 (torchmetrics), 1 (kornia); class 1: 0.75 where it is an IoU
# Hurts: per-class tables and macro means: kornia lifts the mean towards 1, an average over torchmetrics' -1 can be negative.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 torch==2.13.0 packaging==26.3 lightning-utilities==0.15.3
install --no-deps torchmetrics==1.9.0 kornia==0.9.0 kornia-rs==0.2.0
python - <<'PY'
import kornia
import torch
import torchmetrics
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import DiceScore, GeneralizedDiceScore, MeanIoU

truth = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]])
predicted = torch.tensor([[[0, 0, 1, 0], [0, 0, 1, 1]]])
options = {"num_classes": 4, "input_format": "index"}
scores = {
    "MeanIoU": MeanIoU(**options, per_class=True)(predicted, truth),
    "DiceScore": DiceScore(**options, average="none")(predicted, truth),
    "GeneralizedDiceScore": GeneralizedDiceScore(**options, per_class=True)(predicted, truth),
    "JaccardIndex": MulticlassJaccardIndex(4, average="none")(predicted, truth),
    "kornia mean_iou": kornia.metrics.mean_iou(predicted.flatten(1), truth.flatten(1), num_classes=4),
}
absent = {name: str(score.flatten()[2:].tolist()) for name, score in scores.items()}
print(f"seen now: torchmetrics {torchmetrics.__version__}, kornia {kornia.__version__}: absent classes: {absent}")
expected = ["[-1.0, -1.0]", "[nan, nan]", "[0.0, 0.0]", "[0.0, 0.0]", "[1.0, 1.0]"]
assert list(absent.values()) == expected, "the behaviour changed"
PY
