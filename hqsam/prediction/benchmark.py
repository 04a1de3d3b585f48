"""The predict stage: the systems of a run on every prompt of a benchmark (docs/formats.md).

By default they are three from one image encoding: ``sam`` from SAM's own decoder, ``hq_token`` and
``hq_sum`` from HQ-SAM's. Parts are written as they are done, by one process or several
(`hqsam.prediction.parts`); a run that was killed goes on with what is missing if nothing that it
reads has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hqsam import systems
from hqsam.model import checkpoint
from hqsam.model.device import pick_device
from hqsam.model.options import ModelOptions
from hqsam.model.precision import choose
from hqsam.prediction import passes
from hqsam.prediction.on_nodes import INPUTS
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.part import ABOUT, Job
from hqsam.prediction.parts import HALVED, halved, write_parts
from hqsam_base import atomic
from hqsam_base.errors import UserError
from hqsam_base.locks import FileLock
from hqsam_base.progress import Progress
from hqsam_base.terminal import say

VERSION = 1
HEAD = "hq_head.safetensors"
Row = dict[str, Any]


def predict(
    *,
    benchmark: Path,
    model: ModelOptions | None,
    head: Path | None,
    options: PredictOptions,
    out: Path,
    progress: Progress,
    entries: tuple[systems.Entry, ...] = systems.DEFAULT,
    encodings: Path | None = None,
    figures: Callable[[Mapping[str, float]], None] = lambda _: None,
    lenient: bool = False,
    leases: Path | None = None,
) -> Row:
    """Predict every prompt of a benchmark with every system.

    Args:
        benchmark: Folder of the index stage.
        model: The frozen base; None: no entry is a system of the run's models.
        head: Folder of the train stage, or its ``hq_head.safetensors``; None without a model.
        options: Protocol and sizes.
        out: Folder to write, named ``<benchmark>-<model>``; it appears when it is complete. Until
            then its parts lie in the hidden sibling ``.<name>.partial``, where the next call finds
            them.
        progress: told how far the work is in images.
        entries: The systems of the run that are predicted for this model.
        encodings: Folder for the encoded images that models with the same encoder share
            (`hqsam.prediction.encodings`); None: encode for this model alone. Changes no byte.
        figures: told at the end how fast it was: images and prompts a second, and the share of time
            that the device waited (`Figures.rates`); not told where all parts were there.
        lenient: leave out a system that cannot be opened, and say why (``failed``); without it none
            is predicted then.
        leases: folder of the leases of GPUs (`hqsam.model.leases`), which other stages of the
            checkout take, too; None: every GPU is taken, whoever uses it.

    Returns:
        The content of ``predict.json``.

    Raises:
        UserError: An input is missing, damaged or does not fit; or another process predicts the
            same.
    """
    systems.check(entries)
    options = _resolved(options, entries)
    inputs = _check_inputs(benchmark, model, head, options, entries)
    with _partial_folder(out, inputs.fingerprint) as work, _threads(options.threads):
        with passes.BenchmarkImages(benchmark) as images:
            shared = _shared_folder(encodings, inputs, model, options)
            given = {e: kind for e in entries if isinstance(kind := _kind(e), systems.GivenKind)}
            # First: a file that does not fit is found out before anything is encoded.
            known = {e.name: kind.write(e, benchmark, work) for e, kind in given.items()}
            mine = tuple(e for e in entries if e not in given)
            context = systems.Context(model, inputs.head, options, shared)
            job = Job(benchmark, context, mine, lenient, leases)
            if mine:
                write_parts(job, images, work, what=out.name, progress=progress, told=figures)
            summary = _summary(inputs, images, job, work, out.name, entries, known)
        atomic.write_json(work / "predict.json", summary)
        for name in (INPUTS, ABOUT, HALVED):
            (work / name).unlink(missing_ok=True)
        shutil.rmtree(out, ignore_errors=True)
        work.replace(out)
    atomic.fsync_folder(out.parent)
    return summary


def _resolved(options: PredictOptions, entries: tuple[systems.Entry, ...]) -> PredictOptions:
    """The options with the precision that is used; what `auto` took is said, and in `predict.json`."""
    chosen, why = choose(options.precision, pick_device(options.device))
    if why:
        say(f"the image encoder computes in {chosen}: {why}")
    lacking = [entry for entry in entries if not _kind(entry).int8]
    if chosen == "int8" and lacking:
        raise UserError(
            f"a system of kind {lacking[0].options.kind} does not compute with 8-bit integers",
            key=f"systems.{lacking[0].name}",
            cure="predict it with precision: float32 or bfloat16",
        )
    return options.model_copy(update={"precision": chosen})


@dataclass(frozen=True)
class _Inputs:
    head: Path | None
    index: Row
    base_digest: str | None
    checkpoint_digest: str
    prompts_digest: str
    fingerprint: str


def _check_inputs(
    benchmark: Path,
    model: ModelOptions | None,
    head: Path | None,
    options: PredictOptions,
    entries: tuple[systems.Entry, ...],
) -> _Inputs:
    """Everything that can be missing is looked for before the first image is encoded."""
    index = atomic.read_json(benchmark / "index.json", cure="run `dvc repro index` first")
    head = head and (head / HEAD if head.is_dir() or head.suffix == "" else head)
    if head is not None and not head.is_file():
        raise UserError(
            "the trained HQ head does not exist", file=head, cure="run `dvc repro train` first"
        )
    prompts = benchmark / "prompts.parquet"
    if not prompts.is_file():
        raise UserError(
            "the table does not exist", file=prompts, cure="run `dvc repro index` first"
        )
    weights = [] if head is None else [checkpoint.sha256(head)]
    if model is not None and model.checkpoint is not None:
        weights.insert(0, checkpoint.sha256(model.checkpoint))
        checkpoint.check_published(model.checkpoint, weights[0])
    digests = {"weights": weights, "prompts": checkpoint.sha256(prompts)}
    seen = {
        **digests,
        "index": index,
        "model": model and model.model_dump(mode="json"),
        "options": options.model_dump(mode="json"),
        "code": _code_digest(),
    }
    if entries != systems.DEFAULT:
        seen["systems"] = {
            e.name: [
                e.options.model_dump(mode="json"),
                _kind(e).inputs(e),
            ]
            for e in entries
        }
    return _Inputs(
        head=head,
        index=index,
        base_digest=weights[0] if model is not None and model.checkpoint is not None else None,
        checkpoint_digest=hashlib.sha256("".join(weights).encode()).hexdigest(),
        prompts_digest=str(digests["prompts"]),
        fingerprint=hashlib.sha256(atomic.json_bytes(seen)).hexdigest(),
    )


def _code_digest() -> str:
    """Parts of a killed run are only worth keeping if the same code would write them again."""
    total = hashlib.sha256()
    for name in ("torch", "numpy", "segment-anything", "pillow", "opencv-python-headless"):
        total.update(f"{name}={metadata.version(name)}\n".encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def _shared_folder(
    encodings: Path | None, inputs: _Inputs, model: ModelOptions | None, options: PredictOptions
) -> Path | None:
    """The folder of one encoder: all that its features depend on besides the pixels. Random weights are shared with nobody."""
    if encodings is None or inputs.base_digest is None or not options.encodings_gb or not model:
        return None
    encoder = {
        "backbone": model.backbone,
        "weights": inputs.base_digest,
        "precision": options.precision,
        "device": pick_device(options.device).type,
        "threads": options.threads,
        "code": _code_digest(),
    }
    return encodings / hashlib.sha256(atomic.json_bytes(encoder)).hexdigest()[:16]


@contextlib.contextmanager
def _partial_folder(out: Path, fingerprint: str) -> Iterator[Path]:
    """The folder of unfinished work, emptied unless it was made from the same inputs; held by one process at a time."""
    work = out.with_name(f".{out.name}.partial")
    work.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.with_name(f".{out.name}.lock"), remove=True)
    if not lock.acquire(0):
        raise UserError(
            "another process is writing these predictions", file=out, cure="wait for it, or end it"
        )
    try:
        note = work / INPUTS
        if not note.is_file() or note.read_bytes() != atomic.json_bytes(
            {"fingerprint": fingerprint}
        ):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            atomic.write_json(note, {"fingerprint": fingerprint})
        yield work
    finally:
        lock.release()


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _kind(entry: systems.Entry) -> systems.SystemKind:
    return systems.load(entry.options.kind)


def _summary(
    inputs: _Inputs,
    images: passes.BenchmarkImages,
    job: Job,
    work: Path,
    name: str,
    entries: tuple[systems.Entry, ...],
    given: Mapping[str, systems.Given],
) -> Row:
    benchmark = str(inputs.index["benchmark"])
    told: Row = atomic.read_json(work / ABOUT) if job.entries else {}
    protocols = told.get("protocols", {}) | {s: dict(one.protocol) for s, one in given.items()}
    lacking = {s: list(one.unsupported) for s, one in given.items() if one.unsupported}
    unsupported = told.get("unsupported", {}) | lacking
    found = {"protocols": protocols, "unsupported": unsupported, "failed": told.get("failed", {})}
    about = {name: content for name, content in found.items() if content}
    digests = [checkpoint.sha256(path) for path in sorted(work.glob("part-*.parquet"))]
    return {
        "version": VERSION,
        "benchmark": benchmark,
        "model": name.removeprefix(f"{benchmark}-"),
        "backbone": job.context.model and job.context.model.backbone,
        "systems": [system.name for system in systems.of_entries(entries)],
        "n_images": len(images),
        "n_prompts": images.n_prompts,
        "resize": job.options.resize,
        "mask_prompt": job.options.mask_prompt,
        "precision": job.options.precision,
        "device": told.get("device") or pick_device(job.options.device).type,
        # What is computed together decides the last bits, and these now and then a pixel.
        "arithmetic": {
            "threads": torch.get_num_threads(),
            "batch_images": job.options.batch_images,
            "images_per_part": job.options.images_per_part,
            "prompts_per_pass": job.options.prompts_per_pass,
            **halved(work),
        },
        "checkpoint_digest": inputs.checkpoint_digest,
        "prompts_digest": inputs.prompts_digest,
        "digest": hashlib.sha256("".join(digests).encode()).hexdigest(),
        **about,
    }
