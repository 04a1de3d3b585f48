"""Evaluation sets: one adapter file each, found by the ``kind`` of a section of ``params.yaml``."""

from __future__ import annotations

from typing import get_args

from hqsam_base.errors import UserError
from hqsam_base.seam import Seam
from hqsam_datasets.benchmarks.base import OWN_DATA, Benchmark, BenchmarkOptions, PromptSet
from hqsam_datasets.prompts.sets import GT_BOX, PREVIOUS, TRACKED, examples

_SEAM = Seam(
    package=__name__,
    what="benchmark",
    constant="BENCHMARK",
    kind=Benchmark,  # type: ignore[type-abstract]
    helpers=frozenset(
        {"base", "cocolike", "common", "detected", "own", "own_detected", "results", "ytvislike"}
    ),
)
names = _SEAM.names


def load(name: str) -> Benchmark:
    """The adapter ``benchmarks/<name>.py``.

    Raises:
        UserError: there is no such file; the message lists what exists.
    """
    if name not in names():
        raise UserError(
            f"unknown benchmark {name!r}; there are {', '.join(names())}",
            file="params.yaml",
            key=f"benchmarks.{name}",
            cure="correct the name or add datasets/hqsam_datasets/benchmarks/<name>.py",
        )
    return _SEAM.load(name)


def of_section(name: str, kind: str, options: BenchmarkOptions) -> Benchmark:
    """The evaluation set that ``benchmarks.<name>`` describes.

    Args:
        name: The section.
        kind: Its adapter: the set's own, or that of a kind of own data (``folder``, ...), which
            takes any name.
        options: Its ``index``.

    Raises:
        UserError: no such adapter, or a published set under another name or with keys that only own
            data have.
    """
    adapter = load(kind)
    bind = getattr(adapter, "of_section", None)
    if bind is not None:
        bound: Benchmark = bind(name, options)
        _check_prompt_sets(name, bound, options)
        return bound
    _check_prompt_sets(name, adapter, options)
    if name != kind:
        raise UserError(
            f"{kind} is a published set",
            file="params.yaml",
            key=f"benchmarks.{name}.kind",
            cure=f"call the section {kind}, or say folder, label_maps, coco_json or lvis_json for "
            f"data of your own",
        )
    for key in OWN_DATA:
        if getattr(options, key):
            raise UserError(
                "only own data have this key; this set's files are known",
                file="params.yaml",
                key=f"benchmarks.{name}.index.{key}",
                cure=f"remove {key}, or say `kind: folder` if these are files of your own",
            )
    if options.prompts is None:
        return adapter
    without_boxes = getattr(adapter, "without_boxes", None)
    if without_boxes is None:
        raise UserError(
            "no boxes of a detector can be made for this set",
            file="params.yaml",
            key=f"benchmarks.{name}.index.prompts",
            cure="remove prompts",
        )
    without: Benchmark = without_boxes()
    return without


_OF_KIND = {
    "coco": {"detector_box"},
    "lvis": {"detector_box"},
    "ytvis": {"tracker_box", PREVIOUS, TRACKED},
    "davis": {"tracker_box", PREVIOUS, TRACKED},
}
"""Prompt sets that are not made from the masks of any benchmark, by the kind of ground truth that can have them."""


def _check_prompt_sets(name: str, adapter: Benchmark, options: BenchmarkOptions) -> None:
    own = _OF_KIND.get(adapter.kind, set()) | set(getattr(adapter, "given_prompts", ()))
    own |= {"detector_box"} if options.prompts is not None else set()
    special = {PREVIOUS, TRACKED, *get_args(PromptSet)} - {GT_BOX}
    if wrong := sorted(special.intersection(options.prompt_sets) - own):
        raise UserError(
            f"{name} cannot have the prompts {', '.join(wrong)}",
            file="params.yaml",
            key=f"benchmarks.{name}.index.prompt_sets",
            cure=f"use {', '.join([*sorted(own), GT_BOX, *examples()])}",
        )
