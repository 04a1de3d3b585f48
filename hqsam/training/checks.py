"""What must fit together before a training begins: a message for a person while nothing is lost yet."""

from __future__ import annotations

import os

import torch
from torch import nn

from hqsam.model import variants
from hqsam.model.hq_sam import HQSam
from hqsam.model.options import ModelOptions
from hqsam.training.loader import Item, TrainingSet
from hqsam.training.options import TrainOptions
from hqsam_base.errors import UserError


def check_samples(data: TrainingSet) -> None:
    """There must be something to train on.

    Raises:
        UserError: there is not.
    """
    if not len(data):
        raise UserError(
            "the training shards hold no sample",
            file=data.shards / "index.json",
            cure="look at data/samples/*/rejects.jsonl and data/overlap/exclusions.jsonl",
        )


def check_size(data: TrainingSet, net: HQSam) -> None:
    """The plan's views and mask prompts must have the sizes that this backbone takes.

    Raises:
        UserError: they have not.
    """
    view = data.view(Item(0, 0))
    found, wanted = (
        (view.image.shape[0], data.mask_input_size),
        (net.backbone.image_size, net.backbone.mask_size),
    )
    if found != wanted:
        raise UserError(
            f"the plan is for views of {found[0]} and mask prompts of {found[1]} pixels, backbone "
            f"{net.backbone.name} "
            f"takes {wanted[0]} and {wanted[1]}",
            file=data.prompts / "index.json",
            key=view.key,
            cure="set augment.image_size and augment.mask_input_size to the backbone's and run "
            "the augment stage again",
        )


def check_processes(n_items: int, options: TrainOptions, processes: int) -> None:
    """Each process needs a view per step, and all the same number of them.

    Args:
        n_items: views of an epoch.
        options: the `train` section.
        processes: how many.

    Raises:
        UserError: there are too few views, or the batch cannot be shared evenly.
    """
    if n_items < processes:
        raise UserError(
            f"{n_items} training views for {processes} processes",
            key="train.processes",
            cure="start fewer processes",
        )
    if options.batch_size % processes:
        raise UserError(
            f"a batch of {options.batch_size} views cannot be shared evenly by {processes} "
            f"processes",
            key="train.batch_size",
            cure="make it a multiple of the number of processes",
        )


def check_held_out(n_samples: int, n_held_out: int, options: TrainOptions) -> None:
    """The held-out slice must leave something to train on, and there must be one to find the best epoch with.

    Raises:
        UserError: it does not, or there is none.
    """
    if not n_samples:
        raise UserError(
            f"all {n_held_out} samples are held out: none is left to train on",
            key="train.holdout",
            cure="make train.holdout or train.holdout_most smaller",
        )
    if options.best and not n_held_out:
        raise UserError(
            "no sample is held out, so no epoch can be called the best",
            key="train.best",
            cure="make train.holdout and train.holdout_most larger, or set train.best to false",
        )


def check_given(net: HQSam, model: ModelOptions, options: TrainOptions) -> None:
    """Without an epoch, the HQ parameters must come with the checkpoint, and no epoch can be the best.

    Raises:
        UserError: they do not, or there is to be a best epoch.
    """
    if options.best:
        raise UserError(
            "with 0 epochs none can be the best", key="train.best", cure="set train.best to false"
        )
    if not net.head_loaded:
        cure = (
            "give an HQ-SAM checkpoint (sam_hq_vit_l.pth, or what hqsam checkpoint convert "
            "makes), or train"
        )
        if model.variant != variants.DEFAULT:
            cure = (
                f"set the model's variant to {variants.DEFAULT}, the only one that checkpoints "
                f"hold, or train"
            )
        raise UserError(
            f"with 0 epochs the HQ parameters in the checkpoint are evaluated as they are, and it "
            f"has none for the variant "
            f"{model.variant}",
            file=model.checkpoint,
            key="train.epochs",
            cure=cure,
        )


def check_nodes(options: TrainOptions, processes: int) -> None:
    """Cached features lie in memory-mapped files, which the page caches of several machines do not keep alike.

    Raises:
        UserError: they are asked for by processes on several machines.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if options.feed == "cached" and here < processes:
        raise UserError(
            f"{here} of the {processes} training processes are on this machine: cached features "
            f"can only be shared on one",
            key="train.feed",
            cure="set it to online, or train on one machine",
        )


def check_variant(net: HQSam, options: TrainOptions) -> None:
    """What the options ask for must be possible with this variant.

    Raises:
        UserError: it is not.
    """
    if net.head.changes_encoder and options.feed == "cached":
        raise UserError(
            f"the variant {net.variant} changes the encoder, so its features cannot be cached",
            key="train.feed",
            cure="set feed: online (models.<name>.train of params.yaml is for one model)",
        )
    if options.merged and net.variant != "hq":
        raise UserError(
            f"the published formats have no place for the variant {net.variant}",
            key="train.merged",
            cure="set it to false",
        )


def compile_encoder(net: HQSam, options: TrainOptions, *, backend: str = "inductor") -> None:
    """With `compile: true`, compile the encoder block by block; similar blocks share their code.

    Raises:
        UserError: this machine cannot compile; tried on a product of two numbers, before the blocks
            are.
    """
    if not options.compile:
        return
    try:
        torch.compile(torch.mul, backend=backend)(torch.ones(2, device=net.device), 2.0)
    except Exception as error:
        reason = next(
            (line for line in reversed(str(error).splitlines()) if line.strip()),
            type(error).__name__,
        )
        raise UserError(
            f"torch.compile does not work here ({type(error).__name__}: {reason.strip()[:200]})",
            key="train.compile",
            cure="install what it needs (a C++ compiler for the CPU, triton for a GPU), or set it "
            "to false",
        ) from error
    blocks: nn.ModuleList | None = getattr(net.sam.image_encoder, "blocks", None)
    for module in [net.sam.image_encoder] if blocks is None else blocks:
        module.compile(backend=backend)
