"""Pretrain the `nano` base: SAM's own classes, promptable, on training families with deliberately coarse masks.

    python scripts/pretrain_nano.py --work FOLDER [--steps N] [--out
    hqsam/model/backbones/nano.safetensors]

Losses: soft binary cross-entropy and Dice on the single mask and on the best of the three masks,
squared error of the predicted IoUs, and reconstruction of the pixels from the early feature and
from the image embedding (SAM's ViT was MAE-pretrained: its early features know the pixels, and the
HQ head needs them). AdamW, warm-up, constant rate, linear decay; exponential moving average of the
weights. Resumes from FOLDER/last.pt.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from nano_data import Cache, Step, make_step, render_cache
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from hqsam.model.backbones import load
from hqsam.model.hq_decoder import Prompts, run_transformer, sam_masks


@dataclass(frozen=True)
class Options:
    """Command line of the script."""

    work: Path
    out: Path | None
    steps: int
    decay_from: float
    batch: int
    scenes: int
    lr: float
    seed: int
    ema: float
    export_every: int
    threads: int


class Pretraining(nn.Module):
    """The SAM to be trained and two throw-away pixel decoders."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = load("nano")
        self.sam = self.backbone.build()
        nn.init.trunc_normal_(self.sam.image_encoder.pos_embed, std=0.02)
        pixels = 3 * (self.backbone.image_size // self.backbone.embedding_size) ** 2
        self.early_pixels = nn.Linear(self.backbone.vit_dim, pixels)
        self.final_pixels = nn.Linear(self.backbone.decoder_dim, pixels)

    def encode(self, images_B3SS: Tensor) -> tuple[Tensor, Tensor]:
        """Final and early feature, [B,C,16,16] and [B,16,16,V]."""
        taps: list[Tensor] = []
        hook = self.sam.image_encoder.get_submodule(self.backbone.early).register_forward_hook(
            lambda _m, _i, output: taps.append(output)
        )
        final = self.sam.image_encoder(images_B3SS)
        hook.remove()
        return final, taps[0]

    def decode(
        self, final: Tensor, *, points: Any = None, boxes: Any = None, masks: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Logits [P,4,64,64] and predicted IoUs [P,4] of all four mask tokens, one prompt per image."""
        sparse, dense = self.sam.prompt_encoder(points=points, boxes=boxes, masks=masks)
        decoder = self.sam.mask_decoder
        output = run_transformer(
            decoder,
            image_BCHW=final,
            pe_1CHW=self.sam.prompt_encoder.get_dense_pe(),
            prompts=Prompts(sparse, dense),
        )
        one, three = (sam_masks(decoder, output, multimask=m) for m in (False, True))
        return torch.cat([one.logits_PKhw, three.logits_PKhw], 1).float(), torch.cat(
            [one.iou_PK, three.iou_PK], 1
        ).float()


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Soft BCE plus Dice per mask: logits [P,K,h,w], target [P,h,w] -> [P,K].

    Half of the BCE's weight lies on the region around the object, so that small objects count.
    """
    target = target[:, None].expand_as(logits)
    bce = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    near = (functional.max_pool2d(target, 9, 1, 4) > 0.5).float()
    local = (bce * near).sum((2, 3)) / near.sum((2, 3)).clamp(min=1)
    p = logits.sigmoid()
    dice = 1 - (2 * (p * target).sum((2, 3)) + 1) / (p.sum((2, 3)) + target.sum((2, 3)) + 1)
    return bce.mean((2, 3)) + local + 0.5 * dice


def prompt_loss(logits: Tensor, iou: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Single mask, best of three, and the IoU head; also the single mask's IoU with the coarse target."""
    per_mask = mask_loss(logits, target)
    with torch.no_grad():
        hard, goal = logits > 0, (target > 0.5)[:, None]
        true_iou = (hard & goal).sum((2, 3)) / (hard | goal).sum((2, 3)).clamp(min=1)
    loss = (
        per_mask[:, 0].mean()
        + per_mask[:, 1:].min(1).values.mean()
        + functional.mse_loss(iou, true_iou.float())
    )
    return loss, true_iou[:, 0].float().mean()


def patches(images: Tensor, side: int) -> Tensor:
    """[B,3,S,S] to [B,S/side,S/side,3*side*side]."""
    b, c, s, _ = images.shape
    x = images.view(b, c, s // side, side, s // side, side)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3)


def losses(model: Pretraining, step: Step) -> dict[str, Tensor]:
    """All losses of a step."""
    raw = torch.from_numpy(step.images).permute(0, 3, 1, 2).float()
    images = model.sam.preprocess(raw)
    t = {k: torch.from_numpy(v) for k, v in vars(step).items()}
    with torch.autocast("cpu", torch.bfloat16):
        final, early = model.encode(images)
        half = len(t["points"])
        by_box = model.decode(final, boxes=t["boxes"])
        by_point = model.decode(final[:half], points=(t["points"], t["labels"]))
        quarter = len(t["mask_boxes"]) // 2  # half of the mask prompts come with a box
        rest = final[half:]
        by_mask = model.decode(rest[:quarter], masks=t["mask_prompts"][:quarter, None])
        by_both = model.decode(
            rest[quarter:], masks=t["mask_prompts"][quarter:, None], boxes=t["mask_boxes"][quarter:]
        )
        pixels = patches(images, 8)
        early_error = (model.early_pixels(early).float() - pixels).square().mean()
        final_error = (
            (model.final_pixels(final.permute(0, 2, 3, 1)).float() - pixels).square().mean()
        )
    box, box_iou = prompt_loss(*by_box, t["box_targets"])
    point, point_iou = prompt_loss(*by_point, t["point_targets"])
    mask, mask_iou = prompt_loss(*by_mask, t["mask_targets"][:quarter])
    both, _ = prompt_loss(*by_both, t["mask_targets"][quarter:])
    total = box + 0.5 * point + 0.25 * mask + 0.25 * both + early_error + 0.5 * final_error
    return {
        "loss": total,
        "box": box,
        "point": point,
        "mask": mask,
        "early": early_error,
        "final": final_error,
        "box_iou": box_iou,
        "point_iou": point_iou,
        "mask_iou": mask_iou,
    }


def rate(step: int, options: Options) -> float:
    """Learning rate: 150 steps of warm-up, constant, then linear to 2 % of it."""
    start = int(options.decay_from * options.steps)
    if step < 150:
        return options.lr * (step + 1) / 150
    if step < start:
        return options.lr
    return options.lr * max(0.02, 1 - (step - start) / max(1, options.steps - start))


def export(state: dict[str, Tensor], path: Path) -> None:
    """SAM's weights as float16 safetensors."""
    half = {
        k.removeprefix("sam."): v.half().contiguous()
        for k, v in sorted(state.items())
        if k.startswith("sam.")
    }
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(half, temporary)
    temporary.chmod(0o644)
    temporary.replace(path)


def optimiser(model: Pretraining, options: Options) -> torch.optim.AdamW:
    """AdamW; no decay on biases, norms, embeddings and position tables."""
    decay = [
        p
        for n, p in model.named_parameters()
        if p.ndim >= 2 and "embed" not in n and "rel_pos" not in n
    ]
    kept = {id(p) for p in decay}
    rest = [p for p in model.parameters() if id(p) not in kept]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.98))


def train(options: Options, cache: Cache) -> None:
    """The loop: step, moving average, curve, checkpoint."""
    torch.manual_seed(options.seed)
    model = Pretraining().train()
    adam = optimiser(model, options)
    average = {k: v.clone() for k, v in model.state_dict().items()}
    first, spent, last = 0, 0.0, options.work / "last.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        average, first, spent = state["average"], state["step"], state["seconds"]
    start, curve = time.monotonic() - spent, options.work / "curve.csv"
    recent: list[dict[str, float]] = []
    for step in range(first, options.steps):
        for group in adam.param_groups:
            group["lr"] = rate(step, options)
        parts = losses(model, make_step(cache, seed=options.seed, step=step, batch=options.batch))
        adam.zero_grad(set_to_none=True)
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        weight = min(options.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for k, v in model.state_dict().items():
                average[k].lerp_(v, 1 - weight) if v.is_floating_point() else average[k].copy_(v)
        recent.append({k: float(v.detach()) for k, v in parts.items()})
        done = step + 1
        if done % 25 == 0:
            log(curve, done, rate(step, options), recent, time.monotonic() - start)
            recent = []
        if done % options.export_every == 0 or done == options.steps:
            seconds = time.monotonic() - start
            state = {
                "model": model.state_dict(),
                "adam": adam.state_dict(),
                "average": average,
                "step": done,
                "seconds": seconds,
            }
            torch.save(state, last.with_suffix(".tmp"))
            last.with_suffix(".tmp").replace(last)
            export(average, options.work / f"nano-{done:05d}.safetensors")
    if options.out:
        export(average, options.out)


def log(curve: Path, step: int, lr: float, recent: list[dict[str, float]], seconds: float) -> None:
    """Append the mean of the recent steps to the curve."""
    row = {"step": step, "lr": f"{lr:.2e}", "seconds": f"{seconds:.0f}"}
    row |= {k: f"{np.mean([r[k] for r in recent]):.4f}" for k in recent[0]}
    new = not curve.exists()
    with curve.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(" ".join(f"{k} {v}" for k, v in row.items()), flush=True)


def parse() -> Options:
    """Command line to options."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--work", type=Path, required=True, help="scene cache, checkpoints, curve.csv")
    p.add_argument("--out", type=Path, default=None, help="final weights, float16 safetensors")
    p.add_argument("--steps", type=int, default=2400)
    p.add_argument(
        "--decay-from", type=float, default=0.625, help="share of the steps at constant rate"
    )
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--scenes", type=int, default=6000)
    p.add_argument("--lr", type=float, default=8e-4)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--ema", type=float, default=0.995)
    p.add_argument("--export-every", type=int, default=200)
    p.add_argument("--threads", type=int, default=1)
    return Options(**vars(p.parse_args()))


def main() -> None:
    """Render (once), train, export."""
    options = parse()
    cv2.setNumThreads(1)
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    train(options, render_cache(options.work, n=options.scenes, seed=options.seed))


if __name__ == "__main__":
    main()
